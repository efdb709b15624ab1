//! A network as steps that write and views that are read.
//!
//! Normalization, activation and concatenation are no steps: a reader applies them to what it
//! reads. Engines whose tensors hold raw results lower a network through this.

use super::{Conv, Extent, Network, Node, Operator, PerChannel, Pool, Resize, Window};

/// Index of a tensor in [`Fused::tensors`].
pub type TensorId = usize;

/// How a tensor's channels are scaled and shifted when read.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// By constants, one pair per channel.
    Fixed(Vec<(f32, f32)>),
    /// To zero mean and unit variance, then by constants.
    Norm {
        /// Factor per channel.
        gamma: Vec<f32>,
        /// Added after it.
        beta: Vec<f32>,
        /// Added to the variance.
        epsilon: f64,
    },
}

/// All channels of a tensor, and how they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What is read.
    pub tensor: TensorId,
    /// Comes first.
    pub scaling: Scaling,
    /// Then negative values are multiplied by these, one per channel; `None` before any activation.
    pub slopes: Option<Vec<f32>>,
}

/// A value of the network: channels of tensors, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The tensors.
    pub parts: Vec<Part>,
    /// Voxels of each.
    pub dims: [usize; 3],
}

/// What a step computes.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A convolution.
    Conv(Conv),
    /// A transposed convolution.
    TransposedConv(Conv),
    /// What the window over each voxel holds.
    Pool(Pool, Window),
    /// Another number of voxels.
    Resize(Resize),
    /// The mean of each channel.
    GlobalAverage,
    /// The input as it is read.
    Copy,
    /// The sum of two values.
    Add,
    /// Their product.
    Multiply,
    /// `1 / (1 + exp(-v))`.
    Sigmoid,
    /// Exponentials that sum to 1 over channels.
    Softmax,
}

/// One step: reads values, writes one tensor.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node it came from.
    pub name: String,
    /// What it computes.
    pub operation: Operation,
    /// What it reads.
    pub operands: Vec<View>,
    /// What it writes.
    pub out: TensorId,
}

/// A network as steps.
#[derive(Clone, Debug)]
pub struct Fused {
    /// Sizes of tensors; tensor 0 is the network's input.
    pub tensors: Vec<Extent>,
    /// In computing order.
    pub steps: Vec<Step>,
    /// What leaves.
    pub output: View,
}

impl Part {
    /// Whether reading is copying.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let identity = |pair: &(f32, f32)| *pair == (1.0, 0.0);
        self.slopes.is_none()
            && matches!(&self.scaling, Scaling::Fixed(pairs) if pairs.iter().all(identity))
    }
}

impl Fused {
    /// The steps of `network`.
    #[must_use]
    pub fn new(network: Network) -> Self {
        let Network { input, nodes, output } = network;
        let nothing = View { parts: Vec::new(), dims: input.dims };
        let mut fused = Self { tensors: vec![input], steps: Vec::new(), output: nothing };
        let mut values = vec![fused.raw(0)];
        for node in nodes {
            let view = fused.node(node, &values);
            values.push(view);
        }
        fused.output = values.swap_remove(output);
        fused
    }

    /// A tensor as it is.
    #[must_use]
    pub fn raw(&self, tensor: TensorId) -> View {
        let Extent { channels, dims } = self.tensors[tensor];
        let scaling = Scaling::Fixed(vec![(1.0, 0.0); channels]);
        View { parts: vec![Part { tensor, scaling, slopes: None }], dims }
    }

    /// Channels of a value.
    #[must_use]
    pub fn channels(&self, view: &View) -> usize {
        view.parts.iter().map(|part| self.tensors[part.tensor].channels).sum()
    }

    /// A step that makes a tensor of its own.
    fn make(
        &mut self,
        name: &str,
        operation: Operation,
        operands: Vec<View>,
        extent: Extent,
    ) -> View {
        self.tensors.push(extent);
        let out = self.tensors.len() - 1;
        self.steps.push(Step { name: name.to_owned(), operation, operands, out });
        self.raw(out)
    }

    /// The same values, stored as they are read.
    #[must_use]
    pub fn stored(&mut self, name: &str, view: View) -> View {
        let extent = Extent { channels: self.channels(&view), dims: view.dims };
        self.make(name, Operation::Copy, vec![view], extent)
    }

