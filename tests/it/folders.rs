//! nnU-Net's own results folders through the built program, against the label maps nnU-Net
//! 2.8.1 writes for them; `tests/nnunet/README.md` says how both were made.

use assert_cmd::Command;
use fastnnunet::Scan;
use fastnnunet::io::ReadOptions;
use fastnnunet::model::Reader;
use flate2::read::GzDecoder;
use ndarray::{Array3, Array4, Axis};
use ndarray_npy::ReadNpyExt;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Share of voxels that must have the reference's label.
const EQUAL_SHARE: f64 = 0.999;

/// One prediction of the reference.
struct Run {
    name: String,
    entry: Value,
}

impl Run {
    fn all() -> Vec<Self> {
        let text = fs::read_to_string(path("index.json")).expect("index.json");
        let index: Value = serde_json::from_str(&text).expect("index.json parses");
        let runs = index["runs"].as_array().expect("runs");
        let name = |entry: &Value| entry["name"].as_str().expect("name").to_owned();
        runs.iter().map(|entry| Self { name: name(entry), entry: entry.clone() }).collect()
    }

    fn named(name: &str) -> Self {
        Self::all().into_iter().find(|run| run.name == name).expect("a run of the index")
    }

    /// Path of the file that a field names.
    fn file(&self, field: &str) -> PathBuf {
        path(self.entry[field].as_str().unwrap_or_else(|| panic!("{}: no {field}", self.name)))
    }

    fn images(&self) -> Vec<PathBuf> {
        let images = self.entry["images"].as_array().expect("images");
        images.iter().map(|image| path(image.as_str().expect("a file name"))).collect()
    }

    /// The program ready to predict the same.
    fn command(&self, output: &Path) -> Command {
        let mut command = program(&self.file("model"), output);
        for image in self.images() {
            command.arg("-i").arg(image);
        }
        let args = self.entry["args"].as_array().expect("args");
        command.args(args.iter().map(|arg| arg.as_str().expect("an argument")));
        command
    }

    /// Compares a written label map with the reference's: labels, grid and sample type.
    #[expect(clippy::print_stdout, reason = "the margins are for whoever runs the tests")]
    fn compare(&self, output: &Path) {
        let name = &self.name;
        let (got, expected) = (load(output), load(&self.file("expected")));
        let margin: Array4<f32> = npy_gz(&self.file("margin"));
        let labels = |scan: &Scan| scan.voxels().to_f32().mapv(|v| v as u16);
        let (ours, theirs): (Array3<u16>, Array3<u16>) = (labels(&got), labels(&expected));
        assert_eq!(ours.dim(), theirs.dim(), "{name}");

        let (mut differ, mut worst, mut worst_share) = (0_usize, 0.0_f32, 0.0_f32);
        let (distance, rounding) = (margin.index_axis(Axis(0), 0), margin.index_axis(Axis(0), 1));
        for (at, &label) in theirs.indexed_iter() {
            if ours[at] == label {
                continue;
            }
            differ += 1;
            worst = worst.max(distance[at]);
            worst_share = worst_share.max(distance[at] / rounding[at]);
            assert!(
                distance[at] <= rounding[at],
                "{name}: voxel {at:?} is {} and not {label}, but its two best classes are {} \
                 apart and fp16 explains {}",
                ours[at],
                distance[at],
                rounding[at]
            );
        }
        let share = 1.0 - differ as f64 / theirs.len() as f64;
        println!(
            "{name}: {:.4} % of voxels equal, {differ} differ, worst margin {worst:.3}, \
             {:.1} % of what fp16 explains",
            share * 100.0,
            worst_share * 100.0
        );
        assert!(share >= EQUAL_SHARE, "{name}: only {share} of voxels equal");

        let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
        let same_grid = |other: &Scan| {
            let (a, b) = (&got.grid(), &other.grid());
            let rows = a.affine.0.as_flattened().iter().zip(b.affine.0.as_flattened());
            a.shape == b.shape
                && a.spacing.iter().zip(&b.spacing).all(|(&a, &b)| near(a, b))
                && rows.into_iter().all(|(&a, &b)| near(a, b))
        };
        assert!(same_grid(&load(&self.images()[0])), "{name}: not the grid of the image");
        if self.entry["keeps_grid"] == true {
            assert!(same_grid(&expected), "{name}: not the grid of the reference's file");
        }
        assert_eq!(datatype(output), datatype(&self.file("expected")), "{name}: sample type");
    }
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet").join(name)
}

