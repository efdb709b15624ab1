//! Pooling, resizing and reshaping.

use super::convs::{Window, axes};
use super::{Lowering, View, bad};
use crate::Result;
use crate::infer::cpu::ops::{Coordinates, Pool, PoolKind, Resize, Rounding};
use crate::infer::cpu::plan::Operation;
use crate::model::onnx::Node;
use fastnnunet_kernels::conv::Shape;

impl Lowering<'_> {
    pub(super) fn pool(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let kernel = axes(node, self.rank, node.ints("kernel_shape").unwrap_or_default(), 1)?;
        if node.int("ceil_mode").unwrap_or(0) != 0 || node.outputs.len() > 1 {
            return Err(bad(node, "ceil_mode or a second output", "neither"));
        }
        let Window { stride, dilation, pad_begin, pad_end } =
            self.window(node, kernel, view.dims)?;
        let channels = self.view_channels(&view);
        let plain = Shape::plain(channels, channels, view.dims, kernel);
        let shape = Shape { stride, pad_begin, pad_end, dilation, ..plain };
        let empty = (0..3).any(|k| pad_begin[k] >= kernel[k] || pad_end[k] >= kernel[k]);
        let Some(dims) = shape.output().filter(|_| !empty) else {
            return Err(bad(
                node,
                format!("an input of {:?} voxels", view.dims),
                "one the kernel fits",
            ));
        };
        let kind = match (node.op.as_str(), node.int("count_include_pad").unwrap_or(0)) {
            ("MaxPool", _) => PoolKind::Max,
            (_, 0) => PoolKind::Average,
            _ => PoolKind::AveragePadded,
        };
        self.make(&node.name, Operation::Pool(Pool { kind, shape }), &[&view], (channels, dims))
    }

    pub(super) fn global_pool(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        self.make(&node.name, Operation::GlobalAverage, &[&view], (channels, [1; 3]))
    }

    pub(super) fn resize(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        let skipped = 3 - self.rank;
        let (mut output, mut scales) = (view.dims, [1.0_f32; 3]);
        let bad_size = |found: String| bad(node, found, "the same batch and channels, and a size");
        let sizes = self.constant(node, 3)?.filter(|t| !t.is_empty());
        if let Some(sizes) = sizes.as_ref().and_then(|t| t.ints()) {
            if sizes.len() != self.rank + 2 || sizes[1] != channels as i64 {
                return Err(bad_size(format!("sizes {sizes:?}")));
            }
            for k in skipped..3 {
                let size = usize::try_from(sizes[2 + k - skipped]).unwrap_or(0);
                output[k] = size;
                scales[k] = size as f32 / view.dims[k] as f32;
            }
        } else {
            match self.floats(node, 2)? {
                Some((_, list)) if list.len() == self.rank + 2 && list[..2] == [1.0, 1.0] => {
                    for k in skipped..3 {
                        scales[k] = list[2 + k - skipped];
                        output[k] = (view.dims[k] as f32 * scales[k]).floor() as usize;
                    }
                }
                other => return Err(bad_size(format!("scales {other:?}"))),
            }
        }
        if output.iter().any(|n| !(1..=1 << 14).contains(n)) || node.ints("axes").is_some() {
            return Err(bad_size(format!("{output:?} voxels")));
        }
        let coordinates = match node.text("coordinate_transformation_mode").unwrap_or("half_pixel")
        {
            "half_pixel" => Coordinates::HalfPixel,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            other => return Err(bad(node, format!("coordinates {other:?}"), "a supported mode")),
        };
        let rounding = match node.text("nearest_mode").unwrap_or("round_prefer_floor") {
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(bad(node, format!("rounding {other:?}"), "a known mode")),
        };
        let nearest = match node.text("mode").unwrap_or("nearest") {
            "nearest" => Some(rounding),
            "linear" => None,
            other => return Err(bad(node, format!("mode {other:?}"), "nearest or linear")),
        };
        let resize = Resize::new(view.dims, output, scales, coordinates, nearest);
        self.make(&node.name, Operation::Resize(resize), &[&view], (channels, output))
    }

    /// Only where nothing changes.
    pub(super) fn reshape(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let target = self.constant(node, 1)?;
        let shape: Vec<usize> = [1, self.view_channels(&view)]
            .into_iter()
            .chain(view.dims[3 - self.rank..].iter().copied())
            .collect();
        let wanted = target.as_ref().and_then(|t| t.ints()).unwrap_or_default();
        let open = wanted.iter().filter(|&&n| n == -1).count();
        let same = wanted.len() == shape.len()
            && open <= 1
            && wanted.iter().zip(&shape).all(|(&n, &d)| n == -1 || n == 0 || n == d as i64);
        if same {
            Ok(view)
        } else {
            Err(bad(node, format!("shape {wanted:?}"), format!("{shape:?}, no change")))
        }
    }
}
