//! Masks of one bit per voxel, and their dilation by a ball.

use super::map::Edit;
use super::runs::Runs;
use crate::pipeline::crop::{Box3, box_shape};
use crate::volume::Spacing;
use rayon::prelude::*;

/// A mask over a box of the volume; rows begin at a new word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    bounds: Box3,
    shape: [usize; 3],
    words: usize,
    data: Vec<u64>,
}

impl Bits {
    fn empty(bounds: Box3) -> Self {
        let shape = box_shape(&bounds);
        let words = shape[2].div_ceil(64);
        Self { bounds, shape, words, data: vec![0; shape[0] * shape[1] * words] }
    }

    /// The voxels of labels that `pick` chooses, inside `bounds`.
    pub(super) fn from_runs(runs: &Runs, bounds: &Box3, pick: impl Fn(u16) -> bool + Sync) -> Self {
        let mut bits = Self::empty(bounds.clone());
        let (words, rows) = (bits.words, bits.shape[1]);
        if bits.data.is_empty() {
            return bits;
        }
        bits.data.par_chunks_mut(rows * words).enumerate().for_each(|(z, plane)| {
            for (y, row) in plane.chunks_exact_mut(words).enumerate() {
                for run in runs.row(bounds[0].start + z, bounds[1].start + y) {
                    let start = usize::from(run.start).max(bounds[2].start);
                    let end = usize::from(run.end).min(bounds[2].end);
                    if run.label != 0 && start < end && pick(run.label) {
                        set(row, start - bounds[2].start, end - bounds[2].start);
                    }
                }
            }
        });
        bits
    }

    /// Whether a voxel, counted from the volume's corner, is in the mask.
    pub(super) fn get(&self, z: usize, y: usize, x: usize) -> bool {
        let inside = self.bounds[0].contains(&z) && self.bounds[1].contains(&y);
        if !inside || !self.bounds[2].contains(&x) {
            return false;
        }
        let row = (z - self.bounds[0].start) * self.shape[1] + y - self.bounds[1].start;
        let x = x - self.bounds[2].start;
        self.data[row * self.words + x / 64] >> (x % 64) & 1 == 1
    }

    /// Every voxel of the box that has one of the mask within the ball around it.
    pub(super) fn dilate(&self, ball: &Ball) -> Self {
        let mut out = Self::empty(self.bounds.clone());
        let (words, rows, depth) = (self.words, self.shape[1], self.shape[0]);
        if out.data.is_empty() {
            return out;
        }
        let some: Vec<bool> =
            self.data.chunks_exact(words).map(|row| row.iter().any(|&w| w != 0)).collect();
        out.data.par_chunks_mut(rows * words).enumerate().for_each(|(z, plane)| {
            let mut scratch = vec![0; words];
            for (y, row) in plane.chunks_exact_mut(words).enumerate() {
                let mut width = 0;
                let mut any = false;
                for (group, offsets) in &ball.groups {
                    if any {
                        spread(row, width - group, &mut scratch);
                    }
                    width = *group;
                    for &(dz, dy) in offsets {
                        let from = z.checked_add_signed(dz).zip(y.checked_add_signed(dy));
                        let Some((z, y)) = from.filter(|&(z, y)| z < depth && y < rows) else {
                            continue;
                        };
                        let other = z * rows + y;
                        if some[other] {
                            any = true;
                            let other = &self.data[other * words..][..words];
                            row.iter_mut().zip(other).for_each(|(to, from)| *to |= from);
                        }
                    }
                }
                if any {
                    spread(row, width, &mut scratch);
                }
            }
        });
        out.clear_tails();
        out
    }

    /// Every voxel of the mask that has only voxels of the mask within the ball around it;
    /// what lies beyond the box does not count against it.
    pub(super) fn erode(&self, ball: &Ball) -> Self {
        self.inverted().dilate(ball).inverted()
    }

    fn inverted(&self) -> Self {
        let mut out = self.clone();
        out.data.iter_mut().for_each(|word| *word = !*word);
        out.clear_tails();
        out
    }

    fn clear_tails(&mut self) {
        let used = self.shape[2] % 64;
        if used != 0 {
            let keep = (1_u64 << used) - 1;
            self.data.chunks_exact_mut(self.words).for_each(|row| row[row.len() - 1] &= keep);
        }
    }

