//! A network's last layer, cut off its file where it is better applied late.
//!
//! A pointwise convolution into more classes than it reads features is linear per voxel: tiles
//! may be averaged and resampled as features, and the layer applied at the voxels of the image.

use crate::network::Network;
use crate::proto::Model;

/// Cuts the last layer off if `network`, which is the model's, ends in a linear head with more classes
/// than features; the model's output are the features then. Otherwise nothing changes.
pub fn cut(model: &mut Model, network: &Network) -> bool {
    let wide = network.head().filter(|(classes, features)| features < classes);
    wide.is_some_and(|(_, features)| take_last(model, features).is_some())
}

fn take_last(model: &mut Model, features: usize) -> Option<()> {
    let graph = model.graph.as_mut()?;
    let [output] = &mut graph.output[..] else { return None };
    let at = graph.node.iter().position(|node| node.output.contains(&output.name))?;
    // Values computed besides would make it another network.
    if graph.node.iter().any(|other| other.input.contains(&output.name)) {
        return None;
    }
    let source = graph.node[at].input.first()?.clone();
    let shape = output.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?;
    let channels = shape.dim.get_mut(1)?;
    (channels.dim_value, channels.dim_param) = (i64::try_from(features).ok(), None);
    output.name = source;
    let node = graph.node.remove(at);
    let used = |name: &String| graph.node.iter().any(|other| other.input.contains(name));
    graph.initializer.retain(|t| !node.input[1..].contains(&t.name) || used(&t.name));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph, onnx};

    /// A network of the program, as its file has it and as engines run it.
    fn network(name: &str, patch: [usize; 3]) -> (Model, Network) {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
        let file = std::fs::read(format!("{models}/{name}.onnx")).expect(name);
        let model = graph::parse(file.into()).expect("an ONNX model");
        let graph = onnx::Graph::from_proto(model.clone()).expect("a graph");
        (model, Network::new(graph, patch).expect("a network"))
    }

    #[test]
    fn a_wide_head_is_cut_off_and_given_back() {
        let (whole, mut checked) = network("total", [32; 3]);
        let mut rest = whole.clone();
        assert_eq!(checked.head(), Some((118, 8)));
        assert!(cut(&mut rest, &checked));
        let (whole, graph) = (whole.graph.expect("a graph"), rest.graph.expect("a graph"));
        assert_eq!(graph.node, whole.node[..whole.node.len() - 1]);
        assert_eq!(graph.initializer.len() + 2, whole.initializer.len());
        let last = whole.node.last().expect("a node");
        assert_eq!(graph.output[0].name, last.input[0]);
        let head = checked.take_head().expect("a linear head");
        let find =
            |name: &String| whole.initializer.iter().find(|t| t.name == *name).expect("weights");
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        assert_eq!(bytes(&head.weights), find(&last.input[1]).raw_data.to_vec());
        assert_eq!(bytes(&head.bias.to_vec(118)), find(&last.input[2]).raw_data.to_vec());
        assert_eq!((checked.output_channels(), checked.head()), (8, None));
    }

    #[test]
    fn a_narrow_head_stays() {
        // Fewer classes than features.
        let (mut model, checked) = network("selftest", [16; 3]);
        let before = model.clone();
        assert!(!cut(&mut model, &checked));
        assert_eq!(model, before);
    }
}
