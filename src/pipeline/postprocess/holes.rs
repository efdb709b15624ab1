//! Filling holes: background that a structure encloses.

use super::components::{Components, FACES, FACES_ACROSS_ROWS, FACES_IN_PLANE};
use super::map::{Classes, Edit, Map};
use super::patient::PatientAxes;
use super::runs::{Run, Runs, Voxel};
use super::steps::{Fields, Select, Table, within};
use crate::Mismatch;
use crate::pipeline::crop::{Box3, box_shape};
use ndarray::{ArrayView3, s};
use rayon::prelude::*;
use serde::Deserialize;

/// Fills the holes of each of `labels`, as `scipy.ndimage.binary_fill_holes`.
///
/// A hole is what cannot be reached from outside through faces: in the volume, or with `axis`
/// (of `[z, y, x]`) within each slice across that axis. Only background in it is filled; other
/// labels stay. With `max_mm3`, larger holes (of the slice, with `axis`) stay too. All labels are treated as they were on entry; where one is nested in
/// another, the first of `labels` gets the voxels both enclose.
///
/// Returns the number of voxels filled.
///
/// # Panics
///
/// If `axis` is not below 3.
pub fn fill<T: Voxel>(
    map: &mut Map<'_, T>,
    labels: &[u16],
    axis: Option<usize>,
    max_mm3: Option<f64>,
) -> u64 {
    assert!(axis.is_none_or(|axis| axis < 3), "a volume has three axes");
    // A relative slack, so that a limit of a whole number of voxels includes that number.
    let most = max_mm3.map_or(u64::MAX, |mm3| (mm3 / map.voxel_mm3() * (1.0 + 1e-9)) as u64);
    let runs = map.runs();
    let boxes = runs.boxes();
    let edits: Vec<_> = labels
        .par_iter()
        .flat_map(|&label| match boxes.get(usize::from(label)) {
            Some(Some(bounds)) => holes(runs, label, bounds, axis, most),
            _ => Vec::new(),
        })
        .collect();
    map.apply(&edits, |old| old == 0)
}

/// The holes of one label, as edits that fill them.
fn holes(runs: &Runs, label: u16, bounds: &Box3, axis: Option<usize>, most: u64) -> Vec<Edit> {
    let shape = box_shape(bounds);
    let gaps = Runs::build(shape, |z, y, list| {
        let row = runs.row(bounds[0].start + z, bounds[1].start + y);
        let mut from = bounds[2].start as u16;
        for run in row.iter().filter(|run| run.label == label) {
            if run.start > from {
                list.push(Run { start: from, end: run.start, label: 1 });
            }
            from = run.end;
        }
        if usize::from(from) < bounds[2].end {
            list.push(Run { start: from, end: bounds[2].end as u16, label: 1 });
        }
    });
    if axis == Some(2) {
        return holes_across_rows(&gaps, label, bounds, most);
    }
    let neighbors = match axis {
        None => FACES,
        Some(0) => FACES_IN_PLANE,
        _ => FACES_ACROSS_ROWS,
    };
    let outside = |z: usize, y: usize, run: &Run| {
        let x = usize::from(run.start) == bounds[2].start || usize::from(run.end) == bounds[2].end;
        let y = axis != Some(1) && (y == 0 || y + 1 == shape[1]);
        let z = axis != Some(0) && (z == 0 || z + 1 == shape[0]);
        x || y || z
    };
    let mut edits = Vec::new();
    enclosed(&gaps, neighbors, most, outside, |z, y, run| {
        edits.push(Edit {
            z: (bounds[0].start + z) as u32,
            y: (bounds[1].start + y) as u32,
            start: run.start,
            end: run.end,
            label,
        });
    });
    edits
}

/// Calls `found` with the runs of components of at most `most` voxels, none of whose runs is
/// `outside`.
fn enclosed(
    gaps: &Runs,
    neighbors: &'static [(usize, isize, u16)],
    most: u64,
    outside: impl Fn(usize, usize, &Run) -> bool,
    mut found: impl FnMut(usize, usize, &Run),
) {
    let components = Components::with_neighbors(gaps, &Classes::union(&[1]), neighbors);
    let mut open: Vec<_> = components.voxels.iter().map(|&voxels| voxels > most).collect();
    gaps.for_each(|z, y, i, run| open[components.of_run[i] as usize] |= outside(z, y, run));
    gaps.for_each(|z, y, i, run| {
        if !open[components.of_run[i] as usize] {
            found(z, y, run);
        }
    });
}

/// As [`holes`] for slices across `x`: a block of slices at a time is turned so that they
/// become planes.
fn holes_across_rows(gaps: &Runs, label: u16, bounds: &Box3, most: u64) -> Vec<Edit> {
    const BLOCK: usize = 64;
    let [depth, height, width] = box_shape(bounds);
    // One bit per voxel of the box: set in gaps.
    let words = width.div_ceil(BLOCK);
    let mut mask = vec![0_u64; depth * height * words];
    gaps.for_each(|z, y, _, gap| {
        let row = &mut mask[(z * height + y) * words..][..words];
        for x in usize::from(gap.start)..usize::from(gap.end) {
            let x = x - bounds[2].start;
            row[x / BLOCK] |= 1 << (x % BLOCK);
        }
    });
    let mask = ArrayView3::from_shape([depth, height, words], &mask).expect("sized above");
    let mut edits = Vec::new();
    for word in 0..words {
        let column = mask.slice(s![.., .., word]);
        let slices = BLOCK.min(width - word * BLOCK);
        let gaps = Runs::build([slices, depth, height], |bit, z, list| {
            let row = list.len();
            for (y, bits) in column.row(z).iter().enumerate() {
                if bits >> bit & 1 == 0 {
                    continue;
                }
                match list[row..].last_mut() {
                    Some(last) if usize::from(last.end) == y => last.end += 1,
                    _ => list.push(Run { start: y as u16, end: y as u16 + 1, label: 1 }),
                }
            }
        });
        let outside = |_: usize, z: usize, run: &Run| {
            z == 0 || z + 1 == depth || run.start == 0 || usize::from(run.end) == height
        };
        enclosed(&gaps, FACES_IN_PLANE, most, outside, |bit, z, run| {
            let x = (bounds[2].start + word * BLOCK + bit) as u16;
            edits.extend((run.start..run.end).map(|y| Edit {
                z: (bounds[0].start + z) as u32,
                y: bounds[1].start as u32 + u32::from(y),
                start: x,
                end: x + 1,
                label,
            }));
        });
    }
    edits
}

/// The step `fill_holes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillHoles {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    plane: Option<Plane>,
    max_mm3: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plane {
    Axial,
    Coronal,
    Sagittal,
}

impl Fields for FillHoles {
    type Labels = Vec<u16>;

    fn check(&self) -> Result<(), Mismatch> {
        within("max_mm3", self.max_mm3, 1e9)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.structures(&self.labels, &self.except)
    }

    fn apply<T: Voxel>(
        &self,
        labels: &Vec<u16>,
        map: &mut Map<'_, T>,
        axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        let [axial, coronal, sagittal] = axes.across();
        let axis = self.plane.map(|plane| match plane {
            Plane::Axial => axial,
            Plane::Coronal => coronal,
            Plane::Sagittal => sagittal,
        });
        Ok(fill(map, labels, axis, self.max_mm3))
    }
}
