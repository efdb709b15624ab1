//! Drives the public interface and the built program on files.

mod build_script;
#[cfg(feature = "cli")]
mod calibrate;
mod cases;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cohort;
mod cortical;
mod counted;
mod cpu;
mod engines;
#[cfg(feature = "cli")]
mod faults;
mod flat;
#[cfg(feature = "cli")]
mod folders;
#[cfg(all(feature = "cli", feature = "dicom"))]
mod forms;
#[cfg(feature = "cli")]
mod from_nnunet;
mod golden;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod gpu;
#[cfg(feature = "cli")]
mod import;
mod io;
mod labels;
mod lent;
mod models;
#[cfg(feature = "cli")]
mod models_dir;
mod nifti_files;
mod nnunet;
#[cfg(feature = "cli")]
mod other_weights;
#[cfg(all(feature = "cli", feature = "dicom"))]
mod outputs;
mod postprocess;
mod preview;
#[cfg(all(unix, feature = "cli"))]
mod readme;
#[cfg(feature = "cli")]
mod refused;
mod regressions;
mod resample;
#[cfg(all(feature = "cli", feature = "dicom"))]
mod series;
mod stages;
mod streaming;
#[cfg(feature = "cli")]
mod totalseg;
mod tricky;

/// Copies a folder and what is in it.
fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    use std::fs;
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The built program, run as cargo runs the tests themselves: under emulation for another machine. Its
/// user has no models of their own.
#[cfg(feature = "cli")]
fn program() -> std::process::Command {
    program_of(std::path::Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/nobody")))
}

/// The same for a user whose own folders are below `home`.
#[cfg(feature = "cli")]
fn program_of(home: &std::path::Path) -> std::process::Command {
    use assert_cmd::cargo::CommandCargoExt;
    let mut program = std::process::Command::cargo_bin("fastnnunet").expect("cargo built it");
    for folder in ["XDG_DATA_HOME", "LOCALAPPDATA", "HOME"] {
        program.env(folder, home);
    }
    program
}
