//! What a tile reads, on its way to shared memory.

use super::super::geometry::{Layer, OUTSIDE, Place};
use super::{Form, halves};
use cubecl::prelude::*;

/// Blocks of channels that a stage reads, all of one input.
#[derive(CubeType, Clone, Copy)]
struct Blocks {
    /// Whether it is the second input.
    second: bool,
    /// The first block, how many there are, and those of images before.
    first: usize,
    count: usize,
    before: usize,
    /// Where entries for reading the image's first block lie.
    entry: usize,
}

#[cube]
fn blocks(layer: &Layer, here: &Place, stage: usize, #[comptime] form: Form) -> Blocks {
    let first = stage * form.depth;
    let second = first >= layer.blocks_a;
    let blocks_b = layer.blocks_in - layer.blocks_a;
    let count = select(second, blocks_b, layer.blocks_a);
    let entry_a = layer.affine_a + here.image * layer.stride_a;
    let entry_b = layer.affine_b + here.image * layer.stride_b;
    Blocks {
        second,
        first: select(second, first - layer.blocks_a, first),
        count,
        before: here.image * count,
        entry: select(second, entry_b, entry_a),
    }
}

/// Block `d` of a stage. It may reach beyond the last one, where weights are zero.
#[cube]
fn block(blocks: &Blocks, d: usize) -> usize {
    min(blocks.first + d, blocks.count - 1)
}

/// How the channels of a block are read: scale, shift and slope, in pairs.
#[derive(CubeType)]
struct Reading {
    scale: Array<Vector<f32, Const<2>>>,
    shift: Array<Vector<f32, Const<2>>>,
    slope: Array<Vector<f32, Const<2>>>,
}

#[cube]
fn reading(params: &[Vector<f32, Const<2>>], entry: usize) -> Reading {
    let mut scale = Array::<Vector<f32, Const<2>>>::new(4usize);
    let mut shift = Array::<Vector<f32, Const<2>>>::new(4usize);
    let mut slope = Array::<Vector<f32, Const<2>>>::new(4usize);
    #[unroll]
    for k in 0..4usize {
        scale[k] = params[entry * 2 + k];
        shift[k] = params[entry * 2 + 4 + k];
        slope[k] = params[entry * 2 + 8 + k];
    }
    Reading { scale, shift, slope }
}

/// A block of channels of a voxel, normalized and activated.
#[cube]
fn read<A: Float, NA: Size>(
    raw: Vector<A, NA>,
    outside: bool,
    how: &Reading,
    #[comptime] brain: bool,
) -> Vector<u32, Const<4>> {
    let mut packed = Vector::<u32, Const<4>>::new(0u32);
    #[unroll]
    for c in 0..4usize {
        let mut v = Vector::<f32, Const<2>>::empty();
        v.insert(0usize, f32::cast_from(raw.extract(comptime!(2 * c))));
        v.insert(1usize, f32::cast_from(raw.extract(comptime!(2 * c + 1))));
        let v = v * how.scale[c] + how.shift[c];
        let v = max(v, v * how.slope[c]);
        let both = halves(v.extract(0usize), v.extract(1usize), brain);
        packed.insert(c, select(outside, 0u32, both));
    }
    packed
}

/// Asks for all that a thread copies of a stage.
#[cube]
pub(super) fn load<A: Float, NA: Size>(
    a: &[Vector<A, NA>],
    b: &[Vector<A, NA>],
    table: &[u32],
    raw: &mut Array<Vector<A, NA>>,
    layer: &Layer,
    here: &Place,
    stage: usize,
    #[comptime] form: Form,
) {
    let all = blocks(layer, here, stage, form);
    if all.second {
        ask(b, table, raw, &all, layer, form);
    } else {
        ask(a, table, raw, &all, layer, form);
    }
}

#[cube]
fn ask<A: Float, NA: Size>(
    source: &[Vector<A, NA>],
    table: &[u32],
    raw: &mut Array<Vector<A, NA>>,
    all: &Blocks,
    layer: &Layer,
    #[comptime] form: Form,
) {
    let (threads, size, rounds) = comptime!((form.threads(), form.size(), form.rounds()));
    let voxels = layer.iz * layer.iy * layer.ix;
    let unit = UNIT_POS as usize;
    #[unroll]
    for k in 0..rounds {
        let voxel = table[min(unit + comptime!(k * threads), comptime!(size - 1))];
        let voxel = select(voxel == OUTSIDE, 0u32, voxel) as usize;
        #[unroll]
        for d in 0..form.depth {
            let base = (all.before + block(all, d)) * voxels;
            raw[comptime!(d * rounds + k)] = source[base + voxel];
        }
    }
}

/// Puts what [`load`] asked for in shared memory.
#[cube]
pub(super) fn keep<E: Float, A: Float, NA: Size>(
    params: &[Vector<f32, Const<2>>],
    table: &[u32],
    raw: &Array<Vector<A, NA>>,
    tile: &mut [Vector<E, Const<8>>],
    layer: &Layer,
    here: &Place,
    stage: usize,
    #[comptime] form: Form,
) {
    let (threads, size, rounds) = comptime!((form.threads(), form.size(), form.rounds()));
    let all = blocks(layer, here, stage, form);
    let unit = UNIT_POS as usize;
    #[unroll]
    for d in 0..form.depth {
        let how = reading(params, all.entry + block(&all, d) * 6);
        #[unroll]
        for k in 0..rounds {
            let at = unit + comptime!(k * threads);
            if at < size {
                let packed =
                    read(raw[comptime!(d * rounds + k)], table[at] == OUTSIDE, &how, form.brain);
                tile[at + comptime!(d * size)] = Vector::<E, Const<8>>::reinterpret(packed);
            }
        }
    }
}

