//! Our own GPU kernels, in `CubeCL`, under the generated code (`infer::burn::layers`).
//!
//! burn's direct convolution copies to another layout and back, waits for as many loads as it
//! multiplies, and in half precision adds up in half precision; its transposed convolution looks for
//! contributions that, with a kernel as long as its stride, are known. Here a value that a thread
//! read serves several output channels and, in a convolution, several voxels; neighbors read
//! neighbors, and sums are `f32` whatever the numbers are. They run in a fixed order: bias, then
//! channel by channel. Where a device has tensor cores, convolutions in half precision with enough
//! channels are theirs.

mod code;
mod norm;
mod tensor_cores;

pub(in crate::infer) use norm::normalize;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::{
    BackendTensor, DispatchAutodiffContext, DispatchDevice, DispatchTensor, DispatchTensorKind,
};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use code::{Form, WindowLaunch, convolution, packing, upsampling};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::{AddressType, Client, CubeCount, CubeDim, ElemType};

/// Output channels one thread sums up.
const BLOCK: usize = 8;

/// Weights a thread reads at once: 16 bytes.
const VECTOR: usize = 4;

/// Voxels along y that a thread of a convolution makes, where that leaves [`FILLING`] threads.
const ROWS: usize = 4;

/// Threads that keep a large GPU busy (an H200 holds 270 336).
const FILLING: usize = 1 << 17;

/// Whether a tensor lies on a GPU.
pub(in crate::infer) fn reaches<const D: usize>(tensor: &Tensor<D>) -> bool {
    matches!(tensor.device().as_dispatch(), DispatchDevice::Cube(_))
}

