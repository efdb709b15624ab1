//! Cortical and trabecular bone inside bone labels, from Hounsfield units and depth.
//!
//! How it works and where it ends is in `docs/postprocessing.md`. In short: from every voxel
//! of a bone's outermost layer a profile runs inward along the gradient of the depth. Its peak is
//! the cortex there, what follows is marrow; both are averaged over a neighborhood, and their
//! middle is the threshold of that place. Cortex is what exceeds it, near the surface
//! and connected to it.

use super::components::{Components, Connectivity};
use super::map::{Classes, Map};
use super::runs::{Runs, Voxel};
use super::{distance, keep};
use crate::pipeline::crop::{Box3, box_shape};
use crate::volume::{Spacing, VoxelView};
use ndarray::{Array3, s};
use rayon::prelude::*;

/// A bone and the labels its two parts get; the bone's own label may be one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bone {
    /// Label of the whole bone.
    pub label: u16,
    /// Label of its cortex.
    pub cortical: u16,
    /// Label of the rest.
    pub trabecular: u16,
}

/// No cortex is thicker than this, in millimetres; the femur's reaches about 8.
const MAX_THICKNESS_MM: f64 = 9.0;
/// How far profiles run inward.
const PROFILE_MM: f64 = 12.0;
/// Profiles are averaged over three cells per axis of this edge.
const CELL_MM: f64 = 4.0;
/// Peak and marrow closer than this are the same tissue.
const MIN_CONTRAST_HU: f64 = 120.0;
/// Bone as dense as this without marrow is cortex throughout: thin plates.
const SOLID_HU: f64 = 400.0;
/// Islands of marrow in the cortex smaller than this are pores or noise.
const MIN_MARROW_MM3: f64 = 10.0;
/// Planes treated together, besides the margin profiles need.
const PLANES: usize = 24;

/// Splits each of `bones` into cortical and trabecular bone.
///
/// `ct` is in Hounsfield units on the grid of `labels`. Returns the number of voxels of cortical
/// and of trabecular bone.
///
/// # Panics
///
/// If the shapes differ, or a label does not fit the map's type.
pub fn split<'a, T: Voxel>(
    ct: impl Into<VoxelView<'a>>,
    labels: &mut Map<'_, T>,
    bones: &[Bone],
) -> (u64, u64) {
    let ct = ct.into();
    let (shape, spacing) = (labels.shape(), labels.spacing());
    assert_eq!(ct.shape(), shape, "image and labels share a grid");
    let runs = labels.runs();
    let boxes = runs.boxes();
    let parts: Vec<_> = bones
        .iter()
        .filter_map(|bone| {
            let bounds = boxes.get(usize::from(bone.label))?.clone()?;
            let view = ct.cropped(&bounds);
            Some((bone, part(view, runs, bone.label, &bounds, spacing), bounds))
        })
        .collect();
    let mut edits = Vec::new();
    let mut counts = (0, 0);
    for (bone, part, bounds) in &parts {
        Runs::new(part.view()).for_each(|z, y, _, run| {
            let cortical = run.label == u16::from(CORTICAL);
            let count = if cortical { &mut counts.0 } else { &mut counts.1 };
            *count += run.voxels();
            edits.push(super::map::Edit {
                z: (bounds[0].start + z) as u32,
                y: (bounds[1].start + y) as u32,
                start: bounds[2].start as u16 + run.start,
                end: bounds[2].start as u16 + run.end,
                label: if cortical { bone.cortical } else { bone.trabecular },
            });
        });
    }
    labels.apply(&edits, |_| true);
    counts
}

/// Bytes that [`split`] holds at most, besides image and labels.
#[must_use]
pub fn split_bytes(shape: [usize; 3], spacing: Spacing, threads: usize) -> u64 {
    let [depth, height, width] = shape.map(|n| n as u64);
    let planes = (PLANES + 2 * margin(spacing)) as u64;
    // A slab's mask and its depths; of the volume one byte of parts, and as much for runs.
    let slab = (planes.min(depth) + 2) * (height + 2) * (width + 2) * 5;
    2 * depth * height * width + slab * threads as u64
}

/// Planes beyond a slab that profiles reach.
fn margin(spacing: Spacing) -> usize {
    ((PROFILE_MM + CELL_MM) / spacing[0]).ceil() as usize
}

const CORTICAL: u8 = 1;
const TRABECULAR: u8 = 2;

