//! The golden arrays, made anew by the reference's own packages at pinned versions.

use crate::shell::{self, Result};

/// Of `tests/golden/generate.py`, without arguments all of it and the label maps of nnU-Net and
/// TotalSegmentator too.
pub(crate) fn run(stages: &[String]) -> Result {
    shell::run("python3 -m venv target/reference")?;
    shell::run(
        "target/reference/bin/pip install --quiet --constraint reference/lock.txt \
         nnunetv2 onnx onnxruntime",
    )?;
    let python = "target/reference/bin/python";
    shell::run(&format!("{python} tests/golden/generate.py {}", stages.join(" ")))?;
    if stages.is_empty() {
        shell::run(&format!("{python} tests/golden/graphs.py"))?;
        shell::run(&format!("{python} tests/golden/engine/make.py"))?;
        shell::run(&format!("{python} tests/nnunet/make.py"))?;
        shell::run(&format!("{python} tests/nnunet/make_folders.py"))?;
        shell::run(&format!("{python} tests/fixtures/make_headers.py"))?;
        let pip = "target/reference/bin/pip install --quiet --constraint reference/lock.txt";
        shell::run(&format!("{pip} dicom2nifti xmltodict"))?;
        shell::run(&format!("{pip} --no-deps TotalSegmentator"))?;
        shell::run(&format!("{python} tests/totalseg/make.py"))?;
        shell::run(&format!("{python} tests/totalseg/tasks.py"))?;
    }
    // Another CPU may change last bits of logits: what changed is a person's to judge.
    shell::run("git status --short tests models config docs")
}
