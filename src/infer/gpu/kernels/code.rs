//! The code that runs on the GPU. Arrays are contiguous, the last axis fastest.

#![allow(
    clippy::manual_div_ceil,
    clippy::too_many_arguments,
    clippy::trivially_copy_pass_by_ref,
    clippy::too_many_lines,
    clippy::used_underscore_binding,
    reason = "a smaller language than Rust, and what its macro generates"
)]

use cubecl::prelude::*;

/// What a convolution's kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) kernel: [usize; 3],
    pub(super) stride_y: usize,
    /// Voxels along y that a thread makes.
    pub(super) rows: usize,
    /// Vectors of output channels that a thread makes.
    pub(super) vectors: usize,
}

#[derive(CubeLaunch, CubeType)]
pub(super) struct Window {
    stride_z: usize,
    stride_x: usize,
    padding_z: usize,
    padding_y: usize,
    padding_x: usize,
}

/// What a thread makes.
#[derive(CubeType, Clone, Copy)]
struct Place {
    image: usize,
    /// Of its output channels.
    first: usize,
    z: usize,
    y: usize,
    x: usize,
}

/// The thread's place, beyond the last image where there is nothing to make.
#[cube]
fn place<E: Float>(output: &Tensor<E>, #[comptime] block: usize) -> Place {
    let (height, width) = (output.shape(3), output.shape(4));
    let voxels = output.shape(2) * height * width;
    let blocks = (output.shape(1) + block - 1) / block;
    let voxel = ABSOLUTE_POS % voxels;
    Place {
        image: ABSOLUTE_POS / voxels / blocks,
        first: ABSOLUTE_POS / voxels % blocks * block,
        z: voxel / width / height,
        y: voxel / width % height,
        x: voxel % width,
    }
}

/// Sums of the channels from `first` on, before anything is added.
#[cube]
fn biases(bias: &Tensor<f32>, first: usize, #[comptime] block: usize) -> Array<f32> {
    let mut sums = Array::<f32>::new(block);
    #[unroll]
    for j in 0..block {
        sums[j] = bias[clamp_max(first + j, bias.shape(0) - 1)];
    }
    sums
}

/// Writes the sums of the channels that exist.
#[cube]
fn store<E: Float>(
    sums: &Array<f32>,
    output: &mut Tensor<E>,
    place: Place,
    #[comptime] block: usize,
) {
    let outputs = output.shape(1);
    let (depth, height, width) = (output.shape(2), output.shape(3), output.shape(4));
    let voxels = depth * height * width;
    let voxel = (place.z * height + place.y) * width + place.x;
    #[unroll]
    for j in 0..block {
        let channel = place.first + j;
        if channel < outputs {
            output[(place.image * outputs + channel) * voxels + voxel] = E::cast_from(sums[j]);
        }
    }
}

/// Weights `[o, c, z, y, x]` as `[o / block, c, z, x, y, block]`, zeros beyond the last `o`: what a
/// thread multiplies one value with lies side by side.
#[cube(launch, address_type = "dynamic")]
pub(super) fn packing<E: Float>(
    weights: &Tensor<E>,
    packed: &mut Tensor<f32>,
    #[comptime] block: usize,
    #[define(E)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= packed.len() {
        terminate!();
    }
    let (outputs, channels) = (weights.shape(0), weights.shape(1));
    let (kernel_z, kernel_y, kernel_x) = (weights.shape(2), weights.shape(3), weights.shape(4));
    let tap = ABSOLUTE_POS / block;
    let (i, tap) = (tap % kernel_y, tap / kernel_y);
    let (l, tap) = (tap % kernel_x, tap / kernel_x);
    let (k, tap) = (tap % kernel_z, tap / kernel_z);
    let (channel, output) = (tap % channels, tap / channels * block + ABSOLUTE_POS % block);
    let row = (clamp_max(output, outputs - 1) * channels + channel) * kernel_z + k;
    let weight = f32::cast_from(weights[(row * kernel_y + i) * kernel_x + l]);
    packed[ABSOLUTE_POS] = select(output < outputs, weight, 0.0);
}

