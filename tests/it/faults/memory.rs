//! What a run holds is counted before it is allocated.

#[cfg(target_os = "linux")]
use super::bounded::{Ended, peak_of};
use super::networks::Network;
use super::{program, scan};
use serde_json::Value;

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
