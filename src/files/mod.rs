//! Files: read once and up to a bound, written whole or not at all.
//!
//! A path enters; bytes, text or a finished file leave. Whatever reads or writes a file of a user
//! goes through here, but for the files of a DICOM series, which `fastnnunet_dicom` reads, so that a
//! pipe never blocks, a length never lies, a stopped run leaves nothing behind that the next one does
//! not remove, and no result is easier to read than its source.

mod allowance;
mod room;

pub(crate) use allowance::Allowance;
pub(crate) use room::Room;

use crate::{Error, Mismatch, Result};
use base16ct::lower;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;

/// What becomes of a file that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing is an error.
    #[default]
    Keep,
    /// It is replaced once the new one is complete.
    Replace,
}

/// Who may read and write a file: the bits of Unix, everything elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Default for Access {
    fn default() -> Self {
        Self::ANYONE
    }
}

impl Access {
    /// No restriction but the process's own (`umask`).
    pub const ANYONE: Self = Self(0o666);

    #[cfg(unix)]
    fn of(metadata: &fs::Metadata) -> Self {
        Self(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o666)
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Self {
        Self::ANYONE
    }

    /// That of a file; of one that is gone, the narrowest.
    #[cfg(feature = "dicom")]
    pub(crate) fn of_path(path: &Path) -> Self {
        fs::metadata(path).map_or(Self(0o600), |found| Self::of(&found))
    }

    /// What both allow. The owner, who made the file, may write it whatever the source was.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self((self.0 & other.0) | 0o600)
    }
}

/// A file open for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Steady,
    /// Its length when it was opened.
    pub(crate) bytes: u64,
    pub(crate) access: Access,
}

/// A file to read, whose calls are made again where a signal interrupted them: not everybody who reads
/// by pieces does.
#[derive(Debug)]
pub(crate) struct Steady(File);

impl Steady {
    /// Fails where somebody else holds the file.
    fn try_lock(&self) -> Result<(), TryLockError> {
        self.0.try_lock()
    }
}

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(buffer))
    }
}

impl Seek for Steady {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Makes a call until no signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Why a file could not be read, before its name is attached.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The operating system said so.
    Io(io::Error),
    /// A folder, pipe or device.
    Kind(&'static str),
    /// It goes on beyond the bound.
    TooLong(u64),
    /// Not UTF-8.
    NotText,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Kind(kind) => f.write_str(kind),
            Self::TooLong(bound) if *bound < 1 << 20 => write!(f, "more than {bound} bytes"),
            Self::TooLong(bound) => write!(f, "more than {} MiB", bound >> 20),
            Self::NotText => f.write_str("bytes that are not UTF-8"),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Unreadable {
    /// The sentence, with what was expected of the file.
    pub(crate) fn instead_of(&self, expected: &str) -> Mismatch {
        Mismatch::new(self.to_string(), expected)
    }
}

/// Opens a file for reading. What is no file (a pipe, a device) is refused without waiting for it,
/// by looking at what was opened and not at what the name stood for a moment before.
pub(crate) fn open(path: &Path) -> Result<Opened, Unreadable> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let opened = options.open(path);
    // Windows does not open folders.
    if opened.is_err() && path.is_dir() {
        return Err(Unreadable::Kind("a folder"));
    }
    let file = opened?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(Unreadable::Kind("a folder"));
    }
    if !found.is_file() {
        return Err(Unreadable::Kind("a pipe or device"));
    }
    Ok(Opened { bytes: found.len(), access: Access::of(&found), file: Steady(file) })
}

/// Reads a whole file of at most `bound` bytes.
pub(crate) fn read(path: &Path, bound: u64) -> Result<Vec<u8>, Unreadable> {
    open(path)?.read(bound)
}

impl Opened {
    /// The whole file as a text, without the mark some editors put before it.
    pub(crate) fn read_text(self, bound: u64) -> Result<String, Unreadable> {
        let mut text = String::from_utf8(self.read(bound)?).map_err(|_| Unreadable::NotText)?;
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        Ok(text)
    }

