//! Runs a plan.

use super::arena::carve;
use super::ops::Target;
use super::plan::{Joined, Operation, Place, Plan, PlannedTensor, Read, Step, TensorId};
use super::{CpuEngine, StepTime, ops};
use crate::Result;
use crate::infer::{TakeSlice, invalid};
use fastnnunet_kernels::Layout;
use fastnnunet_kernels::buffer::{Buffer, ScratchPool};
use fastnnunet_kernels::conv::{Enlarged, Source};
use fastnnunet_kernels::row::{Affine, Moments};
use ndarray::{Array4, ArrayView4, s};
use rayon::prelude::*;
use std::time::Instant;

/// A step that has just been computed.
pub(super) struct Done<'a> {
    pub step: &'a Step,
    pub start: Instant,
    /// What it read.
    pub operands: &'a [Vec<Source<'a>>],
    /// What it made.
    pub made: &'a [f32],
    pub layout: Layout,
}

/// Where the output of a plan goes.
enum Output<'a> {
    /// To an array, `[c, z, y, x]`.
    Array(&'a mut [f32]),
    /// Slice by slice to who takes it, as channels from this one on.
    Slices(&'a TakeSlice<'a>, usize),
}

impl CpuEngine {
    pub(super) fn run_folds(
        &mut self,
        input: &ArrayView4<'_, f32>,
        output: &mut Array4<f32>,
        observe: &mut dyn FnMut(&Done<'_>),
    ) -> Result<()> {
        self.check_shape("an input", input.shape(), self.channels.0)?;
        self.check_shape("an output", output.shape(), self.channels.1)?;
        let Some(output) = output.as_slice_mut() else {
            return Err(invalid("an output in another order", "channels, slices, rows, voxels"));
        };
        self.allocate();
        let folds = self.plans.len();
        if folds == 1 {
            self.run_steps(0, input, Output::Array(output), observe);
        } else if self.head.is_some() {
            // The head reads the features of all folds.
            let features = output.len() / folds;
            for (fold, output) in output.chunks_exact_mut(features).enumerate() {
                self.run_steps(fold, input, Output::Array(output), observe);
            }
        } else {
            self.run_steps(0, input, Output::Array(output), observe);
            let mut answer = std::mem::take(&mut self.answer);
            for fold in 1..folds {
                self.run_steps(fold, input, Output::Array(&mut answer), observe);
                output.par_iter_mut().zip(&answer).for_each(|(sum, v)| *sum += v);
            }
            output.par_iter_mut().for_each(|sum| *sum /= folds as f32);
            self.answer = answer;
        }
        Ok(())
    }

    /// Runs the folds for who takes slices; each fold's features follow those of the one before.
    pub(super) fn give_slices(
        &mut self,
        input: &ArrayView4<'_, f32>,
        take: &TakeSlice<'_>,
    ) -> Result<()> {
        self.check_shape("an input", input.shape(), self.channels.0)?;
        self.allocate();
        let features = self.channels.1 / self.plans.len();
        for fold in 0..self.plans.len() {
            let output = Output::Slices(take, fold * features);
            self.run_steps(fold, input, output, &mut |_| ());
        }
        Ok(())
    }

    fn check_shape(&self, array: &str, found: &[usize], channels: usize) -> Result<()> {
        let [z, y, x] = self.patch;
        let expected = [channels, z, y, x];
        if *found == expected {
            return Ok(());
        }
        Err(invalid(format!("{array} of shape {found:?}"), format!("{expected:?} as planned")))
    }

    fn allocate(&mut self) {
        if self.memory.len() != self.planned {
            self.memory = Buffer::zeros(self.planned);
            self.answer = vec![0.0; self.answer_len()];
        }
    }

    fn run_steps(
        &mut self,
        fold: usize,
        input: &ArrayView4<'_, f32>,
        mut output: Output<'_>,
        observe: &mut dyn FnMut(&Done<'_>),
    ) {
        let Plan { isa, input: first, tensors, affines, steps, .. } = &mut self.plans[fold];
        let first = &tensors[*first];
        if let Place::At(place) = first.place {
            copy_in(input, &mut self.memory[place..][..first.floats()], first.layout);
        }
        for step in steps {
            let start = Instant::now();
            let out = &tensors[step.out];
            let (mut made, held) = parts(&mut self.memory, tensors, step);
            let taken = made.next().unwrap_or_default();
            let ring = made.next().unwrap_or_default();
            let source = |read: &Read| {
                let Some((_, data)) = held.iter().find(|part| part.0 == read.tensor) else {
                    unreachable!("every tensor that is read has a part")
                };
                let PlannedTensor { format, layout, .. } = tensors[read.tensor];
                Source { data, format, layout, affines: &affines[read.affines.clone()] }
            };
            let operands: Vec<Vec<Source<'_>>> =
                step.operands.iter().map(|reads| reads.iter().map(source).collect()).collect();
            let moments = (!out.norms.is_empty()).then_some(&mut self.moments[..]);
            let memory = match (out.place, &mut output) {
                (Place::At(_), _) => &mut *taken,
                (Place::Output, Output::Array(output)) => &mut **output,
                (Place::Output, Output::Slices(take, first)) => {
                    ops::give(*isa, &operands[0], out.layout, |z, slice| take(*first, z, slice));
                    continue;
                }
            };
            let target = Target {
                isa: *isa,
                data: &mut *memory,
                layout: out.layout,
                format: out.format,
                codings: &out.codings,
                moments,
            };
            let pieces = step.run(&operands, target, ring, affines, &self.scratch);
            observe(&Done { step, start, operands: &operands, made: memory, layout: out.layout });
            drop(operands);
            if !out.norms.is_empty() {
                let channels = joined(&self.moments[..pieces], out.layout.channels);
                for norm in &out.norms {
                    let entries = affines[norm.affines.clone()].iter_mut();
                    let parameters = norm.gamma.iter().zip(&norm.beta);
                    for (c, ((affine, m), (gamma, beta))) in
                        entries.zip(&channels).zip(parameters).enumerate()
                    {
                        // Moments are in units of a step; so is what readers scale.
                        let step = f64::from(out.coding(c).step);
                        let epsilon = norm.epsilon / (step * step);
                        let scale = f64::from(*gamma) / (m.variance() + epsilon).sqrt();
                        affine.scale = scale as f32;
                        affine.shift = (f64::from(*beta) - m.mean * scale) as f32;
                    }
                }
            }
        }
    }
}

/// The memory that a step writes, first its output's (none of it, if that is the caller's) and then its own,
/// and of every tensor that it reads.
fn parts<'a>(
    memory: &'a mut [f32],
    tensors: &[PlannedTensor],
    step: &Step,
) -> (impl Iterator<Item = &'a mut [f32]>, Vec<(TensorId, &'a [f32])>) {
    let mut reads: Vec<TensorId> = step.reads().collect();
    reads.sort_unstable();
    reads.dedup();
    let place = |tensor: TensorId| match tensors[tensor].place {
        Place::At(place) => (place, tensors[tensor].floats()),
        // None of it is here.
        Place::Output => (0, 0),
    };
    let wanted: Vec<_> = step.makes().chain(reads.iter().copied()).map(place).collect();
    let mut parts = carve(memory, &wanted);
    let read = parts.split_off(wanted.len() - reads.len());
    (parts.into_iter(), reads.into_iter().zip(read.into_iter().map(|part| &*part)).collect())
}

