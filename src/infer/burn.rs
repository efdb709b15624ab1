//! Stage 7 on burn: the graphs that `build.rs` had turned into Rust code, on a device of burn's.
//!
//! Nothing of it is ours: no kernel, no layer, no edit of the code. On burn-flex it is slow, and the
//! oracle that our engines are compared with; on burn's CUDA backend it shows what the generated code
//! takes there. burn-flex works in the rayon pool it is called in, so `ThreadPool::install` bounds its
//! threads.

use super::stopped::{failed, guard};
use super::{Engine, LinearHead, Precision};
use crate::infer::Device;
use crate::model::network;
use crate::model::onnx::Graph;
use crate::registry::Model;
use crate::{Error, Result};
use burn::tensor::{Bytes, Tensor, TensorData};
use ndarray::{Array4, ArrayView4};

include!(concat!(env!("OUT_DIR"), "/networks.rs"));

/// A generated network.
struct Network {
    name: &'static str,
    /// burn's weights file. The ONNX file has them too.
    weights: &'static [u8],
    /// Of that file, when it was built in.
    sha256: &'static str,
    load: fn(Bytes, &burn::tensor::Device) -> Forward,
}

/// A loaded network. Arrays are `[1, c, y, x]` or `[1, c, z, y, x]`.
enum Forward {
    #[allow(dead_code, reason = "constructed where a 2-D model is installed")]
    Plane(Box<dyn Fn(Tensor<4>) -> Tensor<4> + Send>),
    #[allow(dead_code, reason = "constructed where a 3-D model is installed")]
    Volume(Box<dyn Fn(Tensor<5>) -> Tensor<5> + Send>),
}

/// A generated network on one of burn's devices.
struct Generated {
    model: &'static str,
    name: String,
    forward: Forward,
    device: burn::tensor::Device,
    input_channels: usize,
    /// Of what the generated code gives: features if there is a head.
    output_channels: usize,
    head: Option<LinearHead>,
    memory_bytes: u64,
}

/// The code generated of a model, where there is any.
fn generated(model: &Model) -> Option<&'static Network> {
    // A user's model may have the name of one of the program's.
    let known = model.is_embedded();
    NETWORKS.iter().find(|network| known && model.name == network.name)
}

/// Whether the weights of the code generated of a model are those that were built in.
///
/// # Errors
///
/// [`Error::Model`] if they are not.
pub(super) fn check_weights(model: &Model) -> Result<()> {
    match generated(model) {
        Some(network) if crate::files::sha256(network.weights) != network.sha256 => {
            Err(Error::Model {
                model: model.name.to_string(),
                found: "weights of generated code that changed since the program was built".into(),
                expected: format!("SHA-256 {}", network.sha256),
            })
        }
        _ => Ok(()),
    }
}

/// Loads an embedded model on the CPU, or on the CUDA device of that number.
///
/// # Errors
///
/// [`Error::Device`] if there is no generated code for the model, or the device is missing or fails.
pub(super) fn open(
    model: &Model,
    cuda: Option<usize>,
    precision: Option<Precision>,
) -> Result<Box<dyn Engine>> {
    let name = cuda.map_or(Device::Reference, Device::ReferenceCuda).to_string();
    let lacking = |reason: String| Error::Device { device: name.clone(), reason };
    if let Some(other) = precision.filter(|&asked| asked != Precision::F32) {
        return Err(lacking(format!("generated code multiplies f32 numbers, not {other}")));
    }
    let reason = || lacking(format!("this build holds no generated code for model {}", model.name));
    let network = generated(model).ok_or_else(reason)?;
    let device = match cuda {
        None => burn::tensor::Device::flex(),
        Some(index) => cuda_device(index).map_err(lacking)?,
    };
    let facts = model.facts()?;
    let graph = Graph::decode(model.onnx()?)?;
    // The layer that `build.rs` cut off before it had the code generated.
    let mut checked = network::Network::new(graph, model.config().patch_size)?;
    let head = LinearHead::late(&mut checked, 1);
    // The file and the tensors read from it.
    let memory_bytes = 2 * network.weights.len() as u64 + activation_bytes(&checked);
    let weights = Bytes::from_bytes_vec(network.weights.to_vec());
    let forward = guard(&name, || (network.load)(weights, &device))?;
    let features = head.as_ref().map(|head| head.weights.ncols());
    Ok(Box::new(Generated {
        model: network.name,
        forward,
        device,
        input_channels: facts.input_channels,
        output_channels: features.unwrap_or(facts.output_channels),
        head,
        name,
        memory_bytes,
    }))
}

/// Bytes that running one patch takes at its largest moment: values that are still to be read, and
/// what the layer at work makes on its way (unfolded patches, steps of a normalization): one and a half
/// times what it reads or makes, as measured (tests/it/faults/memory.rs).
fn activation_bytes(network: &network::Network) -> u64 {
    let bytes = |value: usize| {
        let extent = value.checked_sub(1).map_or(network.input, |node| network.nodes[node].extent);
        (extent.channels * extent.voxels() * size_of::<f32>()) as u64
    };
    let mut last_read = vec![0; network.nodes.len() + 1];
    for (at, node) in network.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&value| last_read[value] = at);
    }
    last_read[network.output] = usize::MAX;
    let (mut held, mut peak) = (bytes(0), 0);
    for (at, node) in network.nodes.iter().enumerate() {
        held += bytes(at + 1);
        let read = node.inputs.iter().map(|&value| bytes(value)).sum::<u64>();
        let passing = 3 * read.max(bytes(at + 1)) / 2;
        peak = peak.max(held + passing);
        let over = (0..=at).filter(|&value| last_read[value] == at && node.inputs.contains(&value));
        held -= over.map(bytes).sum::<u64>();
    }
    peak
}

/// burn's CUDA device of that number, once everything it needs is there.
#[cfg(feature = "cuda")]
fn cuda_device(index: usize) -> Result<burn::tensor::Device, String> {
    fastnnunet_gpu::check_cuda(index).map_err(|error| error.to_string())?;
    Ok(burn::tensor::Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda_device(_: usize) -> Result<burn::tensor::Device, String> {
    Err("this build lacks the feature `cuda`".to_owned())
}

impl Generated {
    /// Runs a patch `[1, c, z, y, x]`. Panics as burn does.
    fn forward(&self, input: Tensor<5>) -> Tensor<5> {
        match &self.forward {
            Forward::Plane(forward) => {
                assert_eq!(input.dims()[2], 1, "a 2-D network takes one slice");
                forward(input.squeeze_dim(2)).unsqueeze_dim(2)
            }
            Forward::Volume(forward) => forward(input),
        }
    }
}

impl Engine for Generated {
    fn device(&self) -> &str {
        &self.name
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

    fn head(&self) -> Option<&LinearHead> {
        self.head.as_ref()
    }

    fn memory_bytes(&self, _: usize) -> u64 {
        self.memory_bytes
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
