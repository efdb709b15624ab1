//! Ranges for int8: measured on a scan, written into a configuration, and used from there.

use assert_cmd::Command;
use fastnnunet::infer::cpu::Isa;
use fastnnunet::model::ModelConfig;
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
    let int8 = config.int8.expect("ranges");
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

#[test]
fn a_mode_or_a_lonely_onnx_file_is_refused() {
    let ct = repository("tests/golden/case/input_plain.nii.gz");
    let onnx = repository("models/selftest.onnx");
    let arg = Path::new;
    for model in [arg("no such model"), &onnx] {
        let out = arg("never.json");
        program(&[arg("calibrate"), model, arg("-i"), &ct, arg("-o"), out]).assert().code(2);
    }
}
