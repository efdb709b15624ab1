//! Which device runs the network, and the engine for it.

use super::cpu::{CpuEngine, Isa};
use super::{Engine, Precision};
use crate::files::Allowance;
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
    /// The generated network on burn's CUDA backend, on the device of that number.
    ReferenceCuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Vulkan(index) => write!(f, "vulkan:{index}"),
            Self::Reference => f.write_str("reference"),
            Self::ReferenceCuda(index) => write!(f, "reference:cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N`, `reference`, `reference:cuda` or
    /// `reference:cuda:N`; without a number it is the first.
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
            Some(("reference", "cuda")) => Some(Self::ReferenceCuda(0)),
            Some(("reference", rest)) => {
                rest.strip_prefix("cuda:").and_then(number).map(Self::ReferenceCuda)
            }
            Some(_) => None,
        };
        device.ok_or_else(|| Error::Usage {
            what: "device".to_owned(),
            found: text.to_owned(),
            expected: "auto, cpu, cuda, cuda:N, vulkan, vulkan:N, reference or reference:cuda[:N]"
                .to_owned(),
        })
    }
}

/// How to open an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where the network runs.
    pub device: Device,
    /// What it multiplies in. `None` on the CPU for int8 where that was measured to give the same
    /// labels ([`Quantization::is_close`]), else for bf16 where it is faster, as nnU-Net multiplies
    /// in fp16 on a GPU, else for f32. On GPUs it stands for f32.
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
    /// The same where so many bytes more are held.
    pub(crate) fn beside(&self, bytes: u64) -> Self {
        Self { held_bytes: self.held_bytes.saturating_add(bytes), ..*self }
    }

    pub(crate) fn allowance(&self) -> Allowance {
        Allowance::new(self.memory_limit_bytes, self.held_bytes)
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
        let graph = &mut |fold, allowed| model.graph_within(fold, allowed);
        let ranges = ranges.map(std::slice::from_ref).unwrap_or_default();
        open_folds_within(&model.name, 1, graph, patch, ranges, options)
    };
    match options.device {
        Device::Reference => reference(model, None, options),
        Device::ReferenceCuda(index) => reference(model, Some(index), options),
        Device::Auto if options.precision.is_none() && options.isa.is_none() => {
            ours().or_else(|lacking| reference(model, None, options).map_err(|_| lacking))
        }
        _ => ours(),
    }
}

/// Whether this build knows a device of that kind.
fn built(device: Device) -> Result<()> {
    let lacking = match device {
        Device::Cuda(_) | Device::ReferenceCuda(_) if cfg!(not(feature = "cuda")) => "cuda",
        Device::Vulkan(_) if cfg!(not(feature = "vulkan")) => "vulkan",
        Device::Reference | Device::ReferenceCuda(_) if cfg!(not(feature = "reference")) => {
            "reference"
        }
        _ => return Ok(()),
    };
    Err(Error::Device {
        device: device.to_string(),
        reason: format!("this build lacks the feature `{lacking}`"),
    })
}

/// Loads networks that are known only at run time: those of one or several folds, whose logits
/// are averaged. `graph` is asked for each in turn; `name` is what errors call the model; `ranges`
/// are those of each fold, or none.
///
/// # Errors
///
/// As [`open`]; the reference runs the models inside the program only.
pub fn open_folds(
    name: &str,
    folds: usize,
    graph: &mut dyn FnMut(usize) -> Result<Graph>,
    patch: [usize; 3],
    ranges: &[Quantization],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    open_folds_within(name, folds, &mut |fold, _| graph(fold), patch, ranges, options)
}

