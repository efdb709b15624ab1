//! Batches that share a folder, and results that are half done.

use super::{program, scan};
use assert_cmd::Command;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn batch(images: &Path, labels: &Path) -> Command {
    let mut command = program();
    command
        .args(["--model", "selftest", "--skip-existing", "-i"])
        .arg(images)
        .arg("-o")
        .arg(labels);
    command
}

/// What another run finishes meanwhile is left out, not failed.
#[test]
fn three_batches_on_one_folder_all_end_well() {
    let folder = tempfile::tempdir().expect("folder");
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    fs::create_dir(&images).expect("folder");
    for case in 0..6 {
        fs::copy(scan(), images.join(format!("{case}.nii.gz"))).expect("copies");
    }
    let start = || {
        let command = batch(&images, &labels);
        let mut started = std::process::Command::new(command.get_program());
        started.args(command.get_args()).stdout(Stdio::null()).stderr(Stdio::piped());
        started.spawn().expect("it starts")
    };
    let runs = [start(), start(), start()];
    for run in runs {
        let ended = run.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{text}");
    }
    let mut names: Vec<_> = fs::read_dir(&labels).expect("labels").flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(names.len(), 6, "nothing else is left: {names:?}");
}

#[test]
fn an_empty_label_map_or_a_missing_picture_is_not_done() {
    let folder = tempfile::tempdir().expect("folder");
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    fs::create_dir(&images).expect("folder");
    fs::create_dir(&labels).expect("folder");
    fs::copy(scan(), images.join("a.nii.gz")).expect("copies");
    let output = labels.join("a.nii.gz");
    fs::write(&output, "").expect("writes");
    batch(&images, &labels).assert().success();
    let made = fs::read(&output).expect("made");
    assert!(!made.is_empty());

    let pictures = folder.path().join("pictures");
    batch(&images, &labels).arg("--preview").arg(&pictures).assert().success();
    assert!(pictures.join("a.png").is_file());
    batch(&images, &labels).arg("--save-probabilities").assert().success();
    assert!(labels.join("a.npz").is_file());
    assert_eq!(fs::read(&output).expect("there"), made);

    // Whatever is whole is left alone.
    fs::write(&output, "mine").expect("writes");
    batch(&images, &labels).arg("--preview").arg(&pictures).assert().success();
    assert_eq!(fs::read(&output).expect("there"), b"mine");
}
