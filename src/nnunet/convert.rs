//! A trained folder as files of this program, and of any ONNX runtime.
//!
//! One fold of an opened [`Folder`] enters; `NAME.onnx` in FastnnUNet's export format and
//! `NAME.json` beside it leave, ready for `--models-dir`, or for `models/` and `config/`.

use super::{EngineIni, Folder};
use crate::Result;
use crate::files::{Existing, Target};
use crate::model::Name;
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The network.
    pub onnx: PathBuf,
    /// The configuration.
    pub json: PathBuf,
    /// Size of the network's file.
    pub onnx_bytes: u64,
}

/// `text` as a model's name, which becomes a file, a Rust module and a word on the command
/// line: lowercase letters, digits and `_`, starting with a letter. A name stays as it is.
#[must_use]
pub fn model_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = text.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) { name } else { format!("model_{name}") }
}

/// Writes fold `fold` (its place in [`Folder::folds`]) as `name.onnx` and `name.json` in `out`,
/// which is created if it is missing.
///
/// Each file appears complete or not at all.
///
/// # Errors
///
/// [`Error::Write`](crate::Error::Write) if a file exists that is to be kept, or cannot be
/// written; [`Error::Model`](crate::Error::Model) as [`Folder::model`].
///
/// # Panics
///
/// If there is no such fold.
pub fn convert(
    folder: &Folder,
    fold: usize,
    out: &Path,
    name: &Name,
    existing: Existing,
) -> Result<Converted> {
    let (onnx, json) = (out.join(format!("{name}.onnx")), out.join(format!("{name}.json")));
    let (graph, settings) = (Target::new(&onnx, existing), Target::new(&json, existing));
    graph.check()?;
    settings.check()?;
    let config = folder.config_json(Some(&format!("{name}.onnx")));
    // Built in memory before anything appears.
    let bytes = folder.model(fold)?.encode_to_vec();
    let is_new = !onnx.exists();
    graph.write_bytes(&bytes)?;
    settings.write_bytes(config.as_bytes()).inspect_err(|_| {
        // One without the other is no model.
        if is_new {
            let _ = fs::remove_file(&onnx);
        }
    })?;
    Ok(Converted { onnx, json, onnx_bytes: bytes.len() as u64 })
}

impl EngineIni {
    /// Writes the configuration as `name.json` in `out`, which is created if it is missing;
    /// returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Write`](crate::Error::Write) if the file exists and is to be kept, or
    /// cannot be written.
    pub fn write(&self, out: &Path, name: &Name, existing: Existing) -> Result<PathBuf> {
        let path = out.join(format!("{name}.json"));
        let config = self.config_json(&format!("{name}.onnx"));
        Target::new(&path, existing).write_bytes(config.as_bytes())?;
        Ok(path)
    }
}
