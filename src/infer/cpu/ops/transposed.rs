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
        let dims = channels[0].dims();
        let (group_inputs, group_outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        let taps: usize = self.kernel.iter().product();
        for_each_row(out, |c, z, y, row| {
            let group = c / group_outputs;
            for (x, t) in row.iter_mut().enumerate() {
                let mut sum = self.bias[c];
                for tap in 0..taps {
                    let [_, ky, kx] = self.kernel;
                    let offset = [tap / (ky * kx), tap / kx % ky, tap % kx];
                    // The input voxel that reaches here with this tap, where there is one.
                    let mut place = [0; 3];
                    let reached = (0..3).all(|k| {
                        let at = [z, y, x][k] + self.pad_begin[k];
                        let Some(at) = at.checked_sub(offset[k] * self.dilation[k]) else {
                            return false;
                        };
                        place[k] = at / self.stride[k];
                        at % self.stride[k] == 0 && place[k] < dims[k]
                    });
                    if !reached {
                        continue;
                    }
                    for (k, channel) in
                        channels[group * group_inputs..][..group_inputs].iter().enumerate()
                    {
                        let w = ((group * group_inputs + k) * group_outputs + c % group_outputs)
                            * taps
                            + tap;
                        sum += channel.at(place[0], place[1], place[2]) * self.weights[w];
                    }
                }
                *t = sum;
            }
        })
    }
}
