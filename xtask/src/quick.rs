//! The loop while writing: format, rooms, lint, docs and unit tests, all without burn.

use crate::shell::{self, Result};
use crate::{house, rooms};

/// The workspace with the command line and without burn, which takes minutes to compile.
pub(crate) const LIGHT: &str =
    "--workspace --no-default-features --features fastnnunet/cli,fastnnunet/dicom";

pub(crate) fn run() -> Result {
    shell::run("cargo fmt --all --check")?;
    rooms::run()?;
    house::run()?;
    shell::run(&format!("cargo clippy {LIGHT} --all-targets -- -D warnings"))?;
    shell::run_with(&format!("cargo doc {LIGHT} --no-deps"), &[("RUSTDOCFLAGS", "-D warnings")])?;
    shell::run(&format!("cargo test {LIGHT} --lib --bins"))
}
