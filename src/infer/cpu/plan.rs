//! What a network runs as: steps over planned buffers.
//!
//! Tensors hold raw results; normalization and activation are applied by whoever reads
//! ([`Affine`]), so they cost no pass of their own, and neither does concatenation: a step
//! reads a list of tensors.

use super::ops::{Pool, Resize, TransposedConv};
use fastnnunet_kernels::conv::{Arithmetic, Coding, Conv, Format, Upsample};
use fastnnunet_kernels::row::Affine;
use fastnnunet_kernels::{Isa, Layout};
use std::ops::Range;

/// Index of a tensor in [`Plan::tensors`].
pub(super) type TensorId = usize;

/// Channels to read: a tensor through a range of [`Plan::affines`], one per channel.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub tensor: TensorId,
    pub affines: Range<usize>,
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A planned buffer.
    Buffer(usize),
    /// The caller's output.
    Output,
}

/// A planned tensor.
#[derive(Clone, Debug)]
pub(super) struct PlannedTensor {
    pub layout: Layout,
    pub format: Format,
    /// For 16-bit integers, how each channel becomes those.
    pub codings: Vec<Coding>,
    pub place: Place,
    /// Instance normalizations of this tensor that readers apply.
    pub norms: Vec<Norm>,
}

impl PlannedTensor {
    /// Floats that take its memory.
    pub(super) fn floats(&self) -> usize {
        self.format.floats(self.layout.len())
    }

    /// How channel `c` becomes integers.
    pub(super) fn coding(&self, c: usize) -> Coding {
        self.codings.get(c).copied().unwrap_or(Coding::IDENTITY)
    }
}

/// An instance normalization: fills `affines` once the tensor's moments are known.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub affines: Range<usize>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub epsilon: f64,
}

/// What a step computes.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Conv(Box<Conv>),
    Upsample(Box<Upsample>),
    TransposedConv(Box<TransposedConv>),
    Pool(Pool),
    Resize(Resize),
    /// The mean of each channel.
    GlobalAverage,
    /// The inputs as read.
    Copy,
    Add,
    Multiply,
    Sigmoid,
    /// Over channels.
    Softmax,
}

/// One step: reads tensors, writes one.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The ONNX node it came from.
    pub name: String,
    /// The name that ranges have for it.
    pub key: String,
    pub operation: Operation,
    /// One list of channels per operand.
    pub operands: Vec<Vec<Read>>,
    pub out: TensorId,
}

impl Step {
    /// Tensors read.
    pub(super) fn reads(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.operands.iter().flatten().map(|read| read.tensor)
    }
}

/// A network fixed to one patch, one instruction set and one arithmetic.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub isa: Isa,
    pub tensors: Vec<PlannedTensor>,
    /// The network's input, in [`Plan::tensors`].
    pub input: TensorId,
    pub output: TensorId,
    pub steps: Vec<Step>,
    /// How channels are read; entries of normalizations change with every run.
    pub affines: Vec<Affine>,
    /// Floats per buffer.
    pub buffers: Vec<usize>,
    /// Floats of scratch per thread.
    pub scratch: usize,
    /// Moments of the step that has most.
    pub moments: usize,
}

impl Plan {
    /// Floats the weights take.
    pub(super) fn weights(&self) -> usize {
        let of = |step: &Step| match &step.operation {
            Operation::Conv(conv) => conv.packed_len(),
            Operation::Upsample(up) => up.packed_len(),
            Operation::TransposedConv(conv) => conv.weights.len() + conv.bias.len(),
            _ => 0,
        };
        self.steps.iter().map(of).sum()
    }

    /// Whether any layer is multiplied in bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.steps.iter().any(|step| match &step.operation {
            Operation::Conv(conv) => conv.arithmetic() == Arithmetic::Int8,
            _ => false,
        })
    }

    /// Whether its last step reads what others made and writes that to the caller.
    pub(super) fn ends_in_copy(&self) -> bool {
        self.steps.last().is_some_and(|step| matches!(step.operation, Operation::Copy))
    }

    /// Gives every tensor a buffer; buffers are reused once nothing reads what is in them.
    pub(super) fn assign_buffers(&mut self) {
        let mut last_use = vec![0; self.tensors.len()];
        for (at, step) in self.steps.iter().enumerate() {
            last_use[step.out] = at;
            step.reads().for_each(|tensor| last_use[tensor] = at);
        }
        let mut free: Vec<usize> = Vec::new();
        let mut place = |len: usize, free: &mut Vec<usize>| {
            // The tightest fit, else the largest buffer grows, else a new one.
            let fitting = |&i: &usize| (self.buffers[i] < len, self.buffers[i].abs_diff(len));
            let chosen = free.iter().copied().min_by_key(fitting).unwrap_or_else(|| {
                self.buffers.push(0);
                self.buffers.len() - 1
            });
            free.retain(|&i| i != chosen);
            self.buffers[chosen] = self.buffers[chosen].max(len);
            Place::Buffer(chosen)
        };
        let tensors = &mut self.tensors;
        tensors[self.input].place = place(tensors[self.input].floats(), &mut free);
        for (at, step) in self.steps.iter().enumerate() {
            if step.out != self.output {
                tensors[step.out].place = place(tensors[step.out].floats(), &mut free);
            }
            for tensor in step.reads().chain([step.out]) {
                if let Place::Buffer(buffer) = tensors[tensor].place
                    && last_use[tensor] == at
                    && !free.contains(&buffer)
                {
                    free.push(buffer);
                }
            }
        }
    }
}
