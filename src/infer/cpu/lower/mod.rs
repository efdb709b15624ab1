//! From a checked network to a plan.
//!
//! Walks the nodes in order and keeps, for every value, channels of raw tensors to be read through
//! normalization and activation. Most nodes only change that note; the others become steps.

mod reading;

use super::ops::{Pool, Resize, TransposedConv};
use super::plan::{Operation, Place, Plan, PlannedTensor, Read, Step, TensorId};
use crate::infer::{LinearHead, Precision};
use crate::model::Quantization;
use crate::model::network::{self, Extent, Network, Node, Operator, Window};
use fastnnunet_kernels::conv::{
    Arithmetic, ByteCode, Coding, Conv, Format, Layer, Shape, Upsample,
};
use fastnnunet_kernels::{Isa, Layout};
use reading::{Part, View};

struct Lowering<'a> {
    plan: Plan,
    /// What readers of each value have to do; gone once nobody reads it any more.
    values: Vec<Option<View>>,
    arithmetic: Arithmetic,
    /// How tensors are stored that have no measured range.
    format: Format,
    /// Measured ranges, for int8.
    ranges: Option<&'a Quantization>,
    /// The node at hand, by the name that ranges have for it.
    key: String,
    /// Whether it makes the plan's output.
    is_last: bool,
}

/// Numbers as they are stored.
type Storage = (Format, Vec<Coding>);

/// Floats, of what is stored once or is not ours.
const FLOATS: Storage = (Format::F32, Vec::new());

/// Lowers `network`; with `features`, up to the input of its last layer if that is a linear head,
/// which is then returned.
pub(super) fn lower(
    mut network: Network,
    precision: Precision,
    isa: Isa,
    features: bool,
    ranges: Option<&Quantization>,
) -> (Plan, Option<LinearHead>) {
    let head = if features { network.take_head() } else { None };
    let (arithmetic, format) = match precision {
        Precision::Bf16 if isa.has_bf16() => (Arithmetic::Bf16, Format::Bf16),
        _ => (Arithmetic::F32, Format::F32),
    };
    let plan = Plan {
        isa,
        tensors: Vec::new(),
        input: 0,
        output: 0,
        steps: Vec::new(),
        affines: Vec::new(),
        floats: 0,
        scratch: 0,
        moments: 0,
    };
    let mut lowering = Lowering {
        plan,
        values: Vec::new(),
        arithmetic,
        format,
        ranges,
        key: String::new(),
        is_last: false,
    };
    let Extent { channels, dims } = network.input;
    let first = lowering.tensor(channels, dims, dims[2], FLOATS);
    let raw = lowering.raw(first);
    lowering.values.push(Some(raw));
    let (last_reads, keys) = (network.last_reads(), network.keys());
    let Network { nodes, output, .. } = network;
    // Nodes go one by one: packed weights take the place of the graph's, so that both are not held
    // at once.
    for ((at, node), key) in nodes.into_iter().enumerate().zip(keys) {
        let inputs = node.inputs.clone();
        (lowering.key, lowering.is_last) = (key, output == at + 1);
        let view = lowering.node(node);
        lowering.values.push(Some(view));
        for value in inputs {
            if last_reads[value] == at {
                lowering.values[value] = None;
            }
        }
    }
    let view = lowering.view(output);
    lowering.finish(&view);
    (lowering.plan, head.as_ref().map(LinearHead::from))
}

