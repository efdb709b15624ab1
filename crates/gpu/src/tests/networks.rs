//! Whole networks against golden logits.
#![allow(clippy::print_stdout)]

use super::devices;
use crate::{Options, Precision};
use fastnnunet_model::network::Network;
use fastnnunet_model::onnx::Graph;

/// Patches and the logits the exporting framework computes for them.
struct Case {
    name: String,
    onnx: Vec<u8>,
    patch: [usize; 3],
    inputs: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
}

fn cases() -> Vec<Case> {
    let root = super::root();
    let mut cases = Vec::new();
    for stage in ["network", "engine"] {
        let folder = format!("{root}/tests/golden/{stage}");
        let index = std::fs::read(format!("{folder}/index.json")).expect("an index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        let array = |name: &serde_json::Value| -> ndarray::ArrayD<f32> {
            ndarray_npy::read_npy(format!("{folder}/{}", name.as_str().expect("a name")))
                .expect("an array")
        };
        for case in index["cases"].as_array().expect("cases") {
            let (input, logits) = (array(&case["input"]), array(&case["expected"]));
            let mut patch = [1; 3];
            let spatial = &input.shape()[2..];
            patch[3 - spatial.len()..].copy_from_slice(spatial);
            let each = |all: &ndarray::ArrayD<f32>| -> Vec<Vec<f32>> {
                all.outer_iter().map(|one| one.iter().copied().collect()).collect()
            };
            let onnx =
                std::fs::read(format!("{root}/{}", case["model"].as_str().expect("a model")));
            cases.push(Case {
                name: case["name"].as_str().expect("a name").to_owned(),
                onnx: onnx.expect("a model"),
                patch,
                inputs: each(&input),
                logits: each(&logits),
            });
        }
    }
    cases
}

#[test]
fn logits_match_the_exporting_framework() {
    let halves = [(Precision::F16, 5e-3), (Precision::Bf16, 4e-2)];
    let has_time = std::env::var_os("ALL_KERNELS").is_some();
    for device in devices() {
        for (number, case) in cases().into_iter().enumerate() {
            // As in `conv`: one half precision after the other.
            let halves = if has_time { &halves[..] } else { &halves[number % 2..][..1] };
            for (precision, tolerance) in [&[(Precision::F32, 1e-5)], halves].concat() {
                if !device.has(precision) {
                    println!("skipped: no {precision:?} here");
                    continue;
                }
                let graph = Graph::read(&case.onnx).expect("a graph");
                let network = Network::new(graph, case.patch).expect("a network");
                let options = Options { precision, ..Options::default() };
                let mut engine =
                    crate::Network::open(&device, vec![network], options).expect("it opens");
                for (input, expected) in case.inputs.iter().zip(&case.logits) {
                    let mut found = vec![f32::NAN; expected.len()];
                    engine.run(input, &mut found).expect("it runs");
                    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                    let worst =
                        found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
                    assert!(
                        worst <= tolerance * largest && found.iter().all(|v| v.is_finite()),
                        "{}, {precision:?}: off by {worst:e}, largest logit {largest}",
                        case.name
                    );
                    println!("{} {precision:?}: {:e}", case.name, worst / largest);
                }
            }
        }
    }
}
