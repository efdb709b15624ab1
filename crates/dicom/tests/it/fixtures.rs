//! Fixtures: folders of files, each a zip compressed as a whole.

use flate2::read::ZlibDecoder;
use serde_json::{Map, Value};
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The kinds of a group and what is known of each.
pub(crate) fn fixtures(group: &str) -> Map<String, Value> {
    let text = fs::read_to_string(root().join(format!("{group}.json"))).expect("a list of kinds");
    serde_json::from_str(&text).expect("an object")
}

/// A compressed file.
pub(crate) fn inflated(name: &str) -> Vec<u8> {
    let file = fs::File::open(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut bytes = Vec::new();
    ZlibDecoder::new(file).read_to_end(&mut bytes).expect("whole");
    bytes
}

/// A folder with the files of one kind, gone in the end.
pub(crate) struct Fixture(tempfile::TempDir);

impl Fixture {
    pub(crate) fn unpack(group: &str, name: &str) -> Self {
        let bytes = inflated(&format!("{group}/{name}.zip.z"));
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip");
        let folder = tempfile::tempdir().expect("a folder");
        archive.extract(folder.path()).expect("files");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
