//! The launches of each step.

use super::build::{Planner, is_quick, is_upsampling};
use super::{Action, Last, Made, Number, Operand, Precision, Sliding};
use crate::choose::Wanted;
use crate::conv::{Bases, Conv, Kernel, pack};
use crate::kernels::general::Pointwise;
use crate::kernels::moments::Task;
use fastnnunet_model::Mismatch;
use fastnnunet_model::network::fused::{Operation, Part, Step, TensorId, View};
use fastnnunet_model::network::{self, Window};
use half::{bf16, f16};

/// Voxels of a piece of a map whose moments one cube takes; fewer where one thread does.
const PIECE: usize = 4096;
const PIECE_ALONE: usize = 1024;

impl Planner {
    /// Plans one step.
    pub(super) fn emit(&mut self, step: &Step) -> Result<(), Mismatch> {
        let first = &step.operands[0];
        let out = step.out;
        match &step.operation {
            Operation::Conv(conv) | Operation::TransposedConv(conv) => {
                let (gpu, made) = (self.settings.gpu, self.tensors[out].dims);
                let quick = is_quick(gpu, &step.operation, first.dims, made);
                if !(quick && self.conv(step, conv)) {
                    self.general(step, conv)?;
                }
                return Ok(());
            }
            Operation::Copy => self.copy(first, out),
            Operation::Sigmoid => self.combine(step, Pointwise::Sigmoid),
            Operation::Add => self.combine(step, Pointwise::Add),
            Operation::Multiply => self.combine(step, Pointwise::Multiply),
            Operation::Softmax => {
                let (source, made) = (self.operand(&first.parts[0]), self.made(out));
                self.step(Action::Softmax { source, made });
            }
            Operation::Pool(pool, window) => {
                let (source, made) = (self.operand(&first.parts[0]), self.made(out));
                self.step(Action::Pool { pool: *pool, window: (*window).into(), source, made });
            }
            Operation::Resize(resize) => {
                let taps = resize.taps(first.dims, self.tensors[out].dims);
                let rows = taps.iter().flatten();
                let table: Vec<f32> = rows.flat_map(|&(a, b, w)| [a as f32, b as f32, w]).collect();
                let table = self.push(&table) * 4;
                let (source, made) = (self.operand(&first.parts[0]), self.made(out));
                self.step(Action::Resize { table, source, made });
            }
            Operation::GlobalAverage => {
                let (source, made) = (self.operand(&first.parts[0]), self.made(out));
                self.step(Action::Average { source, made });
            }
        }
        self.moments(out);
        Ok(())
    }

    fn step(&mut self, action: Action) {
        self.plan.steps.push(action);
    }

    /// All channels of a tensor.
    fn made(&self, out: TensorId) -> Made {
        let tensor = &self.tensors[out];
        Made {
            slot: tensor.slot,
            number: tensor.number,
            lanes: tensor.lanes,
            channels: tensor.channels,
            dims: tensor.dims,
            first: 0,
            all: tensor.channels,
        }
    }

    fn combine(&mut self, step: &Step, operation: Pointwise) {
        let left = self.operand(&step.operands[0].parts[0]);
        let right = step.operands.get(1).map_or(left, |view| self.operand(&view.parts[0]));
        let made = self.made(step.out);
        self.step(Action::Combine { operation, left, right, made });
    }

    /// The parts of `view` one after the other.
    fn copy(&mut self, view: &View, out: TensorId) {
        let made = self.made(out);
        let mut first = 0;
        for part in &view.parts {
            let left = self.operand(part);
            let made = Made { channels: left.channels, first, ..made };
            self.step(Action::Combine { operation: Pointwise::Copy, left, right: left, made });
            first += left.channels;
        }
    }

