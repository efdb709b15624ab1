//! ONNX `Resize`, nearest and linear.

use super::{Channel, Target, for_each_row};
use crate::model::network::{self, Coordinates, Rounding};
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
        let network::Resize { scales, coordinates, nearest } = resize;
        let axes = std::array::from_fn(|k| {
            let (old, new, scale) = (input[k] as f32, output[k] as f32, scales[k]);
            let last = input[k] - 1;
            (0..output[k])
                .map(|x| {
                    let x = x as f32;
                    let at = match coordinates {
                        Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if new <= 1.0 => {
                            0.0
                        }
                        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => {
                            (x + 0.5) / scale - 0.5
                        }
                        Coordinates::AlignCorners => x * (old - 1.0) / (new - 1.0),
                        Coordinates::Asymmetric => x / scale,
                    };
                    let clamp = |v: f32| (v.max(0.0) as usize).min(last);
                    if let Some(rounding) = nearest {
                        let place = clamp(match rounding {
                            Rounding::PreferFloor => (at - 0.5).ceil(),
                            Rounding::PreferCeil => (at + 0.5).floor(),
                            Rounding::Floor => at.floor(),
                            Rounding::Ceil => at.ceil(),
                        });
                        return (place, place, 0.0);
                    }
                    let at = at.clamp(0.0, last as f32);
                    let first = clamp(at.floor());
                    (first, (first + 1).min(last), at - at.floor())
                })
                .collect()
        });
        Self { axes }
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
