use super::*;
use crate::onnx;
use std::collections::HashMap;

const PATCH: [usize; 3] = [16; 3];

fn selftest() -> Graph {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/selftest.onnx");
    Graph::read(&std::fs::read(file).expect("the self-test model")).expect("a graph")
}

fn refused(graph: Graph) -> String {
    Network::new(graph, PATCH).expect_err("not a network").to_string()
}

/// A node without weights that reads and makes single values.
fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> onnx::Node {
    onnx::Node {
        name: name.to_owned(),
        op: op.to_owned(),
        inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: HashMap::new(),
    }
}

#[test]
fn every_value_has_its_extent() {
    let network = Network::new(selftest(), PATCH).expect("a network");
    assert_eq!(network.input, Extent { channels: 1, dims: PATCH });
    assert_eq!(network.extent(network.output), Extent { channels: 4, dims: PATCH });
    let smallest = network.nodes.iter().map(|node| node.extent.voxels()).min();
    assert_eq!(smallest, Some(4 * 4 * 4), "two levels down");
    let last = network.last_reads();
    assert_eq!(last[network.output], network.nodes.len(), "the output is kept to the end");
}

/// Counted by hand from the sizes of weights: twice the patch along each axis is eight times the work.
#[test]
fn multiply_adds_are_those_of_every_convolution() {
    let network = Network::new(selftest(), PATCH).expect("a network");
    let mut by_hand = 0;
    for node in &network.nodes {
        let (Operator::Conv(conv) | Operator::TransposedConv(conv)) = &node.operator else {
            continue;
        };
        let taps: usize = conv.window.kernel.iter().product();
        let inputs = network.extent(node.inputs[0]);
        let pairs = inputs.channels * node.extent.channels / conv.groups;
        let places = match node.operator {
            Operator::Conv(_) => node.extent.voxels(),
            _ => inputs.voxels(),
        };
        by_hand += pairs * taps * places;
    }
    assert_eq!(network.multiply_adds(), by_hand as u64);
    let twice = Network::new(selftest(), PATCH.map(|n| 2 * n)).expect("a network");
    assert_eq!(twice.multiply_adds(), 8 * network.multiply_adds());
}

/// An engine may leave the last layer to the very end, but not unchecked.
#[test]
fn a_last_layer_that_does_not_fit_is_refused() {
    let mut graph = selftest();
    let last = graph.nodes.last().expect("a node").clone();
    let weights = graph.constants.get_mut(&last.inputs[1]).expect("weights");
    weights.dims[1] *= 2;
    let message = refused(graph);
    assert!(message.contains("elements") || message.contains(&last.name), "{message}");

    let mut graph = selftest();
    let last = graph.nodes.last().expect("a node").clone();
    let weights = graph.constants.get_mut(&last.inputs[1]).expect("weights");
    weights.dims[0] *= 2;
    weights.dims[1] /= 2;
    let message = refused(graph);
    assert!(message.contains(&last.name), "{message}");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut graph = selftest();
        let name = graph.nodes[0].inputs[1].clone();
        let onnx::Data::Floats(values) = &mut graph.constants.get_mut(&name).expect("weights").data
        else {
            panic!("weights are real numbers")
        };
        values[3] = bad;
        let message = refused(graph);
        assert!(message.contains("not finite") && message.contains(&name), "{message}");
    }
}

/// Nodes without weights of their own cost a file a few bytes each, and an engine numbers for every
/// channel they read.
#[test]
fn many_nodes_over_many_channels_are_refused() {
    let mut graph = selftest();
    graph.inputs[0].dims[1] = Some(4096);
    graph.nodes.clear();
    let names: Vec<String> = (0..=2000).map(|k| format!("v{k}")).collect();
    let input = graph.inputs[0].name.clone();
    // Of one voxel, so that it is not their work that is too much.
    graph.nodes.push(node("GlobalAveragePool", "first", &[&input], &names[0]));
    for pair in names.windows(2) {
        graph.nodes.push(node("Sigmoid", &pair[1], &[&pair[0]], &pair[1]));
    }
    graph.outputs[0].name.clone_from(&names[2000]);
    let message = refused(graph);
    assert!(message.contains("channels read and made by all nodes"), "{message}");
}

/// One constant behind many nodes is held once.
#[test]
fn shared_weights_are_not_copied() {
    let mut graph = selftest();
    let first = graph.nodes[0].clone();
    let input = graph.inputs[0].name.clone();
    let mut sum = first.outputs[0].clone();
    for k in 0..50 {
        let (made, added) = (format!("again {k}"), format!("sum {k}"));
        let mut again = first.clone();
        (again.inputs[0], again.outputs[0]) = (input.clone(), made.clone());
        graph.nodes.insert(1 + 2 * k, again);
        graph.nodes.insert(2 + 2 * k, node("Add", &added, &[&sum, &made], &added));
        sum = added;
    }
    let network = Network::new(graph, PATCH).expect("a network");
    let shared: Vec<*const f32> = network
        .nodes
        .iter()
        .filter_map(|node| match &node.operator {
            Operator::Conv(conv) => Some(conv.weights.as_ptr()),
            _ => None,
        })
        .take(51)
        .collect();
    assert!(shared.iter().all(|place| *place == shared[0]));
}
