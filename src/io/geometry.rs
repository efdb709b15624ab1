//! The grid that ITK's NIfTI reader takes from a header.
//!
//! Spacing always comes from `pixdim`. The sform gives directions and origin if it is
//! orthonormal once its columns are normalized and it is either the scanner's
//! (`sform_code` 1), the only one, or similar to the qform; otherwise the qform
//! does. Similar are two transforms with the same left singular vectors, singular values
//! and origin, which may differ by the direction of whole axes: an image whose `pixdim[0]`
//! lost its sign still has its sform. Tolerances are those of ITK 5.4.

use super::failure::Failure;
use super::header::SourceHeader;
use super::svd;
use crate::volume::{Affine, Grid};

/// Largest deviation of normalized directions from orthonormal, and of two transforms
/// that count as similar (cosines, and the file's unit for lengths and origins).
const TOLERANCE: f64 = 1e-4;

/// Deviation, in voxels, from which two transforms are reported as contradicting.
const NOTEWORTHY_VOXELS: f64 = 0.1;

/// A grid, and what is odd about the way it was found.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) grid: Grid,
    /// Where the file places the image; the grid may have simpler axes.
    pub(super) affine: Affine,
    pub(super) warnings: Vec<String>,
}

/// Directions and origin of a grid; world axes are right, anterior, superior.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Unit step along the file's x, y and z.
    pub(super) directions: [[f64; 3]; 3],
    /// Steps as the transform has them, in the file's unit and ITK's precision.
    steps: [[f32; 3]; 3],
    /// Position of the first voxel, in the file's unit.
    pub(super) origin: [f64; 3],
}

/// Finds the grid of an image of `shape` `[z, y, x]`.
pub(super) fn resolve(header: &SourceHeader, shape: [usize; 3]) -> Result<Geometry, Failure> {
    let unit_mm = match header.xyzt_units & 7 {
        1 => 1000.0,
        3 => 1e-3,
        _ => 1.0,
    };
    let stored = [header.pixdim[1], header.pixdim[2], header.pixdim[3]];
    let spacing = stored.map(|s| s * unit_mm);
    if let Some(axis) = spacing.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(Failure::unusable(
            format!("a voxel spacing of {} along axis {}", stored[axis], axis + 1),
            // ITK takes 1 for none, and reverses an axis whose spacing is negative though its
            // direction is known, which nibabel does not: one of them mirrors the patient.
            "finite spacings above 0",
        ));
    }

    let mut warnings = Vec::new();
    let frame = choose(header, stored, &mut warnings)?;
    let mut rows = [[0.0; 4]; 3];
    for (r, row) in rows.iter_mut().enumerate() {
        for c in 0..3 {
            row[c] = frame.directions[c][r] * spacing[c];
        }
        row[3] = frame.origin[r] * unit_mm;
    }
    let [x, y, z] = spacing;
    let affine = Affine(rows);
    Ok(Geometry { grid: Grid { shape, spacing: [z, y, x], affine }, affine, warnings })
}

fn choose(
    header: &SourceHeader,
    spacing: [f64; 3],
    warnings: &mut Vec<String>,
) -> Result<Frame, Failure> {
    let (has_q, has_s) = (header.qform_code > 0, header.sform_code > 0);
    if !has_q && !has_s {
        warnings.push(
            "the orientation is unknown (qform_code and sform_code are 0): axes are taken \
             as left, posterior, superior"
                .to_owned(),
        );
        let directions = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]];
        return Ok(Frame::new(directions, spacing, [0.0; 3]));
    }

    let sform = if has_s { sform(header) } else { None };
    let qform = if has_q { qform(header, spacing) } else { None };
    match (sform, qform) {
        (Some(s), Some(q)) => {
            let use_sform = header.sform_code == 1 || s.is_similar_to(&q);
            if s.apart_voxels(&q, header, spacing) > NOTEWORTHY_VOXELS {
                warnings.push(format!(
                    "the sform and the qform place the image differently; the {} is used, \
                     as in ITK",
                    if use_sform { "sform" } else { "qform" }
                ));
            }
            Ok(if use_sform { s } else { q })
        }
        (None, Some(q)) => {
            if has_s {
                warnings.push(
                    "the sform is sheared or singular; the qform is used, as in ITK".to_owned(),
                );
            }
            Ok(q)
        }
        (Some(s), None) => {
            let lengths = s.steps.map(|step| length(step.map(f64::from)));
            if (0..3).any(|i| (lengths[i] - spacing[i]).abs() > 0.01 * spacing[i]) {
                warnings.push(format!(
                    "the sform steps by {lengths:?} but the voxel spacing is {spacing:?}; the \
                     spacing is used, as in ITK"
                ));
            }
            Ok(s)
        }
        (None, None) => Err(Failure::unusable(
            if has_s { "a sheared or singular affine" } else { "a qform that is not finite" },
            "orthogonal axes",
        )),
    }
}

