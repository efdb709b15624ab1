//! The table of `docs/from-nnunet.md`, row by row, through the built program.

use crate::folders::path;
use serde_json::Value;
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../docs/from-nnunet.md");

/// A run of the reference whose folder can answer a row.
fn run_for(ours: &str) -> Value {
    let name = if ours.contains("--previous-stage") {
        "cascade"
    } else if ours.contains("--folds all") {
        "fold_all_best"
    } else {
        "smaller_than_patch"
    };
    let text = fs::read_to_string(path("index.json")).expect("index.json");
    let index: Value = serde_json::from_str(&text).expect("index.json parses");
    let mut runs = index["runs"].as_array().expect("runs").iter();
    runs.find(|run| run["name"] == name).expect("a run of the index").clone()
}

/// The words of ours in a row, if it has some, and what it says beside them.
fn rows() -> impl Iterator<Item = (&'static str, Option<&'static str>, &'static str)> {
    TABLE.lines().filter(|line| line.starts_with("| `-")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0], cells[1].split('`').nth(1), cells[2])
    })
}

#[test]
fn every_row_of_the_table_runs() {
    let mut count = 0;
    for (theirs, ours, remark) in rows() {
        let Some(ours) = ours else {
            assert!(!remark.is_empty(), "{theirs}: words of ours, or what to do without");
            continue;
        };
        let run = run_for(ours);
        let folder = tempfile::tempdir().expect("folder");
        let inside = |name: &str| folder.path().join(name);
        for name in ["images", "stage"] {
            fs::create_dir(inside(name)).expect("a folder");
        }
        let copied = |field: &Value, to: &Path| {
            let from = path(field.as_str().expect("a file"));
            fs::copy(from, to).expect("copied");
        };
        for (channel, image) in run["images"].as_array().expect("images").iter().enumerate() {
            copied(image, &inside("images").join(format!("case_{channel:04}.nii.gz")));
        }
        if let Some(labels) = run.get("previous_labels") {
            copied(labels, &inside("stage").join("case.nii.gz"));
        }
        let trained = path(run["model"].as_str().expect("a folder"));
        let mut program = crate::program();
        let base = ["-i IMAGES", "-o LABELS", "--model TRAINED"];
        let missing = base.iter().filter(|words| !ours.contains(*words)).copied();
        for word in missing.chain([ours]).flat_map(|words| words.split(' ')) {
            match word {
                "IMAGES" => program.arg(inside("images")),
                "LABELS" => program.arg(inside("labels")),
                "STAGE" => program.arg(inside("stage")),
                "TRAINED" => program.arg(&trained),
                word => program.arg(word),
            };
        }
        let done = program.output().expect("runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{theirs}: {said}");
        assert!(inside("labels/case.nii.gz").is_file(), "{theirs}: {said}");
        count += 1;
    }
    assert!(count >= 12, "{count} rows with words of ours");
}
