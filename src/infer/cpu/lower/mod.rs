//! From an ONNX graph to a plan.
//!
//! Walks the nodes in order and keeps, for every value, what a reader has to do: a constant,
//! or channels of raw tensors to be read through normalization and activation. Most nodes only
//! change that note; the others become steps.

mod constants;
mod convs;
mod pointwise;
mod spatial;

use super::plan::{Norm, Operation, Place, Plan, PlannedTensor, Read, Step, TensorId};
use crate::Result;
use crate::infer::invalid;
use crate::infer::{LinearHead, Precision};
use crate::model::onnx::{Graph, Node, Tensor};
use fastnnunet_kernels::conv::Arithmetic;
use fastnnunet_kernels::row::Affine;
use fastnnunet_kernels::{Isa, Layout};
use std::collections::HashMap;
use std::sync::Arc;

/// Most floats a tensor of a plan may have; no patch that fits a machine comes near.
const MAX_FLOATS: usize = 1 << 34;

/// How a tensor's channels are scaled and shifted when read.
#[derive(Clone, Debug)]
enum Scaling {
    /// By constants, one pair per channel.
    Fixed(Vec<(f32, f32)>),
    /// To zero mean and unit variance, then by constants.
    Norm { gamma: Vec<f32>, beta: Vec<f32>, epsilon: f64 },
}

/// All channels of a tensor, and how they are read.
#[derive(Clone, Debug)]
struct Part {
    tensor: TensorId,
    scaling: Scaling,
    /// Factor of negative values per channel; `None` before any activation.
    slopes: Option<Vec<f32>>,
}

/// A value of the graph that depends on the input.
#[derive(Clone, Debug)]
struct View {
    parts: Vec<Part>,
    dims: [usize; 3],
}

#[derive(Clone, Debug)]
enum Value {
    Constant(Arc<Tensor>),
    View(View),
}

struct Lowering<'a> {
    /// Those that nodes to come read: packed weights take the place of the graph's, layer by
    /// layer, so that both are not held at once.
    constants: HashMap<String, Arc<Tensor>>,
    plan: Plan,
    values: HashMap<&'a str, Value>,
    arithmetic: Arithmetic,
    /// Spatial axes of the graph: 2 or 3.
    rank: usize,
}

/// Classes and features of the last layer, if that is a pointwise convolution.
pub(super) fn head_shape(graph: &Graph) -> Option<(usize, usize)> {
    let [output] = &graph.outputs[..] else { return None };
    let last = graph.nodes.iter().find(|node| node.outputs.contains(&output.name))?;
    convs::linear_head(graph, last).map(|head| head.weights.dim())
}

/// Lowers `graph`; with `features`, up to the input of its last layer if that is a pointwise
/// convolution, which is then returned.
pub(super) fn lower(
    mut graph: Graph,
    patch: [usize; 3],
    precision: Precision,
    isa: Isa,
    features: bool,
) -> Result<(Plan, Option<LinearHead>)> {
    let ([input], [output]) = (&graph.inputs[..], &graph.outputs[..]) else {
        let found = format!("{} inputs and {} outputs", graph.inputs.len(), graph.outputs.len());
        return Err(invalid(found, "one of each"));
    };
    let rank = input.dims.len().wrapping_sub(2);
    let wanted = || format!("[batch, channels, ...] that takes one patch of {patch:?} voxels");
    let bad_input =
        || invalid(format!("input {:?} of shape {:?}", input.name, input.dims), wanted());
    let channels = input.dims.get(1).copied().flatten().filter(|&c| (1..=4096).contains(&c));
    let (Some(channels), 2 | 3) = (channels, rank) else { return Err(bad_input()) };
    let fits = (0..rank).all(|k| input.dims[2 + k].is_none_or(|n| n == patch[3 - rank + k]));
    if !fits
        || patch.contains(&0)
        || (rank == 2 && patch[0] != 1)
        || input.dims[0].unwrap_or(1) != 1
    {
        return Err(bad_input());
    }
    let arithmetic = match precision {
        Precision::Bf16 if isa.has_bf16() => Arithmetic::Bf16,
        _ => Arithmetic::F32,
    };
    let plan = Plan {
        isa,
        tensors: Vec::new(),
        input: 0,
        output: 0,
        steps: Vec::new(),
        affines: Vec::new(),
        buffers: Vec::new(),
        scratch: 0,
        moments: 0,
    };
    let mut head = None;
    let mut result: &str = &output.name;
    if features
        && let Some(last) = graph.nodes.iter().find(|node| node.outputs.contains(&output.name))
        && let Some(linear) = convs::linear_head(&graph, last)
    {
        head = Some(linear);
        result = &last.inputs[0];
    }
    let constants = std::mem::take(&mut graph.constants);
    let constants = constants.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))).collect();
    let (input, output, nodes) = (&graph.inputs[0], &graph.outputs[0], &graph.nodes);
    let mut lowering = Lowering { constants, plan, values: HashMap::new(), arithmetic, rank };
    let first = lowering.tensor(channels, patch, patch[2])?;
    lowering.values.insert(&input.name, Value::View(lowering.raw(first)));
    let mut readers: HashMap<&str, usize> = HashMap::new();
    nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .for_each(|name| *readers.entry(name).or_default() += 1);
    for node in nodes {
        if node.outputs.contains(&output.name) && head.is_some() {
            break;
        }
        lowering.node(node)?;
        for name in &node.inputs {
            let left = readers.entry(name).or_default();
            *left -= 1;
            if *left == 0 {
                lowering.constants.remove(name.as_str());
                if name != result {
                    lowering.values.remove(name.as_str());
                }
            }
        }
    }
    let view = match lowering.values.get(result) {
        Some(Value::View(view)) => view.clone(),
        _ => {
            return Err(invalid(format!("output {result:?}"), "a value that depends on the input"));
        }
    };
    if view.dims != patch {
        return Err(invalid(format!("an output of {:?} voxels", view.dims), format!("{patch:?}")));
    }
    lowering.finish(&view)?;
    Ok((lowering.plan, head))
}