    /// The whole file, of at most `bound` bytes.
    pub(crate) fn read(self, bound: u64) -> Result<Vec<u8>, Unreadable> {
        if self.bytes > bound {
            return Err(Unreadable::TooLong(bound));
        }
        let mut content = Vec::with_capacity(self.bytes as usize);
        // It may grow meanwhile.
        self.file.take(bound + 1).read_to_end(&mut content)?;
        if content.len() as u64 > bound { Err(Unreadable::TooLong(bound)) } else { Ok(content) }
    }
}

/// Reads a text of at most `bound` bytes, without the mark some editors put before it.
pub(crate) fn read_text(path: &Path, bound: u64) -> Result<String, Unreadable> {
    open(path)?.read_text(bound)
}

/// SHA-256 of a file, in lowercase hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, Unreadable> {
    Ok(Digesting::new(open(path)?.file).finish()?)
}

/// SHA-256 of `bytes`, in lowercase hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    lower::encode_string(&Sha256::digest(bytes))
}

/// Passes bytes on and remembers their SHA-256.
#[derive(Debug)]
pub(crate) struct Digesting<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Digesting<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The digest of everything, once the rest has been read.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        let mut buffer = vec![0; 1 << 16];
        while self.read(&mut buffer)? > 0 {}
        Ok(lower::encode_string(&self.hasher.finalize()))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = uninterrupted(|| self.inner.read(buffer))?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The longest of `endings` that the name of `path` has, in any case of letters, after something else.
pub(crate) fn ending_of(path: &Path, endings: &[&'static str]) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let fits = |ending: &&&str| name.len() > ending.len() && name.ends_with(**ending);
    endings.iter().filter(fits).max_by_key(|ending| ending.len()).copied()
}

/// As [`ending_of`], of a file that `what` is written to.
///
/// # Errors
///
/// [`Error::Usage`] if the name has none of them.
pub(crate) fn known_ending(
    what: &'static str,
    path: &Path,
    endings: &[&'static str],
) -> Result<&'static str> {
    ending_of(path, endings).ok_or_else(|| {
        let expected = format!("a name that ends in {}", endings.join(" or "));
        Error::usage(what, path.display().to_string(), expected)
    })
}

/// A file to make, and on what terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a Path,
    pub(crate) existing: Existing,
    /// At most those who may read this.
    pub(crate) access: Access,
}

impl<'a> Target<'a> {
    pub(crate) fn new(path: &'a Path, existing: Existing) -> Self {
        Self { path, existing, access: Access::ANYONE }
    }

