//! Reads an ONNX file into a checked graph.
//!
//! Bytes go in, a list of nodes in computing order and their constants come out. Nothing here
//! knows what an operator means. A file can only cause an error, and nothing is allocated
//! beyond what the file's own bytes justify.

use crate::{Mismatch, graph, proto};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A network as written: nodes in computing order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Inputs that are not constants.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Operators; each reads inputs, constants and outputs of earlier nodes.
    pub nodes: Vec<Node>,
    /// Constants by name.
    pub constants: HashMap<String, Tensor>,
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Extent per axis, batch first; `None` where the file leaves it open.
    pub dims: Vec<Option<usize>>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name, or the first output's where the file has none.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Names of values read; empty for an omitted optional input.
    pub inputs: Vec<String>,
    /// Names of values made.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: HashMap<String, Attribute>,
}

/// An operator's parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// A word.
    Text(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// A constant.
    Tensor(Arc<Tensor>),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent per axis; empty for a scalar.
    pub dims: Vec<usize>,
    /// Elements, last axis fastest.
    pub data: Data,
}

/// Elements of a constant, every number type widened to one of two.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Real numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
}

impl Tensor {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Floats(v) => v.len(),
            Data::Ints(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements if they are real numbers.
    #[must_use]
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Floats(v) => Some(v),
            Data::Ints(_) => None,
        }
    }

    /// The elements if they are integers.
    #[must_use]
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Ints(v) => Some(v),
            Data::Floats(_) => None,
        }
    }
}

impl Node {
    /// An integer attribute.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(i)) => Some(*i),
            _ => None,
        }
    }

    /// A real attribute.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(f)) => Some(*f),
            _ => None,
        }
    }

    /// A list of integers.
    #[must_use]
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(list)) => Some(list),
            _ => None,
        }
    }

    /// A word.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The name of input `k`, if it is there.
    #[must_use]
    pub fn input(&self, k: usize) -> Option<&str> {
        self.inputs.get(k).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// Result of reading a graph.
type Result<T> = std::result::Result<T, Mismatch>;

fn invalid(found: impl Into<String>, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(found, expected)
}

/// Oldest operator set whose operators mean what this crate computes.
const MIN_OPSET: i64 = 11;

impl Graph {
    /// Reads a model file.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if the bytes are not an ONNX model, or one that keeps data in other
    /// files, uses other operator domains, is not in computing order, or contradicts itself.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        Self::decode(Bytes::copy_from_slice(bytes))
    }

    /// As [`read`](Self::read), without a copy of the weights as stored.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn decode(file: Bytes) -> Result<Self> {
        Self::from_proto(graph::parse(file)?)
    }

    /// Checks a decoded model. Its weights are freed one by one as they are converted.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn from_proto(model: proto::Model) -> Result<Self> {
        let standard = |domain: &str| matches!(domain, "" | "ai.onnx");
        let opset = model
            .opset_import
            .iter()
            .filter(|set| standard(&set.domain))
            .map(|set| set.version)
            .max();
        if opset.is_none_or(|version| version < MIN_OPSET) {
            let found = opset.map_or_else(|| "no opset".to_owned(), |n| format!("opset {n}"));
            return Err(invalid(found, format!("{MIN_OPSET} or later")));
        }
        let Some(written) = model.graph else {
            return Err(invalid("no graph", "one"));
        };
        let mut constants = HashMap::new();
        for tensor in written.initializer {
            let name = tensor.name.clone();
            constants.insert(name.clone(), tensor_from(tensor, &name)?);
        }
        let ports = |list: Vec<proto::ValueInfo>| -> Result<Vec<Port>> {
            list.into_iter().map(port_from).collect()
        };
        let mut inputs = ports(written.input)?;
        inputs.retain(|port| !constants.contains_key(&port.name));
        let mut nodes = Vec::with_capacity(written.node.len());
        for node in written.node {
            if !standard(&node.domain) {
                return Err(invalid(
                    format!("operator {:?} of domain {:?}", node.op_type, node.domain),
                    "operators of ONNX itself",
                ));
            }
            nodes.push(node_from(node)?);
        }
        let graph = Self { inputs, outputs: ports(written.output)?, nodes, constants };
        graph.check_order()?;
        Ok(graph)
    }

    /// Every value is made once, and before it is read.
    fn check_order(&self) -> Result<()> {
        let mut known: HashSet<&str> = self.constants.keys().map(String::as_str).collect();
        known.extend(self.inputs.iter().map(|port| port.name.as_str()));
        let unknown = |name: &str, reader: &str| {
            invalid(format!("{name:?}, read by {reader:?} before it is made"), "nodes in order")
        };
        for node in &self.nodes {
            for name in node.inputs.iter().filter(|name| !name.is_empty()) {
                if !known.contains(name.as_str()) {
                    return Err(unknown(name, &node.name));
                }
            }
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                if !known.insert(name) {
                    return Err(invalid(format!("{name:?} made twice"), "one node per value"));
                }
            }
        }
        for port in &self.outputs {
            if !known.contains(port.name.as_str()) {
                return Err(unknown(&port.name, "the graph's output"));
            }
        }
        Ok(())
    }
}

fn port_from(info: proto::ValueInfo) -> Result<Port> {
    let name = info.name;
    let dims = info.r#type.and_then(|t| t.tensor_type).and_then(|t| t.shape);
    let extent = |dim: proto::Dim| match dim.dim_value {
        None => Ok(None),
        Some(n) => usize::try_from(n)
            .map(Some)
            .map_err(|_| invalid(format!("extent {n} of {name:?}"), "a count")),
    };
    let dims = dims.unwrap_or_default().dim.into_iter().map(extent).collect::<Result<_>>()?;
    Ok(Port { name, dims })
}