impl<'a> Lowering<'a> {
    /// Notes a tensor; `pitch` is the distance from row to row.
    fn tensor(&mut self, channels: usize, dims: [usize; 3], pitch: usize) -> Result<TensorId> {
        let floats = [dims[0], dims[1] + 16, pitch + 16]
            .iter()
            .try_fold(channels, |product, &n| product.checked_mul(n));
        if floats.is_none_or(|n| n > MAX_FLOATS) {
            let found = format!("a value of {channels} channels of {dims:?} voxels");
            return Err(invalid(found, format!("at most {MAX_FLOATS} numbers")));
        }
        let layout = Layout::sliced(channels, dims, pitch);
        let place = Place::Buffer(usize::MAX);
        self.plan.tensors.push(PlannedTensor { layout, place, norms: Vec::new() });
        Ok(self.plan.tensors.len() - 1)
    }

    fn channels(&self, part: &Part) -> usize {
        self.plan.tensors[part.tensor].layout.channels
    }

    fn view_channels(&self, view: &View) -> usize {
        view.parts.iter().map(|part| self.channels(part)).sum()
    }

    /// A tensor as it is.
    fn raw(&self, tensor: TensorId) -> View {
        let layout = self.plan.tensors[tensor].layout;
        let scaling = Scaling::Fixed(vec![(1.0, 0.0); layout.channels]);
        View { parts: vec![Part { tensor, scaling, slopes: None }], dims: layout.dims }
    }

    /// Entries of the plan through which a step reads `view`.
    fn reads(&mut self, view: &View) -> Vec<Read> {
        let mut reads = Vec::new();
        for part in &view.parts {
            let channels = self.channels(part);
            let start = self.plan.affines.len();
            let slope = |c: usize| part.slopes.as_ref().map_or(1.0, |slopes| slopes[c]);
            for c in 0..channels {
                let (scale, shift) = match &part.scaling {
                    Scaling::Fixed(pairs) => pairs[c],
                    Scaling::Norm { .. } => (1.0, 0.0),
                };
                self.plan.affines.push(Affine { scale, shift, slope: slope(c) });
            }
            let affines = start..start + channels;
            if let Scaling::Norm { gamma, beta, epsilon } = &part.scaling {
                self.plan.tensors[part.tensor].norms.push(Norm {
                    affines: affines.clone(),
                    gamma: gamma.clone(),
                    beta: beta.clone(),
                    epsilon: *epsilon,
                });
            }
            reads.push(Read { tensor: part.tensor, affines });
        }
        reads
    }

    fn push(&mut self, name: &str, operation: Operation, operands: &[&View], out: TensorId) {
        let operands = operands.iter().map(|view| self.reads(view)).collect();
        let layout = self.plan.tensors[out].layout;
        let (scratch, moments) = match &operation {
            Operation::Conv(conv) => (conv.scratch_len(), conv.moments_len()),
            Operation::Upsample(up) => (up.scratch_len(), 0),
            _ => (0, 0),
        };
        self.plan.scratch = self.plan.scratch.max(scratch);
        self.plan.moments = self.plan.moments.max(moments).max(layout.dims[0] * layout.channels);
        self.plan.steps.push(Step { name: name.into(), operation, operands, out });
    }

    /// A step that makes a tensor of its own with rows as long as its width.
    fn make(
        &mut self,
        node: &str,
        operation: Operation,
        operands: &[&View],
        (channels, dims): (usize, [usize; 3]),
    ) -> Result<View> {
        let out = self.tensor(channels, dims, dims[2])?;
        self.push(node, operation, operands, out);
        Ok(self.raw(out))
    }

