//! One list of networks ([`cases`]), run on every engine of this build.

mod cases;

use cases::{Case, cases};
use fastnnunet::infer::{Device, Engine, EngineOptions, Precision, open};
use fastnnunet::registry;
use ndarray::{Array4, ArrayView4, Axis};

/// An engine and how far its logits may be from the golden ones, relative to the largest:
/// two orders of summation over a few thousand products differ by a few ulps of it.
const ENGINES: &[(Device, f32)] = &[
    (Device::Cpu, 1e-5),
    (Device::Reference, 1e-5),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), 1e-5),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), 1e-5),
    #[cfg(feature = "cuda")]
    (Device::ReferenceCuda(0), 1e-5),
];

/// The engine for a case, unless this build or machine lacks the device.
fn engine(case: &Case, device: Device) -> Option<Box<dyn Engine>> {
    if !(case.is_for(device) && (case.is_first || has_time(device))) {
        return None;
    }
    match case.open(device, Precision::F32) {
        Ok(engine) => Some(engine),
        Err(error) => {
            assert!(device != Device::Cpu, "{}: {error}", case.name);
            assert!(device != Device::Reference || cfg!(not(feature = "reference")), "{error}");
            may_be_missing(device, &error);
            None
        }
    }
}

/// Whether all cases run: where a host runs a GPU's kernels it first has to compile them, for seconds
/// each, and a change should not wait for those of every network.
fn has_time(device: Device) -> bool {
    !matches!(device, Device::Cuda(_) | Device::Vulkan(_) | Device::ReferenceCuda(_))
        || std::env::var_os("ALL_KERNELS").is_some()
}

/// Says that a device is skipped; fails where the caller of the tests promised it.
#[allow(clippy::print_stdout, reason = "a skipped device says why")]
pub(crate) fn may_be_missing(device: Device, error: &fastnnunet::Error) {
    // A device asked for by name and missing is an error of its own kind.
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
    let promise = match device {
        Device::ReferenceCuda(_) if cfg!(not(feature = "reference")) => None,
        Device::Cuda(_) | Device::ReferenceCuda(_) => Some("REQUIRE_CUDA"),
        Device::Vulkan(_) => Some("REQUIRE_VULKAN"),
        _ => None,
    };
    assert!(promise.and_then(std::env::var_os).is_none(), "{error}");
    println!("skipped: {error}");
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
            let Some(mut engine) = engine(&case, device) else { continue };
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

/// Half precision on GPUs: how far logits may be off, relative to the largest. A number has 11 or 8
/// binary digits, and is rounded twice per layer.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
const HALVES: &[(Device, Precision, f32)] = &[
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), Precision::F16, 1e-2),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), Precision::Bf16, 1e-1),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), Precision::F16, 1e-2),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), Precision::Bf16, 1e-1),
];

#[cfg(any(feature = "cuda", feature = "vulkan"))]
#[test]
fn half_precision_stays_near() {
    for &(device, precision, tolerance) in HALVES {
        for case in cases().iter().filter(|case| case.is_first || has_time(device)) {
            let mut engine = match case.open(device, precision) {
                Ok(engine) => engine,
                Err(error) => {
                    let lacking = error.to_string().contains("does not compute in bf16");
                    if precision == Precision::F16 || !lacking {
                        may_be_missing(device, &error);
                    }
                    continue;
                }
            };
            assert_eq!(engine.precision(), precision);
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
    let bits = |logits: Array4<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    for &(device, _) in ENGINES {
        for case in cases() {
            let input = case.input.index_axis(Axis(0), 0);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("thread pool").install(|| {
                    let mut engine = engine(&case, device)?;
                    let first = bits(run(engine.as_mut(), input));
                    let again = bits(run(engine.as_mut(), input));
                    assert_eq!(first, again, "{device}, {}, again", case.name);
                    Some(first)
                })
            };
            let Some(one) = on(1) else { continue };
            // A GPU does not ask how many threads the host has.
            let others: &[usize] =
                if matches!(device, Device::Cpu | Device::Reference) { &[2, 3, 7] } else { &[2] };
            for &threads in others {
                assert!(on(threads).as_ref() == Some(&one), "{device}, {}, {threads}", case.name);
            }
        }
    }
}

/// As above, on a patch large enough that every engine shares it among threads.
#[test]
fn same_bytes_of_a_large_patch_at_any_thread_count() {
    let wave = |(c, z, y, x): (usize, usize, usize, usize)| {
        (c as f32 + 0.9 * z as f32 + 0.31 * y as f32 + 0.07 * x as f32).sin()
    };
    let input = Array4::from_shape_fn((1, 32, 64, 64), wave);
    let model = registry::find("selftest").expect("self-test model");
    for &device in &[Device::Cpu, Device::Reference] {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("thread pool").install(|| {
                let mut engine = open(model, [32, 64, 64], &exactly(device)).ok()?;
                Some(run(engine.as_mut(), input.view()))
            })
        };
        let one = on(1);
        assert!(one.is_some() || cfg!(not(feature = "reference")), "{device}");
        for threads in [2, 3, 7] {
            assert!(one == on(threads), "{device}, {threads} threads");
        }
    }
}

/// A server segments several images at once, each on an engine of its own.
#[test]
fn engines_side_by_side_do_not_disturb_each_other() {
    let case = cases().swap_remove(0);
    let input = case.input.index_axis(Axis(0), 0);
    for &(device, _) in ENGINES {
        let Some(mut alone) = engine(&case, device) else { continue };
        let expected = run(alone.as_mut(), input);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut engine = engine(&case, device).expect("as before");
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
            let engine = match open(model, model.config().patch_size, &exactly(device)) {
                Ok(engine) => engine,
                Err(error) => {
                    may_be_missing(device, &error);
                    continue;
                }
            };
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
        let Some(mut engine) = engine(&case, device) else { continue };
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
    let model = registry::find("selftest").expect("self-test model");
    let engine = open(model, [3, 5, 7], &exactly(Device::Reference));
    let mut engine = engine.expect("reference engine");
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