fn node_from(node: proto::Node) -> Result<Node> {
    let name = node.label().to_owned();
    let mut attributes = HashMap::new();
    for attribute in node.attribute {
        let key = attribute.name;
        // The type tag is optional in old files; exactly one field is filled.
        let value = if let Some(i) = attribute.i {
            Attribute::Int(i)
        } else if let Some(f) = attribute.f {
            Attribute::Float(f)
        } else if let Some(s) = attribute.s {
            Attribute::Text(String::from_utf8_lossy(&s).into_owned())
        } else if let Some(t) = attribute.t {
            Attribute::Tensor(Arc::new(tensor_from(t, &name)?))
        } else if !attribute.floats.is_empty() {
            Attribute::Floats(attribute.floats)
        } else {
            Attribute::Ints(attribute.ints)
        };
        attributes.insert(key, value);
    }
    Ok(Node { name, op: node.op_type, inputs: node.input, outputs: node.output, attributes })
}

/// Elements of `raw`, `N` bytes each.
fn elements<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = raw.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|&bytes| read(bytes)).collect())
}

fn tensor_from(tensor: proto::Tensor, name: &str) -> Result<Tensor> {
    let bad = |found: String, expected: &str| invalid(format!("{found} in {name:?}"), expected);
    if tensor.data_location != 0 {
        return Err(bad("data in another file".into(), "data inside the model file"));
    }
    let mut len = 1_usize;
    let mut dims = Vec::with_capacity(tensor.dims.len());
    for &dim in &tensor.dims {
        let extent = usize::try_from(dim).ok();
        let product = extent.and_then(|n| len.checked_mul(n));
        let (Some(extent), Some(product)) = (extent, product) else {
            return Err(bad(format!("dimensions {:?}", tensor.dims), "counts"));
        };
        len = product;
        dims.push(extent);
    }
    let half = |bits: i32| half::f16::from_bits(bits as u16).to_f32();
    let brain = |bits: i32| half::bf16::from_bits(bits as u16).to_f32();
    let raw = Some(&tensor.raw_data[..]).filter(|raw| !raw.is_empty());
    let data = match (tensor.data_type, raw) {
        (1, None) => Some(Data::Floats(tensor.float_data)),
        (1, Some(raw)) => elements(raw, f32::from_le_bytes).map(Data::Floats),
        (10, None) => Some(Data::Floats(tensor.int32_data.iter().map(|&i| half(i)).collect())),
        (10, Some(raw)) => {
            elements(raw, |b| half(i32::from(u16::from_le_bytes(b)))).map(Data::Floats)
        }
        (16, None) => Some(Data::Floats(tensor.int32_data.iter().map(|&i| brain(i)).collect())),
        (16, Some(raw)) => {
            elements(raw, |b| brain(i32::from(u16::from_le_bytes(b)))).map(Data::Floats)
        }
        (11, None) => Some(Data::Floats(tensor.double_data.iter().map(|&v| v as f32).collect())),
        (11, Some(raw)) => elements(raw, |b| f64::from_le_bytes(b) as f32).map(Data::Floats),
        (7, None) => Some(Data::Ints(tensor.int64_data)),
        (7, Some(raw)) => elements(raw, i64::from_le_bytes).map(Data::Ints),
        (6 | 9, None) => {
            Some(Data::Ints(tensor.int32_data.iter().map(|&i| i64::from(i)).collect()))
        }
        (6, Some(raw)) => elements(raw, |b| i64::from(i32::from_le_bytes(b))).map(Data::Ints),
        (9, Some(raw)) => elements(raw, |[b]: [u8; 1]| i64::from(b)).map(Data::Ints),
        (other, _) => {
            return Err(bad(
                format!("element type {other}"),
                "float, double, float16, bfloat16, int32, int64 or bool",
            ));
        }
    };
    let tensor = data.map(|data| Tensor { dims, data });
    match tensor {
        Some(tensor) if tensor.len() == len => Ok(tensor),
        Some(tensor) => Err(bad(format!("{} elements", tensor.len()), "as many as dimensions say")),
        None => Err(bad("a fraction of an element".into(), "whole elements")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SELFTEST: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/selftest.onnx"));

    #[test]
    fn selftest_graph_is_read() {
        let graph = Graph::read(SELFTEST).expect("a valid model");
        assert_eq!(graph.inputs.len(), 1);
        assert_eq!(graph.inputs[0].dims, [None, Some(1), None, None, None]);
        assert_eq!(graph.outputs[0].name, "output");
        let convs = graph.nodes.iter().filter(|node| node.op == "Conv").count();
        assert_eq!(convs, 11);
        let first = &graph.nodes[0];
        assert_eq!(first.ints("kernel_shape"), Some(&[3, 3, 3][..]));
        let weights = &graph.constants[&first.inputs[1]];
        assert_eq!(weights.dims, [4, 1, 3, 3, 3]);
        assert!(weights.floats().is_some_and(|w| w.iter().all(|v| v.is_finite())));
    }

    #[test]
    fn every_prefix_is_an_error_or_a_graph() {
        for end in (0..SELFTEST.len()).step_by(997) {
            let _ = Graph::read(&SELFTEST[..end]);
        }
        assert!(Graph::read(&[]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Graph::read(&bytes);
        }

        #[test]
        fn damaged_models_never_panic(at in 0..SELFTEST.len(), byte in any::<u8>()) {
            let mut bytes = SELFTEST.to_vec();
            bytes[at] = byte;
            let _ = Graph::read(&bytes);
        }
    }
}
