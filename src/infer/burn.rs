//! Stage 7 on burn: the graphs `build.rs` turned into Rust code, run by burn-flex.
//!
//! Slow, and independent of our kernels: the oracle they are compared with. burn-flex works
//! in the rayon pool it is called in, so `ThreadPool::install` bounds its threads.

use super::{Engine, Precision};
use crate::model::Model;
use crate::{Error, Result};
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use ndarray::{Array4, ArrayView4};
use std::panic::{AssertUnwindSafe, catch_unwind};

include!(concat!(env!("OUT_DIR"), "/networks.rs"));

const DEVICE: &str = "reference";

/// A generated network and how its weights file is put together.
struct Network {
    name: &'static str,
    pieces: &'static [Piece],
    rest: &'static [u8],
    load: fn(Bytes, &Device) -> Forward,
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

struct Reference {
    model: &'static str,
    forward: Forward,
    device: Device,
    input_channels: usize,
    output_channels: usize,
}

/// Loads an embedded model.
pub(super) fn open(model: &Model) -> Result<Box<dyn Engine>> {
    // A user's model may have the name of one of the program's.
    let known = model.is_embedded();
    let network = NETWORKS.iter().find(|network| known && network.name == model.name);
    let network = network.ok_or_else(|| Error::Device {
        device: DEVICE.to_owned(),
        reason: format!("this build holds no generated code for model {}", model.name),
    })?;
    let device = Device::flex();
    let (onnx, facts) = (model.onnx()?, model.facts()?);
    let forward = guard(|| (network.load)(network.weights(&onnx), &device))?;
    Ok(Box::new(Reference {
        model: network.name,
        forward,
        device,
        input_channels: facts.input_channels,
        output_channels: facts.output_channels,
    }))
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

impl Engine for Reference {
    fn device(&self) -> &str {
        DEVICE
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn input_channels(&self) -> usize {
        self.input_channels
    }

    fn output_channels(&self) -> usize {
        self.output_channels
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let (c, z, y, x) = input.dim();
        assert_eq!(c, self.input_channels, "channels of the input");
        let values: Vec<f32> = input.iter().copied().collect();
        let data = guard(|| match &self.forward {
            Forward::Plane(forward) => {
                assert_eq!(z, 1, "a 2-D network takes one slice");
                let data = TensorData::new(values, [1, c, y, x]);
                forward(Tensor::from_data(data, &self.device)).into_data()
            }
            Forward::Volume(forward) => {
                let data = TensorData::new(values, [1, c, z, y, x]);
                forward(Tensor::from_data(data, &self.device)).into_data()
            }
        })?;
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
fn guard<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Error::Device {
            device: DEVICE.to_owned(),
            reason: format!("burn stopped: {}", text.unwrap_or("no reason given")),
        }
    })
}
