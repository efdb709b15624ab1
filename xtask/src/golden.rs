//! The golden arrays, made anew by the reference's own packages at pinned versions.

use crate::shell::{self, Result};

/// The interpreter that has the reference's packages.
pub(crate) const PYTHON: &str = "target/reference/bin/python";

/// Installs them.
pub(crate) fn environment() -> Result {
    shell::run("python3 -m venv target/reference")?;
    shell::run(
        "target/reference/bin/pip install --quiet --constraint reference/lock.txt \
         nnunetv2 onnx onnxruntime",
    )
}

/// Installs `TotalSegmentator` besides.
fn totalsegmentator() -> Result {
    let pip = "target/reference/bin/pip install --quiet --constraint reference/lock.txt";
    shell::run(&format!("{pip} dicom2nifti xmltodict"))?;
    shell::run(&format!("{pip} --no-deps TotalSegmentator"))
}

/// Of `tests/golden/generate.py`, without arguments all of it and the label maps of nnU-Net and
/// TotalSegmentator too.
pub(crate) fn run(stages: &[String]) -> Result {
    environment()?;
    let python = PYTHON;
    shell::run(&format!("{python} tests/golden/generate.py {}", stages.join(" ")))?;
    if stages.is_empty() {
        shell::run(&format!("{python} tests/golden/graphs.py"))?;
        shell::run(&format!("{python} tests/golden/engine/make.py"))?;
        shell::run(&format!("{python} tests/nnunet/make.py"))?;
        shell::run(&format!("{python} tests/nnunet/make_folders.py"))?;
        shell::run(&format!("{python} tests/fixtures/make_headers.py"))?;
        shell::run(&format!("{python} tests/fixtures/make_formats.py"))?;
        totalsegmentator()?;
        shell::run(&format!("{python} tests/totalseg/make.py"))?;
        shell::run(&format!("{python} tests/totalseg/tasks.py"))?;
    }
    // Another CPU may change last bits of logits: what changed is a person's to judge.
    shell::run("git status --short tests models config docs")
}