    /// The same values, stored as they are read.
    fn stored(&mut self, node: &str, view: &View) -> Result<View> {
        let channels = self.view_channels(view);
        self.make(node, Operation::Copy, &[view], (channels, view.dims))
    }

    /// Makes `view` the plan's output and assigns buffers.
    fn finish(&mut self, view: &View) -> Result<()> {
        let channels = self.view_channels(view);
        let dense = Layout::dense(channels, view.dims);
        let read_by =
            |tensor: TensorId| self.plan.steps.iter().any(|s| s.reads().any(|t| t == tensor));
        let direct = match &view.parts[..] {
            [part] if part.is_raw() && !read_by(part.tensor) => Some(part.tensor),
            _ => None,
        };
        // The last step writes to the caller's array where it can: not with a pitch, and not
        // over channels of a slice.
        let direct = direct.filter(|&tensor| {
            let last = self.plan.steps.last().filter(|step| step.out == tensor);
            self.plan.tensors[tensor].layout.pitch == view.dims[2]
                && last.is_some_and(|step| !matches!(step.operation, Operation::Softmax))
        });
        self.plan.output = if let Some(tensor) = direct {
            tensor
        } else {
            let out = self.tensor(channels, view.dims, view.dims[2])?;
            self.push("output", Operation::Copy, &[view], out);
            out
        };
        let output = &mut self.plan.tensors[self.plan.output];
        (output.layout, output.place) = (dense, Place::Output);
        self.plan.assign_buffers();
        Ok(())
    }

    /// The value called `name`.
    fn value(&self, node: &Node, name: &str) -> Result<Value> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        let constant = self.constants.get(name).cloned().map(Value::Constant);
        constant.ok_or_else(|| bad(node, format!("{name:?}, which no step made"), "a known value"))
    }

    /// Input `k` as a value that depends on the input.
    fn view(&self, node: &Node, k: usize) -> Result<View> {
        let Some(name) = node.input(k) else {
            return Err(bad(node, format!("no input {k}"), "one"));
        };
        match self.value(node, name)? {
            Value::View(view) => Ok(view),
            Value::Constant(_) => Err(bad(node, format!("constant {name:?}"), "an activation")),
        }
    }

    /// Input `k` as real constants, if it is there.
    fn floats(&self, node: &Node, k: usize) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some(tensor) = self.constant(node, k)? else { return Ok(None) };
        match tensor.floats() {
            Some(floats) => Ok(Some((tensor.dims.clone(), floats.to_vec()))),
            None => Err(bad(node, format!("integers as input {k}"), "real numbers")),
        }
    }

    /// Input `k` as a constant, if it is there.
    fn constant(&self, node: &Node, k: usize) -> Result<Option<Arc<Tensor>>> {
        let Some(name) = node.input(k) else { return Ok(None) };
        match self.value(node, name)? {
            Value::Constant(tensor) => Ok(Some(tensor)),
            Value::View(_) => Err(bad(node, format!("computed values as input {k}"), "constants")),
        }
    }

    /// Lowers one node.
    fn node(&mut self, node: &'a Node) -> Result<()> {
        let value = match constants::fold(self, node)? {
            Some(tensor) => Value::Constant(tensor),
            None => Value::View(self.operator(node)?),
        };
        if let Some(name) = node.outputs.first() {
            self.values.insert(name, value);
        }
        Ok(())
    }

    fn operator(&mut self, node: &Node) -> Result<View> {
        match node.op.as_str() {
            "Conv" => self.conv(node),
            "ConvTranspose" => self.conv_transpose(node),
            "InstanceNormalization" => self.instance_norm(node),
            "BatchNormalization" => self.batch_norm(node),
            "LeakyRelu" => self.rectify(node, node.float("alpha").unwrap_or(0.01)),
            "Relu" => self.rectify(node, 0.0),
            "PRelu" => self.prelu(node),
            "Sigmoid" => self.sigmoid(node),
            "Softmax" => self.softmax(node),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node),
            "Concat" => self.concat(node),
            "AveragePool" | "MaxPool" => self.pool(node),
            "GlobalAveragePool" => self.global_pool(node),
            "Resize" => self.resize(node),
            "Identity" | "Dropout" => self.view(node, 0),
            "Cast" => self.cast(node),
            "Reshape" => self.reshape(node),
            _ => Err(bad(node, "an operator that is not supported", "one of docs/models.md")),
        }
    }
}

impl Part {
    /// Whether reading is copying.
    fn is_raw(&self) -> bool {
        let identity = |pair: &(f32, f32)| *pair == (1.0, 0.0);
        self.slopes.is_none()
            && matches!(&self.scaling, Scaling::Fixed(pairs) if pairs.iter().all(identity))
    }
}

/// An error that names the node and its operator.
fn bad(node: &Node, found: impl std::fmt::Display, expected: impl Into<String>) -> crate::Error {
    invalid(format!("{found} (node {:?}, operator {:?})", node.name, node.op), expected)
}

#[cfg(test)]
mod tests;
