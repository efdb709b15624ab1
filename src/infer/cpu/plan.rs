//! What a network runs as: steps over tensors that have a place in memory.
//!
//! Tensors hold raw results; normalization and activation are applied by whoever reads
//! ([`Affine`]), so they cost no pass of their own, and neither does concatenation: a step
//! reads a list of tensors.

use super::arena::{Life, pack};
use super::ops::{Pool, Resize, TransposedConv};
use fastnnunet_kernels::conv::{Arithmetic, Coding, Conv, Format, Upsample, UpsampledConv};
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
    /// In the network's memory, from this float on.
    At(usize),
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
    /// Of the first operand and what is enlarged of the second.
    UpsampledConv(Box<Joined>),
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

/// An upsampling and the convolution behind it.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub layers: UpsampledConv,
    /// Tensors of the first operand that come before what is enlarged.
    pub place: usize,
    /// How that is read; its tensor holds a ring of rows.
    pub enlarged: Read,
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

    /// The tensor that it needs for itself.
    pub(super) fn ring(&self) -> Option<TensorId> {
        match &self.operation {
            Operation::UpsampledConv(joined) => Some(joined.enlarged.tensor),
            _ => None,
        }
    }

    /// Tensors written.
    pub(super) fn makes(&self) -> impl Iterator<Item = TensorId> {
        [self.out].into_iter().chain(self.ring())
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
    /// Floats of memory that tensors lie in.
    pub floats: usize,
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
            Operation::UpsampledConv(joined) => joined.layers.packed_len(),
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

    /// From which step to which each tensor is needed.
    fn lives(&self) -> Vec<Life> {
        let life = |tensor: &PlannedTensor| Life { floats: tensor.floats(), first: 0, last: 0 };
        let mut lives: Vec<Life> = self.tensors.iter().map(life).collect();
        for (at, step) in self.steps.iter().enumerate() {
            for made in step.makes() {
                (lives[made].first, lives[made].last) = (at, at);
            }
            step.reads().for_each(|tensor| lives[tensor].last = at);
        }
        // What the caller gives is nowhere here; its place is not looked at.
        lives[self.output].floats = 0;
        lives
    }

    /// Gives every tensor its place in memory.
    pub(super) fn place_tensors(&mut self) {
        let (places, floats) = pack(&self.lives());
        for (at, (tensor, place)) in self.tensors.iter_mut().zip(places).enumerate() {
            if at != self.output {
                tensor.place = Place::At(place);
            }
        }
        self.floats = floats;
    }

    /// Joins layers where that makes the memory smaller: an upsampling with the convolution behind it,
    /// which then makes the enlarged rows as it needs them. What steps compute stays the same.
    pub(super) fn join_layers(&mut self) {
        for at in (0..self.steps.len().saturating_sub(1)).rev() {
            if let Some(ring) = self.ring_at(at) {
                self.join(at, ring);
            }
        }
        self.place_tensors();
    }

    /// The ring of rows that steps `at` and the one behind it can be joined through, if it spares memory.
    fn ring_at(&self, at: usize) -> Option<Layout> {
        let [first, second] = [&self.steps[at], &self.steps[at + 1]];
        let (Operation::Upsample(up), Operation::Conv(conv)) =
            (&first.operation, &second.operation)
        else {
            return None;
        };
        let made = first.out;
        let readers = self.steps.iter().flat_map(Step::reads).filter(|&tensor| tensor == made);
        let is_passed_on = readers.count() == 1 && second.reads().any(|tensor| tensor == made);
        if !is_passed_on || !self.tensors[made].norms.is_empty() || made == self.output {
            return None;
        }
        let ring = UpsampledConv::ring_of(up, conv)?;
        let mut lives = self.lives();
        let before = pack(&lives).1;
        let floats = up.format().floats(ring.len());
        lives[made] = Life { floats, first: at + 1, last: at + 1 };
        for tensor in first.reads() {
            lives[tensor].last = lives[tensor].last.max(at + 1);
        }
        (pack(&lives).1 < before).then_some(ring)
    }

    fn join(&mut self, at: usize, ring: Layout) {
        let first = self.steps.remove(at);
        let second = &mut self.steps[at];
        let reads = &mut second.operands[0];
        let place = reads.iter().position(|read| read.tensor == first.out);
        let Some(place) = place else { unreachable!("`ring_at` found it") };
        let enlarged = reads.remove(place);
        let conv = std::mem::replace(&mut second.operation, Operation::Copy);
        let (Operation::Upsample(up), Operation::Conv(conv)) = (first.operation, conv) else {
            unreachable!("`ring_at` found them")
        };
        self.tensors[first.out].layout = ring;
        let layers = UpsampledConv::new(*up, *conv);
        self.scratch = self.scratch.max(layers.scratch_len());
        second.operands.extend(first.operands);
        second.operation = Operation::UpsampledConv(Box::new(Joined { layers, place, enlarged }));
    }
}