/// One thread makes `rows` neighbors along y of `vectors` vectors of output channels: a value
/// serves all taps along y and all channels, a vector of weights all rows.
#[allow(
    clippy::too_many_lines,
    reason = "one kernel: what it holds in registers cannot be handed on"
)]
#[cube(launch, address_type = "dynamic")]
pub(super) fn convolution<E: Float, N: Size>(
    input: &Tensor<E>,
    packed: &Tensor<Vector<f32, N>>,
    bias: &Tensor<f32>,
    output: &mut Tensor<E>,
    window: Window,
    #[comptime] form: Form,
    #[define(E)] _dtype: ElemType,
) {
    let Form { kernel: [kernel_z, kernel_y, kernel_x], stride_y, rows, vectors } = form;
    let channels = input.shape(1);
    let (depth, height, width) = (input.shape(2), input.shape(3), input.shape(4));
    let outputs = output.shape(1);
    let (made_z, made_y, made_x) = (output.shape(2), output.shape(3), output.shape(4));
    let lanes = packed.vector_size();
    let block = comptime!(vectors * lanes);
    let strips = (made_y + rows - 1) / rows;
    let blocks = (outputs + block - 1) / block;
    let (place, rest) =
        (ABSOLUTE_POS % (made_z * strips * made_x), ABSOLUTE_POS / (made_z * strips * made_x));
    let (block_at, image) = (rest % blocks, rest / blocks);
    if image >= output.shape(0) {
        terminate!();
    }
    let (x, first_y) = (place % made_x, place / made_x % strips * rows);
    let z = place / made_x / strips;

    let mut sums = Array::<Vector<f32, N>>::new(comptime!(rows * vectors));
    #[unroll]
    for v in 0..vectors {
        let mut first = Vector::<f32, N>::empty();
        #[unroll]
        for c in 0..lanes {
            let channel = block_at * block + v * lanes + c;
            first.insert(c, bias[clamp_max(channel, bias.shape(0) - 1)]);
        }
        #[unroll]
        for j in 0..rows {
            sums[j * vectors + v] = first;
        }
    }
    // Rows of the input that the thread reads, and where they begin. Padded coordinates, so that
    // nothing is below zero.
    let reach = comptime!((rows - 1) * stride_y + kernel_y);
    let mut inside = Array::<bool>::new(reach);
    let mut starts = Array::<usize>::new(reach);
    #[unroll]
    for r in 0..reach {
        let at_y = first_y * stride_y + r;
        inside[r] = at_y >= window.padding_y && at_y < window.padding_y + height;
        starts[r] = (at_y - window.padding_y) * width;
    }
    let mut values = Array::<f32>::new(reach);
    for channel in 0..channels {
        for k in 0..kernel_z {
            let at_z = z * window.stride_z + k;
            if at_z >= window.padding_z && at_z < window.padding_z + depth {
                let plane = (image * channels + channel) * depth + at_z - window.padding_z;
                let taps = ((block_at * channels + channel) * kernel_z + k) * kernel_x;
                for l in 0..kernel_x {
                    let at_x = x * window.stride_x + l;
                    let inside_x = at_x >= window.padding_x && at_x < window.padding_x + width;
                    let column = plane * height * width + at_x - window.padding_x;
                    #[unroll]
                    for r in 0..reach {
                        values[r] = 0.0;
                        if inside_x && inside[r] {
                            values[r] = f32::cast_from(input[column + starts[r]]);
                        }
                    }
                    #[unroll]
                    for i in 0..kernel_y {
                        #[unroll]
                        for v in 0..vectors {
                            let weights = packed[((taps + l) * kernel_y + i) * vectors + v];
                            #[unroll]
                            for j in 0..rows {
                                let value = values[j * stride_y + i];
                                sums[j * vectors + v] += Vector::broadcast(value) * weights;
                            }
                        }
                    }
                }
            }
        }
    }
    #[unroll]
    for j in 0..rows {
        let y = first_y + j;
        #[unroll]
        for v in 0..vectors {
            #[unroll]
            for c in 0..lanes {
                let channel = block_at * block + v * lanes + c;
                if channel < outputs && y < made_y {
                    let row = ((image * outputs + channel) * made_z + z) * made_y + y;
                    output[row * made_x + x] = E::cast_from(sums[j * vectors + v].extract(c));
                }
            }
        }
    }
}

#[cube(launch, address_type = "dynamic")]
pub(super) fn upsampling<E: Float>(
    input: &Tensor<E>,
    weights: &Tensor<E>,
    bias: &Tensor<f32>,
    output: &mut Tensor<E>,
    #[comptime] block: usize,
    #[define(E)] _dtype: ElemType,
) {
    let channels = input.shape(1);
    let (kernel_z, kernel_y, kernel_x) = (weights.shape(2), weights.shape(3), weights.shape(4));
    let taps = kernel_z * kernel_y * kernel_x;
    let outputs = output.shape(1);
    let place = place::<E>(&*output, block);
    if place.image >= output.shape(0) {
        terminate!();
    }
    let (image, first) = (place.image, place.first);
    let (z, y, x) = (place.z, place.y, place.x);
    // Each voxel of the output comes from one voxel of the input, by one tap of the kernel.
    let tap = (z % kernel_z * kernel_y + y % kernel_y) * kernel_x + x % kernel_x;
    let source = (z / kernel_z * input.shape(3) + y / kernel_y) * input.shape(4) + x / kernel_x;
    let source_voxels = input.shape(2) * input.shape(3) * input.shape(4);

    let mut sums = biases(bias, first, block);
    for channel in 0..channels {
        let value = f32::cast_from(input[(image * channels + channel) * source_voxels + source]);
        #[unroll]
        for j in 0..block {
            let column = channel * outputs + clamp_max(first + j, outputs - 1);
            sums[j] += value * f32::cast_from(weights[column * taps + tap]);
        }
    }
    store::<E>(&sums, output, place, block);
}
