//! What several targets share.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Writes `bytes` to a file of this process and hands its path to `read`: parsers that seek take
/// files only.
pub fn with_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        // In memory where there is such a place: millions of these files are written.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        folder.join(format!("fastnnunet-fuzz-{}", std::process::id()))
    });
    std::fs::write(path, bytes).expect("a temporary file");
    read(path);
}

/// Panics of `openjp2` are caught where it is called and become errors: they are no finding. Any
/// other panic is one.
pub fn let_openjp2_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let openjp2 = panic.location().is_some_and(|at| at.file().contains("openjp2"));
        if !openjp2 {
            abort(panic);
        }
    }));
}
