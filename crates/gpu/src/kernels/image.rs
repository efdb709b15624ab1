//! Whole images: tiles are cut from them, results are added up, and labels are chosen.

use cubecl::prelude::*;

/// Threads of a cube.
pub(crate) const THREADS: usize = 256;

/// Where a tile lies in an image.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Spot {
    /// Voxels of a tile.
    pub tz: usize,
    pub ty: usize,
    pub tx: usize,
    /// Voxels of the image.
    pub iz: usize,
    pub iy: usize,
    pub ix: usize,
    /// First voxel of the tile; one before the image's wraps around.
    pub z: usize,
    pub y: usize,
    pub x: usize,
    /// 1 for axes that the network sees backwards.
    pub fz: usize,
    pub fy: usize,
    pub fx: usize,
    pub volume: usize,
}

/// For a voxel as the network sees it: whether the image has it, which it is there, and which of the
/// tile's weights it has.
#[cube]
pub(crate) fn spot(place: &Spot, voxel: usize) -> (bool, usize, usize) {
    let x = voxel % place.tx;
    let y = voxel / place.tx % place.ty;
    let z = voxel / place.tx / place.ty;
    let x = select(place.fx == 1, place.tx - 1 - x, x);
    let y = select(place.fy == 1, place.ty - 1 - y, y);
    let z = select(place.fz == 1, place.tz - 1 - z, z);
    let own = (z * place.ty + y) * place.tx + x;
    let (z, y, x) = (z + place.z, y + place.y, x + place.x);
    let inside = z < place.iz && y < place.iy && x < place.ix;
    (inside, (z * place.iy + y) * place.ix + x, own)
}

/// Copies a tile of `channels` channels to image `number` of a network's input; what lies outside is
/// zero.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn cut(image: &[f32], input: &mut [f32], place: Spot, channels: usize, number: usize) {
    let voxels = place.tz * place.ty * place.tx;
    let channel = ABSOLUTE_POS / voxels;
    if channel >= channels {
        terminate!();
    }
    let (inside, at, _) = spot(&place, ABSOLUTE_POS % voxels);
    let from = select(inside, channel * place.volume + at, 0usize);
    let value = image[from];
    input[number * channels * voxels + ABSOLUTE_POS] = select(inside, value, 0.0f32);
}

/// Adds a tile's weights, `count` times each.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn weigh(bell: &[f32], totals: &mut [f32], place: Spot, count: f32) {
    if ABSOLUTE_POS >= place.tz * place.ty * place.tx {
        terminate!();
    }
    let (inside, at, own) = spot(&place, ABSOLUTE_POS);
    if inside {
        totals[at] = totals[at] + bell[own] * count;
    }
}

/// Sums become means.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn divide(totals: &[f32], sums: &mut [f32], volume: usize, channels: usize) {
    if ABSOLUTE_POS >= volume {
        terminate!();
    }
    let total = totals[ABSOLUTE_POS];
    for channel in 0..channels {
        let at = channel * volume + ABSOLUTE_POS;
        sums[at] = sums[at] / total;
    }
}

/// Zeros, in whole words.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn clear(values: &mut [f32], count: usize) {
    if ABSOLUTE_POS < count {
        values[ABSOLUTE_POS] = 0.0;
    }
}

/// The image whose voxels get labels, and where means are.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Grid {
    /// Voxels that get labels, along the last two axes and in all.
    pub y: usize,
    pub x: usize,
    pub voxels: usize,
    /// The first of them that this launch makes.
    pub from: usize,
    /// Voxels of means along the last two axes, and in all.
    pub sy: usize,
    pub sx: usize,
    pub volume: usize,
    /// Classes; where biases lie, and weights, class after class.
    pub classes: usize,
    pub bias: usize,
    pub weights: usize,
    /// Where the tables of the three axes begin.
    pub tz: usize,
    pub ty: usize,
    pub tx: usize,
}

/// How labels are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Choice {
    /// Features that a linear layer turns into logits; 0 where means are logits.
    pub features: usize,
    /// Whether the last class above a limit wins, in place of the largest.
    pub regions: bool,
    /// Labels in a word: 4 or 2.
    pub each: usize,
}