fn program(model: &Path, output: &Path) -> Command {
    let mut command = Command::from(crate::program());
    command.args(["--quiet", "--precision", "f32", "--model"]).arg(model).arg("-o").arg(output);
    command
}

fn load(path: &Path) -> Scan {
    // nibabel reads, and writes, affines that are not orthogonal.
    let scan = Scan::open(path).or_else(|_| Scan::open_with(path, &NIBABEL));
    scan.unwrap_or_else(|e| panic!("{e}"))
}

const NIBABEL: ReadOptions =
    ReadOptions { reader: Some(Reader::Nibabel), max_bytes: 1 << 30, expects_ct: true };

fn unzipped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    bytes
}

fn npy_gz(path: &Path) -> Array4<f32> {
    Array4::read_npy(unzipped(path).as_slice()).expect("an array")
}

/// NIfTI-1's code of the sample type.
fn datatype(path: &Path) -> i16 {
    let bytes = unzipped(path);
    i16::from_le_bytes([bytes[70], bytes[71]])
}

/// Predicts as the run says and compares; returns the folder with the output.
fn check(name: &str, more: &[OsString]) -> tempfile::TempDir {
    let run = Run::named(name);
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("case.nii.gz");
    let mut command = run.command(&output);
    if more.is_empty() && run.entry.get("previous_labels").is_some() {
        command.arg("--previous-stage").arg(run.file("previous_labels"));
    }
    command.args(more).assert().success();
    run.compare(&output);
    folder
}

/// Runs for devices beside the CPU: each kind of network, several folds, a cascade.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub(crate) const ON_DEVICES: [&str; 9] = [
    "folds_0_1",
    "cascade",
    "plain",
    "mirroring",
    "resenc",
    "2d",
    "regions",
    "two_channels",
    "transposed",
];

/// As [`check`], on a device.
#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub(crate) fn check_on(name: &str, device: fastnnunet::infer::Device) {
    let run = Run::named(name);
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("case.nii.gz");
    let mut command = run.command(&output);
    command.args(["--device", &device.to_string()]).assert().success();
    run.compare(&output);
}

/// One test per run, named after it, and the list of them.
macro_rules! runs {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($name, &[]);
            }
        )*
        const NAMES: &[&str] = &[$($name),*];
    };
}

runs! {
    plain: "plain",
    mirroring: "mirroring",
    step_0_7: "step_0.7",
    no_gaussian: "no_gaussian",
    case_03_and_04_smaller_than_the_patch: "smaller_than_patch",
    case_02_empty_image: "empty",
    case_01_crop: "crop",
    oblique: "oblique",
    case_22_scaled: "scaled",
    case_17_and_18_resenc_skip_that_only_pools_and_last_seg_layer: "resenc",
    case_20_two_d_slice_wise: "2d",
    case_20_two_d_volume_wise: "2d_thin",
    regions: "regions",
    lowres: "lowres",
    cascade_with_a_label_map: "cascade",
    two_channels_masked_statistics: "two_channels",
    case_09_separate_z: "separate_z",
    case_21_transposed: "transposed",
    case_19_mirroring_of_transposed_axes: "transposed_mirroring",
    case_21_transposed_crop: "transposed_crop",
    folds_0_1: "folds_0_1",
    folds_0_1_3: "folds_0_1_3",
    fold_1: "fold_1",
    fold_all_with_the_best_checkpoint_only: "fold_all_best",
    old_plans: "old_plans",
    old_resenc: "old_resenc",
    ignore_label: "ignore",
    case_23_itk_sform_differs: "itk_sform_differs",
    case_23_itk_uncoded: "itk_uncoded",
    case_22_itk_slope_zero: "itk_slope_zero",
    case_25_itk_pixdim_differs: "itk_pixdim_differs",
    case_25_itk_micrometers: "itk_micrometers",
    case_24_itk_sheared: "itk_sheared",
    itk_reorient_oblique: "itk_reorient_oblique",
    itk_reorient_flipped: "itk_reorient_flipped",
    case_23_itk_reorient_sform_differs: "itk_reorient_sform_differs",
    case_23_itk_reorient_uncoded: "itk_reorient_uncoded",
    nibabel_oblique: "nibabel_oblique",
    nibabel_flipped: "nibabel_flipped",
    case_23_nibabel_sform_differs: "nibabel_sform_differs",
    case_23_nibabel_uncoded: "nibabel_uncoded",
    case_22_nibabel_slope_zero: "nibabel_slope_zero",
    case_25_nibabel_pixdim_differs: "nibabel_pixdim_differs",
    case_24_nibabel_sheared: "nibabel_sheared",
    nibabel_reorient_oblique: "nibabel_reorient_oblique",
    nibabel_reorient_flipped: "nibabel_reorient_flipped",
    case_23_nibabel_reorient_sform_differs: "nibabel_reorient_sform_differs",
    case_23_nibabel_reorient_uncoded: "nibabel_reorient_uncoded",
    case_25_nibabel_reorient_pixdim_differs: "nibabel_reorient_pixdim_differs",
    case_24_nibabel_reorient_sheared: "nibabel_reorient_sheared",
    batch_norm: "batch_norm",
    case_16_label_255_is_written_as_uint16: "many_labels",
    residual_unet: "residual_unet",
    torch_resampling: "torch_resampling",
    other_normalization: "other_normalization",
}

