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
const FAINT: f32 = 1.5 / (1 << 24) as f32;

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
    let x = columns(&x);
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

/// Most source columns a tile reads: what an index of one byte reaches, without a check.
const WINDOW: usize = 256;

/// The columns of a tile.
struct Columns {
    /// First source column and one past the last.
    first: usize,
    end: usize,
    /// Columns of the target.
    count: usize,
    /// Both source columns of each, from `first`, and the weight of the second.
    low: Row<u8>,
    high: Row<u8>,
    t: Row<f32>,
}

/// Cuts the target's columns into tiles.
fn columns(mut x: &[Pair]) -> Vec<Columns> {
    let mut tiles = Vec::new();
    while let Some(&Pair { low: first, .. }) = x.first() {
        let fits = |pair: &Pair| pair.high - first < WINDOW;
        let count = x.iter().take(TILE_COLUMNS).take_while(|pair| fits(pair)).count();
        let (now, later) = x.split_at(count);
        let mut tile = Columns {
            first,
            end: now[count - 1].high + 1,
            count,
            low: [0; TILE_COLUMNS],
            high: [0; TILE_COLUMNS],
            t: [0.0; TILE_COLUMNS],
        };
        for (i, pair) in now.iter().enumerate() {
            tile.low[i] = (pair.low - first) as u8;
            tile.high[i] = (pair.high - first) as u8;
            tile.t[i] = pair.t as f32;
        }
        tiles.push(tile);
        x = later;
    }
    tiles
}

/// Buffers for one tile.
struct Scratch {
    /// A source row between two planes.
    mixed: [f32; WINDOW],
    /// Source rows of the tile at the target's width.
    rows: Vec<Row<f32>>,
    best: Vec<Row<f32>>,
    choice: Vec<Row<u32>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            mixed: [0.0; WINDOW],
            rows: Vec::new(),
            best: vec![[0.0; TILE_COLUMNS]; TILE_ROWS],
            choice: vec![[0; TILE_COLUMNS]; TILE_ROWS],
        }
    }
}

/// What all tiles share.
struct Tiles<'a, T> {
    logits: ArrayView4<'a, f32>,
    y: Vec<Pair>,
    x: Vec<Columns>,
    argmax: bool,
    table: Vec<T>,
}

