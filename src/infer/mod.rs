//! Stage 7: a patch goes in, the network's output comes back.
//!
//! The pipeline knows engines only through [`Engine`]; which device or kernels run behind it
//! is decided by the caller who opens one.

#[cfg(feature = "reference")]
mod burn;
pub mod cpu;
mod device;
pub mod gpu;

pub use device::{Device, open};

use crate::Result;
use ndarray::{Array4, ArrayView4};

/// Arithmetic an engine multiplies in; statistics and sums are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats: what agreement with the reference is judged on.
    F32,
    /// Products of numbers rounded to bf16, where the device multiplies those.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A network ready to run on some device.
pub trait Engine: Send {
    /// The device as the user knows it, for instance `reference`.
    fn device(&self) -> &str;

    /// The arithmetic used.
    fn precision(&self) -> Precision;

    /// Channels of the input patch.
    fn input_channels(&self) -> usize;

    /// Channels of the output: logits per class or region.
    fn output_channels(&self) -> usize;

    /// Runs the network on one patch.
    ///
    /// `input` is `[c, z, y, x]`, normalized; `output` has the same `z, y, x` and receives
    /// raw logits. A two-dimensional network gets `z` = 1.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) if the device fails,
    /// [`Error::Model`](crate::Error::Model) if the network answers with another shape.
    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()>;
}