/// A voxel's place between voxels of the means.
#[derive(CubeType, Clone, Copy)]
struct Between {
    low: usize,
    high: usize,
    t: f32,
}

#[cube]
fn between(table: &[f32], first: usize, at: usize) -> Between {
    let from = first + at * 3;
    Between {
        low: usize::cast_from(table[from]),
        high: usize::cast_from(table[from + 1]),
        t: table[from + 2],
    }
}

#[cube]
fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + t * (b - a)
}

/// Linear interpolation: planes, then columns, then rows, as the CPU does it.
#[cube]
fn value(means: &[f32], base: usize, grid: &Grid, z: &Between, y: &Between, x: &Between) -> f32 {
    let below = base + z.low * grid.sy * grid.sx;
    let above = base + z.high * grid.sy * grid.sx;
    let mut rows = Array::<f32>::new(2usize);
    #[unroll]
    for k in 0..2usize {
        let row = if comptime!(k == 0) { y.low * grid.sx } else { y.high * grid.sx };
        let low = mix(means[below + row + x.low], means[above + row + x.low], z.t);
        let high = mix(means[below + row + x.high], means[above + row + x.high], z.t);
        rows[k] = mix(low, high, x.t);
    }
    mix(rows[0], rows[1], y.t)
}

/// Labels of some voxels next to each other: means are interpolated, a linear layer is applied where
/// there is one, and a class wins. `table` has for each voxel along an axis its two neighbors and the
/// weight of the second.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn label(
    means: &[f32],
    table: &[f32],
    layer: &[f32],
    labels: &mut [u32],
    grid: Grid,
    limit: f32,
    #[comptime] choice: Choice,
) {
    let each = choice.each;
    let first = grid.from + ABSOLUTE_POS * each;
    if first >= grid.voxels {
        terminate!();
    }
    let mut best = Array::<f32>::new(each);
    let mut chosen = Array::<u32>::new(each);
    let mut features = Array::<f32>::new(comptime!(each * choice.features.max(1)));
    let (sizes, voxels) = (grid.y * grid.x, grid.voxels);
    #[unroll]
    for k in 0..each {
        best[k] = limit;
        chosen[k] = 0u32;
        if comptime!(choice.features > 0) {
            let at = min(first + k, voxels - 1);
            let z = between(table, grid.tz, at / sizes);
            let y = between(table, grid.ty, at / grid.x % grid.y);
            let x = between(table, grid.tx, at % grid.x);
            #[unroll]
            for f in 0..choice.features {
                features[comptime!(k * choice.features + f)] =
                    value(means, f * grid.volume, &grid, &z, &y, &x);
            }
        }
    }
    for class in 0..grid.classes {
        #[unroll]
        for k in 0..each {
            let logit = if comptime!(choice.features > 0) {
                let mut sum = layer[grid.bias + class];
                #[unroll]
                for f in 0..choice.features {
                    let weight = layer[grid.weights + class * choice.features + f];
                    sum += weight * features[comptime!(k * choice.features + f)];
                }
                sum
            } else {
                let at = min(first + k, voxels - 1);
                let z = between(table, grid.tz, at / sizes);
                let y = between(table, grid.ty, at / grid.x % grid.y);
                let x = between(table, grid.tx, at % grid.x);
                value(means, class * grid.volume, &grid, &z, &y, &x)
            };
            if comptime!(choice.regions) {
                // A NaN exceeds nothing.
                chosen[k] = select(logit > limit, class as u32 + 1, chosen[k]);
            } else {
                // The first of equals wins, and what is no number over any that is one.
                let wild = logit.is_nan() && !best[k].is_nan();
                let wins = class == 0 || logit > best[k] || wild;
                best[k] = select(wins, logit, best[k]);
                chosen[k] = select(wins, class as u32, chosen[k]);
            }
        }
    }
    let mut word = 0u32.runtime();
    #[unroll]
    for k in 0..each {
        word |= chosen[k] << comptime!((32 / each * k) as u32);
    }
    labels[ABSOLUTE_POS] = word;
}
