//! One list of network cases, run on every engine of this build.

use crate::golden;
use fastnnunet::infer::{Device, Engine, EngineOptions, Precision, open};
use fastnnunet::registry;
use ndarray::{Array4, Array5, ArrayD, ArrayView4, Axis};
use serde_json::Value;

/// Patches and the logits the exporting framework computes for them.
struct Case {
    /// Name in the golden index.
    name: String,
    /// Model in the registry.
    model: String,
    /// `[n, c, z, y, x]`; a two-dimensional network's patches have `z` = 1.
    input: Array5<f32>,
    /// The same axes.
    logits: Array5<f32>,
}

/// An engine and how far its logits may be from the golden ones, relative to the largest:
/// two orders of summation over a few thousand products differ by a few ulps of it.
const ENGINES: &[(Device, f32)] = &[
    (Device::Cpu, 1e-5),
    (Device::Reference, 1e-5),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), 1e-5),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), 1e-5),
];

impl Case {
    fn patch(&self) -> [usize; 3] {
        let (_, _, z, y, x) = self.input.dim();
        [z, y, x]
    }
}

fn array(stage: &str, name: &Value) -> Array5<f32> {
    let array: ArrayD<f32> = golden::array(stage, name);
    let array = if array.ndim() == 4 { array.insert_axis(Axis(2)) } else { array };
    array.into_dimensionality().expect("an array of four or five axes")
}

fn cases() -> Vec<Case> {
    let in_stage = |stage: &'static str| {
        golden::entries(stage, "cases").into_iter().map(move |case| {
            let model = case["model"].as_str().and_then(|path| path.strip_prefix("models/"));
            let model = model.and_then(|file| file.strip_suffix(".onnx")).expect("a model file");
            Case {
                name: case["name"].as_str().expect("a name").to_owned(),
                model: model.to_owned(),
                input: array(stage, &case["input"]),
                logits: array(stage, &case["expected"]),
            }
        })
    };
    in_stage("network").chain(in_stage("engine")).collect()
}

fn engine(model: &str, patch: [usize; 3], device: Device) -> Option<Box<dyn Engine>> {
    let model = registry::find(model).expect("an installed model");
    match open(model, patch, &exactly(device)) {
        Ok(engine) => Some(engine),
        Err(error) => {
            // A device asked for by name and missing is an error of its own kind.
            assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
            assert!(device != Device::Reference || cfg!(not(feature = "reference")), "{error}");
            assert!(device != Device::Cpu, "{error}");
            #[cfg(feature = "reference")]
            crate::gpu::may_be_missing(device, &error);
            None
        }
    }
}

fn exactly(device: Device) -> EngineOptions {
    EngineOptions { device, precision: Some(Precision::F32), ..EngineOptions::default() }
}

fn run(engine: &mut dyn Engine, input: ArrayView4<'_, f32>) -> Array4<f32> {
    let (_, z, y, x) = input.dim();
    let mut output = Array4::from_elem((engine.output_channels(), z, y, x), f32::NAN);
    engine.run(input, &mut output).expect("a patch the network takes");
    engine.head().map(|head| head.logits(output.view())).unwrap_or(output)
}

#[test]
fn logits_match_the_exporting_framework() {
    for &(device, tolerance) in ENGINES {
        for case in cases() {
            let Some(mut engine) = engine(&case.model, case.patch(), device) else { continue };
            let largest = case.logits.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            for (input, expected) in case.input.outer_iter().zip(case.logits.outer_iter()) {
                let found = run(engine.as_mut(), input);
                let worst = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let name = &case.name;
                assert!(
                    worst <= tolerance * largest,
                    "{device}, {name}: off by {worst:e}, largest logit {largest}"
                );
            }
        }
    }
}

/// Half precision: how far logits may be off, relative to the largest. A number has 11 or 8
/// binary digits, and is rounded twice per layer.
#[cfg(feature = "reference")]
const HALVES: &[(Device, Precision, f32)] = &[
    (Device::Reference, Precision::F16, 5e-3),
    (Device::Reference, Precision::Bf16, 4e-2),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), Precision::F16, 5e-3),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), Precision::Bf16, 4e-2),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), Precision::F16, 5e-3),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), Precision::Bf16, 4e-2),
];

#[cfg(feature = "reference")]
#[test]
fn half_precision_stays_near() {
    for &(device, precision, tolerance) in HALVES {
        for case in cases() {
            let model = registry::find(&case.model).expect("an installed model");
            let options =
                EngineOptions { device, precision: Some(precision), ..EngineOptions::default() };
            let mut engine = match open(model, case.patch(), &options) {
                Ok(engine) => engine,
                Err(error) => {
                    assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
                    let lacking = error.to_string().contains("does not compute in bf16");
                    if precision == Precision::F16 || !lacking {
                        crate::gpu::may_be_missing(device, &error);
                    }
                    assert_ne!(device, Device::Reference, "{error}");
                    continue;
                }
            };
            assert_ne!(engine.precision(), Precision::F32);
            let largest = case.logits.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            for (input, expected) in case.input.outer_iter().zip(case.logits.outer_iter()) {
                let found = run(engine.as_mut(), input);
                let worst = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let name = &case.name;
                println!("{device}, {precision:?}, {name}: off by {:e}", worst / largest);
                // Less than a rounding would mean that nothing was rounded.
                assert!(
                    worst <= tolerance * largest && worst > 1e-5 * largest,
                    "{device}, {precision:?}, {name}: off by {worst:e} of {largest}"
                );
            }
        }
    }
}

