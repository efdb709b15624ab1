//! The user's own folders, where the platform keeps such things.

use std::env;
use std::path::PathBuf;

/// The folder, which need not exist; `None` where the system names no home.
pub(crate) fn models() -> Option<PathBuf> {
    data().map(|data| data.join("fastnnunet").join("models"))
}

/// The folder that a variable of the environment names.
fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where programs keep their data.
fn data() -> Option<PathBuf> {
    if cfg!(windows) {
        return set("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library").join("Application Support"));
    }
    set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local").join("share")))
}

/// Where compiled kernels are kept, which need not exist; `None` where the system names no home.
#[cfg(feature = "cuda")]
pub(crate) fn kernels() -> Option<PathBuf> {
    let caches = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))
    };
    Some(caches?.join("fastnnunet").join("kernels"))
}
