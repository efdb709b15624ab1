//! Stage 7: a patch goes in, the network's output comes back.
//!
//! The pipeline knows engines only through [`Engine`]; which device or kernels run behind it
//! is decided by the caller who opens one.

#[cfg(feature = "reference")]
mod burn;
pub mod cpu;
mod device;
mod difference;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod gpu;
#[cfg(any(feature = "reference", feature = "cuda", feature = "vulkan"))]
mod stopped;

pub(crate) use device::open_folds_within;
pub use device::{Device, EngineOptions, check_weights, open, open_folds, open_with};
pub use difference::{Difference, sample_patch};
#[cfg(feature = "cuda")]
pub use fastnnunet_gpu::{check_cuda, keep_kernels_in, kernel_counts};
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub use gpu::GpuEngine;

use crate::Result;
use crate::model::network;
use crate::volume::Tiling;
use ndarray::{Array2, Array3, Array4, ArrayView3, ArrayView4, Axis, Zip};

/// The last layer of a network that ends in a pointwise convolution: `weights * features +
/// bias` for each voxel.
///
/// All that follows until the choice of a label is linear, so an engine may leave this layer
/// to the very end: tiles are averaged and resampled with one number per feature instead of
/// one per class.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearHead {
    /// `[classes, features]`.
    pub weights: Array2<f32>,
    /// One per class.
    pub bias: Vec<f32>,
}

impl From<&network::Conv> for LinearHead {
    /// The layer that [`Network::take_head`](network::Network::take_head) took.
    fn from(conv: &network::Conv) -> Self {
        let shape = (conv.weights.dims()[0], conv.weights.dims()[1]);
        let weights = Array2::from_shape_vec(shape, conv.weights.to_vec());
        let weights = weights.expect("a checked constant has as many numbers as it says");
        Self { weights, bias: conv.bias.to_vec(shape.0) }
    }
}

impl LinearHead {
    /// Takes the last layer off the network of one of so many folds, where the features of all folds
    /// together are fewer than the classes.
    #[cfg(any(feature = "reference", feature = "cuda", feature = "vulkan"))]
    pub(crate) fn late(network: &mut network::Network, folds: usize) -> Option<Self> {
        let narrow = network.head().is_some_and(|(classes, features)| features * folds < classes);
        narrow.then(|| network.take_head()).flatten().as_ref().map(Self::from)
    }

    /// The head whose logits are the mean of those of `heads`, in the features of all of them
    /// one after the other; `None` without heads or if they have different classes.
    #[must_use]
    pub fn mean(heads: &[Self]) -> Option<Self> {
        let count = heads.len() as f32;
        let weights: Vec<_> = heads.iter().map(|head| head.weights.view()).collect();
        let mut weights = ndarray::concatenate(Axis(1), &weights).ok()?;
        let mut bias = vec![0.0; weights.nrows()];
        for head in heads {
            for (sum, b) in bias.iter_mut().zip(&head.bias) {
                *sum += b;
            }
        }
        if heads.len() > 1 {
            weights /= count;
            for b in &mut bias {
                *b /= count;
            }
        }
        Some(Self { weights: weights.as_standard_layout().into_owned(), bias })
    }

    /// Logits of `features`, `[c, z, y, x]` both.
    ///
    /// # Panics
    ///
    /// If there are not as many features as the head takes.
    #[must_use]
    pub fn logits(&self, features: ArrayView4<'_, f32>) -> Array4<f32> {
        let (count, z, y, x) = features.dim();
        assert_eq!(count, self.weights.ncols(), "features of the head");
        let mut logits = Array4::zeros((self.bias.len(), z, y, x));
        for ((mut plane, weights), &bias) in
            logits.outer_iter_mut().zip(self.weights.outer_iter()).zip(&self.bias)
        {
            plane.fill(bias);
            for (feature, &weight) in features.outer_iter().zip(weights) {
                Zip::from(&mut plane).and(feature).for_each(|sum, &value| *sum += weight * value);
            }
        }
        logits
    }
}

/// Arithmetic an engine multiplies in; statistics and sums are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats: what agreement with the reference is judged on.
    F32,
    /// Products of numbers rounded to fp16, on devices that hold those.
    F16,
    /// Products of numbers rounded to bf16, where the device multiplies those.
    Bf16,
    /// Products of bytes, by ranges that were measured on scans.
    Int8,
}

impl std::str::FromStr for Precision {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::F32, Self::F16, Self::Bf16, Self::Int8];
        let found = all.into_iter().find(|precision| precision.to_string() == text);
        found.ok_or_else(|| crate::Error::usage("precision", text, "f32, f16, bf16 or int8"))
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// A whole image and the tiles to run over it.
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    /// The normalized image on the network's grid, `[c, z, y, x]`.
    pub image: ArrayView4<'a, f32>,
    /// Where the tiles lie, in the order in which they are added up.
    pub tiling: &'a Tiling,
    /// Weight of each voxel of a tile.
    pub weights: ArrayView3<'a, f32>,
    /// Axes flipped in each pass over a tile.
    pub passes: &'a [Vec<usize>],
}

