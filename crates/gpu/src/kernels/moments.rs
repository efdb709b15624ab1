//! Instance normalization: from moments of parts to what readers multiply with and add, and sums
//! that were split.
//!
//! A tensor is never normalized in memory. Whoever makes it takes moments of each piece on the way
//! (count, mean, squared deviations); [`merge`] joins them in a fixed order, as a tree, and writes
//! scale, shift and slope, six vectors of four for a block of channels. [`finish`] adds up a sum
//! that was split, or only takes moments of a tensor that is there.

use cubecl::prelude::*;

/// Threads of a cube that take moments together; one alone where they cannot share memory.
pub(crate) const THREADS: usize = 256;

/// An instance normalization. Places are in vectors of four.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Norm {
    /// Images times blocks of channels; a grid may have cubes beyond the last.
    pub maps: usize,
    /// Blocks of channels of an image.
    pub blocks: usize,
    /// Pieces of a map.
    pub pieces: usize,
    /// Where factor, offset and slope of the first block lie, and where entries for readers go.
    pub from: usize,
    pub to: usize,
    pub epsilon: f32,
}

/// A cube per image and block of channels.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn merge(
    parts: &[Vector<f32, Const<4>>],
    params: &mut [Vector<f32, Const<4>>],
    norm: Norm,
    #[comptime] team: usize,
) {
    let map = CUBE_POS;
    if map >= norm.maps {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let first = map * norm.pieces * 6;
    let mut counts = Vector::<f32, Const<4>>::new(0.0);
    let mut low = Vector::<f32, Const<4>>::new(0.0);
    let mut high = Vector::<f32, Const<4>>::new(0.0);
    let zero = Vector::<f32, Const<4>>::new(0.0);
    // Means relative to the first one's: their sum loses nothing however large they are.
    let base_low = parts[first + 2];
    let base_high = parts[first + 3];
    let mut at = unit;
    while at < norm.pieces {
        let n = parts[first + at * 6];
        counts += n;
        low += n * (parts[first + at * 6 + 2] - base_low);
        high += n * (parts[first + at * 6 + 3] - base_high);
        at += team;
    }
    let count = all(counts, team);
    let low = all(low, team);
    let high = all(high, team);
    let mean_low = base_low + low / count;
    let mean_high = base_high + high / count;
    let mut low = zero;
    let mut high = zero;
    let mut at = unit;
    while at < norm.pieces {
        let n = parts[first + at * 6];
        let off = parts[first + at * 6 + 2] - mean_low;
        low += parts[first + at * 6 + 4] + n * off * off;
        let off = parts[first + at * 6 + 3] - mean_high;
        high += parts[first + at * 6 + 5] + n * off * off;
        at += team;
    }
    let low = all(low, team);
    let high = all(high, team);
    if unit == 0 {
        entry(params, &norm, map, 0usize, mean_low, low / count);
        entry(params, &norm, map, 1usize, mean_high, high / count);
    }
}

/// The sum over the cube's threads, for all of them.
#[cube]
fn all(value: Vector<f32, Const<4>>, #[comptime] team: usize) -> Vector<f32, Const<4>> {
    if comptime!(team == 1) {
        value
    } else {
        let unit = UNIT_POS as usize;
        let mut gathered = Shared::<[Vector<f32, Const<4>>]>::new_aligned_slice(team, 16usize);
        gathered[unit] = value;
        let mut half = comptime!(team / 2).runtime();
        sync_cube();
        while half > 0 {
            if unit < half {
                gathered[unit] = gathered[unit] + gathered[unit + half];
            }
            half /= 2;
            sync_cube();
        }
        let sum = gathered[0];
        // The next sum may lie where this one did.
        sync_cube();
        sum
    }
}

/// Mean and sum of squared deviations from it of `n` values: `one` and `two` are sums of their deviations
/// from `shift`, and of the squares of those.
#[cube]
pub(super) fn about<N: Size>(
    n: Vector<f32, N>,
    shift: Vector<f32, N>,
    one: Vector<f32, N>,
    two: Vector<f32, N>,
) -> (Vector<f32, N>, Vector<f32, N>) {
    (shift + one / n, max(two - one * one / n, Vector::new(0.0)))
}

/// Scale, shift and slope of half a block of channels.
#[cube]
fn entry(
    params: &mut [Vector<f32, Const<4>>],
    norm: &Norm,
    map: usize,
    half: usize,
    mean: Vector<f32, Const<4>>,
    variance: Vector<f32, Const<4>>,
) {
    let from = norm.from + map % norm.blocks * 6 + half;
    let to = norm.to + map * 6 + half;
    let scale = params[from] / (variance + Vector::new(norm.epsilon)).sqrt();
    params[to] = scale;
    params[to + 2] = params[from + 2] - mean * scale;
    params[to + 4] = params[from + 4];
}

/// What [`finish`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    /// Whether there are parts of a sum to add up, or a tensor that is there.
    pub sums: bool,
    pub moments: bool,
    /// Whether a map is one piece, so that entries for readers can be written.
    pub whole: bool,
}