/// What a stage of the sum reads, normalized and activated, in shared memory.
#[cube]
pub(super) fn fill<E: Float, A: Float, NA: Size>(
    a: &[Vector<A, NA>],
    b: &[Vector<A, NA>],
    params: &[Vector<f32, Const<2>>],
    table: &[u32],
    tile: &mut [Vector<E, Const<8>>],
    layer: &Layer,
    here: &Place,
    stage: usize,
    #[comptime] form: Form,
) {
    if comptime!(form.planar > 0) {
        gather::<E, A, NA>(a, tile, layer, here, form);
    } else {
        let voxels = layer.iz * layer.iy * layer.ix;
        let all = blocks(layer, here, stage, form);
        for d in 0..form.depth {
            let number = block(&all, d);
            let how = reading(params, all.entry + number * 6);
            let base = (all.before + number) * voxels;
            let to = d * comptime!(form.size());
            if all.second {
                copy::<E, A, NA>(b, base, &how, table, tile, to, form);
            } else {
                copy::<E, A, NA>(a, base, &how, table, tile, to, form);
            }
        }
    }
}

/// Most vectors that a thread waits for at once.
const BATCH: usize = 8;

/// One block of channels of what the tile reads. A thread asks for several vectors before it waits
/// for the first: memory is far away.
#[cube]
fn copy<E: Float, A: Float, NA: Size>(
    source: &[Vector<A, NA>],
    base: usize,
    how: &Reading,
    table: &[u32],
    tile: &mut [Vector<E, Const<8>>],
    start: usize,
    #[comptime] form: Form,
) {
    let (threads, size, rounds) = comptime!((form.threads(), form.size(), form.rounds()));
    let unit = UNIT_POS as usize;
    let many = comptime!(rounds.min(BATCH));
    for batch in 0..comptime!(rounds.div_ceil(BATCH)) {
        let first = batch * comptime!(BATCH * threads) + unit;
        let mut raw = Array::<Vector<A, NA>>::new(many);
        #[unroll]
        for k in 0..many {
            let voxel = table[min(first + comptime!(k * threads), comptime!(size - 1))];
            raw[k] = source[base + select(voxel == OUTSIDE, 0u32, voxel) as usize];
        }
        #[unroll]
        for k in 0..many {
            let at = first + comptime!(k * threads);
            if at < size {
                let packed = read(raw[k], table[at] == OUTSIDE, how, form.brain);
                tile[start + at] = Vector::<E, Const<8>>::reinterpret(packed);
            }
        }
    }
}

/// The network's own input under all taps, eight at a time, for each voxel of the tile.
#[cube]
fn gather<E: Float, A: Float, NA: Size>(
    source: &[Vector<A, NA>],
    tile: &mut [Vector<E, Const<8>>],
    layer: &Layer,
    here: &Place,
    #[comptime] form: Form,
) {
    let [_, ty, tx] = form.window.tile;
    let [sz, sy, sx] = form.window.stride;
    let [_, ky, kx] = form.window.kernel;
    let (threads, voxels, taps) = comptime!((form.threads(), form.voxels(), form.window.taps()));
    let channel = layer.iz * layer.iy * layer.ix;
    let first = here.image * form.planar * channel;
    let mut m = UNIT_POS as usize;
    while m < voxels {
        // Below zero is beyond the end.
        let x = (here.x + m % tx) * sx - layer.px;
        let y = (here.y + m / tx % ty) * sy - layer.py;
        let z = (here.z + m / comptime!(tx * ty)) * sz - layer.pz;
        #[unroll]
        for u in 0..comptime!(form.units()) {
            let mut packed = Vector::<u32, Const<4>>::new(0u32);
            #[unroll]
            for c in 0..4usize {
                let mut two = Vector::<f32, Const<2>>::new(0.0);
                #[unroll]
                for k in 0..2usize {
                    let number = comptime!(u * 8 + c * 2 + k);
                    if comptime!(number < taps * form.planar) {
                        let (c, tap) = comptime!((number / taps, number % taps));
                        let x = x + comptime!(tap % kx);
                        let y = y + comptime!(tap / kx % ky);
                        let z = z + comptime!(tap / kx / ky);
                        let inside = z < layer.iz && y < layer.iy && x < layer.ix;
                        let at = first + c * channel + (z * layer.iy + y) * layer.ix + x;
                        let value =
                            f32::cast_from(source[select(inside, at, 0usize)].extract(0usize));
                        two.insert(k, select(inside, value, 0.0f32));
                    }
                }
                packed.insert(c, halves(two.extract(0usize), two.extract(1usize), form.brain));
            }
            tile[u * voxels + m] = Vector::<E, Const<8>>::reinterpret(packed);
        }
        m += threads;
    }
}
