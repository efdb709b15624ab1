//! The CPU engine on whole networks, against ONNX Runtime's answers.

use crate::golden;
use fastnnunet::infer::cpu::{Calibrator, CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::Quantization;
use fastnnunet::model::onnx::Graph;
use fastnnunet_kernels::Layout;
use fastnnunet_kernels::buffer::ScratchPool;
use fastnnunet_kernels::conv::{Arithmetic, Conv, Format, Layer, Shape, Source};
use fastnnunet_kernels::row::Affine;
use ndarray::{Array4, Array5, ArrayD, Axis, s};

fn model(path: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(root.join(path)).expect("the model file")
}

fn run(engine: &mut CpuEngine, input: &Array4<f32>) -> Array4<f32> {
    let (_, z, y, x) = input.dim();
    let mut output = Array4::zeros((engine.output_channels(), z, y, x));
    engine.run(input.view(), &mut output).expect("it runs");
    output
}

fn patch(input: &Array4<f32>) -> [usize; 3] {
    let (_, z, y, x) = input.dim();
    [z, y, x]
}

#[test]
fn golden_networks_agree_on_every_isa() {
    for case in golden::entries("network", "cases") {
        let inputs: Array5<f32> = golden::array("network", &case["input"]);
        let expected: Array5<f32> = golden::array("network", &case["expected"]);
        let onnx = model(case["model"].as_str().expect("a path"));
        let largest = case["largest_logit"].as_f64().expect("a number") as f32;
        for isa in Isa::available() {
            for (input, expected) in inputs.outer_iter().zip(expected.outer_iter()) {
                let input = input.to_owned();
                let mut engine =
                    CpuEngine::open(&onnx, patch(&input), Precision::F32, isa).expect("it opens");
                let found = run(&mut engine, &input);
                let off = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                assert!(off <= 1e-5 * largest, "{isa}: off by {off} of {largest}");
                assert_eq!(run(&mut engine, &input), found, "{isa}: run after run");
            }
        }
    }
}

#[test]
fn other_graphs_agree_on_every_isa() {
    for case in golden::entries("graphs", "cases") {
        let name = &case["name"];
        let path = golden::path("graphs", &case["model"]);
        let onnx = std::fs::read(path).expect("the model file");
        let input: ArrayD<f32> = golden::array("graphs", &case["input"]);
        let expected: ArrayD<f32> = golden::array("graphs", &case["expected"]);
        let largest = case["largest"].as_f64().expect("a number") as f32;
        // Two-dimensional networks get a slice axis.
        let volume = |array: ArrayD<f32>| -> Array4<f32> {
            let array = array.index_axis_move(Axis(0), 0);
            let array = if array.ndim() == 3 { array.insert_axis(Axis(1)) } else { array };
            array.into_dimensionality().expect("four axes")
        };
        let (input, expected) = (volume(input), volume(expected));
        for isa in Isa::available() {
            let mut engine = CpuEngine::open(&onnx, patch(&input), Precision::F32, isa)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let found = run(&mut engine, &input);
            let off = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(off <= 1e-5 * largest, "{name} {isa}: off by {off} of {largest}");
        }
    }
}

#[test]
fn bf16_stays_close_where_the_cpu_has_it() {
    let Some(isa) = Isa::available().into_iter().find(|isa| isa.has_bf16()) else {
        let error = CpuEngine::open(
            &model("models/selftest.onnx"),
            [16, 24, 24],
            Precision::Bf16,
            Isa::SCALAR,
        );
        assert_eq!(error.expect_err("no bf16 here").kind(), fastnnunet::ErrorKind::Device);
        return;
    };
    let onnx = model("models/selftest.onnx");
    let input = Array4::from_shape_fn((1, 16, 24, 24), |(_, z, y, x)| {
        ((z * 3 + y * 5 + x * 7) as f32 * 0.05).sin()
    });
    let open = |precision| CpuEngine::open(&onnx, patch(&input), precision, isa).expect("it opens");
    let exact = run(&mut open(Precision::F32), &input);
    let found = run(&mut open(Precision::Bf16), &input);
    let largest = exact.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let mean = (&found - &exact).iter().map(|v| v.abs()).sum::<f32>() / exact.len() as f32;
    // Eight bits of mantissa through eleven layers.
    assert!(mean < 0.02 * largest, "off by {mean} of {largest} on average");
    assert!(mean > 0.0, "bf16 was not used");
}

#[test]
fn threads_do_not_change_a_byte() {
    let onnx = model("models/selftest.onnx");
    let input = Array4::from_shape_fn((1, 16, 24, 24), |(_, z, y, x)| {
        ((z * 3 + y * 5 + x * 7) as f32 * 0.05).sin()
    });
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            if precision == Precision::Bf16 && !isa.has_bf16() {
                continue;
            }
            let with = |threads: usize| {
                let pool =
                    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let mut engine =
                    CpuEngine::open(&onnx, patch(&input), precision, isa).expect("it opens");
                pool.install(|| run(&mut engine, &input))
            };
            assert_eq!(with(1), with(2), "{isa} {precision}");
        }
    }
}