    /// Edits that give `label` to the voxels of `self` that are not in `other`, a mask over the
    /// same box.
    pub(super) fn edits_without(&self, other: &Self, label: u16) -> Vec<Edit> {
        let mut edits = Vec::new();
        let rows = self.data.chunks_exact(self.words).zip(other.data.chunks_exact(self.words));
        for (i, (row, other)) in rows.enumerate() {
            let (z, y) = (i / self.shape[1], i % self.shape[1]);
            if row.iter().zip(other).all(|(a, b)| a & !b == 0) {
                continue;
            }
            let at = |x: usize| (row[x / 64] & !other[x / 64]) >> (x % 64) & 1 == 1;
            let mut x = 0;
            while x < self.shape[2] {
                if !at(x) {
                    x += 1;
                    continue;
                }
                let start = x;
                while x < self.shape[2] && at(x) {
                    x += 1;
                }
                edits.push(Edit {
                    z: (self.bounds[0].start + z) as u32,
                    y: (self.bounds[1].start + y) as u32,
                    start: (self.bounds[2].start + start) as u16,
                    end: (self.bounds[2].start + x) as u16,
                    label,
                });
            }
        }
        edits
    }
}

/// Sets bits `start..end` of a row.
fn set(row: &mut [u64], start: usize, end: usize) {
    let (first, last) = (start / 64, (end - 1) / 64);
    let low = u64::MAX << (start % 64);
    let high = u64::MAX >> (63 - (end - 1) % 64);
    if first == last {
        row[first] |= low & high;
    } else {
        row[first] |= low;
        row[first + 1..last].fill(u64::MAX);
        row[last] |= high;
    }
}

/// Dilates a row by `n` voxels to both sides.
///
/// Shifts grow by at most the width already reached plus one, so that what a shift drops at
/// an end of the row is never needed again.
fn spread(row: &mut [u64], n: usize, scratch: &mut [u64]) {
    let mut done = 0;
    while done < n {
        let step = (done + 1).min(n - done);
        scratch.copy_from_slice(row);
        let (words, bits) = (step / 64, step % 64);
        for i in words..row.len() {
            let mut up = scratch[i - words] << bits;
            let mut down = scratch[i] >> bits;
            if bits != 0 {
                if i > words {
                    up |= scratch[i - words - 1] >> (64 - bits);
                }
                if i + 1 < row.len() {
                    down |= scratch[i + 1] << (64 - bits);
                }
            }
            row[i] |= up;
            row[i - words] |= down;
        }
        done += step;
    }
}

/// All voxel offsets within a radius, by how far they reach along `x`.
#[derive(Clone, Debug)]
pub(super) struct Ball {
    /// Half width along `x`, falling, and the `(z, y)` offsets that have it.
    groups: Vec<(usize, Vec<(isize, isize)>)>,
    /// Largest offset per axis.
    pub(super) reach: [usize; 3],
}

/// Relative slack of comparisons with a radius: a radius of a whole number of voxels includes
/// the last of them whatever its product with the spacing rounds to.
pub(super) const SLACK: f64 = 1e-6;

impl Ball {
    /// Offsets of at most `radius` millimetres; longer ones than `shape` are left out.
    pub(super) fn new(radius: f64, spacing: Spacing, shape: [usize; 3]) -> Self {
        let limit = radius * (1.0 + SLACK);
        let reach: [usize; 3] =
            std::array::from_fn(|k| ((limit / spacing[k]) as usize).min(shape[k]));
        let half = |k: usize, square: f64| ((square.sqrt() / spacing[k]) as usize).min(reach[k]);
        let mut by_width = vec![Vec::new(); reach[2] + 1];
        let signed = |n: usize| -(n as isize)..=n as isize;
        for dz in signed(reach[0]) {
            for dy in signed(reach[1]) {
                let (z, y) = (dz as f64 * spacing[0], dy as f64 * spacing[1]);
                let left = limit * limit - z * z - y * y;
                if left >= 0.0 {
                    by_width[half(2, left)].push((dz, dy));
                }
            }
        }
        let groups = by_width.into_iter().enumerate().rev();
        Self { groups: groups.filter(|(_, offsets)| !offsets.is_empty()).collect(), reach }
    }
}
