//! Measures the ranges that int8 needs, by running a network, or those of several folds, in `f32` on
//! patches of real scans.

use super::plan::{Operation, Place, Plan, Step};
use super::run::Done;
use super::{CpuEngine, Isa, ops};
use crate::Result;
use crate::infer::Precision;
use crate::model::onnx::Graph;
use crate::model::{Quantization, Ranges};
use fastnnunet_kernels::conv::{Layer, Source};
use fastnnunet_kernels::row;
use ndarray::{Array4, ArrayView4};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Bins of a histogram; half of them are for negative values.
const BINS: usize = 8192;

/// Largest value that fits a new histogram; those that are too small grow by factors of two.
const FIRST_REACH: f32 = 1.0 / 64.0;

/// Ends of a range that are tried, as parts of the largest value.
const TRIED: usize = 128;

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
    inputs: Vec<Histogram>,
    /// Per output channel.
    outputs: Vec<Spread>,
}

/// How often values occurred.
#[derive(Clone)]
struct Histogram {
    /// From `-reach` to `reach`.
    counts: Vec<u64>,
    reach: f32,
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
        let arithmetic = (Precision::F32, isa);
        let engine = CpuEngine::lower_folds(folds, graph, patch, arithmetic, false, &[], None)?;
        Ok(Self { engine, folds: (0..folds).map(|_| BTreeMap::new()).collect() })
    }

    /// Channels of a patch.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.engine.channels.0
    }

    /// The engine that runs the network.
    pub fn engine(&mut self) -> &mut CpuEngine {
        &mut self.engine
    }

    /// The engine that runs the network, to be asked.
    #[must_use]
    pub fn plain(&self) -> &CpuEngine {
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
            let inputs = seen.inputs.par_iter().map(Histogram::range).collect();
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
        seen.inputs.resize(slopes.count(), Histogram::new());
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

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; BINS], reach: FIRST_REACH }
    }

    /// Adds what channel `c` of `sources` is read as.
    fn look(&mut self, sources: &[Source<'_>], c: usize) {
        let channel = ops::Channel::of(sources, c);
        let [depth, height, width] = channel.dims();
        let mut values = vec![0.0; width];
        for z in 0..depth {
            for y in 0..height {
                row::activate(Isa::SCALAR, &mut values, channel.row(z, y), channel.affine);
                for &v in &values {
                    self.add(v);
                }
            }
        }
    }

    fn add(&mut self, v: f32) {
        if !v.is_finite() {
            return;
        }
        while v.abs() >= self.reach {
            self.widen();
        }
        let bin = (v / self.reach + 1.0) * (BINS / 2) as f32;
        self.counts[(bin as usize).min(BINS - 1)] += 1;
    }

    /// Doubles the reach: pairs of bins become one.
    fn widen(&mut self) {
        let mut wider = vec![0; BINS];
        for (k, pair) in self.counts.chunks_exact(2).enumerate() {
            wider[BINS / 4 + k] = pair[0] + pair[1];
        }
        (self.counts, self.reach) = (wider, self.reach * 2.0);
    }

    /// The middle of bin `k`.
    fn middle(&self, k: usize) -> f64 {
        ((k as f64 + 0.5) / (BINS / 2) as f64 - 1.0) * f64::from(self.reach)
    }

    /// The range, with 0 inside, for which 255 steps have the least squared error: those outside
    /// are as far off as they are from its end.
    fn range(&self) -> [f32; 2] {
        let occurring = |k: &usize| self.counts[*k] > 0;
        let (Some(first), Some(last)) = ((0..BINS).find(occurring), (0..BINS).rfind(occurring))
        else {
            return [0.0, 1.0];
        };
        let bin = f64::from(self.reach) / (BINS / 2) as f64;
        let (low, high) = (self.middle(first) - bin, self.middle(last) + bin);
        let (low, high) = (low.min(0.0), high.max(0.0));
        let part = |end: f64, k: usize| end * k as f64 / TRIED as f64;
        // One end after the other: the error falls apart into those of both.
        let best = |of: &dyn Fn(usize) -> [f64; 2]| {
            let error = |k: usize| self.error(of(k));
            let least = (1..=TRIED).min_by(|&a, &b| error(a).total_cmp(&error(b)));
            of(least.unwrap_or(TRIED))
        };
        let [low, high] = best(&|k| [low, part(high, k)]);
        let [low, high] = best(&|k| [part(low, k), high]);
        [low, high].map(short)
    }

    /// Squared error of 255 steps from `low` to `high`.
    fn error(&self, [low, high]: [f64; 2]) -> f64 {
        let step = (high - low) / 255.0;
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counts
            .map(|(k, &count)| {
                let v = self.middle(k);
                let off = v - v.clamp(low, high);
                count as f64 * (off * off + step * step / 12.0)
            })
            .sum()
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
