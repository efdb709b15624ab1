//! ONNX `Resize`, nearest and linear.

use super::{Channel, Target, for_each_row};
use crate::model::network;
use fastnnunet_kernels::conv::Source;

/// A resizing layer.
#[derive(Clone, Debug)]
pub(in crate::infer::cpu) struct Resize {
    /// Per axis and output voxel, two input voxels and the weight of the second.
    axes: [Vec<(usize, usize, f32)>; 3],
}

impl Resize {
    /// From `input` to `output` voxels.
    pub(in crate::infer::cpu) fn new(
        input: [usize; 3],
        output: [usize; 3],
        resize: network::Resize,
    ) -> Self {
        Self { axes: resize.taps(input, output) }
    }

    pub(in crate::infer::cpu) fn run(&self, sources: &[Source<'_>], out: Target<'_>) -> usize {
        for_each_row(out, |c, z, y, row| {
            let channel = Channel::of(sources, c);
            let (z0, z1, wz) = self.axes[0][z];
            let (y0, y1, wy) = self.axes[1][y];
            let corners = [(z0, y0), (z0, y1), (z1, y0), (z1, y1)];
            for (t, &(x0, x1, wx)) in row.iter_mut().zip(&self.axes[2]) {
                let mix = |a: f32, b: f32, w: f32| if w == 0.0 { a } else { a * (1.0 - w) + b * w };
                let [a, b, c, d] =
                    corners.map(|(z, y)| mix(channel.at(z, y, x0), channel.at(z, y, x1), wx));
                *t = mix(mix(a, b, wy), mix(c, d, wy), wz);
            }
        })
    }
}
