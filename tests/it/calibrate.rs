//! Ranges for int8: measured on a scan, written into a configuration, and used from there.

use assert_cmd::Command;
use fastnnunet::Scan;
use fastnnunet::infer::cpu::Isa;
use fastnnunet::model::ModelConfig;
use fastnnunet::nnunet::{Fold, Folder, Folds};
use fastnnunet_kernels::conv::Arithmetic;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn program(arguments: &[&Path]) -> Command {
    let mut command = Command::from(crate::program());
    command.args(arguments);
    command
}

#[test]
fn what_calibrate_writes_is_what_int8_reads() {
    let folder = tempfile::tempdir().expect("folder");
    let ct = repository("tests/golden/case/input_plain.nii.gz");
    let (json, labels) = (folder.path().join("int8.json"), folder.path().join("labels.nii.gz"));
    let arg = Path::new;
    let measure = [arg("calibrate"), arg("selftest"), arg("-i"), &ct, arg("-o"), &json];
    let said = program(&measure).assert().success().get_output().stdout.clone();
    let said = String::from_utf8(said).expect("text");
    assert!(said.contains("mean Dice") && said.contains("config "), "{said}");

    let text = std::fs::read_to_string(&json).expect("written");
    let config = ModelConfig::from_json(&text).expect("a configuration");
    let [int8] = &config.int8[..] else { panic!("ranges of one network") };
    let agreement = int8.agreement.expect("compared");
    assert_eq!(agreement.scans, 1);
    assert!((0.5..=1.0).contains(&agreement.mean_dice), "{agreement:?}");
    assert!(int8.layers.values().any(|ranges| !ranges.inputs.is_empty()));

    // The file is kept unless told otherwise.
    program(&measure).assert().code(7);
    let segment = |precision: &str, config: Option<&Path>| {
        let mut command = program(&[arg("-i"), &ct, arg("-o"), &labels]);
        command.args(["--model", "selftest", "--overwrite", "--json", "--precision", precision]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.assert()
    };
    let used = segment("int8", Some(&json)).success().get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&used).contains("\"precision\":\"int8\""), "{used:?}");
    // Not asked for, it is taken only where the labels are close enough.
    let unasked = segment("auto", Some(&json)).success().get_output().stdout.clone();
    let is_taken = String::from_utf8_lossy(&unasked).contains("\"precision\":\"int8\"");
    let is_close = agreement.mean_dice >= 0.998 && agreement.least_dice >= 0.99;
    let pays = Isa::best().is_fast_in(Arithmetic::Int8);
    assert_eq!(is_taken, is_close && pays, "{agreement:?}");
    // Ranges of other weights are neither used nor trusted.
    let other = folder.path().join("other.json");
    std::fs::write(&other, text.replace(&int8.weights_sha256, "0a")).expect("written");
    let refused = segment("auto", Some(&other)).code(4).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&refused).contains("SHA-256 0a"), "{refused:?}");
    // Without ranges it cannot run.
    let refused = segment("int8", None).code(4).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&refused).contains("fastnnunet calibrate"), "{refused:?}");
}

/// Runs the program with `--json`; what it said.
fn segmented(model: &Path, ct: &Path, labels: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let arg = Path::new;
    let mut command = program(&[arg("-i"), ct, arg("-o"), labels, arg("--model"), model]);
    command.args(["--overwrite", "--json", "--postprocess", "none"]).args(more).assert()
}

fn is_in_int8(said: assert_cmd::assert::Assert) -> bool {
    let said = said.success().get_output().stdout.clone();
    String::from_utf8_lossy(&said).contains("\"precision\":\"int8\"")
}

#[test]
fn an_onnx_file_is_measured_with_its_configuration() {
    let folder = tempfile::tempdir().expect("folder");
    let ct = repository("tests/golden/case/input_plain.nii.gz");
    let (onnx, own) =
        (repository("models/selftest.onnx"), repository("config/3d_fullres/selftest.json"));
    let (json, labels) = (folder.path().join("int8.json"), folder.path().join("labels.nii.gz"));
    let arg = Path::new;
    let measure =
        [arg("calibrate"), &onnx, arg("--config"), &own, arg("-i"), &ct, arg("-o"), &json];
    program(&measure).assert().success();
    let config = json.to_str().expect("a path");
    let more = ["--config", config, "--precision", "int8"];
    assert!(is_in_int8(segmented(&onnx, &ct, &labels, &more)));
    // All but the ranges is as it was.
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("a file");
        ModelConfig::from_json(&text).expect("a configuration")
    };
    let (own, measured) = (read(&own), read(&json));
    assert_eq!(own, ModelConfig { int8: Vec::new(), ..measured });
}

