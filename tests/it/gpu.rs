//! Whole images on a device against the tile-by-tile pipeline, and what GPU builds say where
//! there is no GPU.

mod pipeline;

use crate::engines::may_be_missing;
use fastnnunet::infer::{Device, Engine, EngineOptions, GpuEngine, Precision, Tiles, open};
use fastnnunet::model::onnx::Graph;
use fastnnunet::pipeline::mirror_passes;
use fastnnunet::pipeline::tile::{Tiling, gaussian, uniform};
use fastnnunet::registry;
use ndarray::{Array3, Array4, Axis, s};

/// Devices that run whole images.
const DEVICES: &[Device] = &[
    #[cfg(feature = "vulkan")]
    Device::Vulkan(0),
    #[cfg(feature = "cuda")]
    Device::Cuda(0),
];

/// How far from the CPU's tiles they may be, relative to the largest logit: two engines may each be
/// 1e-5 from the truth.
const TOLERANCE: f32 = 2e-5;

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

    /// The map as the pipeline makes it: every tile through the CPU's engine.
    fn expected(&self) -> Array4<f32> {
        let model = registry::find(self.model).expect("a model for tests");
        let facts = model.facts().expect("known to the build");
        let mut engine = open(model, self.patch, &on(Device::Cpu, None)).expect("the CPU's engine");
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
    let graph = &mut |_| Ok(Graph::decode(model.onnx()?)?);
    match GpuEngine::open_folds(1, graph, patch, &on(device, limit)) {
        Ok(engine) => Some(engine),
        Err(error) => {
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
        for &device in DEVICES {
            let engine = open_on(device, case.model, case.patch, None);
            let Some(mut engine) = engine else { continue };
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
            assert!(worst <= TOLERANCE * largest, "{device}, {}: off by {worst:e}", case.name);
        }
    }
}

/// Bytes that one patch takes on a device, by what the engine says where it has a byte less.
fn least(device: Device, model: &str, patch: [usize; 3]) -> u64 {
    let model = registry::find(model).expect("a model of this build");
    let graph = &mut |_| Ok(Graph::decode(model.onnx()?)?);
    let error = GpuEngine::open_folds(1, graph, patch, &on(device, Some(1))).err();
    match error.expect("a byte is too little") {
        fastnnunet::Error::Memory { need_bytes, .. } => need_bytes,
        error => panic!("{error}"),
    }
}

/// The memory limit decides how many tiles run at once and changes no value beyond rounding.
#[test]
fn a_small_budget_runs_fewer_tiles_and_says_when_none_fits() {
    let case = &CASES[0];
    for &device in DEVICES {
        let one = least(device, case.model, case.patch);
        let open = |limit| open_on(device, case.model, case.patch, limit);
        // Image, sums and total weights are 6 maps of 13500 voxels.
        let Some(mut narrow) = open(Some(one + 6 * 13500 * 4 + 1024)) else { continue };
        assert_eq!(narrow.tiles_at_once(case.image), Some(1));
        assert!(narrow.image_bytes(case.image, case.patch).is_some());
        for (shape, patch, why) in [
            ([256; 3], case.patch, "image and sums of 400 MiB"),
            ([4096; 3], case.patch, "more than kernels count"),
            (case.image, [8; 3], "an engine takes one size of patch"),
        ] {
            assert_eq!(narrow.image_bytes(shape, patch), None, "{why}");
        }
        let mut wide = open(None).expect("as before");
        assert!(wide.tiles_at_once(case.image).is_some_and(|tiles| tiles > 1));

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
        assert!((&narrow - &wide).iter().all(|d| d.abs() <= TOLERANCE * largest));
    }
}

#[test]
fn a_caller_can_stop_a_sweep() {
    let case = &CASES[0];
    for &device in DEVICES {
        let engine = open_on(device, case.model, case.patch, None);
        let Some(mut engine) = engine else { continue };
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
}

/// Every embedded model in f32 takes less than a card of 4 GB has, less what driver and kernels take.
#[test]
fn every_embedded_model_fits_a_small_card() {
    for &device in DEVICES {
        for model in registry::models() {
            let bytes = least(device, &model.name, model.config().patch_size);
            println!("{}: {} MiB", model.name, bytes >> 20);
            assert!(bytes < 4_000_000_000 - (300 << 20), "{}: {bytes}", model.name);
        }
    }
}

#[test]
fn the_cpu_has_an_engine_of_its_own() {
    let model = registry::find("selftest").expect("self-test model");
    for device in [Device::Auto, Device::Cpu, Device::Reference] {
        let graph = &mut |_| Ok(Graph::decode(model.onnx()?)?);
        let error = GpuEngine::open_folds(1, graph, [16, 24, 24], &on(device, None)).err();
        assert_eq!(error.expect("no GPU").kind(), fastnnunet::ErrorKind::Device);
    }
}

/// Trained folders, several folds and a cascade give nnU-Net's own labels.
#[cfg(feature = "cli")]
#[test]
fn trained_folders_give_the_references_labels() {
    for &device in DEVICES {
        if open_on(device, "selftest", [16, 24, 24], None).is_none() {
            continue;
        }
        let names = &crate::folders::ON_DEVICES;
        let count = if std::env::var_os("ALL_KERNELS").is_some() { names.len() } else { 2 };
        for name in &names[..count] {
            crate::folders::check_on(name, device);
        }
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

    /// `warm` fills the folder that it is told, and a later process finds all it needs there.
    #[cfg(feature = "cuda")]
    #[test]
    fn kernels_are_kept_where_the_user_says() {
        if std::env::var_os("REQUIRE_CUDA").is_none() {
            println!("skipped: no CUDA device was promised by REQUIRE_CUDA");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let kernels = folder.path().join("kernels");
        let warm = || {
            let mut command = Command::from(crate::program());
            command.args(["warm", "--model", "selftest", "--precision", "f16", "--kernel-cache"]);
            let result = command.arg(&kernels).assert().success().get_output().clone();
            String::from_utf8(result.stdout).expect("UTF-8")
        };
        let first = warm();
        assert!(
            first.contains("selftest on cuda:0, f16") && first.contains(" 0 were there"),
            "{first}"
        );
        assert!(std::fs::read_dir(&kernels).expect("a folder").count() > 5);
        let second = warm();
        assert!(second.contains("kernels  0 compiled"), "{second}");
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
