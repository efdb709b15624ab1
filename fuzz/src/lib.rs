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

/// Panics of the two decoders of JPEG 2000 are caught where they are called and become errors: they are
/// no finding. Any other panic is one.
pub fn let_jpeg2000_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_theirs = |file: &str| file.contains("openjp2") || file.contains("hayro-jpeg2000");
        if !panic.location().is_some_and(|at| is_theirs(at.file())) {
            abort(panic);
        }
    }));
}