/// Runs whose tests check more than labels.
const OTHER_NAMES: [&str; 2] = ["probabilities", "region_probabilities"];

#[test]
fn every_run_has_a_test() {
    let mut missing = Run::all();
    missing.retain(|run| ![NAMES, &OTHER_NAMES].concat().contains(&run.name.as_str()));
    let missing: Vec<_> = missing.iter().map(|run| &run.name).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn cascade_with_the_first_stage_folder() {
    let previous = Run::named("cascade").file("previous_model");
    check("cascade", &["--previous-stage".into(), previous.into()]);
}

#[test]
fn cascade_finds_its_first_stage_beside_it() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("case.nii.gz");
    let run = Run::named("cascade");
    run.command(&output).assert().success();
    run.compare(&output);
}

/// A copy of an image, unpacked and changed.
fn changed(image: &Path, to: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = unzipped(image);
    change(&mut bytes);
    fs::write(to, bytes).expect("writes");
}

/// Moves qform and sform of a NIfTI-1 file by 5 mm along x.
fn move_right(bytes: &mut [u8]) {
    for at in [268, 292] {
        let x = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        bytes[at..at + 4].copy_from_slice(&(x + 5.0).to_le_bytes());
    }
}

/// The summary of a command that succeeds.
fn summary(command: &mut Command) -> Value {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("JSON")
}

#[test]
fn what_is_odd_about_any_channel_is_told_once() {
    let run = Run::named("two_channels");
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let [first, second] = [at("first.nii"), at("second.nii")];
    // Above all voxels of the images: nothing is found to be a CT.
    let lifted = |bytes: &mut Vec<u8>| {
        bytes.extend(b"tail");
        bytes[116..120].copy_from_slice(&5000.0_f32.to_le_bytes());
    };
    changed(&run.images()[0], &first, lifted);
    changed(&run.images()[1], &second, |bytes| {
        move_right(bytes);
        lifted(bytes);
    });
    let mut command = program(&run.file("model"), &at("case.nii.gz"));
    command.arg("-i").arg(&first).arg("-i").arg(&second).args(["--mirror", "none"]);
    let warnings: Vec<String> =
        serde_json::from_value(summary(&mut command)["warnings"].clone()).expect("texts");
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let of =
        |word: &str| -> Vec<&String> { warnings.iter().filter(|w| w.contains(word)).collect() };
    let late = of("the file goes on");
    assert_eq!(late.len(), 1, "{warnings:?}");
    assert!(late[0].starts_with(&format!("{first}, {second}: ")), "{late:?}");
    let ct = of("look like a CT");
    // The second is normalized by itself, so nothing is known of what its values should be.
    assert!(ct.len() == 1 && ct[0].starts_with(&format!("{first}: ")), "{warnings:?}");
    let place = of("lies elsewhere");
    assert!(place.len() == 1 && place[0].starts_with(&second), "{warnings:?}");
}

#[test]
fn labels_of_a_previous_stage_that_lie_elsewhere_are_told() {
    let run = Run::named("cascade");
    let folder = tempfile::tempdir().expect("folder");
    let labels = folder.path().join("labels.nii");
    for moved in [false, true] {
        changed(&run.file("previous_labels"), &labels, |bytes| {
            if moved {
                move_right(bytes);
            }
        });
        let output = folder.path().join(format!("{moved}.nii.gz"));
        let mut command = run.command(&output);
        let told = summary(command.arg("--previous-stage").arg(&labels))["warnings"].to_string();
        assert_eq!(told.contains("labels.nii lies elsewhere than the image"), moved, "{told}");
    }
}

