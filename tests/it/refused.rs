//! The built program on what it cannot work on: one sentence, the right exit code, and nothing written.

use crate::cli::{fails, program, scan, selftest};
use crate::nifti_files;
use std::path::Path;

#[test]
fn what_is_read_is_never_written() {
    let folder = tempfile::tempdir().expect("folder");
    let ct = folder.path().join("ct.nii.gz");
    std::fs::copy(scan(), &ct).expect("copies");
    let before = std::fs::read(&ct).expect("reads");
    let around = folder.path().join("../").join(folder.path().file_name().expect("a name"));
    for (input, output) in [
        (ct.clone(), ct.clone()),
        (ct.clone(), around.join("ct.nii.gz")),
        (folder.path().to_path_buf(), folder.path().to_path_buf()),
    ] {
        for more in ["--overwrite", "--skip-existing"] {
            let message = fails(selftest(&input, &output).arg(more), 2, Path::new(""));
            assert!(message.contains("which is read"), "{message}");
            assert_eq!(std::fs::read(&ct).expect("still there"), before);
        }
    }
}

/// Also not the label maps that a cascade starts from.
#[test]
fn labels_of_a_previous_stage_are_never_written() {
    let folder = tempfile::tempdir().expect("folder");
    let [cts, labels] = ["cts", "labels"].map(|name| folder.path().join(name));
    for (at, name) in [(&cts, "a_0000.nii.gz"), (&labels, "a.nii.gz")] {
        std::fs::create_dir(at).expect("creates");
        std::fs::copy(scan(), at.join(name)).expect("copies");
    }
    let before = std::fs::read(labels.join("a.nii.gz")).expect("reads");
    let mut command = program();
    command.args(["--overwrite", "--model", "bone_cascade", "-i"]).arg(&cts);
    command.arg("-o").arg(&labels).arg("--previous-stage").arg(&labels);
    let message = fails(&mut command, 2, Path::new(""));
    assert!(message.contains("which is read"), "{message}");
    assert_eq!(std::fs::read(labels.join("a.nii.gz")).expect("still there"), before);
}

#[test]
fn two_files_of_one_case_are_refused_by_name() {
    for other in ["ct.nii", "ct_0000.nii.gz"] {
        let folder = tempfile::tempdir().expect("folder");
        for file in ["ct.nii.gz", other] {
            std::fs::copy(scan(), folder.path().join(file)).expect("copies");
        }
        let output = folder.path().join("labels");
        let message = fails(&mut selftest(folder.path(), &output), 3, &output);
        assert!(message.contains("ct.nii.gz") && message.contains(other), "{message}");
    }
}

/// Voxels of any size are a valid NIfTI file.
#[test]
fn impossible_grids_are_code_3() {
    let folder = tempfile::tempdir().expect("folder");
    let (input, output) = (folder.path().join("ct.nii"), folder.path().join("seg.nii.gz"));
    for size in [1e9_f64, 1e30] {
        for axes in [&[3_usize][..], &[1, 2]] {
            let mut file = nifti_files::Nifti { codes: [1, 0], ..nifti_files::ct() };
            for &axis in axes {
                file.pixdim[axis] = size;
            }
            std::fs::write(&input, file.bytes()).expect("writes");
            let message = fails(&mut selftest(&input, &output), 3, &output);
            assert!(message.contains("a grid of at most"), "{size} {axes:?}: {message}");
        }
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_as_input_is_refused_at_once() {
    let output = tempfile::tempdir().expect("folder").path().join("seg.nii.gz");
    fails(selftest(Path::new("/dev/zero"), &output).arg("--json"), 3, &output);
}

#[test]
fn unwritable_output_is_code_7() {
    let folder = tempfile::tempdir().expect("folder");
    // A folder cannot be made below a file, whoever runs the test.
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let output = file.join("seg.nii.gz");
    fails(&mut selftest(&scan(), &output), 7, &output);
}

#[test]
#[cfg(unix)]
fn read_only_folder_is_code_7() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).expect("creates");
    let set = |mode| std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(mode));
    set(0o555).expect("permissions");
    if std::fs::write(locked.join("probe"), "").is_ok() {
        // An administrator writes anywhere; the case above covers that.
        eprintln!("skipped: this user may write to read-only folders");
        return;
    }
    let output = locked.join("seg.nii.gz");
    fails(&mut selftest(&scan(), &output), 7, &output);
    set(0o755).expect("permissions");
}