impl<T: Label> Tiles<'_, T> {
    fn label_slice(&self, z: Pair, mut slice: ArrayViewMut2<'_, T>, scratch: &mut Scratch) {
        for (y, mut rows) in
            self.y.chunks(TILE_ROWS).zip(slice.axis_chunks_iter_mut(Axis(0), TILE_ROWS))
        {
            let mut rest = rows.view_mut();
            for x in &self.x {
                let (mut tile, after) = rest.split_at(Axis(1), x.count);
                rest = after;
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
    fn choose(&self, z: Pair, y: &[Pair], x: &Columns, scratch: &mut Scratch) {
        let (first, last) = (y[0].low, y[y.len() - 1].high);
        scratch.rows.resize(last + 1 - first, [0.0; TILE_COLUMNS]);
        let Scratch { mixed, rows, best, choice } = scratch;
        if !self.argmax {
            choice.fill([0; TILE_COLUMNS]);
        }
        for (c, channel) in self.logits.outer_iter().enumerate() {
            let (below, above) = (plane(channel, z.low), plane(channel, z.high));
            let mut tame = true;
            for (i, row) in (first..=last).zip(rows.iter_mut()) {
                let (window, needed) = (s![i, x.first..x.end], &mut mixed[..x.end - x.first]);
                mix_planes(below.slice(window), above.slice(window), z.t as f32, needed);
                tame &= needed.iter().fold(true, |tame, v| tame & (v.abs() < TAME));
                widen(mixed, x, row);
            }
            let c = c as u32;
            for ((pair, best), choice) in y.iter().zip(best.iter_mut()).zip(choice.iter_mut()) {
                let (low, high) = (&rows[pair.low - first], &rows[pair.high - first]);
                match (self.argmax, c) {
                    (true, 0) => begin(low, high, pair.t as f32, best, choice),
                    (true, _) if tame => improve(low, high, pair.t as f32, c, best, choice),
                    (true, _) => improve_wild(low, high, pair.t as f32, c, best, choice),
                    (false, _) => cover(low, high, pair.t as f32, c + 1, choice),
                }
            }
        }
    }
}

fn plane(channel: ArrayView3<'_, f32>, z: usize) -> ndarray::ArrayView2<'_, f32> {
    channel.index_axis_move(Axis(0), z)
}

/// Mixes two source rows.
fn mix_planes(
    below: ndarray::ArrayView1<'_, f32>,
    above: ndarray::ArrayView1<'_, f32>,
    t: f32,
    mixed: &mut [f32],
) {
    if let (Some(below), Some(above)) = (below.as_slice(), above.as_slice()) {
        for ((mixed, &a), &b) in mixed.iter_mut().zip(below).zip(above) {
            *mixed = mix(a, b, t);
        }
    } else {
        for ((mixed, &a), &b) in mixed.iter_mut().zip(below).zip(above) {
            *mixed = mix(a, b, t);
        }
    }
}

/// Interpolates a row to the target's columns.
fn widen(mixed: &[f32; WINDOW], x: &Columns, row: &mut Row<f32>) {
    for (((value, &low), &high), &t) in row.iter_mut().zip(&x.low).zip(&x.high).zip(&x.t) {
        *value = mix(mixed[usize::from(low)], mixed[usize::from(high)], t);
    }
}

/// Linear interpolation; equal ends give exactly that value.
fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + t * (b - a)
}

/// Numbers below this stay finite through the interpolation.
const TAME: f32 = 1e37;

/// The first channel is the best so far.
fn begin(low: &Row<f32>, high: &Row<f32>, t: f32, best: &mut Row<f32>, choice: &mut Row<u32>) {
    for ((best, &a), &b) in best.iter_mut().zip(low).zip(high) {
        *best = mix(a, b, t);
    }
    choice.fill(0);
}

/// All bits set where `condition` holds.
fn mask(condition: bool) -> u32 {
    u32::from(condition).wrapping_neg()
}

/// The bits of `yes` where the mask is set, of `no` elsewhere.
fn pick(mask: u32, yes: u32, no: u32) -> u32 {
    no ^ (mask & (yes ^ no))
}

/// Channel `c`, all numbers, wins where it is larger; what is not a number stays.
///
/// Neither inlined nor written with `if`: only so does the compiler use vectors here.
#[inline(never)]
fn improve(
    low: &Row<f32>,
    high: &Row<f32>,
    t: f32,
    c: u32,
    best: &mut Row<f32>,
    choice: &mut Row<u32>,
) {
    for (((best, choice), &a), &b) in best.iter_mut().zip(choice).zip(low).zip(high) {
        let value = mix(a, b, t);
        let wins = mask(value > *best);
        *best = f32::from_bits(pick(wins, value.to_bits(), best.to_bits()));
        *choice = pick(wins, c, *choice);
    }
}

/// As [`improve`], where the channel may hold a NaN, the first of which wins.
#[cold]
fn improve_wild(
    low: &Row<f32>,
    high: &Row<f32>,
    t: f32,
    c: u32,
    best: &mut Row<f32>,
    choice: &mut Row<u32>,
) {
    for i in 0..TILE_COLUMNS {
        let value = mix(low[i], high[i], t);
        if value > best[i] || (value.is_nan() && !best[i].is_nan()) {
            (best[i], choice[i]) = (value, c);
        }
    }
}

/// Region `c` covers what was painted before it.
#[inline(never)]
fn cover(low: &Row<f32>, high: &Row<f32>, t: f32, c: u32, choice: &mut Row<u32>) {
    for ((choice, &a), &b) in choice.iter_mut().zip(low).zip(high) {
        *choice = pick(mask(mix(a, b, t) > FAINT), c, *choice);
    }
}
