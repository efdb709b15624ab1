//! Stages 9 and 10: logits on the network's grid become labels on the image's.
//!
//! Linear interpolation and the choice of a label are local, so both happen tile by tile:
//! no logit is ever held at the image's size. Per tile and class, the two source planes are
//! mixed along `z`, their rows along `x`, and pairs of rows along `y`, where the running
//! best is kept in the innermost cache.

use super::resample::{Pair, nearest_pairs, pairs};
use ndarray::parallel::prelude::*;
use ndarray::{ArrayView3, ArrayView4, ArrayViewMut2, ArrayViewMut3, Axis, s};
use std::sync::atomic::{AtomicBool, Ordering};

/// How the logits of a voxel become its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The channel with the largest logit is the label; the first of equals, and a NaN
    /// before any number, as `numpy.argmax` has it.
    Argmax,
    /// Every channel is a region whose label is painted where its probability exceeds one
    /// half; later channels paint over earlier ones. One label per channel.
    Regions(Vec<u16>),
}

impl Decision {
    /// The largest label that can come out of `channels` logits per voxel.
    #[must_use]
    pub fn largest_label(&self, channels: usize) -> u16 {
        match self {
            Self::Argmax => u16::try_from(channels.saturating_sub(1)).unwrap_or(u16::MAX),
            Self::Regions(order) => order.iter().copied().max().unwrap_or(0),
        }
    }

    /// Label of each value the running choice can have.
    fn table<T: Label>(&self, channels: usize) -> Vec<T> {
        let label = |id: u16| T::try_from(id).ok().expect("labels fit the label map's type");
        match self {
            Self::Argmax => {
                let channels = u16::try_from(channels).expect("labels are 16-bit");
                (0..channels).map(label).collect()
            }
            Self::Regions(order) => {
                assert_eq!(order.len(), channels, "one label per region");
                std::iter::once(T::default()).chain(order.iter().copied().map(label)).collect()
            }
        }
    }
}

/// A voxel of a label map.
pub trait Label: Copy + Default + Send + Sync + TryFrom<u16> {}
impl Label for u8 {}
impl Label for u16 {}

/// The largest `f32` whose sigmoid in `f32` is still one half, not more: 1.5 * 2^-24.
const FAINT: f32 = 8.940_696_716_308_594e-8;

/// Resamples logits, `[c, z, y, x]`, linearly to the shape of `target`, `[z, y, x]`, and
/// writes the label of each voxel.
///
/// `target` may be flipped, permuted or a window of a larger map. `separate`, from
/// [`separate_axis`](super::resample::separate_axis) with the network's spacing as the
/// current one, is the axis along which the nearest plane is taken. The result does not
/// depend on the number of threads.
///
/// # Panics
///
/// If there are no channels, if `decision` lists another number of regions than there are
/// channels, or if a label does not fit `T`.
pub fn label_resampled<T: Label>(
    logits: ArrayView4<'_, f32>,
    separate: Option<usize>,
    decision: &Decision,
    target: ArrayViewMut3<'_, T>,
) {
    label_resampled_with(logits, separate, 1, decision, target, &|| true);
}

/// As [`label_resampled`], with the interpolation's `order` (0 or 1) and a callback.
///
/// `keep_going` is called once per finished `z` slice of the target, from any thread. Once
/// it returns false the remaining slices are left as they are; the result says whether all
/// were written.
///
/// # Panics
///
/// As [`label_resampled`], or if `order` is above 1.
pub fn label_resampled_with<T: Label>(
    logits: ArrayView4<'_, f32>,
    separate: Option<usize>,
    order: u8,
    decision: &Decision,
    mut target: ArrayViewMut3<'_, T>,
    keep_going: &(dyn Fn() -> bool + Sync),
) -> bool {
    let table = decision.table::<T>(logits.len_of(Axis(0)));
    assert!(!logits.is_empty() || target.is_empty(), "no logits to interpolate");
    assert!(order <= 1, "spline order {order} for logits, expected 0 or 1");
    let [z, y, x] = [0, 1, 2].map(|axis| {
        let (n, m) = (logits.len_of(Axis(axis + 1)), target.len_of(Axis(axis)));
        if order == 0 || separate == Some(axis) { nearest_pairs(n, m) } else { pairs(n, m) }
    });
    let tiles = Tiles { logits, y, x, argmax: *decision == Decision::Argmax, table };
    let stopped = AtomicBool::new(false);
    target.axis_iter_mut(Axis(0)).into_par_iter().zip(z).for_each_init(
        Scratch::default,
        |scratch, (slice, z)| {
            if !stopped.load(Ordering::Relaxed) {
                tiles.label_slice(z, slice, scratch);
                if !keep_going() {
                    stopped.store(true, Ordering::Relaxed);
                }
            }
        },
    );
    !stopped.into_inner()
}

/// Edges of a tile: its best logits and choices stay in the first-level cache.
const TILE_ROWS: usize = 32;
const TILE_COLUMNS: usize = 128;

/// Row of a tile, as wide as a tile can be.
type Row<T> = [T; TILE_COLUMNS];

/// Buffers for one tile.
#[derive(Default)]
struct Scratch {
    /// A source row between two planes.
    mixed: Vec<f32>,
    /// Source rows of the tile at the target's width.
    rows: Vec<Row<f32>>,
    best: Vec<Row<f32>>,
    choice: Vec<Row<u32>>,
}

