//! Walks a graph's nodes in order and keeps, for every name, a constant or the value it stands for.

use super::{Extent, MAX_NODES, MAX_NUMBERS, MAX_PARTS, MAX_PER_CHANNEL};
use super::{Network, Node, Operator};
use super::{PerChannel, Weights, constants};
use crate::Mismatch;
use crate::onnx::{self, Graph, Tensor};
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

pub(super) type Result<T> = std::result::Result<T, Mismatch>;

/// What a name of the graph stands for.
#[derive(Clone, Debug)]
pub(super) enum Named {
    Constant(Arc<Tensor>),
    Value(usize),
}

pub(super) struct Reader<'a> {
    names: HashMap<&'a str, Named>,
    /// Those that nodes to come read, so that what nobody reads any more is freed.
    constants: HashMap<String, Arc<Tensor>>,
    network: Network,
    /// Spatial axes of the graph: 2 or 3.
    pub(super) rank: usize,
    /// Numbers per channel of all nodes so far.
    per_channel: usize,
    /// For each value, how many others lie side by side in it once concatenations are undone.
    parts: Vec<usize>,
}

/// A sentence that names the node and its operator.
pub(super) fn bad(node: &onnx::Node, found: impl Display, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(format!("{found} (node {:?}, operator {:?})", node.name, node.op), expected)
}

/// See [`Network::new`].
pub(super) fn network(mut graph: Graph, patch: [usize; 3]) -> Result<Network> {
    let constants = std::mem::take(&mut graph.constants);
    let constants = constants.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))).collect();
    let ([input], [output]) = (&graph.inputs[..], &graph.outputs[..]) else {
        let found = format!("{} inputs and {} outputs", graph.inputs.len(), graph.outputs.len());
        return Err(Mismatch::new(found, "one of each"));
    };
    let extent = input_extent(input, patch)?;
    if graph.nodes.len() > MAX_NODES {
        return Err(Mismatch::new(
            format!("{} nodes", graph.nodes.len()),
            format!("at most {MAX_NODES}"),
        ));
    }
    let network = Network { input: extent, nodes: Vec::new(), output: 0 };
    let names = HashMap::from([(input.name.as_str(), Named::Value(0))]);
    let rank = input.dims.len() - 2;
    let mut reader = Reader { names, constants, network, rank, per_channel: 0, parts: vec![1] };
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(|node| &node.inputs);
    read.for_each(|name| *readers.entry(name).or_default() += 1);
    for node in &graph.nodes {
        let made = match constants::fold(&reader, node)? {
            Some(tensor) => Named::Constant(tensor),
            None => Named::Value(reader.operator(node)?),
        };
        if let Some(name) = node.outputs.first() {
            reader.names.insert(name, made);
        }
        for name in &node.inputs {
            let left = readers.entry(name).or_default();
            *left -= 1;
            if *left == 0 {
                reader.constants.remove(name.as_str());
            }
        }
    }
    let Some(Named::Value(value)) = reader.names.get(output.name.as_str()) else {
        let found = format!("output {:?}", output.name);
        return Err(Mismatch::new(found, "a value that depends on the input"));
    };
    reader.network.output = *value;
    let found = reader.network.extent(*value);
    if found.dims != patch {
        return Err(Mismatch::new(
            format!("an output of {:?} voxels", found.dims),
            format!("{patch:?}"),
        ));
    }
    Ok(reader.network)
}

fn input_extent(input: &onnx::Port, patch: [usize; 3]) -> Result<Extent> {
    let rank = input.dims.len().wrapping_sub(2);
    let channels = input.dims.get(1).copied().flatten().filter(|&c| (1..=4096).contains(&c));
    let fits = |rank: usize| {
        (0..rank).all(|k| input.dims[2 + k].is_none_or(|n| n == patch[3 - rank + k]))
            && !patch.contains(&0)
            && patch
                .iter()
                .try_fold(1, |all: usize, &n| all.checked_mul(n))
                .is_some_and(|n| n <= MAX_NUMBERS)
            && (rank == 3 || patch[0] == 1)
            && input.dims[0].unwrap_or(1) == 1
    };
    match (channels, rank) {
        (Some(channels), 2 | 3) if fits(rank) => Ok(Extent { channels, dims: patch }),
        _ => Err(Mismatch::new(
            format!("input {:?} of shape {:?}", input.name, input.dims),
            format!("[batch, channels, ...] that takes one patch of {patch:?} voxels"),
        )),
    }
}

