//! Operators that look at the neighborhood of a voxel, and those that change how many there are.

use super::read::{Reader, Result, bad};
use super::{Conv, Coordinates, Extent, MAX_NUMBERS, Operator, PerChannel, Pool, Resize};
use super::{Rounding, Window};
use crate::onnx::Node;

/// Largest accepted entry of an attribute that counts voxels: as long as a patch's edge.
const MAX_STEP: usize = 1 << 10;

impl Window {
    /// Voxels that a kernel over `input` voxels makes; `None` if it does not fit.
    #[must_use]
    pub fn output(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let mut output = [0; 3];
        for k in 0..3 {
            let span = (self.kernel[k] - 1) * self.dilation[k] + 1;
            let padded = input[k] + self.pad_begin[k] + self.pad_end[k];
            output[k] = padded.checked_sub(span)? / self.stride[k] + 1;
        }
        Some(output)
    }

    /// Whether one of the taps is inside `input` at each place of `output`: padding alone has no mean
    /// and no largest number.
    fn sees_everywhere(&self, input: [usize; 3], output: [usize; 3]) -> bool {
        let sees = |k: usize, at: usize| {
            let first = at * self.stride[k];
            let tap = self.pad_begin[k].saturating_sub(first).div_ceil(self.dilation[k]);
            let place = first + tap * self.dilation[k];
            tap < self.kernel[k] && place < self.pad_begin[k] + input[k]
        };
        (0..3).all(|k| (0..output[k]).all(|at| sees(k, at)))
    }

    /// Numbers of `channels` channels that a kernel looks at for one row of what it makes, `None`
    /// if they are beyond counting: an engine holds them for every thread.
    fn numbers_in_view(&self, channels: usize, output: [usize; 3]) -> Option<usize> {
        let reach = |k: usize| (self.kernel[k] - 1).checked_mul(self.dilation[k]);
        let rows = reach(1)?.checked_add(1)?;
        let columns = output[2].checked_mul(self.stride[2])?.checked_add(reach(2)?)?;
        // Rows and columns are sorted by what is left when they are divided by the stride.
        let spare = self.stride[1].min(rows).checked_mul(self.stride[2])?;
        let view = reach(0)?.checked_add(1)?.checked_mul(rows)?.checked_mul(columns)?;
        view.checked_mul(channels)?.checked_mul(spare)
    }
}

/// `list` (one entry per spatial axis) with the slice axis of a two-dimensional graph added.
fn axes(node: &Node, rank: usize, list: &[i64], missing: usize) -> Result<[usize; 3]> {
    let valid = list.iter().all(|n| usize::try_from(*n).is_ok_and(|n| n <= MAX_STEP));
    if list.len() != rank || !valid {
        return Err(bad(node, format!("{list:?}"), format!("{rank} small counts")));
    }
    let skipped = 3 - rank;
    Ok(std::array::from_fn(|k| if k < skipped { missing } else { list[k - skipped] as usize }))
}

