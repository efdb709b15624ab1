//! A tile of the target: the two source planes are mixed along `z`, their rows along `x`, and
//! pairs of rows along `y`, where the running best is kept in the innermost cache.

use super::{FAINT, LabelValue};
use crate::infer::LinearHead;
use crate::pipeline::resample::Pair;
use fastnnunet_kernels::{Isa, row};
use ndarray::{ArrayView3, ArrayView4, ArrayViewMut2, Axis, s};

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
pub(super) struct Scratch {
    /// A source row between two planes.
    mixed: [f32; WINDOW],
    /// Source rows of the tile at the target's width.
    rows: Vec<Row<f32>>,
    best: Vec<Row<f32>>,
    choice: Vec<Row<u32>>,
    /// One row of the target per channel.
    features: Vec<Row<f32>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            mixed: [0.0; WINDOW],
            rows: Vec::new(),
            best: vec![[0.0; TILE_COLUMNS]; TILE_ROWS],
            choice: vec![[0; TILE_COLUMNS]; TILE_ROWS],
            features: Vec::new(),
        }
    }
}

/// What all tiles share.
pub(super) struct Shared<'a, T> {
    y: Vec<Pair>,
    x: Vec<Columns>,
    argmax: bool,
    table: Vec<T>,
    head: Option<Head<'a>>,
    isa: Isa,
}

/// The network's last layer as slices.
struct Head<'a> {
    weights: std::borrow::Cow<'a, [f32]>,
    bias: &'a [f32],
    /// Whether logits of bounded features are numbers.
    bounded: bool,
}

impl<'a> Head<'a> {
    fn new(head: &'a LinearHead) -> Self {
        let weights: std::borrow::Cow<'a, [f32]> = match head.weights.as_slice() {
            Some(weights) => weights.into(),
            None => head.weights.iter().copied().collect::<Vec<f32>>().into(),
        };
        let bounded = weights.iter().chain(&head.bias).all(|w| w.abs() < FEATURE_BOUND);
        Self { weights, bias: &head.bias, bounded }
    }
}

impl<'a, T: LabelValue> Shared<'a, T> {
    pub(super) fn new(
        y: &[Pair],
        x: &[Pair],
        argmax: bool,
        table: Vec<T>,
        head: Option<&'a LinearHead>,
        isa: Isa,
    ) -> Self {
        Self { y: y.to_vec(), x: columns(x), argmax, table, head: head.map(Head::new), isa }
    }

    /// Labels one slice of the target, which lies between two `planes`.
    pub(super) fn label_slice(
        &self,
        planes: ArrayView4<'_, f32>,
        z: Pair,
        mut slice: ArrayViewMut2<'_, T>,
        scratch: &mut Scratch,
    ) {
        for (y, mut rows) in
            self.y.chunks(TILE_ROWS).zip(slice.axis_chunks_iter_mut(Axis(0), TILE_ROWS))
        {
            let mut rest = rows.view_mut();
            for x in &self.x {
                let (mut tile, after) = rest.split_at(Axis(1), x.count);
                rest = after;
                match &self.head {
                    None => self.choose(planes, z, y, x, scratch),
                    Some(head) => self.choose_linear(head, planes, z, y, x, scratch),
                }
                for (mut row, choice) in tile.rows_mut().into_iter().zip(&scratch.choice) {
                    for (label, &choice) in row.iter_mut().zip(choice) {
                        *label = self.table[choice as usize];
                    }
                }
            }
        }
    }

    /// Fills `scratch.choice` with the index into the label table of each voxel of a tile.
    fn choose(
        &self,
        planes: ArrayView4<'_, f32>,
        z: Pair,
        y: &[Pair],
        x: &Columns,
        scratch: &mut Scratch,
    ) {
        let (first, last) = (y[0].low, y[y.len() - 1].high);
        scratch.rows.resize(last + 1 - first, [0.0; TILE_COLUMNS]);
        let Scratch { mixed, rows, best, choice, .. } = scratch;
        if !self.argmax {
            choice.fill([0; TILE_COLUMNS]);
        }
        for (c, channel) in planes.outer_iter().enumerate() {
            let bounded = widen_channel(channel, z, x, first, (mixed, rows), BOUND);
            let c = c as u32;
            for ((pair, best), choice) in y.iter().zip(best.iter_mut()).zip(choice.iter_mut()) {
                let (low, high) = (&rows[pair.low - first], &rows[pair.high - first]);
                match (self.argmax, c) {
                    (true, 0) => begin(low, high, pair.t as f32, best, choice),
                    (true, _) if bounded => improve(low, high, pair.t as f32, c, best, choice),
                    (true, _) => improve_wild(low, high, pair.t as f32, c, best, choice),
                    (false, _) => cover(low, high, pair.t as f32, c + 1, choice),
                }
            }
        }
    }

