//! A folder of compiled kernels: one file each, written whole or not at all.
//!
//! What is in it runs on the GPU, so a folder that others may write is not used, and a file must hold
//! what its digest says.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Most bytes of all files together; the oldest go first.
const MOST_BYTES: u64 = 256 << 20;

/// Most bytes of one file.
const MOST_KERNEL_BYTES: u64 = 16 << 20;

/// First bytes of a file.
const MAGIC: &[u8; 16] = b"cuda kernel v1\n\0";

/// Bytes before the kernel: the magic and the digest of the kernel.
const HEADER: usize = 16 + 32;

/// A folder that is used.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    writable: bool,
}

impl Folder {
    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// Why it is not used, in words: it cannot be made, is no folder, or others may write in it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let words = |error: std::io::Error| format!("{}: {error}", path.display());
        if !path.exists() {
            make(path).map_err(words)?;
        }
        let facts = fs::metadata(path).map_err(words)?;
        if !facts.is_dir() {
            return Err(format!("{}: not a folder", path.display()));
        }
        private(&facts).map_err(|reason| format!("{}: {reason}", path.display()))?;
        let mut folder = Self { path: path.to_owned(), writable: true };
        let trial = folder.temporary();
        folder.writable = fs::write(&trial, b"").and_then(|()| fs::remove_file(&trial)).is_ok();
        Ok(folder)
    }

    /// Whether kernels can be added.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn temporary(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!(".{}.{number}.new", std::process::id()))
    }

    fn file(&self, key: &str) -> PathBuf {
        self.path.join(format!("{key}.kernel"))
    }

    /// The kernel of that key, if it is there and whole.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut file = fs::File::open(self.file(key)).ok()?;
        let mut bytes = Vec::new();
        file.by_ref().take(MOST_KERNEL_BYTES).read_to_end(&mut bytes).ok()?;
        let (header, kernel) = bytes.split_at_checked(HEADER)?;
        let whole = &header[..16] == MAGIC && header[16..] == Sha256::digest(kernel)[..];
        whole.then(|| kernel.to_vec())
    }

    /// Keeps a kernel. What cannot be written is compiled again another time.
    pub fn put(&self, key: &str, kernel: &[u8]) {
        if !self.writable || kernel.len() as u64 > MOST_KERNEL_BYTES - HEADER as u64 {
            return;
        }
        let bytes = [&MAGIC[..], &Sha256::digest(kernel)[..], kernel].concat();
        let new = self.temporary();
        if fs::write(&new, bytes).and_then(|()| fs::rename(&new, self.file(key))).is_err() {
            let _ = fs::remove_file(&new);
        }
        self.shrink();
    }

    /// Removes the oldest files until the rest is within bounds, and what a killed process left.
    fn shrink(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let now = SystemTime::now();
        for entry in entries.flatten() {
            let (path, Ok(facts)) = (entry.path(), entry.metadata()) else { continue };
            let age = facts.modified().ok();
            match path.extension().and_then(|e| e.to_str()) {
                Some("kernel") => files.push((age.unwrap_or(now), facts.len(), path)),
                Some("new") => {
                    let old = age.and_then(|age| now.duration_since(age).ok());
                    if old.is_some_and(|old| old.as_secs() > 3600) {
                        let _ = fs::remove_file(path);
                    }
                }
                _ => {}
            }
        }
        let mut all: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        for (_, bytes, path) in files {
            if all <= MOST_BYTES {
                return;
            }
            if fs::remove_file(path).is_ok() {
                all -= bytes;
            }
        }
    }
}

#[cfg(unix)]
fn make(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)
}

/// Whether only this user, or the administrator, may write there.
#[cfg(unix)]
fn private(facts: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: asks for a number and touches no memory.
    let own = unsafe { libc::geteuid() };
    if facts.uid() != own && facts.uid() != 0 {
        return Err("it belongs to another user".to_owned());
    }
    if facts.mode() & 0o022 != 0 {
        return Err("others may write in it".to_owned());
    }
    Ok(())
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)]
fn private(_: &fs::Metadata) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kernels-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn kernels_come_back_and_damage_is_seen() {
        let path = fresh("damage");
        let folder = Folder::open(&path).expect("a folder");
        assert_eq!(folder.get("a"), None);
        folder.put("a", b"binary");
        assert_eq!(Folder::open(&path).expect("again").get("a").as_deref(), Some(&b"binary"[..]));
        let file = folder.file("a");
        let whole = fs::read(&file).expect("a file");
        for at in [0, 20, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file, bytes).expect("written");
            assert_eq!(folder.get("a"), None, "byte {at}");
        }
        fs::write(&file, &whole[..30]).expect("written");
        assert_eq!(folder.get("a"), None);
        fs::remove_dir_all(path).expect("removed");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = fresh("shared");
        Folder::open(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("set");
        assert!(Folder::open(&path).expect_err("not private").contains("others may write"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("set");
        fs::remove_dir_all(path).expect("removed");
    }
}
