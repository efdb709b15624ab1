//! Layers that no network of a person has but a file may.

use super::CpuEngine;
use crate::Result;
use crate::infer::{Engine, Precision};
use crate::model::network::Network;
use crate::model::onnx::{Attribute, Data, Graph, Node, Port, Tensor};
use fastnnunet_kernels::Isa;
use ndarray::Array4;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::HashMap;

const PATCH: [usize; 3] = [3, 6, 17];
const CHANNELS: usize = 6;

/// Numbers that are not all alike.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13) % 31) as f32 / 16.0 - 0.9).collect()
}

/// A graph of nodes that follow one another.
struct Chain {
    graph: Graph,
    /// What the last node made.
    last: String,
}

impl Chain {
    fn new() -> Self {
        let port = |name: &str, channels: usize| Port {
            name: name.to_owned(),
            dims: [1, channels].into_iter().chain(PATCH).map(Some).collect(),
        };
        let (inputs, outputs) = (vec![port("input", 1)], vec![port("output", 2)]);
        let graph = Graph { inputs, outputs, nodes: Vec::new(), constants: HashMap::new() };
        Self { graph, last: "input".to_owned() }
    }

    fn then(&mut self, op: &str, constants: &[Option<Tensor>], attributes: &[(&str, Attribute)]) {
        let at = self.graph.nodes.len();
        let mut inputs = vec![self.last.clone()];
        for (k, constant) in constants.iter().enumerate() {
            let Some(constant) = constant else {
                inputs.push(String::new());
                continue;
            };
            inputs.push(format!("{op} {at} {k}"));
            self.graph.constants.insert(inputs[k + 1].clone(), constant.clone());
        }
        self.last = format!("{op} {at}");
        self.graph.nodes.push(Node {
            name: self.last.clone(),
            op: op.to_owned(),
            inputs,
            outputs: vec![self.last.clone()],
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        });
    }
}

fn reals(dims: &[usize]) -> Tensor {
    let count = dims.iter().product();
    Tensor { dims: dims.to_vec(), data: Data::Floats(numbers(count, dims.len())) }
}

/// An operator with a window, as a file may describe it.
#[derive(Clone, Debug)]
struct Layer {
    op: &'static str,
    kernel: [usize; 3],
    stride: [i64; 3],
    dilation: [i64; 3],
    pads: [i64; 6],
    more: [i64; 3],
    groups: usize,
    norm: bool,
}

fn layers() -> impl Strategy<Value = Layer> {
    let ops = prop::sample::select(
        &["Conv", "ConvTranspose", "ConvTranspose", "MaxPool", "AveragePool"][..],
    );
    let few = |usual: i64, low: i64, high: i64| prop_oneof![Just(usual), low..=high];
    let window = (
        prop::array::uniform3(1..5_usize),
        prop::array::uniform3(few(1, 1, 4)),
        prop::array::uniform3(few(1, 1, 3)),
        prop::array::uniform6(few(0, 0, 5)),
        prop::array::uniform3(few(0, 0, 2)),
    );
    let rest = (ops, prop::sample::select(&[1, 2, 3][..]), any::<bool>());
    (window, rest).prop_map(|((kernel, stride, dilation, pads, more), (op, groups, norm))| Layer {
        op,
        kernel,
        stride,
        dilation,
        pads,
        more,
        groups,
        norm,
    })
}

/// A network around `layer`.
fn network(layer: &Layer) -> Graph {
    let mut chain = Chain::new();
    chain.then("Conv", &[Some(reals(&[CHANNELS, 1, 1, 1, 1]))], &[]);
    let weights = [CHANNELS, CHANNELS / layer.groups].into_iter().chain(layer.kernel);
    let weights = Some(reals(&weights.collect::<Vec<_>>()));
    let pooled = layer.op.ends_with("Pool");
    let ints = |list: &[i64]| Attribute::Ints(list.to_vec());
    let mut attributes = vec![
        ("strides", ints(&layer.stride)),
        ("dilations", ints(&layer.dilation)),
        ("pads", ints(&layer.pads)),
    ];
    if pooled {
        attributes.push(("kernel_shape", ints(&layer.kernel.map(|n| n as i64))));
    } else {
        attributes.push(("group", Attribute::Int(layer.groups as i64)));
    }
    if layer.op == "ConvTranspose" {
        attributes.push(("output_padding", ints(&layer.more)));
    }
    chain.then(layer.op, if pooled { &[] } else { std::slice::from_ref(&weights) }, &attributes);
    if layer.norm {
        chain.then(
            "InstanceNormalization",
            &[Some(reals(&[CHANNELS])), Some(reals(&[CHANNELS]))],
            &[],
        );
    }
    let sizes = [1, CHANNELS].into_iter().chain(PATCH).map(|n| n as i64).collect();
    let sizes = Tensor { dims: vec![5], data: Data::Ints(sizes) };
    chain.then("Resize", &[None, None, Some(sizes)], &[("mode", Attribute::Text("linear".into()))]);
    chain.then("Conv", &[Some(reals(&[2, CHANNELS, 1, 1, 1]))], &[]);
    chain.graph.nodes.last_mut().expect("the last").outputs = vec!["output".into()];
    chain.graph
}

fn run(engine: &mut CpuEngine, input: &Array4<f32>) -> Result<Array4<f32>> {
    let mut output = Array4::zeros([2, PATCH[0], PATCH[1], PATCH[2]]);
    engine.run(input.view(), &mut output)?;
    Ok(output)
}

proptest! {
    // The same layers every time.
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(20),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_layer_that_is_accepted_runs_and_keeps_nothing_of_the_patch_before(layer in layers()) {
        prop_assume!(Network::new(network(&layer), PATCH).is_ok());
        let patch = |seed: usize| {
            let shape = (1, PATCH[0], PATCH[1], PATCH[2]);
            let count = PATCH.iter().product();
            Array4::from_shape_vec(shape, numbers(count, seed)).expect("as many")
        };
        let (first, other) = (patch(1), patch(2) * 30.0);
        let mut scalar: Option<Array4<f32>> = None;
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                if precision == Precision::Bf16 && !isa.has_bf16() {
                    continue;
                }
                let case = format!("{isa} in {precision}");
                let mut engine = CpuEngine::from_graph(network(&layer), PATCH, precision, isa)
                    .expect("as it was checked");
                let once = run(&mut engine, &first).expect("runs");
                run(&mut engine, &other).expect("runs");
                let again = run(&mut engine, &first).expect("runs");
                prop_assert!(once == again, "{case}: another answer after another patch");
                prop_assert!(once.iter().all(|v| v.is_finite()), "{case}: {once}");
                // A normalization of numbers that are almost alike shows how they were rounded.
                if precision == Precision::Bf16 && layer.norm {
                    continue;
                }
                let exact = scalar.get_or_insert_with(|| once.clone());
                let scale = exact.iter().fold(1.0_f32, |most, v| most.max(v.abs()));
                let bound = scale * if precision == Precision::F32 { 1e-4 } else { 0.1 };
                let off = (&once - &*exact).iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                prop_assert!(off <= bound, "{case}: off by {off} of {scale}");
            }
        }
    }
}
