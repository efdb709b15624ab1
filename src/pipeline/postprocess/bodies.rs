//! Vertebral bodies that were mixed up: one per component, numbered along the spine, then grown.
//!
//! What `TotalSegmentator`'s `postprocess_vertebrae_pp` does, from bodies that its network was
//! taught 3 mm too small: labels that touch cannot be right, as bodies do not touch.

use super::components::{Components, Connectivity};
use super::map::{Classes, Edit, Map};
use super::patient::PatientAxes;
use super::runs::{Runs, Voxel};
use super::steps::{Fields, Table, within};
use crate::Mismatch;
use crate::volume::Spacing;
use serde::Deserialize;

/// What the step is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Bodies<'a> {
    /// The labels from head to foot.
    pub chain: &'a [u16],
    /// Components smaller than this are no bodies.
    pub min_mm3: f64,
    /// How much each label grows in the end.
    pub grow_mm: f64,
}

/// Renumbers the labels of the chain if two of them touch, and grows each of them.
///
/// Components of all labels together, through faces, are counted from the lowest up: it gets the
/// lowest label found; if the first of the chain was found and the last was not, from the highest
/// down. Returns the number of voxels changed.
pub fn renumber<T: Voxel>(map: &mut Map<'_, T>, axes: &PatientAxes, bodies: &Bodies<'_>) -> u64 {
    let mut changed = 0;
    if touch(map.runs()) {
        let components =
            Components::new(map.runs(), &Classes::union(bodies.chain), Connectivity::Six);
        let labels = numbered(map, axes, bodies, &components);
        changed += map.relabel(|i, run| match components.of_run[i] {
            Components::NONE => run.label,
            component => labels[component as usize],
        });
    }
    let spacing = map.spacing();
    changed + grow(map, bodies.chain, bodies.grow_mm, spacing)
}

/// The label of each component; 0 for what is no body.
fn numbered<T: Voxel>(
    map: &mut Map<'_, T>,
    axes: &PatientAxes,
    bodies: &Bodies<'_>,
    components: &Components,
) -> Vec<u16> {
    let voxel_mm3 = map.voxel_mm3();
    let is_body = |k: usize| components.voxels[k] as f64 * voxel_mm3 >= bodies.min_mm3;
    let count = components.voxels.len();
    let (mut heights, mut firsts) = (vec![0.0; count], vec![[usize::MAX; 3]; count]);
    let mut present = vec![false; bodies.chain.len()];
    map.runs().for_each(|z, y, i, run| {
        let component = components.of_run[i];
        if component == Components::NONE || !is_body(component as usize) {
            return;
        }
        let k = component as usize;
        for x in usize::from(run.start)..usize::from(run.end) {
            heights[k] += axes.position([z, y, x])[0];
        }
        firsts[k] = firsts[k].min([usize::from(run.start), y, z]);
        if let Some(at) = bodies.chain.iter().position(|label| *label == run.label) {
            present[at] = true;
        }
    });
    let mut order: Vec<usize> = (0..count).filter(|&k| is_body(k)).collect();
    // Of equally high ones, the one the reference counts first: `x` is its slowest axis.
    order.sort_by_key(|&k| firsts[k]);
    let height = |k: usize| heights[k] / components.voxels[k] as f64;
    let mut labels = vec![0; count];
    let from_top = present.first() == Some(&true) && present.last() == Some(&false);
    if from_top {
        order.sort_by(|&a, &b| height(b).total_cmp(&height(a)));
        order.iter().zip(bodies.chain).for_each(|(&k, &label)| labels[k] = label);
    } else if let Some(lowest) = present.iter().rposition(|&there| there) {
        order.sort_by(|&a, &b| height(a).total_cmp(&height(b)));
        let upwards = bodies.chain[..=lowest].iter().rev();
        order.iter().zip(upwards).for_each(|(&k, &label)| labels[k] = label);
    }
    labels
}

