//! Whole images on a device against the tile-by-tile pipeline, and what GPU builds say where
//! there is no GPU.

mod pipeline;

use fastnnunet::infer::gpu::{GpuEngine, footprint};
use fastnnunet::infer::{Device, Engine, EngineOptions, Precision, Tiles, open};
use fastnnunet::pipeline::mirror_passes;
use fastnnunet::pipeline::tile::{Tiling, gaussian, uniform};
use fastnnunet::registry;
use ndarray::{Array3, Array4, Axis, s};

/// Devices that run whole images, and how far from the tile-by-tile reference they may be,
/// relative to the largest logit. On the same device the same code adds in the same order; two
/// devices may each be 1e-5 from the truth.
const DEVICES: &[(Device, f32)] = &[
    (Device::Reference, 1e-6),
    #[cfg(feature = "vulkan")]
    (Device::Vulkan(0), 2e-5),
    #[cfg(feature = "cuda")]
    (Device::Cuda(0), 2e-5),
];

/// An image, its tiles and the passes over them.
struct Case {
    name: &'static str,
    model: &'static str,
    image: [usize; 3],
    patch: [usize; 3],
    mirrored: &'static [usize],
    gaussian: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "overlapping tiles",
        model: "selftest",
        image: [18, 30, 25],
        patch: [16, 24, 24],
        mirrored: &[],
        gaussian: true,
    },
    Case {
        name: "an image smaller than a tile, mirrored",
        model: "selftest",
        image: [13, 26, 20],
        patch: [16, 24, 24],
        mirrored: &[0, 2],
        gaussian: true,
    },
    Case {
        name: "slices of a 2-D network, no weights",
        model: "selftest_2d",
        image: [3, 40, 36],
        // Its own: this graph is written for one size.
        patch: [1, 24, 20],
        mirrored: &[1],
        gaussian: false,
    },
];

impl Case {
    fn image(&self) -> Array4<f32> {
        let model = registry::find(self.model).expect("a model for tests");
        let [z, y, x] = self.image;
        let facts = model.facts().expect("known to the build");
        Array4::from_shape_fn((facts.input_channels, z, y, x), |(c, z, y, x)| {
            (c as f32 + 0.9 * z as f32 + 0.31 * y as f32 + 0.07 * x as f32).sin()
        })
    }

    fn tiling(&self) -> Tiling {
        Tiling::new(self.image, self.patch, 0.5)
    }

    fn weights(&self) -> Array3<f32> {
        if self.gaussian { gaussian(self.patch) } else { uniform(self.patch) }
    }

    /// The map as the pipeline makes it: every tile through the reference engine.
    fn expected(&self) -> Array4<f32> {
        let model = registry::find(self.model).expect("a model for tests");
        let options = EngineOptions {
            device: Device::Reference,
            precision: Some(Precision::F32),
            ..EngineOptions::default()
        };
        let facts = model.facts().expect("known to the build");
        let mut engine = open(model, self.patch, &options).expect("reference engine");
        let (image, tiling) = (self.image(), self.tiling());
        let passes = mirror_passes(self.mirrored);
        let [z, y, x] = self.patch;
        let weights = self.weights();
        let [iz, iy, ix] = self.image;
        let mut sums = Array4::<f32>::zeros((facts.output_channels, iz, iy, ix));
        let mut totals = Array3::<f32>::zeros(self.image);
        let mut tile = Array4::zeros((facts.input_channels, z, y, x));
        let mut answer = Array4::zeros((facts.output_channels, z, y, x));
        for &origin in &tiling.origins {
            tiling.cut(image.view(), origin, tile.view_mut());
            let mut sum = Array4::zeros(answer.dim());
            for axes in &passes {
                let mut flipped = tile.view();
                for &axis in axes {
                    flipped.invert_axis(Axis(axis + 1));
                }
                engine.run(flipped, &mut answer).expect("a patch the network takes");
                let mut back = answer.view();
                for &axis in axes {
                    back.invert_axis(Axis(axis + 1));
                }
                sum += &back;
            }
            let mean = sum / passes.len() as f32 * &weights;
            let [(tz, iz, nz), (ty, iy, ny), (tx, ix, nx)] = tiling.overlap(origin);
            let (here, there) = (
                s![tz..tz + nz, ty..ty + ny, tx..tx + nx],
                s![iz..iz + nz, iy..iy + ny, ix..ix + nx],
            );
            for (mut sums, mean) in sums.outer_iter_mut().zip(mean.outer_iter()) {
                let mut part = sums.slice_mut(there);
                part += &mean.slice(here);
            }
            let mut part = totals.slice_mut(there);
            part += &weights.slice(here);
        }
        sums / &totals
    }
}

