//! A network as every engine runs it: typed operators with the shape of what they make.
//!
//! A [`Graph`] and a patch enter; a [`Network`] leaves that was checked whole, its last layer too, or
//! a [`Mismatch`] that names the node. Arithmetic on shapes is folded, and what changes nothing is
//! left out. Weights are shared with the graph's constants, however many nodes use them.

mod constants;
pub mod fused;
mod pointwise;
mod read;
mod windows;

#[cfg(test)]
mod tests;

use crate::Mismatch;
use crate::onnx::{Graph, Tensor};
use std::sync::Arc;

/// Most numbers a value may have; no patch that fits a machine comes near.
const MAX_NUMBERS: usize = 1 << 34;

/// Most nodes of a network; the largest that people train have some hundred.
const MAX_NODES: usize = 1 << 16;

/// Most channels that all nodes together may read and make: an engine keeps numbers for each, and a
/// file of a few bytes can ask for any.
const MAX_PER_CHANNEL: usize = 1 << 22;

/// Most numbers computed of constants; shapes are a handful.
const MAX_FOLDED: usize = 1 << 20;

/// How often the work that a network's weights do may be done again without weights of their own, by
/// nodes that have none or share them: activations are cheap beside convolutions.
const MOST_AGAIN: u64 = 16;

/// Operations that are no matter: about a second.
const FREE_WORK: u64 = 1 << 31;

/// Most values that lie side by side in a concatenation.
const MAX_PARTS: usize = 4096;

/// A checked network for one patch.
#[derive(Clone, Debug)]
pub struct Network {
    /// What enters: value 0.
    pub input: Extent,
    /// The operators in computing order; node `k` makes value `k + 1`.
    pub nodes: Vec<Node>,
    /// The value that leaves.
    pub output: usize,
}

/// Size of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Channels.
    pub channels: usize,
    /// Voxels, `[z, y, x]`; z = 1 in a two-dimensional network.
    pub dims: [usize; 3],
}

impl Extent {
    /// Voxels of one channel.
    #[must_use]
    pub fn voxels(&self) -> usize {
        self.dims.iter().product()
    }
}

/// One operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name in the graph.
    pub name: String,
    /// What it computes.
    pub operator: Operator,
    /// Values read.
    pub inputs: Vec<usize>,
    /// What it makes.
    pub extent: Extent,
}

/// What a node computes from its inputs.
#[derive(Clone, Debug)]
pub enum Operator {
    /// A convolution.
    Conv(Conv),
    /// A transposed convolution.
    TransposedConv(Conv),
    /// To zero mean and unit variance per channel, then by `gamma` and `beta`.
    InstanceNorm {
        /// Factor per channel.
        gamma: PerChannel,
        /// Added after it.
        beta: PerChannel,
        /// Added to the variance.
        epsilon: f64,
    },
    /// `v * scale + shift`.
    Scale {
        /// Factor per channel.
        scale: PerChannel,
        /// Added after it.
        shift: PerChannel,
    },
    /// Negative values by a factor.
    Rectify {
        /// Factor per channel.
        slopes: PerChannel,
    },
    /// `1 / (1 + exp(-v))`.
    Sigmoid,
    /// Exponentials that sum to 1 over channels.
    Softmax,
    /// The sum of two values; one voxel along an axis, or one channel, is repeated.
    Add,
    /// The product of two values; repeated as in [`Add`](Self::Add).
    Multiply,
    /// The channels of all inputs, one after the other.
    Concat,
    /// What the window over each voxel holds.
    Pool(Pool, Window),
    /// The mean of each channel.
    GlobalAverage,
    /// Another number of voxels.
    Resize(Resize),
}

/// A convolution's weights and window.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[outputs, inputs / groups, z, y, x]`, or `[inputs, outputs / groups, z, y, x]` of a
    /// transposed one.
    pub weights: Weights,
    /// One per output channel.
    pub bias: PerChannel,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Kernel, stride and padding.
    pub window: Window,
}

/// Where a kernel goes, per axis `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: [usize; 3],
    /// Voxels from one place to the next.
    pub stride: [usize; 3],
    /// Voxels from one tap to the next.
    pub dilation: [usize; 3],
    /// Zeros before the first voxel.
    pub pad_begin: [usize; 3],
    /// Zeros after the last voxel.
    pub pad_end: [usize; 3],
}

/// What pooling takes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The largest value.
    Max,
    /// The mean, without padding.
    Average,
    /// The mean, padding counted as zeros.
    AveragePadded,
}

/// ONNX `Resize`; the scales are those of the file, which need not be the quotient of the sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    /// New voxels per old one, `[z, y, x]`.
    pub scales: [f32; 3],
    /// `coordinate_transformation_mode`.
    pub coordinates: Coordinates,
    /// `nearest_mode`; `None` for linear interpolation.
    pub nearest: Option<Rounding>,
}

/// `coordinate_transformation_mode` of `Resize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Centers on centers.
    HalfPixel,
    /// Centers on centers, and 0 where one voxel is left.
    PytorchHalfPixel,
    /// Corners on corners.
    AlignCorners,
    /// First voxel on first voxel.
    Asymmetric,
}

/// `nearest_mode` of `Resize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Halves down.
    PreferFloor,
    /// Halves up.
    PreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
}

impl Resize {
    /// Per axis and new voxel, two old voxels and the weight of the second: from `input` to
    /// `output` voxels.
    #[must_use]
    pub fn taps(self, input: [usize; 3], output: [usize; 3]) -> [Vec<(usize, usize, f32)>; 3] {
        std::array::from_fn(|k| {
            (0..output[k]).map(|x| self.tap(k, x as f32, input[k], output[k])).collect()
        })
    }

