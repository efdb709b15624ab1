//! TotalSegmentator's tasks through the built program, from folders as it releases them, against the
//! label maps it writes itself; `tests/totalseg/README.md` says how both were made.

use fastnnunet::Scan;
use ndarray::Array3;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Share of voxels that must have the reference's label: random networks of 118 classes leave gaps of
/// a millionth between the best two.
const EQUAL_SHARE: f64 = 0.9999;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/totalseg").join(name)
}

fn index() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(path("index.json")).expect("index.json");
    serde_json::from_str(&text).expect("index.json parses")
}

/// What we are asked for the same with.
fn options(run: &Value) -> Vec<String> {
    let arguments = run["arguments"].as_object().expect("arguments");
    let has = |name: &str| arguments.get(name) == Some(&Value::Bool(true));
    let mut options = vec!["--mode".to_owned(), run["task"].as_str().expect("a task").to_owned()];
    let mut add = |option: &str, value: &str| options.extend([option.into(), value.into()]);
    if has("fast") {
        add("--quality", "low");
    }
    if has("fastest") {
        add("--quality", "lowest");
    }
    if arguments.get("model_size").is_some() {
        add("--variant", "small");
    }
    if let Some(names) = arguments.get("roi_subset").and_then(Value::as_array) {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        add("--roi", &names.join(","));
    }
    options
}

fn labels(file: &Path) -> Array3<u16> {
    Scan::open(file).expect("a label map").voxels().to_f32().mapv(|v| v as u16)
}

/// Share of voxels with the same label.
fn agreement(ours: &Path, theirs: &Path) -> f64 {
    let (ours, theirs) = (labels(ours), labels(theirs));
    assert_eq!(ours.dim(), theirs.dim());
    let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
    same as f64 / ours.len() as f64
}

fn program(models: &Path) -> Command {
    let mut program = crate::program();
    program.args(["--precision", "f32", "-q", "--models-dir"]).arg(models);
    program
}

#[test]
fn tasks_are_those_of_totalsegmentator() {
    let folder = tempfile::tempdir().expect("folder");
    let mut worse = Vec::new();
    for (name, run) in index() {
        let output = folder.path().join(format!("{name}.nii.gz"));
        let image = path(run["image"].as_str().expect("an image"));
        let mut program = program(&path("results"));
        let done = program.args(options(&run)).arg("-i").arg(image).arg("-o").arg(&output);
        let done = done.output().expect("runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if !done.status.success() {
            worse.push(format!("{name}: {said}"));
            continue;
        }
        let share = agreement(&output, &path(run["expected"].as_str().expect("a file")));
        println!("{name}: {:.5} % of voxels agree", 100.0 * share);
        if share < EQUAL_SHARE {
            worse.push(format!("{name}: {share}"));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
fn weights_for_mr_say_so_and_take_no_image_for_a_ct() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("labels.nii.gz");
    // Nothing in it is as dark as air in a CT.
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/images/box_mr.nii.gz");
    for (mode, is_mr) in [("total_mr", true), ("total", false)] {
        let mut program = crate::program();
        program.args(["--overwrite", "--quality", "low", "--mode", mode, "--models-dir"]);
        program.arg(path("results")).arg("-i").arg(&image).arg("-o").arg(&output);
        let said = String::from_utf8(program.output().expect("runs").stderr).expect("UTF-8");
        assert_eq!(said.contains("segment MR"), is_mr, "{mode}: {said}");
        assert_eq!(said.contains("does not look like a CT"), !is_mr, "{mode}: {said}");
    }
}
