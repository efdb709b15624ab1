//! Measures the ranges that int8 needs, by running a network, or those of several folds, in `f32` on
//! patches of real scans.

use super::plan::{Operation, Place, Plan, Step};
use super::run::Done;
use super::{CpuEngine, Isa, ops};
use crate::Result;
use crate::files::Allowance;
use crate::infer::Precision;
use crate::model::onnx::Graph;
use crate::model::{Quantization, Ranges};
use fastnnunet_kernels::conv::{Layer, Source};
use fastnnunet_kernels::row;
use ndarray::{Array4, ArrayView4};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Standard deviations that stored integers reach at least, and how many times farther than the
/// largest value seen: scans differ, and 16 bits have room.
const DEVIATIONS: f64 = 8.0;
const MARGIN: f64 = 2.0;

/// Collects what the layers of a network read and make, fold by fold where there are several.
pub struct Calibrator {
    engine: CpuEngine,
    folds: Vec<BTreeMap<String, Seen>>,
}

/// Which steps of a fold's plan are looked at.
struct Looked {
    /// The last layer keeps floats.
    last: Option<usize>,
    reads_input: Vec<bool>,
}

/// What was seen of one layer.
#[derive(Default)]
struct Seen {
    /// Per input channel; none if the layer is not multiplied in bytes.
    inputs: Vec<Ends>,
    /// Per output channel.
    outputs: Vec<Spread>,
}

/// Lowest and highest value of patches, 0 among them: their sums, and of how many patches.
#[derive(Clone, Copy, Default)]
struct Ends {
    low: f64,
    high: f64,
    patches: f64,
}

/// Where values lay.
#[derive(Clone, Copy)]
struct Spread {
    count: f64,
    sum: f64,
    squares: f64,
    low: f32,
    high: f32,
}

impl Calibrator {
    /// Gets ready to measure the networks of `folds` folds on patches of `patch` voxels; `graph` is
    /// asked for each in turn.
    ///
    /// # Errors
    ///
    /// As [`CpuEngine::open_folds`].
    pub fn new(
        folds: usize,
        graph: &mut dyn FnMut(usize) -> Result<Graph>,
        patch: [usize; 3],
        isa: Isa,
    ) -> Result<Self> {
        // What feeds the head is to be seen too.
        let (arithmetic, allowed) = ((Precision::F32, isa), Allowance::default());
        let graph = &mut |fold, _| graph(fold);
        let engine = CpuEngine::lower_folds(folds, graph, patch, arithmetic, true, &[], allowed)?;
        Ok(Self { engine, folds: (0..folds).map(|_| BTreeMap::new()).collect() })
    }

    /// Channels of a patch.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.engine.channels.0
    }

    /// The engine that runs the network.
    pub fn engine_mut(&mut self) -> &mut CpuEngine {
        &mut self.engine
    }

    /// The engine that runs the network, to be asked.
    #[must_use]
    pub fn engine(&self) -> &CpuEngine {
        &self.engine
    }

    /// Runs the network on a patch and remembers what its layers read and made.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`](crate::infer::Engine::run).
    pub fn add(&mut self, input: ArrayView4<'_, f32>) -> Result<()> {
        let [z, y, x] = self.engine.patch;
        let mut answer = Array4::zeros((self.engine.channels.1, z, y, x));
        self.run(input, &mut answer)
    }

    /// As [`add`](Self::add), for who wants the answer too.
    ///
    /// # Errors
    ///
    /// As [`Engine::run`](crate::infer::Engine::run).
    pub fn run(&mut self, input: ArrayView4<'_, f32>, answer: &mut Array4<f32>) -> Result<()> {
        let Self { engine, folds } = self;
        let looked: Vec<Looked> = engine.plans.iter().map(Looked::at).collect();
        // Folds run one after the other, each step by step.
        let (mut fold, mut at) = (0, 0);
        engine.run_folds(&input, answer, &mut |done| {
            let Looked { last, reads_input } = &looked[fold];
            if Some(at) != *last {
                look(&mut folds[fold], done, reads_input[at]);
            }
            at += 1;
            if at == reads_input.len() {
                (fold, at) = (fold + 1, 0);
            }
        })
    }

    /// The ranges of all layers seen, per fold.
    #[must_use]
    pub fn finish(self) -> Vec<Quantization> {
        let ranges = |(name, seen): (String, Seen)| {
            let inputs = seen.inputs.iter().map(Ends::range).collect();
            (name, Ranges { inputs, outputs: seen.outputs.iter().map(Spread::range).collect() })
        };
        let fold = |layers: BTreeMap<String, Seen>| Quantization {
            layers: layers.into_iter().map(ranges).collect(),
            ..Quantization::default()
        };
        self.folds.into_iter().map(fold).collect()
    }
}