    fn tap(self, axis: usize, x: f32, input: usize, output: usize) -> (usize, usize, f32) {
        let (old, new, scale, last) = (input as f32, output as f32, self.scales[axis], input - 1);
        let at = match self.coordinates {
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if new <= 1.0 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::AlignCorners => x * (old - 1.0) / (new - 1.0),
            Coordinates::Asymmetric => x / scale,
        };
        let clamp = |v: f32| (v.max(0.0) as usize).min(last);
        if let Some(rounding) = self.nearest {
            let place = clamp(match rounding {
                Rounding::PreferFloor => (at - 0.5).ceil(),
                Rounding::PreferCeil => (at + 0.5).floor(),
                Rounding::Floor => at.floor(),
                Rounding::Ceil => at.ceil(),
            });
            return (place, place, 0.0);
        }
        let at = at.clamp(0.0, last as f32);
        let first = clamp(at.floor());
        (first, (first + 1).min(last), at - at.floor())
    }
}

/// Numbers of a constant, shared with everything that uses it.
#[derive(Clone, Debug)]
pub struct Weights(Arc<Tensor>);

impl Weights {
    /// The constant, if it holds real numbers.
    fn new(tensor: Arc<Tensor>) -> Option<Self> {
        tensor.floats().is_some().then_some(Self(tensor))
    }

    /// Extent per axis.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.0.dims
    }
}

impl std::ops::Deref for Weights {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.floats().unwrap_or_default()
    }
}

/// One number per channel.
#[derive(Clone, Debug)]
pub enum PerChannel {
    /// The same for all.
    All(f32),
    /// A constant of the graph.
    Constant(Weights),
    /// Computed ones.
    Each(Arc<[f32]>),
}

impl PerChannel {
    /// The number of a channel.
    ///
    /// # Panics
    ///
    /// If there is no such channel.
    #[must_use]
    pub fn at(&self, channel: usize) -> f32 {
        match self {
            Self::All(value) => *value,
            Self::Constant(values) => values[channel],
            Self::Each(values) => values[channel],
        }
    }

    /// The numbers of so many channels.
    #[must_use]
    pub fn to_vec(&self, channels: usize) -> Vec<f32> {
        (0..channels).map(|channel| self.at(channel)).collect()
    }
}

impl Network {
    /// Checks `graph` for patches of `patch` voxels, `[z, y, x]`, z = 1 for a two-dimensional one.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] that names the node and its operator: one that is not supported, weights that do
    /// not fit what is read, a patch the layers cannot divide, a graph without one input and one
    /// output of that patch, or one that asks for more memory than its file justifies.
    pub fn new(graph: Graph, patch: [usize; 3]) -> Result<Self, Mismatch> {
        read::network(graph, patch)
    }

    /// Size of a value.
    ///
    /// # Panics
    ///
    /// If there is no such value.
    #[must_use]
    pub fn extent(&self, value: usize) -> Extent {
        match value.checked_sub(1) {
            None => self.input,
            Some(node) => self.nodes[node].extent,
        }
    }

    /// Channels of the output.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.extent(self.output).channels
    }

    /// Multiplications of all convolutions for one patch, each with the addition that follows it: what
    /// the time of a run goes by.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let of = |node: &Node| match &node.operator {
            Operator::Conv(conv) => conv.weights.len() * node.extent.voxels(),
            // Each voxel that is read meets the whole kernel.
            Operator::TransposedConv(conv) => {
                conv.weights.len() * self.extent(node.inputs[0]).voxels()
            }
            _ => 0,
        };
        self.nodes.iter().map(|node| of(node) as u64).sum()
    }

    /// Classes and features of the last layer, if that is a linear head: a pointwise convolution.
    #[must_use]
    pub fn head(&self) -> Option<(usize, usize)> {
        let last = self.nodes.last().filter(|_| self.output == self.nodes.len())?;
        let Operator::Conv(conv) = &last.operator else { return None };
        let features = self.extent(last.inputs[0]).channels;
        conv.is_pointwise().then_some((last.extent.channels, features))
    }

    /// Takes the linear head off: the output are the features it reads.
    pub fn take_head(&mut self) -> Option<Conv> {
        self.head()?;
        let last = self.nodes.pop()?;
        self.output = last.inputs[0];
        match last.operator {
            Operator::Conv(conv) => Some(conv),
            _ => None,
        }
    }

    /// A name of its own for each node: the graph's where that is one, else `#` and its place.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mut uses = std::collections::HashMap::new();
        for node in &self.nodes {
            *uses.entry(node.name.as_str()).or_insert(0) += 1;
        }
        let named = |node: &Node| !node.name.is_empty() && uses[node.name.as_str()] == 1;
        let key = |(at, node): (usize, &Node)| {
            if named(node) { node.name.clone() } else { format!("#{at}") }
        };
        self.nodes.iter().enumerate().map(key).collect()
    }

    /// For every value, the place of the last node that reads it.
    #[must_use]
    pub fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![0; self.nodes.len() + 1];
        for (at, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|&value| last[value] = at);
        }
        last[self.output] = self.nodes.len();
        last
    }
}

impl Conv {
    /// Whether it sees each voxel alone, so that it may be applied before or after anything that is
    /// linear.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        let Window { kernel, stride, pad_begin, pad_end, .. } = self.window;
        self.groups == 1
            && kernel == [1; 3]
            && stride == [1; 3]
            && pad_begin == [0; 3]
            && pad_end == [0; 3]
    }
}
