//! Mistakes that many make, and what they are told.

use super::{program, refused, scan};
use crate::copy_folder;
use crate::nifti_files;
use fastnnunet::registry;
use std::fs;
use std::path::Path;

fn plain() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain")
}

#[test]
fn a_folder_with_fold_all_only_is_told_so() {
    let folder = tempfile::tempdir().expect("folder");
    let model = folder.path().join("model");
    copy_folder(&plain(), &model);
    fs::rename(model.join("fold_0"), model.join("fold_all")).expect("renames");
    fs::remove_dir_all(model.join("fold_1")).expect("removes");
    let run = |folds: &[&str]| {
        let mut command = program();
        command.arg("-i").arg(scan()).arg("--model").arg(&model).args(folds);
        command.arg("-o").arg(folder.path().join("labels.nii.gz"));
        command
    };
    let message = refused(&mut run(&[]), 4);
    assert!(message.contains("fold_all only") && !message.contains("fold_0"), "{message}");
    run(&["--folds", "all"]).assert().success();
}

#[test]
fn a_folder_of_ones_own_is_no_demonstration() {
    let folder = tempfile::tempdir().expect("folder");
    let run = program()
        .arg("-i")
        .arg(scan())
        .arg("--model")
        .arg(plain())
        .arg("-o")
        .arg(folder.path().join("labels.nii.gz"))
        .assert()
        .success();
    let output = run.get_output();
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).to_lowercase();
    assert!(!text.contains("demo"), "{text}");
}

#[test]
fn a_mistyped_input_is_what_the_message_is_about() {
    let folder = tempfile::tempdir().expect("folder");
    let missing = folder.path().join("imagesTz");
    for output in ["labels", "labels.nii.gz"] {
        let mut command = program();
        command.args(["--model", "selftest", "-i"]).arg(&missing);
        let message = refused(command.arg("-o").arg(folder.path().join(output)), 3);
        assert!(message.contains("imagesTz"), "{message}");
    }
    // A folder without images, of which one may be tempted to say something about the output.
    fs::create_dir(&missing).expect("folder");
    let mut command = program();
    command.args(["--model", "selftest", "-i"]).arg(&missing);
    let message = refused(command.arg("-o").arg(folder.path().join("labels")), 3);
    assert!(message.contains("no file of NIfTI") && message.contains("DICOM"), "{message}");
}

/// Half a voxel rounds to none: half to even.
#[test]
fn a_slice_of_half_a_voxel_is_told_what_would_do() {
    let spacing = registry::find("selftest").expect("built in").config().target_spacing;
    let [z, y, x] = spacing.map(|mm| mm.expect("a 3-D network"));
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ct.nii");
    let mut file = nifti_files::ct();
    file.dim = vec![3, 8, 8, 1];
    file.voxels = [-1000_i16, 500].repeat(32).into_iter().flat_map(i16::to_le_bytes).collect();
    file.pixdim = [1.0, x, y, z / 2.0];
    file.srow = [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z / 2.0, 0.0]];
    fs::write(&path, file.bytes()).expect("writes");
    let mut command = program();
    command.args(["--model", "selftest", "-i"]).arg(&path);
    let message = refused(command.arg("-o").arg(folder.path().join("labels.nii")), 3);
    assert!(message.contains("half a voxel of the model or less"), "{message}");
    assert!(message.contains("expected more than half"), "{message}");
}

/// Windows editors put a mark before a text.
#[test]
fn a_byte_order_mark_before_json_is_no_matter() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let selftest = registry::find("selftest").expect("built in");
    fs::write(at("net.onnx"), selftest.onnx().expect("embedded")).expect("writes");
    fs::write(at("net.json"), format!("\u{feff}{}", selftest.config_json())).expect("writes");
    let mut command = program();
    command.arg("-i").arg(scan()).arg("--model").arg(at("net.onnx"));
    command.arg("--config").arg(at("net.json")).arg("-o").arg(at("labels.nii.gz"));
    command.assert().success();

    let model = at("model");
    copy_folder(&plain(), &model);
    for name in ["plans.json", "dataset.json"] {
        let text = fs::read_to_string(model.join(name)).expect("reads");
        fs::write(model.join(name), format!("\u{feff}{text}")).expect("writes");
    }
    let mut command = program();
    command.arg("-i").arg(scan()).arg("--model").arg(&model).arg("-o").arg(at("own.nii.gz"));
    command.assert().success();
}

