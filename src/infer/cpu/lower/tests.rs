use super::*;
use crate::Mismatch;
use crate::infer::cpu::CpuEngine;
use crate::model::onnx::{Attribute, Graph};
use proptest::prelude::*;

const SELFTEST: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/selftest.onnx"));

const PATCH: [usize; 3] = [8, 8, 8];

fn selftest() -> Graph {
    Graph::read(SELFTEST).expect("a valid model")
}

fn lowered(graph: &Graph) -> Result<Plan, Mismatch> {
    let network = Network::new(graph.clone(), PATCH)?;
    Ok(lower(network, Precision::F32, Isa::SCALAR, false, None).0)
}

#[test]
fn norms_activations_and_concatenations_are_no_steps() {
    let plan = lowered(&selftest()).expect("it lowers");
    // Eleven convolutions and two transposed ones.
    assert_eq!(plan.steps.len(), 13);
    // Three of the largest, of all that are ever needed.
    let largest = plan.tensors.iter().map(PlannedTensor::floats).max().expect("tensors");
    assert!(plan.floats <= 3 * largest + 64, "{} floats, {largest} the largest", plan.floats);
}

#[test]
fn no_step_writes_where_something_still_to_be_read_is() {
    let plan = lowered(&selftest()).expect("it lowers");
    let place = |tensor: TensorId| match plan.tensors[tensor].place {
        Place::At(place) => place..place + plan.tensors[tensor].floats(),
        Place::Output => 0..0,
    };
    for (at, step) in plan.steps.iter().enumerate() {
        let later = plan.steps[at..].iter().flat_map(Step::reads);
        for tensor in later {
            let written = plan.steps[..at].iter().any(|s| s.out == tensor) || tensor == plan.input;
            let (held, made) = (place(tensor), place(step.out));
            let apart = held.end <= made.start || made.end <= held.start;
            assert!(!written || apart, "{}", step.name);
        }
    }
}

#[test]
fn unsupported_operators_are_named() {
    let mut graph = selftest();
    graph.nodes[2].op = "Erf".into();
    let error = lowered(&graph).expect_err("no such operator").to_string();
    assert!(error.contains("Erf") && error.contains(&graph.nodes[2].name), "{error}");
}

#[test]
fn contradictions_are_errors() {
    type Damage = fn(&mut crate::model::onnx::Node);
    // (case, what is wrong with the second convolution)
    let cases: [(&str, Damage); 5] = [
        ("no weights", |node| node.inputs.truncate(1)),
        ("stride 0", |node| {
            node.attributes.insert("strides".into(), Attribute::Ints(vec![0, 1, 1]));
        }),
        ("negative pads", |node| {
            node.attributes.insert("pads".into(), Attribute::Ints(vec![-1; 6]));
        }),
        ("odd pads", |node| {
            node.attributes.insert("pads".into(), Attribute::Ints(vec![1; 3]));
        }),
        ("groups", |node| {
            node.attributes.insert("group".into(), Attribute::Int(3));
        }),
    ];
    for (case, damage) in cases {
        let mut graph = selftest();
        damage(&mut graph.nodes[3]);
        lowered(&graph).expect_err(case);
    }
}

/// A file of a thousand bytes may double a value as often as it likes.
#[test]
fn doubled_concatenations_are_refused_before_they_fill_memory() {
    let mut graph = selftest();
    let mut doubled = graph.inputs[0].name.clone();
    for k in 0..60 {
        let mut node = graph.nodes[0].clone();
        node.op = "Concat".into();
        node.name = format!("doubling {k}");
        node.attributes.clear();
        node.inputs = vec![doubled.clone(), doubled];
        doubled = format!("doubled {k}");
        node.outputs = vec![doubled.clone()];
        graph.nodes.insert(k, node);
    }
    let error = lowered(&graph).expect_err("2^60 channels").to_string();
    assert!(error.contains("doubling") && error.contains("side by side"), "{error}");
}

