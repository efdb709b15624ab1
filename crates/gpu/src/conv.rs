//! Convolutions: which kernel, which tiles, weights as that kernel reads them, and its launch.

#![allow(unsafe_code, reason = "launches of kernels")]

use crate::kernels::geometry::{BLOCK, LayerLaunch, Window};
use crate::kernels::{direct, matrix};
use crate::queue::{Queue, cubes, start, whole};
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Sizes of a convolution. A transposed one whose kernel is as long as its stride is a pointwise
/// one that makes as many outputs as its kernel has taps, and scatters them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conv {
    /// Channels of one or two inputs side by side.
    pub inputs: Vec<usize>,
    pub outputs: usize,
    pub input: [usize; 3],
    /// Before scattering.
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub pad: [usize; 3],
    /// Voxels of the output for each one made.
    pub scatter: [usize; 3],
    /// Channels of a block of the input: 8, or 1 for the network's own.
    pub lanes: usize,
}

impl Conv {
    /// Blocks of an input.
    pub(crate) fn blocks(&self, input: usize) -> usize {
        self.inputs.get(input).map_or(0, |channels| channels.div_ceil(self.lanes))
    }

    pub(crate) fn blocks_in(&self) -> usize {
        self.blocks(0) + self.blocks(1)
    }

    pub(crate) fn blocks_out(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// Voxels of the output for each one made.
    pub(crate) fn scattered(&self) -> usize {
        self.scatter.iter().product()
    }

    /// Blocks that are made.
    pub(crate) fn made(&self) -> usize {
        self.blocks_out() * self.scattered()
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// For a voxel of the scattered output, the taps that are read inside the input: which weight of
    /// a channel, and which voxel. As the kernels must, one by one.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn reads(&self, place: [usize; 3]) -> Vec<(usize, usize)> {
        use std::array::from_fn;
        let from: [usize; 3] = from_fn(|k| place[k] / self.scatter[k]);
        let sub: [usize; 3] = from_fn(|k| place[k] % self.scatter[k]);
        let sub = (sub[0] * self.scatter[1] + sub[1]) * self.scatter[2] + sub[2];
        let [_, ky, kx] = self.kernel;
        let read = |tap: usize| {
            let tap3 = [tap / kx / ky, tap / kx % ky, tap % kx];
            let v: [isize; 3] =
                from_fn(|k| (from[k] * self.stride[k] + tap3[k]) as isize - self.pad[k] as isize);
            if (0..3).any(|k| v[k] < 0 || v[k] as usize >= self.input[k]) {
                return None;
            }
            let row = v[0] as usize * self.input[1] + v[1] as usize;
            Some((tap + sub, row * self.input[2] + v[2] as usize))
        };
        (0..self.taps()).filter_map(read).collect()
    }

    pub(crate) fn voxels(&self) -> usize {
        self.output.iter().product()
    }

    /// Multiplications and additions.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn flops(&self) -> f64 {
        let taps = self.taps() * self.scattered();
        2.0 * (self.inputs.iter().sum::<usize>() * self.outputs * taps) as f64
            * self.voxels() as f64
    }

    /// Numbers read and written, each once.
    pub(crate) fn numbers(&self) -> f64 {
        let read = self.blocks_in() * self.lanes * self.input.iter().product::<usize>();
        (read + self.made() * BLOCK * self.voxels()) as f64
    }

    pub(crate) fn window(&self, tile: [usize; 3]) -> Window {
        Window { tile, kernel: self.kernel, stride: self.stride }
    }

    /// The channel of the graph's weights that a place in the input's blocks has.
    fn channel(&self, block: usize, lane: usize) -> Option<usize> {
        let (input, block) = match block.checked_sub(self.blocks(0)) {
            Some(block) => (1, block),
            None => (0, block),
        };
        let channel = block * self.lanes + lane;
        let inside = channel < *self.inputs.get(input)?;
        inside.then(|| channel + if input == 1 { self.inputs[0] } else { 0 })
    }
}

/// The compiled kernel of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Matrix(matrix::Form),
    Direct(direct::Form),
}

impl Kernel {
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn moments(&self) -> bool {
        match self {
            Self::Matrix(form) => form.moments,
            Self::Direct(form) => form.moments,
        }
    }

    pub(crate) fn window(&self) -> Window {
        match self {
            Self::Matrix(form) => form.window,
            Self::Direct(form) => form.window,
        }
    }

