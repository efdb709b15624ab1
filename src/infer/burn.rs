//! Stage 7 on burn: the graphs `build.rs` turned into Rust code, on a device of burn's.
//!
//! On burn-flex it is slow and independent of our kernels: the oracle they are compared with.
//! burn-flex works in the rayon pool it is called in, so `ThreadPool::install` bounds its
//! threads. GPUs run the same code (`gpu`).

mod layers;
mod norm;

use super::{Engine, LinearHead, Precision};
use crate::model::network;
use crate::model::onnx::Graph;
use crate::registry::Model;
use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Bytes, Device, FloatDType, Tensor, TensorData};
#[allow(unused_imports, reason = "called where a model is installed")]
use layers::Layer;
use ndarray::{Array4, ArrayView4};
#[allow(unused_imports, reason = "called where a model is installed")]
use norm::Normalize;
use std::panic::{AssertUnwindSafe, catch_unwind};

include!(concat!(env!("OUT_DIR"), "/networks.rs"));

/// A generated network and how its weights file is put together.
struct Network {
    name: &'static str,
    pieces: &'static [Piece],
    rest: &'static [u8],
    load: fn(Bytes, &Device, Precision) -> Forward,
}

/// Some bytes of burn's weights file. The weights themselves lie in the embedded ONNX file.
#[allow(dead_code, reason = "constructed where a model is installed")]
enum Piece {
    /// Start and length in the ONNX file.
    Onnx(usize, usize),
    /// So many zeros.
    Zeros(usize),
    /// So many of the remaining bytes.
    Rest(usize),
}

/// A loaded network. Arrays are `[1, c, y, x]` or `[1, c, z, y, x]`.
enum Forward {
    #[allow(dead_code, reason = "constructed where a 2-D model is installed")]
    Plane(Box<dyn Fn(Tensor<4>) -> Tensor<4> + Send>),
    #[allow(dead_code, reason = "constructed where a 3-D model is installed")]
    Volume(Box<dyn Fn(Tensor<5>) -> Tensor<5> + Send>),
}

/// A generated network on one of burn's devices.
pub(super) struct Generated {
    model: &'static str,
    name: String,
    forward: Forward,
    device: Device,
    precision: Precision,
    input_channels: usize,
    /// Of what the generated code gives: features if there is a head.
    output_channels: usize,
    head: Option<LinearHead>,
}

/// Loads an embedded model on the CPU.
pub(super) fn open(model: &Model, precision: Precision) -> Result<Box<dyn Engine>> {
    let generated = Generated::load(model, Device::flex(), "reference".to_owned(), precision)?;
    Ok(Box::new(generated))
}

/// burn's name of a precision; `None` for `f32`, which everything is in already.
fn half(precision: Precision) -> Option<FloatDType> {
    match precision {
        // `open` refuses bytes.
        Precision::F32 | Precision::Int8 => None,
        Precision::F16 => Some(FloatDType::F16),
        Precision::Bf16 => Some(FloatDType::BF16),
    }
}

/// A network with its weights converted.
#[allow(dead_code, reason = "called where a model is installed")]
fn converted<M: Module>(network: M, precision: Precision) -> M {
    match half(precision) {
        Some(dtype) => network.map(&mut layers::Cast(dtype)),
        None => network,
    }
}

impl Generated {
    /// Loads an embedded model; `name` is the device as the user knows it.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if there is no generated code for the model or the device does not
    /// compute in `precision`.
    pub(super) fn load(
        model: &Model,
        device: Device,
        name: String,
        precision: Precision,
    ) -> Result<Self> {
        let able = |dtype| guard(&name, || device.supports_dtype(dtype));
        if let Some(dtype) = half(precision)
            && !able(dtype)?
        {
            let reason = format!("it does not compute in {precision}; use another precision");
            return Err(Error::Device { device: name, reason });
        }
        // A user's model may have the name of one of the program's.
        let known = model.is_embedded();
        let network = NETWORKS.iter().find(|network| known && model.name == network.name);
        let Some(network) = network else {
            let reason = format!("this build holds no generated code for model {}", model.name);
            return Err(Error::Device { device: name, reason });
        };
        let (onnx, facts) = (model.onnx()?, model.facts()?);
        let head = linear_head(&onnx, model.config().patch_size)?;
        let forward = guard(&name, || (network.load)(network.weights(&onnx), &device, precision))?;
        Ok(Self {
            model: network.name,
            name,
            forward,
            device,
            precision,
            input_channels: facts.input_channels,
            output_channels: head
                .as_ref()
                .map_or(facts.output_channels, |head| head.weights.ncols()),
            head,
        })
    }

