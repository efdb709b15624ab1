//! What an ONNX file says about itself, and whether that agrees with a configuration.
//!
//! Bytes of a file enter; a [`Summary`] leaves, or a [`Mismatch`] that says what is in the way.
//! [`summary`] looks at inputs and outputs only; [`check`], which the build script runs, at
//! everything, so that what would fail at run time fails the build.

use crate::network::Network;
use crate::onnx;
use crate::proto::{Dim, Graph, Model, OperatorSet, ValueInfo};
use crate::{Mismatch, measure};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashSet;

/// What the caller already knows about a network and the graph has to agree with.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Version of the default operator set, where it is recorded.
    pub opset: Option<i64>,
    /// Whether the network is two-dimensional.
    pub two_d: bool,
    /// Voxels per tile, `[z, y, x]`; a 2-D network ignores the first.
    pub patch_size: [usize; 3],
    /// Channels of the input.
    pub input_channels: usize,
    /// Channels of the output; `None` where the configuration names no labels.
    pub output_channels: Option<usize>,
}

/// What a checked graph says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Version of the default operator set.
    pub opset: i64,
    /// Channels of the input.
    pub input_channels: usize,
    /// Channels of the output.
    pub output_channels: usize,
}

/// Operators a network may consist of: those nnU-Net's architectures export to.
pub const OPERATORS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Identity",
    "InstanceNormalization",
    "LeakyRelu",
    "Mul",
    "Relu",
    "Sigmoid",
];

/// ONNX's number for 32-bit floats.
const FLOAT: i32 = 1;

fn error(found: impl Into<String>, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(found, expected)
}

/// Most bytes that structures of a file may take besides the file, whatever its size.
const FREE_BYTES: u64 = 16 << 20;

/// As many more for each byte of the file: lists grow to twice their length, and short numbers to
/// eight bytes.
const BYTES_PER_BYTE: u64 = 8;

/// Bytes that [`parse`] makes of a file, which weights that are stored raw stay in.
#[must_use]
pub fn parsed_bytes(file: &[u8]) -> u64 {
    measure::decoded_bytes(file)
}

/// Bytes of the numbers that [`Graph::decode`](crate::onnx::Graph::decode) makes of a file, while the
/// file and what it was parsed to are there.
#[must_use]
pub fn constant_bytes(file: &[u8]) -> u64 {
    measure::constant_bytes(file)
}

/// Reads an ONNX file without looking at what the graph means. Weights are slices of the file's own
/// bytes.
///
/// # Errors
///
/// [`Mismatch`] if the bytes are empty, cut off, no ONNX model, or one that takes much more memory
/// than its file.
pub fn parse(file: Bytes) -> Result<Model, Mismatch> {
    if file.is_empty() {
        return Err(error("an empty file", "an ONNX model"));
    }
    let bytes = file.len();
    let held = parsed_bytes(&file);
    if held > FREE_BYTES + BYTES_PER_BYTE * bytes as u64 {
        return Err(error(
            format!("{bytes} bytes that stand for {} MiB of structures", held >> 20),
            "a network whose file is mostly weights",
        ));
    }
    Model::decode(file)
        .map_err(|e| error(format!("{bytes} bytes that do not decode ({e})"), "a whole ONNX model"))
}

/// Checks that a model is one network of the expected kind, with the operators of [`OPERATORS`].
///
/// # Errors
///
/// [`Mismatch`] with the operator and node in the way, or the tensor that does not fit.
pub fn check(model: &Model, expected: &Expected) -> Result<Summary, Mismatch> {
    let said = summary(model, expected)?;
    let graph = graph(model)?;
    let names = |values: &[ValueInfo]| -> Vec<String> {
        values.iter().map(|value| value.name.clone()).collect()
    };
    if !graph.input.iter().any(|value| value.name == "input") {
        let found = format!("graph inputs {:?}", names(&graph.input));
        return Err(error(found, "exactly one, called `input`"));
    }
    if names(&graph.output) != ["output"] {
        let found = format!("graph outputs {:?}", names(&graph.output));
        return Err(error(found, "exactly one, called `output`"));
    }
    for node in &graph.node {
        let default_domain = node.domain.is_empty() || node.domain == "ai.onnx";
        if !default_domain || !OPERATORS.contains(&node.op_type.as_str()) {
            let domain = if default_domain { String::new() } else { format!("{}::", node.domain) };
            return Err(error(
                format!("operator {domain}{} (node `{}`)", node.op_type, node.label()),
                format!("one of {}", OPERATORS.join(", ")),
            ));
        }
        let pads = node.ints("pads").unwrap_or_default();
        let half = pads.len() / 2;
        if pads[..half] != pads[half..] {
            let found = format!("{} (node `{}`) with pads {pads:?}", node.op_type, node.label());
            return Err(error(found, "the same padding at both ends"));
        }
    }
    let network = Network::new(onnx::Graph::from_proto(model.clone())?, expected.patch_size)?;
    let made = network.output_channels();
    if made != said.output_channels {
        return Err(error(
            format!("an output of {} channels, computed with {made}", said.output_channels),
            "the same number",
        ));
    }
    Ok(said)
}