    /// Blocks of output channels of a cube.
    pub(crate) fn blocks(&self) -> usize {
        match self {
            Self::Matrix(form) => form.blocks(),
            Self::Direct(form) => form.blocks,
        }
    }

    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Matrix(form) => form.threads(),
            Self::Direct(form) => form.threads,
        }
    }

    /// Bytes of shared memory of a cube.
    pub(crate) fn shared_bytes(&self) -> usize {
        match self {
            Self::Matrix(form) => {
                let moments =
                    if form.moments { form.blocks() * 4 * 8 * (2 * form.planes + 2) } else { 0 };
                let [tile, table, offsets] = form.shared();
                tile * 16 + (table + offsets) * 4 + moments
            }
            Self::Direct(form) => {
                let moments = if form.moments { form.threads * 64 + form.blocks * 32 } else { 0 };
                let weights = form.blocks * form.window.taps() * form.lanes * 32;
                form.window.size() * (form.lanes * 4 + 4) + weights + moments
            }
        }
    }

    /// A few words for people who look at times.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn text(&self) -> String {
        let Window { tile: [z, y, x], kernel, stride } = self.window();
        let shape = match self {
            Self::Matrix(f) => {
                let early = if f.early { " early" } else { "" };
                let matrix::Form { rows, columns, planes, wide, depth, .. } = f;
                format!("matrix {rows}x{columns} p{planes}x{wide} d{depth}{early}")
            }
            Self::Direct(f) => format!("direct r{} b{} t{}", f.rows, f.blocks, f.threads),
        };
        format!("{shape} k{}s{} tile {z}x{y}x{x}", kernel[2], stride[2])
    }
}

/// How a convolution runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub kernel: Kernel,
    /// Parts of the sum, made by different cubes.
    pub splits: usize,
}

impl Way {
    pub(crate) fn tiles(&self, conv: &Conv) -> [usize; 3] {
        let tile = self.kernel.window().tile;
        std::array::from_fn(|k| conv.output[k].div_ceil(tile[k]))
    }

    pub(crate) fn groups(&self, conv: &Conv) -> usize {
        conv.made().div_ceil(self.kernel.blocks())
    }

    pub(crate) fn stages(&self, conv: &Conv) -> usize {
        match self.kernel {
            Kernel::Matrix(form) if form.planar > 0 => 1,
            Kernel::Matrix(form) => conv.blocks_in().div_ceil(form.depth),
            Kernel::Direct(_) => conv.blocks_in(),
        }
    }

    /// Cubes for so many images.
    pub(crate) fn cubes(&self, conv: &Conv, images: usize) -> usize {
        self.tiles(conv).iter().product::<usize>() * self.groups(conv) * self.splits * images
    }
}

/// Where things of a layer begin, as in [`crate::kernels::geometry::Layer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bases {
    pub affine: [usize; 2],
    pub stride: [usize; 2],
    pub bias: usize,
    pub weights: usize,
}

/// The weights as a kernel reads them; `weight(output, input, tap)` is that of the graph, where
/// taps of a scattered output follow those of the kernel.
pub(crate) fn pack(
    conv: &Conv,
    way: &Way,
    weight: &dyn Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let taps = conv.taps();
    let at = |made: usize, out_lane: usize, channel: Option<usize>, tap: usize| {
        let output = made / conv.scattered() * BLOCK + out_lane;
        let inside = made < conv.made() && output < conv.outputs && tap < taps;
        // One of the two has a single tap.
        let tap = tap + made % conv.scattered();
        channel.filter(|_| inside).map_or(0.0, |channel| weight(output, channel, tap))
    };
    match way.kernel {
        Kernel::Direct(form) => pack_direct(conv, form, &at),
        Kernel::Matrix(form) => pack_matrix(conv, way, form, &at),
    }
}

/// Output block, place in it, channel of the input, tap.
type At<'a> = dyn Fn(usize, usize, Option<usize>, usize) -> f32 + 'a;

fn pack_direct(conv: &Conv, form: direct::Form, at: &At<'_>) -> Vec<f32> {
    let [kz, ky, kx] = conv.kernel;
    let width = form.width();
    let mut packed = Vec::new();
    for made in 0..conv.made() {
        for block in 0..conv.blocks_in() {
            for half in 0..form.lanes / width {
                for z in 0..kz {
                    for x in 0..kx {
                        for y in 0..ky {
                            let tap = (z * ky + y) * kx + x;
                            for c in 0..width {
                                let channel = conv.channel(block, half * width + c);
                                packed.extend((0..BLOCK).map(|o| at(made, o, channel, tap)));
                            }
                        }
                    }
                }
            }
        }
    }
    packed
}

