//! Convolution without tensor cores: products and sums in `f32`, whatever the numbers are stored as.
//!
//! What a tile reads of a block of channels goes to shared memory, normalized and activated on the
//! way, and so do the weights of the blocks it makes. A thread makes some voxels along y of eight
//! output channels: a column of the input serves all taps along y, and a weight all voxels. Sums
//! run block by block, tap by tap.

mod leave;

use super::geometry::{Layer, OUTSIDE, Place, Window, chart, place};
use cubecl::prelude::*;

/// What is compiled into a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub window: Window,
    /// Voxels along y of a thread.
    pub rows: usize,
    /// Blocks of output channels of a cube.
    pub blocks: usize,
    pub threads: usize,
    /// Channels of a block of the input: 8, or 1.
    pub lanes: usize,
    /// Voxels of the output for each one made.
    pub scatter: [usize; 3],
    /// Whether moments of the output are taken.
    pub moments: bool,
}

impl Form {
    /// Vectors of a tile that lie in shared memory hold so many channels.
    pub(crate) fn width(&self) -> usize {
        if self.lanes == 1 { 1 } else { 4 }
    }

    /// Vectors of weights of a block that is made, for a stage.
    fn factors(&self) -> usize {
        self.window.taps() * self.lanes * 2
    }

    /// Threads of a block that is made.
    fn team(&self) -> usize {
        self.threads / self.blocks
    }
}

/// Where a thread stands in its cube, and the voxels it makes.
#[derive(CubeType, Clone, Copy)]
struct Member {
    /// Among the blocks of the cube, and among the threads of a block.
    own: usize,
    number: usize,
    /// The block that is made.
    block: usize,
    /// First voxel in the tile, and whether the tile has it.
    z: usize,
    y: usize,
    x: usize,
    active: bool,
}

#[cube]
fn member(here: &Place, #[comptime] form: Form) -> Member {
    let [tile_z, tile_y, tile_x] = form.window.tile;
    let unit = UNIT_POS as usize;
    let own = unit / comptime!(form.team());
    let number = unit % comptime!(form.team());
    let strips = comptime!(tile_y.div_ceil(form.rows));
    let z = number / tile_x / strips;
    let y = number / tile_x % strips * form.rows;
    Member {
        own,
        number,
        block: here.group * form.blocks + own,
        z,
        y,
        x: number % tile_x,
        active: z < tile_z,
    }
}

/// As [`super::matrix::convolution`]; `N` are the channels of a block of the input.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn convolution<E: Float, O: Float, N: Size>(
    a: &[Vector<E, N>],
    b: &[Vector<E, N>],
    params: &[Vector<f32, Const<4>>],
    weights: &[Vector<f32, Const<4>>],
    output: &mut [Vector<O, Const<4>>],
    sums: &mut [Vector<f32, Const<4>>],
    parts: &mut [Vector<f32, Const<4>>],
    layer: Layer,
    #[comptime] form: Form,
    #[define(E)] _element: ElemType,
    #[define(O)] _made: ElemType,
) {
    let window = form.window;
    // A vector of the tile holds so many channels, and a block of the input so many vectors.
    let width = comptime!(form.width());
    let size!(W) = width;
    let here = place(&layer, window);
    if here.image >= layer.images {
        terminate!();
    }
    let size = comptime!(window.size());
    let mut tile = Shared::<[Vector<f32, W>]>::new_aligned_slice(
        comptime!(size * form.lanes / width),
        16usize,
    );
    let mut table = Shared::<[u32]>::new_slice(size);
    let mut factors = Shared::<[Vector<f32, Const<4>>]>::new_aligned_slice(
        comptime!(form.blocks * form.factors()),
        16usize,
    );
    chart(&mut table, &layer, &here, window, form.threads);

    let own = member(&here, form);
    let mut acc = Array::<Vector<f32, Const<4>>>::new(comptime!(form.rows * 2));
    #[unroll]
    for r in 0..form.rows * 2 {
        acc[r] = Vector::new(0.0);
    }
    let voxels = layer.iz * layer.iy * layer.ix;
    let first = here.split * layer.stages / layer.splits;
    let last = (here.split + 1) * layer.stages / layer.splits;
    for stage in first..last {
        sync_cube();
        if stage < layer.blocks_a {
            let entry = layer.affine_a + here.image * layer.stride_a + stage * 6;
            let base = (here.image * layer.blocks_a + stage) * voxels;
            fill::<E, N, W>(a, base, params, entry, &table, &mut tile, form);
        } else {
            let block = stage - layer.blocks_a;
            let entry = layer.affine_b + here.image * layer.stride_b + block * 6;
            let base = (here.image * (layer.blocks_in - layer.blocks_a) + block) * voxels;
            fill::<E, N, W>(b, base, params, entry, &table, &mut tile, form);
        }
        let mut at = UNIT_POS as usize;
        while at < comptime!(form.blocks * form.factors()) {
            let block =
                min(here.group * form.blocks + at / comptime!(form.factors()), layer.made - 1);
            let from = layer.weights + (block * layer.stages + stage) * comptime!(form.factors());
            factors[at] = weights[from + at % comptime!(form.factors())];
            at += form.threads;
        }
        sync_cube();
        multiply(&tile, &factors, &mut acc, &own, form);
    }
    if layer.splits > 1 {
        leave::part(sums, &acc, &layer, &here, &own, form);
    } else {
        leave::bias(params, &mut acc, &layer, &own, form);
        leave::whole(output, parts, &acc, &layer, &here, &own, form);
    }
}

