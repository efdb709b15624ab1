//! The code that runs on the GPU: the three kernels of a normalization.

#![allow(
    clippy::too_many_arguments,
    clippy::trivially_copy_pass_by_ref,
    clippy::used_underscore_binding,
    reason = "a smaller language than Rust, and what its macro generates"
)]

use cubecl::prelude::*;

/// Number of values, mean and sum of squared deviations (`[3, map, part]`) of each part of each
/// map. Neighboring threads read neighboring values; a thread holds what it has read, so that
/// the mean is known before deviations are taken.
#[cube(launch, address_type = "dynamic")]
pub(super) fn moments<E: Float>(
    values: &Tensor<E>,
    found: &mut Tensor<f32>,
    voxels: usize,
    #[comptime] each: usize,
    #[define(E)] _dtype: ElemType,
) {
    let (maps, parts) = (found.shape(1), found.shape(2));
    let (map, part) = (ABSOLUTE_POS / parts, ABSOLUTE_POS % parts);
    if map >= maps {
        terminate!();
    }
    let start = map * voxels;
    let mut held = Array::<f32>::new(each);
    let mut count = 0.0f32;
    let mut total = 0.0f32;
    #[unroll]
    for k in 0..each {
        let at = k * parts + part;
        held[k] = f32::cast_from(values[start + clamp_max(at, voxels - 1)]);
        if at < voxels {
            count += 1.0;
            total += held[k];
        }
    }
    let mean = total / count;
    let mut squares = 0.0f32;
    #[unroll]
    for k in 0..each {
        if k * parts + part < voxels {
            let apart = held[k] - mean;
            squares += apart * apart;
        }
    }
    store(found, map, part, count, mean, squares);
}

/// The moments of fewer, larger parts.
#[cube(launch, address_type = "dynamic")]
pub(super) fn merging(found: &Tensor<f32>, merged: &mut Tensor<f32>) {
    let (maps, parts, fewer) = (found.shape(1), found.shape(2), merged.shape(2));
    let (map, part) = (ABSOLUTE_POS / fewer, ABSOLUTE_POS % fewer);
    if map >= maps {
        terminate!();
    }
    let mut count = 0.0f32;
    let mut total = 0.0f32;
    for other in range_stepped(part, parts, fewer) {
        let at = map * parts + other;
        count += found[at];
        total += found[at] * found[maps * parts + at];
    }
    let mean = total / count;
    let mut squares = 0.0f32;
    for other in range_stepped(part, parts, fewer) {
        let at = map * parts + other;
        let apart = found[maps * parts + at] - mean;
        squares += found[2 * maps * parts + at] + found[at] * apart * apart;
    }
    store(merged, map, part, count, mean, squares);
}

#[cube]
fn store(found: &mut Tensor<f32>, map: usize, part: usize, count: f32, mean: f32, squares: f32) {
    let (maps, parts) = (found.shape(1), found.shape(2));
    let at = map * parts + part;
    found[at] = count;
    found[maps * parts + at] = mean;
    found[2 * maps * parts + at] = squares;
}

/// Normalizes each value by the moments of its map, which are one part each, and activates it.
#[cube(launch, address_type = "dynamic")]
pub(super) fn normalization<E: Float>(
    values: &Tensor<E>,
    found: &Tensor<f32>,
    gamma: &Tensor<f32>,
    beta: &Tensor<f32>,
    to: &mut Tensor<E>,
    voxels: usize,
    epsilon: f32,
    slope: f32,
    #[define(E)] _dtype: ElemType,
) {
    let (maps, map) = (found.shape(1), ABSOLUTE_POS / voxels);
    if map >= maps {
        terminate!();
    }
    let channel = map % gamma.shape(0);
    let variance = found[2 * maps + map] / found[map];
    let scale = gamma[channel] / f32::sqrt(variance + epsilon);
    let value = values[ABSOLUTE_POS];
    let normalized = (f32::cast_from(value) - found[maps + map]) * scale + beta[channel];
    let activated = clamp_min(normalized, 0.0) + slope * clamp_max(normalized, 0.0);
    to[ABSOLUTE_POS] = E::cast_from(activated);
}
