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

/// Installs what nnU-Net v1 and `MRSegmentator` need besides.
fn other_families() -> Result {
    let pip = "target/reference/bin/pip install --quiet --constraint reference/lock.txt";
    shell::run(&format!("{pip} medpy==0.5.2"))?;
    shell::run(&format!("{pip} --no-deps nnunet==1.7.1 mrsegmentator==2.0.0"))
}

/// Of `tests/golden/generate.py`, without arguments all of it and the label maps of nnU-Net,
/// TotalSegmentator and others too.
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
        other_families()?;
        shell::run(&format!("{python} tests/nnunet/v1.py"))?;
        shell::run(&format!("{python} tests/nnunet/mrsegmentator.py"))?;
    }
    // Another CPU may change last bits of logits: what changed is a person's to judge.
    shell::run("git status --short tests models config docs")
}