fn graph(model: &Model) -> Result<&Graph, Mismatch> {
    let graph = model.graph.as_ref().filter(|graph| !graph.node.is_empty());
    graph.ok_or_else(|| error("no graph", "an ONNX model with a network in it"))
}

/// What the inputs and outputs of a model say, if it is one of the expected kind.
///
/// # Errors
///
/// [`Mismatch`] if there is not one input and one output with the axes, the patch and the channels
/// expected.
pub fn summary(model: &Model, expected: &Expected) -> Result<Summary, Mismatch> {
    let graph = graph(model)?;
    let opset = opset(model, expected.opset)?;
    let weights: HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|value| !weights.contains(value.name.as_str()));
    let input = only("input", inputs)?;
    let output = only("output", graph.output.iter())?;
    let shape_in = shape("input", input, expected)?;
    let shape_out = shape("output", output, expected)?;
    let input_channels = shape_in[1].unwrap_or(expected.input_channels);
    if input_channels != expected.input_channels {
        return Err(error(
            format!("{input_channels} input channels in the graph"),
            format!("{}, as the configuration says", expected.input_channels),
        ));
    }
    let output_channels = match (shape_out[1], expected.output_channels) {
        (Some(found), Some(wanted)) if found != wanted => {
            return Err(error(
                format!("{found} output channels in the graph"),
                format!("{wanted}, for the labels of the configuration"),
            ));
        }
        (found, wanted) => found.or(wanted).ok_or_else(|| {
            error("no number of output channels", "one, from the graph or from labels")
        })?,
    };
    Ok(Summary { opset, input_channels, output_channels })
}

fn opset(model: &Model, expected: Option<i64>) -> Result<i64, Mismatch> {
    let default = |set: &&OperatorSet| set.domain.is_empty() || set.domain == "ai.onnx";
    let found = model.opset_import.iter().find(default).map(|set| set.version);
    match (found, expected) {
        (None, _) => Err(error("no version of the default operator set", "an opset")),
        (Some(found), Some(expected)) if found != expected => {
            Err(error(format!("opset {found} in the graph"), format!("opset {expected}")))
        }
        (Some(found), _) => Ok(found),
    }
}

fn only<'a>(
    name: &str,
    values: impl Iterator<Item = &'a ValueInfo>,
) -> Result<&'a ValueInfo, Mismatch> {
    let values: Vec<&ValueInfo> = values.collect();
    if let [value] = values[..] {
        return Ok(value);
    }
    let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
    Err(error(format!("graph {name}s {names:?}"), "exactly one"))
}

/// Declared sizes of `[n, c, z, y, x]` (or `[n, c, y, x]`), `None` where dynamic.
fn shape(
    name: &str,
    value: &ValueInfo,
    expected: &Expected,
) -> Result<Vec<Option<usize>>, Mismatch> {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| error(format!("`{name}` that is no tensor"), "a tensor"))?;
    if tensor.elem_type != FLOAT {
        return Err(error(
            format!("`{name}` of ONNX type {}", tensor.elem_type),
            "32-bit floats (type 1)",
        ));
    }
    let dims: Vec<Option<usize>> = tensor.shape.as_ref().map_or_else(Vec::new, |shape| {
        let size = |dim: &Dim| dim.dim_value.and_then(|n| usize::try_from(n).ok());
        shape.dim.iter().map(|dim| size(dim).filter(|&n| n > 0)).collect()
    });
    let patch = &expected.patch_size[usize::from(expected.two_d)..];
    let rank = patch.len() + 2;
    if dims.len() != rank {
        return Err(error(
            format!("`{name}` of {} axes", dims.len()),
            format!("{rank}: batch, channel and {} of space", patch.len()),
        ));
    }
    let fits = |found: Option<usize>, wanted: usize| found.is_none_or(|n| n == wanted);
    if !fits(dims[0], 1) || !dims[2..].iter().zip(patch).all(|(&n, &edge)| fits(n, edge)) {
        let text: Vec<String> =
            dims.iter().map(|d| d.map_or_else(|| "any".to_owned(), |n| n.to_string())).collect();
        return Err(error(
            format!("`{name}` of shape [{}]", text.join(", ")),
            format!("a batch of 1 and the patch {patch:?}, or dynamic axes"),
        ));
    }
    Ok(dims)
}