/// Weights `[o, c, z, y, x]` over `[n, c, z, y, x]`, zeros outside; `bias` has one `f32` per
/// output channel. The result has the input's type.
///
/// # Panics
///
/// If the tensors are not on a GPU or do not fit each other.
pub(in crate::infer) fn convolve(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Tensor<5> {
    if tensor_cores::take(&input, &weights)
        && let Some(output) =
            tensor_cores::convolve(input.clone(), weights.clone(), bias.clone(), stride, padding)
    {
        return output;
    }
    direct(input, weights, bias, stride, padding)
}

/// [`convolve`] without tensor cores.
fn direct(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Tensor<5> {
    let rows = |threads: usize| if threads < FILLING * ROWS { 1 } else { ROWS };
    direct_by(input, weights, bias, stride, padding, rows)
}

/// [`direct`], by threads that make `rows` of what is so many voxels times blocks of channels.
fn direct_by(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
    padding: [usize; 3],
    rows: impl Fn(usize) -> usize,
) -> Tensor<5> {
    let ([n, channels, edges @ ..], [outputs, taken, kernel @ ..]) = (input.dims(), weights.dims());
    assert_eq!((channels, outputs), (taken, bias.dims()[0]), "channels of the convolution");
    let [z, y, x] =
        std::array::from_fn(|k| (edges[k] + 2 * padding[k] - kernel[k]) / stride[k] + 1);
    let Arguments { input, weights, bias, output, client, address, dtype } =
        Arguments::new(input, weights, bias, [n, outputs, z, y, x]);
    let blocks = outputs.div_ceil(BLOCK);

    let taps = channels * kernel.iter().product::<usize>();
    let shape = Shape::from([blocks, taps, BLOCK]);
    let device = input.device.clone();
    let packed = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
    let (count, dim) = grid(&client, blocks * taps * BLOCK);
    let (from, to) = (weights.into_tensor_arg(), packed.clone().into_tensor_arg());
    packing::launch(&client, count, dim, address, from, to, BLOCK, dtype);

    let rows = rows(n * blocks * z * y * x);
    let window = WindowLaunch::new(stride[0], stride[2], padding[0], padding[1], padding[2]);
    let form = Form { kernel, stride_y: stride[1], rows, vectors: BLOCK / VECTOR };
    let (count, dim) = grid(&client, n * blocks * z * y.div_ceil(rows) * x);
    let [input, packed, bias] = [input, packed, bias].map(CubeTensor::into_tensor_arg);
    let to = output.clone().into_tensor_arg();
    convolution::launch(
        &client, count, dim, address, VECTOR, input, packed, bias, to, window, form, dtype,
    );
    made(output)
}

/// Transposed convolution with a kernel as long as its stride and no padding: weights
/// `[c, o, z, y, x]` over `[n, c, z, y, x]`. Otherwise as [`convolve`].
///
/// # Panics
///
/// As [`convolve`].
pub(in crate::infer) fn upsample(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Tensor<1>,
) -> Tensor<5> {
    let ([n, channels, edges @ ..], [taken, outputs, kernel @ ..]) = (input.dims(), weights.dims());
    assert_eq!((channels, outputs), (taken, bias.dims()[0]), "channels of the convolution");
    let shape = [n, outputs, edges[0] * kernel[0], edges[1] * kernel[1], edges[2] * kernel[2]];
    let Arguments { input, weights, bias, output, client, address, dtype } =
        Arguments::new(input, weights, bias, shape);
    let threads = n * outputs.div_ceil(BLOCK) * shape[2..].iter().product::<usize>();
    let (count, dim) = grid(&client, threads);
    let [input, weights, bias] = [input, weights, bias].map(CubeTensor::into_tensor_arg);
    let to = output.clone().into_tensor_arg();
    upsampling::launch(&client, count, dim, address, input, weights, bias, to, BLOCK, dtype);
    made(output)
}

/// What a layer's kernel reads, contiguous, and a new array for what it makes.
struct Arguments {
    input: CubeTensor,
    weights: CubeTensor,
    bias: CubeTensor,
    output: CubeTensor,
    client: Client,
    address: AddressType,
    dtype: ElemType,
}

impl Arguments {
    fn new(input: Tensor<5>, weights: Tensor<5>, bias: Tensor<1>, shape: [usize; 5]) -> Self {
        let input = into_contiguous(on_gpu(input));
        let weights = into_contiguous(on_gpu(weights));
        let bias = into_contiguous(on_gpu(bias));
        let dtype = input.dtype;
        assert_eq!((weights.dtype, bias.dtype), (dtype, DType::F32), "types of weights and bias");
        let (client, device) = (input.client.clone(), input.device.clone());
        let output =
            empty_device_contiguous_dtype(client.clone(), device, Shape::from(shape), dtype);
        let address = [&input, &weights, &output].map(CubeTensor::required_address_type);
        let address = address.into_iter().max().unwrap_or_default();
        Self { input, weights, bias, output, client, address, dtype: dtype_to_storage_type(dtype) }
    }
}

/// Cubes for that many threads.
fn grid(client: &Client, threads: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, threads);
    (calculate_cube_count_elemwise(client, threads, dim), dim)
}

/// What kernels work on.
fn on_gpu<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let DispatchTensorKind::Cube(tensor) = tensor.into_dispatch().kind else {
        panic!("a tensor that is not on a GPU")
    };
    tensor.float()
}

/// What kernels made.
fn made<const D: usize>(output: CubeTensor) -> Tensor<D> {
    let kind = DispatchTensorKind::Cube(BackendTensor::Float(output));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled })
}

#[cfg(all(test, any(feature = "cuda", feature = "vulkan")))]
mod tests {
    use super::*;
    use burn::tensor::module::{conv_transpose3d, conv3d};
    use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
    use burn::tensor::{Device, FloatDType, TensorData};

    /// The GPUs that this build knows and this machine has; fails where the caller of the tests
    /// promised one.
    #[allow(clippy::print_stdout, reason = "a skipped device says why")]
    pub(super) fn devices() -> impl Iterator<Item = Device> {
        let known = [
            #[cfg(feature = "cuda")]
            ("REQUIRE_CUDA", crate::infer::gpu::cuda(0, 0)),
            #[cfg(feature = "vulkan")]
            ("REQUIRE_VULKAN", crate::infer::gpu::vulkan(0)),
        ];
        known.into_iter().filter_map(|(promise, found)| match found {
            Ok((device, _)) => Some(device),
            Err(error) => {
                assert!(std::env::var_os(promise).is_none(), "{error}");
                println!("skipped: {error}");
                None
            }
        })
    }