/// One bone's parts over its bounding box; `ct` is cropped to it.
fn part(ct: VoxelView<'_>, runs: &Runs, label: u16, bounds: &Box3, spacing: Spacing) -> Array3<u8> {
    let bone = Mask { runs, label, bounds: bounds.clone(), spacing };
    let starts: Vec<usize> = (0..bounds[0].len()).step_by(PLANES).collect();

    let profiles: Vec<_> = starts.par_iter().map(|&z| bone.slab(z).profiles(ct, spacing)).collect();
    let mut cells = Cells::new(box_shape(bounds), spacing);
    for profile in profiles.into_iter().flatten() {
        cells.add(&profile);
    }
    let thresholds = cells.thresholds();

    let mut out = Array3::zeros(box_shape(bounds));
    let slabs: Vec<_> = out.axis_chunks_iter_mut(ndarray::Axis(0), PLANES).collect();
    let outermost: Vec<_> = (slabs.into_par_iter().zip(&starts))
        .map(|(mut slab, &z)| bone.slab(z).classify(ct, spacing, &cells, &thresholds, &mut slab))
        .collect();

    // Bright trabeculae deep inside are not cortex: that begins at the surface.
    let parts = Runs::new(out.view());
    let components =
        Components::new(&parts, &Classes::union(&[CORTICAL.into()]), Connectivity::TwentySix);
    let mut rooted = vec![false; components.voxels.len()];
    let outermost: Vec<[usize; 3]> = outermost.into_iter().flatten().collect();
    for &[z, y, x] in &outermost {
        let row = parts.row_range(z, y);
        let at = row.start + parts.row(z, y).partition_point(|run| usize::from(run.end) <= x);
        if let Some(rooted) = rooted.get_mut(components.of_run[at] as usize) {
            *rooted = true;
        }
    }
    let mut map = Map::new(out.view_mut(), spacing);
    keep::remove(&mut map, &components, |i| rooted[i], TRABECULAR.into(), None);
    let marrow = Classes::union(&[TRABECULAR.into()]);
    let near = spacing.iter().fold(0.0, |a: f64, &b| a.max(b)) * 2.0;
    keep::remove_small(&mut map, &marrow, Connectivity::Six, MIN_MARROW_MM3, Some(near));
    // What found no cortex near it, an isolated crumb of bone, stays what it is by default.
    parts.for_each(|z, y, _, run| {
        for x in run.start..run.end {
            let part = &mut out[[z, y, usize::from(x)]];
            *part = if *part == 0 { TRABECULAR } else { *part };
        }
    });
    out
}

/// One bone in its bounding box.
struct Mask<'a> {
    runs: &'a Runs,
    label: u16,
    bounds: Box3,
    spacing: Spacing,
}

impl Mask<'_> {
    /// The planes from `z` on, with the margin that profiles need.
    fn slab(&self, z: usize) -> Slab {
        let margin = margin(self.spacing);
        let depth = self.bounds[0].len();
        let own = z..(z + PLANES).min(depth);
        let wide = own.start.saturating_sub(margin)..(own.end + margin).min(depth);
        let volume = self.runs.shape();
        // One voxel beyond the bone, so that its surface is in sight; not beyond the volume.
        let shape: [usize; 3] =
            std::array::from_fn(|k| if k == 0 { wide.len() } else { self.bounds[k].len() } + 2);
        let mut outside = Array3::from_elem(shape, true);
        for (i, z) in (self.bounds[0].start + wide.start..).take(wide.len()).enumerate() {
            for (j, y) in self.bounds[1].clone().enumerate() {
                for run in self.runs.row(z, y).iter().filter(|run| run.label == self.label) {
                    let x = |at: u16| usize::from(at) - self.bounds[2].start + 1;
                    outside.slice_mut(s![i + 1, j + 1, x(run.start)..x(run.end)]).fill(false);
                }
            }
        }
        let first = [self.bounds[0].start + wide.start, self.bounds[1].start, self.bounds[2].start];
        let last = [self.bounds[0].start + wide.end, self.bounds[1].end, self.bounds[2].end];
        for k in 0..3 {
            let inner = k == 0;
            let cut = |at_edge: bool, z_edge: bool| at_edge || inner && z_edge;
            if cut(first[k] == 0, wide.start > 0) {
                outside.index_axis_mut(ndarray::Axis(k), 0).fill(false);
            }
            if cut(last[k] == volume[k], wide.end < depth) {
                outside.index_axis_mut(ndarray::Axis(k), shape[k] - 1).fill(false);
            }
        }
        let mut depths = distance::squared(outside.view(), self.spacing);
        depths.mapv_inplace(f32::sqrt);
        // Beyond the bone depth is 0; cut faces are not bone either.
        Slab { offset: wide.start, own, depths }
    }
}