/// Mean Dice of all labels of two maps.
fn mean_dice(a: &Path, b: &Path) -> f64 {
    let labels = |path: &Path| {
        let scan = Scan::open(path).expect("a label map");
        scan.voxels().to_f32().mapv(|v| v as usize)
    };
    let (a, b) = (labels(a), labels(b));
    let of = |label: usize| {
        let count = |map: &ndarray::Array3<usize>| map.iter().filter(|&&l| l == label).count();
        let both = a.iter().zip(&b).filter(|&(&a, &b)| a == label && b == label).count();
        let all = count(&a) + count(&b);
        (all > 0).then(|| 2.0 * both as f64 / all as f64)
    };
    let all: Vec<f64> = (1..=64).filter_map(of).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
fn a_trained_folder_has_ranges_for_each_fold_and_one_record() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let model = "tests/nnunet/models/Dataset009_Folds/nnUNetTrainer__nnUNetPlans__3d_fullres";
    let (model, ct) = (repository(model), repository("tests/nnunet/images/plain.nii.gz"));
    let json = path("int8.json");
    let arg = Path::new;
    let measure = [arg("calibrate"), &model, arg("-i"), &ct, arg("-o"), &json];
    program(&measure).assert().success();
    let text = std::fs::read_to_string(&json).expect("written");
    let config = ModelConfig::from_json(&text).expect("a configuration");
    let trained = Folder::open(&model, &Folds::Auto, None).expect("a folder");
    let digests: Vec<&str> = config.int8.iter().map(|fold| &*fold.weights_sha256).collect();
    assert_eq!(digests, trained.digests().expect("checkpoints"));
    assert!(digests.len() > 1, "{digests:?}");
    let [first, second, ..] = &config.int8[..] else { unreachable!("more than one") };
    assert!(first.layers.keys().eq(second.layers.keys()) && first.layers != second.layers);
    assert_eq!(*trained.config(), ModelConfig { int8: Vec::new(), ..config.clone() });

    // The record is of all folds together.
    let (exact, rounded) = (path("f32.nii.gz"), path("int8.nii.gz"));
    let config = json.to_str().expect("a path");
    segmented(&model, &ct, &exact, &["--precision", "f32"]).success();
    let in_bytes = ["--config", config, "--precision", "int8"];
    assert!(is_in_int8(segmented(&model, &ct, &rounded, &in_bytes)));
    let (said, found) = (first.agreement.expect("compared"), mean_dice(&exact, &rounded));
    assert_eq!(first.agreement, second.agreement);
    assert!((said.mean_dice - found).abs() < 1e-3, "{said:?}, found {found}");

    // One fold runs by its own ranges, but nothing says how well.
    let one = ["--config", config, "--folds", "1"];
    assert!(is_in_int8(segmented(
        &model,
        &ct,
        &rounded,
        &[&one[..], &["--precision", "int8"]].concat()
    )));
    let close = path("close.json");
    let mut praised: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for fold in praised["int8"].as_array_mut().expect("a list") {
        fold["agreement"]["mean_dice"] = 1.0.into();
        fold["agreement"]["least_dice"] = 1.0.into();
    }
    std::fs::write(&close, praised.to_string()).expect("written");
    let close = ["--config", close.to_str().expect("a path")];
    let pays = Isa::best().is_fast_in(Arithmetic::Int8);
    assert_eq!(is_in_int8(segmented(&model, &ct, &rounded, &close)), pays);
    assert!(!is_in_int8(segmented(
        &model,
        &ct,
        &rounded,
        &[&close[..], &["--folds", "1"]].concat()
    )));

    // Ranges of other weights are neither used nor trusted.
    let other = path("other.json");
    std::fs::write(&other, text.replace(digests[1], "0a")).expect("written");
    let other = ["--config", other.to_str().expect("a path")];
    let refused = segmented(&model, &ct, &rounded, &other).code(4).get_output().stderr.clone();
    let refused = String::from_utf8_lossy(&refused).into_owned();
    assert!(refused.contains(digests[1]) && refused.contains("0a"), "{refused}");
}

#[test]
fn one_fold_of_a_folder_is_measured_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let model = "tests/nnunet/models/Dataset009_Folds/nnUNetTrainer__nnUNetPlans__3d_fullres";
    let (model, ct) = (repository(model), repository("tests/nnunet/images/plain.nii.gz"));
    let json = folder.path().join("int8.json");
    let arg = Path::new;
    let measure = [arg("calibrate"), &model, arg("-i"), &ct, arg("-o"), &json];
    let one = ["--folds", "1", "--checkpoint", "checkpoint_final.pth"];
    program(&measure).args(one).assert().success();
    let text = std::fs::read_to_string(&json).expect("written");
    assert!(text.contains("\"int8\": {"), "one network is no list");
    let fold = Folds::List(vec![Fold::Number(1)]);
    let fold = Folder::open(&model, &fold, None).expect("a folder");
    let config = ModelConfig::from_json(&text).expect("a configuration");
    assert_eq!(config.int8[0].weights_sha256, fold.sha256(0).expect("a checkpoint"));
}

#[test]
fn a_mode_or_a_lonely_onnx_file_is_refused() {
    let ct = repository("tests/golden/case/input_plain.nii.gz");
    let onnx = repository("models/selftest.onnx");
    let arg = Path::new;
    for model in [arg("no such model"), &onnx] {
        let out = arg("never.json");
        program(&[arg("calibrate"), model, arg("-i"), &ct, arg("-o"), out]).assert().code(2);
    }
    let selftest =
        [arg("calibrate"), arg("selftest"), arg("-i"), &ct, arg("-o"), arg("never.json")];
    for more in
        [["--folds", "0"], ["--checkpoint", "checkpoint_best.pth"], ["--config", "some.json"]]
    {
        program(&selftest).args(more).assert().code(2);
    }
}