/// Says that a device is skipped; fails where the caller of the tests promised it.
#[allow(clippy::print_stdout, reason = "a skipped case says why")]
pub(crate) fn may_be_missing(device: Device, error: &fastnnunet::Error) {
    let promise = match device {
        Device::Cuda(_) => Some("REQUIRE_CUDA"),
        Device::Vulkan(_) => Some("REQUIRE_VULKAN"),
        _ => None,
    };
    assert!(promise.and_then(std::env::var_os).is_none(), "{error}");
    println!("skipped: {error}");
}

fn engine(case: &Case, device: Device, limit: Option<u64>) -> Option<GpuEngine> {
    open_on(device, case.model, case.patch, limit)
}

fn on(device: Device, gpu_memory_limit_bytes: Option<u64>) -> EngineOptions {
    EngineOptions {
        device,
        precision: Some(Precision::F32),
        gpu_memory_limit_bytes,
        ..EngineOptions::default()
    }
}

/// The engine on a device, unless this machine lacks it.
fn open_on(
    device: Device,
    model: &str,
    patch: [usize; 3],
    limit: Option<u64>,
) -> Option<GpuEngine> {
    let model = registry::find(model).expect("a model of this build");
    match GpuEngine::open(model, patch, &on(device, limit)) {
        Ok(engine) => Some(engine),
        Err(error) => {
            assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
            assert_ne!(device, Device::Reference, "{error}");
            may_be_missing(device, &error);
            None
        }
    }
}

#[test]
fn whole_images_match_the_pipeline() {
    for case in CASES {
        let (image, tiling, weights) = (case.image(), case.tiling(), case.weights());
        let (expected, passes) = (case.expected(), mirror_passes(case.mirrored));
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for &(device, tolerance) in DEVICES {
            let Some(mut engine) = engine(case, device, None) else { continue };
            let mut runs = 0;
            let mut count = || {
                runs += 1;
                Ok(())
            };
            let tiles = Tiles {
                image: image.view(),
                tiling: &tiling,
                weights: weights.view(),
                passes: &passes,
            };
            let found = engine.run_image(tiles, &mut count).expect("it runs");
            let found = found.expect("an image that fits");
            assert_eq!(runs, tiling.origins.len() * passes.len(), "{device}, {}", case.name);
            assert_eq!(found.dim(), expected.dim());
            let worst = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            println!("{device}, {}: off by {worst:e} of {largest}", case.name);
            assert!(worst <= tolerance * largest, "{device}, {}: off by {worst:e}", case.name);
        }
    }
}

/// The memory limit decides how many tiles run at once and changes no value beyond rounding.
#[test]
fn a_small_budget_runs_fewer_tiles_and_says_when_none_fits() {
    let case = &CASES[0];
    let model = registry::find(case.model).expect("self-test model");
    let need = footprint(&model.onnx().expect("ONNX"), 1, case.patch, Precision::F32)
        .expect("a footprint");
    let one = need.weights + need.patch;
    let error = GpuEngine::open(model, case.patch, &on(Device::Reference, Some(one - 1))).err();
    assert_eq!(error.expect("one tile does not fit").kind(), fastnnunet::ErrorKind::Memory);

    let narrow = GpuEngine::open(model, case.patch, &on(Device::Reference, Some(one + (1 << 19))));
    let mut narrow = narrow.expect("one tile fits");
    assert_eq!(narrow.batch(case.image, 1).expect("fits"), 1);
    assert!(narrow.image_bytes(case.image, case.patch, 1).is_some());
    for (shape, patch, why) in [
        ([256; 3], case.patch, "image and sums of 400 MiB"),
        (case.image, [8; 3], "an engine takes one size of patch"),
    ] {
        assert_eq!(narrow.image_bytes(shape, patch, 1), None, "{why}");
    }
    let error = narrow.batch([4096; 3], 1).expect_err("an image of 256 GiB");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Memory);
    let mut wide = engine(case, Device::Reference, None).expect("the reference is in this build");
    assert!(wide.batch(case.image, 1).expect("fits") > 1);

    let (image, tiling, weights) = (case.image(), case.tiling(), case.weights());
    let passes = mirror_passes(&[]);
    let run = |engine: &mut GpuEngine| {
        let tiles = Tiles {
            image: image.view(),
            tiling: &tiling,
            weights: weights.view(),
            passes: &passes,
        };
        let map = engine.run_image(tiles, &mut || Ok(())).expect("it runs");
        map.expect("an image that fits")
    };
    let (narrow, wide) = (run(&mut narrow), run(&mut wide));
    let largest = wide.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!((&narrow - &wide).iter().all(|d| d.abs() <= 1e-6 * largest));
}