    /// Makes the file, and returns what `content` does: it appears under its name complete or not at
    /// all, as it is written beside it and renamed. Missing folders are created; what a killed run left
    /// of this file is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if there is one that is to be kept, or if writing fails.
    pub(crate) fn write<T>(
        self,
        content: impl FnOnce(&mut Output<'_>) -> io::Result<T>,
    ) -> Result<T> {
        let write = || -> io::Result<T> {
            let folder = folder_of(self.path);
            fs::create_dir_all(&folder)?;
            remove_leftovers(self.path, &folder);
            let access = match fs::metadata(self.path) {
                Ok(old) => self.access.and(Access::of(&old)),
                Err(_) => self.access,
            };
            let make = || temporary(self.path, &folder, access);
            // Locked until the file has its name: whoever looks for leftovers sees that it is none.
            let (mut file, _unfinished) = claimed(|| {
                let made = Unfinished::made(make, NamedTempFile::path)?;
                let is_ours = claim(made.0.as_file(), made.0.path());
                Ok((made, is_ours))
            })?;
            let result = content(&mut Output::new(file.as_file_mut()))?;
            file.as_file().sync_all()?;
            let held = unfinished();
            let renamed = match self.existing {
                Existing::Replace => file.persist(self.path),
                Existing::Keep => file.persist_noclobber(self.path),
            };
            drop(held);
            renamed.map(|_| result).map_err(|e| e.error)
        };
        write().map_err(|source| Error::Write { path: self.path.to_path_buf(), source })
    }

    /// Checks, before hours of work depend on it, that [`write`](Self::write) could make the file.
    /// Creates nothing that stays.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write), as far as they can be foreseen.
    pub(crate) fn check(self) -> Result<()> {
        Self::check_all(&[self])
    }

    /// The same of files in one folder, which is tried once.
    pub(crate) fn check_all(all: &[Self]) -> Result<()> {
        all.iter().try_for_each(|target| target.check_place())?;
        all.first().map_or(Ok(()), |target| target.check_folder())
    }

    /// Checks that nothing is there, or what may be replaced.
    fn check_place(self) -> Result<()> {
        let found = match fs::symlink_metadata(self.path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) if self.existing == Existing::Keep => Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        found.map_err(|source| Error::Write { path: self.path.to_path_buf(), source })
    }

    /// Checks that a file can be made there.
    fn check_folder(self) -> Result<()> {
        let check = || -> io::Result<()> {
            // The nearest folder that exists is where missing ones would be created.
            let folder = folder_of(self.path);
            let missing = |p: &Path| {
                fs::symlink_metadata(p).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            };
            let here = Path::new(".");
            let existing = folder
                .ancestors()
                .map(|p| if p.as_os_str().is_empty() { here } else { p })
                .find(|p| !missing(p))
                .unwrap_or(here);
            temporary(self.path, existing, self.access).map(drop)
        };
        check().map_err(|source| Error::Write { path: self.path.to_path_buf(), source })
    }

    /// Makes the file from bytes at hand.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn write_bytes(self, bytes: &[u8]) -> Result<()> {
        self.write(|file| file.write_all(bytes))
    }
}

/// A file while it is written, no longer than the process may make one (`ulimit -f`): who writes
/// beyond that is ended by a signal. What follows a failed write is of no use to anyone and goes
/// nowhere, behind all that was written, so that nobody who tidies up after one has a failure of their
/// own to tell, or finds the end of something before its beginning.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    file: &'a mut File,
    at: u64,
    /// The furthest place that was written.
    end: u64,
    most: u64,
    has_failed: bool,
}

impl<'a> Output<'a> {
    fn new(file: &'a mut File) -> Self {
        Self { file, at: 0, end: 0, most: *LONGEST_FILE, has_failed: false }
    }

    fn noting<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.has_failed |= result.is_err();
        result
    }
}

/// Bytes that a file of this process may have.
static LONGEST_FILE: LazyLock<u64> = LazyLock::new(|| {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    soft.unwrap_or(u64::MAX)
});

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            self.end = self.end.saturating_add(bytes.len() as u64);
            return Ok(bytes.len());
        }
        let end = self.at.saturating_add(bytes.len() as u64);
        let written = if end > self.most {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            uninterrupted(|| self.file.write(bytes))
        };
        let written = self.noting(written)?;
        self.at += written as u64;
        self.end = self.end.max(self.at);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let flushed = uninterrupted(|| self.file.flush());
        self.noting(flushed)
    }
}

impl Seek for Output<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if self.has_failed {
            return Ok(self.end);
        }
        let at = self.file.seek(to);
        self.at = self.noting(at)?;
        Ok(self.at)
    }
}

/// Temporary files and folders that are being written, for [`discard_unfinished`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of that list.
struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes a file or folder that is on the list from its first moment.
    fn made<T>(
        make: impl FnOnce() -> io::Result<T>,
        path: impl FnOnce(&T) -> &Path,
    ) -> io::Result<(T, Self)> {
        let mut list = unfinished();
        let made = make()?;
        let path = path(&made).to_path_buf();
        list.push(path.clone());
        Ok((made, Self(path)))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
}