    fn node(&mut self, node: Node, values: &[View]) -> View {
        let Node { name, operator, inputs, extent } = node;
        let view = values[inputs[0]].clone();
        let operation = match operator {
            Operator::InstanceNorm { gamma, beta, epsilon } => {
                return self.instance_norm(&name, view, (&gamma, &beta), epsilon);
            }
            Operator::Scale { scale, shift } => return self.scale(&name, view, &scale, &shift),
            Operator::Rectify { slopes } => return self.rectify(&name, view, &slopes),
            Operator::Concat => {
                let parts = inputs.iter().flat_map(|&value| values[value].parts.clone());
                return View { parts: parts.collect(), dims: extent.dims };
            }
            Operator::Conv(conv) => Operation::Conv(conv),
            Operator::TransposedConv(conv) => Operation::TransposedConv(conv),
            Operator::Add => Operation::Add,
            Operator::Multiply => Operation::Multiply,
            Operator::Sigmoid => Operation::Sigmoid,
            Operator::Softmax => Operation::Softmax,
            Operator::GlobalAverage => Operation::GlobalAverage,
            Operator::Pool(pool, window) => Operation::Pool(pool, window),
            Operator::Resize(resize) => Operation::Resize(resize),
        };
        let operands = match operation {
            Operation::Add | Operation::Multiply => vec![view, values[inputs[1]].clone()],
            _ => vec![view],
        };
        self.make(&name, operation, operands, extent)
    }

    /// Applies `v * scale + shift` to what is read.
    fn scale(&mut self, name: &str, view: View, scale: &PerChannel, shift: &PerChannel) -> View {
        let linear = view.parts.iter().all(|part| part.slopes.is_none());
        let mut view = if linear { view } else { self.stored(name, view) };
        let mut c = 0;
        for part in &mut view.parts {
            let mut apply = |a: &mut f32, b: &mut f32| {
                let (s, t) = (scale.at(c), shift.at(c));
                (*a, *b) = (*a * s, *b * s + t);
                c += 1;
            };
            match &mut part.scaling {
                Scaling::Fixed(pairs) => pairs.iter_mut().for_each(|(a, b)| apply(a, b)),
                Scaling::Norm { gamma, beta, .. } => {
                    gamma.iter_mut().zip(beta).for_each(|(a, b)| apply(a, b));
                }
            }
        }
        view
    }

    fn instance_norm(
        &mut self,
        name: &str,
        view: View,
        (gamma, beta): (&PerChannel, &PerChannel),
        epsilon: f64,
    ) -> View {
        // The network's input gets no moments; nothing computes it.
        let ready = |part: &Part| part.is_raw() && part.tensor != 0;
        let mut view = if view.parts.iter().all(ready) { view } else { self.stored(name, view) };
        let mut c = 0;
        for part in &mut view.parts {
            let end = c + self.tensors[part.tensor].channels;
            let of = |vector: &PerChannel| (c..end).map(|c| vector.at(c)).collect();
            part.scaling = Scaling::Norm { gamma: of(gamma), beta: of(beta), epsilon };
            c = end;
        }
        view
    }

    /// Applies a rectifier; two in a row multiply their slopes while signs survive.
    fn rectify(&mut self, name: &str, view: View, slopes: &PerChannel) -> View {
        let keeps_sign = |part: &Part| part.slopes.iter().flatten().all(|&s| s >= 0.0);
        let mut view =
            if view.parts.iter().all(keeps_sign) { view } else { self.stored(name, view) };
        let mut c = 0;
        for part in &mut view.parts {
            let channels = self.tensors[part.tensor].channels;
            let new = (c..c + channels).map(|c| slopes.at(c));
            part.slopes = Some(match &part.slopes {
                None => new.collect(),
                Some(old) => old.iter().zip(new).map(|(a, b)| a * b).collect(),
            });
            c += channels;
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Graph;

    #[test]
    fn norms_activations_and_concatenations_are_no_steps() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/selftest.onnx");
        let graph = Graph::read(&std::fs::read(file).expect("the model")).expect("a graph");
        let fused = Fused::new(Network::new(graph, [8; 3]).expect("a network"));
        // Eleven convolutions and two transposed ones.
        assert_eq!(fused.steps.len(), 13);
        let joined = fused.steps.iter().filter(|step| step.operands[0].parts.len() == 2);
        assert_eq!(joined.count(), 2);
        let normalized = |part: &&Part| matches!(part.scaling, Scaling::Norm { .. });
        let views = fused.steps.iter().flat_map(|step| &step.operands);
        assert!(views.flat_map(|view| &view.parts).filter(normalized).count() >= 10);
    }
}
