//! Convolutions and transposed convolutions.

use super::{Lowering, View, bad};
use crate::Result;
use crate::infer::LinearHead;
use crate::infer::cpu::ops::TransposedConv;
use crate::infer::cpu::plan::Operation;
use crate::model::onnx::{Graph, Node};
use fastnnunet_kernels::conv::{Arithmetic, Conv, Shape, Upsample};

/// Attributes that convolutions and pooling share, for three axes.
pub(super) struct Window {
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub pad_begin: [usize; 3],
    pub pad_end: [usize; 3],
}

/// Largest accepted entry of an attribute that counts voxels.
const MAX_STEP: usize = 1 << 12;

/// `list` (one entry per spatial axis) with the slice axis of a two-dimensional graph added.
pub(super) fn axes(node: &Node, rank: usize, list: &[i64], missing: usize) -> Result<[usize; 3]> {
    let valid = list.iter().all(|n| usize::try_from(*n).is_ok_and(|n| n <= MAX_STEP));
    if list.len() != rank || !valid {
        return Err(bad(node, format!("{list:?}"), format!("{rank} small counts")));
    }
    let skipped = 3 - rank;
    Ok(std::array::from_fn(|k| if k < skipped { missing } else { list[k - skipped] as usize }))
}

impl Lowering<'_> {
    /// Stride, dilation and padding; `kernel` and `input` serve `auto_pad`.
    pub(super) fn window(
        &self,
        node: &Node,
        kernel: [usize; 3],
        input: [usize; 3],
    ) -> Result<Window> {
        let rank = self.rank;
        let get = |name: &str| match node.ints(name) {
            Some(list) => axes(node, rank, list, 1),
            None => Ok([1; 3]),
        };
        let (stride, dilation) = (get("strides")?, get("dilations")?);
        if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
            return Err(bad(node, "a kernel, stride or dilation of 0", "at least 1"));
        }
        let (mut pad_begin, mut pad_end) = ([0; 3], [0; 3]);
        match node.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" => {
                if let Some(pads) = node.ints("pads") {
                    let (begin, end) = pads.split_at(pads.len() / 2);
                    pad_begin = axes(node, rank, begin, 0)?;
                    pad_end = axes(node, rank, end, 0)?;
                }
            }
            "VALID" => {}
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                for k in 0..3 {
                    let out = input[k].div_ceil(stride[k]);
                    let span = (out - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1;
                    let total = span.saturating_sub(input[k]);
                    pad_begin[k] = if mode == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                    pad_end[k] = total - pad_begin[k];
                }
            }
            other => return Err(bad(node, format!("auto_pad {other:?}"), "a known mode")),
        }
        Ok(Window { stride, dilation, pad_begin, pad_end })
    }

    /// Weights, their spatial dims, and the bias (zeros if there is none).
    #[allow(clippy::type_complexity, reason = "used twice, just below")]
    fn weights(
        &self,
        node: &Node,
        outputs: impl Fn(&[usize]) -> usize,
    ) -> Result<([usize; 3], [usize; 2], Vec<f32>, Vec<f32>)> {
        let Some((dims, weights)) = self.floats(node, 1)? else {
            return Err(bad(node, "no weights", "constants"));
        };
        if dims.len() != self.rank + 2 || dims.contains(&0) {
            return Err(bad(
                node,
                format!("weights of shape {dims:?}"),
                format!("{} spatial axes", self.rank),
            ));
        }
        let list: Vec<i64> = dims[2..].iter().map(|&n| n as i64).collect();
        let kernel = axes(node, self.rank, &list, 1)?;
        let outputs = outputs(&dims);
        let bias = match self.floats(node, 2)? {
            Some((_, bias)) if bias.len() == outputs => bias,
            Some((_, bias)) => {
                return Err(bad(node, format!("{} biases", bias.len()), format!("{outputs}")));
            }
            None => vec![0.0; outputs],
        };
        Ok((kernel, [dims[0], dims[1]], weights, bias))
    }

    /// Groups that divide `inputs` and `outputs`.
    fn groups(node: &Node, inputs: usize, outputs: usize) -> Result<usize> {
        let groups = node.int("group").unwrap_or(1);
        match usize::try_from(groups) {
            Ok(n) if n > 0 && inputs.is_multiple_of(n) && outputs.is_multiple_of(n) => Ok(n),
            _ => Err(bad(node, format!("{groups} groups of {inputs} inputs"), "a divisor")),
        }
    }

    pub(super) fn conv(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let (kernel, [outputs, group_inputs], weights, bias) =
            self.weights(node, |dims| dims[0])?;
        let inputs = self.view_channels(&view);
        let groups = Self::groups(node, inputs, outputs)?;
        if inputs / groups != group_inputs {
            return Err(bad(
                node,
                format!("{inputs} input channels"),
                format!("{}", group_inputs * groups),
            ));
        }
        let Window { stride, dilation, pad_begin, pad_end } =
            self.window(node, kernel, view.dims)?;
        let input = view.dims;
        let shape =
            Shape { inputs, outputs, groups, input, kernel, stride, pad_begin, pad_end, dilation };
        let Some(output) = shape.output() else {
            return Err(bad(node, format!("an input of {input:?} voxels"), "one the kernel fits"));
        };
        // One channel cannot be paired, and rounding a head's features shows in the logits.
        let exact = inputs == 1 || groups > 1 || shape.is_pointwise();
        let arithmetic = if exact { Arithmetic::F32 } else { self.arithmetic };
        let conv = Conv::new(self.plan.isa, arithmetic, shape, &weights, &bias);
        let out = self.tensor(outputs, output, conv.pitch())?;
        self.push(&node.name, Operation::Conv(Box::new(conv)), &[&view], out);
        Ok(self.raw(out))
    }

    pub(super) fn conv_transpose(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let groups_written = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
        let per_group = |dims: &[usize]| dims[1].saturating_mul(groups_written);
        let (kernel, [inputs, group_outputs], weights, bias) = self.weights(node, per_group)?;
        let outputs = bias.len();
        let groups = Self::groups(node, inputs, outputs)?;
        if self.view_channels(&view) != inputs || group_outputs * groups != outputs {
            return Err(bad(
                node,
                format!("{} input channels", self.view_channels(&view)),
                format!("{inputs}"),
            ));
        }
        if node.ints("output_shape").is_some()
            || !matches!(node.text("auto_pad"), None | Some("NOTSET"))
        {
            return Err(bad(node, "output_shape or auto_pad", "explicit pads"));
        }
        let Window { stride, dilation, pad_begin, pad_end } =
            self.window(node, kernel, view.dims)?;
        let more = match node.ints("output_padding") {
            Some(list) => axes(node, self.rank, list, 0)?,
            None => [0; 3],
        };
        let unpadded = pad_begin == [0; 3] && pad_end == [0; 3] && more == [0; 3];
        if kernel == stride && unpadded && dilation == [1; 3] && groups == 1 {
            let up =
                Upsample::new(self.plan.isa, self.arithmetic, view.dims, stride, &weights, &bias);
            let dims = up.output();
            return self.make(
                &node.name,
                Operation::Upsample(Box::new(up)),
                &[&view],
                (outputs, dims),
            );
        }
        let mut dims = [0; 3];
        for k in 0..3 {
            let span = (view.dims[k] - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1 + more[k];
            dims[k] = span.saturating_sub(pad_begin[k] + pad_end[k]);
        }
        if dims.contains(&0) {
            return Err(bad(node, format!("an output of {dims:?} voxels"), "at least one"));
        }
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
        self.make(&node.name, Operation::TransposedConv(Box::new(conv)), &[&view], (outputs, dims))
    }
}

/// `node` as a linear head, if it is a pointwise convolution of constants.
pub(super) fn linear_head(graph: &Graph, node: &Node) -> Option<LinearHead> {
    let all =
        |name: &str, wanted: i64| node.ints(name).is_none_or(|l| l.iter().all(|&n| n == wanted));
    let plain = node.op == "Conv"
        && all("strides", 1)
        && all("pads", 0)
        && node.int("group").unwrap_or(1) == 1
        && matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID"));
    let weights = graph.constants.get(node.input(1)?)?;
    let (classes, features) = (*weights.dims.first()?, *weights.dims.get(1)?);
    if !plain || weights.dims[2..].iter().any(|&n| n != 1) {
        return None;
    }
    let bias = match node.input(2) {
        Some(name) => graph.constants.get(name)?.floats()?.to_vec(),
        None => vec![0.0; classes],
    };
    let weights =
        ndarray::Array2::from_shape_vec((classes, features), weights.floats()?.to_vec()).ok()?;
    (bias.len() == classes).then_some(LinearHead { weights, bias })
}