/// Planes of one bone with the depth of each voxel, and a border of one voxel around.
struct Slab {
    /// First plane of `depths` inside the border, in the bone's box.
    offset: usize,
    own: std::ops::Range<usize>,
    /// Millimetres to the nearest center outside the bone.
    depths: Array3<f32>,
}

/// What the profile from one voxel of the outermost layer found.
struct Profile {
    voxel: [usize; 3],
    peak: f64,
    marrow: f64,
}

impl Slab {
    fn depth(&self, [z, y, x]: [usize; 3]) -> f64 {
        f64::from(self.depths[[z - self.offset + 1, y + 1, x + 1]])
    }

    /// Calls `f` with every voxel of the bone in the slab's own planes, by its place in the box.
    fn each(&self, mut f: impl FnMut([usize; 3], f64)) {
        let [_, height, width] = self.depths.dim().into();
        for z in self.own.clone() {
            for (y, x) in (0..height - 2).flat_map(|y| (0..width - 2).map(move |x| (y, x))) {
                let depth = self.depth([z, y, x]);
                if depth > 0.0 {
                    f([z, y, x], depth);
                }
            }
        }
    }

    /// The unit vector of steepest increase of depth, in millimetres.
    fn inward(&self, [z, y, x]: [usize; 3], spacing: Spacing) -> Option<[f64; 3]> {
        let at = [z - self.offset + 1, y + 1, x + 1];
        let slope: [f64; 3] = std::array::from_fn(|k| {
            let (mut above, mut below) = (at, at);
            above[k] += 1;
            below[k] -= 1;
            let rise = f64::from(self.depths[above]) - f64::from(self.depths[below]);
            if rise.is_finite() { rise / (2.0 * spacing[k]) } else { 0.0 }
        });
        let length = slope.iter().map(|g| g * g).sum::<f64>().sqrt();
        (length > 1e-6).then(|| slope.map(|g| g / length))
    }

    /// Voxels inward from `voxel`, each once, to the bone's middle or `limit` millimetres.
    fn walk(
        &self,
        voxel: [usize; 3],
        spacing: Spacing,
        limit: f64,
        mut f: impl FnMut([usize; 3]) -> bool,
    ) {
        let Some(inward) = self.inward(voxel, spacing) else { return };
        let step = spacing.iter().fold(f64::INFINITY, |a, &b| a.min(b)) / 2.0;
        let shape = self.depths.dim();
        let shape = [self.offset + shape.0 - 2, shape.1 - 2, shape.2 - 2];
        let (mut last, mut deepest, mut at) = (voxel, self.depth(voxel), step);
        while at <= limit {
            // Halves away from the voxel, so that a mirrored bone has the mirrored profile.
            let place: [f64; 3] =
                std::array::from_fn(|k| voxel[k] as f64 + (inward[k] * at / spacing[k]).round());
            let inside = |k: usize| place[k] >= 0.0 && place[k] < shape[k] as f64;
            if !(0..3).all(inside) || place[0] < self.offset as f64 {
                return;
            }
            let next = place.map(|p| p as usize);
            if next != last {
                let depth = self.depth(next);
                if depth < deepest - step || depth == 0.0 || !f(next) {
                    return;
                }
                (last, deepest) = (next, deepest.max(depth));
            }
            at += step;
        }
    }

    fn is_outermost(&self, [z, y, x]: [usize; 3]) -> bool {
        let at = [z - self.offset + 1, y + 1, x + 1];
        (0..3).any(|k| {
            let (mut above, mut below) = (at, at);
            above[k] += 1;
            below[k] -= 1;
            self.depths[above] == 0.0 || self.depths[below] == 0.0
        })
    }

    fn profiles(&self, ct: VoxelView<'_>, spacing: Spacing) -> Vec<Profile> {
        let mut found = Vec::new();
        self.each(|voxel, _| {
            if !self.is_outermost(voxel) {
                return;
            }
            let mut values = vec![f64::from(ct.at(voxel))];
            self.walk(voxel, spacing, PROFILE_MM, |next| {
                values.push(f64::from(ct.at(next)));
                true
            });
            let peak = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let after = values.iter().position(|&v| v == peak).unwrap_or(0);
            // Means of three, so that one noisy voxel is not the marrow.
            let means = values[after..].windows(3.min(values.len() - after));
            let means = means.map(|w| w.iter().sum::<f64>() / w.len() as f64);
            let marrow = means.fold(peak, f64::min);
            if peak.is_finite() && marrow.is_finite() {
                found.push(Profile { voxel, peak, marrow });
            }
        });
        found
    }

