//! The grid that nibabel, and with it two of nnU-Net's readers, takes from a header.
//!
//! Spacing is `pixdim` without its sign. The affine is the coded sform, else the coded qform, else
//! one about the image's center with x reversed. It need not be orthogonal.

use super::failure::Failure;
use super::geometry::{self, Geometry};
use super::header::{Header, SourceHeader};
use crate::volume::{Affine, Grid};

/// Whether an image will be brought to the closest right, anterior, superior axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Its axes stay as stored.
    No,
    /// It will; spacing comes from the affine if an axis moves.
    Closest,
    /// It will, by a program that keeps the affine alone: spacing comes from it in any case,
    /// rounded to the 32 bits of the header that program writes.
    ByAffine,
}

/// nibabel scales no values where the slope is zero or not finite.
pub(super) fn unscaled(header: &mut Header) {
    if header.slope_is_void {
        (header.encoding.slope, header.encoding.intercept) = (1.0, 0.0);
    }
}

/// Finds the grid of an image of `shape` `[z, y, x]`.
pub(super) fn resolve(
    header: &SourceHeader,
    shape: [usize; 3],
    turned: Turned,
) -> Result<Geometry, Failure> {
    let steps = [header.pixdim[1], header.pixdim[2], header.pixdim[3]].map(f64::abs);
    if let Some(axis) = steps.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(Failure::unusable(
            format!("a voxel spacing of {} along axis {}", header.pixdim[axis + 1], axis + 1),
            "finite spacings above 0",
        ));
    }
    let mut rows = affine(header, steps, shape)?;
    let placed = Affine(rows);
    let mut spacing = steps;
    let mut warnings = Vec::new();
    if header.pixdim[1..4].iter().any(|&s| s < 0.0) {
        warnings.push(
            "a voxel spacing is negative: its sign is dropped, as in nibabel; ITK would reverse \
             that axis"
                .to_owned(),
        );
    }
    if turned != Turned::No {
        let lengths: [f64; 3] =
            std::array::from_fn(|c| (0..3).map(|r| rows[r][c] * rows[r][c]).sum::<f64>().sqrt());
        let usable = |l: &f64| l.is_finite() && *l >= f64::from(f32::MIN_POSITIVE);
        if let Some(length) = lengths.iter().find(|length| !usable(length)) {
            let found = format!("an affine with an axis of length {length}");
            return Err(Failure::unusable(found, "three axes"));
        }
        let axes = closest(&rows, lengths);
        let moves = (0..3).any(|c| axes[c] != (c, false));
        match turned {
            Turned::ByAffine => spacing = lengths.map(|length| f64::from(length as f32)),
            _ if moves => spacing = lengths,
            _ => {}
        }
        // What the orientation is decided from: exactly the axes nibabel chose.
        for (c, &(world, against)) in axes.iter().enumerate() {
            for (r, row) in rows.iter_mut().enumerate() {
                let sign = if against { -1.0 } else { 1.0 };
                row[c] = if r == world { sign * lengths[c] } else { 0.0 };
            }
        }
        if header.sform_code <= 0 && header.qform_code <= 0 {
            warnings.push("the orientation is unknown: x is taken as running left".to_owned());
        }
    }
    let [x, y, z] = spacing;
    let grid = Grid { shape, spacing: [z, y, x], affine: Affine(rows) };
    Ok(Geometry { grid, affine: placed, warnings })
}

fn affine(
    header: &SourceHeader,
    steps: [f64; 3],
    [z, y, x]: [usize; 3],
) -> Result<[[f64; 4]; 3], Failure> {
    if header.sform_code > 0 {
        if header.srow.iter().flatten().all(|v| v.is_finite()) {
            return Ok(header.srow);
        }
        return Err(Failure::unusable("an sform that is not finite", "finite numbers"));
    }
    let mut rows = [[0.0; 4]; 3];
    if header.qform_code > 0 {
        let frame = geometry::qform(header, steps)
            .ok_or_else(|| Failure::unusable("a qform that is not finite", "finite numbers"))?;
        for (r, row) in rows.iter_mut().enumerate() {
            for c in 0..3 {
                row[c] = frame.directions[c][r] * steps[c];
            }
            row[3] = frame.origin[r];
        }
        return Ok(rows);
    }
    let sizes = [x, y, z];
    for (k, row) in rows.iter_mut().enumerate() {
        row[k] = if k == 0 { -steps[k] } else { steps[k] };
        row[3] = -row[k] * (sizes[k] as f64 - 1.0) / 2.0;
    }
    Ok(rows)
}