impl Reader<'_> {
    /// Stride, dilation and padding; `input` serves `auto_pad`.
    fn window(&self, node: &Node, kernel: [usize; 3], input: [usize; 3]) -> Result<Window> {
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
        Ok(Window { kernel, stride, dilation, pad_begin, pad_end })
    }

    /// The layer of a node that reads `input`, and how many channels of each group it has in its
    /// weights: those of the first axis and those of the second.
    fn layer(
        &self,
        node: &Node,
        input: Extent,
        outputs: impl Fn([usize; 2], usize) -> usize,
    ) -> Result<(Conv, [usize; 2])> {
        let Some(weights) = self.weights(node, 1)? else {
            return Err(bad(node, "no weights", "constants"));
        };
        let dims = weights.dims();
        if dims.len() != self.rank + 2 || dims.contains(&0) {
            let found = format!("weights of shape {dims:?}");
            return Err(bad(node, found, format!("{} spatial axes", self.rank)));
        }
        let list: Vec<i64> = dims[2..].iter().map(|&n| n as i64).collect();
        let kernel = axes(node, self.rank, &list, 1)?;
        let channels = [dims[0], dims[1]];
        let groups = node.int("group").unwrap_or(1);
        let divides = |n: usize| n > 0 && input.channels.is_multiple_of(n);
        let groups = match usize::try_from(groups) {
            Ok(n) if divides(n) && outputs(channels, n).is_multiple_of(n) => n,
            _ => {
                let found = format!("{groups} groups of {} inputs", input.channels);
                return Err(bad(node, found, "a divisor"));
            }
        };
        let outputs = outputs(channels, groups);
        let bias = match self.weights(node, 2)? {
            Some(bias) if bias.len() == outputs => PerChannel::Constant(bias),
            Some(bias) => {
                return Err(bad(node, format!("{} biases", bias.len()), format!("{outputs}")));
            }
            None => PerChannel::All(0.0),
        };
        let window = self.window(node, kernel, input.dims)?;
        Ok((Conv { weights, bias, groups, window }, channels))
    }

    pub(super) fn conv(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let input = self.extent(value);
        let (conv, [outputs, group_inputs]) = self.layer(node, input, |[outputs, _], _| outputs)?;
        if input.channels != group_inputs.saturating_mul(conv.groups) {
            let found = format!("{} input channels", input.channels);
            return Err(bad(node, found, format!("{}", group_inputs * conv.groups)));
        }
        let Some(dims) = conv.window.output(input.dims) else {
            let found = format!("an input of {:?} voxels", input.dims);
            return Err(bad(node, found, "one the kernel fits"));
        };
        let in_view = conv.window.numbers_in_view(input.channels, dims);
        if in_view.is_none_or(|numbers| numbers > MAX_NUMBERS) {
            let found = format!(
                "a kernel of {kernel:?} over {} channels",
                input.channels,
                kernel = conv.window.kernel
            );
            return Err(bad(node, found, format!("one that sees at most {MAX_NUMBERS} numbers")));
        }
        let extent = Extent { channels: outputs, dims };
        self.add(node, Operator::Conv(conv), vec![value], extent)
    }

    pub(super) fn conv_transpose(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let input = self.extent(value);
        let outputs = |[_, group]: [usize; 2], groups: usize| group.saturating_mul(groups);
        let (conv, [inputs, group_outputs]) = self.layer(node, input, outputs)?;
        if input.channels != inputs {
            let found = format!("{} input channels", input.channels);
            return Err(bad(node, found, format!("{inputs}")));
        }
        let explicit = matches!(node.text("auto_pad"), None | Some("NOTSET"));
        if node.ints("output_shape").is_some() || !explicit {
            return Err(bad(node, "output_shape or auto_pad", "explicit pads"));
        }
        let more = match node.ints("output_padding") {
            Some(list) => axes(node, self.rank, list, 0)?,
            None => [0; 3],
        };
        let Window { kernel, stride, dilation, pad_begin, pad_end } = conv.window;
        let dims: [usize; 3] = std::array::from_fn(|k| {
            let span =
                (input.dims[k] - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1 + more[k];
            span.saturating_sub(pad_begin[k] + pad_end[k])
        });
        if dims.contains(&0) {
            return Err(bad(node, format!("an output of {dims:?} voxels"), "at least one"));
        }
        let extent = Extent { channels: group_outputs * conv.groups, dims };
        self.add(node, Operator::TransposedConv(conv), vec![value], extent)
    }

    pub(super) fn pool(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let Extent { channels, dims } = self.extent(value);
        let kernel = axes(node, self.rank, node.ints("kernel_shape").unwrap_or_default(), 1)?;
        if node.int("ceil_mode").unwrap_or(0) != 0 || node.outputs.len() > 1 {
            return Err(bad(node, "ceil_mode or a second output", "neither"));
        }
        let window = self.window(node, kernel, dims)?;
        let output = window.output(dims);
        let Some(output) = output.filter(|output| window.sees_everywhere(dims, *output)) else {
            let found = format!("an input of {dims:?} voxels");
            return Err(bad(node, found, "one the kernel fits and sees some of at every place"));
        };
        let kind = match (node.op.as_str(), node.int("count_include_pad").unwrap_or(0)) {
            ("MaxPool", _) => Pool::Max,
            (_, 0) => Pool::Average,
            _ => Pool::AveragePadded,
        };
        let extent = Extent { channels, dims: output };
        self.add(node, Operator::Pool(kind, window), vec![value], extent)
    }

    pub(super) fn global_pool(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let extent = Extent { dims: [1; 3], ..self.extent(value) };
        self.add(node, Operator::GlobalAverage, vec![value], extent)
    }

    pub(super) fn resize(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let Extent { channels, dims } = self.extent(value);
        let skipped = 3 - self.rank;
        let (mut output, mut scales) = (dims, [1.0_f32; 3]);
        let bad_size = |found: String| bad(node, found, "the same batch and channels, and a size");
        let sizes = self.constant(node, 3)?.filter(|t| !t.is_empty());
        if let Some(sizes) = sizes.as_ref().and_then(|t| t.ints()) {
            if sizes.len() != self.rank + 2 || sizes[1] != channels as i64 {
                return Err(bad_size(format!("sizes {sizes:?}")));
            }
            for k in skipped..3 {
                let size = usize::try_from(sizes[2 + k - skipped]).unwrap_or(0);
                output[k] = size;
                scales[k] = size as f32 / dims[k] as f32;
            }
        } else {
            match self.weights(node, 2)?.as_deref() {
                Some(list) if list.len() == self.rank + 2 && list[..2] == [1.0, 1.0] => {
                    for k in skipped..3 {
                        scales[k] = list[2 + k - skipped];
                        output[k] = (dims[k] as f32 * scales[k]).floor() as usize;
                    }
                }
                Some(list) => return Err(bad_size(format!("scales {list:?}"))),
                None => return Err(bad_size("neither sizes nor scales".to_owned())),
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
        let resize = Resize { scales, coordinates, nearest };
        self.add(node, Operator::Resize(resize), vec![value], Extent { channels, dims: output })
    }

    /// Only where nothing changes.
    pub(super) fn reshape(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let Extent { channels, dims } = self.extent(value);
        let target = self.constant(node, 1)?;
        let shape: Vec<usize> =
            [1, channels].into_iter().chain(dims[3 - self.rank..].iter().copied()).collect();
        let wanted = target.as_ref().and_then(|t| t.ints()).unwrap_or_default();
        let open = wanted.iter().filter(|&&n| n == -1).count();
        let same = wanted.len() == shape.len()
            && open <= 1
            && wanted.iter().zip(&shape).all(|(&n, &d)| n == -1 || n == 0 || n == d as i64);
        if same {
            Ok(value)
        } else {
            Err(bad(node, format!("shape {wanted:?}"), format!("{shape:?}, no change")))
        }
    }
}