    /// Values that fp16 holds exactly.
    fn values<const D: usize>(shape: [usize; D], seed: usize) -> TensorData {
        let count = shape.iter().product::<usize>();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 251) as f32 / 64.0 - 2.0;
        TensorData::new((0..count).map(value).collect::<Vec<f32>>(), shape)
    }

    /// Input, weights and bias on a device.
    fn on(
        device: &Device,
        [input, weights, bias]: &[TensorData; 3],
    ) -> (Tensor<5>, Tensor<5>, Tensor<1>) {
        (
            Tensor::from_data(input.clone(), device),
            Tensor::from_data(weights.clone(), device),
            Tensor::from_data(bias.clone(), device),
        )
    }

    fn check(found: Tensor<5>, expected: Tensor<5>, tolerance: f32, case: &str) {
        assert_eq!(found.dims(), expected.dims(), "{case}");
        let (found, expected) = (found.into_data(), expected.into_data());
        let found = found.as_slice::<f32>().expect("f32");
        let expected = expected.as_slice::<f32>().expect("f32");
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= tolerance * largest, "{case}: {found} {expected}");
        }
    }

    /// Input, output channels, kernel, stride, padding.
    type Case = ([usize; 5], usize, [usize; 3], [usize; 3], [usize; 3]);

    #[test]
    fn convolutions_are_burns() {
        for gpu in devices() {
            let cases: [Case; 5] = [
                ([1, 1, 4, 5, 6], 8, [3; 3], [1; 3], [1; 3]),
                ([2, 5, 6, 7, 9], 11, [3; 3], [1, 2, 2], [1; 3]),
                ([1, 3, 1, 9, 8], 4, [1, 3, 3], [1; 3], [0, 1, 1]),
                ([1, 9, 4, 4, 4], 17, [1; 3], [1; 3], [0; 3]),
                ([1, 2, 8, 7, 6], 3, [2, 3, 1], [2, 1, 1], [0, 2, 0]),
            ];
            let flex = Device::flex();
            for (shape, outputs, kernel, stride, padding) in cases {
                let [k, i, l] = kernel;
                let weights = values([outputs, shape[1], k, i, l], 1);
                let data = [values(shape, 2), weights, values([outputs], 3)];
                let (x, w, b) = on(&flex, &data);
                let options = ConvOptions::new(stride, padding, [1; 3], 1);
                let expected = conv3d(x, w, Some(b), options);
                let case = format!("{shape:?} by {kernel:?}, stride {stride:?}");
                for rows in [1, ROWS] {
                    let case = format!("{case}, rows {rows}");
                    let run = |x, w, b| direct_by(x, w, b, stride, padding, |_| rows);
                    let (x, w, b) = on(&gpu, &data);
                    let found = run(x.clone(), w.clone(), b.clone());
                    check(found, expected.clone(), 1e-6, &case);
                    // Sums are `f32`: the result alone is rounded.
                    let half = |tensor: Tensor<5>| tensor.cast(FloatDType::F16);
                    let found = run(half(x), half(w), b);
                    assert_eq!(found.dtype(), DType::F16);
                    check(found.cast(FloatDType::F32), expected.clone(), 1.0 / 2048.0, &case);
                }
            }
        }
    }

    /// Against `f64`, with more values than one cube holds, and fewer.
    #[test]
    fn normalization_is_exact() {
        for gpu in devices() {
            let (epsilon, slope) = (1e-5, 0.01);
            for (dims, shift) in [([1, 3, 20, 30, 40], 0.0_f32), ([2, 5, 3, 4, 5], 50.0)] {
                let [_, channels, edges @ ..] = dims;
                let voxels: usize = edges.iter().product();
                let data: Vec<f32> = values(dims, 4).iter::<f32>().map(|v| v + shift).collect();
                let gamma: Vec<f32> = (0..channels).map(|c| c as f32 - 1.5).collect();
                let beta: Vec<f32> = (0..channels).map(|c| 0.5 - c as f32).collect();
                let input = Tensor::<5>::from_data(TensorData::new(data.clone(), dims), &gpu);
                let vector = |values: &[f32]| Tensor::<1>::from_data(values, &gpu);
                let run = |input| normalize(input, vector(&gamma), vector(&beta), epsilon, slope);
                let found = run(input.clone());
                let half = run(input.clone().cast(FloatDType::F16));
                assert_eq!((found.dims(), half.dtype()), (dims, DType::F16));
                let half = half.cast(FloatDType::F32).into_data();
                // What somebody else holds stays as it is.
                assert_eq!(input.into_data().as_slice::<f32>().expect("f32"), data);
                let found = found.into_data();
                let of = |data: &TensorData, at: usize| data.as_slice::<f32>().expect("f32")[at];
                for (map, values) in data.chunks(voxels).enumerate() {
                    let wide = || values.iter().map(|&v| f64::from(v));
                    let mean = wide().sum::<f64>() / voxels as f64;
                    let variance = wide().map(|v| (v - mean).powi(2)).sum::<f64>() / voxels as f64;
                    let (gamma, beta) = (gamma[map % channels], beta[map % channels]);
                    for (k, v) in wide().enumerate() {
                        let exact = (v - mean) / (variance + epsilon).sqrt() * f64::from(gamma)
                            + f64::from(beta);
                        let exact = if exact < 0.0 { exact * slope } else { exact };
                        let at = map * voxels + k;
                        let error = (f64::from(of(&found, at)) - exact).abs();
                        assert!(error < 1e-5, "{dims:?} at {at}: {exact} {}", of(&found, at));
                        let error = (f64::from(of(&half, at)) - exact).abs();
                        assert!(error < 0.05, "{dims:?} in f16 at {at}: {exact} {}", of(&half, at));
                    }
                }
            }
        }
    }

    #[test]
    fn normalization_in_place_or_not_is_the_same() {
        for gpu in devices() {
            let vector = |value: f32| Tensor::<1>::from_data([value; 3], &gpu);
            let run = |input| normalize(input, vector(2.0), vector(0.5), 1e-5, 0.01);
            // A result of ours: its rows follow each other.
            let held = run(Tensor::<5>::from_data(values([2, 3, 4, 5, 6], 5), &gpu));
            let before = held.clone().into_data();
            let apart = run(held.clone()).into_data();
            assert_eq!(held.clone().into_data(), before);
            assert_eq!(apart, run(held).into_data());
        }
    }

    #[test]
    fn upsampling_is_burns() {
        for gpu in devices() {
            let cases = [
                ([1, 4, 3, 4, 5], 8, [2; 3]),
                ([2, 5, 2, 3, 4], 11, [1, 2, 2]),
                ([1, 3, 1, 5, 4], 3, [1, 3, 2]),
            ];
            let flex = Device::flex();
            for (shape, outputs, stride) in cases {
                let [k, i, l] = stride;
                let weights = values([shape[1], outputs, k, i, l], 1);
                let data = [values(shape, 2), weights, values([outputs], 3)];
                let (x, w, b) = on(&flex, &data);
                let options = ConvTransposeOptions::new(stride, [0; 3], [0; 3], [1; 3], 1);
                let expected = conv_transpose3d(x, w, Some(b), options);
                let case = format!("{shape:?} by {stride:?}");
                let (x, w, b) = on(&gpu, &data);
                check(upsample(x.clone(), w.clone(), b.clone()), expected.clone(), 1e-6, &case);
                let half = |tensor: Tensor<5>| tensor.cast(FloatDType::F16);
                let found = upsample(half(x), half(w), b).cast(FloatDType::F32);
                check(found, expected, 1.0 / 2048.0, &case);
            }
        }
    }
}
