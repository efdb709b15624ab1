//! What the fuzz target reaches.

use super::archive;
use crate::nnunet::CHECKPOINTS;
use crate::registry::Registry;
use std::path::Path;

/// Looks through an archive and reads the checkpoints that are found in it.
pub(crate) fn archive(path: &Path) {
    let tasks = Registry::embedded().tasks();
    for found in archive::find(path, tasks).unwrap_or_default() {
        let inside = found.inside.unwrap_or_default();
        for (fold, name) in found.folds.iter().flat_map(|f| CHECKPOINTS.map(|name| (f, name))) {
            let _ = archive::sha256(path, &format!("{inside}/fold_{fold}/{name}"));
        }
    }
}