/// Whether voxels of two labels share a face.
fn touch(runs: &Runs) -> bool {
    let [depth, height, _] = runs.shape();
    let all = runs.all();
    let meet = |a: std::ops::Range<usize>, b: std::ops::Range<usize>| {
        let mut first = b.start;
        all[a].iter().filter(|run| run.label != 0).any(|run| {
            while first < b.end && all[first].end <= run.start {
                first += 1;
            }
            let over = all[first..b.end].iter().take_while(|other| other.start < run.end);
            over.filter(|other| other.label != 0).any(|other| other.label != run.label)
        })
    };
    (0..depth).any(|z| {
        (0..height).any(|y| {
            let row = runs.row_range(z, y);
            let pieces = all[row.clone()].windows(2);
            let beside = pieces.into_iter().any(|pair| {
                let [a, b] = pair else { return false };
                let labeled = a.label != 0 && b.label != 0;
                labeled && a.label != b.label && a.end == b.start
            });
            beside
                || y > 0 && meet(row.clone(), runs.row_range(z, y - 1))
                || z > 0 && meet(row, runs.row_range(z - 1, y))
        })
    })
}

/// Grows each of `labels`, as it was, by an ellipsoid of `radius_mm` into background; where
/// several would take a voxel, the first does. Returns the number of voxels changed.
///
/// The ellipsoid is the reference's: its voxels begin `radius_mm` before the center and go on in
/// whole steps, so where a voxel does not divide the radius it is not symmetric.
pub fn grow<T: Voxel>(
    map: &mut Map<'_, T>,
    labels: &[u16],
    radius_mm: f64,
    spacing: Spacing,
) -> u64 {
    if radius_mm <= 0.0 {
        return 0;
    }
    let shape = map.shape();
    let pieces = ellipsoid(radius_mm, spacing);
    let mut edits = Vec::new();
    for &label in labels {
        map.runs().for_each(|z, y, _, run| {
            if run.label != label {
                return;
            }
            for &([dz, dy], [from, to]) in &pieces {
                let place =
                    |at: usize, by: isize, n: usize| at.checked_add_signed(by).filter(|&at| at < n);
                let (Some(z), Some(y)) = (place(z, dz, shape[0]), place(y, dy, shape[1])) else {
                    continue;
                };
                let start = (run.start as isize + from).max(0) as usize;
                let end = (run.end as isize + to).clamp(0, shape[2] as isize) as usize;
                if start < end {
                    let (start, end) = (start as u16, end as u16);
                    edits.push(Edit { z: z as u32, y: y as u32, start, end, label });
                }
            }
        });
    }
    map.apply(&edits, |old| old == 0)
}

/// Offsets of the ellipsoid's voxels as rows: `[z, y]`, and the first and last along `x`.
fn ellipsoid(radius_mm: f64, spacing: Spacing) -> Vec<([isize; 2], [isize; 2])> {
    let radii = spacing.map(|s| radius_mm / s);
    // `numpy.ogrid[-r:r+1]` about its middle, as `scipy.ndimage` centers a structure.
    let along = |k: usize| -> Vec<(isize, f64)> {
        let radius = radii[k];
        let count = (2.0 * radius + 1.0).ceil() as isize;
        let share = |at: isize| {
            let offset = -radius + at as f64;
            (at - count / 2, offset * offset / (radius * radius))
        };
        (0..count).map(share).collect()
    };
    let (zs, ys, xs) = (along(0), along(1), along(2));
    let mut pieces = Vec::new();
    for &(dz, z) in &zs {
        for &(dy, y) in &ys {
            let inside = |&&(_, x): &&(isize, f64)| x + y + z <= 1.0;
            let first = xs.iter().find(inside).map(|(dx, _)| *dx);
            let last = xs.iter().rfind(inside).map(|(dx, _)| *dx);
            if let (Some(first), Some(last)) = (first, last) {
                pieces.push(([dz, dy], [first, last]));
            }
        }
    }
    pieces
}

/// The step `vertebral_bodies`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VertebralBodies {
    chain: Vec<String>,
    min_mm3: f64,
    grow_mm: f64,
}

impl Fields for VertebralBodies {
    type Labels = Vec<u16>;

    fn check(&self) -> Result<(), Mismatch> {
        within("grow_mm", self.grow_mm, 100.0)?;
        within("min_mm3", self.min_mm3, 1e9)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.chain(&self.chain)
    }

    fn apply<T: Voxel>(
        &self,
        chain: &Vec<u16>,
        map: &mut Map<'_, T>,
        axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        let bodies = Bodies { chain, min_mm3: self.min_mm3, grow_mm: self.grow_mm };
        Ok(renumber(map, axes, &bodies))
    }
}