impl Frame {
    fn new(directions: [[f64; 3]; 3], lengths: [f64; 3], origin: [f64; 3]) -> Self {
        let step = |c: usize| directions[c].map(|v| (v * lengths[c]) as f32);
        Self { directions, steps: std::array::from_fn(step), origin }
    }

    /// Whether ITK takes the two for the same, which is not whether they place the image alike.
    fn is_similar_to(&self, other: &Self) -> bool {
        let near = |a: f32, b: f32| f64::from((a - b).abs()) <= TOLERANCE;
        let (own, its) = (svd::decompose(self.steps), svd::decompose(other.steps));
        let product =
            |i: usize, j: usize| (0..3).map(|k| own.vectors[k][i] * its.vectors[k][j]).sum::<f32>();
        (0..3).all(|i| {
            near(own.values[i], its.values[i])
                && near(self.origin[i] as f32, other.origin[i] as f32)
                && (0..3).all(|j| near(product(i, j), if i == j { 1.0 } else { 0.0 }))
        })
    }

    /// How far apart two frames place any corner of the image, in voxels.
    fn apart_voxels(&self, other: &Self, header: &SourceHeader, spacing: [f64; 3]) -> f64 {
        let mut farthest: f64 = 0.0;
        for corner in 0..8 {
            let mut gap = [0.0; 3];
            for (r, g) in gap.iter_mut().enumerate() {
                *g = self.origin[r] - other.origin[r];
                for (c, step) in spacing.iter().enumerate() {
                    let last = (header.dim[c + 1] - 1) as f64 * f64::from((corner >> c) & 1);
                    *g += last * step * (self.directions[c][r] - other.directions[c][r]);
                }
            }
            farthest = farthest.max(gap.iter().map(|g| g * g).sum::<f64>().sqrt());
        }
        farthest / spacing.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

pub(super) fn length(step: [f64; 3]) -> f64 {
    step.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The sform, if it is finite and its axes are orthogonal.
fn sform(header: &SourceHeader) -> Option<Frame> {
    let rows = &header.srow;
    if !rows.iter().flatten().all(|v| v.is_finite()) {
        return None;
    }
    let columns: [[f64; 3]; 3] = std::array::from_fn(|c| std::array::from_fn(|r| rows[r][c]));
    let lengths = columns.map(length);
    if lengths.iter().any(|&l| !l.is_finite() || l < f64::from(f32::MIN_POSITIVE)) {
        return None;
    }
    let directions: [[f64; 3]; 3] = std::array::from_fn(|c| columns[c].map(|v| v / lengths[c]));
    for i in 0..3 {
        for j in 0..3 {
            let product: f64 = (0..3).map(|k| directions[k][i] * directions[k][j]).sum();
            if (product - if i == j { 1.0 } else { 0.0 }).abs() > TOLERANCE {
                return None;
            }
        }
    }
    let steps = columns.map(|column| column.map(|v| v as f32));
    Some(Frame { directions, steps, origin: rows.map(|row| row[3]) })
}

/// The qform, if it is finite; it cannot be anything but orthogonal.
pub(super) fn qform(header: &SourceHeader, spacing: [f64; 3]) -> Option<Frame> {
    let [mut b, mut c, mut d] = header.quaternion;
    if !header.quaternion.iter().chain(&header.offset).all(|v| v.is_finite()) {
        return None;
    }
    // As the NIfTI library: a quaternion a little longer than one is a half turn.
    let mut a = 1.0 - (b * b + c * c + d * d);
    if a < 1e-7 {
        let length = (b * b + c * c + d * d).sqrt();
        (b, c, d) = (b / length, c / length, d / length);
        a = 0.0;
    } else {
        a = a.sqrt();
    }
    let flip = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let directions = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
        [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - c * c - b * b]
            .map(|v| v * flip),
    ];
    let finite = directions.iter().flatten().all(|v| v.is_finite());
    finite.then(|| Frame::new(directions, spacing, header.offset))
}