#[test]
fn a_caller_can_stop_a_sweep() {
    let case = &CASES[0];
    let mut engine = engine(case, Device::Reference, None).expect("in this build");
    let (image, tiling, weights) = (case.image(), case.tiling(), case.weights());
    let tiles = Tiles {
        image: image.view(),
        tiling: &tiling,
        weights: weights.view(),
        passes: &mirror_passes(&[]),
    };
    let error = engine.run_image(tiles, &mut || Err(fastnnunet::Error::Interrupted));
    assert_eq!(error.expect_err("stopped").kind(), fastnnunet::ErrorKind::Interrupted);
}

#[test]
fn the_cpu_has_an_engine_of_its_own() {
    let model = registry::find("selftest").expect("self-test model");
    for device in [Device::Auto, Device::Cpu] {
        let error =
            GpuEngine::open(model, [16, 24, 24], &on(device, None)).err().expect("not a device");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Device);
    }
}

/// The built program in environments without a GPU, its driver or its compiler.
#[cfg(all(feature = "cli", unix))]
mod program {
    use assert_cmd::Command;
    use std::path::Path;

    /// Runs on a scan with every library folder the environment can name replaced by an empty
    /// one, and returns the one line of the failure.
    fn fails(device: &str, set: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().expect("folder");
        let input =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/case/input_plain.nii.gz");
        let output = folder.path().join("seg.nii.gz");
        let mut command = Command::from(crate::program());
        command.args(["--model", "selftest", "--device", device, "-i"]).arg(input);
        command.arg("-o").arg(&output).env("LD_LIBRARY_PATH", folder.path());
        // The Wayland library, which wgpu asks for a display, complains where this is not set.
        command.env("XDG_RUNTIME_DIR", folder.path()).envs(set.iter().copied());
        let result = command.assert().code(5).get_output().clone();
        assert!(result.stdout.is_empty() && !output.exists());
        let message = String::from_utf8(result.stderr).expect("UTF-8");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with(&format!("error: device {device} is not")), "{message}");
        message
    }

    #[test]
    fn cuda_without_a_gpu_is_one_sentence() {
        // Hides GPUs from a driver that is there.
        let message = fails("cuda:7", &[("CUDA_VISIBLE_DEVICES", "")]);
        if cfg!(not(feature = "cuda")) {
            assert!(message.contains("lacks the feature `cuda`"), "{message}");
        } else {
            assert!(message.contains("NVIDIA driver"), "{message}");
        }
    }

    /// Before a driver is asked for, so no GPU is needed to see it.
    #[cfg(any(feature = "cuda", feature = "vulkan"))]
    #[test]
    fn a_network_above_the_limit_is_told_with_both_numbers() {
        let folder = tempfile::tempdir().expect("folder");
        let input =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/case/input_plain.nii.gz");
        let devices = [
            #[cfg(feature = "cuda")]
            "cuda",
            #[cfg(feature = "vulkan")]
            "vulkan",
        ];
        for device in devices {
            let output = folder.path().join("seg.nii.gz");
            let mut command = Command::from(crate::program());
            command.args(["--model", "bone_low", "--gpu-memory-limit", "10MiB", "-i"]);
            command.arg(&input).args(["--device", device, "-o"]).arg(&output);
            let result = command.assert().code(6).get_output().clone();
            let message = String::from_utf8(result.stderr).expect("UTF-8");
            assert!(message.contains("on the GPU") && message.contains("is 10.0 MiB"), "{message}");
            assert_eq!(message.matches("MiB").count(), 2, "need and limit: {message}");
            assert!(!output.exists());
        }
    }

    #[test]
    fn vulkan_without_a_driver_is_one_sentence() {
        // The loader looks for drivers only where these say.
        let nowhere = [("VK_DRIVER_FILES", "/nonexistent"), ("VK_ICD_FILENAMES", "/nonexistent")];
        let message = fails("vulkan:7", &nowhere);
        if cfg!(not(feature = "vulkan")) {
            assert!(message.contains("lacks the feature `vulkan`"), "{message}");
        } else {
            assert!(message.contains("no Vulkan driver"), "{message}");
        }
    }
}
