//! Our own engine: an ONNX graph, lowered to a plan on this crate's kernels.
//!
//! ONNX bytes go in once; after that a patch goes in and logits come out. The plan is made for
//! one patch size: its memory is allocated with the first patch, so that a caller may see
//! what it takes before it is there, and later ones allocate nothing that grows with the
//! patch. The same input gives the same bytes whatever the number of threads, per instruction
//! set and precision.

mod arena;
mod calibrate;
mod lower;
mod memory;
mod ops;
mod plan;
mod run;

pub use calibrate::Calibrator;
pub use fastnnunet_kernels::Isa;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub(super) use memory::constant_bytes;

use super::{Engine, LinearHead, Precision, TakeSlice};
use crate::files::Allowance;
use crate::infer::invalid;
use crate::model::Quantization;
use crate::model::network::Network;
use crate::model::onnx::Graph;
use crate::{Error, Result};
use fastnnunet_kernels::buffer::{Buffer, ScratchPool};
use fastnnunet_kernels::conv::Arithmetic;
use fastnnunet_kernels::row::Moments;
use ndarray::{Array4, ArrayView4};
use plan::Plan;

/// The instruction set of that name, of those that this CPU has.
///
/// # Errors
///
/// [`Error::Usage`] with the names of all, if it is none of them.
pub fn instruction_set(name: &str) -> Result<Isa> {
    Isa::named(name).ok_or_else(|| {
        let names: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
        Error::usage("isa", name, format!("one that this CPU has: {}", names.join(", ")))
    })
}

