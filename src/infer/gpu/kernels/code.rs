//! The code that runs on the GPU. Arrays are contiguous, the last axis fastest; one thread makes
//! one voxel of `block` output channels.

#![allow(
    clippy::manual_div_ceil,
    clippy::too_many_arguments,
    clippy::trivially_copy_pass_by_ref,
    clippy::too_many_lines,
    clippy::used_underscore_binding,
    reason = "a smaller language than Rust, and what its macro generates"
)]

use cubecl::prelude::*;

#[derive(CubeLaunch, CubeType)]
pub(super) struct Window {
    stride_z: usize,
    stride_y: usize,
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

#[cube(launch, address_type = "dynamic")]
pub(super) fn convolution<E: Float>(
    input: &Tensor<E>,
    weights: &Tensor<E>,
    bias: &Tensor<f32>,
    output: &mut Tensor<E>,
    window: Window,
    #[comptime] block: usize,
    #[define(E)] _dtype: ElemType,
) {
    let channels = input.shape(1);
    let (depth, height, width) = (input.shape(2), input.shape(3), input.shape(4));
    let (kernel_z, kernel_y, kernel_x) = (weights.shape(2), weights.shape(3), weights.shape(4));
    let taps = kernel_z * kernel_y * kernel_x;
    let outputs = output.shape(1);
    let place = place::<E>(&*output, block);
    if place.image >= output.shape(0) {
        terminate!();
    }
    let (image, first) = (place.image, place.first);
    let x = place.x * window.stride_x;
    let y = place.y * window.stride_y;
    let z = place.z * window.stride_z;

    let mut sums = biases(bias, first, block);
    for channel in 0..channels {
        let plane = (image * channels + channel) * depth;
        for k in 0..kernel_z {
            // Padded coordinates, so that nothing is below zero.
            let at_z = z + k;
            if at_z >= window.padding_z && at_z < window.padding_z + depth {
                let row = (plane + at_z - window.padding_z) * height;
                for i in 0..kernel_y {
                    let at_y = y + i;
                    if at_y >= window.padding_y && at_y < window.padding_y + height {
                        let start = (row + at_y - window.padding_y) * width;
                        for l in 0..kernel_x {
                            let at_x = x + l;
                            if at_x >= window.padding_x && at_x < window.padding_x + width {
                                let value = f32::cast_from(input[start + at_x - window.padding_x]);
                                let tap = channel * taps + (k * kernel_y + i) * kernel_x + l;
                                #[unroll]
                                for j in 0..block {
                                    let row = clamp_max(first + j, outputs - 1) * channels * taps;
                                    sums[j] += value * f32::cast_from(weights[row + tap]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    store::<E>(&sums, output, place, block);
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
