//! Pooling.

use super::{Channel, Target, for_each_row};
use crate::model::network;
use fastnnunet_kernels::conv::{Shape, Source};

/// A pooling layer; the shape's channels are not used.
#[derive(Clone, Debug)]
pub(in crate::infer::cpu) struct Pool {
    pub kind: network::Pool,
    pub shape: Shape,
}

impl Pool {
    pub(in crate::infer::cpu) fn run(&self, sources: &[Source<'_>], out: Target<'_>) -> usize {
        let Shape { kernel, stride, pad_begin, pad_end, dilation, input, .. } = &self.shape;
        for_each_row(out, |c, z, y, row| {
            let channel = Channel::of(sources, c);
            for (x, t) in row.iter_mut().enumerate() {
                let (mut sum, mut largest) = (0.0, f32::MIN);
                let (mut count, mut padded) = (0, 0);
                let out = [z, y, x];
                for tap in 0..kernel.iter().product() {
                    let tap = [
                        tap / (kernel[1] * kernel[2]),
                        tap / kernel[2] % kernel[1],
                        tap % kernel[2],
                    ];
                    let place: [usize; 3] =
                        std::array::from_fn(|k| out[k] * stride[k] + tap[k] * dilation[k]);
                    if (0..3).all(|k| place[k] < pad_begin[k] + input[k] + pad_end[k]) {
                        padded += 1;
                    }
                    if (0..3).all(|k| (pad_begin[k]..pad_begin[k] + input[k]).contains(&place[k])) {
                        let [z, y, x] = std::array::from_fn(|k| place[k] - pad_begin[k]);
                        let v = channel.at(z, y, x);
                        sum += v;
                        largest = if v > largest { v } else { largest };
                        count += 1;
                    }
                }
                *t = match self.kind {
                    network::Pool::Max => largest,
                    network::Pool::Average => sum / count as f32,
                    network::Pool::AveragePadded => sum / padded as f32,
                };
            }
        })
    }
}
