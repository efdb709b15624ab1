//! The built program on files: what it writes and says. What it refuses is in `refused.rs`.

use crate::nifti_files::{self, Nifti};
use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A small scan with its reference result.
pub(crate) fn scan() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/case/input_plain.nii.gz")
}

pub(crate) fn program() -> Command {
    Command::from(crate::program())
}

/// The program ready to run the self-test network from `input` to `output`.
pub(crate) fn selftest(input: &Path, output: &Path) -> Command {
    let mut command = program();
    command
        .args(["--model", "selftest", "--precision", "f32", "-i"])
        .arg(input)
        .arg("-o")
        .arg(output);
    command
}

/// Runs, checks the exit code and that there is one sentence and no output; returns it.
pub(crate) fn fails(command: &mut Command, code: i32, output: &Path) -> String {
    let result = command.assert().code(code).get_output().clone();
    assert!(result.stdout.is_empty(), "nothing on standard output");
    let message = String::from_utf8(result.stderr).expect("UTF-8");
    assert!(message.starts_with("error: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!output.is_file() || code == 7, "a failed run leaves no output");
    message
}

#[test]
fn writes_labels_and_a_json_summary() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("new/folder/seg.nii.gz");
    let run = selftest(&scan(), &output).arg("--json").assert().success();
    let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("one JSON value");
    assert_eq!(summary["model"]["name"], "selftest");
    assert_eq!(summary["precision"], "f32");
    assert_eq!(summary["input_sha256"].as_str().expect("hash").len(), 64);
    assert_eq!(summary["geometry"]["shape_xyz"], serde_json::json!([60, 52, 20]));
    let labels = summary["labels"].as_array().expect("labels");
    assert_eq!(labels.len(), 3);
    assert!(labels.iter().all(|label| label["voxels"].as_u64().expect("count") > 0));
    assert!(summary["seconds"]["infer"].as_f64().expect("time") > 0.0);
    assert!(run.get_output().stderr.is_empty(), "no progress on a pipe");
    let written = fastnnunet::Scan::open(&output).expect("loads");
    let source = fastnnunet::Scan::open(scan()).expect("loads");
    assert_eq!(written.grid(), source.grid(), "same grid as the input");
}

#[test]
fn text_summary_names_labels_times_and_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let run = selftest(&scan(), &folder.path().join("seg.nii")).assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).expect("UTF-8");
    for word in ["input", "selftest", "three", " ml", "infer", "MiB at peak", "seg.nii"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
}

#[test]
fn same_input_gives_same_bytes_at_any_thread_count() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = ["1", "2", "3"].map(|threads| {
        let output = folder.path().join(format!("{threads}.nii.gz"));
        selftest(&scan(), &output).args(["--threads", threads, "--quiet"]).assert().success();
        std::fs::read(output).expect("written")
    });
    assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2]);
}

#[test]
fn default_output_is_in_results() {
    let folder = tempfile::tempdir().expect("folder");
    program()
        .current_dir(folder.path())
        .args(["--quiet", "--model", "selftest", "--input"])
        .arg(scan())
        .assert()
        .success()
        .stdout("")
        .stderr("");
    assert!(folder.path().join("results/input_plain_selftest.nii.gz").is_file());
}

#[test]
fn existing_output_is_kept_unless_overwrite() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    std::fs::write(&output, "precious").expect("writes");
    let message = fails(&mut selftest(&scan(), &output), 7, &output);
    assert!(message.contains("--overwrite"), "{message}");
    assert_eq!(std::fs::read(&output).expect("still there"), b"precious");
    selftest(&scan(), &output).args(["--overwrite", "--quiet"]).assert().success();
    assert_ne!(std::fs::read(&output).expect("replaced"), b"precious");
}

