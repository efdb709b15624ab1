//! Which device runs the network, and the engine for it.

use super::cpu::{CpuEngine, Isa};
use super::{Allowance, Engine, Precision};
use crate::model::Quantization;
use crate::model::onnx::Graph;
use crate::registry::Model;
use crate::{Error, Result};
use fastnnunet_kernels::conv::Arithmetic;
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

/// What generated code multiplies in. Half precision is not its default: nobody has measured what
/// that does to labels.
#[cfg(feature = "reference")]
pub(super) fn of_generated_code(precision: Option<Precision>) -> Precision {
    precision.unwrap_or(Precision::F32)
}

/// How to open an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where the network runs.
    pub device: Device,
    /// What it multiplies in. `None` on the CPU for int8 where that was measured to give the same
    /// labels ([`Quantization::is_close`]), else for bf16 where it is faster, as nnU-Net multiplies
    /// in fp16 on a GPU, else for f32.
    pub precision: Option<Precision>,
    /// Instruction set of the CPU engine; `None` for the best there is.
    pub isa: Option<Isa>,
    /// Most bytes of a GPU's memory to plan with; `None` for what is free. A whole image that
    /// does not fit runs tile by tile.
    pub gpu_memory_limit_bytes: Option<u64>,
    /// Most bytes of memory that opening may hold on the CPU; `None` for any.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes that are held besides, which that limit counts.
    pub held_bytes: u64,
}

impl EngineOptions {
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance { limit_bytes: self.memory_limit_bytes, held_bytes: self.held_bytes }
    }
}

/// Loads a model onto a device, for patches of `patch` voxels (`[z, y, x]`, z = 1
/// for a two-dimensional network).
///
/// `Auto` takes a CUDA GPU that works, else our kernels, or the reference where a network has
/// an operator they lack. Vulkan devices run only when asked for by name.
///
/// # Errors
///
/// [`Error::Device`] if the device is not part of this build, is missing or fails,
/// [`Error::Model`] if the network does not load or does not take such patches,
/// [`Error::Memory`] if one patch exceeds the limit of a GPU's memory.
pub fn open(model: &Model, patch: [usize; 3], options: &EngineOptions) -> Result<Box<dyn Engine>> {
    open_with(model, patch, model.config().int8.first(), options)
}

/// As [`open`], with other ranges for int8 than the model's own.
///
/// # Errors
///
/// As [`open`].
pub fn open_with(
    model: &Model,
    patch: [usize; 3],
    ranges: Option<&Quantization>,
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    let ours = || {
        let graph = &mut |_| Ok(Graph::decode(model.onnx()?)?);
        let ranges = ranges.map(std::slice::from_ref).unwrap_or_default();
        open_folds(&model.name, 1, graph, patch, ranges, options)
    };
    let device = options.device;
    let bytes = options.precision == Some(Precision::Int8);
    if bytes && !matches!(device, Device::Auto | Device::Cpu) {
        let reason = "int8 runs on the CPU only; use auto or cpu".to_owned();
        return Err(Error::Device { device: device.to_string(), reason });
    }
    match device {
        // Who names a precision or instruction set of the CPU gets the CPU.
        Device::Auto if options.precision == Some(Precision::F16) => {
            gpu(model, patch, Device::Cuda(0), options)
        }
        Device::Auto if options.precision.is_some() || options.isa.is_some() => ours(),
        Device::Auto => gpu(model, patch, Device::Cuda(0), options)
            .or_else(|_| ours())
            .or_else(|lacking| reference(model, options).map_err(|_| lacking)),
        Device::Cpu => ours(),
        Device::Reference => reference(model, options),
        Device::Cuda(_) | Device::Vulkan(_) => gpu(model, patch, device, options),
    }
}

#[cfg(feature = "reference")]
fn gpu(
    model: &Model,
    patch: [usize; 3],
    device: Device,
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    built(device)?;
    let options = EngineOptions { device, ..*options };
    Ok(Box::new(super::gpu::GpuEngine::open(model, patch, &options)?))
}