/// What a file calls things by is told as far as it can be read.
#[test]
fn long_names_of_files_are_cut_in_messages() {
    let folder = tempfile::tempdir().expect("folder");
    let model = folder.path().join("model");
    let long = "x".repeat(1 << 20);
    let checked = |case: &str| {
        let mut command = program();
        command.arg("-i").arg(scan()).arg("--model").arg(&model).args(["--folds", "0"]);
        let message = refused(command.arg("-o").arg(folder.path().join("labels.nii.gz")), 4);
        assert!(message.len() < 4000, "{case}: {} bytes", message.len());
        assert!(message.contains(" bytes ...] "), "{case}: {message}");
    };
    for (case, pointer) in [
        ("a class", "/configurations/3d_fullres/architecture/network_class_name"),
        ("a scheme", "/configurations/3d_fullres/normalization_schemes/0"),
        ("a reader", "/image_reader_writer"),
        ("a resampling", "/configurations/3d_fullres/resampling_fn_data"),
    ] {
        copy_folder(&plain(), &model);
        let path = model.join("plans.json");
        let text = fs::read_to_string(&path).expect("reads");
        let mut plans: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        *plans.pointer_mut(pointer).expect(case) = long.as_str().into();
        fs::write(&path, plans.to_string()).expect("writes");
        checked(case);
    }
    copy_folder(&plain(), &model);
    let path = model.join("dataset.json");
    let text = fs::read_to_string(&path).expect("reads");
    let mut dataset: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    dataset["labels"][long.as_str()] = "no number".into();
    fs::write(&path, dataset.to_string()).expect("writes");
    checked("a label");
    // A class that a pickle would make, and an entry of its archive.
    copy_folder(&plain(), &model);
    let hostile = format!("cos\n{long}\n)R.");
    for (case, name, content) in [
        ("a pickle's class", "x/data.pkl".to_owned(), hostile.as_bytes()),
        ("an entry", format!("x/{}", &long[..60_000]), b"packed".repeat(1000).as_slice()),
    ] {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let method = match case {
            "an entry" => zip::CompressionMethod::Deflated,
            _ => zip::CompressionMethod::Stored,
        };
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(name, options).expect("an entry");
        std::io::Write::write_all(&mut archive, content).expect("writes");
        let bytes = archive.finish().expect("an archive").into_inner();
        fs::write(model.join("fold_0/checkpoint_final.pth"), bytes).expect("writes");
        checked(case);
    }
}

/// Nothing in a message looks like the inside of a program.
#[test]
fn messages_are_sentences() {
    let folder = tempfile::tempdir().expect("folder");
    let selftest = registry::find("selftest").expect("built in");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("net.onnx"), selftest.onnx().expect("embedded")).expect("writes");
    for (field, value) in [
        ("resampling", serde_json::json!({"order": 5})),
        (
            "intensity_properties",
            serde_json::json!({"mean": 0, "std": -1, "percentile_00_5": 0, "percentile_99_5": 1}),
        ),
        ("grid", serde_json::json!({"spacing": [-1, 1, 1]})),
        ("regions_class_order", serde_json::json!([])),
        ("mirror_axes", serde_json::json!([7])),
    ] {
        let mut config: serde_json::Value =
            serde_json::from_str(selftest.config_json()).expect("JSON");
        config[field] = value;
        fs::write(at("net.json"), config.to_string()).expect("writes");
        let mut command = program();
        command.arg("-i").arg(scan()).arg("--model").arg(at("net.onnx"));
        command.arg("--config").arg(at("net.json")).arg("-o").arg(at("labels.nii.gz"));
        let message = refused(&mut command, 4);
        let is_debug = ["Some(", "None", " { ", "Ok(", "Err(", "Mode(", "::"];
        assert!(!is_debug.iter().any(|sign| message.contains(sign)), "{message}");
    }
    let mut calibrate = program();
    calibrate.args(["calibrate", "bone_cascade", "-i"]).arg(scan());
    calibrate.arg("--config").arg(at("net.json")).arg("-o").arg(at("ranges.json"));
    let message = refused(&mut calibrate, 2);
    assert!(!message.contains("Model {"), "{message}");
}

/// Linux has names of any bytes.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_stay_what_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().expect("folder");
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    fs::create_dir(&images).expect("folder");
    // As text all three are one.
    let names = [&b"a\xff.nii.gz"[..], b"a\xfe.nii.gz", b"b\xe9_0000.nii.gz"];
    for name in names {
        fs::copy(scan(), images.join(OsStr::from_bytes(name))).expect("copies");
    }
    program()
        .args(["--model", "selftest", "-i"])
        .arg(&images)
        .arg("-o")
        .arg(&labels)
        .arg("--save-probabilities")
        .assert()
        .success();
    for name in names {
        let name = OsStr::from_bytes(name);
        assert!(labels.join(name).is_file(), "{}", name.display());
    }
    assert!(labels.join(OsStr::from_bytes(b"a\xff.npz")).is_file());
    assert_eq!(fs::read_dir(&labels).expect("a folder").count(), 6);
    // The default name of a single result.
    let one = images.join(OsStr::from_bytes(names[0]));
    program()
        .current_dir(folder.path())
        .args(["--model", "selftest", "-i"])
        .arg(one)
        .assert()
        .success();
    let result = folder.path().join("results").join(OsStr::from_bytes(b"a\xff_selftest.nii.gz"));
    assert!(result.is_file());
}

/// A CT stored with a sign and read without one: -1024 becomes 64512.
#[test]
fn values_beyond_every_scanner_are_doubted() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ct.nii");
    let mut file = nifti_files::ct();
    file.dim = vec![3, 16, 16, 16];
    file.datatype = 512;
    file.scaling = [1.0, -1024.0];
    let values = [0_u16, 1024, 1500, 65535].repeat(1024);
    file.voxels = values.into_iter().flat_map(u16::to_le_bytes).collect();
    fs::write(&path, file.bytes()).expect("writes");
    let run = program()
        .args(["--model", "selftest", "-i"])
        .arg(&path)
        .arg("-o")
        .arg(folder.path().join("labels.nii"))
        .assert()
        .success();
    let text = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(text.contains("warning: ") && text.contains("64511"), "{text}");
}
