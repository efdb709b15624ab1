//! The files below a path: in folders, or entries of a zip.

use super::parse::ReadSeek;
use crate::error::{Error, Result};
use crate::limits::Limits;
use fastnnunet_model::Mismatch;
use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use zip::ZipArchive;

/// Files to look into, in an order that depends on their names alone.
#[derive(Debug)]
pub(crate) struct Places {
    /// What was asked for.
    pub(crate) root: PathBuf,
    files: Vec<Place>,
    archives: Vec<(PathBuf, Archive)>,
    max_file_bytes: u64,
}

type Archive = ZipArchive<SharedFile>;

#[derive(Debug)]
enum Place {
    File(PathBuf),
    /// An archive, and the number of an entry in it: its name is content, never a path.
    Entry(usize, usize),
}

/// What is read of a file: itself, or its bytes where it has no file of its own.
pub(crate) enum Content {
    File(BufReader<File>, u64),
    Bytes(Cursor<Vec<u8>>),
}

impl Content {
    pub(crate) fn source(&mut self) -> (&mut dyn ReadSeek, u64) {
        match self {
            Self::File(file, len) => (file, *len),
            Self::Bytes(bytes) => {
                let len = bytes.get_ref().len() as u64;
                (bytes, len)
            }
        }
    }

    /// The whole content.
    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.into_inner()),
            Self::File(file, len) => {
                let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
                // A file that grows meanwhile is not followed.
                file.into_inner().take(len).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Places {
    /// The files below `path`: itself, those of a folder and its folders, those of a zip. A
    /// DICOMDIR is an index of the folder it lies in, and stands for that folder.
    pub(crate) fn find(path: &Path, limits: &Limits) -> Result<Self> {
        let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
        let mut places = Self {
            root: path.to_path_buf(),
            files: Vec::new(),
            archives: Vec::new(),
            max_file_bytes: limits.max_file_bytes,
        };
        let kind = fs::metadata(path).map_err(unreadable)?;
        let index = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"));
        if kind.is_dir() {
            places.folder(path, 0, limits)?;
        } else if index && kind.is_file() {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            places.folder(folder.unwrap_or(Path::new(".")), 0, limits)?;
        } else {
            places.file(path, limits)?;
        }
        Ok(places)
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The name to tell a user: of the archive for its entries.
    pub(crate) fn path(&self, place: usize) -> &Path {
        match &self.files[place] {
            Place::File(path) => path,
            Place::Entry(archive, _) => &self.archives[*archive].0,
        }
    }

    /// What tells folders apart, where series have no UID of their own.
    pub(crate) fn folder_of(&self, place: usize) -> &Path {
        match &self.files[place] {
            Place::File(path) => path.parent().unwrap_or(path),
            Place::Entry(archive, _) => &self.archives[*archive].0,
        }
    }

    pub(crate) fn open(&self, place: usize) -> Result<Content> {
        let path = self.path(place);
        let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
        match &self.files[place] {
            Place::File(path) => {
                let file = File::open(path).map_err(unreadable)?;
                let len = file.metadata().map_err(unreadable)?.len();
                Ok(Content::File(BufReader::with_capacity(16 << 10, file), len))
            }
            Place::Entry(archive, index) => {
                let mut archive = self.archives[*archive].1.clone();
                let entry = archive.by_index(*index).map_err(|e| Error::input(path, zipped(e)))?;
                let mut bytes = Vec::new();
                let limit = self.max_file_bytes;
                entry.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
                if bytes.len() as u64 > limit {
                    let found = "a zip entry beyond the limit";
                    return Err(Error::input(path, Mismatch::new(found, format!("{limit} bytes"))));
                }
                Ok(Content::Bytes(Cursor::new(bytes)))
            }
        }
    }

    /// The whole content of a file.
    pub(crate) fn bytes(&self, place: usize) -> Result<Vec<u8>> {
        let path = self.path(place);
        let content = self.open(place)?;
        if let Content::File(_, len) = content
            && len > self.max_file_bytes
        {
            let found = format!("a file of {len} bytes");
            let expected = format!("{} bytes", self.max_file_bytes);
            return Err(Error::input(path, Mismatch::new(found, expected)));
        }
        content.into_bytes().map_err(|source| Error::Read { path: path.to_path_buf(), source })
    }

    fn folder(&mut self, folder: &Path, depth: usize, limits: &Limits) -> Result<()> {
        if depth > limits.max_depth {
            let found = format!("folders nested deeper than {}", limits.max_depth);
            return Err(Error::input(folder, Mismatch::new(found, "fewer levels")));
        }
        let unreadable = |source| Error::Read { path: folder.to_path_buf(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            entries.push(entry.map_err(unreadable)?.path());
            if entries.len() > limits.max_files {
                return Err(Error::input(&self.root, too_many(limits)));
            }
        }
        entries.sort();
        for path in entries {
            let Ok(kind) = fs::symlink_metadata(&path) else { continue };
            if kind.is_dir() {
                self.folder(&path, depth + 1, limits)?;
            } else if fs::metadata(&path).is_ok_and(|kind| kind.is_file()) {
                // A link to a file is that file; one to a folder may lead round in circles.
                self.file(&path, limits)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, limits: &Limits) -> Result<()> {
        let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
        let zip = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
        let alone = path == self.root;
        let mut magic = Vec::new();
        if zip || alone {
            let file = File::open(path).map_err(unreadable)?;
            file.take(4).read_to_end(&mut magic).map_err(unreadable)?;
        }
        if magic != b"PK\x03\x04" && magic != b"PK\x05\x06" {
            self.files.push(Place::File(path.to_path_buf()));
        } else if let Some(archive) = open_archive(path, alone)? {
            let number = self.archives.len();
            if archive.len() > limits.max_files {
                return Err(Error::input(path, too_many(limits)));
            }
            self.files.extend((0..archive.len()).map(|entry| Place::Entry(number, entry)));
            self.archives.push((path.to_path_buf(), archive));
        }
        if self.files.len() > limits.max_files {
            return Err(Error::input(&self.root, too_many(limits)));
        }
        Ok(())
    }
}

/// Opens an archive; one among other files that cannot be read is none of ours.
fn open_archive(path: &Path, alone: bool) -> Result<Option<Archive>> {
    let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let shared = SharedFile { file: Arc::new(Mutex::new(file)), at: 0 };
    match ZipArchive::new(shared) {
        Ok(archive) => Ok(Some(archive)),
        Err(_) if !alone => Ok(None),
        Err(e) => Err(Error::input(path, zipped(e))),
    }
}

fn too_many(limits: &Limits) -> Mismatch {
    Mismatch::new(format!("more than {} files", limits.max_files), "fewer below one path")
}

fn zipped(e: zip::result::ZipError) -> Mismatch {
    use zip::result::ZipError;
    match e {
        ZipError::UnsupportedArchive(what) => Mismatch::new(
            format!("a zip that cannot be read ({what})"),
            "entries stored or deflated, without a password",
        ),
        _ => Mismatch::new("a damaged zip", "a whole one"),
    }
}

/// One open file read from several places at once.
#[derive(Clone, Debug)]
struct SharedFile {
    file: Arc<Mutex<File>>,
    at: u64,
}

impl SharedFile {
    fn locked(&self) -> std::sync::MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.locked();
        file.seek(SeekFrom::Start(self.at))?;
        // A signal is no reason to give up, and who unpacks asks once.
        let read = loop {
            match file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        drop(file);
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.locked().seek(SeekFrom::End(0))?.checked_add_signed(by),
        }
        .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
