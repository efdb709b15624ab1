//! A network as launches over planned buffers.
//!
//! Everything is known here before a device is touched: which kernels run on how many cubes, what
//! each buffer holds, and all bytes. Tensors hold raw results; an entry per block of channels says
//! how they are read (scale, shift, slope), and normalizations write theirs while the network runs.

mod build;
mod emit;

use crate::conv::{Bases, Conv, Way};
use crate::kernels::general::Pointwise;
use crate::kernels::moments::Task;
use fastnnunet_model::network::Pool;

pub(crate) use build::{Settings, activation_slots, plan};

/// Arithmetic of activations and weights; sums and statistics are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// fp16.
    F16,
    /// bf16.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// A buffer of the plan.
pub(crate) type Slot = usize;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    Single,
    /// The precision's own type.
    Own,
}

/// A tensor as a kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    pub slot: Slot,
    pub number: Number,
    pub lanes: usize,
    pub channels: usize,
    pub dims: [usize; 3],
    /// Where entries begin, in vectors of four, and how far those of the next image are.
    pub entry: usize,
    pub stride: usize,
}

/// What a kernel makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub slot: Slot,
    pub number: Number,
    pub lanes: usize,
    pub channels: usize,
    pub dims: [usize; 3],
    /// Channels before these, and of the whole.
    pub first: usize,
    pub all: usize,
}

/// Places of an instance normalization, in vectors of four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    pub blocks: usize,
    pub from: usize,
    pub to: usize,
    pub epsilon: f32,
}

/// A window that slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliding {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub pad: [usize; 3],
    pub pad_end: [usize; 3],
}

/// One launch.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Conv {
        conv: Conv,
        way: Way,
        bases: Bases,
        inputs: [Slot; 2],
        input: Number,
        output: Slot,
    },
    /// Joins the moments of so many pieces of each map.
    Merge {
        norm: Norm,
        pieces: usize,
    },
    /// Adds up parts of a sum, or takes moments.
    Finish {
        task: Task,
        source: Slot,
        from: Number,
        output: Slot,
        norm: Norm,
        voxels: usize,
        piece: usize,
        splits: usize,
        bias: usize,
    },
    Combine {
        operation: Pointwise,
        left: Operand,
        right: Operand,
        made: Made,
    },
    Softmax {
        source: Operand,
        made: Made,
    },
    Pool {
        pool: Pool,
        window: Sliding,
        source: Operand,
        made: Made,
    },
    Resize {
        table: usize,
        source: Operand,
        made: Made,
    },
    Average {
        source: Operand,
        made: Made,
    },
    /// Any convolution; weights and biases in numbers.
    General {
        transposed: bool,
        window: Sliding,
        groups: usize,
        weights: usize,
        bias: usize,
        source: Operand,
        made: Made,
    },
}

/// How results leave: values as they are read, or a pointwise convolution of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub source: Operand,
    pub outputs: usize,
    /// Whether it is a convolution, and where its biases and weights begin.
    pub head: bool,
    pub bias: usize,
    pub weights: usize,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub precision: Precision,
    pub images: usize,
    /// Threads that take moments together.
    pub team: usize,
    pub patch: [usize; 3],
    pub input: Slot,
    pub last: Last,
    /// Bytes of each buffer.
    pub slots: Vec<u64>,
    /// Moments of pieces, and parts of sums.
    pub parts: Slot,
    pub sums: Slot,
    pub steps: Vec<Action>,
    /// Biases, entries, tables; those that a run writes are zero.
    pub params: Vec<f32>,
    /// Weights in `f32`, and packed for tensor cores.
    pub singles: Vec<f32>,
    pub halves: Vec<u16>,
}

#[cfg(any(test, feature = "bench"))]
impl Plan {
    /// Bytes of all buffers.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}
