//! The golden arrays, made anew by the reference's own packages at pinned versions.

use crate::shell::{self, Result};

/// The interpreter that has the reference's packages.
pub(crate) const PYTHON: &str = "target/reference/bin/python";

const PIP: &str = "target/reference/bin/pip install --quiet --constraint reference/lock.txt";

/// A program whose results are kept.
struct Family {
    name: &'static str,
    /// What its scripts need besides nnU-Net's packages,
    packages: &'static [&'static str],
    /// and without what that asks for in turn: it would bring other versions of the rest.
    alone: &'static [&'static str],
    scripts: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        name: "totalseg",
        packages: &["dicom2nifti", "xmltodict"],
        alone: &["TotalSegmentator"],
        scripts: &["tests/totalseg/make.py", "tests/totalseg/tasks.py"],
    },
    Family {
        name: "v1",
        packages: &["medpy"],
        alone: &["nnunet"],
        scripts: &["tests/nnunet/v1.py"],
    },
    Family {
        name: "mrsegmentator",
        packages: &[],
        alone: &["mrsegmentator"],
        scripts: &["tests/nnunet/mrsegmentator.py"],
    },
];

/// What nnU-Net v2 itself gives, besides the arrays of `tests/golden/generate.py`.
const SCRIPTS: &[&str] = &[
    "tests/golden/graphs.py",
    "tests/golden/engine/make.py",
    "tests/nnunet/make.py",
    "tests/nnunet/make_folders.py",
    "tests/fixtures/make_headers.py",
    "tests/fixtures/make_formats.py",
];

/// Installs nnU-Net's packages.
pub(crate) fn environment() -> Result {
    shell::run("python3 -m venv target/reference")?;
    shell::run(&format!("{PIP} nnunetv2 onnx onnxruntime"))
}

fn run_scripts(scripts: &[&str]) -> Result {
    scripts.iter().try_for_each(|script| shell::run(&format!("{PYTHON} {script}")))
}

impl Family {
    fn make(&self) -> Result {
        if !self.packages.is_empty() {
            shell::run(&format!("{PIP} {}", self.packages.join(" ")))?;
        }
        shell::run(&format!("{PIP} --no-deps {}", self.alone.join(" ")))?;
        run_scripts(self.scripts)
    }
}

/// Of the families that are named, and of the stages of `tests/golden/generate.py`; of all without a
/// name.
pub(crate) fn run(named: &[String]) -> Result {
    environment()?;
    let is_stage = |name: &&str| FAMILIES.iter().all(|family| family.name != *name);
    let stages: Vec<&str> = named.iter().map(String::as_str).filter(is_stage).collect();
    if named.is_empty() || !stages.is_empty() {
        shell::run(&format!("{PYTHON} tests/golden/generate.py {}", stages.join(" ")))?;
    }
    if named.is_empty() {
        run_scripts(SCRIPTS)?;
    }
    let is_asked = |family: &&Family| named.is_empty() || named.iter().any(|n| n == family.name);
    FAMILIES.iter().filter(is_asked).try_for_each(Family::make)?;
    // Another CPU may change last bits of logits: what changed is a person's to judge.
    shell::run("git status --short tests models config docs")
}