impl Lowering<'_> {
    /// How the node at hand stores what it makes.
    fn storage(&self, channels: usize) -> Storage {
        let ranges = self.ranges.and_then(|ranges| ranges.layers.get(&self.key));
        match ranges.filter(|ranges| ranges.outputs.len() == channels) {
            // The caller wants floats.
            _ if self.is_last => FLOATS,
            Some(ranges) => {
                let coding = |&[center, reach]: &[f32; 2]| {
                    let step = reach / f32::from(i16::MAX);
                    Coding { center, step }
                };
                (Format::I16, ranges.outputs.iter().map(coding).collect())
            }
            None => (self.format, Vec::new()),
        }
    }

    /// How the node at hand makes bytes of each channel of `view`; nothing where it cannot, for
    /// want of ranges or because what is read is not stored as integers.
    fn byte_codes(&self, view: &View) -> Vec<ByteCode> {
        let ranges = self.ranges.and_then(|ranges| ranges.layers.get(&self.key));
        let stored = |part: &Part| self.plan.tensors[part.tensor].format == Format::I16;
        let readable = view.parts.iter().all(|part| stored(part) && part.takes_bytes());
        let Some(ranges) = ranges.filter(|_| readable) else { return Vec::new() };
        if ranges.inputs.len() != self.view_channels(view) {
            return Vec::new();
        }
        let code = |&[low, high]: &[f32; 2]| {
            let step = (high - low) / f32::from(u8::MAX);
            ByteCode { step, zero: (-low / step).round() as u8 }
        };
        ranges.inputs.iter().map(code).collect()
    }

    /// Notes a tensor; `pitch` is the distance from row to row.
    fn tensor(
        &mut self,
        channels: usize,
        dims: [usize; 3],
        pitch: usize,
        (format, codings): Storage,
    ) -> TensorId {
        let layout = Layout::sliced(channels, dims, pitch);
        let place = Place::At(usize::MAX);
        let norms = Vec::new();
        self.plan.tensors.push(PlannedTensor { layout, format, codings, place, norms });
        self.plan.tensors.len() - 1
    }

    fn view(&self, value: usize) -> View {
        let view = self.values.get(value).and_then(Clone::clone);
        view.expect("values are kept until their last reader")
    }

    fn view_channels(&self, view: &View) -> usize {
        view.parts.iter().map(|part| self.channels(part)).sum()
    }

    fn channels(&self, part: &Part) -> usize {
        self.plan.tensors[part.tensor].layout.channels
    }

    /// A tensor as it is.
    fn raw(&self, tensor: TensorId) -> View {
        let layout = self.plan.tensors[tensor].layout;
        View { parts: vec![Part::raw(tensor, layout.channels)], dims: layout.dims }
    }

    fn push(&mut self, name: &str, operation: Operation, operands: &[&View], out: TensorId) {
        let operands: Vec<Vec<Read>> = operands.iter().map(|view| self.reads(view)).collect();
        let layout = self.plan.tensors[out].layout;
        let (scratch, moments) = match &operation {
            Operation::Conv(conv) => (conv.scratch_len(), conv.moments_len()),
            Operation::Upsample(up) => (up.scratch_len(), up.moments_len()),
            _ => (0, 0),
        };
        self.plan.scratch = self.plan.scratch.max(scratch);
        self.plan.moments = self.plan.moments.max(moments).max(layout.dims[0] * layout.channels);
        let key = self.key.clone();
        self.plan.steps.push(Step { name: name.into(), key, operation, operands, out });
    }

    /// A step that makes a tensor of its own with rows as long as its width.
    fn make(
        &mut self,
        name: &str,
        operation: Operation,
        operands: &[&View],
        extent: Extent,
    ) -> View {
        let storage = match &operation {
            Operation::Softmax | Operation::Copy => FLOATS,
            _ => self.storage(extent.channels),
        };
        let out = self.tensor(extent.channels, extent.dims, extent.dims[2], storage);
        self.push(name, operation, operands, out);
        self.raw(out)
    }

    /// The same values, stored as they are read.
    fn stored(&mut self, name: &str, view: &View) -> View {
        let extent = Extent { channels: self.view_channels(view), dims: view.dims };
        self.make(name, Operation::Copy, &[view], extent)
    }

    /// Makes `view` the plan's output and gives tensors their places.
    fn finish(&mut self, view: &View) {
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
                && self.plan.tensors[tensor].format == Format::F32
                && last.is_some_and(|step| !matches!(step.operation, Operation::Softmax))
        });
        self.plan.output = if let Some(tensor) = direct {
            tensor
        } else {
            let out = self.tensor(channels, view.dims, view.dims[2], FLOATS);
            self.push("output", Operation::Copy, &[view], out);
            out
        };
        let output = &mut self.plan.tensors[self.plan.output];
        (output.layout, output.place) = (dense, Place::Output);
        self.plan.place_tensors();
    }

    fn node(&mut self, node: Node) -> View {
        let Node { name, operator, inputs, extent } = node;
        let view = self.view(inputs[0]);
        let name = name.as_str();
        let operation = match operator {
            Operator::Conv(conv) => return self.conv(name, &conv, &view, extent),
            Operator::TransposedConv(conv) => {
                return self.conv_transpose(name, &conv, &view, extent);
            }
            Operator::InstanceNorm { gamma, beta, epsilon } => {
                return self.instance_norm(name, view, (&gamma, &beta), epsilon);
            }
            Operator::Scale { scale, shift } => return self.scale(name, view, &scale, &shift),
            Operator::Rectify { slopes } => return self.rectify(name, view, &slopes),
            Operator::Concat => {
                let views = inputs.iter().map(|&value| self.view(value));
                let parts = views.flat_map(|view| view.parts).collect();
                return View { parts, dims: extent.dims };
            }
            Operator::Add | Operator::Multiply => {
                let right = self.view(inputs[1]);
                let add = matches!(operator, Operator::Add);
                let operation = if add { Operation::Add } else { Operation::Multiply };
                return self.make(name, operation, &[&view, &right], extent);
            }
            Operator::Sigmoid => Operation::Sigmoid,
            Operator::Softmax => Operation::Softmax,
            Operator::GlobalAverage => Operation::GlobalAverage,
            Operator::Pool(kind, window) => {
                let shape = shape(extent, extent, view.dims, window, 1);
                Operation::Pool(Pool { kind, shape })
            }
            Operator::Resize(resize) => {
                Operation::Resize(Resize::new(view.dims, extent.dims, resize))
            }
        };
        self.make(name, operation, &[&view], extent)
    }

    fn conv(&mut self, name: &str, conv: &network::Conv, view: &View, extent: Extent) -> View {
        let inputs = Extent { channels: self.view_channels(view), dims: view.dims };
        let shape = shape(inputs, extent, view.dims, conv.window, conv.groups);
        // One channel cannot be paired, and rounding a head's features shows in the logits.
        let exact = shape.inputs == 1 || shape.groups > 1 || shape.is_pointwise();
        let bytes = if exact { Vec::new() } else { self.byte_codes(view) };
        let arithmetic = if exact { Arithmetic::F32 } else { self.arithmetic(&bytes) };
        let (format, codings) = self.storage(extent.channels);
        let bias = conv.bias.to_vec(extent.channels);
        let layer = Layer {
            bytes: &bytes,
            format,
            codings: &codings,
            ..Layer::new(arithmetic, shape, &conv.weights, &bias)
        };
        let packed = Conv::new(self.plan.isa, &layer);
        let storage = (format, codings);
        let out = self.tensor(extent.channels, extent.dims, packed.pitch(), storage);
        self.push(name, Operation::Conv(Box::new(packed)), &[view], out);
        self.raw(out)
    }

    /// What a layer multiplies in that makes these bytes of its input.
    fn arithmetic(&self, bytes: &[ByteCode]) -> Arithmetic {
        if bytes.is_empty() { self.arithmetic } else { Arithmetic::Int8 }
    }

    fn conv_transpose(
        &mut self,
        name: &str,
        conv: &network::Conv,
        view: &View,
        extent: Extent,
    ) -> View {
        let Window { kernel, stride, dilation, pad_begin, pad_end } = conv.window;
        let bias = conv.bias.to_vec(extent.channels);
        let grows = (0..3).all(|k| extent.dims[k] == view.dims[k] * stride[k]);
        let unpadded = pad_begin == [0; 3] && pad_end == [0; 3] && grows;
        let operation = if kernel == stride && unpadded && dilation == [1; 3] && conv.groups == 1 {
            let bytes = self.byte_codes(view);
            let (format, codings) = self.storage(extent.channels);
            let inputs = self.view_channels(view);
            let shape = Shape::plain(inputs, extent.channels, view.dims, [1; 3]);
            let layer = Layer {
                bytes: &bytes,
                format,
                codings: &codings,
                ..Layer::new(self.arithmetic(&bytes), shape, &conv.weights, &bias)
            };
            Operation::Upsample(Box::new(Upsample::new(self.plan.isa, &layer, stride)))
        } else {
            Operation::TransposedConv(Box::new(TransposedConv {
                inputs: self.view_channels(view),
                outputs: extent.channels,
                groups: conv.groups,
                kernel,
                stride,
                pad_begin,
                dilation,
                weights: conv.weights.to_vec(),
                bias,
            }))
        };
        self.make(name, operation, &[view], extent)
    }
}

/// The kernels' description of a window over `input` voxels.
fn shape(
    inputs: Extent,
    outputs: Extent,
    input: [usize; 3],
    window: Window,
    groups: usize,
) -> Shape {
    let Window { kernel, stride, dilation, pad_begin, pad_end } = window;
    Shape {
        inputs: inputs.channels,
        outputs: outputs.channels,
        groups,
        input,
        kernel,
        stride,
        pad_begin,
        pad_end,
        dilation,
    }
}

#[cfg(test)]
mod tests;
