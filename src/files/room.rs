//! A folder in which several files become one thing, which gets its place by a rename.

use super::{Output, Unfinished, claim, claimed, open};
use crate::{Error, Result};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use tempfile::TempDir;

/// Held while something is made; a folder without it is none of ours.
const LOCK: &str = "lock";

/// A folder that vanishes with all that is still in it, beside the place of what is made there.
pub(crate) struct Room {
    folder: TempDir,
    _lock: File,
    _unfinished: Unfinished,
}

impl Room {
    /// Makes one in `place`, which is created if it is missing, and removes those that killed runs
    /// left there.
    pub(crate) fn new(place: &Path, prefix: &str) -> io::Result<Self> {
        fs::create_dir_all(place)?;
        remove_leftovers(place, prefix);
        let make = || tempfile::Builder::new().prefix(prefix).tempdir_in(place);
        claimed(|| {
            let (folder, unfinished) = Unfinished::made(make, TempDir::path)?;
            let path = folder.path().join(LOCK);
            let lock = File::create_new(&path)?;
            let is_ours = claim(&lock, &path);
            Ok((Self { folder, _lock: lock, _unfinished: unfinished }, is_ours))
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a file in it, and returns what `content` does. It needs no other name meanwhile and is
    /// not waited for, as nothing in here is finished.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if there is one, or if writing fails.
    pub(crate) fn write<T>(
        &self,
        path: &Path,
        content: impl FnOnce(&mut Output<'_>) -> io::Result<T>,
    ) -> Result<T> {
        debug_assert!(path.starts_with(self.path()));
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            content(&mut Output::new(&mut File::create_new(path)?))
        };
        write().map_err(|source| Error::Write { path: path.to_path_buf(), source })
    }

    /// Gives a file of this program's a second name in here, or copies it where the disk has no such
    /// thing.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn share(&self, from: &Path, to: &Path) -> Result<()> {
        fs::create_dir_all(to.parent().unwrap_or(to))
            .map_err(|source| Error::Write { path: to.to_path_buf(), source })?;
        if fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        self.write(to, |file| {
            let mut original = open(from).map_err(|error| io::Error::other(error.to_string()))?;
            io::copy(&mut original.file, file).map(drop)
        })
    }

    /// Removes it, and says if that cannot be done.
    pub(crate) fn close(self) -> io::Result<()> {
        self.folder.close()
    }
}

/// Removes what killed runs left. What another one is making is locked.
fn remove_leftovers(place: &Path, prefix: &str) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix);
        let lock = || open(&entry.path().join(LOCK));
        if ours && lock().is_ok_and(|lock| lock.file.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