    /// How results leave: `part` as it is read, or a convolution of it.
    pub(super) fn finish_with(&mut self, part: &Part, head: Option<&network::Conv>) {
        let source = self.operand(part);
        let Some(conv) = head else {
            let (outputs, weights) = (source.channels, 0);
            self.plan.last = Last { source, outputs, head: false, bias: 0, weights };
            return;
        };
        let outputs = conv.weights.dims()[0];
        let bias = self.push_bias(&conv.bias.to_vec(outputs));
        let blocks = source.channels.div_ceil(8);
        let weights = self.vectors();
        for group in 0..outputs.div_ceil(8) {
            for c in 0..blocks * 8 {
                for o in group * 8..group * 8 + 8 {
                    let inside = o < outputs && c < source.channels;
                    let weight = if inside { conv.weights[o * source.channels + c] } else { 0.0 };
                    self.plan.singles.push(weight);
                }
            }
        }
        self.plan.last = Last { source, outputs, head: true, bias, weights };
    }

    /// Grows a buffer.
    fn at_least(&mut self, slot: super::Slot, bytes: usize) {
        let bytes = (bytes as u64).next_multiple_of(256);
        self.plan.slots[slot] = self.plan.slots[slot].max(bytes);
    }

    /// Moments of a tensor that is there, where somebody needs them.
    fn moments(&mut self, out: TensorId) {
        if self.tensors[out].norms.is_empty() {
            return;
        }
        let source = self.tensors[out].slot;
        self.finish(out, source, Number::Own, 1, 0, false);
    }

    /// Adds up `splits` parts of a sum (`sums`), and takes the moments that are needed.
    fn finish(
        &mut self,
        out: TensorId,
        source: super::Slot,
        from: Number,
        splits: usize,
        bias: usize,
        sums: bool,
    ) {
        let tensor = &self.tensors[out];
        let (voxels, blocks, slot) = (tensor.voxels(), tensor.blocks(), tensor.slot);
        let norms = tensor.norms.clone();
        let most = if self.plan.team > 1 { PIECE } else { PIECE_ALONE };
        let pieces = voxels.div_ceil(most);
        // Pieces of equal size.
        let piece = voxels.div_ceil(pieces);
        let nothing = super::Norm { blocks, from: 0, to: 0, epsilon: 1.0 };
        let whole = pieces == 1 && norms.len() == 1;
        let task = Task { sums, moments: !norms.is_empty(), whole };
        let norm = norms.first().copied().unwrap_or(nothing);
        self.at_least(self.plan.parts, self.settings.images * blocks * pieces * 96);
        self.step(Action::Finish {
            task,
            source,
            from,
            output: slot,
            norm,
            voxels,
            piece,
            splits,
            bias,
        });
        if !whole {
            for norm in norms {
                self.step(Action::Merge { norm, pieces });
            }
        }
    }

    /// A convolution on our quick kernels; false if none takes it.
    fn conv(&mut self, step: &Step, layer: &network::Conv) -> bool {
        let view = &step.operands[0];
        let (channels, dims) = (self.tensors[step.out].channels, self.tensors[step.out].dims);
        let norms = self.tensors[step.out].norms.clone();
        let up = matches!(step.operation, Operation::TransposedConv(_))
            && is_upsampling(layer, view.dims, dims);
        let inputs: Vec<Operand> = view.parts.iter().map(|part| self.operand(part)).collect();
        let Window { kernel, stride, pad_begin, .. } = layer.window;
        let conv = Conv {
            inputs: inputs.iter().map(|operand| operand.channels).collect(),
            outputs: channels,
            input: view.dims,
            output: if up { view.dims } else { dims },
            kernel: if up { [1; 3] } else { kernel },
            stride: if up { [1; 3] } else { stride },
            pad: pad_begin,
            scatter: if up { stride } else { [1; 3] },
            lanes: inputs[0].lanes,
        };
        let precision = self.settings.precision;
        let images = self.settings.images;
        // Scattered outputs have no tiles of their own to take moments of.
        let wanted = Wanted { moments: !norms.is_empty() && !up, bytes: precision.bytes(), images };
        let brain = (precision != Precision::F32).then_some(precision == Precision::Bf16);
        let known = self.settings.known.get(&(conv.clone(), images)).copied();
        let best = || self.chooser.best(&self.settings.gpu, &conv, wanted, brain);
        let Some(way) = known.or_else(best) else { return false };
        let weights = self.weights(&packed(&conv, &way, layer, up), &way.kernel);
        let bias = self.push_bias(&layer.bias.to_vec(channels));
        let mut bases = Bases { bias, weights, ..Bases::default() };
        for (k, operand) in inputs.iter().enumerate() {
            bases.affine[k] = operand.entry;
            bases.stride[k] = operand.stride;
        }
        let slots = [inputs[0].slot, inputs.get(1).unwrap_or(&inputs[0]).slot];
        let output = self.tensors[step.out].slot;
        let tiles: usize = way.tiles(&conv).iter().product();
        let (splits, sums, blocks) = (way.splits, self.plan.sums, conv.blocks_out());
        if splits > 1 {
            self.at_least(sums, images * conv.made() * 8 * conv.voxels() * splits * 4);
        } else if wanted.moments {
            self.at_least(self.plan.parts, images * blocks * tiles * 96);
        }
        let input = inputs[0].number;
        self.step(Action::Conv { conv, way, bases, inputs: slots, input, output });
        if splits > 1 {
            self.finish(step.out, sums, Number::Single, splits, bias, true);
        } else if wanted.moments {
            for norm in norms {
                self.step(Action::Merge { norm, pieces: tiles });
            }
        } else {
            self.moments(step.out);
        }
        true
    }

