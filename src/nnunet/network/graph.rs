//! Writes one ONNX graph, node by node.

use super::Weights;
use super::arguments::{Architecture, Class, Norm};
use crate::Mismatch;
use crate::model::proto::{
    Attribute, Dim, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType, Type, ValueInfo,
};
use prost::bytes::Bytes;

/// Operator set of the graphs: FastnnUNet's.
const OPSET: i64 = 17;

/// Version of the file format that came with it.
const IR_VERSION: i64 = 8;

/// ONNX's number for 32-bit floats.
const FLOAT: i32 = 1;

/// A value of the graph: its name and number of channels.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) name: String,
    pub(super) channels: usize,
}

/// A graph under construction.
pub(super) struct Builder<'a> {
    pub(super) architecture: &'a Architecture,
    weights: Weights,
    graph: Graph,
}

impl<'a> Builder<'a> {
    pub(super) fn new(architecture: &'a Architecture, weights: Weights) -> Self {
        Self { architecture, weights, graph: Graph::default() }
    }

    /// The image.
    pub(super) fn input(&self) -> Flow {
        Flow { name: "input".into(), channels: self.architecture.inputs }
    }

    fn node(&mut self, op: &str, name: &str, inputs: Vec<String>, attributes: Vec<Attribute>) {
        self.graph.node.push(Node {
            input: inputs,
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes,
            domain: String::new(),
        });
    }

    fn constant(&mut self, name: &str, shape: &[usize], raw_data: Bytes) {
        self.graph.initializer.push(Tensor {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data,
            ..Tensor::default()
        });
    }

    /// A constant from the checkpoint; returns its name.
    fn weight(&mut self, name: String, shape: &[usize]) -> Result<String, Mismatch> {
        let raw = self.weights.read(&name, shape)?;
        self.constant(&name, shape, raw);
        Ok(name)
    }

