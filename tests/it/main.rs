//! Drives the public interface and the built program on files.

mod build_script;
#[cfg(feature = "cli")]
mod calibrate;
mod cases;
#[cfg(feature = "cli")]
mod cli;
mod cortical;
mod counted;
mod cpu;
mod engines;
#[cfg(feature = "cli")]
mod faults;
mod flat;
#[cfg(feature = "cli")]
mod folders;
mod golden;
#[cfg(feature = "reference")]
mod gpu;
#[cfg(feature = "cli")]
mod import;
mod io;
mod labels;
mod models;
#[cfg(feature = "cli")]
mod models_dir;
mod nifti_files;
mod nnunet;
#[cfg(all(feature = "cli", feature = "dicom"))]
mod outputs;
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
#[cfg(feature = "cli")]
mod totalseg;
mod tricky;

/// The built program, run as cargo runs the tests themselves: under emulation for another machine.
#[cfg(feature = "cli")]
fn program() -> std::process::Command {
    use assert_cmd::cargo::CommandCargoExt;
    let mut program = std::process::Command::cargo_bin("fastnnunet").expect("cargo built it");
    // Nobody's own models.
    for folder in ["XDG_DATA_HOME", "LOCALAPPDATA", "HOME"] {
        program.env(folder, concat!(env!("CARGO_TARGET_TMPDIR"), "/nobody"));
    }
    program
}
