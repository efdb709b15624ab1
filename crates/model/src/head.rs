//! The last layer of a network, cut off where it is better applied late.
//!
//! A pointwise convolution into more classes than it reads features is linear per voxel: tiles
//! may be averaged and resampled as features, and the layer applied at the voxels of the image.
//! The build script cuts by the same code, so that the generated network ends where the engine
//! thinks it does.

use super::proto::{Model, Node, Tensor};

/// A pointwise convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[classes, features]`, row after row.
    pub weights: Vec<f32>,
    /// One per class.
    pub bias: Vec<f32>,
    /// Channels it reads.
    pub features: usize,
}

/// Cuts the last layer off if it is a pointwise convolution into more classes than features;
/// the network's output are the features then. Otherwise nothing changes.
pub fn cut(model: &mut Model) -> Option<Head> {
    let graph = model.graph.as_mut()?;
    let [output] = &mut graph.output[..] else { return None };
    let at = graph.node.iter().position(|node| node.output.contains(&output.name))?;
    let node = &graph.node[at];
    let head = head(node, &graph.initializer)?;
    // Values computed besides, or features that are an input, would make it another network.
    let read = graph.node.iter().any(|other| other.input.contains(&output.name));
    let source = node.input.first()?.clone();
    if read || !graph.node[..at].iter().any(|other| other.output.contains(&source)) {
        return None;
    }
    let node = graph.node.remove(at);
    let used = |name: &String| graph.node.iter().any(|other| other.input.contains(name));
    graph.initializer.retain(|t| !node.input[1..].contains(&t.name) || used(&t.name));
    output.name = source;
    let shape = output.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?;
    let channels = shape.dim.get_mut(1)?;
    (channels.dim_value, channels.dim_param) = (i64::try_from(head.features).ok(), None);
    Some(head)
}

fn head(node: &Node, initializers: &[Tensor]) -> Option<Head> {
    let all = |name: &str, wanted: i64| {
        node.ints(name).is_none_or(|list| list.iter().all(|&n| n == wanted))
    };
    let padded = node.attribute.iter().any(|attribute| {
        attribute.name == "auto_pad"
            && attribute.s.as_deref().is_some_and(|mode| !matches!(mode, b"NOTSET" | b"VALID"))
    });
    let plain = node.op_type == "Conv"
        && all("strides", 1)
        && all("pads", 0)
        && node.int("group").unwrap_or(1) == 1
        && !padded;
    let constant = |k: usize| {
        let name = node.input.get(k).filter(|name| !name.is_empty())?;
        initializers.iter().find(|tensor| tensor.name == *name)
    };
    let kernel = constant(1)?;
    let [classes, features, rest @ ..] = &kernel.dims[..] else { return None };
    if !plain || rest.iter().any(|&n| n != 1) || features >= classes {
        return None;
    }
    let (classes, features) = (usize::try_from(*classes).ok()?, usize::try_from(*features).ok()?);
    let weights = floats(kernel)?;
    let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(_) => floats(constant(2)?)?,
        None => vec![0.0; classes],
    };
    let whole = weights.len() == classes.checked_mul(features)? && bias.len() == classes;
    whole.then_some(Head { weights, bias, features })
}

/// Values of a tensor of 32-bit floats.
fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    const FLOAT: i32 = 1;
    if tensor.data_type != FLOAT {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    let (numbers, rest) = tensor.raw_data.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;

    /// A network of the program.
    fn network(name: &str) -> Model {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
        let onnx = std::fs::read(format!("{models}/{name}.onnx")).expect(name);
        graph::parse(onnx.into()).expect("an ONNX model")
    }

    #[test]
    fn a_wide_head_is_cut_off_and_given_back() {
        let whole = network("total");
        let mut cut_off = whole.clone();
        let head = cut(&mut cut_off).expect("more classes than features");
        assert_eq!((head.bias.len(), head.features), (118, 8));
        let (whole, graph) =
            (whole.graph.expect("a graph"), cut_off.graph.as_ref().expect("a graph"));
        assert_eq!(graph.node, whole.node[..whole.node.len() - 1]);
        assert_eq!(graph.initializer.len() + 2, whole.initializer.len());
        let last = whole.node.last().expect("a node");
        assert_eq!(graph.output[0].name, last.input[0]);
        let find = |name| whole.initializer.iter().find(|t| t.name == name).expect("weights");
        let values = |tensor: &Tensor| -> Vec<u8> { tensor.raw_data.to_vec() };
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        assert_eq!(bytes(&head.weights), values(find(last.input[1].as_str())));
        assert_eq!(bytes(&head.bias), values(find(last.input[2].as_str())));
        assert_eq!(cut(&mut cut_off), None, "what is left ends in an activation");
    }

    #[test]
    fn other_networks_stay_whole() {
        // Fewer classes than features.
        let mut narrow = network("selftest");
        let before = narrow.clone();
        assert_eq!(cut(&mut narrow), None);
        assert_eq!(narrow, before);
        // Last layers that are not linear per voxel.
        for (name, value) in [("strides", vec![2; 3]), ("pads", vec![1; 6])] {
            let mut changed = network("total");
            let graph = changed.graph.as_mut().expect("a graph");
            let last = graph.node.last_mut().expect("a node");
            last.attribute.retain(|attribute| attribute.name != name);
            let name = name.to_owned();
            let setting =
                super::super::proto::Attribute { name, ints: value, ..Default::default() };
            last.attribute.push(setting);
            let before = changed.clone();
            assert_eq!(cut(&mut changed), None);
            assert_eq!(changed, before);
        }
    }
}