/// What all tiles share.
struct Tiles<'a, T> {
    logits: ArrayView4<'a, f32>,
    y: Vec<Pair>,
    x: Vec<Pair>,
    argmax: bool,
    table: Vec<T>,
}

impl<T: Label> Tiles<'_, T> {
    fn label_slice(&self, z: Pair, mut slice: ArrayViewMut2<'_, T>, scratch: &mut Scratch) {
        for (y, mut rows) in
            self.y.chunks(TILE_ROWS).zip(slice.axis_chunks_iter_mut(Axis(0), TILE_ROWS))
        {
            for (x, mut tile) in
                self.x.chunks(TILE_COLUMNS).zip(rows.axis_chunks_iter_mut(Axis(1), TILE_COLUMNS))
            {
                self.choose(z, y, x, scratch);
                for (mut row, choice) in tile.rows_mut().into_iter().zip(&scratch.choice) {
                    for (label, &choice) in row.iter_mut().zip(choice) {
                        *label = self.table[choice as usize];
                    }
                }
            }
        }
    }

    /// Fills `scratch.choice` with the index into the label table of each voxel of a tile.
    fn choose(&self, z: Pair, y: &[Pair], x: &[Pair], scratch: &mut Scratch) {
        let (first, last) = (y[0].low, y[y.len() - 1].high);
        scratch.rows.resize(last + 1 - first, [0.0; TILE_COLUMNS]);
        scratch.best.resize(TILE_ROWS, [0.0; TILE_COLUMNS]);
        scratch.choice.resize(TILE_ROWS, [0; TILE_COLUMNS]);
        let Scratch { mixed, rows, best, choice } = scratch;
        if !self.argmax {
            choice.fill([0; TILE_COLUMNS]);
        }
        for (c, channel) in self.logits.outer_iter().enumerate() {
            let (below, above) = (plane(channel, z.low), plane(channel, z.high));
            for (i, row) in (first..=last).zip(rows.iter_mut()) {
                mix_planes(below.row(i), above.row(i), z.t, x, mixed);
                widen(mixed, x, row);
            }
            let c = c as u32;
            for ((pair, best), choice) in y.iter().zip(best.iter_mut()).zip(choice.iter_mut()) {
                let (low, high) = (&rows[pair.low - first], &rows[pair.high - first]);
                match (self.argmax, c) {
                    (true, 0) => begin(low, high, pair.t as f32, best, choice),
                    (true, _) => improve(low, high, pair.t as f32, c, best, choice),
                    (false, _) => cover(low, high, pair.t as f32, c + 1, choice),
                }
            }
        }
    }
}

fn plane(channel: ArrayView3<'_, f32>, z: usize) -> ndarray::ArrayView2<'_, f32> {
    channel.index_axis_move(Axis(0), z)
}

/// Mixes two source rows, over the columns `x` needs; the first of them lands at 0.
fn mix_planes(
    below: ndarray::ArrayView1<'_, f32>,
    above: ndarray::ArrayView1<'_, f32>,
    t: f64,
    x: &[Pair],
    mixed: &mut Vec<f32>,
) {
    let (needed, t) = (s![x[0].low..=x[x.len() - 1].high], t as f32);
    let (below, above) = (below.slice_move(needed), above.slice_move(needed));
    mixed.clear();
    match (below.as_slice(), above.as_slice()) {
        (Some(a), Some(b)) => mixed.extend(a.iter().zip(b).map(|(&a, &b)| mix(a, b, t))),
        _ => mixed.extend(below.iter().zip(&above).map(|(&a, &b)| mix(a, b, t))),
    }
}

/// Interpolates a row to the target's columns.
fn widen(mixed: &[f32], x: &[Pair], row: &mut Row<f32>) {
    let first = x[0].low;
    for (value, pair) in row.iter_mut().zip(x) {
        *value = mix(mixed[pair.low - first], mixed[pair.high - first], pair.t as f32);
    }
}

/// Linear interpolation; equal ends give exactly that value.
fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + t * (b - a)
}

/// The first channel is the best so far.
fn begin(low: &Row<f32>, high: &Row<f32>, t: f32, best: &mut Row<f32>, choice: &mut Row<u32>) {
    for ((best, &a), &b) in best.iter_mut().zip(low).zip(high) {
        *best = mix(a, b, t);
    }
    choice.fill(0);
}

/// Channel `c` wins where it is larger, or the first that is not a number.
fn improve(
    low: &Row<f32>,
    high: &Row<f32>,
    t: f32,
    c: u32,
    best: &mut Row<f32>,
    choice: &mut Row<u32>,
) {
    for i in 0..TILE_COLUMNS {
        let (value, so_far) = (mix(low[i], high[i], t), best[i]);
        // Not "greater", which is false for NaN.
        let wins = !(value <= so_far) & !so_far.is_nan();
        best[i] = if wins { value } else { so_far };
        choice[i] = if wins { c } else { choice[i] };
    }
}

/// Region `c` covers what was painted before it.
fn cover(low: &Row<f32>, high: &Row<f32>, t: f32, c: u32, choice: &mut Row<u32>) {
    for i in 0..TILE_COLUMNS {
        choice[i] = if mix(low[i], high[i], t) > FAINT { c } else { choice[i] };
    }
}