/// For each of the file's axes the world axis it is nearest to, and whether it runs against
/// it, as `nibabel.orientations.io_orientation` (since 5.4): from the orthogonal matrix nearest
/// to the directions, from the file's most certain axis to its least, each world axis once.
fn closest(rows: &[[f64; 4]; 3], lengths: [f64; 3]) -> [(usize, bool); 3] {
    let directions = std::array::from_fn(|r| std::array::from_fn(|c| rows[r][c] / lengths[c]));
    let nearest = orthogonal(directions);
    let certainty: [f64; 3] =
        std::array::from_fn(|c| (0..3).map(|r| nearest[r][c].abs()).fold(0.0, f64::max));
    let mut order = [0, 1, 2];
    // Stable: of equals, the first in the file.
    order.sort_by(|&a, &b| certainty[b].total_cmp(&certainty[a]));
    let (mut axes, mut taken) = ([(0, false); 3], [false; 3]);
    for c in order {
        let free = (0..3).filter(|&r| !taken[r]);
        // The first of equals, as `numpy.argmax`.
        let world = free.fold(None::<usize>, |best, r| match best {
            Some(b) if nearest[b][c].abs() >= nearest[r][c].abs() => Some(b),
            _ => Some(r),
        });
        let world = world.unwrap_or(c);
        taken[world] = true;
        axes[c] = (world, nearest[world][c] < 0.0);
    }
    axes
}

type Matrix = [[f64; 3]; 3];

/// The orthogonal factor of the polar decomposition, by Newton's iteration (Higham 1986); the
/// matrix itself where it is singular.
fn orthogonal(matrix: Matrix) -> Matrix {
    let mut current = matrix;
    for _ in 0..60 {
        let Some(inverse) = inverse_transposed(&current) else { return matrix };
        let next: Matrix =
            std::array::from_fn(|r| std::array::from_fn(|c| 0.5 * (current[r][c] + inverse[r][c])));
        let moved = (0..9).map(|k| (next[k / 3][k % 3] - current[k / 3][k % 3]).abs());
        let settled = moved.fold(0.0, f64::max) < 1e-15;
        current = next;
        if settled {
            break;
        }
    }
    current
}

/// The matrix of cofactors over the determinant.
fn inverse_transposed(m: &Matrix) -> Option<Matrix> {
    let cofactor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    (determinant.abs() > 1e-9)
        .then(|| std::array::from_fn(|r| std::array::from_fn(|c| cofactor(r, c) / determinant)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_sheared_and_turned_directions() {
        let with_zero = |m: Matrix| m.map(|row| [row[0], row[1], row[2], 0.0]);
        let turned = [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        assert_eq!(closest(&with_zero(turned), [1.0; 3]), [(1, false), (2, false), (0, true)]);
        let sheared = [[-1.0, 0.2, 0.0], [0.1, 1.0, 0.3], [0.0, 0.0, 1.0]];
        assert_eq!(closest(&with_zero(sheared), [1.0; 3]), [(0, true), (1, false), (2, false)]);
    }

    /// As nibabel 5.4.2; in the order of the file, the second to fourth would differ.
    #[test]
    fn the_most_certain_axis_chooses_first() {
        let (up, down) = (false, true);
        let cases: [(Matrix, [(usize, bool); 3]); 4] = [
            ([[1.0, 0.1, 0.0], [0.0, 0.9, 0.2], [0.1, 0.0, -1.0]], [(0, up), (1, up), (2, down)]),
            ([[-0.7, -0.1, 0.8], [1.5, -1.3, 1.5], [1.3, 0.8, 0.3]], [(1, up), (2, up), (0, up)]),
            (
                [[-1.4, 0.5, 1.0], [-0.2, -1.1, 0.9], [-1.3, -0.7, 0.6]],
                [(2, down), (0, up), (1, up)],
            ),
            (
                [[-0.8, 0.2, -0.4], [0.8, 1.0, -0.1], [-1.5, 1.4, 1.1]],
                [(2, down), (1, up), (0, down)],
            ),
        ];
        for (matrix, expected) in cases {
            let lengths = std::array::from_fn(|c| {
                matrix.map(|row| row[c] * row[c]).iter().sum::<f64>().sqrt()
            });
            let rows = matrix.map(|[x, y, z]| [x, y, z, 0.0]);
            assert_eq!(closest(&rows, lengths), expected, "{matrix:?}");
        }
    }

    #[test]
    fn the_nearest_orthogonal_matrix_is_orthogonal() {
        let q = orthogonal([[0.9, 0.3, 0.1], [-0.2, 1.1, 0.0], [0.05, -0.1, 0.8]]);
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| q[k][i] * q[k][j]).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{q:?}");
            }
        }
    }
}