/// Removes what other threads are writing, none of which has its name yet, and lets none of them go
/// on: for a program that is about to end without waiting for them.
pub fn discard_unfinished() {
    let list = unfinished();
    for path in list.iter() {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
    }
    // Whoever would make, name or forget a file now waits for the end.
    std::mem::forget(list);
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// How the temporary files of an output begin: hidden, and its own.
fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".fastnnunet-");
    // Names may be 255 bytes long on common file systems; this leaves room for the rest.
    let name = path.file_name().unwrap_or_default();
    if name.len() <= 200 {
        prefix.push(name);
    }
    prefix.push("-");
    prefix
}

const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file that vanishes unless it is renamed.
fn temporary(path: &Path, folder: &Path, access: Access) -> io::Result<NamedTempFile> {
    let prefix = temporary_prefix(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
    // Temporary files are private by default; a result has the permissions of its source.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(access.0));
    #[cfg(not(unix))]
    let _ = access;
    builder.tempfile_in(folder)
}

/// Locks a file that was just made; whether it is still ours. Between its making and its locking
/// somebody who looks for leftovers may have taken it for one.
fn claim(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Ok(()) => path.exists(),
        Err(TryLockError::WouldBlock) => false,
        // Where nothing can be locked, nobody removes anything.
        Err(TryLockError::Error(_)) => true,
    }
}

/// Makes something anew until it is ours.
fn claimed<T>(mut make: impl FnMut() -> io::Result<(T, bool)>) -> io::Result<T> {
    for _ in 0..100 {
        if let (made, true) = make()? {
            return Ok(made);
        }
    }
    Err(io::Error::other("whatever is begun there is removed at once"))
}

/// Removes what a killed run left of the file at `path`. What another run is writing is locked.
fn remove_leftovers(path: &Path, folder: &Path) {
    let prefix = temporary_prefix(path);
    let (prefix, name) = (prefix.as_encoded_bytes(), path.file_name());
    let Ok(list) = fs::read_dir(folder) else { return };
    for entry in list.flatten() {
        let found = entry.file_name();
        let bytes = found.as_encoded_bytes();
        let random = bytes.len().checked_sub(prefix.len() + TEMPORARY_SUFFIX.len());
        // The builder's random part has six characters.
        let ours = name.is_some()
            && random == Some(6)
            && bytes.starts_with(prefix)
            && bytes.ends_with(TEMPORARY_SUFFIX.as_bytes());
        // A pipe of such a name is nobody's result, and is not waited for.
        if ours
            && let Ok(Opened { file, .. }) = open(&entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip archive's header is completed last, before its content; one that cannot be is tidied up by
    /// who still counts from the content's end.
    #[test]
    fn after_a_failure_a_file_goes_on_behind_all_that_was_written() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut output = Output::new(&mut file);
        output.write_all(&[1; 100]).expect("room");
        output.seek(SeekFrom::Start(10)).expect("a place in it");
        output.most = 10;
        output.write_all(&[2; 5]).expect_err("no room");
        assert_eq!(output.stream_position().expect("no failure"), 100);
        output.write_all(&[3; 5]).expect("no failure");
        assert_eq!(output.seek(SeekFrom::Start(10)).expect("no failure"), 105);
        assert_eq!(file.metadata().expect("a file").len(), 100);
    }

    /// Another run may look for leftovers between the making of a file and its locking.
    #[test]
    fn a_file_that_was_taken_for_a_leftover_is_made_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("l.nii.gz");
        let mut rounds = 0;
        let make = || {
            rounds += 1;
            let made = temporary(&path, folder.path(), Access::ANYONE)?;
            let other = open(made.path()).expect("it is there");
            match rounds {
                // It is looked at,
                1 => other.file.try_lock().expect("nobody has it"),
                // or gone.
                2 => fs::remove_file(made.path())?,
                _ => {}
            }
            let is_ours = claim(made.as_file(), made.path());
            Ok((made, is_ours))
        };
        let made = claimed(make).expect("the third stays");
        assert!(made.path().exists());
        assert_eq!(rounds, 3);
        assert!(claimed(|| Ok(((), false))).is_err());
    }
}
