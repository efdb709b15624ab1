//! An ONNX file as structures, and the check that it is a network this program can run.
//!
//! Bytes of a file enter; a [`Model`] that passed [`check`] leaves, or a [`Mismatch`] that
//! says which operator and node is in the way. Weights are slices of the file's own bytes.
//! The build script runs this check too, so what would fail at run time fails the build.

use crate::Mismatch;
use crate::proto::{Dim, Graph, Model, Node, OperatorSet, Tensor, ValueInfo};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// What the caller already knows about a network and the graph has to agree with.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
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
    /// The ONNX operators the engines run.
    pub operators: &'a [&'a str],
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
/// ONNX's number for 64-bit integers.
const INT64: i32 = 7;
/// ONNX's mark for weights kept in another file.
const EXTERNAL: i32 = 1;

fn error(found: impl Into<String>, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(found, expected)
}

/// Reads an ONNX file without looking at what the graph means.
///
/// # Errors
///
/// [`Mismatch`] if the bytes are empty, cut off or no ONNX model.
pub fn parse(file: Bytes) -> Result<Model, Mismatch> {
    if file.is_empty() {
        return Err(error("an empty file", "an ONNX model"));
    }
    let bytes = file.len();
    Model::decode(file)
        .map_err(|e| error(format!("{bytes} bytes that do not decode ({e})"), "a whole ONNX model"))
}

/// Checks that a model is one network of the expected kind.
///
/// # Errors
///
/// [`Mismatch`] with the operator and node in the way, or the tensor that does not fit.
pub fn check(model: &Model, expected: &Expected<'_>) -> Result<Summary, Mismatch> {
    let graph = model.graph.as_ref().filter(|graph| !graph.node.is_empty());
    let graph = graph.ok_or_else(|| error("no graph", "an ONNX model with a network in it"))?;
    let opset = opset(model, expected.opset)?;
    for node in &graph.node {
        let default_domain = node.domain.is_empty() || node.domain == "ai.onnx";
        if !default_domain || !expected.operators.contains(&node.op_type.as_str()) {
            let domain = if default_domain { String::new() } else { format!("{}::", node.domain) };
            return Err(error(
                format!("operator {domain}{} (node `{}`)", node.op_type, node.label()),
                format!("one of {}", expected.operators.join(", ")),
            ));
        }
    }
    let weights = weights(graph)?;
    let inputs = graph.input.iter().filter(|value| !weights.contains_key(value.name.as_str()));
    let input = only("input", inputs)?;
    let output = only("output", graph.output.iter())?;
    connected(graph, &weights)?;
    attributes(graph, &weights, if expected.two_d { 2 } else { 3 })?;
    let shape_in = shape("input", input, expected)?;
    let shape_out = shape("output", output, expected)?;

    let input_channels = match (shape_in[1], first_conv_channels(graph, &weights)) {
        (Some(n), Some(m)) if n != m => {
            return Err(error(
                format!("an input of {n} channels and a first convolution of {m}"),
                "the same number",
            ));
        }
        (n, m) => n.or(m).unwrap_or(expected.input_channels),
    };
    if input_channels != expected.input_channels {
        return Err(error(
            format!("{input_channels} input channels in the graph"),
            format!("{}, as the configuration says", expected.input_channels),
        ));
    }
    let produced = produced_channels(graph, &weights, "output");
    let output_channels = match (shape_out[1], produced, expected.output_channels) {
        (Some(n), Some(m), _) if n != m => {
            return Err(error(
                format!("an output declared with {n} channels and computed with {m}"),
                "the same number",
            ));
        }
        (n, m, configured) => n.or(m).or(configured).ok_or_else(|| {
            error("no number of output channels", "one, from the graph or from labels")
        })?,
    };
    if let Some(configured) = expected.output_channels
        && configured != output_channels
    {
        return Err(error(
            format!("{output_channels} output channels in the graph"),
            format!("{configured}, for the labels of the configuration"),
        ));
    }
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

/// Weights by name, each complete and inside the file.
fn weights(graph: &Graph) -> Result<HashMap<&str, &Tensor>, Mismatch> {
    let mut weights = HashMap::new();
    for tensor in &graph.initializer {
        let name = tensor.name.as_str();
        if tensor.data_location == EXTERNAL {
            return Err(error(
                format!("weights `{name}` in another file"),
                "weights inside the ONNX file",
            ));
        }
        if tensor.data_type != FLOAT && tensor.data_type != INT64 {
            return Err(error(
                format!("weights `{name}` of ONNX type {}", tensor.data_type),
                "32-bit floats (type 1)",
            ));
        }
        let (width, typed) = if tensor.data_type == FLOAT {
            (4, tensor.float_data.len())
        } else {
            (8, tensor.int64_data.len())
        };
        let count =
            tensor.dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let held = if tensor.raw_data.is_empty() { typed } else { tensor.raw_data.len() / width };
        if count != Some(held) {
            return Err(error(
                format!("weights `{name}` with {held} values"),
                format!("the product of {:?}", tensor.dims),
            ));
        }
        if weights.insert(name, tensor).is_some() {
            return Err(error(format!("weights `{name}` twice"), "each once"));
        }
    }
    Ok(weights)
}

fn only<'a>(
    name: &str,
    values: impl Iterator<Item = &'a ValueInfo>,
) -> Result<&'a ValueInfo, Mismatch> {
    let values: Vec<&ValueInfo> = values.collect();
    if let [value] = values[..]
        && value.name == name
    {
        return Ok(value);
    }
    let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
    Err(error(format!("graph {name}s {names:?}"), format!("exactly one, called `{name}`")))
}