/// As [`open_folds`]; `graph` is told what is left of the limit.
pub(crate) fn open_folds_within(
    name: &str,
    folds: usize,
    graph: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
    patch: [usize; 3],
    ranges: &[Quantization],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    built(options.device)?;
    let on = |device| EngineOptions { device, ..*options };
    let opened = match options.device {
        Device::Cpu => cpu(folds, graph, patch, ranges, options),
        Device::Cuda(_) | Device::Vulkan(_) => gpu(folds, graph, patch, options),
        // The CPU multiplies no fp16.
        Device::Auto if options.precision == Some(Precision::F16) => {
            built(Device::Cuda(0)).and_then(|()| gpu(folds, graph, patch, &on(Device::Cuda(0))))
        }
        // Who names another precision or an instruction set of the CPU gets the CPU.
        Device::Auto if options.precision.is_some() || options.isa.is_some() || !gpu_works() => {
            cpu(folds, graph, patch, ranges, options)
        }
        Device::Auto => gpu(folds, graph, patch, &on(Device::Cuda(0)))
            .or_else(|_| cpu(folds, graph, patch, ranges, options)),
        Device::Reference | Device::ReferenceCuda(_) => Err(Error::Device {
            device: options.device.to_string(),
            reason: "it runs the models inside the program only; use another device".to_owned(),
        }),
    };
    opened.map_err(|error| match error {
        Error::Model { found, expected, .. } => {
            Error::Model { model: name.to_owned(), found, expected }
        }
        error => error,
    })
}

fn cpu(
    folds: usize,
    graph: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
    patch: [usize; 3],
    ranges: &[Quantization],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    let isa = options.isa.unwrap_or_else(Isa::best);
    let precision = options.precision.unwrap_or_else(|| usual(isa, folds, ranges));
    if precision == Precision::Int8 && ranges.len() != folds {
        return Err(super::invalid(
            "no measured ranges of this network",
            "the field int8 in its configuration, as `fastnnunet calibrate` writes it",
        ));
    }
    let ranges = if precision == Precision::Int8 { ranges } else { &[] };
    let (arithmetic, allowed) = ((precision, isa), options.allowance());
    Ok(Box::new(CpuEngine::lower_folds(folds, graph, patch, arithmetic, false, ranges, allowed)?))
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn gpu(
    folds: usize,
    graph: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
    patch: [usize; 3],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    Ok(Box::new(super::GpuEngine::open_within(folds, graph, patch, options)?))
}

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn gpu(
    _: usize,
    _: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
    _: [usize; 3],
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    built(options.device).and(Err(super::invalid("no GPU in this build", "one")))
}

/// Whether the first CUDA device can be used.
fn gpu_works() -> bool {
    #[cfg(feature = "cuda")]
    return fastnnunet_gpu::check_cuda(0).is_ok();
    #[cfg(not(feature = "cuda"))]
    false
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
fn reference(
    model: &Model,
    cuda: Option<usize>,
    options: &EngineOptions,
) -> Result<Box<dyn Engine>> {
    built(cuda.map_or(Device::Reference, Device::ReferenceCuda))?;
    super::burn::open(model, cuda, options.precision)
}

/// Whether the weights inside the program are as they were built in: those of the model's ONNX file, and
/// once more those of the code generated of it, where this build has that.
///
/// # Errors
///
/// [`Error::Model`] if they are not, or as [`Model::facts`].
pub fn check_weights(model: &Model) -> Result<()> {
    if !model.is_intact()? {
        return Err(Error::Model {
            model: model.name.to_string(),
            found: "weights that changed since the program was built".into(),
            expected: format!("SHA-256 {}", model.facts()?.sha256),
        });
    }
    #[cfg(feature = "reference")]
    super::burn::check_weights(model)?;
    Ok(())
}

#[cfg(not(feature = "reference"))]
fn reference(_: &Model, cuda: Option<usize>, _: &EngineOptions) -> Result<Box<dyn Engine>> {
    let device = cuda.map_or(Device::Reference, Device::ReferenceCuda);
    built(device).and(Err(super::invalid("no reference in this build", "one")))
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
            ("reference:cuda:3", Device::ReferenceCuda(3)),
        ] {
            assert_eq!(text.parse::<Device>().expect(text), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().expect("cuda"), Device::Cuda(0));
        let on_cuda = "reference:cuda".parse::<Device>().expect("reference:cuda");
        assert_eq!(on_cuda, Device::ReferenceCuda(0));
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
            "cuda:+1",
            "cuda:99999999999999999999",
            "reference:",
            "reference:vulkan",
            "reference:cuda:",
            "reference:0",
        ] {
            let error = text.parse::<Device>().expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
            assert!(error.to_string().contains("reference"), "{error}");
        }
    }
}
