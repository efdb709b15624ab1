//! Instance normalization of the generated code, with the activation that follows it.
//!
//! burn's own sums each channel in one run. On a GPU that is one thread per channel adding up
//! to a million numbers, which is slow and loses digits; and Mesa's software Vulkan driver ends
//! any loop after 65535 rounds, which made means of patches above 64x64x64 voxels wrong. Means
//! of means over equal parts have short loops everywhere; on GPUs a kernel of ours takes them
//! and does the rest in place. `build.rs` puts this in place of `InstanceNorm::forward`.

use burn::nn::InstanceNorm;
use burn::tensor::{DType, FloatDType, Tensor, activation};

/// What the generated code calls instead of `forward`.
pub(super) trait Normalize {
    /// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, per image and channel
    /// (`[n, c, ...]`). Computed in `f32` whatever the type of the input, which the result has.
    fn normalize<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.normalize_leaky(input, 1.0)
    }

    /// The same, and what is negative of it times `slope`.
    fn normalize_leaky<const D: usize>(&self, input: Tensor<D>, slope: f64) -> Tensor<D>;
}

impl Normalize for InstanceNorm {
    fn normalize_leaky<const D: usize>(&self, input: Tensor<D>, slope: f64) -> Tensor<D> {
        #[cfg(any(feature = "cuda", feature = "vulkan"))]
        if crate::infer::gpu::kernels::reaches(&input) {
            return on_gpu(self, input, slope);
        }
        let normalized = in_parts(self, input);
        if slope == 1.0 { normalized } else { activation::leaky_relu(normalized, slope) }
    }
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn on_gpu<const D: usize>(norm: &InstanceNorm, input: Tensor<D>, slope: f64) -> Tensor<D> {
    use burn::module::Param;
    let (channels, on) = ([input.dims()[1]], (&input.device(), DType::F32));
    let gamma = norm.gamma.as_ref().map_or_else(|| Tensor::ones(channels, on), Param::val);
    let beta = norm.beta.as_ref().map_or_else(|| Tensor::zeros(channels, on), Param::val);
    crate::infer::gpu::kernels::normalize(input, gamma, beta, norm.epsilon, slope)
}

fn in_parts<const D: usize>(norm: &InstanceNorm, input: Tensor<D>) -> Tensor<D> {
    let dtype = input.dtype();
    if dtype != DType::F32 {
        return in_parts(norm, input.cast(FloatDType::F32)).cast(dtype);
    }
    let shape = input.dims();
    let (images, channels) = (shape[0], shape[1]);
    let voxels: usize = shape[2..].iter().product();
    let part = part(voxels);
    let parts: Tensor<4> = input.reshape([images, channels, voxels / part, part]);
    let mean = |values: Tensor<4>| values.mean_dim(3).mean_dim(2);
    let centered = parts.clone() - mean(parts);
    let variance = mean(centered.clone().square());
    let per_channel = |weights: Tensor<1>| weights.reshape([1, channels, 1, 1]);
    let mut scale = (variance + norm.epsilon).sqrt().recip();
    if let Some(gamma) = &norm.gamma {
        scale = scale * per_channel(gamma.val());
    }
    let mut normalized = centered * scale;
    if let Some(beta) = &norm.beta {
        normalized = normalized + per_channel(beta.val());
    }
    normalized.reshape(shape)
}

/// The largest divisor of `voxels` that is at most its root: 640 for 80x80x80.
fn part(voxels: usize) -> usize {
    let root = voxels.isqrt();
    (1..=root).rev().find(|part| voxels.is_multiple_of(*part)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn::nn::InstanceNormConfig;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn parts_are_equal_and_near_the_root() {
        for (voxels, expected) in [(80 * 80 * 80, 640), (16, 4), (7, 1), (1, 1), (0, 1)] {
            assert_eq!(part(voxels), expected, "{voxels}");
        }
    }

    #[test]
    fn statistics_match_f64() {
        let (images, channels, voxels) = (2, 3, 6 * 10 * 14);
        let device = Device::flex();
        let value = |i: usize| (i as f32 * 0.37).sin() * 3.0 + (i % 11) as f32;
        let values: Vec<f32> = (0..images * channels * voxels).map(value).collect();
        let mut norm = InstanceNormConfig::new(channels).with_epsilon(1e-5).init(&device);
        let (gamma, beta) = ([0.5_f32, 2.0, -1.0], [1.0_f32, 0.0, -3.0]);
        norm.gamma = Some(Param::from_tensor(Tensor::from_data(gamma, &device)));
        norm.beta = Some(Param::from_tensor(Tensor::from_data(beta, &device)));
        let input = TensorData::new(values.clone(), [images, channels, 6, 10, 14]);
        let found = norm.normalize(Tensor::<5>::from_data(input, &device));
        assert_eq!(found.dims(), [images, channels, 6, 10, 14]);
        let found = found.into_data();
        let found = found.as_slice::<f32>().expect("f32");
        for (k, (values, found)) in values.chunks(voxels).zip(found.chunks(voxels)).enumerate() {
            let wide = || values.iter().map(|&v| f64::from(v));
            let mean = wide().sum::<f64>() / voxels as f64;
            let variance = wide().map(|v| (v - mean).powi(2)).sum::<f64>() / voxels as f64;
            let (gamma, beta) = (f64::from(gamma[k % channels]), f64::from(beta[k % channels]));
            for (v, &found) in wide().zip(found) {
                let exact = (v - mean) / (variance + 1e-5).sqrt() * gamma + beta;
                assert!((exact - f64::from(found)).abs() < 1e-5, "{exact} and {found}");
            }
        }
    }
}
