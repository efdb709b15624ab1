//! What a run holds is counted before it is allocated.

#[cfg(target_os = "linux")]
use super::bounded::{Ended, one_patch, peak_of};
use super::networks::Network;
use super::{program, scan};
#[cfg(target_os = "linux")]
use crate::nifti_files;
use serde_json::Value;
#[cfg(target_os = "linux")]
use std::{fs, path::Path, process::Stdio};

/// One weight of 4 MiB that 500 layers pack, each for itself: 2 GiB from a file of a few megabytes.
#[cfg(target_os = "linux")]
#[test]
fn a_weight_of_many_layers_is_counted_once_for_each_before_it_is_packed() {
    let mut network = Network::default();
    network.weights("down", &[1024, 1, 8, 8, 8]).weights("w", &[1024, 1024, 1, 1, 1]);
    network.weights("up", &[1024, 2, 8, 8, 8]);
    let eighth: (&str, &[i64]) = ("strides", &[8, 8, 8]);
    network.node("Conv", &["input", "down"], "s0", &[eighth]);
    for k in 0..500 {
        network.node("Conv", &[&format!("s{k}"), "w"], &format!("s{}", k + 1), &[]);
    }
    network.node("ConvTranspose", &["s500", "up"], "output", &[eighth]);
    let folder = tempfile::tempdir().expect("folder");
    let mut command = network.command(folder.path(), 2);
    let Ended { code, message, peak, .. } = peak_of(command.args(["--memory-limit", "300MiB"]));
    assert_eq!(code, Some(6), "{message}");
    assert!(message.contains("opening the network"), "{message}");
    assert!(peak < 315 << 20, "{} MiB", peak >> 20);
}

/// A model's file counts before it is read.
#[cfg(target_os = "linux")]
#[test]
fn opening_a_file_counts_towards_the_limit() {
    let mut network = Network::default();
    network.weights("w", &[2, 1, 1, 1, 1]).node("Conv", &["input", "w"], "output", &[]);
    network.weights("unused", &[64 << 20]);
    let folder = tempfile::tempdir().expect("folder");
    let mut command = network.command(folder.path(), 2);
    let Ended { code, message, peak, .. } = peak_of(command.args(["--memory-limit", "100MiB"]));
    assert_eq!(code, Some(6), "{message}");
    assert!(peak < 105 << 20, "{} MiB", peak >> 20);
}

/// Calibration holds all scans and their labels: within its limit, or refused; so is a large file of a
/// model.
#[cfg(target_os = "linux")]
#[test]
fn calibration_stays_within_the_limit_or_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    // 20 MiB each, of few tiles.
    let file = nifti_files::Nifti {
        dim: vec![3, 256, 256, 160],
        pixdim: [1.0, 0.25, 0.25, 0.25],
        srow: [[0.25, 0.0, 0.0, 0.0], [0.0, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.0]],
        voxels: (-1000_i16).to_le_bytes().repeat(256 * 256 * 160),
        ..nifti_files::ct()
    };
    fs::write(at("ct.nii"), file.bytes()).expect("writes");
    drop(file);
    let mut codes = Vec::new();
    for limit in [60_u64, 100, 140, 180, 500] {
        let mut command = program();
        command.args(["calibrate", "selftest", "--overwrite", "-o"]).arg(at("int8.json"));
        command.args(["--threads", "2", "--memory-limit", &format!("{limit}MiB")]);
        for _ in 0..4 {
            command.arg("-i").arg(at("ct.nii"));
        }
        let Ended { code, message, peak, .. } = peak_of(&command);
        assert!(matches!(code, Some(0 | 6)), "{limit} MiB: {code:?}: {message}");
        assert!(peak <= (limit << 20) * 21 / 20, "{limit} MiB: {} MiB, {code:?}", peak >> 20);
        codes.push(code);
    }
    assert!(codes[..2] == [Some(6); 2] && codes[4] == Some(0), "{codes:?}");

    let mut network = Network::default();
    network.weights("w", &[2, 1, 1, 1, 1]).node("Conv", &["input", "w"], "output", &[]);
    network.weights("unused", &[64 << 20]);
    // Writes the model's files.
    let _ = network.command(folder.path(), 2);
    let mut command = program();
    command.arg("calibrate").arg(at("net.onnx")).arg("--config").arg(at("net.json")).arg("-i");
    command.arg(scan()).arg("-o").arg(at("never.json")).args(["--memory-limit", "100MiB"]);
    let Ended { code, message, peak, .. } = peak_of(&command);
    assert!(code == Some(6) && message.contains("reading the model"), "{code:?}: {message}");
    assert!(peak < 105 << 20, "{} MiB", peak >> 20);
}