/// The CPU's own kernels know no fp16.
#[test]
fn the_cpu_says_that_it_lacks_fp16() {
    let model = registry::find("selftest").expect("self-test model");
    let options = EngineOptions {
        device: Device::Cpu,
        precision: Some(Precision::F16),
        ..EngineOptions::default()
    };
    let error = open(model, [16, 24, 24], &options).err().expect("no fp16 there");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Device);
    assert!(error.to_string().contains("f16"), "{error}");
}

#[test]
fn same_bytes_at_any_thread_count() {
    // Beside the small cases, a patch large enough that every engine shares it among threads.
    let wave = |(c, z, y, x): (usize, usize, usize, usize)| {
        (c as f32 + 0.9 * z as f32 + 0.31 * y as f32 + 0.07 * x as f32).sin()
    };
    let large = Array4::from_shape_fn((1, 32, 64, 64), wave);
    let mut patches = vec![("selftest".to_owned(), large)];
    patches.extend(
        cases().into_iter().map(|case| (case.model, case.input.index_axis_move(Axis(0), 0))),
    );
    let bits = |logits: Array4<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    for &(device, _) in ENGINES {
        for (model, input) in &patches {
            let (_, z, y, x) = input.dim();
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("thread pool").install(|| {
                    let mut engine = engine(model, [z, y, x], device)?;
                    let first = bits(run(engine.as_mut(), input.view()));
                    let again = bits(run(engine.as_mut(), input.view()));
                    assert_eq!(first, again, "{device}, {model} {z}x{y}x{x}, again");
                    Some(first)
                })
            };
            let one = on(1);
            for threads in [2, 3, 7] {
                assert_eq!(one, on(threads), "{device}, {model} {z}x{y}x{x}, {threads} threads");
            }
        }
    }
}

/// A server segments several images at once, each on an engine of its own.
#[test]
fn engines_side_by_side_do_not_disturb_each_other() {
    let case = cases().swap_remove(0);
    let (input, patch) = (case.input.index_axis(Axis(0), 0), case.patch());
    for &(device, _) in ENGINES {
        let Some(mut alone) = engine(&case.model, patch, device) else { continue };
        let expected = run(alone.as_mut(), input);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut engine = engine(&case.model, patch, device).expect("as before");
                    for _ in 0..3 {
                        assert!(run(engine.as_mut(), input) == expected, "{device}");
                    }
                });
            }
        });
    }
}

#[test]
fn engines_describe_themselves() {
    for &(device, _) in ENGINES {
        for model in registry::models() {
            let patch = model.config().patch_size;
            let Some(engine) = engine(&model.name, patch, device) else { continue };
            // The CPU adds its instruction set.
            assert!(engine.device().starts_with(&device.to_string()), "{}", engine.device());
            let facts = model.facts().expect("known to the build");
            assert_eq!(engine.input_channels(), facts.input_channels);
            assert_eq!(engine.classes(), facts.output_channels);
        }
    }
}

/// A view whose axes are swapped or flipped is read like its copy.
#[test]
fn input_need_not_be_contiguous() {
    for &(device, _) in ENGINES {
        let case = cases().swap_remove(0);
        let Some(mut engine) = engine(&case.model, case.patch(), device) else { continue };
        let flipped = case.input.index_axis(Axis(0), 0);
        let flipped = flipped.slice(ndarray::s![.., .., ..;-1, ..]);
        let copy = flipped.as_standard_layout().into_owned();
        assert_eq!(run(engine.as_mut(), flipped), run(engine.as_mut(), copy.view()));
    }
}

/// The reference engine stops where a network's edges do not fit together; we do not.
#[cfg(feature = "reference")]
#[test]
fn a_panic_inside_burn_is_an_error() {
    let mut engine = engine("selftest", [3, 5, 7], Device::Reference).expect("reference engine");
    let input = Array4::zeros((1, 3, 5, 7));
    let mut output = Array4::zeros((engine.output_channels(), 3, 5, 7));
    let error = engine.run(input.view(), &mut output).expect_err("3, 5 and 7 are not divisible");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
}

#[cfg(not(all(feature = "cuda", feature = "vulkan")))]
#[test]
fn devices_of_other_builds_say_so() {
    let model = registry::find("selftest").expect("self-test model");
    let devices = [
        #[cfg(not(feature = "cuda"))]
        (Device::Cuda(1), "`cuda`"),
        #[cfg(not(feature = "vulkan"))]
        (Device::Vulkan(1), "`vulkan`"),
    ];
    for (device, feature) in devices {
        let error = open(model, [16, 24, 24], &exactly(device)).err().expect("not in this build");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Device);
        let text = error.to_string();
        assert!(text.contains(&device.to_string()) && text.contains(feature), "{text}");
    }
}
