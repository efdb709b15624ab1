//! Every benchmark of the workspace.

use crate::quick::LIGHT;
use crate::shell::{self, Result};

pub(crate) fn run(filter: &[String]) -> Result {
    // What they measure needs no generated networks; docs/performance.md has those that do.
    let filter = filter.join(" ");
    shell::run(&format!("cargo bench {LIGHT} -- {filter}"))
}