/// A network on the CPU, or the networks of several folds whose logits are averaged.
#[derive(Debug)]
pub struct CpuEngine {
    /// One per fold; all share the memory.
    plans: Vec<Plan>,
    head: Option<LinearHead>,
    precision: Precision,
    device: String,
    patch: [usize; 3],
    /// Of the input, and of the output of all folds together.
    channels: (usize, usize),
    /// Numbers that tensors take.
    planned: usize,
    /// Memory for them, once a patch has run.
    memory: Buffer,
    scratch: ScratchPool,
    moments: Vec<Moments>,
    /// Logits of one fold, where several are averaged; allocated with the memory.
    answer: Vec<f32>,
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
        Self::from_graph(Graph::read(onnx)?, patch, precision, isa)
    }

    /// As [`open`](Self::open), from a graph in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_graph(
        graph: Graph,
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Self> {
        let plan = lower::lower(Network::new(graph, patch)?, precision, isa, false, None).0;
        Self::joined(vec![plan], None, patch, precision)
    }

    /// As [`from_graph`](Self::from_graph) in int8, by the ranges measured on the network.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`Error::Model`] if the ranges are those of another network.
    pub fn quantized(
        graph: Graph,
        patch: [usize; 3],
        isa: Isa,
        ranges: &Quantization,
    ) -> Result<Self> {
        let network = Network::new(graph, patch)?;
        let plan = lower::lower(network, Precision::Int8, isa, false, Some(ranges)).0;
        Self::joined(vec![plan], None, patch, Precision::Int8)
    }

    /// As [`open`](Self::open), but stops before the head: the output are the features
    /// [`head`](Engine::head) is linear in, and [`output_channels`](Engine::output_channels)
    /// counts them. `None` if the network does not end in a pointwise convolution.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_features(
        onnx: &[u8],
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Option<Self>> {
        let network = Network::new(Graph::read(onnx)?, patch)?;
        match lower::lower(network, precision, isa, true, None) {
            (plan, Some(head)) => Self::joined(vec![plan], Some(head), patch, precision).map(Some),
            (_, None) => Ok(None),
        }
    }

    /// Lowers the networks of one or several folds, whose logits are averaged as nnU-Net does.
    /// Stops before the heads where all features together are fewer than the classes.
    ///
    /// `graph` is asked for the network of each of `folds` folds in turn, so that only one is
    /// held beside the plans.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`Error::Model`] if there is no network or they differ in
    /// their channels.
    pub fn open_folds(
        folds: usize,
        graph: &mut dyn FnMut(usize) -> Result<Graph>,
        patch: [usize; 3],
        precision: Precision,
        isa: Isa,
    ) -> Result<Self> {
        let (arithmetic, allowed) = ((precision, isa), Allowance::default());
        let graph = &mut |fold, _| graph(fold);
        Self::lower_folds(folds, graph, patch, arithmetic, false, &[], allowed)
    }

    /// As [`open_folds`](Self::open_folds) in int8, by the ranges measured on each fold.
    ///
    /// # Errors
    ///
    /// As [`open_folds`](Self::open_folds), and [`Error::Model`] if the ranges are those of
    /// another network.
    pub fn open_quantized(
        graph: &mut dyn FnMut(usize) -> Result<Graph>,
        patch: [usize; 3],
        isa: Isa,
        ranges: &[Quantization],
    ) -> Result<Self> {
        let (arithmetic, allowed) = ((Precision::Int8, isa), Allowance::default());
        let graph = &mut |fold, _| graph(fold);
        Self::lower_folds(ranges.len(), graph, patch, arithmetic, false, ranges, allowed)
    }

    /// As [`open_folds`](Self::open_folds), in int8 by `ranges` where there are any, and within what is
    /// allowed: what lowering makes is counted before it is made. `graph` is told what is left beside the
    /// folds before. Who looks at every layer (`sees_all`) has the heads among them, and no two layers
    /// joined; else it stops before the heads where that is less.
    pub(super) fn lower_folds(
        folds: usize,
        graph: &mut dyn FnMut(usize, Allowance) -> Result<Graph>,
        patch: [usize; 3],
        (precision, isa): (Precision, Isa),
        sees_all: bool,
        ranges: &[Quantization],
        allowed: Allowance,
    ) -> Result<Self> {
        let (mut plans, mut heads) = (Vec::new(), Vec::new());
        for fold in 0..folds {
            let held: u64 = plans.iter().map(Plan::bytes).sum();
            let network = Network::new(graph(fold, allowed.beside(held))?, patch)?;
            let in_halves = precision == Precision::Bf16 && isa.has_bf16();
            let made = memory::lowering_bytes(&network, in_halves);
            let need_bytes =
                held.saturating_add(memory::constant_bytes(&network)).saturating_add(made);
            allowed.check("opening the network", need_bytes)?;
            let features = !sees_all && network.head().is_some_and(|(c, f)| f * folds < c);
            let (plan, head) = lower::lower(network, precision, isa, features, ranges.get(fold));
            plans.push(plan);
            heads.extend(head);
        }
        if !(heads.is_empty() || heads.len() == folds) {
            return Err(invalid("folds with different last layers", "one architecture"));
        }
        let head = LinearHead::mean(&heads);
        let open = if sees_all { Self::new } else { Self::joined };
        open(plans, head, patch, precision)
    }

    /// As [`new`](Self::new), with layers joined where that spares memory.
    fn joined(
        mut plans: Vec<Plan>,
        head: Option<LinearHead>,
        patch: [usize; 3],
        precision: Precision,
    ) -> Result<Self> {
        plans.iter_mut().for_each(Plan::join_layers);
        Self::new(plans, head, patch, precision)
    }

    fn new(
        plans: Vec<Plan>,
        head: Option<LinearHead>,
        patch: [usize; 3],
        precision: Precision,
    ) -> Result<Self> {
        let Some(first) = plans.first() else {
            return Err(invalid("no network", "one or several"));
        };
        let able = match precision {
            Precision::F32 => true,
            Precision::Bf16 => first.isa.has_bf16(),
            Precision::Int8 => first.isa.has(Arithmetic::Int8),
            Precision::F16 => false,
        };
        if !able {
            return Err(Error::Device {
                device: format!("cpu ({})", first.isa),
                reason: format!("it does not multiply {precision} numbers; use precision f32"),
            });
        }
        if precision == Precision::Int8 && !plans.iter().all(Plan::has_bytes) {
            return Err(invalid("no ranges for the layers of this network", "ranges for int8"));
        }
        let channels = |plan: &Plan| {
            let of = |tensor: usize| plan.tensors[tensor].layout.channels;
            (of(plan.input), of(plan.output))
        };
        let (inputs, outputs) = channels(first);
        if plans.iter().any(|plan| channels(plan) != (inputs, outputs)) {
            return Err(invalid("folds with different channels", "one architecture"));
        }
        let most = |of: &dyn Fn(&Plan) -> usize| plans.iter().map(of).max().unwrap_or(0);
        Ok(Self {
            precision,
            device: format!("cpu ({})", first.isa),
            patch,
            channels: (inputs, if head.is_some() { outputs * plans.len() } else { outputs }),
            planned: most(&|plan| plan.floats),
            memory: Buffer::default(),
            scratch: ScratchPool::new(most(&|plan| plan.scratch)),
            moments: vec![Moments::default(); most(&|plan| plan.moments)],
            answer: Vec::new(),
            head,
            plans,
        })
    }

    /// Logits of one fold, where several are averaged.
    fn answer_len(&self) -> usize {
        let averaged = self.head.is_none() && self.plans.len() > 1;
        if averaged { self.channels.1 * self.patch.iter().product::<usize>() } else { 0 }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.plans[0].isa
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
        self.run_folds(&input, output, &mut |done| times.push(done.step.time(done.start)))?;
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

    fn head(&self) -> Option<&LinearHead> {
        self.head.as_ref()
    }

    fn memory_bytes(&self, threads: usize) -> u64 {
        let floats = self.planned + self.answer_len() + self.scratch.piece_len() * threads;
        let moments = self.moments.len() * size_of::<Moments>();
        (floats * size_of::<f32>() + moments) as u64
            + self.plans.iter().map(Plan::bytes).sum::<u64>()
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        self.run_folds(&input, output, &mut |_| ())
    }

    fn gives_slices(&self) -> bool {
        let is_answer = self.plans.len() == 1 || self.head.is_some();
        is_answer && self.plans.iter().all(Plan::ends_in_copy)
    }

    fn run_slices(&mut self, input: ArrayView4<'_, f32>, take: &TakeSlice<'_>) -> Result<()> {
        self.give_slices(&input, take)
    }
}

#[cfg(test)]
mod tests;
