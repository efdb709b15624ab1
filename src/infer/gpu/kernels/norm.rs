//! Instance normalization with its activation, in place where that may be.
//!
//! The moments of a channel are taken in parts and merged until there is one: means before
//! deviations, as in `f64` code, and all sums in a fixed order. Then each value is normalized,
//! activated and written. No shared memory: Mesa's software driver of Debian 12
//! crashes when it compiles some.

mod code;

use super::{grid, made, on_gpu};
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use code::{merging, moments, normalization};

/// Values whose moments one thread takes, in registers.
const EACH: usize = 32;

/// Parts one thread merges.
const MERGED: usize = 64;

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta` per image and channel (`[n, c, ...]`),
/// and what is negative of that times `slope`. `gamma` and `beta` are `f32`, one per channel.
/// The result has the input's type, and its memory where nothing else uses that.
///
/// # Panics
///
/// If the tensors are not on a GPU or do not fit each other.
pub(in crate::infer) fn normalize<const D: usize>(
    input: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    slope: f64,
) -> Tensor<D> {
    let dims = input.dims();
    let (maps, channels) = (dims[0] * dims[1], dims[1]);
    assert_eq!((gamma.dims(), beta.dims()), ([channels], [channels]), "channels of the norm");
    let voxels: usize = dims[2..].iter().product();
    let [gamma, beta] = [gamma, beta].map(|vector| into_contiguous(on_gpu(vector)));
    assert_eq!((gamma.dtype, beta.dtype), (DType::F32, DType::F32), "types of gamma and beta");
    let input = into_contiguous(on_gpu(input));
    let client = input.client.clone();
    let dtype = dtype_to_storage_type(input.dtype);
    let address = input.required_address_type();
    let empty = |shape: Shape, dtype| {
        empty_device_contiguous_dtype(client.clone(), input.device.clone(), shape, dtype)
    };
    // Whoever else holds the memory may be the device's thread, while it sets that up: which way it
    // goes depends on timing, the values do not.
    let apart = (!input.can_mut()).then(|| empty(Shape::from(dims), input.dtype));
    let parts_of = |parts: usize| empty(Shape::from([3, maps, parts]), DType::F32);
    let mut parts = voxels.div_ceil(EACH);
    let mut found = parts_of(parts);
    let (count, dim) = grid(&client, maps * parts);
    let (from, to) = (input.clone().into_tensor_arg(), found.clone().into_tensor_arg());
    moments::launch(&client, count, dim, address, from, to, voxels, EACH, dtype);
    while parts > 1 {
        parts = parts.div_ceil(MERGED);
        let merged = parts_of(parts);
        let (count, dim) = grid(&client, maps * parts);
        let (from, to) = (found.into_tensor_arg(), merged.clone().into_tensor_arg());
        merging::launch(&client, count, dim, address, from, to);
        found = merged;
    }
    let to = match &apart {
        Some(output) => output.clone().into_tensor_arg(),
        None => input.as_tensor_alias(0),
    };
    let (count, dim) = grid(&client, maps * voxels);
    normalization::launch(
        &client,
        count,
        dim,
        address,
        input.clone().into_tensor_arg(),
        found.into_tensor_arg(),
        gamma.into_tensor_arg(),
        beta.into_tensor_arg(),
        to,
        voxels,
        epsilon as f32,
        slope as f32,
        dtype,
    );
    made(apart.unwrap_or(input))
}
