//! What must hold before a release: all of `.ci/run`, and what takes too long for every change.

use crate::shell::{self, Result, output, root};
use crate::{fuzz, golden};
use std::fs;

pub(crate) fn run() -> Result {
    shell::run(".ci/run")?;
    // .ci/run has the GPU features on; this is what the README says, word for word.
    shell::run("cargo test --locked")?;
    // As in .ci/run, but killed 500 times, and with every call of the system failing in turn.
    let all = [("FASTNNUNET_KILLS", "500"), ("FASTNNUNET_FAULTS", "all")];
    shell::run_with(
        "cargo test --locked --no-default-features --features cli,dicom --test it faults::",
        &all,
    )?;
    minimum_rust()?;
    miri()?;
    // Every network on both GPU engines, with the features of .ci/run.
    shell::run(".ci/cuda all")?;
    let all = [("ALL_KERNELS", "1"), ("REQUIRE_VULKAN", "1")];
    shell::run_with(
        "cargo test --locked -p fastnnunet --features cuda,vulkan --test it -- engines:: gpu::",
        &all,
    )?;
    shell::run(".ci/portable all")?;
    shell::run(".ci/embed target/release/fastnnunet all")?;
    shell::run(".ci/wheel target/release/fastnnunet")?;
    shell::run(".ci/windows")?;
    // What makes two builds alike is the same with and without burn, which takes as long as all else.
    shell::run(".ci/reproducible --no-default-features --features cli,dicom")?;
    reference()?;
    fuzz::run(&["--seconds".to_owned(), "60".to_owned()])
}

/// The stated minimum Rust compiles everything but burn, which states one of its own.
fn minimum_rust() -> Result {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))
        .map_err(|error| format!("Cargo.toml: {error}"))?;
    let stated = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let stated = stated.ok_or("Cargo.toml states no rust-version")?.trim_matches('"');
    let installed = output("rustc --version")?;
    println!("\nminimum Rust: {stated} is stated, installed is {}", installed.trim());
    let installed = installed.split_whitespace().nth(1).unwrap_or_default();
    if installed == stated || installed.strip_prefix(stated).is_some_and(|r| r.starts_with('.')) {
        println!("which is the minimum itself: it has compiled all of the above");
        return Ok(());
    }
    shell::run(&format!(
        "cargo +{stated} check --locked --workspace --all-targets --no-default-features \
         --features fastnnunet/cli,fastnnunet/dicom"
    ))
}

/// What takes PyTorch: a student of one's own, from CTs without labels to its card.
fn reference() -> Result {
    golden::environment()?;
    shell::run("cargo build --locked --release --no-default-features --features cli")?;
    let (python, program) = (golden::PYTHON, "target/release/fastnnunet");
    shell::run(&format!("{python} training/check_distill.py {program}"))
}

/// Miri interprets the scalar kernels and reports undefined behavior in them. It comes with nightly
/// compilers only, and knows no vector instructions.
fn miri() -> Result {
    let flags = [("MIRIFLAGS", "-Zmiri-permissive-provenance")];
    shell::run_with("cargo +nightly miri test --package fastnnunet-kernels --lib", &flags)
}
