//! Operators that only change how a value is read, and those that combine voxels one by one.

use super::{Lowering, Part, Scaling, View, bad};
use crate::Result;
use crate::infer::cpu::plan::Operation;
use crate::model::onnx::Node;

/// Most values a concatenation joins; names may repeat, so a small file could ask for any number.
const MAX_PARTS: usize = 4096;

/// Numbers as read by [`Lowering::per_channel`].
type PerChannel = Vec<f32>;

impl Lowering<'_> {
    /// Constants that are the same for all voxels of a channel, one per channel; `dims` are
    /// aligned with `[batch, channels, ...]` from the right.
    fn per_channel(&self, dims: &[usize], values: &[f32], channels: usize) -> Option<PerChannel> {
        if let [value] = values {
            return Some(vec![*value; channels]);
        }
        let spatial = dims.len().checked_sub(self.rank)?;
        let flat = dims[spatial..].iter().all(|&n| n == 1);
        let leading = spatial == 0 || dims[..spatial - 1].iter().all(|&n| n == 1);
        (flat && leading && values.len() == channels).then(|| values.to_vec())
    }

    /// A vector operand of a normalization.
    fn vector(&self, node: &Node, k: usize, channels: usize) -> Result<PerChannel> {
        match self.floats(node, k)? {
            Some((_, values)) if values.len() == channels => Ok(values),
            _ => Err(bad(node, format!("input {k}"), format!("{channels} constants"))),
        }
    }

    /// Applies `t * scale + shift` to what is read.
    fn scale(&mut self, node: &Node, view: View, scale: &[f32], shift: &[f32]) -> Result<View> {
        let linear = view.parts.iter().all(|part| part.slopes.is_none());
        let mut view = if linear { view } else { self.stored(&node.name, &view)? };
        let mut c = 0;
        for part in &mut view.parts {
            let pairs = scale[c..].iter().zip(&shift[c..]);
            match &mut part.scaling {
                Scaling::Fixed(old) => {
                    for ((a, b), (s, t)) in old.iter_mut().zip(pairs) {
                        (*a, *b) = (*a * s, *b * s + t);
                    }
                    c += old.len();
                }
                Scaling::Norm { gamma, beta, .. } => {
                    for ((a, b), (s, t)) in gamma.iter_mut().zip(beta).zip(pairs) {
                        (*a, *b) = (*a * s, *b * s + t);
                    }
                    c += gamma.len();
                }
            }
        }
        Ok(view)
    }

    pub(super) fn instance_norm(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        let (gamma, beta) = (self.vector(node, 1, channels)?, self.vector(node, 2, channels)?);
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        // The network's input gets no moments; nothing computes it.
        let ready = |part: &Part| part.is_raw() && part.tensor != self.plan.input;
        let mut view =
            if view.parts.iter().all(ready) { view } else { self.stored(&node.name, &view)? };
        let mut c = 0;
        for part in &mut view.parts {
            let end = c + self.plan.tensors[part.tensor].layout.channels;
            let (gamma, beta) = (gamma[c..end].to_vec(), beta[c..end].to_vec());
            part.scaling = Scaling::Norm { gamma, beta, epsilon };
            c = end;
        }
        Ok(view)
    }

    pub(super) fn batch_norm(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        let mut vectors = [const { Vec::new() }; 4];
        for (k, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(node, k + 1, channels)?;
        }
        let [gamma, beta, mean, variance] = vectors;
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        let scale = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        let scales: Vec<f32> = (0..channels).map(|c| scale(c) as f32).collect();
        let shifts: Vec<f32> = (0..channels)
            .map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * scale(c)) as f32)
            .collect();
        self.scale(node, view, &scales, &shifts)
    }

    pub(super) fn rectify(&mut self, node: &Node, slope: f32) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        self.slopes(node, view, &vec![slope; channels])
    }

    pub(super) fn prelu(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        let slopes =
            self.floats(node, 1)?.and_then(|(dims, v)| self.per_channel(&dims, &v, channels));
        match slopes {
            Some(slopes) => self.slopes(node, view, &slopes),
            None => Err(bad(node, "slopes", "one, or one per channel")),
        }
    }

    /// Applies a rectifier; two in a row multiply their slopes while signs survive.
    fn slopes(&mut self, node: &Node, view: View, slopes: &[f32]) -> Result<View> {
        let keeps_sign = |part: &Part| part.slopes.iter().flatten().all(|&s| s >= 0.0);
        let mut view =
            if view.parts.iter().all(keeps_sign) { view } else { self.stored(&node.name, &view)? };
        let mut c = 0;
        for part in &mut view.parts {
            let channels = self.plan.tensors[part.tensor].layout.channels;
            let new = &slopes[c..c + channels];
            part.slopes = Some(match &part.slopes {
                None => new.to_vec(),
                Some(old) => old.iter().zip(new).map(|(a, b)| a * b).collect(),
            });
            c += channels;
        }
        Ok(view)
    }

    pub(super) fn sigmoid(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let channels = self.view_channels(&view);
        self.make(&node.name, Operation::Sigmoid, &[&view], (channels, view.dims))
    }

    pub(super) fn softmax(&mut self, node: &Node) -> Result<View> {
        let view = self.view(node, 0)?;
        let axis = node.int("axis").unwrap_or(-1);
        if axis != 1 && axis != -1 - self.rank as i64 {
            return Err(bad(node, format!("axis {axis}"), "1, the channels"));
        }
        let channels = self.view_channels(&view);
        self.make(&node.name, Operation::Softmax, &[&view], (channels, view.dims))
    }

    pub(super) fn concat(&mut self, node: &Node) -> Result<View> {
        let axis = node.int("axis").unwrap_or(1);
        if axis != 1 && axis != -1 - self.rank as i64 {
            return Err(bad(node, format!("axis {axis}"), "1, the channels"));
        }
        let mut joined = self.view(node, 0)?;
        for k in 1..node.inputs.len() {
            let next = self.view(node, k)?;
            if next.dims != joined.dims {
                return Err(bad(
                    node,
                    format!("{:?} voxels", next.dims),
                    format!("{:?}", joined.dims),
                ));
            }
            let parts = joined.parts.len() + next.parts.len();
            if parts > MAX_PARTS {
                return Err(bad(
                    node,
                    format!("{parts} values side by side"),
                    format!("at most {MAX_PARTS}"),
                ));
            }
            joined.parts.extend(next.parts);
        }
        Ok(joined)
    }

    pub(super) fn cast(&mut self, node: &Node) -> Result<View> {
        match node.int("to") {
            Some(1 | 10 | 11 | 16) => self.view(node, 0),
            to => Err(bad(node, format!("a cast to type {to:?}"), "a real type")),
        }
    }

    /// Add, Sub, Mul and Div of two activations, or of one and constants per channel.
    pub(super) fn arithmetic(&mut self, node: &Node) -> Result<View> {
        let is_view = |k: usize| {
            matches!(node.input(k).map(|n| self.value(node, n)), Some(Ok(super::Value::View(_))))
        };
        match (is_view(0), is_view(1)) {
            (true, true) => self.combine(node),
            (true, false) => self.with_constant(node, 0),
            (false, true) => self.with_constant(node, 1),
            (false, false) => Err(bad(node, "two constants", "an activation")),
        }
    }

    fn with_constant(&mut self, node: &Node, k: usize) -> Result<View> {
        let view = self.view(node, k)?;
        let channels = self.view_channels(&view);
        let values =
            self.floats(node, 1 - k)?.and_then(|(dims, v)| self.per_channel(&dims, &v, channels));
        let Some(values) = values else {
            return Err(bad(
                node,
                "constants that vary within a channel",
                "one number per channel",
            ));
        };
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        let negative = |v: &[f32]| v.iter().map(|v| -v).collect::<Vec<f32>>();
        match (node.op.as_str(), k) {
            ("Add", _) => self.scale(node, view, &ones, &values),
            ("Mul", _) => self.scale(node, view, &values, &zeros),
            ("Sub", 0) => self.scale(node, view, &ones, &negative(&values)),
            ("Sub", _) => self.scale(node, view, &negative(&ones), &values),
            ("Div", 0) => {
                let inverse: Vec<f32> = values.iter().map(|v| 1.0 / v).collect();
                self.scale(node, view, &inverse, &zeros)
            }
            _ => Err(bad(node, "a constant divided by an activation", "the other way round")),
        }
    }

    fn combine(&mut self, node: &Node) -> Result<View> {
        let (left, right) = (self.view(node, 0)?, self.view(node, 1)?);
        let (a, b) = (self.view_channels(&left), self.view_channels(&right));
        let broadcast = |a: usize, b: usize| (a == b || a == 1 || b == 1).then_some(a.max(b));
        let dims: [usize; 3] =
            std::array::from_fn(|k| broadcast(left.dims[k], right.dims[k]).unwrap_or(0));
        let channels = broadcast(a, b).unwrap_or(0);
        if channels == 0 || dims.contains(&0) {
            let found =
                format!("{a} channels of {:?} and {b} of {:?} voxels", left.dims, right.dims);
            return Err(bad(node, found, "shapes that go together"));
        }
        let right = match node.op.as_str() {
            "Sub" => self.scale(node, right, &vec![-1.0; b], &vec![0.0; b])?,
            "Div" => return Err(bad(node, "a division of activations", "Add, Sub or Mul")),
            _ => right,
        };
        let operation = if node.op == "Mul" { Operation::Multiply } else { Operation::Add };
        self.make(&node.name, operation, &[&left, &right], (channels, dims))
    }
}
