//! Which device runs the network, and the engine for it.

use super::cpu::{CpuEngine, Isa};
use super::{Engine, Precision};
use crate::model::registry::EmbeddedModel;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A device as the user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The fastest engine of this build that runs on this machine.
    #[default]
    Auto,
    /// The CPU, with our own kernels.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    /// The Vulkan device of that number.
    Vulkan(usize),
    /// The generated network on burn-flex: slow, independent of our kernels.
    Reference,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Vulkan(index) => write!(f, "vulkan:{index}"),
            Self::Reference => f.write_str("reference"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N` or `reference`; `cuda` is
    /// `cuda:0`.
    fn from_str(text: &str) -> Result<Self> {
        let number = |index: &str| {
            // `parse` alone would take a plus sign.
            let digits = index.bytes().all(|byte| byte.is_ascii_digit());
            index.parse().ok().filter(|_| digits)
        };
        let device = match text.split_once(':') {
            None => match text {
                "auto" => Some(Self::Auto),
                "cpu" => Some(Self::Cpu),
                "cuda" => Some(Self::Cuda(0)),
                "vulkan" => Some(Self::Vulkan(0)),
                "reference" => Some(Self::Reference),
                _ => None,
            },
            Some(("cuda", index)) => number(index).map(Self::Cuda),
            Some(("vulkan", index)) => number(index).map(Self::Vulkan),
            Some(_) => None,
        };
        device.ok_or_else(|| Error::Usage {
            what: "device".to_owned(),
            found: text.to_owned(),
            expected: "auto, cpu, cuda, cuda:N, vulkan, vulkan:N or reference".to_owned(),
        })
    }
}

/// Loads an embedded model onto a device, for patches of `patch` voxels (`[z, y, x]`, z = 1
/// for a two-dimensional network).
///
/// `Auto` takes a CUDA GPU that works, else our kernels, or the reference where a network has
/// an operator they lack. Vulkan devices run only when asked for by name.
///
/// # Errors
///
/// [`Error::Device`] if the device is not part of this build, is missing or fails,
/// [`Error::Model`] if the network does not load or does not take such patches.
pub fn open(model: &EmbeddedModel, patch: [usize; 3], device: Device) -> Result<Box<dyn Engine>> {
    match device {
        Device::Auto => cuda(model, patch, 0)
            .or_else(|_| cpu(model, patch))
            .or_else(|lacking| reference(model).map_err(|_| lacking)),
        Device::Cpu => cpu(model, patch),
        Device::Reference => reference(model),
        Device::Cuda(index) => cuda(model, patch, index),
        Device::Vulkan(index) => vulkan(model, index),
    }
}

#[cfg(feature = "cuda")]
fn cuda(model: &EmbeddedModel, patch: [usize; 3], index: usize) -> Result<Box<dyn Engine>> {
    super::gpu::open_cuda(model, patch, index)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &EmbeddedModel, _: [usize; 3], index: usize) -> Result<Box<dyn Engine>> {
    Err(not_built(Device::Cuda(index), "cuda"))
}

#[cfg(feature = "vulkan")]
fn vulkan(model: &EmbeddedModel, index: usize) -> Result<Box<dyn Engine>> {
    super::gpu::open_vulkan(model, index)
}

#[cfg(not(feature = "vulkan"))]
fn vulkan(_: &EmbeddedModel, index: usize) -> Result<Box<dyn Engine>> {
    Err(not_built(Device::Vulkan(index), "vulkan"))
}

#[cfg(not(all(feature = "cuda", feature = "vulkan", feature = "reference")))]
fn not_built(device: Device, feature: &str) -> Error {
    Error::Device {
        device: device.to_string(),
        reason: format!("this build lacks the feature `{feature}`"),
    }
}

fn cpu(model: &EmbeddedModel, patch: [usize; 3]) -> Result<Box<dyn Engine>> {
    let engine = CpuEngine::open(model.onnx, patch, Precision::F32, Isa::best());
    match engine {
        Ok(engine) => Ok(Box::new(engine)),
        Err(Error::Model { found, expected, .. }) => {
            Err(Error::Model { model: model.name.to_owned(), found, expected })
        }
        Err(error) => Err(error),
    }
}

#[cfg(feature = "reference")]
fn reference(model: &EmbeddedModel) -> Result<Box<dyn Engine>> {
    super::burn::open(model)
}

#[cfg(not(feature = "reference"))]
fn reference(_: &EmbeddedModel) -> Result<Box<dyn Engine>> {
    Err(not_built(Device::Reference, "reference"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda:0", Device::Cuda(0)),
            ("cuda:12", Device::Cuda(12)),
            ("vulkan:1", Device::Vulkan(1)),
            ("reference", Device::Reference),
        ] {
            assert_eq!(text.parse::<Device>().expect(text), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().expect("cuda"), Device::Cuda(0));
        assert_eq!("vulkan".parse::<Device>().expect("vulkan"), Device::Vulkan(0));
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        for text in [
            "",
            "gpu",
            "CPU",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "vulkan:+1",
            "cpu:0",
            "cuda:99999999999999999999",
        ] {
            let error = text.parse::<Device>().expect_err(text);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("reference"), "{error}");
        }
    }
}