impl Looked {
    fn at(plan: &Plan) -> Self {
        let is_last = |step: &Step| plan.tensors[step.out].place == Place::Output;
        let reads_input = |step: &Step| step.reads().any(|tensor| tensor == plan.input);
        Self {
            last: plan.steps.iter().position(is_last),
            reads_input: plan.steps.iter().map(reads_input).collect(),
        }
    }
}

impl std::fmt::Debug for Calibrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Calibrator({} folds)", self.folds.len())
    }
}

/// Adds what a step read and made.
fn look(layers: &mut BTreeMap<String, Seen>, done: &Done<'_>, reads_input: bool) {
    let quantizable = match &done.step.operation {
        Operation::Conv(conv) => {
            let shape = conv.shape();
            shape.inputs > 1 && shape.groups == 1 && !shape.is_pointwise()
        }
        Operation::Upsample(_) => true,
        // The rare ones keep floats.
        Operation::Softmax | Operation::Copy => return,
        _ => false,
    };
    let seen = layers.entry(done.step.key.clone()).or_default();
    let sources = &done.operands[0][..];
    let slopes = sources.iter().flat_map(|source| source.affines).map(|affine| affine.slope);
    if quantizable && !reads_input && slopes.clone().all(Layer::takes_slope) {
        seen.inputs.resize(slopes.count(), Ends::default());
        seen.inputs.par_iter_mut().enumerate().for_each(|(c, seen)| seen.look(sources, c));
    }
    seen.outputs.resize(done.layout.channels, Spread::NONE);
    seen.outputs.par_iter_mut().enumerate().for_each(|(c, seen)| {
        for z in 0..done.layout.dims[0] {
            for y in 0..done.layout.dims[1] {
                let start = done.layout.at(c, z, y);
                done.made[start..][..done.layout.dims[2]].iter().for_each(|&v| seen.add(v));
            }
        }
    });
}

/// The nearest number of five decimal digits, which is as much as a file needs to hold.
fn short(v: f64) -> f32 {
    format!("{v:.4e}").parse().unwrap_or(v as f32)
}

impl Ends {
    /// Adds what channel `c` of `sources` is read as in a patch.
    fn look(&mut self, sources: &[Source<'_>], c: usize) {
        let channel = ops::Channel::of(sources, c);
        let [depth, height, width] = channel.dims();
        let mut values = vec![0.0; width];
        let (mut low, mut high) = (0.0_f32, 0.0_f32);
        for z in 0..depth {
            for y in 0..height {
                row::activate(Isa::SCALAR, &mut values, channel.row(z, y), channel.affine);
                for &v in values.iter().filter(|v| v.is_finite()) {
                    (low, high) = (low.min(v), high.max(v));
                }
            }
        }
        self.low += f64::from(low);
        self.high += f64::from(high);
        self.patches += 1.0;
    }

    /// The mean range of a patch: a layer widens or narrows those of all its channels together, so
    /// that what counts is how they compare.
    fn range(&self) -> [f32; 2] {
        let [low, high] = [self.low, self.high].map(|sum| short(sum / self.patches.max(1.0)));
        if low < high { [low, high] } else { [0.0, 1.0] }
    }
}

impl Spread {
    const NONE: Self =
        Self { count: 0.0, sum: 0.0, squares: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY };

    fn add(&mut self, v: f32) {
        if v.is_finite() {
            self.count += 1.0;
            self.sum += f64::from(v);
            self.squares += f64::from(v) * f64::from(v);
            (self.low, self.high) = (self.low.min(v), self.high.max(v));
        }
    }

    /// Center and reach.
    fn range(&self) -> [f32; 2] {
        if self.count == 0.0 {
            return [0.0, 1.0];
        }
        let mean = self.sum / self.count;
        let deviation = (self.squares / self.count - mean * mean).max(0.0).sqrt();
        let far = (f64::from(self.high) - mean).max(mean - f64::from(self.low));
        let reach = (MARGIN * far).max(DEVIATIONS * deviation);
        // A channel that never changed has some width all the same.
        let least = mean.abs().max(1.0) * f64::from(f32::EPSILON) * f64::from(i16::MAX);
        [mean, reach.max(least)].map(short)
    }
}
