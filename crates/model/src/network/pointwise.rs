//! Operators that look at each voxel alone, and those that combine values.

use super::read::{Named, Reader, Result, bad, each, epsilon};
use super::{Extent, Operator, PerChannel, Weights};
use crate::onnx::Node;

impl Reader<'_> {
    /// An operator whose result is as large as its only input.
    pub(super) fn alike(&mut self, node: &Node, operator: Operator) -> Result<usize> {
        let value = self.value(node, 0)?;
        self.add(node, operator, vec![value], self.extent(value))
    }

    /// Constants that are the same for all voxels of a channel, aligned with
    /// `[batch, channels, ...]` from the right.
    fn per_channel(&self, values: Weights, channels: usize) -> Option<PerChannel> {
        if let [value] = values[..] {
            return Some(PerChannel::All(value));
        }
        let dims = values.dims();
        let spatial = dims.len().checked_sub(self.rank)?;
        let flat = dims[spatial..].iter().all(|&n| n == 1);
        let leading = spatial == 0 || dims[..spatial - 1].iter().all(|&n| n == 1);
        (flat && leading && values.len() == channels).then_some(PerChannel::Constant(values))
    }

    pub(super) fn instance_norm(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let channels = self.extent(value).channels;
        let (gamma, beta) = (self.vector(node, 1, channels)?, self.vector(node, 2, channels)?);
        let epsilon = epsilon(node)?;
        let operator = Operator::InstanceNorm { gamma, beta, epsilon };
        self.add(node, operator, vec![value], self.extent(value))
    }

    pub(super) fn batch_norm(&mut self, node: &Node) -> Result<usize> {
        let value = self.value(node, 0)?;
        let channels = self.extent(value).channels;
        let mut vectors = [const { PerChannel::All(0.0) }; 4];
        for (k, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vector(node, k + 1, channels)?;
        }
        let [gamma, beta, mean, variance] = vectors;
        let epsilon = epsilon(node)?;
        let wide = |vector: &PerChannel, c: usize| f64::from(vector.at(c));
        let scale = |c: usize| wide(&gamma, c) / (wide(&variance, c) + epsilon).sqrt();
        let shift = |c: usize| wide(&beta, c) - wide(&mean, c) * scale(c);
        let scales = each(node, (0..channels).map(|c| scale(c) as f32))?;
        let shifts = each(node, (0..channels).map(|c| shift(c) as f32))?;
        let operator = Operator::Scale { scale: scales, shift: shifts };
        self.add(node, operator, vec![value], self.extent(value))
    }

    pub(super) fn rectify(&mut self, node: &Node, slope: f32) -> Result<usize> {
        self.alike(node, Operator::Rectify { slopes: PerChannel::All(slope) })
    }

    pub(super) fn prelu(&mut self, node: &Node) -> Result<usize> {
        let channels = self.extent(self.value(node, 0)?).channels;
        let slopes = self.weights(node, 1)?.and_then(|v| self.per_channel(v, channels));
        match slopes {
            Some(slopes) => self.alike(node, Operator::Rectify { slopes }),
            None => Err(bad(node, "slopes", "one, or one per channel")),
        }
    }

    pub(super) fn softmax(&mut self, node: &Node) -> Result<usize> {
        self.over_channels(node, -1)?;
        self.alike(node, Operator::Softmax)
    }

    /// Fails unless the node's axis, by default `usual`, are the channels.
    fn over_channels(&self, node: &Node, usual: i64) -> Result<()> {
        let axis = node.int("axis").unwrap_or(usual);
        if axis == 1 || axis == -1 - self.rank as i64 {
            return Ok(());
        }
        Err(bad(node, format!("axis {axis}"), "1, the channels"))
    }

    pub(super) fn concat(&mut self, node: &Node) -> Result<usize> {
        self.over_channels(node, 1)?;
        let values: Vec<usize> =
            (0..node.inputs.len()).map(|k| self.value(node, k)).collect::<Result<_>>()?;
        let Some(&first) = values.first() else { return Err(bad(node, "no inputs", "some")) };
        let dims = self.extent(first).dims;
        let mut channels = 0_usize;
        for &value in &values {
            let next = self.extent(value);
            if next.dims != dims {
                return Err(bad(node, format!("{:?} voxels", next.dims), format!("{dims:?}")));
            }
            channels = channels.saturating_add(next.channels);
        }
        if values.len() == 1 {
            return Ok(first);
        }
        self.add(node, Operator::Concat, values, Extent { channels, dims })
    }

    pub(super) fn cast(&mut self, node: &Node) -> Result<usize> {
        match node.int("to") {
            Some(1 | 10 | 11 | 16) => self.value(node, 0),
            Some(to) => Err(bad(node, format!("a cast to type {to}"), "a real type")),
            None => Err(bad(node, "a cast without a type", "a real type")),
        }
    }

    /// Add, Sub, Mul and Div of two activations, or of one and constants per channel.
    pub(super) fn arithmetic(&mut self, node: &Node) -> Result<usize> {
        let is_value = |k: usize| {
            matches!(node.input(k).map(|n| self.named(node, n)), Some(Ok(Named::Value(_))))
        };
        match (is_value(0), is_value(1)) {
            (true, true) => self.combine(node),
            (true, false) => self.with_constant(node, 0),
            (false, true) => self.with_constant(node, 1),
            (false, false) => Err(bad(node, "two constants", "an activation")),
        }
    }

    fn with_constant(&mut self, node: &Node, k: usize) -> Result<usize> {
        let value = self.value(node, k)?;
        let channels = self.extent(value).channels;
        let values = self.weights(node, 1 - k)?.and_then(|v| self.per_channel(v, channels));
        let Some(values) = values else {
            let found = "constants that vary within a channel";
            return Err(bad(node, found, "one number per channel"));
        };
        let all = PerChannel::All;
        let map = |f: fn(f32) -> f32| match values {
            PerChannel::All(value) if f(value).is_finite() => Ok(all(f(value))),
            _ => each(node, (0..channels).map(|c| f(values.at(c)))),
        };
        let (scale, shift) = match (node.op.as_str(), k) {
            ("Add", _) => (all(1.0), values.clone()),
            ("Mul", _) => (values.clone(), all(0.0)),
            ("Sub", 0) => (all(1.0), map(|v| -v)?),
            ("Sub", _) => (all(-1.0), values.clone()),
            ("Div", 0) if (0..channels).all(|c| values.at(c) != 0.0) => {
                (map(|v| 1.0 / v)?, all(0.0))
            }
            ("Div", 0) => return Err(bad(node, "a division by 0", "other constants")),
            _ => {
                let found = "a constant divided by an activation";
                return Err(bad(node, found, "the other way round"));
            }
        };
        self.add(node, Operator::Scale { scale, shift }, vec![value], self.extent(value))
    }

    fn combine(&mut self, node: &Node) -> Result<usize> {
        let (left, mut right) = (self.value(node, 0)?, self.value(node, 1)?);
        let (a, b) = (self.extent(left), self.extent(right));
        let broadcast = |a: usize, b: usize| (a == b || a == 1 || b == 1).then_some(a.max(b));
        let dims: [usize; 3] =
            std::array::from_fn(|k| broadcast(a.dims[k], b.dims[k]).unwrap_or(0));
        let channels = broadcast(a.channels, b.channels).unwrap_or(0);
        if channels == 0 || dims.contains(&0) {
            let found = format!(
                "{} channels of {:?} and {} of {:?} voxels",
                a.channels, a.dims, b.channels, b.dims
            );
            return Err(bad(node, found, "shapes that go together"));
        }
        let operator = match node.op.as_str() {
            "Mul" => Operator::Multiply,
            "Div" => return Err(bad(node, "a division of activations", "Add, Sub or Mul")),
            "Sub" => {
                let (scale, shift) = (PerChannel::All(-1.0), PerChannel::All(0.0));
                right = self.add(node, Operator::Scale { scale, shift }, vec![right], b)?;
                Operator::Add
            }
            _ => Operator::Add,
        };
        self.add(node, operator, vec![left, right], Extent { channels, dims })
    }
}