#[test]
fn head_times_features_is_the_output() {
    let onnx = model("models/selftest.onnx");
    let input = Array4::from_shape_fn((1, 8, 16, 24), |(_, z, y, x)| {
        ((z * 5 + y * 3 + x) as f32 * 0.07).cos()
    });
    let isa = Isa::best();
    let open = CpuEngine::open(&onnx, patch(&input), Precision::F32, isa);
    let logits = run(&mut open.expect("it opens"), &input);
    let mut engine = CpuEngine::open_features(&onnx, patch(&input), Precision::F32, isa)
        .expect("it opens")
        .expect("a linear head");
    let head = engine.head().expect("a linear head").clone();
    assert_eq!(engine.output_channels(), head.weights.ncols());
    let features = run(&mut engine, &input);
    for (class, logits) in logits.axis_iter(Axis(0)).enumerate() {
        for ((z, y, x), &found) in logits.indexed_iter() {
            let terms = features.slice(s![.., z, y, x]);
            let sum = head.weights.row(class).dot(&terms) + head.bias[class];
            assert!((sum - found).abs() < 1e-3, "class {class}: {sum} and {found}");
        }
    }
}

#[test]
fn unusable_patches_are_refused() {
    let onnx = model("models/selftest.onnx");
    for patch in [[0, 16, 16], [15, 16, 16], [2, 2, 3]] {
        let error = CpuEngine::open(&onnx, patch, Precision::F32, Isa::best());
        assert_eq!(
            error.expect_err("does not fit").kind(),
            fastnnunet::ErrorKind::Model,
            "{patch:?}"
        );
    }
    let mut engine =
        CpuEngine::open(&onnx, [8, 8, 8], Precision::F32, Isa::best()).expect("it opens");
    let mut output = Array4::from_elem((4, 8, 8, 16), 7.0);
    for input in [8, 16] {
        let input = Array4::zeros((1, 8, 8, input));
        let error = engine.run(input.view(), &mut output).expect_err("another shape");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model, "{error}");
        assert!(output.iter().all(|&v| v == 7.0), "nothing is written");
    }
}

/// Ranges of the golden network, measured on its own patches.
fn ranges(onnx: &[u8], inputs: &Array5<f32>) -> Quantization {
    let (_, _, z, y, x) = inputs.dim();
    let graph = &mut |_| Ok(Graph::read(onnx).expect("a graph"));
    let mut calibrator = Calibrator::new(1, graph, [z, y, x], Isa::SCALAR).expect("it lowers");
    for input in inputs.outer_iter() {
        calibrator.add(input).expect("it runs");
    }
    calibrator.finish().remove(0)
}

/// Whether products of floats are added before they are rounded.
fn fuses(isa: Isa) -> bool {
    // Its square is 1 + 2^-11 and 2^-24, which f32 rounds away.
    let value = 1.0 + 2.0_f32.powi(-12);
    let (weights, bias) = ([value], [-1.0 - 2.0_f32.powi(-11)]);
    let shape = Shape::plain(1, 1, [1; 3], [1; 3]);
    let conv = Conv::new(isa, &Layer::new(Arithmetic::F32, shape, &weights, &bias));
    let (read, made) = (Layout::dense(1, [1; 3]), Layout::sliced(1, [1; 3], conv.pitch()));
    let affines = [Affine::IDENTITY];
    let source = Source { data: &[value], format: Format::F32, layout: read, affines: &affines };
    let mut out = vec![0.0; made.len()];
    conv.run(&[source], &mut out, made, None, &ScratchPool::new(conv.scratch_len()));
    assert!(out[0] == 0.0 || out[0] == 2.0_f32.powi(-24), "{isa}: {}", out[0]);
    out[0] > 0.0
}

/// Sums of bytes are exact, and what is left of floats is rounded alike: all instruction sets that
/// fuse multiplication and addition in the first layer give the same bytes, and so do all that round
/// in between, as plain Rust does.
#[test]
fn int8_stays_close_and_equal_between_instruction_sets() {
    for case in golden::entries("network", "cases") {
        let inputs: Array5<f32> = golden::array("network", &case["input"]);
        let expected: Array5<f32> = golden::array("network", &case["expected"]);
        let onnx = model(case["model"].as_str().expect("a path"));
        let largest = case["largest_logit"].as_f64().expect("a number") as f32;
        let ranges = ranges(&onnx, &inputs);
        assert_eq!(ranges.fault(), None);
        let (input, expected) =
            (inputs.index_axis(Axis(0), 0).to_owned(), expected.index_axis(Axis(0), 0));
        let mut firsts = [None, None];
        for isa in Isa::available() {
            if !isa.has(Arithmetic::Int8) {
                continue;
            }
            let graph = Graph::read(&onnx).expect("a graph");
            let mut engine =
                CpuEngine::quantized(graph, patch(&input), isa, &ranges).expect("it opens");
            assert_eq!(engine.precision(), Precision::Int8);
            let found = run(&mut engine, &input);
            let off = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(off <= 0.1 * largest, "{isa}: off by {off} of {largest}");
            let first = firsts[usize::from(fuses(isa))].get_or_insert_with(|| found.clone());
            assert!(*first == found, "{isa}: other bytes than the first set that rounds like it");
        }
    }
}

#[test]
fn int8_without_ranges_of_the_network_is_refused() {
    let onnx = model("models/selftest.onnx");
    let graph = Graph::read(&onnx).expect("a graph");
    let error = CpuEngine::quantized(graph, [8, 16, 16], Isa::best(), &Quantization::default());
    assert!(error.expect_err("no ranges").to_string().contains("ranges"));
}