    /// Fills the last vector of single numbers; returns how many there are.
    fn vectors(&mut self) -> usize {
        let singles = &mut self.plan.singles;
        singles.resize(singles.len().next_multiple_of(4), 0.0);
        singles.len() / 4
    }

    /// Keeps packed weights; returns where they begin, in vectors as the kernel reads them.
    fn weights(&mut self, packed: &[f32], kernel: &Kernel) -> usize {
        match kernel {
            Kernel::Direct(_) => {
                let at = self.vectors();
                self.plan.singles.extend_from_slice(packed);
                at
            }
            Kernel::Matrix(form) => {
                let halves = &mut self.plan.halves;
                halves.resize(halves.len().next_multiple_of(8), 0);
                let at = halves.len();
                halves.extend(packed.iter().map(|&v| {
                    if form.brain {
                        bf16::from_f32(v).to_bits()
                    } else {
                        f16::from_f32(v).to_bits()
                    }
                }));
                at / if form.columns == 1 { 4 } else { 8 }
            }
        }
    }

    /// Any convolution.
    fn general(&mut self, step: &Step, layer: &network::Conv) -> Result<(), Mismatch> {
        let view = &step.operands[0];
        let [part] = &view.parts[..] else {
            let found = format!("a convolution of joined values (node {:?})", step.name);
            return Err(Mismatch::new(found, "one that fits the device's kernels"));
        };
        let (source, made) = (self.operand(part), self.made(step.out));
        let bias = self.push_bias(&layer.bias.to_vec(made.channels)) * 4;
        let weights = self.plan.singles.len();
        self.plan.singles.extend_from_slice(&layer.weights);
        self.vectors();
        let transposed = matches!(step.operation, Operation::TransposedConv(_));
        let (window, groups) = (layer.window.into(), layer.groups);
        self.step(Action::General { transposed, window, groups, weights, bias, source, made });
        self.moments(step.out);
        Ok(())
    }
}

/// The weights of `layer` as the kernel of `way` reads them; `up` where it is an upsampling.
fn packed(conv: &Conv, way: &crate::conv::Way, layer: &network::Conv, up: bool) -> Vec<f32> {
    let (all, outputs) = (conv.inputs.iter().sum::<usize>(), conv.outputs);
    let taps = layer.window.kernel.iter().product::<usize>();
    let values: &[f32] = &layer.weights;
    let weight = |o: usize, c: usize, tap: usize| {
        let row = if up { c * outputs + o } else { o * all + c };
        values[row * taps + tap]
    };
    pack(conv, way, &weight)
}

impl From<Window> for Sliding {
    fn from(window: Window) -> Self {
        let Window { kernel, stride, dilation, pad_begin, pad_end } = window;
        Self { kernel, stride, dilation, pad: pad_begin, pad_end }
    }
}
