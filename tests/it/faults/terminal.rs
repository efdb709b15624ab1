//! What stands in files reaches the terminal as text and nothing else.

use super::{hostile, program, scan};
use crate::copy_folder;
use fastnnunet::registry;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c))
}

/// Labels of this folder hold escape sequences, a line that looks like a row, and a mark that turns
/// the direction of writing.
#[test]
fn names_of_labels_forge_no_rows_and_move_no_cursor() {
    let folder = tempfile::tempdir().expect("folder");
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
    let model = folder.path().join("model");
    copy_folder(&trained, &model);
    let mut described: Value = serde_json::from_str(
        &fs::read_to_string(model.join("dataset.json")).expect("dataset.json"),
    )
    .expect("JSON");
    let forged: Value = serde_json::from_str(
        &fs::read_to_string(hostile("labels_esc_dataset.json")).expect("a file"),
    )
    .expect("JSON");
    let names = forged["labels"].as_object().expect("labels").keys().filter(|n| *n != "background");
    let mut labels = described["labels"].as_object().expect("labels").clone();
    let own: Vec<String> = labels.keys().filter(|n| *n != "background").cloned().collect();
    for (own, name) in own.iter().zip(names) {
        let id = labels.remove(own).expect("a label");
        labels.insert(name.clone(), id);
    }
    let count = labels.len() - 1;
    described["labels"] = labels.into();
    fs::write(model.join("dataset.json"), described.to_string()).expect("writes");
    for json in [false, true] {
        let mut command = program();
        command.arg("-i").arg(scan()).arg("--model").arg(&model);
        command.arg("-o").arg(folder.path().join(format!("{json}.nii.gz")));
        let run = command.args(json.then_some("--json")).assert().success();
        let text = String::from_utf8(run.get_output().stdout.clone()).expect("UTF-8");
        assert!(is_plain(&text), "{text:?}");
        if json {
            let summary: Value = serde_json::from_str(&text).expect("JSON");
            let name = summary["labels"][0]["name"].as_str().expect("a name");
            assert!(name.contains('\u{1b}') && name.contains('\u{202e}'), "{name:?}");
        } else {
            let rows = text.lines().filter(|line| line.contains(" ml")).count();
            assert!(rows <= count, "{text}");
        }
    }
}

/// A file's name is foreign text too.
#[cfg(unix)]
#[test]
fn names_of_files_move_no_cursor() {
    let folder = tempfile::tempdir().expect("folder");
    let name = "\u{1b}[2J\r\u{202e}x\nerror: none.nii.gz";
    let run = program()
        .args(["--model", "selftest", "-i"])
        .arg(folder.path().join(name))
        .assert()
        .code(3);
    let text = String::from_utf8(run.get_output().stderr.clone()).expect("UTF-8");
    assert!(is_plain(&text) && text.lines().count() == 1, "{text:?}");
}

/// macOS writes `._NAME` beside every file on a memory stick.
#[test]
fn leftovers_of_macos_are_no_models() {
    let folder = tempfile::tempdir().expect("folder");
    let selftest = registry::find("selftest").expect("self-test model");
    let onnx = selftest.onnx().expect("embedded");
    fs::write(folder.path().join("net.onnx"), onnx).expect("writes");
    fs::write(folder.path().join("net.json"), selftest.config_json()).expect("writes");
    for name in ["._net.onnx", "._net.json", "._modes.json", "._.DS_Store"] {
        fs::write(folder.path().join(name), b"\0\x05\x16\x07\0\x02\0\0Mac OS X").expect("writes");
    }
    for command in ["models", "modes"] {
        program().args([command, "--models-dir"]).arg(folder.path()).assert().success();
    }
}