#[cfg(not(feature = "reference"))]
fn gpu(_: &Model, _: [usize; 3], device: Device, _: &EngineOptions) -> Result<Box<dyn Engine>> {
    built(device)?;
    Err(missing(device, "reference"))
}

/// Whether this build knows a GPU of that kind.
fn built(device: Device) -> Result<()> {
    match device {
        Device::Cuda(_) if cfg!(not(feature = "cuda")) => Err(missing(device, "cuda")),
        Device::Vulkan(_) if cfg!(not(feature = "vulkan")) => Err(missing(device, "vulkan")),
        _ => Ok(()),
    }
}

fn missing(device: Device, feature: &str) -> Error {
    Error::Device {
        device: device.to_string(),
        reason: format!("this build lacks the feature `{feature}`"),
    }
}

/// Loads networks that are known only at run time: those of one or several folds, whose logits
/// are averaged. `graph` is asked for each in turn; `name` is what errors call the model; `ranges`
/// are those of each fold, or none.
///
/// # Errors
///
/// As [`open`]; only the CPU runs such networks.
pub fn open_folds(
    name: &str,
    folds: usize,
    graph: &mut dyn FnMut(usize) -> Result<Graph>,
    patch: [usize; 3],
    ranges: &[Quantization],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    let reason = match options.device {
        Device::Auto | Device::Cpu => {
            let isa = options.isa.unwrap_or_else(Isa::best);
            let precision = options.precision.unwrap_or_else(|| usual(isa, folds, ranges));
            let engine = match precision {
                Precision::Int8 if ranges.len() != folds => Err(super::invalid(
                    "no measured ranges of this network",
                    "the field int8 in its configuration, as `fastnnunet calibrate` writes it",
                )),
                _ => {
                    let ranges = if precision == Precision::Int8 { ranges } else { &[] };
                    let (arithmetic, allowed) = ((precision, isa), options.allowance());
                    CpuEngine::lower_folds(folds, graph, patch, arithmetic, true, ranges, allowed)
                }
            };
            return match engine {
                Ok(engine) => Ok(Box::new(engine)),
                Err(Error::Model { found, expected, .. }) => {
                    Err(Error::Model { model: name.to_owned(), found, expected })
                }
                Err(error) => Err(error),
            };
        }
        Device::Reference | Device::Cuda(_) | Device::Vulkan(_) => {
            "it runs the models inside the program only; use auto or cpu"
        }
    };
    Err(Error::Device { device: options.device.to_string(), reason: reason.to_owned() })
}

/// The precision of the CPU where nobody asks for one. It depends on the CPU and on what was
/// measured beforehand, never on a timing: same input, same bytes.
fn usual(isa: Isa, folds: usize, ranges: &[Quantization]) -> Precision {
    let close = ranges.len() == folds && ranges.iter().all(Quantization::is_close);
    if close && isa.is_fast_in(Arithmetic::Int8) {
        Precision::Int8
    } else if isa.is_fast_in(Arithmetic::Bf16) {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

#[cfg(feature = "reference")]
fn reference(model: &Model, options: &EngineOptions) -> Result<Box<dyn Engine>> {
    super::burn::open(model, of_generated_code(options.precision))
}

#[cfg(not(feature = "reference"))]
fn reference(model: &Model, _: &EngineOptions) -> Result<Box<dyn Engine>> {
    Err(Error::Device {
        device: Device::Reference.to_string(),
        reason: format!("{} needs a build with the feature `reference`", model.name),
    })
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
            ("reference", Device::Reference),
        ] {
            assert_eq!(text.parse::<Device>().expect(text), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().expect("cuda"), Device::Cuda(0));
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        for text in
            ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999999999999"]
        {
            let error = text.parse::<Device>().expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
            assert!(error.to_string().contains("reference"), "{error}");
        }
    }
}