#[test]
fn the_affine_told_is_that_of_the_file() {
    let run = Run::named("nibabel_reorient_oblique");
    let folder = tempfile::tempdir().expect("folder");
    let told = summary(&mut run.command(&folder.path().join("case.nii.gz")));
    let scan = Scan::open_with(&run.images()[0], &NIBABEL);
    let affine = scan.expect("valid file").grid().affine;
    for (r, row) in affine.0.iter().enumerate() {
        for (c, &expected) in row.iter().enumerate() {
            let got = told["geometry"]["affine"][r][c].as_f64().expect("a number");
            assert!((got - expected).abs() < 1e-9, "{r} {c}: {got} {expected}");
        }
    }
}

#[test]
fn probabilities_are_those_of_the_reference() {
    for name in OTHER_NAMES {
        let folder = check(name, &[]);
        let run = Run::named(name);
        let expected = npy_gz(&run.file("probabilities"));
        let file = File::open(folder.path().join("case.npz")).expect("case.npz");
        let mut archive = zip::ZipArchive::new(file).expect("a zip file");
        assert_eq!(archive.len(), 1, "{name}");
        let entry = archive.by_name("probabilities.npy").expect("the key of the reference");
        let got = Array4::<f32>::read_npy(entry).expect("f32, [c, z, y, x]");
        assert_eq!(got.dim(), expected.dim(), "{name}");
        let differences: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        let largest = differences.iter().copied().fold(0.0, f32::max);
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        println!("{name}: probabilities differ by {largest:.4} at most, {mean:.6} on average");
        assert!(largest <= LARGEST_DIFFERENCE && mean <= MEAN_DIFFERENCE, "{largest} {mean}");
        // The first voxel lies outside the crop: certainly background, or in no region.
        let corner: Vec<f32> = got.slice(ndarray::s![.., 0, 0, 0]).to_vec();
        let background = if name == "probabilities" { 1.0 } else { 0.0 };
        assert_eq!(corner[0], background, "{name}");
        assert!(corner[1..].iter().all(|&p| p == 0.0), "{name}: {corner:?}");
    }
}

/// How far the reference's fp16 logits, up to a few hundred and so a quarter apart, move
/// probabilities: measured when the goldens were made.
const LARGEST_DIFFERENCE: f32 = 0.1;
const MEAN_DIFFERENCE: f32 = 1e-3;

/// Copies a results folder so that a test may spoil it.
fn copied(name: &str) -> (tempfile::TempDir, PathBuf) {
    let model = Run::named(name).file("model");
    let folder = tempfile::tempdir().expect("folder");
    let target = folder.path().join(model.file_name().expect("a name"));
    crate::copy_folder(&model, &target);
    (folder, target)
}

/// Makes a results folder unusable.
type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;

#[test]
fn unusable_folders_are_code_4_and_name_the_reason() {
    let edit_plans = |model: &Path, from: &str, to: &str| {
        let plans = model.join("plans.json");
        let text = fs::read_to_string(&plans).expect("plans");
        assert!(text.contains(from), "{from}");
        fs::write(plans, text.replace(from, to)).expect("writes");
    };
    let checkpoint = |model: &Path| model.join("fold_0/checkpoint_final.pth");
    let cases: [(&str, Spoil<'_>, &str); 7] = [
        ("class", Box::new(|m| edit_plans(m, "unet.PlainConvUNet", "primus.Primus")), "Primus"),
        ("activation", Box::new(|m| edit_plans(m, "torch.nn.LeakyReLU", "torch.nn.GELU")), "GELU"),
        (
            "no plans",
            Box::new(|m| fs::remove_file(m.join("plans.json")).expect("removes")),
            "plans.json",
        ),
        (
            "no data set",
            Box::new(|m| fs::remove_file(m.join("dataset.json")).expect("removes")),
            "dataset.json",
        ),
        (
            "no checkpoint",
            Box::new(|m| fs::remove_file(checkpoint(m)).expect("removes")),
            "checkpoint",
        ),
        (
            "half a checkpoint",
            Box::new(|m| {
                let bytes = fs::read(checkpoint(m)).expect("reads");
                fs::write(checkpoint(m), &bytes[..bytes.len() / 2]).expect("writes");
            }),
            "checkpoint_final.pth",
        ),
        (
            "features that the weights do not have",
            Box::new(|m| edit_plans(m, "[4, 6, 8]", "[4, 6, 9]")),
            "",
        ),
    ];
    for (case, spoil, word) in cases {
        let (folder, model) = copied("plain");
        spoil(&model);
        let output = folder.path().join("case.nii.gz");
        let mut command = program(&model, &output);
        let run = command.arg("-i").arg(path("images/small.nii.gz")).assert().code(4);
        let message = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(message.contains(word), "{case}: {message}");
        assert!(!output.exists(), "{case}");
    }
}

#[test]
fn wrong_number_of_images_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("case.nii.gz");
    let model = Run::named("two_channels").file("model");
    let run = program(&model, &output).arg("-i").arg(path("images/box.nii.gz")).assert().failure();
    let code = run.get_output().status.code();
    assert!(matches!(code, Some(2 | 3)), "{code:?}");
    assert!(!output.exists());
}

