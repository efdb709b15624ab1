//! What a run holds is counted before it is allocated.

use super::networks::Network;

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
    let (code, message, peak) = peak_of(command.args(["--memory-limit", "300MiB"]));
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
    let (code, message, peak) = peak_of(command.args(["--memory-limit", "100MiB"]));
    assert_eq!(code, Some(6), "{message}");
    assert!(peak < 105 << 20, "{} MiB", peak >> 20);
}

/// Exit code, message and largest resident size of a command.
#[cfg(target_os = "linux")]
fn peak_of(command: &assert_cmd::Command) -> (Option<i32>, String, u64) {
    use std::process::{Command, Stdio};
    let mut child = Command::new(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(number.unwrap_or(0) << 10);
        if let Some(status) = child.try_wait().expect("a child") {
            break status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    let mut message = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut message)
        .expect("text");
    (code, message, peak)
}
