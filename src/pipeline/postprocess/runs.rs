//! Row pieces of one label: what component steps work on instead of voxels.

use crate::pipeline::crop::Box3;
use ndarray::ArrayView3;
use rayon::prelude::*;
use std::ops::{BitOr, BitXor, Range};

/// A voxel of a label map: `u8` or `u16`.
pub trait Voxel:
    Copy
    + Eq
    + Default
    + Send
    + Sync
    + Into<u16>
    + TryFrom<u16>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
{
}
impl Voxel for u8 {}
impl Voxel for u16 {}

/// Voxels `start..end` of one row, all of one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First voxel, along `x`.
    pub start: u16,
    /// One past the last voxel.
    pub end: u16,
    /// The label; 0 where a step has removed it.
    pub label: u16,
}

impl Run {
    /// Voxels in the run.
    #[must_use]
    pub fn voxels(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

/// All foreground of a label map as runs, row after row.
///
/// Six bytes per run: less than a tenth of the voxels' bytes for anatomy, more than the
/// voxels' for noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    shape: [usize; 3],
    /// First run of each row, and the number of runs at the end.
    rows: Vec<usize>,
    pub(super) list: Vec<Run>,
}

impl Runs {
    /// The runs of nonzero labels, `[z, y, x]`.
    ///
    /// # Panics
    ///
    /// If `labels` is not in standard layout or a row has more than 65535 voxels.
    #[must_use]
    pub fn new<T: Voxel>(labels: ArrayView3<'_, T>) -> Self {
        let [nz, ny, nx] = labels.dim().into();
        let data = labels.to_slice().expect("label maps are in standard layout");
        assert!(u16::try_from(nx).is_ok(), "rows have at most 65535 voxels");
        if data.is_empty() {
            return Self::build([nz, ny, nx], |_, _, _| ());
        }
        let parts: Vec<_> = data
            .par_chunks(SLAB_PLANES * ny * nx)
            .map(|slab| {
                let (mut runs, mut counts) = (Vec::new(), Vec::with_capacity(SLAB_PLANES * ny));
                for row in slab.chunks_exact(nx) {
                    let before = runs.len();
                    push_row(row, &mut runs);
                    counts.push(runs.len() - before);
                }
                (runs, counts)
            })
            .collect();
        let mut runs = Vec::with_capacity(parts.iter().map(|(runs, _)| runs.len()).sum());
        let mut rows = Vec::with_capacity(nz * ny + 1);
        rows.push(0);
        for (part, counts) in parts {
            runs.extend_from_slice(&part);
            for count in counts {
                rows.push(rows[rows.len() - 1] + count);
            }
        }
        Self { shape: [nz, ny, nx], rows, list: runs }
    }

    /// Runs that `row` appends for each `z` and `y`, by `x`.
    pub(super) fn build(
        shape: [usize; 3],
        mut row: impl FnMut(usize, usize, &mut Vec<Run>),
    ) -> Self {
        let (mut list, mut rows) = (Vec::new(), Vec::with_capacity(shape[0] * shape[1] + 1));
        rows.push(0);
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                row(z, y, &mut list);
                rows.push(list.len());
            }
        }
        Self { shape, rows, list }
    }

    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Every run, in the order of the voxels.
    #[must_use]
    pub fn all(&self) -> &[Run] {
        &self.list
    }

    /// Indices into [`all`](Self::all) of one row's runs.
    #[must_use]
    pub fn row_range(&self, z: usize, y: usize) -> Range<usize> {
        let row = z * self.shape[1] + y;
        self.rows[row]..self.rows[row + 1]
    }

    /// The runs of one row, by `x`.
    #[must_use]
    pub fn row(&self, z: usize, y: usize) -> &[Run] {
        &self.list[self.row_range(z, y)]
    }

    /// Indices of the runs of planes `z`.
    pub(super) fn plane_range(&self, z: Range<usize>) -> Range<usize> {
        self.rows[z.start * self.shape[1]]..self.rows[z.end * self.shape[1]]
    }

    /// Calls `f` with each run's `z`, `y`, index, and the run itself, in order.
    pub(super) fn for_each(&self, mut f: impl FnMut(usize, usize, usize, &Run)) {
        for z in 0..self.shape[0] {
            for y in 0..self.shape[1] {
                for i in self.row_range(z, y) {
                    f(z, y, i, &self.list[i]);
                }
            }
        }
    }

    /// Smallest box around each label, indexed by label; `None` for absent ones.
    #[must_use]
    pub fn boxes(&self) -> Vec<Option<Box3>> {
        let mut boxes: Vec<Option<Box3>> = Vec::new();
        self.for_each(|z, y, _, run| {
            let label = usize::from(run.label);
            if label == 0 {
                return;
            }
            if boxes.len() <= label {
                boxes.resize(label + 1, None);
            }
            extend(&mut boxes[label], z, y, *run);
        });
        boxes
    }
}

/// Grows a box by a run.
pub(super) fn extend(bounds: &mut Option<Box3>, z: usize, y: usize, run: Run) {
    let (start, end) = (usize::from(run.start), usize::from(run.end));
    match bounds {
        None => *bounds = Some([z..z + 1, y..y + 1, start..end]),
        Some([bz, by, bx]) => {
            *bz = bz.start.min(z)..bz.end.max(z + 1);
            *by = by.start.min(y)..by.end.max(y + 1);
            *bx = bx.start.min(start)..bx.end.max(end);
        }
    }
}

/// Planes per parallel task: enough work to be worth one, few enough to balance.
pub(super) const SLAB_PLANES: usize = 8;

/// Values compared at once; the compiler turns a block into a few vector instructions.
const BLOCK: usize = 32;

fn push_row<T: Voxel>(row: &[T], runs: &mut Vec<Run>) {
    let zero = T::default();
    let mut x = same_until(row, 0, zero);
    while x < row.len() {
        let value = row[x];
        let end = same_until(row, x + 1, value);
        if value != zero {
            runs.push(Run { start: x as u16, end: end as u16, label: value.into() });
        }
        x = end;
    }
}

/// First index from `x` on whose value differs from `value`, or the length.
fn same_until<T: Voxel>(row: &[T], mut x: usize, value: T) -> usize {
    while let Some(block) = row.get(x..x + BLOCK) {
        let differs = block.iter().fold(T::default(), |all, &v| all | (v ^ value));
        if differs != T::default() {
            break;
        }
        x += BLOCK;
    }
    while x < row.len() && row[x] == value {
        x += 1;
    }
    x
}