/// Threads beyond the cores give nothing: they are not started, and not counted.
#[test]
fn threads_count_as_what_they_take() {
    let predicted = |threads: &str| {
        let folder = tempfile::tempdir().expect("folder");
        let run = program()
            .args(["--model", "selftest", "--json", "--threads", threads, "-i"])
            .arg(scan())
            .arg("-o")
            .arg(folder.path().join("labels.nii.gz"))
            .assert()
            .success();
        let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
        summary["predicted_peak_bytes"].as_u64().expect("bytes")
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (most, many) = (predicted(&(2 * cores).to_string()), predicted("1024"));
    assert_eq!(most, many);
}

/// Predicted and measured bytes at the largest moment of a run.
#[cfg(target_os = "linux")]
fn predicted_and_measured(model: &[&str], image: &Path, folder: &Path) -> (u64, u64) {
    let run = program()
        .arg("--model")
        .args(model)
        .args(["--json", "--overwrite", "--threads", "2", "-i"])
        .arg(image)
        .arg("-o")
        .arg(folder.join("labels.nii.gz"))
        .assert()
        .success();
    let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    let bytes = |field: &str| summary[field].as_u64().expect("bytes");
    (bytes("predicted_peak_bytes"), bytes("peak_bytes"))
}

/// Images of more than 100 MB, of integers and of floats, stored along and across; all air, so that
/// the network has one answer for every tile.
#[cfg(target_os = "linux")]
#[test]
fn predictions_of_large_images_are_close() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ct.nii");
    let along = [[0.25, 0.0, 0.0, 0.0], [0.0, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.0]];
    let across = [[0.0, 0.0, 0.25, 0.0], [0.0, 0.25, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0]];
    let (integer, float) =
        ((-1000_i16).to_le_bytes().to_vec(), (-1000.0_f32).to_le_bytes().to_vec());
    for (case, srow, datatype, voxel) in [
        ("integers along", along, 4, &integer),
        ("integers across", across, 4, &integer),
        ("floats", along, 16, &float),
    ] {
        let slices = 128 * 4 / voxel.len() as i64;
        let file = nifti_files::Nifti {
            dim: vec![3, 480, 480, slices],
            pixdim: [1.0, 0.25, 0.25, 0.25],
            srow,
            datatype,
            voxels: voxel.repeat((480 * 480 * slices) as usize),
            ..nifti_files::ct()
        };
        fs::write(&path, file.bytes()).expect("writes");
        drop(file);
        let (predicted, measured) = predicted_and_measured(&["selftest"], &path, folder.path());
        let ratio = measured as f64 / predicted as f64;
        let [predicted, measured] = [predicted, measured].map(|bytes| bytes >> 20);
        assert!((0.8..=1.02).contains(&ratio), "{case}: {measured} MiB of {predicted}");
    }
}

/// burn's arrays count too.
#[cfg(all(target_os = "linux", feature = "reference"))]
#[test]
fn the_reference_engine_counts_what_it_holds() {
    let folder = tempfile::tempdir().expect("folder");
    let model = ["bone_low", "--device", "reference"];
    let (predicted, measured) = predicted_and_measured(&model, &scan(), folder.path());
    let ratio = measured as f64 / predicted as f64;
    let [predicted, measured] = [predicted, measured].map(|bytes| bytes >> 20);
    assert!((0.8..=1.02).contains(&ratio), "{measured} MiB of {predicted}");
}

/// A training of several folds.
#[cfg(target_os = "linux")]
const FOLDS: &str = "models/Dataset009_Folds/nnUNetTrainer__nnUNetPlans__3d_fullres";

