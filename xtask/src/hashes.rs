//! What the program makes of the fixtures, as digests, so that two commits can be compared.
//!
//! In `f32` on the scalar kernels, which every machine has. Each line is a digest, or the exit code of a
//! run that made nothing, and the options that make it; options that an older program lacks end in its
//! code 2. Label maps are written uncompressed: how gzip packs is not what is compared, nor are the names
//! of structures in a header.

use crate::shell::{self, Result, root};
use base16ct::lower;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of the chest CT: every mode, and what options change.
const CHEST: &[&str] = &[
    "--mode bone --quality low",
    "--mode bone",
    "--mode bone --quality high",
    "--mode bone --quality low --enable-subseg",
    "--mode bone --quality low --postprocess none",
    "--mode bone --quality low --mirror x --step-size 1",
    "--mode chest",
    "--mode abdomen",
    "--mode abdomen --variant extended",
    "--mode headneck",
    "--mode pelvic",
    "--mode spine",
    "--mode limb",
    "--mode total",
    "--mode total --roi liver,spleen",
    "--model bone_2d",
    "--model bone_lowres",
];

/// Runs PROGRAM, or the light release build of this tree, on all of it.
pub(crate) fn run(arguments: &[String]) -> Result {
    let program = match arguments {
        [] => {
            shell::run("cargo build --release --locked --no-default-features --features cli")?;
            root().join("target/release/fastnnunet")
        }
        [program] => fs::canonicalize(program).map_err(|error| format!("{program}: {error}"))?,
        _ => return Err("usage: cargo xtask hashes [PROGRAM]".to_owned()),
    };
    let print = |input: &str, options: &str| {
        made(&program, input, options).map(|made| println!("{made}  {input} {options}"))
    };
    for header in listed("tests/fixtures/headers", ".nii")? {
        print(&header, "--model selftest")?;
    }
    let images = listed("tests/golden/case", ".nii.gz")?;
    for config in listed("tests/golden/case", ".json")? {
        // The list of cases is no configuration.
        for image in images.iter().filter(|_| !config.ends_with("/index.json")) {
            print(image, &format!("--model models/selftest.onnx --config {config}"))?;
        }
    }
    let images = listed("tests/nnunet/images", ".nii.gz")?;
    for dataset in listed("tests/nnunet/models", "")? {
        for trained in listed(&dataset, "")? {
            for image in &images {
                print(image, &format!("--model {trained}"))?;
            }
        }
    }
    // The longest last.
    for options in CHEST {
        print("tests/fixtures/chest.nii.gz", options)?;
    }
    Ok(())
}

/// The files of a folder whose names end so, from the root and in order.
fn listed(folder: &str, end: &str) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(root().join(folder)).map_err(|error| format!("{folder}: {error}"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut paths: Vec<String> =
        names.filter(|name| name.ends_with(end)).map(|name| format!("{folder}/{name}")).collect();
    paths.sort();
    Ok(paths)
}

/// The digest of the label map of one run, or how the run ended.
fn made(program: &Path, input: &str, options: &str) -> Result<String> {
    let output: PathBuf = root().join("target/hashes/labels.nii");
    if output.exists() {
        fs::remove_file(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    }
    let status = Command::new(program)
        .args(["--quiet", "--isa", "scalar", "--precision", "f32", "--input", input, "--output"])
        .arg(&output)
        .args(options.split_whitespace())
        .current_dir(root())
        // Its user has no models of their own.
        .env("HOME", root().join("target/hashes"))
        .env_remove("XDG_DATA_HOME")
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("{} did not start: {error}", program.display()))?;
    if !status.success() {
        let code = status.code().map_or_else(|| status.to_string(), |code| format!("code {code}"));
        return Ok(format!("{code:<64}"));
    }
    let bytes = fs::read(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let compared = compared(&bytes).ok_or_else(|| format!("{}: no NIfTI", output.display()))?;
    Ok(lower::encode_string(&Sha256::digest(compared)))
}

/// Header and voxels of a NIfTI, without what says how far apart they lie and the names of structures
/// between them, which older programs do not write.
fn compared(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, place, begin) = match i32::from_le_bytes(*bytes.first_chunk()?) {
        348 => (348, 108..112, f32::from_le_bytes(*bytes.get(108..)?.first_chunk()?) as usize),
        _ => (540, 168..176, i64::from_le_bytes(*bytes.get(168..)?.first_chunk()?) as usize),
    };
    let before = bytes.get(..place.start)?;
    Some([before, bytes.get(place.end..header)?, bytes.get(begin..)?].concat())
}