/// A run that was stopped after the files beside the label map goes on; a picture that cannot be
/// written does not cost the label map.
#[test]
fn files_beside_the_label_map_do_not_stand_in_its_way() {
    let folder = tempfile::tempdir().expect("folder");
    let [output, archive, picture] =
        ["seg.nii.gz", "seg.npz", "seg.png"].map(|file| folder.path().join(file));
    let run = |more: &str| {
        let mut command = selftest(&scan(), &output);
        command.args([more, "--save-probabilities", "--preview"]).arg(&picture);
        command
    };
    for left in [&archive, &picture] {
        std::fs::write(left, "left over").expect("writes");
        let message = fails(&mut run("--quiet"), 7, &output);
        assert!(message.contains("--overwrite"), "{message}");
        assert!(!output.exists(), "found out before any work");
        run("--skip-existing").assert().success();
        assert_ne!(std::fs::read(left).expect("there"), b"left over");
        std::fs::remove_file(&output).expect("removes");
        std::fs::remove_file(&archive).expect("removes");
        std::fs::remove_file(&picture).expect("removes");
    }
    let made = run("--json").assert().success();
    let told: Value = serde_json::from_slice(&made.get_output().stdout).expect("one JSON value");
    assert_eq!(told["probabilities"], archive.display().to_string());
    assert_eq!(told["preview"], picture.display().to_string());
    let made = run("--overwrite").assert().success();
    let told = String::from_utf8_lossy(&made.get_output().stdout).into_owned();
    assert!(told.contains("probabilities") && told.contains("seg.npz"), "{told}");
    let skipped = run("--skip-existing").arg("--json").assert().success();
    let told: Value = serde_json::from_slice(&skipped.get_output().stdout).expect("one JSON value");
    assert_eq!(told["skipped"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_a_killed_run_left_of_a_result_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let left = at(".fastnnunet-seg.nii.gz-a1B2c3.tmp");
    let others = [".fastnnunet-leg.nii.gz-a1B2c3.tmp", ".fastnnunet-seg.nii.gz-notes.txt"].map(at);
    for file in others.iter().chain([&left]) {
        std::fs::write(file, "half a result").expect("writes");
    }
    selftest(&scan(), &at("seg.nii.gz")).assert().success();
    assert!(!left.exists());
    assert!(others.iter().all(|other| other.exists()));
}

/// Two models for mode bone, with the self-test's small network, and a scan of many voxels of few
/// millimetres: little for a network, much for what follows.
pub(crate) fn bones() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let selftest = fastnnunet::registry::find("selftest").expect("self-test model");
    for (name, mm) in [("bone_low", 2.5), ("bone_medium", 1.5)] {
        let mut config: Value = serde_json::from_str(selftest.config_json()).expect("JSON");
        config.as_object_mut().expect("an object").remove("model_path");
        config["grade"] = "starter".into();
        config["target_spacing"] = vec![mm; 3].into();
        config["labels"][0]["name"] = "bone".into();
        let at = |ending: &str| folder.path().join(format!("{name}.{ending}"));
        std::fs::write(at("json"), config.to_string()).expect("writes");
        std::fs::write(at("onnx"), selftest.onnx().expect("embedded")).expect("writes");
    }
    let (shape, spacing) = ([384, 384, 64], [0.75, 0.75, 1.0]);
    let voxels = shape.iter().product::<i64>() as usize;
    let mut srow = [[0.0; 4]; 3];
    (0..3).for_each(|k| srow[k][k] = spacing[k]);
    let file = Nifti {
        dim: [&[3], &shape[..]].concat(),
        pixdim: [1.0, spacing[0], spacing[1], spacing[2]],
        srow,
        voxels: (-1000_i16).to_le_bytes().repeat(voxels),
        ..nifti_files::ct()
    };
    std::fs::write(folder.path().join("fine.nii"), file.bytes()).expect("writes");
    folder
}

fn bone_within(limit: u64, folder: &Path, extra: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = program();
    command.args(["--mode", "bone", "--json", "--overwrite", "--memory-limit"]);
    command.arg(limit.to_string()).args(extra).arg("--models-dir").arg(folder);
    command.arg("-i").arg(folder.join("fine.nii")).arg("-o").arg(folder.join("seg.nii.gz"));
    command.assert()
}

/// The summary of a run that succeeds.
fn bone_summary(limit: u64, folder: &Path, extra: &[&str]) -> (Value, u64) {
    let done = bone_within(limit, folder, extra).success();
    let summary: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
    let expected = summary["predicted_peak_bytes"].as_u64().expect("bytes");
    (summary, expected)
}

#[test]
fn what_an_image_makes_too_large_gives_way_to_the_next() {
    let folder = bones();
    let folder = folder.path();
    let (best, most) = bone_summary(1 << 30, folder, &[]);
    assert_eq!(best["model"]["name"], "bone_medium");
    let (next, least) = bone_summary(most - 1, folder, &[]);
    assert_eq!(next["model"]["name"], "bone_low", "{next}");
    let why = next["choice"].as_str().expect("a sentence");
    assert!(why.contains("bone_medium does not fit"), "{why}");
    let refused = bone_within(least - 1, folder, &[]).code(6);
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    let need = format!("needs {:.1} MiB", least as f64 / f64::from(1 << 20));
    assert!(message.contains(&need), "the smallest's numbers: {message}");
}

#[test]
fn what_follows_the_networks_counts_as_well() {
    let folder = bones();
    let low = ["--quality", "low"];
    let parts = ["--quality", "low", "--enable-subseg"];
    let (_, plain) = bone_summary(1 << 30, folder.path(), &low);
    let (_, most) = bone_summary(1 << 30, folder.path(), &parts);
    assert!(most > plain, "{most} and {plain}");
    bone_within(most - 1, folder.path(), &low).success();
    bone_within(most - 1, folder.path(), &parts).code(6);
}

#[test]
fn data_that_does_not_look_like_ct_is_segmented_with_a_warning() {
    let folder = tempfile::tempdir().expect("folder");
    let (input, output) = (folder.path().join("mr.nii"), folder.path().join("seg.nii.gz"));
    let voxels = (0..24_i16).flat_map(|v| (10 * v).to_le_bytes()).collect();
    let file = nifti_files::Nifti { voxels, ..nifti_files::ct() };
    std::fs::write(&input, file.bytes()).expect("writes");
    let run = selftest(&input, &output).assert().success();
    let warning = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(warning.starts_with("warning: ") && warning.contains("CT"), "{warning}");
    assert!(output.is_file());
}

#[test]
fn lists_are_complete_as_text_and_json() {
    let text = program().arg("models").assert().success().get_output().stdout.clone();
    let text = String::from_utf8(text).expect("UTF-8");
    for word in ["name", "selftest", "3d_fullres", "test", "sha256"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    let modes = program().arg("modes").assert().success().get_output().stdout.clone();
    let modes = String::from_utf8(modes).expect("UTF-8");
    for mode in ["bone", "chest", "abdomen", "headneck", "pelvic", "spine", "limb", "total"] {
        assert!(modes.contains(mode), "{mode} is missing in\n{modes}");
    }
    let is_default = "--variant standard --quality low *";
    assert!(modes.contains(is_default), "the default is marked in\n{modes}");
    assert!(modes.contains("lung_vessels"), "tasks that an import answers in\n{modes}");
    for list in ["models", "modes"] {
        let json = program().args([list, "--json"]).assert().success().get_output().stdout.clone();
        let list: Value = serde_json::from_slice(&json).expect("JSON");
        assert!(!list.as_array().expect("a list").is_empty());
    }
    let json = program().args(["models", "selftest", "--json"]).assert().success();
    let models: Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    for (key, value) in [("configuration", "3d_fullres"), ("grade", "test"), ("name", "selftest")] {
        assert_eq!(models[0][key], value, "{key}");
    }
    assert_eq!(models[0]["classes"], 4);
    assert_eq!(models[0]["embedded"], true);
    assert_eq!(models[0]["bytes"].as_u64(), models[0]["bytes"].as_i64().map(|n| n as u64));
    assert_eq!(models[0]["sha256"].as_str().expect("hash").len(), 64);
    program().args(["models", "selftest"]).assert().success();
    let json = program().args(["modes", "abdomen", "--json"]).assert().success();
    let modes: Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    let choices = modes[0]["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 6);
    assert_eq!(
        (&choices[1]["variant"], &choices[1]["quality"]),
        (&"standard".into(), &"low".into())
    );
    assert_eq!((&choices[0]["structures"], &choices[0]["recipe"]), (&13.into(), &"abdomen".into()));
    assert_eq!((&choices[1]["default"], &choices[0]["default"]), (&true.into(), &false.into()));
    assert!(choices[0]["model"].is_string() && choices[0]["installed"].is_boolean());
    let liver = &choices[0]["labels"][3];
    assert_eq!(liver["name"], "gallbladder");
    assert_eq!((&liver["id"], &liver["snomed"]), (&4.into(), &"28231008".into()));
    let text = program().args(["modes", "bone"]).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(text).expect("UTF-8");
    for word in
        ["bone_high", "#e6d9b8", "SCT 272673000", "cortical_bone", "with --enable-subseg", "recipe"]
    {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    program().args(["models", "nothing"]).assert().code(2);
    program().args(["modes", "knee"]).assert().code(2);
}

#[test]
#[cfg(unix)]
fn interrupted_run_is_code_130_and_leaves_nothing() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    let chest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chest.nii.gz");
    // Thousands of small tiles: it is still at work when the signal comes.
    let mut child = crate::program()
        .args(["--model", "selftest", "--step-size", "0.1", "-i"])
        .arg(&chest)
        .arg("-o")
        .arg(&output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
}

#[test]
fn selftest_compares_every_engine_and_finds_changed_weights() {
    let run = program().args(["selftest", "--model", "selftest", "--json"]).assert().success();
    let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("one JSON value");
    assert_eq!(summary["passed"], true);
    let engines = summary["engines"].as_array().expect("engines");
    let named = |name: &str| engines.iter().find(|engine| engine["device"] == name);
    for isa in fastnnunet::infer::cpu::Isa::available() {
        let engine = named(&format!("cpu ({isa})")).expect("every instruction set");
        assert_eq!(engine["same_bytes_on_one_thread"], true, "{engine}");
        assert!(engine["milliseconds_per_patch"].as_f64().expect("a time") > 0.0, "{engine}");
    }
    assert_eq!(named("reference").is_some(), cfg!(feature = "reference"));

    let text = program().args(["selftest", "--model", "selftest_2d"]).assert().success();
    let text = String::from_utf8(text.get_output().stdout.clone()).expect("UTF-8");
    assert!(text.contains("cpu (scalar)") && text.contains("ok"), "{text}");
    let folder = tempfile::tempdir().expect("folder");
    fails(program().args(["selftest", "--model", "no_such"]), 2, folder.path());
    if cfg!(not(feature = "cuda")) {
        fails(program().args(["selftest", "--device", "cuda"]), 5, folder.path());
    }

    // One wrong byte among the weights, as a bad copy leaves it: in the ONNX file, and in the weights
    // of the code generated of it.
    let real = assert_cmd::cargo::cargo_bin("fastnnunet");
    let mut bytes = std::fs::read(&real).expect("the program");
    let weights = include_bytes!("../../models/selftest.onnx");
    let middle = &weights[weights.len() / 2..][..64];
    let places: Vec<usize> = bytes
        .windows(64)
        .enumerate()
        .filter(|(_, window)| *window == middle)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 1 + usize::from(cfg!(feature = "reference")));
    let copy = folder.path().join(real.file_name().expect("a name"));
    std::fs::copy(&real, &copy).expect("copies");
    let usual = crate::program();
    let instead =
        |word: &std::ffi::OsStr| if word == real { copy.as_os_str() } else { word }.to_owned();
    for place in places {
        bytes[place] ^= 1;
        std::fs::write(&copy, &bytes).expect("writes");
        bytes[place] ^= 1;
        let mut changed = Command::new(instead(usual.get_program()));
        changed.args(usual.get_args().map(instead)).arg("selftest");
        let message = fails(&mut changed, 4, folder.path());
        assert!(message.contains("selftest") && message.contains("SHA-256"), "{message}");
    }
}

/// As on a full disk that the log goes to.
#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_cannot_be_written_changes_nothing() {
    let nowhere = || std::fs::File::create("/dev/full").expect("opens");
    let missing = crate::program()
        .args(["--model", "selftest", "-i", "nothing.nii"])
        .stderr(nowhere())
        .status();
    assert_eq!(missing.expect("runs").code(), Some(3));
}

#[test]
fn statistics_are_those_of_the_written_labels() {
    let folder = tempfile::tempdir().expect("folder");
    let labels = folder.path().join("seg.nii.gz");
    let at = |name: &str| folder.path().join(name);
    for (file, more) in [("s.json", "--quiet"), ("s.csv", "--overwrite")] {
        selftest(&scan(), &labels).arg(more).arg("--statistics").arg(at(file)).assert().success();
    }
    let text = std::fs::read_to_string(at("s.json")).expect("written");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let [image, labels] =
        [scan(), labels].map(|path| fastnnunet::Scan::open(path).expect("reads").voxels().to_f32());
    for (id, (name, row)) in all.as_object().expect("an object").iter().enumerate() {
        let of = |(label, _): &(&f32, &f32)| **label == (id + 1) as f32;
        let there: Vec<f64> =
            labels.iter().zip(&image).filter(of).map(|(_, value)| f64::from(*value)).collect();
        assert_eq!(row["n_voxels"], there.len(), "{name}");
        let mean = there.iter().sum::<f64>() / there.len() as f64;
        // Five decimals are written.
        assert!((row["intensity"].as_f64().expect("a number") - mean).abs() < 1e-5, "{name}");
    }
    let csv = std::fs::read_to_string(at("s.csv")).expect("written");
    assert_eq!(csv.lines().count(), 1 + all.as_object().map_or(0, serde_json::Map::len));
    let mut wrong = selftest(&scan(), &at("no.nii.gz"));
    let said = fails(wrong.arg("--statistics").arg(at("s.txt")), 2, &at("no.nii.gz"));
    assert!(said.contains(".json or .csv"), "{said}");
}