impl<'a> Reader<'a> {
    /// Adds an operator that makes a value of `extent`; the value.
    pub(super) fn add(
        &mut self,
        node: &onnx::Node,
        operator: Operator,
        inputs: Vec<usize>,
        extent: Extent,
    ) -> Result<usize> {
        let numbers = extent.dims.iter().try_fold(extent.channels, |all, &n| all.checked_mul(n));
        if numbers.is_none_or(|n| n > MAX_NUMBERS) {
            let Extent { channels, dims } = extent;
            let found = format!("a value of {channels} channels of {dims:?} voxels");
            return Err(bad(node, found, format!("at most {MAX_NUMBERS} numbers")));
        }
        // An engine keeps a few numbers for every channel that is read.
        let read = inputs.iter().map(|&value| self.extent(value).channels).sum::<usize>();
        self.per_channel = self.per_channel.saturating_add(read);
        if self.per_channel > MAX_PER_CHANNEL {
            let found = format!("{} channels read by all nodes", self.per_channel);
            return Err(bad(node, found, format!("at most {MAX_PER_CHANNEL}")));
        }
        // Names may repeat, so a small file could join values any number of times.
        let parts = match &operator {
            Operator::Concat => inputs.iter().map(|&value| self.parts[value]).sum(),
            Operator::InstanceNorm { .. } | Operator::Scale { .. } | Operator::Rectify { .. } => {
                self.parts[inputs[0]]
            }
            _ => 1,
        };
        if parts > MAX_PARTS {
            let found = format!("{parts} values side by side");
            return Err(bad(node, found, format!("at most {MAX_PARTS}")));
        }
        self.parts.push(parts);
        let name = node.name.clone();
        self.network.nodes.push(Node { name, operator, inputs, extent });
        Ok(self.network.nodes.len())
    }

    pub(super) fn extent(&self, value: usize) -> Extent {
        self.network.extent(value)
    }

    /// What `name` stands for.
    pub(super) fn named(&self, node: &onnx::Node, name: &str) -> Result<Named> {
        if let Some(named) = self.names.get(name) {
            return Ok(named.clone());
        }
        let constant = self.constants.get(name).cloned().map(Named::Constant);
        constant.ok_or_else(|| bad(node, format!("{name:?}, which no step made"), "a known value"))
    }

    /// Input `k` as a value that depends on the input.
    pub(super) fn value(&self, node: &onnx::Node, k: usize) -> Result<usize> {
        let Some(name) = node.input(k) else {
            return Err(bad(node, format!("no input {k}"), "one"));
        };
        match self.named(node, name)? {
            Named::Value(value) => Ok(value),
            Named::Constant(_) => Err(bad(node, format!("constant {name:?}"), "an activation")),
        }
    }

    /// Input `k` as a constant, if it is there.
    pub(super) fn constant(&self, node: &onnx::Node, k: usize) -> Result<Option<Arc<Tensor>>> {
        let Some(name) = node.input(k) else { return Ok(None) };
        match self.named(node, name)? {
            Named::Constant(tensor) => Ok(Some(tensor)),
            Named::Value(_) => Err(bad(node, format!("computed values as input {k}"), "constants")),
        }
    }

    /// Input `k` as real constants, if it is there.
    pub(super) fn weights(&self, node: &onnx::Node, k: usize) -> Result<Option<Weights>> {
        let Some(tensor) = self.constant(node, k)? else { return Ok(None) };
        let weights = Weights::new(tensor);
        let integers = || bad(node, format!("integers as input {k}"), "real numbers");
        let weights = weights.ok_or_else(integers)?;
        if weights.iter().any(|v| !v.is_finite()) {
            let name = node.input(k).unwrap_or_default();
            return Err(bad(node, format!("weights {name:?} that are not finite"), "numbers"));
        }
        Ok(Some(weights))
    }

    /// One number for each of `channels`, from input `k`.
    pub(super) fn vector(
        &self,
        node: &onnx::Node,
        k: usize,
        channels: usize,
    ) -> Result<PerChannel> {
        match self.weights(node, k)? {
            Some(values) if values.len() == channels => Ok(PerChannel::Constant(values)),
            _ => Err(bad(node, format!("input {k}"), format!("{channels} constants"))),
        }
    }

    fn operator(&mut self, node: &'a onnx::Node) -> Result<usize> {
        match node.op.as_str() {
            "Conv" => self.conv(node),
            "ConvTranspose" => self.conv_transpose(node),
            "InstanceNormalization" => self.instance_norm(node),
            "BatchNormalization" => self.batch_norm(node),
            "LeakyRelu" => self.rectify(node, node.float("alpha").unwrap_or(0.01)),
            "Relu" => self.rectify(node, 0.0),
            "PRelu" => self.prelu(node),
            "Sigmoid" => self.alike(node, Operator::Sigmoid),
            "Softmax" => self.softmax(node),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node),
            "Concat" => self.concat(node),
            "AveragePool" | "MaxPool" => self.pool(node),
            "GlobalAveragePool" => self.global_pool(node),
            "Resize" => self.resize(node),
            "Identity" | "Dropout" => self.value(node, 0),
            "Cast" => self.cast(node),
            "Reshape" => self.reshape(node),
            _ => Err(bad(node, "an operator that is not supported", "one of docs/models.md")),
        }
    }
}