/// Every value a node reads is a weight, the input, or the result of an earlier node.
fn connected(graph: &Graph, weights: &HashMap<&str, &Tensor>) -> Result<(), Mismatch> {
    let mut known: HashSet<&str> = weights.keys().copied().collect();
    known.insert("input");
    for node in &graph.node {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if !known.contains(input.as_str()) {
                return Err(error(
                    format!("{} (node `{}`) reading `{input}`", node.op_type, node.label()),
                    "a weight or the result of an earlier node",
                ));
            }
        }
        for output in &node.output {
            if !known.insert(output) {
                return Err(error(format!("value `{output}` twice"), "each computed once"));
            }
        }
    }
    if known.contains("output") {
        return Ok(());
    }
    Err(error("no node that computes `output`", "one"))
}

/// Convolutions have the network's rank, stored weights and symmetric padding.
fn attributes(
    graph: &Graph,
    weights: &HashMap<&str, &Tensor>,
    rank: usize,
) -> Result<(), Mismatch> {
    for node in graph.node.iter().filter(|n| n.op_type.starts_with("Conv")) {
        let at = format!("{} (node `{}`)", node.op_type, node.label());
        let kernel = node.input.get(1).and_then(|name| weights.get(name.as_str()));
        let kernel = kernel.ok_or_else(|| error(format!("{at} without stored weights"), "them"))?;
        if kernel.dims.len() != rank + 2 {
            return Err(error(
                format!("{at} with weights of shape {:?}", kernel.dims),
                format!("a {rank}-D convolution"),
            ));
        }
        let pads = node.ints("pads").unwrap_or_default();
        let half = pads.len() / 2;
        if pads[..half] != pads[half..] {
            return Err(error(format!("{at} with pads {pads:?}"), "the same padding at both ends"));
        }
    }
    Ok(())
}

/// Declared sizes of `[n, c, z, y, x]` (or `[n, c, y, x]`), `None` where dynamic.
fn shape(
    name: &str,
    value: &ValueInfo,
    expected: &Expected<'_>,
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

/// Input channels of the convolution that reads the input.
fn first_conv_channels(graph: &Graph, weights: &HashMap<&str, &Tensor>) -> Option<usize> {
    let first = |n: &&Node| n.op_type == "Conv" && n.input.first().is_some_and(|i| i == "input");
    let node = graph.node.iter().find(first)?;
    let per_group = weights.get(node.input.get(1)?.as_str())?.dims.get(1)?;
    usize::try_from(per_group.checked_mul(node.int("group").unwrap_or(1))?).ok()
}

/// Channels of a value, following operators that keep them back to a convolution.
fn produced_channels(
    graph: &Graph,
    weights: &HashMap<&str, &Tensor>,
    value: &str,
) -> Option<usize> {
    let mut name = value;
    // Values are computed once and in order, so every step goes back and this ends.
    loop {
        let node = graph.node.iter().find(|n| n.output.iter().any(|o| o == name))?;
        let kernel = || Some(&weights.get(node.input.get(1)?.as_str())?.dims);
        let channels = match node.op_type.as_str() {
            "Conv" => *kernel()?.first()?,
            "ConvTranspose" => kernel()?.get(1)?.checked_mul(node.int("group").unwrap_or(1))?,
            "Identity" | "InstanceNormalization" | "LeakyRelu" | "Relu" | "Sigmoid" => {
                name = node.input.first()?;
                continue;
            }
            _ => return None,
        };
        return usize::try_from(channels).ok();
    }
}