/// Adds up what lies in shared memory.
#[cube]
fn multiply<W: Size>(
    tile: &[Vector<f32, W>],
    factors: &[Vector<f32, Const<4>>],
    acc: &mut Array<Vector<f32, Const<4>>>,
    own: &Member,
    #[comptime] form: Form,
) {
    let Form { window, rows, .. } = form;
    let [kernel_z, kernel_y, kernel_x] = window.kernel;
    let [stride_z, stride_y, stride_x] = window.stride;
    let [_, halo_y, pitch] = comptime!(window.halo());
    let width = comptime!(form.width());
    let halves = comptime!(form.lanes / width);
    let reach = comptime!((rows - 1) * stride_y + kernel_y);
    let mut column = Array::<Vector<f32, W>>::new(reach);
    let corner =
        select(own.active, (own.z * stride_z * halo_y + own.y * stride_y) * pitch + own.x, 0usize);
    for h in 0..halves {
        for k in 0..kernel_z {
            for l in 0..kernel_x {
                let place = l % stride_x * comptime!(pitch / stride_x) + l / stride_x;
                let from =
                    corner + h * comptime!(window.size()) + k * comptime!(halo_y * pitch) + place;
                #[unroll]
                for r in 0..reach {
                    column[r] = tile[from + r * pitch];
                }
                let taps = ((own.own * halves + h) * kernel_z + k) * kernel_x + l;
                #[unroll]
                for i in 0..kernel_y {
                    #[unroll]
                    for c in 0..width {
                        let factor = (taps * kernel_y + i) * comptime!(width * 2) + c * 2;
                        let low = factors[factor];
                        let high = factors[factor + 1];
                        #[unroll]
                        for r in 0..rows {
                            let value =
                                Vector::<f32, Const<4>>::new(column[r * stride_y + i].extract(c));
                            acc[r * 2] += value * low;
                            acc[r * 2 + 1] += value * high;
                        }
                    }
                }
            }
        }
    }
}

/// Most vectors that a thread waits for at once.
const BATCH: usize = 4;

/// One block of channels of what the tile reads, normalized and activated. A thread asks for several
/// vectors before it waits for the first: memory is far away.
#[cube]
fn fill<E: Float, N: Size, W: Size>(
    source: &[Vector<E, N>],
    base: usize,
    params: &[Vector<f32, Const<4>>],
    entry: usize,
    table: &[u32],
    tile: &mut [Vector<f32, W>],
    #[comptime] form: Form,
) {
    let (threads, size, lanes) = comptime!((form.threads, form.window.size(), form.lanes));
    let mut affine = Array::<Vector<f32, Const<4>>>::new(6usize);
    if comptime!(lanes != 1) {
        #[unroll]
        for k in 0..6usize {
            affine[k] = params[entry + k];
        }
    }
    let unit = UNIT_POS as usize;
    for batch in 0..comptime!(size.div_ceil(threads * BATCH)) {
        let first = batch * comptime!(BATCH * threads) + unit;
        let mut raw = Array::<Vector<E, N>>::new(BATCH);
        let mut inside = Array::<u32>::new(BATCH);
        #[unroll]
        for k in 0..BATCH {
            let voxel = table[min(first + comptime!(k * threads), comptime!(size - 1))];
            inside[k] = voxel;
            raw[k] = source[base + select(voxel == OUTSIDE, 0u32, voxel) as usize];
        }
        #[unroll]
        for k in 0..BATCH {
            let at = first + comptime!(k * threads);
            let outside = inside[k] == OUTSIDE;
            if at < size {
                if comptime!(lanes == 1) {
                    let value = f32::cast_from(raw[k].extract(0usize));
                    tile[at] = Vector::new(select(outside, 0.0f32, value));
                } else {
                    let mut low = Vector::<f32, W>::new(0.0);
                    let mut high = Vector::<f32, W>::new(0.0);
                    #[unroll]
                    for c in 0..4usize {
                        let v = f32::cast_from(raw[k].extract(c)) * affine[0].extract(c)
                            + affine[2].extract(c);
                        low.insert(c, select(outside, 0.0f32, max(v, v * affine[4].extract(c))));
                        let v = f32::cast_from(raw[k].extract(comptime!(c + 4)))
                            * affine[1].extract(c)
                            + affine[3].extract(c);
                        high.insert(c, select(outside, 0.0f32, max(v, v * affine[5].extract(c))));
                    }
                    tile[at] = low;
                    tile[size + at] = high;
                }
            }
        }
    }
}
