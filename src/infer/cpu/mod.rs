//! Our own engine: an ONNX graph, lowered to a plan on this crate's kernels.
//!
//! ONNX bytes go in once; after that a patch goes in and logits come out. The plan is made for
//! one patch size: all buffers are allocated when the engine is opened, and running it
//! allocates nothing that grows with the patch. The same input gives the same bytes whatever
//! the number of threads, per instruction set and precision.

mod lower;
mod ops;
mod plan;
mod run;

pub use crate::kernels::Isa;

use super::{Engine, Precision};
use crate::kernels::buffer::{Buffer, ScratchPool};
use crate::kernels::row::Moments;
use crate::model::onnx::Graph;
use crate::{Error, Result};
use ndarray::{Array4, ArrayView4};
use plan::Plan;

/// A network on the CPU.
#[derive(Debug)]
pub struct CpuEngine {
    plan: Plan,
    precision: Precision,
    device: String,
    patch: [usize; 3],
    channels: (usize, usize),
    buffers: Vec<Buffer>,
    scratch: ScratchPool,
    moments: Vec<Moments>,
}

/// The last layer of a network that ends in a pointwise convolution: `weights * features +
/// bias` for each voxel.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearHead {
    /// `[classes, features]`.
    pub weights: ndarray::Array2<f32>,
    /// One per class.
    pub bias: Vec<f32>,
}

/// Time spent in one step of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The ONNX node and the kernel.
    pub name: String,
    /// Multiplications and additions.
    pub flops: u64,
    /// Wall time.
    pub seconds: f64,
}

impl CpuEngine {
    /// Lowers a network for patches of `patch` voxels (`[z, y, x]`, z = 1 for a
    /// two-dimensional network).
    ///
    /// # Errors
    ///
    /// [`Error::Model`] naming node and operator if the graph cannot be run;
    /// [`Error::Device`] if `isa` has no arithmetic of this `precision`.
    pub fn open(onnx: &[u8], patch: [usize; 3], precision: Precision, isa: Isa) -> Result<Self> {
        Self::from_graph(&Graph::read(onnx)?, patch, precision, isa)
    }

    /// As [`open`](Self::open), from a graph in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_graph(
        graph: &Graph,
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Self> {
        Self::with_plan(lower::lower(graph, patch, precision, isa, false)?.0, patch, precision)
    }

    /// As [`open`](Self::open), but stops before the head: the output are the features the
    /// returned head is linear in, and [`output_channels`](Engine::output_channels) counts
    /// them. `None` if the network does not end in a pointwise convolution.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_features(
        onnx: &[u8],
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Option<(Self, LinearHead)>> {
        Self::features_from_graph(&Graph::read(onnx)?, patch, precision, isa)
    }

    /// As [`open_features`](Self::open_features), from a graph in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn features_from_graph(
        graph: &Graph,
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Option<(Self, LinearHead)>> {
        match lower::lower(graph, patch, precision, isa, true)? {
            (plan, Some(head)) => Ok(Some((Self::with_plan(plan, patch, precision)?, head))),
            (_, None) => Ok(None),
        }
    }

    fn with_plan(plan: Plan, patch: [usize; 3], precision: Precision) -> Result<Self> {
        if precision == Precision::Bf16 && !plan.isa.has_bf16() {
            return Err(Error::Device {
                device: format!("cpu ({})", plan.isa),
                reason: "it does not multiply bf16 numbers; use precision f32".into(),
            });
        }
        let channels = |tensor: usize| plan.tensors[tensor].layout.channels;
        Ok(Self {
            precision,
            device: format!("cpu ({})", plan.isa),
            patch,
            channels: (channels(plan.input), channels(plan.output)),
            buffers: plan.buffers.iter().map(|&len| Buffer::zeros(len)).collect(),
            scratch: ScratchPool::new(plan.scratch),
            moments: vec![Moments::default(); plan.moments],
            plan,
        })
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.plan.isa
    }

    /// Bytes held while running with `threads` threads: buffers, weights and scratch.
    #[must_use]
    pub fn memory_bytes(&self, threads: usize) -> u64 {
        self.plan.memory_bytes(threads)
    }

    /// Runs one patch and returns what each step took.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`].
    #[allow(clippy::needless_pass_by_value, reason = "as `Engine::run`")]
    pub fn profile(
        &mut self,
        input: ArrayView4<'_, f32>,
        output: &mut Array4<f32>,
    ) -> Result<Vec<StepTime>> {
        let mut times = Vec::new();
        self.run_steps(&input, output, &mut |time| times.push(time))?;
        Ok(times)
    }
}

impl Engine for CpuEngine {
    fn device(&self) -> &str {
        &self.device
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn input_channels(&self) -> usize {
        self.channels.0
    }

    fn output_channels(&self) -> usize {
        self.channels.1
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        self.run_steps(&input, output, &mut |_| ())
    }
}