mod batch {
    use super::*;
    use std::process::Stdio;
    use std::time::{Duration, Instant, SystemTime};

    /// The case that cannot be read.
    const BAD: &str = "case_04";

    /// Ten cases as nnU-Net names them, all different, one of them cut short.
    fn cases(image: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let source = unzipped(&path(image));
        for k in 0..10_u8 {
            let mut bytes = source.clone();
            for (i, voxel) in bytes[352..].chunks_exact_mut(2).enumerate() {
                let value = i16::from_le_bytes([voxel[0], voxel[1]]);
                let moved = value + i16::from(k) * (i % 7) as i16;
                voxel.copy_from_slice(&moved.to_le_bytes());
            }
            let mut zipped = crate::nifti_files::gzip(&bytes);
            let name = format!("case_{k:02}");
            if name == BAD {
                zipped.truncate(zipped.len() / 2);
            }
            fs::write(folder.path().join(format!("{name}_0000.nii.gz")), zipped).expect("writes");
        }
        folder
    }

    fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut all: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().ends_with(".nii.gz"))
            .filter_map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (!name.starts_with('.')).then(|| (name, fs::read(path).expect("reads")))
            })
            .collect();
        all.sort();
        all
    }

    fn command(input: &Path, output: &Path, mirror: &str) -> std::process::Command {
        let mut command = crate::program();
        command
            .args(["--precision", "f32", "--mirror", mirror, "--model"])
            .arg(Run::named("plain").file("model"))
            .arg("-i")
            .arg(input)
            .arg("-o")
            .arg(output);
        command
    }

    #[test]
    fn one_corrupt_case_of_ten_is_reported_and_nine_are_written() {
        let input = cases("images/small.nii.gz");
        let output = tempfile::tempdir().expect("folder");
        let run = command(input.path(), output.path(), "none").output().expect("runs");
        let message = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(3), "{message}");
        assert!(message.contains(BAD), "{message}");
        let written = results(output.path());
        let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<_> = (0..10)
            .map(|k| format!("case_{k:02}.nii.gz"))
            .filter(|n| !n.starts_with(BAD))
            .collect();
        assert_eq!(names, expected);
        // A case of a batch is the same as a case alone.
        let alone = output.path().join("alone");
        let image = input.path().join("case_07_0000.nii.gz");
        let file = alone.join("case_07.nii.gz");
        assert!(command(&image, &file, "none").status().expect("runs").success());
        let seven = &written.iter().find(|(name, _)| name == "case_07.nii.gz").expect("there").1;
        assert!(fs::read(file).expect("reads") == *seven);
    }

    #[test]
    fn killed_batch_continues_with_skip_existing_to_the_same_files() {
        let input = cases("images/plain.nii.gz");
        let [whole, halves] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
        let run = command(input.path(), whole.path(), "auto").output().expect("runs");
        assert_eq!(run.status.code(), Some(3), "{}", String::from_utf8_lossy(&run.stderr));

        let mut child = command(input.path(), halves.path(), "auto")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let started = Instant::now();
        while results(halves.path()).len() < 2 {
            assert!(started.elapsed() < Duration::from_mins(5), "no result in five minutes");
            assert!(child.try_wait().expect("waits").is_none(), "ended before two results");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("ends");
        let kept = results(halves.path());
        assert!(kept.len() < 9, "killed too late to show anything");
        let times = |names: &[(String, Vec<u8>)]| -> Vec<SystemTime> {
            let time =
                |name: &str| fs::metadata(halves.path().join(name)).and_then(|m| m.modified());
            names.iter().map(|(name, _)| time(name).expect("a time")).collect()
        };
        let before = times(&kept);

        let again = command(input.path(), halves.path(), "auto")
            .arg("--skip-existing")
            .output()
            .expect("runs");
        assert_eq!(again.status.code(), Some(3), "{}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(before, times(&kept), "finished cases are not done again");
        assert!(results(whole.path()) == results(halves.path()), "the files are the same");
    }
}
