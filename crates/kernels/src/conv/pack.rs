//! Weights as the kernels read them.

use super::multiplier::{Block, Unpacked};
use super::{Arithmetic, Conv, Layer, Shape};
use crate::buffer::Buffer;
use crate::row::{round_bf16, transform_weights};
use rayon::prelude::*;

/// Starts that a kernel may read beyond the last output channel.
const MORE_STARTS: usize = 32;

/// Largest weight of an output channel.
const LARGEST_BYTE: f32 = 127.0;

/// Weights as bytes: the quotients of weights, times the step of their input channel, and the
/// output channel's scale, rounded to the nearest integer, halves away from zero.
struct ByteWeights {
    /// `[outputs, inputs, taps]`.
    bytes: Vec<i8>,
    /// One per output channel.
    scales: Vec<f32>,
}

impl ByteWeights {
    fn new(layer: &Layer<'_>) -> Self {
        let Layer { ref shape, weights, bytes: codes, .. } = *layer;
        let taps: usize = shape.kernel.iter().product();
        let (mut bytes, mut scales) = (Vec::with_capacity(weights.len()), Vec::new());
        for weights in weights.chunks_exact(shape.inputs * taps) {
            let scaled: Vec<f32> = weights
                .chunks_exact(taps)
                .zip(codes)
                .flat_map(|(weights, code)| weights.iter().map(|w| w * code.step))
                .collect();
            let largest = scaled.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
            let scale = if largest > 0.0 { largest / LARGEST_BYTE } else { 1.0 };
            bytes.extend(scaled.iter().map(|w| (w / scale).round() as i8));
            scales.push(scale);
        }
        Self { bytes, scales }
    }
}

impl Conv {
    pub(super) fn pack(&mut self, layer: &Layer<'_>) {
        let Shape { inputs, outputs, groups, .. } = self.shape;
        let (group_inputs, group_outputs) = (inputs / groups, outputs / groups);
        let taps: usize = self.shape.kernel.iter().product();
        let quantized = (self.arithmetic == Arithmetic::Int8).then(|| ByteWeights::new(layer));
        let place = |output: usize, input: usize, tap: usize| {
            (input < group_inputs).then(|| (output * group_inputs + input) * taps + tap)
        };
        let weight = |output: usize, input: usize, tap: usize| {
            place(output, input, tap).map_or(0.0, |at| layer.weights[at])
        };
        let element = |output: usize, channel: usize, tap: usize| match &quantized {
            Some(quantized) => u32::from_le_bytes(std::array::from_fn(|k| {
                let at = place(output, 4 * channel + k, tap);
                at.map_or(0, |at| quantized.bytes[at].cast_unsigned())
            })),
            None if self.arithmetic == Arithmetic::Bf16 => {
                round_bf16(weight(output, 2 * channel, tap)) >> 16
                    | round_bf16(weight(output, 2 * channel + 1, tap))
            }
            None => weight(output, channel, tap).to_bits(),
        };
        let slots = if self.folded { self.geometry.slots } else { 1 };
        let slot_channels = self.geometry.channels / groups;
        let unpacked = Unpacked { taps, slots, slot_channels, element: &element };
        let mut blocks = Vec::new();
        for group in 0..groups {
            let (mut output, end) = (group * group_outputs, (group + 1) * group_outputs);
            while output < end {
                let mut block = self.multiplier.block(end - output, slot_channels * slots);
                (block.output, block.first_channel) = (output, group * slot_channels);
                output += block.stored;
                blocks.push(block);
            }
        }
        let pack = |block: &Block| {
            let mut packed = Vec::new();
            if self.geometry.tile > 1 {
                self.pack_transformed(&mut packed, block, layer.weights);
            } else {
                self.multiplier.pack(block, &unpacked, &mut packed);
            }
            packed
        };
        let parts: Vec<Vec<u32>> = blocks.par_iter().map(pack).collect();
        let mut start = 0;
        for (block, part) in blocks.iter_mut().zip(&parts) {
            block.weights = start;
            start += part.len();
        }
        (self.blocks, self.weights) = (blocks, Buffer::from_bits(&parts));
        self.start_sums(layer, quantized.as_ref());
    }

    /// What sums start from and what is done to them: the bias is added in one of the two.
    fn start_sums(&mut self, layer: &Layer<'_>, quantized: Option<&ByteWeights>) {
        let coded = |output: usize| {
            let coding = layer.codings.get(output);
            coding.map_or([1.0, 0.0], |coding| coding.affine())
        };
        if let Some(ByteWeights { bytes, scales }) = quantized {
            let outputs = layer.bias.iter().zip(scales).enumerate();
            self.codings = outputs
                .map(|(output, (bias, scale))| {
                    let [factor, summand] = coded(output);
                    [scale * factor, bias * factor + summand]
                })
                .collect();
            // Bytes stand for numbers that are 0 at the code's zero.
            let (slices, offset) = (self.shape.kernel[0], self.multiplier.bytes().offset());
            let taps: usize = self.shape.kernel.iter().product();
            let more = std::iter::repeat_n(0, MORE_STARTS * slices);
            self.starts = bytes
                .chunks_exact(self.shape.inputs * taps)
                .flat_map(|output| {
                    (0..slices).map(|z| {
                        let input = |(input, code): (&[i8], &super::ByteCode)| {
                            let slice = input.chunks_exact(taps / slices).nth(z);
                            let sum: i32 = slice.into_iter().flatten().map(|&w| i32::from(w)).sum();
                            sum * (offset - i32::from(code.zero))
                        };
                        let sum = output.chunks_exact(taps).zip(&self.bytes).map(input);
                        sum.sum::<i32>().cast_unsigned()
                    })
                })
                .chain(more)
                .collect();
            return;
        }
        if !layer.codings.is_empty() {
            self.codings = (0..self.shape.outputs).map(coded).collect();
        }
        let more = std::iter::repeat_n(0, MORE_STARTS);
        self.starts = layer.bias.iter().map(|bias| bias.to_bits()).chain(more).collect();
    }

    /// Weights of one block for minimal filtering: for each transformed row those of all inputs.
    fn pack_transformed(&self, packed: &mut Vec<u32>, block: &Block, weights: &[f32]) {
        let Block { output, stored, width, .. } = *block;
        let (inputs, tile) = (self.shape.inputs, self.geometry.tile);
        let [depth, rows, columns] = self.shape.kernel;
        let taps = depth * columns;
        let start = packed.len();
        let phase_len = inputs * taps * width;
        packed.resize(start + (tile + 2) * phase_len, 0);
        for k in 0..stored {
            for input in 0..inputs {
                for tap in 0..taps {
                    let [z, x] = [tap / columns, tap % columns];
                    let row = |y: usize| {
                        let place = ((output + k) * inputs + input) * depth + z;
                        f64::from(weights[(place * rows + y) * columns + x])
                    };
                    let transformed = transform_weights(tile, [row(0), row(1), row(2)]);
                    let at = start + (input * taps + tap) * width + k;
                    for (phase, w) in transformed.into_iter().enumerate() {
                        packed[at + phase * phase_len] = (w as f32).to_bits();
                    }
                }
            }
        }
    }
}