/// Runs of every kind, each with the limit of what it took and a quarter.
#[cfg(target_os = "linux")]
#[test]
fn what_fits_by_a_quarter_is_never_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let nnunet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet");
    let trained = |model: &str| ["--model".into(), nnunet.join(model).display().to_string()];
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let parts = crate::cli::bones();
    let parts = parts.path().to_str().expect("a path");
    let picture = at("l.png");
    let picture = ["--preview", picture.to_str().expect("a path")];
    // Weights are most of what this one holds.
    let mut heavy = Network::default();
    heavy.weights("in", &[384, 1, 1, 1, 1]).weights("w", &[384, 384, 3, 3, 3]);
    heavy.weights("out", &[2, 384, 1, 1, 1]).node("Conv", &["input", "in"], "a", &[]);
    heavy.node("Conv", &["a", "w"], "b", &[("pads", &[1; 6])]);
    heavy.node("Conv", &["b", "out"], "output", &[]);
    let _ = heavy.command(folder.path(), 2);
    let [onnx, config] = ["net.onnx", "net.json"].map(|name| at(name).display().to_string());

    for (case, image, arguments) in [
        ("the smallest", scan(), words(&["--model", "selftest"])),
        ("a picture", scan(), [&words(&["--model", "selftest"])[..], &words(&picture)].concat()),
        ("probabilities", scan(), words(&["--model", "selftest", "--save-probabilities"])),
        ("a folder", scan(), trained("folders/plain").to_vec()),
        ("folds", nnunet.join("images/plain.nii.gz"), trained(FOLDS).to_vec()),
        (
            "the parts of bone",
            scan(),
            words(&[
                "--mode",
                "bone",
                "--quality",
                "low",
                "--enable-subseg",
                "--models-dir",
                parts,
            ]),
        ),
        (
            "heavy weights",
            one_patch(folder.path()),
            words(&["--model", &onnx, "--config", &config]),
        ),
    ] {
        let mut command = program();
        command.args(["--threads", "2", "--overwrite", "-i"]).arg(&image).args(&arguments);
        command.arg("-o").arg(at("l.nii.gz"));
        let Ended { code, message, peak, .. } = peak_of(&command);
        assert_eq!(code, Some(0), "{case}: {message}");
        let limit = peak + peak / 4;
        let Ended { code, message, .. } =
            peak_of(command.args(["--memory-limit", &limit.to_string()]));
        assert_eq!(code, Some(0), "{case}, which takes {} MiB: {message}", peak >> 20);
    }
}

/// Predicted bytes of a run, the largest that are resident and no file's, and the largest in all.
#[cfg(target_os = "linux")]
fn predicted_anonymous_and_all(image: &Path, folder: &Path) -> [u64; 3] {
    let mut child = std::process::Command::new(program().get_program())
        .args(["--model", "selftest", "--json", "--overwrite", "--threads", "2", "-i"])
        .arg(image)
        .arg("-o")
        .arg(folder.join("labels.nii.gz"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut anonymous = 0;
    while child.try_wait().expect("a child").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        anonymous = anonymous.max(number.unwrap_or(0) << 10);
    }
    let output = child.wait_with_output().expect("a child");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let bytes = |field: &str| summary[field].as_u64().expect("bytes");
    [bytes("predicted_peak_bytes"), anonymous, bytes("peak_bytes")]
}

/// What arrays take in a small case, by what it takes more than one of almost no voxels; and what that
/// one takes, which is the base: of it, the system decides how many of the program's own pages are
/// resident, so that it is bounded from above alone.
#[cfg(target_os = "linux")]
#[test]
fn predictions_of_small_images_are_what_the_program_takes() {
    let folder = tempfile::tempdir().expect("folder");
    let measured = |edge: usize| {
        let path = folder.path().join(format!("{edge}.nii"));
        let along = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
        let file = nifti_files::Nifti {
            dim: vec![3, edge as i64, edge as i64, edge as i64],
            pixdim: [1.0; 4],
            srow: along,
            voxels: (-1000_i16).to_le_bytes().repeat(edge.pow(3)),
            ..nifti_files::ct()
        };
        fs::write(&path, file.bytes()).expect("writes");
        // The largest moment is short, and looked for from outside.
        let runs = (0..3).map(|_| predicted_anonymous_and_all(&path, folder.path()));
        runs.reduce(|a, b| std::array::from_fn(|k| a[k].max(b[k]))).expect("three runs")
    };
    let (base, case) = (measured(8), measured(160));
    let [predicted, anonymous, _] = std::array::from_fn(|k| case[k].saturating_sub(base[k]));
    let ratio = anonymous as f64 / predicted as f64;
    println!("arrays: {} KiB of {} KiB; base: {base:?}", anonymous >> 10, predicted >> 10);
    assert!((0.8..=1.05).contains(&ratio), "{base:?}, {case:?}: {ratio}");
    for [predicted, _, all] in [base, case] {
        assert!(all as f64 <= 1.05 * predicted as f64, "{all} bytes of {predicted}");
    }
}