    /// The device the weights lie on.
    pub(super) fn on(&self) -> &Device {
        &self.device
    }

    /// Runs patches `[n, c, z, y, x]`, all on the device, `f32` in and out. Panics as burn does.
    pub(super) fn forward(&self, input: Tensor<5>) -> Tensor<5> {
        match half(self.precision) {
            Some(dtype) => self.forward_as_is(input.cast(dtype)).cast(FloatDType::F32),
            None => self.forward_as_is(input),
        }
    }

    fn forward_as_is(&self, input: Tensor<5>) -> Tensor<5> {
        match &self.forward {
            Forward::Plane(forward) => {
                assert_eq!(input.dims()[2], 1, "a 2-D network takes one slice");
                forward(input.squeeze_dim(2)).unsqueeze_dim(2)
            }
            Forward::Volume(forward) => forward(input),
        }
    }
}

/// The layer that `build.rs` cut off before it had the code generated.
fn linear_head(onnx: &[u8], patch: [usize; 3]) -> Result<Option<LinearHead>> {
    let mut network = network::Network::new(Graph::read(onnx)?, patch)?;
    let narrow = network.head().is_some_and(|(classes, features)| features < classes);
    Ok(narrow.then(|| network.take_head()).flatten().as_ref().map(LinearHead::from))
}

impl Network {
    fn weights(&self, onnx: &[u8]) -> Bytes {
        let mut weights = Vec::new();
        let mut rest = self.rest;
        for piece in self.pieces {
            match *piece {
                Piece::Onnx(start, len) => weights.extend_from_slice(&onnx[start..start + len]),
                Piece::Zeros(len) => weights.resize(weights.len() + len, 0),
                Piece::Rest(len) => {
                    weights.extend_from_slice(&rest[..len]);
                    rest = &rest[len..];
                }
            }
        }
        Bytes::from_bytes_vec(weights)
    }
}

impl Engine for Generated {
    fn device(&self) -> &str {
        &self.name
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn input_channels(&self) -> usize {
        self.input_channels
    }

    fn output_channels(&self) -> usize {
        self.output_channels
    }

    fn head(&self) -> Option<&LinearHead> {
        self.head.as_ref()
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let (c, z, y, x) = input.dim();
        assert_eq!(c, self.input_channels, "channels of the input");
        let values: Vec<f32> = input.iter().copied().collect();
        let logits = guard(&self.name, || {
            let data = TensorData::new(values, [1, c, z, y, x]);
            self.forward(Tensor::from_data(data, &self.device)).try_into_data()
        })?;
        let data = logits.map_err(|error| failed(&self.name, &error.to_string()))?;
        let logits = data.as_slice::<f32>().ok();
        let logits =
            logits.and_then(|l| ArrayView4::from_shape((self.output_channels, z, y, x), l).ok());
        match logits {
            Some(logits) if logits.dim() == output.dim() => {
                output.assign(&logits);
                Ok(())
            }
            _ => Err(Error::Model {
                model: self.model.to_owned(),
                found: format!("output of shape {:?}", data.shape()),
                expected: format!("{:?}", output.dim()),
            }),
        }
    }
}

/// Turns a panic inside burn into an error: a host process must survive us.
pub(super) fn guard<T>(device: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        failed(device, text.unwrap_or("no reason given"))
    })
}

/// The error for what burn said: its first line that says something. cubecl adds a backtrace.
pub(super) fn failed(device: &str, said: &str) -> Error {
    let telling = |line: &&str| {
        !line.is_empty() && !line.starts_with("An error happened") && *line != "Caused by:"
    };
    let said = said.lines().map(str::trim).find(telling);
    Error::Device {
        device: device.to_owned(),
        reason: format!("burn stopped: {}", said.unwrap_or("no reason given")),
    }
}

#[cfg(test)]
mod tests {
    use super::failed;

    #[test]
    fn the_reason_is_the_first_line_that_gives_one() {
        for (said, reason) in [
            ("out of memory\n   0: backtrace", "out of memory"),
            ("An error happened during execution\nCaused by:\n  too large\n", "too large"),
            ("An error happened during execution\n", "no reason given"),
            ("", "no reason given"),
        ] {
            let text = failed("vulkan:0", said).to_string();
            assert!(text.ends_with(&format!("burn stopped: {reason}")), "{text}");
        }
    }
}