    /// A constant of equal numbers.
    fn filled(&mut self, name: String, len: usize, value: f32) -> String {
        let raw: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), len).flatten().collect();
        self.constant(&name, &[len], raw.into());
        name
    }

    /// Weights and bias of `key`, as inputs after `from`.
    fn operands(
        &mut self,
        key: &str,
        from: &Flow,
        shape: &[usize],
        bias: Option<usize>,
    ) -> Result<Vec<String>, Mismatch> {
        let mut inputs = vec![from.name.clone(), self.weight(format!("{key}.weight"), shape)?];
        if let Some(len) = bias {
            inputs.push(self.weight(format!("{key}.bias"), &[len])?);
        }
        Ok(inputs)
    }

    /// A convolution with the weights of `key`, padded by `(kernel - 1) / 2` at both ends.
    pub(super) fn conv(
        &mut self,
        key: &str,
        from: &Flow,
        channels: usize,
        (kernel, stride): (&[usize], &[usize]),
        bias: bool,
    ) -> Result<Flow, Mismatch> {
        let shape = [&[channels, from.channels], kernel].concat();
        let inputs = self.operands(key, from, &shape, bias.then_some(channels))?;
        let pads: Vec<usize> = kernel.iter().chain(kernel).map(|k| (k - 1) / 2).collect();
        let attributes =
            vec![ints("kernel_shape", kernel), ints("pads", &pads), ints("strides", stride)];
        self.node("Conv", key, inputs, attributes);
        Ok(Flow { name: key.to_owned(), channels })
    }

    /// A transposed convolution whose kernel is its stride.
    pub(super) fn upsample(
        &mut self,
        key: &str,
        from: &Flow,
        channels: usize,
        stride: &[usize],
    ) -> Result<Flow, Mismatch> {
        let shape = [&[from.channels, channels], stride].concat();
        let bias = self.architecture.bias && self.architecture.class != Class::Generic;
        let bias = bias.then_some(channels);
        let inputs = self.operands(key, from, &shape, bias)?;
        let attributes = vec![ints("kernel_shape", stride), ints("strides", stride)];
        self.node("ConvTranspose", key, inputs, attributes);
        Ok(Flow { name: key.to_owned(), channels })
    }

    /// The architecture's normalization with the weights of `key`.
    pub(super) fn norm(&mut self, key: &str, from: Flow) -> Result<Flow, Mismatch> {
        let c = from.channels;
        let (epsilon, affine, running) = match self.architecture.norm {
            Norm::None => return Ok(from),
            Norm::Instance { epsilon, affine } => (epsilon, affine, false),
            Norm::Batch { epsilon, affine } => (epsilon, affine, true),
        };
        let mut inputs = vec![from.name];
        for (name, default) in [("weight", 1.0), ("bias", 0.0)] {
            let name = format!("{key}.{name}");
            inputs.push(if affine {
                self.weight(name, &[c])?
            } else {
                self.filled(name, c, default)
            });
        }
        if running {
            for name in ["running_mean", "running_var"] {
                inputs.push(self.weight(format!("{key}.{name}"), &[c])?);
            }
        }
        let op = if running { "BatchNormalization" } else { "InstanceNormalization" };
        self.node(op, key, inputs, vec![float("epsilon", epsilon)]);
        Ok(Flow { name: key.to_owned(), channels: c })
    }

    /// The architecture's activation.
    pub(super) fn activation(&mut self, name: &str, from: Flow) -> Flow {
        let slope = self.architecture.slope;
        if slope == 1.0 {
            return from;
        }
        let (op, attributes) = if slope == 0.0 {
            ("Relu", Vec::new())
        } else {
            ("LeakyRelu", vec![float("alpha", slope)])
        };
        self.node(op, name, vec![from.name], attributes);
        Flow { name: name.to_owned(), channels: from.channels }
    }

    /// Means of blocks of `stride` voxels.
    pub(super) fn average(&mut self, name: &str, from: &Flow, stride: &[usize]) -> Flow {
        let attributes = vec![ints("kernel_shape", stride), ints("strides", stride)];
        self.node("AveragePool", name, vec![from.name.clone()], attributes);
        Flow { name: name.to_owned(), channels: from.channels }
    }

    /// The sum of two values of equal shape.
    pub(super) fn add(&mut self, name: &str, a: &Flow, b: &Flow) -> Flow {
        self.node("Add", name, vec![a.name.clone(), b.name.clone()], Vec::new());
        Flow { name: name.to_owned(), channels: a.channels }
    }

    /// Channels of `a`, then of `b`.
    pub(super) fn concat(&mut self, name: &str, a: &Flow, b: &Flow) -> Flow {
        let inputs = vec![a.name.clone(), b.name.clone()];
        self.node("Concat", name, inputs, vec![int("axis", 1)]);
        Flow { name: name.to_owned(), channels: a.channels + b.channels }
    }

    /// The layer that gives the logits.
    pub(super) fn head(&mut self, key: &str, from: &Flow) -> Result<(), Mismatch> {
        let ones = vec![1; self.architecture.rank];
        let is_generic = self.architecture.class == Class::Generic;
        let logits =
            self.conv(key, from, self.architecture.outputs, (&ones, &ones), !is_generic)?;
        if is_generic {
            self.node("Softmax", "probabilities", vec![logits.name], vec![int("axis", 1)]);
        }
        if let Some(node) = self.graph.node.last_mut() {
            node.output = vec!["output".to_owned()];
        }
        Ok(())
    }

    /// A head only training used; its weights have to be there.
    pub(super) fn unused_head(&mut self, key: &str, channels: usize) -> Result<(), Mismatch> {
        let Architecture { outputs, rank, .. } = *self.architecture;
        let shape = [&[outputs, channels][..], &vec![1; rank]].concat();
        self.weights.claim(&format!("{key}.weight"), &shape)?;
        if self.architecture.class != Class::Generic {
            self.weights.claim(&format!("{key}.bias"), &[outputs])?;
        }
        Ok(())
    }

    /// The file, unless weights are left over.
    pub(super) fn finish(self) -> Result<Model, Mismatch> {
        if let Some(name) = self.weights.left.keys().min() {
            return Err(Mismatch::new(
                format!("weights {name:?}"),
                "no weights beyond those of the network in plans.json",
            ));
        }
        let Self { architecture, mut graph, .. } = self;
        graph.name = "nnU-Net".into();
        graph.input = vec![port("input", architecture.inputs, architecture.rank)];
        graph.output = vec![port("output", architecture.outputs, architecture.rank)];
        Ok(Model {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        })
    }
}

/// An input or output with open batch and spatial axes.
fn port(name: &str, channels: usize, rank: usize) -> ValueInfo {
    let open = |axis: &str| Dim { dim_value: None, dim_param: Some(axis.to_owned()) };
    let spatial = &["depth", "height", "width"][3 - rank..];
    let mut dim = vec![open("batch"), Dim { dim_value: Some(channels as i64), dim_param: None }];
    dim.extend(spatial.iter().map(|axis| open(axis)));
    let tensor_type = Some(TensorType { elem_type: FLOAT, shape: Some(Shape { dim }) });
    ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type }) }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i: Some(i), r#type: 2, ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f: Some(f), r#type: 1, ..Attribute::default() }
}

fn ints(name: &str, list: &[usize]) -> Attribute {
    let ints = list.iter().map(|&n| n as i64).collect();
    Attribute { name: name.into(), ints, r#type: 7, ..Attribute::default() }
}