    /// Writes the slab's parts and returns its outermost voxels.
    fn classify(
        &self,
        ct: VoxelView<'_>,
        spacing: Spacing,
        cells: &Cells,
        thresholds: &[f64],
        out: &mut ndarray::ArrayViewMut3<'_, u8>,
    ) -> Vec<[usize; 3]> {
        let step = spacing.iter().fold(f64::INFINITY, |a, &b| a.min(b));
        let mut outermost = Vec::new();
        self.each(|voxel, depth| {
            let threshold = thresholds[cells.index(voxel)];
            let dense = |voxel: [usize; 3]| f64::from(ct.at(voxel)) >= threshold;
            let surface = self.is_outermost(voxel);
            let mut cortical = surface || depth <= MAX_THICKNESS_MM && dense(voxel);
            // Partial volume darkens the outside of the cortex: what has cortex right behind it
            // is cortex.
            if !cortical && depth <= 2.0 * step + 1.0 {
                self.walk(voxel, spacing, 2.0, |next| {
                    cortical |= dense(next);
                    !cortical
                });
            }
            if surface {
                outermost.push(voxel);
            }
            let [z, y, x] = voxel;
            out[[z - self.own.start, y, x]] = if cortical { CORTICAL } else { TRABECULAR };
        });
        outermost
    }
}

/// Sums of profiles over a coarse grid that lies symmetrically on the bone's box, so that parts do not
/// depend on the order in which a file stores its voxels.
struct Cells {
    shape: [usize; 3],
    edge: [f64; 3],
    /// Middle of the box, in voxels.
    middle: [f64; 3],
    /// Sum of peaks, sum of marrow, and their number.
    sums: Vec<[f64; 3]>,
}

impl Cells {
    fn new(shape: [usize; 3], spacing: Spacing) -> Self {
        let edge = spacing.map(|s| (CELL_MM / s).max(1.0));
        let middle = shape.map(|n| (n as f64 - 1.0) / 2.0);
        let cells = |k: usize| 2 * (middle[k] / edge[k]).round() as usize + 1;
        let shape: [usize; 3] = std::array::from_fn(cells);
        Self { shape, edge, middle, sums: vec![[0.0; 3]; shape.iter().product()] }
    }

    fn index(&self, voxel: [usize; 3]) -> usize {
        let [z, y, x] = std::array::from_fn(|k| {
            let cells_off = ((voxel[k] as f64 - self.middle[k]) / self.edge[k]).round();
            (cells_off + (self.shape[k] / 2) as f64) as usize
        });
        (z * self.shape[1] + y) * self.shape[2] + x
    }

    fn add(&mut self, profile: &Profile) {
        let index = self.index(profile.voxel);
        let cell = &mut self.sums[index];
        *cell = [cell[0] + profile.peak, cell[1] + profile.marrow, cell[2] + 1.0];
    }

    /// The threshold of each cell, from the profiles of the cells around it.
    ///
    /// Cells without profiles, deep inside, take the nearest that have some.
    fn thresholds(&self) -> Vec<f64> {
        let around = |at: [usize; 3], reach: usize| {
            let mut sum = [0.0; 3];
            let range =
                |k: usize| at[k].saturating_sub(reach)..(at[k] + reach + 1).min(self.shape[k]);
            for z in range(0) {
                for y in range(1) {
                    for x in range(2) {
                        let cell = self.sums[(z * self.shape[1] + y) * self.shape[2] + x];
                        sum = std::array::from_fn(|k| sum[k] + cell[k]);
                    }
                }
            }
            sum
        };
        let count = self.sums.len();
        (0..count)
            .into_par_iter()
            .map(|i| {
                let at = [
                    i / (self.shape[1] * self.shape[2]),
                    i / self.shape[2] % self.shape[1],
                    i % self.shape[2],
                ];
                // Beyond the thickest cortex no threshold is asked for.
                let enough = (1..=3).map(|reach| around(at, reach)).find(|sum| sum[2] >= 3.0);
                let Some([peak, marrow, n]) = enough else { return f64::INFINITY };
                let (peak, marrow) = (peak / n, marrow / n);
                match peak - marrow {
                    contrast if contrast >= MIN_CONTRAST_HU => f64::midpoint(peak, marrow),
                    _ if marrow >= SOLID_HU => f64::NEG_INFINITY,
                    _ => f64::INFINITY,
                }
            })
            .collect()
    }
}
