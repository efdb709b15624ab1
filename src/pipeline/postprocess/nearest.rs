//! Removed voxels take the label nearest to them.

use super::bits::SLACK;
use super::map::{Edit, Map};
use super::runs::{Runs, Voxel};
use crate::pipeline::crop::{Box3, box_shape, grown};
use crate::volume::Spacing;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Gives every voxel of `removed` the label of the nearest labeled voxel outside `removed`,
/// at most `within_mm` away between centers; farther ones stay as they are.
///
/// Among labels at equal distance the smallest wins. Distances are exact: a minimum over rows,
/// then over the rows of a plane, then over planes, in blocks so that memory stays small.
///
/// The voxels of `removed` must be background already. Returns the number of voxels that
/// got a label.
pub(super) fn reassign<T: Voxel>(map: &mut Map<'_, T>, removed: &[Edit], within_mm: f64) -> u64 {
    let (shape, spacing) = (map.shape(), map.spacing());
    let runs = map.runs();
    // Most labels are near, and a look around costs the cube of its reach: what a short one does not
    // find is looked for farther away.
    let farthest = (0..3).map(|k| (shape[k] as f64 * spacing[k]).powi(2)).sum::<f64>().sqrt();
    let farthest = within_mm.min(farthest);
    let mut reach = FIRST_REACH_MM.min(farthest);
    let (mut left, mut edits) = (removed.to_vec(), Vec::new());
    loop {
        let blocks: Vec<_> = blocks(&left).into_values().collect();
        let (found, missing): (Vec<Edit>, Vec<Edit>) = blocks
            .par_iter()
            .flat_map_iter(|pieces| Block::new(pieces, runs, spacing, shape, reach).find(pieces))
            .partition(|edit| edit.label != 0);
        edits.extend(found);
        if missing.is_empty() || reach >= farthest {
            break;
        }
        (left, reach) = (missing, (2.0 * reach).min(farthest));
    }
    map.apply(&edits, |_| true)
}

/// As the recipes' `nearest_mm`, for voxels that are marked in `removed` and background in
/// `map`.
///
/// Returns the number of voxels that got a label.
///
/// # Panics
///
/// If the shapes differ or a row has more than 65535 voxels.
pub fn fill_from_nearest<T: Voxel>(
    map: &mut Map<'_, T>,
    removed: ndarray::ArrayView3<'_, u8>,
    within_mm: f64,
) -> u64 {
    assert_eq!(<[usize; 3]>::from(removed.dim()), map.shape(), "one mask voxel per label");
    let mut edits = Vec::new();
    Runs::new(removed.as_standard_layout().view()).for_each(|z, y, _, run| {
        edits.push(Edit { z: z as u32, y: y as u32, start: run.start, end: run.end, label: 0 });
    });
    reassign(map, &edits, within_mm)
}

/// How far the first look goes: the recipes of the program need no second.
const FIRST_REACH_MM: f64 = 6.0;

/// Edge of the blocks of voxels that are treated together: small, since crumbs lie far apart.
const EDGE: u32 = 8;

/// Cuts the removed runs into pieces per block.
fn blocks(removed: &[Edit]) -> BTreeMap<[u32; 3], Vec<Edit>> {
    let mut blocks: BTreeMap<_, Vec<Edit>> = BTreeMap::new();
    for edit in removed {
        let mut start = edit.start;
        while start < edit.end {
            let column = u32::from(start) / EDGE;
            let end = u32::from(edit.end).min((column + 1) * EDGE) as u16;
            let key = [edit.z / EDGE, edit.y / EDGE, column];
            blocks.entry(key).or_default().push(Edit { start, end, ..*edit });
            start = end;
        }
    }
    blocks
}

/// Squared distance and label of the nearest labeled voxel in the plane, per voxel of a box.
struct Block {
    bounds: Box3,
    squares: Vec<f32>,
    labels: Vec<u16>,
    spacing: [f32; 3],
    limit: f32,
}

impl Block {
    fn new(
        pieces: &[Edit],
        runs: &Runs,
        spacing: Spacing,
        shape: [usize; 3],
        within_mm: f64,
    ) -> Self {
        let limit = within_mm * (1.0 + SLACK);
        let mut tight = None;
        for p in pieces {
            let run = super::Run { start: p.start, end: p.end, label: 0 };
            super::runs::extend(&mut tight, p.z as usize, p.y as usize, run);
        }
        let reach = spacing.map(|s| (limit / s) as usize);
        let bounds = grown(&tight.expect("blocks are not empty"), reach, shape);
        let mut block = Self {
            squares: Vec::new(),
            labels: Vec::new(),
            spacing: spacing.map(|s| s as f32),
            limit: (limit * limit) as f32,
            bounds,
        };
        let [depth, height, width] = box_shape(&block.bounds);
        let mut plane = Plane::new(height, width);
        for z in 0..depth {
            plane.fill(runs, block.bounds[0].start + z, &block.bounds, block.spacing[2]);
            plane.across_rows(block.spacing[1], reach[1], &mut block.squares, &mut block.labels);
        }
        block
    }

