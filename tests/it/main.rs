//! Drives the public interface and the built program on files.

mod build_script;
#[cfg(feature = "cli")]
mod calibrate;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cortical;
mod cpu;
mod engines;
mod flat;
#[cfg(feature = "cli")]
mod folders;
mod golden;
#[cfg(feature = "reference")]
mod gpu;
mod io;
mod labels;
mod models;
#[cfg(feature = "cli")]
mod models_dir;
mod nifti_files;
mod nnunet;
mod postprocess;
mod preview;
#[cfg(all(unix, feature = "cli"))]
mod readme;
mod regressions;
mod resample;
#[cfg(all(feature = "cli", feature = "dicom"))]
mod series;
mod stages;
mod streaming;
mod tricky;

/// The built program, run as cargo runs the tests themselves: under emulation for another machine.
#[cfg(feature = "cli")]
fn program() -> std::process::Command {
    use assert_cmd::cargo::CommandCargoExt;
    std::process::Command::cargo_bin("fastnnunet").expect("cargo built it")
}