    /// As [`choose`](Self::choose), applying the network's last layer to each voxel.
    fn choose_linear(
        &self,
        head: &Head<'_>,
        planes: ArrayView4<'_, f32>,
        z: Pair,
        y: &[Pair],
        x: &Columns,
        scratch: &mut Scratch,
    ) {
        let (first, last) = (y[0].low, y[y.len() - 1].high);
        let (count, channels) = (last + 1 - first, planes.len_of(Axis(0)));
        let Scratch { mixed, rows, choice, features, .. } = scratch;
        rows.resize(count * channels, [0.0; TILE_COLUMNS]);
        features.resize(channels, [0.0; TILE_COLUMNS]);
        let mut bounded = head.bounded;
        for (channel, rows) in planes.outer_iter().zip(rows.chunks_exact_mut(count)) {
            bounded &= widen_channel(channel, z, x, first, (mixed, rows), FEATURE_BOUND);
        }
        let layer = (&head.weights[..], head.bias);
        for (pair, choice) in y.iter().zip(choice.iter_mut()) {
            for (feature, rows) in features.iter_mut().zip(rows.chunks_exact(count)) {
                let (low, high) = (&rows[pair.low - first], &rows[pair.high - first]);
                for ((value, &a), &b) in feature.iter_mut().zip(low).zip(high) {
                    *value = mix(a, b, pair.t as f32);
                }
            }
            match (self.argmax, bounded) {
                (true, true) => row::best_class(self.isa, choice, features.as_flattened(), layer),
                (true, false) => best_wild(choice, features, layer),
                // A NaN exceeds nothing.
                (false, _) => {
                    row::last_above(self.isa, choice, features.as_flattened(), layer, FAINT);
                }
            }
        }
    }
}

/// Interpolates the rows of a channel along `z` and `x`; says whether all that was read are
/// numbers smaller than `limit`.
fn widen_channel(
    channel: ArrayView3<'_, f32>,
    z: Pair,
    x: &Columns,
    first: usize,
    (mixed, rows): (&mut [f32; WINDOW], &mut [Row<f32>]),
    limit: f32,
) -> bool {
    let (below, above) = (plane(channel, z.low), plane(channel, z.high));
    let mut bounded = true;
    for (i, row) in rows.iter_mut().enumerate() {
        let (window, needed) = (s![first + i, x.first..x.end], &mut mixed[..x.end - x.first]);
        mix_planes(below.slice(window), above.slice(window), z.t as f32, needed);
        bounded &= needed.iter().fold(true, |bounded, v| bounded & (v.abs() < limit));
        widen(mixed, x, row);
    }
    bounded
}

/// As [`row::best_class`] where logits may be NaN, the first of which wins.
#[cold]
fn best_wild(choice: &mut Row<u32>, features: &[Row<f32>], (weights, bias): (&[f32], &[f32])) {
    for (i, chosen) in choice.iter_mut().enumerate() {
        let logit = |class: usize| {
            let weights = &weights[class * features.len()..];
            features.iter().zip(weights).fold(bias[class], |sum, (f, w)| sum + w * f[i])
        };
        let mut best = logit(0);
        *chosen = 0;
        for class in 1..bias.len() {
            let value = logit(class);
            if value > best || (value.is_nan() && !best.is_nan()) {
                (best, *chosen) = (value, class as u32);
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
const BOUND: f32 = 1e37;

/// Weights and features below this give finite logits, thousands of them.
const FEATURE_BOUND: f32 = 1e16;

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
