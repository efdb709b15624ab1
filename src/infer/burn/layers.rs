//! Convolutions of the generated code: our kernels on GPUs, burn's elsewhere and for what ours do
//! not know. Half precision is added up in `f32` by all of them.
//!
//! `build.rs` puts these calls in place of `forward`.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::{PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{DType, FloatDType, Tensor};

#[cfg(any(feature = "cuda", feature = "vulkan"))]
use crate::infer::gpu::kernels;

/// What the generated code calls instead of a layer's `forward`.
pub(super) trait Layer<const D: usize>: Module {
    /// burn's own.
    fn plain(&self, input: Tensor<D>) -> Tensor<D>;

    /// Our kernel, on a GPU and for the layers it knows.
    fn ours(&self, input: &Tensor<D>) -> Option<Tensor<D>>;

    /// The layer on `input`, whose numbers keep their type.
    fn apply(&self, input: Tensor<D>) -> Tensor<D> {
        if let Some(output) = self.ours(&input) {
            return output;
        }
        let dtype = input.dtype();
        if dtype == DType::F32 {
            return self.plain(input);
        }
        // The products of the rounded numbers, added up in `f32`.
        let wide = self.clone().map(&mut Cast(FloatDType::F32));
        wide.plain(input.cast(FloatDType::F32)).cast(dtype)
    }
}

/// Converts weights. Biases and the vectors of normalizations stay `f32`.
pub(super) struct Cast(pub(super) FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let to = self.0;
        if D == 1 { param } else { param.map(|tensor| tensor.cast(to)) }
    }
}

impl Layer<5> for Conv3d {
    fn plain(&self, input: Tensor<5>) -> Tensor<5> {
        self.forward(input)
    }

    fn ours(&self, input: &Tensor<5>) -> Option<Tensor<5>> {
        let padding = match self.padding {
            PaddingConfig3d::Valid => [0; 3],
            PaddingConfig3d::Explicit(z, y, x) => [z, y, x],
            PaddingConfig3d::Same => return None,
        };
        let simple = self.groups == 1 && self.dilation == [1; 3];
        let weights = self.weight.val();
        let bias = self.bias.as_ref().map(Param::val);
        simple.then(|| convolve(input.clone(), weights, bias, self.stride, padding))?
    }
}

impl Layer<4> for Conv2d {
    fn plain(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward(input)
    }

    fn ours(&self, input: &Tensor<4>) -> Option<Tensor<4>> {
        let padding = match self.padding {
            PaddingConfig2d::Valid => [0; 3],
            PaddingConfig2d::Explicit(top, left, bottom, right)
                if (top, left) == (bottom, right) =>
            {
                [0, top, left]
            }
            _ => return None,
        };
        let simple = self.groups == 1 && self.dilation == [1; 2];
        let weights = self.weight.val().unsqueeze_dim(2);
        let bias = self.bias.as_ref().map(Param::val);
        let stride = [1, self.stride[0], self.stride[1]];
        let input = input.clone().unsqueeze_dim(2);
        let output = simple.then(|| convolve(input, weights, bias, stride, padding))?;
        output.map(|output| output.squeeze_dim(2))
    }
}

impl Layer<5> for ConvTranspose3d {
    fn plain(&self, input: Tensor<5>) -> Tensor<5> {
        self.forward(input)
    }

    fn ours(&self, input: &Tensor<5>) -> Option<Tensor<5>> {
        let simple = self.groups == 1
            && self.dilation == [1; 3]
            && self.kernel_size == self.stride
            && (self.padding, self.padding_out) == ([0; 3], [0; 3]);
        let bias = self.bias.as_ref().map(Param::val);
        simple.then(|| upsample(input.clone(), self.weight.val(), bias))?
    }
}

impl Layer<4> for ConvTranspose2d {
    fn plain(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward(input)
    }

    fn ours(&self, input: &Tensor<4>) -> Option<Tensor<4>> {
        let simple = self.groups == 1
            && self.dilation == [1; 2]
            && self.kernel_size == self.stride
            && (self.padding, self.padding_out) == ([0; 2], [0; 2]);
        let bias = self.bias.as_ref().map(Param::val);
        let (input, weights) = (input.clone().unsqueeze_dim(2), self.weight.val().unsqueeze_dim(2));
        let output = simple.then(|| upsample(input, weights, bias))?;
        output.map(|output| output.squeeze_dim(2))
    }
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn convolve(
    input: Tensor<5>,
    weights: Tensor<5>,
    bias: Option<Tensor<1>>,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Option<Tensor<5>> {
    kernels::reaches(&input).then(|| {
        let bias = bias.unwrap_or_else(|| zeros(&weights, 0));
        kernels::convolve(input, weights, bias, stride, padding)
    })
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn upsample(input: Tensor<5>, weights: Tensor<5>, bias: Option<Tensor<1>>) -> Option<Tensor<5>> {
    kernels::reaches(&input).then(|| {
        let bias = bias.unwrap_or_else(|| zeros(&weights, 1));
        kernels::upsample(input, weights, bias)
    })
}

/// One zero per entry of `weights` along `axis`.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn zeros(weights: &Tensor<5>, axis: usize) -> Tensor<1> {
    Tensor::zeros([weights.dims()[axis]], (&weights.device(), DType::F32))
}

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn convolve(
    _: Tensor<5>,
    _: Tensor<5>,
    _: Option<Tensor<1>>,
    _: [usize; 3],
    _: [usize; 3],
) -> Option<Tensor<5>> {
    None
}

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn upsample(_: Tensor<5>, _: Tensor<5>, _: Option<Tensor<1>>) -> Option<Tensor<5>> {
    None
}