fn pack_matrix(conv: &Conv, way: &Way, form: matrix::Form, at: &At<'_>) -> Vec<f32> {
    let pair = if form.columns == 1 { 1 } else { 2 };
    let taps = conv.taps();
    // The number of the graph that is multiplied with place `inner` of a unit.
    let source = |stage: usize, unit: usize, inner: usize| {
        if form.planar > 0 {
            let number = unit * BLOCK + inner;
            let inside = number < taps * form.planar;
            return (inside.then_some(number / taps), number % taps);
        }
        (conv.channel(stage * form.depth + unit % form.depth, inner), unit / form.depth)
    };
    let mut packed = Vec::new();
    for group in 0..way.groups(conv) * form.wide {
        for stage in 0..way.stages(conv) {
            for step in 0..form.units() / 2 {
                for load in 0..form.columns / pair {
                    for lane in 0..32 {
                        for n in 0..pair {
                            let made = group * form.columns + load * pair + n;
                            for k in 0..4 {
                                // Two by two along the products, eight apart.
                                let inner = lane % 4 * 2 + k % 2;
                                let (channel, tap) = source(stage, step * 2 + k / 2, inner);
                                packed.push(at(made, lane / 4, channel, tap));
                            }
                        }
                    }
                }
            }
        }
    }
    // The kernel reads some steps ahead.
    packed.resize(packed.len() + form.ahead() * form.columns * 128, 0.0);
    packed
}

/// Buffers of a launch.
#[derive(Clone)]
pub(crate) struct Buffers {
    pub inputs: [Handle; 2],
    pub params: Handle,
    pub weights: Handle,
    pub output: Handle,
    pub sums: Handle,
    pub parts: Handle,
}

/// Types of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub input: ElemType,
    pub output: ElemType,
}

/// Sizes of a convolution as its kernel gets them.
fn layer(conv: &Conv, way: &Way, images: usize, bases: &Bases) -> LayerLaunch {
    let [nz, ny, nx] = way.tiles(conv);
    LayerLaunch::new(
        conv.input[0],
        conv.input[1],
        conv.input[2],
        conv.output[0],
        conv.output[1],
        conv.output[2],
        conv.pad[0],
        conv.pad[1],
        conv.pad[2],
        nz,
        ny,
        nx,
        conv.blocks(0),
        conv.blocks_in(),
        conv.blocks_out(),
        conv.made(),
        way.groups(conv),
        way.splits,
        way.stages(conv),
        images,
        bases.affine[0],
        bases.affine[1],
        bases.stride[0],
        bases.stride[1],
        bases.bias,
        bases.weights,
    )
}

/// Launches a convolution of so many images. Nothing checks the buffers but the caller.
pub(crate) fn launch(
    queue: &Queue<'_>,
    conv: &Conv,
    way: &Way,
    images: usize,
    bases: &Bases,
    types: Types,
    buffers: Buffers,
) {
    let layer = layer(conv, way, images, bases);
    let count = cubes(way.cubes(conv, images));
    let dim = CubeDim::new_1d(way.kernel.threads() as u32);
    let Types { input, output } = types;
    let Buffers { inputs: [a, b], params, weights, output: made, sums, parts } = buffers;
    // SAFETY: the plan gives every tensor the bytes its sizes need, kernels reach only voxels and
    // blocks within these sizes, and tiles were checked against the kernel's shared memory.
    unsafe {
        match way.kernel {
            Kernel::Matrix(form) => {
                let Vectors { lanes, weights: vector, output: wide } = vectors(&form);
                let read = input.size() * lanes;
                start!(
                    queue,
                    matrix::convolution,
                    count,
                    dim,
                    lanes,
                    vector,
                    wide,
                    whole(a, read),
                    whole(b, read),
                    whole(params, 8),
                    whole(weights, vector * 4),
                    whole(made, wide * 4),
                    whole(sums, 8),
                    whole(parts, 8),
                    layer,
                    form,
                    output,
                    input,
                );
            }
            Kernel::Direct(form) => {
                let vector = input.size() * form.lanes;
                start!(
                    queue,
                    direct::convolution,
                    count,
                    dim,
                    form.lanes,
                    whole(a, vector),
                    whole(b, vector),
                    whole(params, 16),
                    whole(weights, 16),
                    whole(made, output.size() * 4),
                    whole(sums, 16),
                    whole(parts, 16),
                    layer,
                    form,
                    input,
                    output,
                );
            }
        }
    }
}

/// Numbers in the vectors that a kernel on tensor cores reads and writes.
pub(crate) struct Vectors {
    pub lanes: usize,
    pub weights: usize,
    pub output: usize,
}

pub(crate) fn vectors(form: &matrix::Form) -> Vectors {
    Vectors {
        lanes: if form.planar > 0 { 1 } else { BLOCK },
        weights: if form.columns == 1 { 2 } else { 4 },
        output: if form.scatter == [1; 3] { 1 } else { 4 },
    }
}
