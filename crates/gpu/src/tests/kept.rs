//! Compiled kernels are kept from one process to the next.
#![cfg(feature = "cuda")]
#![allow(clippy::print_stdout, reason = "a child process answers")]

use crate::{Device, Network, Options, Precision, keep_kernels_in, kernel_counts};
use fastnnunet_model::network;
use fastnnunet_model::onnx::Graph;
use std::path::Path;
use std::process::Command;

const FOLDER: &str = "KERNELS_OF_A_TEST";

/// Runs a network and says how many kernels were compiled and how many read.
#[test]
#[ignore = "a process of a_second_process_compiles_nothing"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    assert!(keep_kernels_in(Some(Path::new(&folder))).expect("a folder"), "it can be written");
    let root = super::root();
    let graph =
        Graph::read(&std::fs::read(format!("{root}/models/selftest.onnx")).expect("the model"));
    let network = network::Network::new(graph.expect("a graph"), [8; 3]).expect("a network");
    let device = Device::cuda(0).expect("a device");
    let options = Options { precision: Precision::F16, ..Options::default() };
    let mut engine = Network::open(&device, vec![network], options).expect("it opens");
    let mut logits = vec![f32::NAN; engine.outputs() * 512];
    engine.run(&vec![0.5; 512], &mut logits).expect("it runs");
    assert!(logits.iter().all(|v| v.is_finite()));
    let (compiled, read) = kernel_counts();
    println!("counts {compiled} {read}");
}

#[test]
fn a_second_process_compiles_nothing() {
    // Vulkan's kernels are the driver's to keep.
    if std::env::var_os("REQUIRE_CUDA").is_none() {
        println!("skipped: no CUDA device was promised by REQUIRE_CUDA");
        return;
    }
    let folder = std::env::temp_dir().join(format!("kept-kernels-{}", std::process::id()));
    let run = || -> (usize, usize) {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "tests::kept::child", "--ignored", "--nocapture"])
            .env(FOLDER, &folder);
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("counts "));
        let (_, counts) =
            line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        let mut numbers = counts.split(' ').map(|n| n.parse().expect("a number"));
        (numbers.next().expect("compiled"), numbers.next().expect("read"))
    };
    let (compiled, read) = run();
    assert!(compiled > 5 && read == 0, "{compiled} compiled, {read} read");
    assert_eq!(run(), (0, compiled));
    // A damaged kernel is compiled again.
    let kernel =
        std::fs::read_dir(&folder).expect("it is there").flatten().next().expect("a kernel").path();
    std::fs::write(&kernel, b"damage").expect("it is written");
    assert_eq!(run(), (1, compiled - 1));
    std::fs::remove_dir_all(folder).expect("it is removed");
}
