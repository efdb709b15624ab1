//! Convolution in half precision on tensor cores: burn's implicit GEMM, whose sums are `f32`.
//!
//! No machine that tests this program has tensor cores. So before their first use on a device they
//! take a trial there against our own kernel: what stops or differs is not used again, and a shape
//! that burn's kernel does not take goes to ours.

use super::{direct, made, on_gpu};
use crate::infer::gpu::memory::TENSOR_CORE_CHANNELS;
use burn::backend::DispatchDevice;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_cubecl::kernel::conv::{ConvStrategy, conv_forward};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Input, weights, bias, stride, padding: as [`super::convolve`].
type Convolution = fn(Tensor<5>, Tensor<5>, Tensor<1>, [usize; 3], [usize; 3]) -> Option<Tensor<5>>;

/// Whether tensor cores have a part in this convolution.
pub(super) fn take(input: &Tensor<5>, weights: &Tensor<5>) -> bool {
    let [outputs, channels, ..] = weights.dims();
    channels.min(outputs) >= TENSOR_CORE_CHANNELS && are_trusted(&input.device(), input.dtype())
}

/// [`super::convolve`] on tensor cores, or `None` for a shape that they do not take.
pub(super) fn convolve(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Option<Tensor<5>> {
    let bias = bias.cast(half(input.dtype())?);
    let options = ConvOptions::new(stride, padding, [1; 3], 1);
    let [input, weights] = [input, weights].map(on_gpu);
    let output =
        conv_forward(input, weights, Some(on_gpu(bias)), options, ConvStrategy::ImplicitGemm);
    output.ok().map(made)
}

fn half(dtype: DType) -> Option<FloatDType> {
    match dtype {
        DType::F16 => Some(FloatDType::F16),
        DType::BF16 => Some(FloatDType::BF16),
        _ => None,
    }
}

/// Whether the device has tensor cores for that type and they passed their trial.
fn are_trusted(device: &Device, dtype: DType) -> bool {
    static TRIALS: Mutex<Vec<(Device, DType, bool)>> = Mutex::new(Vec::new());
    let Some(to) = half(dtype) else { return false };
    let mut trials = TRIALS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., passed)) = trials.iter().find(|(d, t, _)| (d, *t) == (device, dtype)) {
        return *passed;
    }
    // burn panics where a device fails.
    let trial = || catch_unwind(AssertUnwindSafe(|| pass(device, to, convolve)));
    let passed = have(device, dtype) && trial().unwrap_or(false);
    trials.push((device.clone(), dtype, passed));
    passed
}

/// Whether the device multiplies matrices of that type and adds up in `f32`.
fn have(device: &Device, dtype: DType) -> bool {
    let DispatchDevice::Cube(device) = device.as_dispatch() else { return false };
    let [number, sum] = [dtype, DType::F32].map(dtype_to_storage_type);
    let client = device.client();
    let matrices = &client.properties().features.matmul.cmma;
    matrices.iter().any(|m| (m.a_type, m.b_type, m.cd_type) == (number, number, sum))
}

/// Whether `convolution` gives the bytes of our kernel, where it gives any.
///
/// All sums are multiples of 1/16 below 2^14, hence exact in `f32` in any order: one rounding, of
/// the same sum, is all either may do. Sums in half precision would not be exact.
fn pass(device: &Device, to: FloatDType, convolution: Convolution) -> bool {
    /// Values that both half types hold exactly.
    fn values<const D: usize>(shape: [usize; D], seed: usize) -> TensorData {
        let count = shape.iter().product::<usize>();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 251 % 9) as f32 / 4.0;
        TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape)
    }
    // Like the layers of networks: edges that fill no tile, strides, channels that fill none.
    let cases = [
        ([1, 16, 5, 9, 11], 16, [3; 3], [1; 3], [1; 3]),
        ([2, 80, 6, 7, 8], 64, [3; 3], [2; 3], [1; 3]),
        ([1, 48, 1, 20, 13], 17, [1, 3, 3], [1, 2, 2], [0, 1, 1]),
        ([1, 33, 4, 5, 6], 118, [1; 3], [1; 3], [0; 3]),
    ];
    cases.into_iter().all(|(shape, outputs, kernel, stride, padding)| {
        let [z, y, x] = kernel;
        let input = Tensor::<5>::from_data(values(shape, 1), device).cast(to);
        let weights = values([outputs, shape[1], z, y, x], 2);
        let weights = Tensor::<5>::from_data(weights, device).cast(to);
        let bias = Tensor::<1>::from_data(values([outputs], 3), device);
        let found = convolution(input.clone(), weights.clone(), bias.clone(), stride, padding);
        let bytes = |tensor: Tensor<5>| tensor.cast(FloatDType::F32).into_data();
        found.is_none_or(|found| {
            bytes(found) == bytes(direct(input, weights, bias, stride, padding))
        })
    })
}

#[cfg(all(test, any(feature = "cuda", feature = "vulkan")))]
mod tests {
    use super::super::tests::devices;
    use super::*;

    #[test]
    fn a_device_without_them_has_no_part() {
        for gpu in devices() {
            if !have(&gpu, DType::F16) {
                assert!(!are_trusted(&gpu, DType::F16));
            }
            assert!(!are_trusted(&gpu, DType::F32) && !are_trusted(&Device::flex(), DType::F16));
        }
    }

    /// What a trial accepts and what it does not, with stand-ins for tensor cores.
    #[test]
    fn a_trial_finds_what_differs() {
        for gpu in devices() {
            let to = FloatDType::F16;
            assert!(pass(&gpu, to, |i, w, b, s, p| Some(direct(i, w, b, s, p))));
            assert!(pass(&gpu, to, |_, _, _, _, _| None), "shapes that go to our kernel");
            let off: Convolution = |i, w, b, s, p| Some(direct(i, w, b + 0.25, s, p));
            assert!(!pass(&gpu, to, off));
            // The sum of two halves, each rounded: what sums in half precision do.
            let narrow: Convolution = |i, w, b, s, p| {
                let none = b.zeros_like();
                let part = |b| direct(i.clone(), w.clone() * 0.5, b, s, p);
                Some(part(b) + part(none))
            };
            assert!(!pass(&gpu, to, narrow));
        }
    }
}
