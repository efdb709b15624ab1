//! The user's own folder of models, where the platform keeps such things.

use std::env;
use std::path::PathBuf;

/// The folder, which need not exist; `None` where the system names no home.
pub(crate) fn models() -> Option<PathBuf> {
    data().map(|data| data.join("fastnnunet").join("models"))
}

/// Where programs keep their data.
fn data() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        return set("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library").join("Application Support"));
    }
    set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local").join("share")))
}
