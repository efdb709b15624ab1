//! Walks a graph's nodes in order and keeps, for every name, a constant or the value it stands for.

use super::{Extent, FREE_WORK, MOST_AGAIN};
use super::{MAX_FOLDED, MAX_NODES, MAX_NUMBERS, MAX_PARTS, MAX_PER_CHANNEL};
use super::{Network, Node, Operator};
use super::{PerChannel, Weights, constants};
use crate::Mismatch;
use crate::onnx::{self, Graph, Tensor};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
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
    /// Channels that all nodes so far read and make.
    per_channel: usize,
    /// Elements of all constants that were computed.
    folded: usize,
    /// Constants that were found to be finite, by where they are: a file may use one any number of
    /// times.
    finite: RefCell<HashSet<*const Tensor>>,
    work: Work,
    /// For each value, how many others lie side by side in it once concatenations are undone.
    parts: Vec<usize>,
}

/// A sentence that names the node and its operator.
pub(super) fn bad(node: &onnx::Node, found: impl Display, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(format!("{found} (node {:?}, operator {:?})", node.name, node.op), expected)
}

/// A real attribute, if it is a number.
pub(super) fn real(node: &onnx::Node, name: &str, usual: f32) -> Result<f32> {
    let value = node.float(name).unwrap_or(usual);
    if value.is_finite() {
        return Ok(value);
    }
    Err(bad(node, format!("{name} {value}"), "a finite number"))
}

/// Added to a variance: what keeps its root from being none.
pub(super) fn epsilon(node: &onnx::Node) -> Result<f64> {
    let epsilon = real(node, "epsilon", 1e-5)?;
    if epsilon >= 0.0 {
        return Ok(f64::from(epsilon));
    }
    Err(bad(node, format!("epsilon {epsilon}"), "at least 0"))
}

/// Computed constants, if they are finite.
pub(super) fn each(node: &onnx::Node, values: impl Iterator<Item = f32>) -> Result<PerChannel> {
    let values: Arc<[f32]> = values.collect();
    if values.iter().all(|v| v.is_finite()) {
        return Ok(PerChannel::Each(values));
    }
    Err(bad(node, "constants that make factors which are not finite", "others"))
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
    let mut reader = Reader {
        names,
        constants,
        network,
        rank,
        per_channel: 0,
        folded: 0,
        finite: RefCell::default(),
        work: Work::default(),
        parts: vec![1],
    };
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(|node| &node.inputs);
    read.for_each(|name| *readers.entry(name).or_default() += 1);
    for node in &graph.nodes {
        let made = match constants::fold(&reader, node)? {
            Some(tensor) => {
                reader.count_folded(node, &tensor)?;
                Named::Constant(tensor)
            }
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

/// How much is computed: with weights of its own, and without or with those of a node before.
#[derive(Default)]
struct Work {
    own: u64,
    again: u64,
    known: HashSet<*const Tensor>,
}

impl Work {
    /// Counts a node that makes a value of `numbers` numbers of `read` numbers.
    fn add(&mut self, operator: &Operator, numbers: u64, read: u64) {
        let (weights, work) = match operator {
            Operator::Conv(conv) | Operator::TransposedConv(conv) => {
                let places = if matches!(operator, Operator::Conv(_)) { numbers } else { read };
                let channels = conv.weights.dims()[0].max(1) as u64;
                let each = conv.weights.len() as u64 / channels;
                (Some(Arc::as_ptr(&conv.weights.0)), places.saturating_mul(each))
            }
            Operator::Pool(_, window) => {
                let taps: u64 = window.kernel.iter().map(|&n| n as u64).product();
                (None, numbers.saturating_mul(taps))
            }
            Operator::Concat => (None, 0),
            // An exponential costs about as much as so many multiplications.
            Operator::Sigmoid | Operator::Softmax => (None, numbers.saturating_mul(16)),
            _ => (None, read.saturating_add(numbers)),
        };
        let is_new = weights.is_some_and(|weights| self.known.insert(weights));
        let sum = if is_new { &mut self.own } else { &mut self.again };
        *sum = sum.saturating_add(work);
    }

    /// Whether a small file asks for much.
    fn is_excessive(&self) -> bool {
        self.again > self.own.saturating_mul(MOST_AGAIN).saturating_add(FREE_WORK)
    }
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
        // An engine keeps a few numbers for every channel that is read or made.
        let read = inputs.iter().map(|&value| self.extent(value).channels).sum::<usize>();
        self.per_channel = self.per_channel.saturating_add(read).saturating_add(extent.channels);
        if self.per_channel > MAX_PER_CHANNEL {
            let found = format!("{} channels read and made by all nodes", self.per_channel);
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
        let read = inputs.iter().map(|&value| {
            let Extent { channels, dims } = self.extent(value);
            dims.iter().fold(channels as u64, |all, &n| all.saturating_mul(n as u64))
        });
        self.work.add(&operator, numbers.unwrap_or(0) as u64, read.sum());
        if self.work.is_excessive() {
            let found = format!(
                "{} operations without weights of their own, beside {} with",
                self.work.again, self.work.own
            );
            return Err(bad(node, found, format!("at most {MOST_AGAIN} times as many")));
        }
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
        let place = Arc::as_ptr(&weights.0);
        if self.finite.borrow().contains(&place) {
            return Ok(Some(weights));
        }
        if weights.iter().any(|v| !v.is_finite()) {
            let name = node.input(k).unwrap_or_default();
            return Err(bad(node, format!("weights {name:?} that are not finite"), "numbers"));
        }
        self.finite.borrow_mut().insert(place);
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

    /// Counts what folding added: a short node makes a long list of two others.
    fn count_folded(&mut self, node: &onnx::Node, tensor: &Tensor) -> Result<()> {
        self.folded += tensor.len().min(constants::MAX_LEN);
        if self.folded > MAX_FOLDED {
            let found = format!("{} numbers computed of constants", self.folded);
            return Err(bad(node, found, format!("at most {MAX_FOLDED}")));
        }
        Ok(())
    }

    fn operator(&mut self, node: &'a onnx::Node) -> Result<usize> {
        match node.op.as_str() {
            "Conv" => self.conv(node),
            "ConvTranspose" => self.conv_transpose(node),
            "InstanceNormalization" => self.instance_norm(node),
            "BatchNormalization" => self.batch_norm(node),
            "LeakyRelu" => self.rectify(node, real(node, "alpha", 0.01)?),
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