/// Layers are joined where that spares memory, and make the same bytes.
#[test]
fn joined_layers_take_less_and_make_the_same_bytes() {
    let bytes = crate::registry::find("bone_low").expect("embedded").onnx().expect("embedded");
    let patch = [16, 512, 32];
    let mut found = 0;
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            if precision == Precision::Bf16 && !isa.has_bf16() {
                continue;
            }
            let mut graph = Graph::read(&bytes).expect("valid");
            // Rows enough for bands.
            graph.inputs[0].dims[2..].fill(None);
            let network = Network::new(graph, patch).expect("it fits");
            let (plan, _) = lower(network, precision, isa, false, None);
            let mut joined = plan.clone();
            joined.join_layers();
            // How many rows a band has, and so whether there are enough, depends on the kernels.
            if joined.steps.iter().any(|step| step.ring().is_some()) {
                assert!(joined.floats < plan.floats, "{isa} {precision}");
                found += 1;
            }
            let answer = |plan: Plan| {
                let channels = [plan.input, plan.output].map(|t| plan.tensors[t].layout.channels);
                let mut engine = CpuEngine::new(vec![plan], None, patch, precision).expect("opens");
                let [z, y, x] = patch;
                let input =
                    ndarray::Array4::from_shape_fn((channels[0], z, y, x), |(c, _, y, x)| {
                        ((c * 7 + y * 31 + x * 5) % 97) as f32 / 48.0 - 1.0
                    });
                let mut output = ndarray::Array4::zeros((channels[1], z, y, x));
                crate::infer::Engine::run(&mut engine, input.view(), &mut output).expect("runs");
                output.mapv(f32::to_bits)
            };
            assert!(answer(plan) == answer(joined), "{isa} {precision}");
        }
    }
    assert!(found > 0, "no layers were joined");
}

/// Nothing the size of a patch is there before the first one runs.
#[test]
fn memory_is_known_before_it_is_taken() {
    let mut engine =
        CpuEngine::open(SELFTEST, PATCH, Precision::F32, Isa::SCALAR).expect("it lowers");
    let before = crate::infer::Engine::memory_bytes(&engine, 1);
    assert!(engine.memory.is_empty() && before > 0);
    let input = ndarray::Array4::zeros([1, PATCH[0], PATCH[1], PATCH[2]]);
    let mut output = ndarray::Array4::zeros([4, PATCH[0], PATCH[1], PATCH[2]]);
    crate::infer::Engine::run(&mut engine, input.view(), &mut output).expect("runs");
    assert_eq!(engine.memory.len(), engine.planned);
    assert_eq!(before, crate::infer::Engine::memory_bytes(&engine, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_models_never_panic(at in 0..SELFTEST.len(), byte in any::<u8>()) {
        let mut bytes = SELFTEST.to_vec();
        bytes[at] = byte;
        let _ = CpuEngine::open(&bytes, PATCH, Precision::F32, Isa::SCALAR);
    }

    #[test]
    fn damaged_attributes_never_panic(
        node in 0..28_usize,
        name in prop::sample::select(vec![
            "pads", "strides", "dilations", "kernel_shape", "group", "output_padding", "axis",
        ]),
        list in prop::collection::vec(-2_i64..6, 0..7),
        one in -2_i64..6,
    ) {
        let mut graph = selftest();
        let count = graph.nodes.len();
        let value = if name == "group" || name == "axis" {
            Attribute::Int(one)
        } else {
            Attribute::Ints(list)
        };
        graph.nodes[node % count].attributes.insert(name.into(), value);
        let _ = lowered(&graph);
    }
}

#[test]
fn lowering_stays_under_its_bound_on_every_instruction_set() {
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            for model in crate::registry::models() {
                let graph = Graph::read(&model.onnx().expect("embedded")).expect("valid");
                let network = Network::new(graph, model.config().patch_size).expect("checked");
                let in_halves = precision == Precision::Bf16 && isa.has_bf16();
                let bound = crate::infer::cpu::memory::lowering_bytes(&network, in_halves);
                let plan = lower(network, precision, isa, false, None).0;
                let (name, made) = (&model.name, plan.bytes());
                assert!(made <= bound, "{name} on {isa}: {made} bytes, bound {bound}");
                // Minimal filtering is assumed, and small networks are padding mostly.
                let close = made < 1 << 20 || bound <= 4 * made;
                assert!(close, "{name} on {isa} in {precision}: {made} bytes, bound {bound}");
            }
        }
    }
}
