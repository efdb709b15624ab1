//! Names out of files are names, never paths.

use super::{files_below, hostile, program, refused, scan};
use crate::copy_folder;
use fastnnunet::registry;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The configuration of this folder is called `x/../../../dropped/here`.
#[test]
fn a_configuration_in_a_checkpoint_never_becomes_a_path() {
    let folder = tempfile::tempdir().expect("folder");
    let inner = folder.path().join("a/b/c");
    fs::create_dir_all(&inner).expect("folders");
    for more in [&[][..], &["--overwrite"]] {
        let message = refused(
            program()
                .current_dir(&inner)
                .args(["-i"])
                .arg(scan())
                .arg("--model")
                .arg(hostile("folder_named_by_path"))
                .args(more),
            4,
        );
        assert!(message.contains("the name \"x/../../../dropped/here\""), "{message}");
    }
    assert!(files_below(folder.path()).is_empty());
}

/// The folder of a cascade's first stage is found by two names of `plans.json`.
#[test]
fn names_of_plans_never_become_paths() {
    let nnunet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders");
    let cascade = nnunet.join("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres");
    for (owner, field) in [("", "plans_name"), ("configurations", "previous_stage")] {
        let folder = tempfile::tempdir().expect("folder");
        // Without `__` in its name the plans' name is used.
        let model = folder.path().join("cascade");
        copy_folder(&cascade, &model);
        let path = model.join("plans.json");
        let text = fs::read_to_string(&path).expect("plans.json");
        let mut plans: Value = serde_json::from_str(&text).expect("JSON");
        let owner = match owner {
            "" => &mut plans,
            inner => &mut plans[inner]["3d_cascade_fullres"],
        };
        owner[field] = json!("../../elsewhere");
        fs::write(&path, plans.to_string()).expect("writes");
        let message = refused(program().arg("-i").arg(scan()).arg("--model").arg(&model), 4);
        assert!(message.contains("the name \"../../elsewhere\""), "{field}: {message}");
    }
}

#[test]
fn a_mode_of_a_folder_has_a_name() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["../../x", "a/b", "", ".hidden", "two\nlines", "\u{1b}[31mred", "nul"] {
        let choice = json!({"labels": "total", "models": ["selftest"]});
        let modes = json!({"modes": [{"name": name, "summary": "one", "choices": [choice]}]});
        fs::write(folder.path().join("modes.json"), modes.to_string()).expect("writes");
        let message = refused(program().args(["modes", "--models-dir"]).arg(folder.path()), 4);
        assert!(message.contains("the name"), "{name:?}: {message}");
        assert!(message.chars().filter(|c| c.is_control()).eq(['\n']), "{message:?}");
    }
}

/// A file's own name is the model's, and that of results.
#[cfg(unix)]
#[test]
fn a_model_has_a_name_that_can_be_shown() {
    let selftest = registry::find("selftest").expect("self-test model");
    let folder = tempfile::tempdir().expect("folder");
    let name = "\u{1b}[31mred";
    let onnx = selftest.onnx().expect("embedded");
    fs::write(folder.path().join(format!("{name}.onnx")), onnx).expect("writes");
    fs::write(folder.path().join(format!("{name}.json")), selftest.config_json()).expect("writes");
    let message = refused(program().args(["models", "--models-dir"]).arg(folder.path()), 4);
    assert!(message.contains("the name"), "{message}");
}
