//! Faults that were found by fuzzing, by hostile files and by killing the program, each as a test of
//! the right behavior: `tests/hostile` has the files that cannot be made here.

#[cfg(unix)]
mod access;
mod batches;
#[cfg(target_os = "linux")]
mod bounded;
mod geometry;
#[cfg(unix)]
mod kinds;
mod memory;
mod messages;
mod names;
mod networks;
#[cfg(target_os = "linux")]
mod opening;
#[cfg(target_os = "linux")]
mod shim;
#[cfg(target_os = "linux")]
mod stopped;
mod terminal;
mod weights;

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of `tests/hostile`.
fn hostile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(name)
}

/// A small scan.
fn scan() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/case/input_plain.nii.gz")
}

fn program() -> Command {
    Command::from(crate::program())
}

/// Runs, checks the exit code and that there is one sentence about it; returns it.
fn refused(command: &mut Command, code: i32) -> String {
    let result = command.assert().code(code).get_output().clone();
    let message = String::from_utf8(result.stderr).expect("UTF-8");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    message
}

/// Names of all files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