    /// The labels of the removed voxels, one by one, as edits; label 0 where none is near enough.
    fn find(&self, pieces: &[Edit]) -> Vec<Edit> {
        let [depth, height, width] = box_shape(&self.bounds);
        let mut edits: Vec<Edit> = Vec::new();
        for piece in pieces {
            let (z, y) = (piece.z as usize - self.bounds[0].start, piece.y as usize);
            for x in piece.start..piece.end {
                let (mut best, mut label) = (f32::INFINITY, 0);
                let column =
                    (y - self.bounds[1].start) * width + usize::from(x) - self.bounds[2].start;
                for other in 0..depth {
                    let dz = other.abs_diff(z) as f32 * self.spacing[0];
                    let at = other * height * width + column;
                    let square = self.squares[at] + dz * dz;
                    if square < best || square == best && self.labels[at] < label {
                        (best, label) = (square, self.labels[at]);
                    }
                }
                let label = if best <= self.limit { label } else { 0 };
                edits.push(Edit { start: x, end: x + 1, label, ..*piece });
            }
        }
        edits
    }
}

/// One plane of a box while it is worked on.
struct Plane {
    height: usize,
    width: usize,
    squares: Vec<f32>,
    labels: Vec<u16>,
    some: Vec<bool>,
}

impl Plane {
    fn new(height: usize, width: usize) -> Self {
        let squares = vec![f32::INFINITY; height * width];
        Self { height, width, squares, labels: vec![0; height * width], some: vec![false; height] }
    }

    /// The nearest labeled voxel of its own row, for each voxel.
    fn fill(&mut self, runs: &Runs, z: usize, bounds: &Box3, spacing: f32) {
        self.squares.fill(f32::INFINITY);
        self.labels.fill(0);
        let (first, last) = (bounds[2].start, bounds[2].end);
        for y in 0..self.height {
            let squares = &mut self.squares[y * self.width..][..self.width];
            let labels = &mut self.labels[y * self.width..][..self.width];
            let inside = runs.row(z, bounds[1].start + y).iter().filter(|run| {
                run.label != 0 && usize::from(run.end) > first && usize::from(run.start) < last
            });
            self.some[y] = false;
            // Background between two runs takes the nearer end, the smaller label of equals.
            let mut before: Option<(usize, u16)> = None;
            let mut from = first;
            for run in inside {
                let start = usize::from(run.start).max(first);
                let end = usize::from(run.end).min(last);
                self.some[y] = true;
                for x in from..start {
                    let ahead = (start - x, run.label);
                    let best = before.map_or(ahead, |(at, label)| ahead.min((x - at, label)));
                    (squares[x - first], labels[x - first]) = (square(best.0, spacing), best.1);
                }
                squares[start - first..end - first].fill(0.0);
                labels[start - first..end - first].fill(run.label);
                (before, from) = (Some((end - 1, run.label)), end);
            }
            if let Some((at, label)) = before {
                for x in from..last {
                    (squares[x - first], labels[x - first]) = (square(x - at, spacing), label);
                }
            }
        }
    }

    /// Appends the minimum over the rows of the plane within `reach`.
    fn across_rows(&self, spacing: f32, reach: usize, out: &mut Vec<f32>, names: &mut Vec<u16>) {
        for y in 0..self.height {
            let at = out.len();
            out.resize(at + self.width, f32::INFINITY);
            names.resize(at + self.width, 0);
            let (best, label) = (&mut out[at..], &mut names[at..]);
            for other in y.saturating_sub(reach)..(y + reach + 1).min(self.height) {
                if !self.some[other] {
                    continue;
                }
                let dy = square(other.abs_diff(y), spacing);
                let squares = &self.squares[other * self.width..][..self.width];
                let labels = &self.labels[other * self.width..][..self.width];
                for x in 0..self.width {
                    let candidate = squares[x] + dy;
                    let better =
                        candidate < best[x] || (candidate == best[x] && labels[x] < label[x]);
                    best[x] = if better { candidate } else { best[x] };
                    label[x] = if better { labels[x] } else { label[x] };
                }
            }
        }
    }
}

fn square(voxels: usize, spacing: f32) -> f32 {
    let distance = voxels as f32 * spacing;
    distance * distance
}