/// How [`finish`] works.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Pieces {
    /// Voxels of a map, and of a piece.
    pub voxels: usize,
    pub piece: usize,
    /// Parts of the sum.
    pub splits: usize,
    /// Where biases begin, in vectors of four.
    pub bias: usize,
}

/// A cube per image, block of channels and piece, pieces fastest.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn finish<S: Float, O: Float>(
    source: &[Vector<S, Const<4>>],
    params: &mut [Vector<f32, Const<4>>],
    output: &mut [Vector<O, Const<4>>],
    parts: &mut [Vector<f32, Const<4>>],
    pieces: Pieces,
    norm: Norm,
    #[comptime] form: Task,
    #[comptime] team: usize,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let map = CUBE_POS / norm.pieces;
    let piece = CUBE_POS % norm.pieces;
    if map >= norm.maps {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let start = piece * pieces.piece;
    let end = min(start + pieces.piece, pieces.voxels);
    let block = map % norm.blocks;
    let zero = Vector::<f32, Const<4>>::new(0.0);
    let mut bias = Array::<Vector<f32, Const<4>>>::new(2usize);
    bias[0] = zero;
    bias[1] = zero;
    if comptime!(form.sums) {
        bias[0] = params[pieces.bias + block * 2];
        bias[1] = params[pieces.bias + block * 2 + 1];
    }
    let mut shift = Array::<Vector<f32, Const<4>>>::new(2usize);
    let mut one = Array::<Vector<f32, Const<4>>>::new(2usize);
    let mut two = Array::<Vector<f32, Const<4>>>::new(2usize);
    #[unroll]
    for k in 0..2usize {
        one[k] = zero;
        two[k] = zero;
        shift[k] = zero;
        if comptime!(form.moments) {
            // Every thread adds up the first voxel itself: no waiting.
            shift[k] = total(source, map, start, k, &pieces) + bias[k];
        }
    }
    let mut at = start + unit;
    while at < end {
        #[unroll]
        for k in 0..2usize {
            let sum = total(source, map, at, k, &pieces) + bias[k];
            if comptime!(form.sums) {
                output[(map * pieces.voxels + at) * 2 + k] = Vector::cast_from(sum);
            }
            if comptime!(form.moments) {
                let off = sum - shift[k];
                one[k] += off;
                two[k] += off * off;
            }
        }
        at += team;
    }
    if comptime!(form.moments) {
        let n = Vector::<f32, Const<4>>::new(f32::cast_from(end - start));
        #[unroll]
        for k in 0..2usize {
            let first = all(one[k], team);
            let second = all(two[k], team);
            let (mean, squares) = about::<Const<4>>(n, shift[k], first, second);
            if unit == 0 {
                if comptime!(form.whole) {
                    entry(params, &norm, map, k, mean, squares / n);
                } else {
                    parts[CUBE_POS * 6 + k] = n;
                    parts[CUBE_POS * 6 + 2 + k] = mean;
                    parts[CUBE_POS * 6 + 4 + k] = squares;
                }
            }
        }
    }
}

/// One half of a block of channels of a voxel, its parts added up in order.
#[cube]
fn total<S: Float>(
    source: &[Vector<S, Const<4>>],
    map: usize,
    at: usize,
    half: usize,
    pieces: &Pieces,
) -> Vector<f32, Const<4>> {
    let first = (map * pieces.splits * pieces.voxels + at) * 2 + half;
    let mut sum = Vector::<f32, Const<4>>::cast_from(source[first]);
    for split in 1..pieces.splits {
        sum += Vector::<f32, Const<4>>::cast_from(source[first + split * pieces.voxels * 2]);
    }
    sum
}