/// How means of tiles become labels of a target.
#[derive(Clone, Copy, Debug)]
pub struct Labeling<'a> {
    /// For each voxel of the target along `z`, `y` and `x`: its two neighbors among the means, and the
    /// weight of the second.
    pub axes: [&'a [(usize, usize, f32)]; 3],
    /// `None` for the class with the largest logit; else the last class whose logit exceeds this counts,
    /// plus one, and 0 where there is none.
    pub above: Option<f32>,
}

impl Labeling<'_> {
    /// Voxels of the target.
    #[must_use]
    pub fn target(&self) -> [usize; 3] {
        self.axes.map(<[_]>::len)
    }
}

/// What takes an engine's output by parts: the number of the first channel in it, the slice, and
/// `[c, y, x]`.
pub type TakeSlice<'a> = dyn Fn(usize, usize, ArrayView3<'_, f32>) + Sync + 'a;

/// A network ready to run on some device.
pub trait Engine: Send {
    /// The device as the user knows it, for instance `reference`.
    fn device(&self) -> &str;

    /// The arithmetic used.
    fn precision(&self) -> Precision;

    /// Channels of the input patch.
    fn input_channels(&self) -> usize;

    /// Channels of the output: logits per class or region, or features if there is a
    /// [`head`](Self::head).
    fn output_channels(&self) -> usize;

    /// What turns the output into logits, if the output are features.
    fn head(&self) -> Option<&LinearHead> {
        None
    }

    /// Logits per voxel, after the head.
    fn classes(&self) -> usize {
        self.head().map_or_else(|| self.output_channels(), |head| head.bias.len())
    }

    /// Bytes of the host's memory that it holds at most while running with `threads` threads.
    fn memory_bytes(&self, threads: usize) -> u64;

    /// Runs the network on one patch.
    ///
    /// `input` is `[c, z, y, x]`, normalized; `output` has the same `z, y, x` and receives
    /// raw logits or features. A two-dimensional network gets `z` = 1.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) if the device fails,
    /// [`Error::Model`](crate::Error::Model) if the network answers with another shape.
    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()>;

    /// Whether [`run_slices`](Self::run_slices) needs no array for all of the output.
    fn gives_slices(&self) -> bool {
        false
    }

    /// As [`run`](Self::run) for who needs no array of the output: `take` is called once for every
    /// slice of every channel, in any order and by several threads at a time.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    fn run_slices(&mut self, input: ArrayView4<'_, f32>, take: &TakeSlice<'_>) -> Result<()> {
        let (_, z, y, x) = input.dim();
        let mut output = Array4::zeros((self.output_channels(), z, y, x));
        self.run(input, &mut output)?;
        let slices = output.axis_iter(Axis(1)).enumerate();
        slices.for_each(|(z, slice)| take(0, z, slice));
        Ok(())
    }

    /// Logits of one patch, `[c, z, y, x]` both: [`run`](Self::run) and the head, where there is one.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    fn logits(&mut self, input: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        let (_, z, y, x) = input.dim();
        let mut output = Array4::zeros((self.output_channels(), z, y, x));
        self.run(input, &mut output)?;
        Ok(self.head().map(|head| head.logits(output.view())).unwrap_or(output))
    }

    /// Bytes of the host's memory that [`run_image`](Self::run_image) holds beside the image,
    /// for an image of `shape` voxels and tiles of `patch` (`[z, y, x]`); the map it returns is
    /// among them. `None` if this engine runs single patches only, or if its device does not hold
    /// that image.
    fn image_bytes(&self, shape: [usize; 3], patch: [usize; 3]) -> Option<u64> {
        let _ = (shape, patch);
        None
    }

    /// As [`image_bytes`](Self::image_bytes), for [`label_image`](Self::label_image) with a target of
    /// `target` voxels.
    fn label_bytes(&self, shape: [usize; 3], patch: [usize; 3], target: [usize; 3]) -> Option<u64> {
        let _ = (shape, patch, target);
        None
    }

    /// Runs the network on every tile of an image and returns the weighted mean of what it
    /// gives, `[c, z, y, x]`: stages 6 to 8 in one, for devices that are far from the host's
    /// memory. `None` where [`image_bytes`](Self::image_bytes) is.
    ///
    /// `advance` is called once per tile and pass; an error it returns ends the run.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) if the device fails, and what `advance` returns.
    fn run_image(
        &mut self,
        tiles: Tiles<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array4<f32>>> {
        let _ = (tiles, advance);
        Ok(None)
    }

    /// As [`run_image`](Self::run_image) and the two stages after it: the means are interpolated where
    /// they are, and what is returned is the number of each voxel's class, `[z, y, x]` of the target.
    /// `None` where [`label_bytes`](Self::label_bytes) is.
    ///
    /// # Errors
    ///
    /// As [`run_image`](Self::run_image).
    fn label_image(
        &mut self,
        tiles: Tiles<'_>,
        labeling: Labeling<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array3<u16>>> {
        let _ = (tiles, labeling, advance);
        Ok(None)
    }
}

/// An error about the graph itself.
pub(crate) fn invalid(found: impl Into<String>, expected: impl Into<String>) -> crate::Error {
    crate::model::Mismatch::new(found, expected).into()
}
