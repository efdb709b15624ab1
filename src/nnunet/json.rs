//! JSON files as nnU-Net writes them.

use crate::{Error, Mismatch, Result, files};
use serde_json::Value;
use std::path::Path;

/// Largest file read; `plans.json` and `dataset.json` list a few numbers per training case.
const MAX_BYTES: u64 = 1 << 28;

/// Reads a JSON file of a trained folder.
pub(super) fn read(path: &Path) -> Result<Value> {
    let text = files::read_text(path, MAX_BYTES).map_err(|error| {
        Error::model_file(path, error.instead_of("a trained folder of nnU-Net v2"))
    })?;
    parse(&text).map_err(|wrong| Error::model_file(path, wrong))
}

/// Python writes `NaN` and `Infinity`, which JSON lacks; they become `null`.
pub(super) fn parse(text: &str) -> std::result::Result<Value, Mismatch> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut clean = String::with_capacity(text.len());
    let (mut in_text, mut escaped, mut rest) = (false, false, text);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].iter().find(|word| rest.starts_with(**word));
        if let (false, Some(word)) = (in_text, word) {
            clean.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        in_text ^= c == '"' && !escaped;
        escaped = in_text && c == '\\' && !escaped;
        clean.push(c);
        rest = &rest[c.len_utf8()..];
    }
    serde_json::from_str(&clean).map_err(|error| Mismatch::new(error.to_string(), "JSON"))
}
