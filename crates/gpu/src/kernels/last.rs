//! What leaves a network, channel after channel: values as they are read, or a pointwise convolution
//! of them; for one patch, or weighted and added to an image.

use super::geometry::BLOCK;
use super::image::{Spot, spot};
use cubecl::prelude::*;

/// Threads of a cube.
pub(crate) const THREADS: usize = 256;

/// Sizes of the last step. Places are in vectors of four.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Ending {
    /// Images that leave, and those before them.
    pub images: usize,
    pub first: usize,
    pub voxels: usize,
    /// Blocks of channels read, and channels made.
    pub blocks: usize,
    pub outputs: usize,
    pub entry: usize,
    pub stride: usize,
    pub bias: usize,
    pub weights: usize,
    /// Channels of the image before these.
    pub channel: usize,
    /// What every voxel's weight is multiplied with.
    pub factor: f32,
}

/// One thread makes a voxel of eight channels. `head` says whether they are sums over all that is
/// read, with weights as [`super::direct`] has them, or just what is read; `adds` whether they are
/// added to an image, where `bell` has the weight of each voxel of a tile.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn last<E: Float>(
    a: &[Vector<E, Const<8>>],
    params: &[Vector<f32, Const<4>>],
    weights: &[Vector<f32, Const<4>>],
    bell: &[f32],
    output: &mut [f32],
    sizes: Ending,
    place: Spot,
    #[comptime] head: bool,
    #[comptime] adds: bool,
    #[define(E)] _element: ElemType,
) {
    let groups = (sizes.outputs + BLOCK - 1) / BLOCK;
    let voxel = ABSOLUTE_POS % sizes.voxels;
    let rest = ABSOLUTE_POS / sizes.voxels;
    let group = rest % groups;
    let image = rest / groups;
    if image >= sizes.images {
        terminate!();
    }
    let image = image + sizes.first;
    let mut low = Vector::<f32, Const<4>>::new(0.0);
    let mut high = Vector::<f32, Const<4>>::new(0.0);
    if comptime!(head) {
        low = params[sizes.bias + group * 2];
        high = params[sizes.bias + group * 2 + 1];
        for block in 0..sizes.blocks {
            let raw = a[(image * sizes.blocks + block) * sizes.voxels + voxel];
            let entry = sizes.entry + image * sizes.stride + block * 6;
            let from = sizes.weights + (group * sizes.blocks + block) * 16;
            #[unroll]
            for k in 0..8usize {
                let v = normalized(f32::cast_from(raw.extract(k)), params, entry, k);
                low += Vector::new(v) * weights[from + k * 2];
                high += Vector::new(v) * weights[from + k * 2 + 1];
            }
        }
    } else {
        let raw = a[(image * sizes.blocks + group) * sizes.voxels + voxel];
        let entry = sizes.entry + image * sizes.stride + group * 6;
        #[unroll]
        for k in 0..8usize {
            let v = normalized(f32::cast_from(raw.extract(k)), params, entry, k);
            if comptime!(k < 4) {
                low.insert(comptime!(k % 4), v);
            } else {
                high.insert(comptime!(k % 4), v);
            }
        }
    }
    if comptime!(adds) {
        let (inside, at, own) = spot(&place, voxel);
        if inside {
            let weight = bell[own] * sizes.factor;
            #[unroll]
            for k in 0..8usize {
                let channel = group * BLOCK + k;
                if channel < sizes.outputs {
                    let value = either(low, high, k);
                    let to = (sizes.channel + channel) * place.volume + at;
                    output[to] = output[to] + value * weight;
                }
            }
        }
    } else {
        #[unroll]
        for k in 0..8usize {
            let channel = group * BLOCK + k;
            if channel < sizes.outputs {
                let value = either(low, high, k);
                output[((image - sizes.first) * sizes.outputs + channel) * sizes.voxels + voxel] =
                    value;
            }
        }
    }
}

/// Number `k` of a block as it is read: scaled, shifted, and its negative part sloped.
#[cube]
fn normalized(
    raw: f32,
    params: &[Vector<f32, Const<4>>],
    entry: usize,
    #[comptime] k: usize,
) -> f32 {
    let half = comptime!(k / 4);
    let scale = params[entry + half].extract(comptime!(k % 4));
    let v = raw * scale + params[entry + 2 + half].extract(comptime!(k % 4));
    max(v, v * params[entry + 4 + half].extract(comptime!(k % 4)))
}

/// Number `k` of a block's eight.
#[cube]
fn either(low: Vector<f32, Const<4>>, high: Vector<f32, Const<4>>, #[comptime] k: usize) -> f32 {
    if comptime!(k < 4) { low.extract(comptime!(k % 4)) } else { high.extract(comptime!(k % 4)) }
}