/// Moments per channel from those of pieces, in order.
fn joined(pieces: &[Moments], channels: usize) -> Vec<Moments> {
    let mut all = vec![Moments::default(); channels];
    for piece in pieces.chunks_exact(channels) {
        all.iter_mut().zip(piece).for_each(|(sum, &m)| *sum = sum.join(m));
    }
    all
}

/// Copies the caller's patch.
fn copy_in(input: &ArrayView4<'_, f32>, target: &mut [f32], layout: Layout) {
    for c in 0..layout.channels {
        for z in 0..layout.dims[0] {
            for y in 0..layout.dims[1] {
                let row = &mut target[layout.at(c, z, y)..][..layout.dims[2]];
                let from = input.slice(s![c, z, y, ..]);
                match from.as_slice() {
                    Some(from) => row.copy_from_slice(from),
                    None => row.iter_mut().zip(&from).for_each(|(t, &v)| *t = v),
                }
            }
        }
    }
}

impl Step {
    /// Computes the step; returns how many moments it computed, if asked for any.
    /// `ring` is memory that it needs for itself.
    fn run(
        &self,
        operands: &[Vec<Source<'_>>],
        out: Target<'_>,
        ring: &mut [f32],
        affines: &[Affine],
        scratch: &ScratchPool,
    ) -> usize {
        let first = &operands[0][..];
        match &self.operation {
            Operation::Conv(conv) => {
                let (Target { data, layout, moments, .. }, count) = (out, conv.moments_len());
                let moments = moments.map(|moments| &mut moments[..count]);
                conv.run(first, data, layout, moments, scratch);
                count
            }
            Operation::Upsample(up) => {
                let (Target { data, layout, moments, .. }, count) = (out, up.moments_len());
                let moments = moments.map(|moments| &mut moments[..count]);
                up.run(first, data, layout, moments, scratch);
                count
            }
            Operation::UpsampledConv(joined) => {
                let Joined { layers, place, enlarged } = &**joined;
                let (Target { data, layout, moments, .. }, count) = (out, layers.moments_len());
                let moments = moments.map(|moments| &mut moments[..count]);
                let affines = &affines[enlarged.affines.clone()];
                let enlarged = Enlarged { sources: &operands[1], place: *place, affines, ring };
                layers.run(first, enlarged, (data, layout), moments, scratch);
                count
            }
            Operation::TransposedConv(conv) => conv.run(first, out),
            Operation::Pool(pool) => pool.run(first, out),
            Operation::Resize(resize) => resize.run(first, out),
            Operation::GlobalAverage => ops::global_average(first, out),
            Operation::Copy => ops::copy(first, out),
            Operation::Add => ops::combine(first, &operands[1], out, |a, b| a + b),
            Operation::Multiply => ops::combine(first, &operands[1], out, |a, b| a * b),
            Operation::Sigmoid => ops::map(first, out, |v| 1.0 / (1.0 + (-v).exp())),
            Operation::Softmax => ops::softmax(first, out),
        }
    }

    /// What it took since `start`.
    pub(super) fn time(&self, start: Instant) -> StepTime {
        let seconds = start.elapsed().as_secs_f64();
        let (kernel, flops) = match &self.operation {
            Operation::Conv(conv) => (conv.name(), conv.shape().flops()),
            Operation::Upsample(up) => (up.name(), up.flops()),
            Operation::UpsampledConv(joined) => (joined.layers.name(), joined.layers.flops()),
            Operation::TransposedConv(_) => ("transposed-conv".into(), 0),
            Operation::Pool(_) => ("pool".into(), 0),
            Operation::Resize(_) => ("resize".into(), 0),
            Operation::GlobalAverage => ("global-average".into(), 0),
            Operation::Copy => ("copy".into(), 0),
            Operation::Add => ("add".into(), 0),
            Operation::Multiply => ("multiply".into(), 0),
            Operation::Sigmoid => ("sigmoid".into(), 0),
            Operation::Softmax => ("softmax".into(), 0),
        };
        StepTime { name: format!("{} [{kernel}]", self.name), flops, seconds }
    }
}