#[test]
fn wrong_requests_are_code_2() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    let cases: [(&str, &[&str]); 15] = [
        ("unknown mode", &["--mode", "knee"]),
        ("unknown quality", &["--mode", "bone", "--quality", "best"]),
        ("unknown variant", &["--mode", "bone", "--variant", "9"]),
        ("unknown model", &["--model", "nothing"]),
        ("step out of range", &["--model", "selftest", "--step-size", "0"]),
        ("unknown device", &["--model", "selftest", "--device", "abacus"]),
        ("unknown axis", &["--model", "selftest", "--mirror", "w"]),
        ("folds of no folder", &["--model", "selftest", "--folds", "0"]),
        ("checkpoint of no folder", &["--model", "selftest", "--checkpoint", "x.pth"]),
        ("previous stage of no cascade", &["--model", "selftest", "--previous-stage", "x.nii"]),
        ("quality of a model", &["--model", "selftest", "--quality", "low"]),
        ("variant of a model", &["--model", "selftest", "--variant", "9"]),
        ("structures of a model", &["--model", "selftest", "--roi", "liver"]),
        ("parts of a model's bone", &["--model", "selftest", "--enable-subseg"]),
        ("a recipe without end", &["--model", "selftest", "--postprocess", "/dev/zero"]),
    ];
    for (claim, extra) in cases {
        let result =
            program().arg("-i").arg(scan()).arg("-o").arg(&output).args(extra).assert().code(2);
        assert!(!result.get_output().stderr.is_empty(), "{claim}");
        assert!(!output.exists(), "{claim}");
    }
    let unknown = program().arg("-i").arg(scan()).args(["--mode", "knee"]).assert().code(2);
    let message = String::from_utf8_lossy(&unknown.get_output().stderr).into_owned();
    assert!(message.contains("bone") && message.contains("spine"), "lists the modes: {message}");
    program().assert().code(2);
}

#[test]
fn more_tiles_than_anyone_waits_for_are_code_2() {
    let chest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chest.nii.gz");
    let output = tempfile::tempdir().expect("folder").path().join("seg.nii.gz");
    let message = fails(selftest(&chest, &output).args(["--step-size", "0.01"]), 2, &output);
    assert!(message.contains("0.01, which makes ") && message.contains(" tiles"), "{message}");
}

#[test]
fn output_name_must_be_nifti() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.png");
    fails(&mut selftest(&scan(), &output), 2, &output);
}

#[test]
fn mode_without_weights_says_which_file_goes_where() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    let mut command = program();
    command.arg("-i").arg(scan()).arg("-o").arg(&output).args([
        "--mode",
        "headneck",
        "--variant",
        "30",
    ]);
    let message = fails(&mut command, 4, &output);
    assert!(message.contains("headneck_30.onnx") && message.contains("--models-dir"), "{message}");
}

#[test]
fn bad_configuration_is_code_4_and_names_the_field() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    let config = folder.path().join("net.json");
    std::fs::write(&config, r#"{"patch_size": [16, 24, 24], "spacing": 3}"#).expect("writes");
    let message = fails(selftest(&scan(), &output).arg("--config").arg(&config), 4, &output);
    assert!(message.contains("spacing"), "{message}");
}

#[test]
fn missing_device_is_code_5() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    fails(selftest(&scan(), &output).args(["--device", "cuda"]), 5, &output);
}

#[test]
fn memory_limit_is_code_6() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("seg.nii.gz");
    fails(selftest(&scan(), &output).args(["--memory-limit", "100K"]), 6, &output);
}

#[test]
fn bad_files_are_code_3_with_one_sentence_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let (input, output) = (folder.path().join("ct.nii.gz"), folder.path().join("seg.nii.gz"));
    let message = fails(&mut selftest(&input, &output), 3, &output);
    assert!(message.contains("ct.nii.gz"), "a missing file is named: {message}");
    for (case, bytes, part) in nifti_files::unusable() {
        std::fs::write(&input, bytes).expect("writes");
        let message = fails(&mut selftest(&input, &output), 3, &output);
        assert!(message.contains(part), "{case}: {message}");
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 1, "{case}: only the input is there");
    }
}
