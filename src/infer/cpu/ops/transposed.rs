//! Transposed convolution of any kernel and stride; [`Upsample`](fastnnunet_kernels::conv::Upsample)
//! is the fast one.

use super::{Channel, Target, for_each_row};
use fastnnunet_kernels::conv::Source;

/// A transposed convolution.
#[derive(Clone, Debug)]
pub(in crate::infer::cpu) struct TransposedConv {
    pub inputs: usize,
    pub outputs: usize,
    pub groups: usize,
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub pad_begin: [usize; 3],
    pub dilation: [usize; 3],
    /// `[inputs, outputs / groups, z, y, x]`.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl TransposedConv {
    pub(in crate::infer::cpu) fn run(&self, sources: &[Source<'_>], out: Target<'_>) -> usize {
        let channels: Vec<_> = (0..self.inputs).map(|c| Channel::of(sources, c)).collect();
        let width = channels[0].dims()[2];
        let (group_inputs, group_outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        let taps: usize = self.kernel.iter().product();
        for_each_row(out, |c, z, y, row| {
            let first = c / group_outputs * group_inputs;
            let channels = &channels[first..][..group_inputs];
            let mut read = vec![0.0; group_inputs * width];
            row.fill(self.bias[c]);
            for (kz, from_z) in self.reaching(0, z, channels) {
                for (ky, from_y) in self.reaching(1, y, channels) {
                    for (channel, read) in channels.iter().zip(read.chunks_exact_mut(width)) {
                        let voxels = read.iter_mut().enumerate();
                        voxels.for_each(|(x, v)| *v = channel.at(from_z, from_y, x));
                    }
                    for kx in 0..self.kernel[2] {
                        let tap = (kz * self.kernel[1] + ky) * self.kernel[2] + kx;
                        let weights = (first..).map(|input| {
                            self.weights[(input * group_outputs + c % group_outputs) * taps + tap]
                        });
                        for (read, weight) in read.chunks_exact(width).zip(weights) {
                            self.spread(read, weight, kx, row);
                        }
                    }
                }
            }
        })
    }

    /// The taps along `axis` that reach output `at`, and the input each comes from.
    fn reaching<'a>(
        &'a self,
        axis: usize,
        at: usize,
        channels: &[Channel<'_>],
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let dim = channels[0].dims()[axis];
        (0..self.kernel[axis]).filter_map(move |tap| {
            let from = (at + self.pad_begin[axis]).checked_sub(tap * self.dilation[axis])?;
            let (place, between) = (from / self.stride[axis], from % self.stride[axis]);
            (between == 0 && place < dim).then_some((tap, place))
        })
    }

    /// Adds a row of inputs where tap `kx` of a row puts them.
    fn spread(&self, read: &[f32], weight: f32, kx: usize, row: &mut [f32]) {
        let [_, _, stride] = self.stride;
        let (ahead, before) = (kx * self.dilation[2], self.pad_begin[2]);
        let outside = before.saturating_sub(ahead).div_ceil(stride);
        let Some(read) = read.get(outside..) else { return };
        let Some(row) = row.get_mut(outside * stride + ahead - before..) else { return };
        for (sum, v) in row.iter_mut().step_by(stride).zip(read) {
            *sum += v * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::cpu::Isa;
    use fastnnunet_kernels::Layout;
    use fastnnunet_kernels::conv::Format;
    use fastnnunet_kernels::row::Affine;

    fn noise(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// What each input adds where its taps put it.
    fn scattered(conv: &TransposedConv, input: &[f32], from: Layout, to: Layout) -> Vec<f64> {
        let (group_inputs, group_outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
        let [kz, ky, kx] = conv.kernel;
        let taps = kz * ky * kx;
        let mut sums = vec![0.0; to.len()];
        for c in 0..conv.outputs {
            let voxels = &mut sums[to.at(c, 0, 0)..][..to.channel_stride];
            voxels.fill(f64::from(conv.bias[c]));
        }
        for (at, &value) in input.iter().enumerate() {
            let (input_channel, inside) = (at / from.channel_stride, at % from.channel_stride);
            let place =
                [inside / from.z_stride, inside / from.pitch % from.dims[1], inside % from.pitch];
            for (output, tap) in (0..group_outputs).flat_map(|o| (0..taps).map(move |t| (o, t))) {
                let offset = [tap / (ky * kx), tap / kx % ky, tap % kx];
                let reached: Option<Vec<usize>> = (0..3)
                    .map(|k| {
                        let there = place[k] * conv.stride[k] + offset[k] * conv.dilation[k];
                        there.checked_sub(conv.pad_begin[k]).filter(|&there| there < to.dims[k])
                    })
                    .collect();
                let Some(there) = reached else { continue };
                let c = input_channel / group_inputs * group_outputs + output;
                let weight = conv.weights[(input_channel * group_outputs + output) * taps + tap];
                sums[to.at(c, there[0], there[1]) + there[2]] +=
                    f64::from(weight) * f64::from(value);
            }
        }
        sums
    }

    #[test]
    fn every_kernel_and_stride_matches_what_is_scattered() {
        let cases = [
            ([3, 3, 3], [1, 1, 1], [0, 0, 0], [1, 1, 1], 1),
            ([4, 4, 4], [2, 2, 2], [1, 1, 1], [1, 1, 1], 2),
            ([5, 2, 3], [3, 1, 2], [2, 0, 1], [1, 1, 2], 1),
            ([1, 2, 1], [3, 3, 4], [0, 1, 0], [1, 2, 1], 2),
            ([2, 3, 5], [1, 2, 3], [1, 4, 9], [2, 1, 2], 1),
        ];
        for (kernel, stride, pad_begin, dilation, groups) in cases {
            let from = Layout::dense(4, [2, 3, 5]);
            let dims = std::array::from_fn(|k| {
                let whole = (from.dims[k] - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1;
                (whole + 1).saturating_sub(pad_begin[k]).max(1)
            });
            let taps: usize = kernel.iter().product();
            let weights = noise(4 * (6 / groups) * taps);
            let bias = noise(6);
            let (inputs, outputs) = (4, 6);
            let conv = TransposedConv {
                inputs,
                outputs,
                groups,
                kernel,
                stride,
                pad_begin,
                dilation,
                weights,
                bias,
            };
            let (input, to) = (noise(from.len()), Layout::dense(outputs, dims));
            let affines = vec![Affine::IDENTITY; inputs];
            let source =
                Source { data: &input, format: Format::F32, layout: from, affines: &affines };
            let mut data = vec![f32::NAN; to.len()];
            let target = Target {
                isa: Isa::best(),
                data: &mut data,
                layout: to,
                format: Format::F32,
                codings: &[],
                moments: None,
            };
            conv.run(&[source], target);
            for (found, exact) in data.iter().zip(scattered(&conv, &input, from, to)) {
                assert!(
                    (f64::from(*found) - exact).abs() < 1e-4,
                    "kernel {kernel:?}: {found}, {exact}"
                );
            }
        }
    }
}
