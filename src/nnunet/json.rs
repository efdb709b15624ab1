//! JSON files as nnU-Net writes them.

use super::Wrong;
use crate::Result;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file read; `plans.json` and `dataset.json` list a few numbers per training case.
const MAX_BYTES: u64 = 1 << 28;

/// Reads a JSON file of a trained folder.
pub(super) fn read(path: &Path) -> Result<Value> {
    let failed = |error: std::io::Error| {
        Wrong::new(error.to_string(), "a trained folder of nnU-Net v2").of(path)
    };
    let mut text = String::new();
    let read = File::open(path).map_err(failed)?.take(MAX_BYTES).read_to_string(&mut text);
    if read.map_err(failed)? as u64 == MAX_BYTES {
        return Err(Wrong::new("a huge file", format!("less than {MAX_BYTES} bytes")).of(path));
    }
    parse(&text).map_err(|wrong| wrong.of(path))
}

/// Python writes `NaN` and `Infinity`, which JSON lacks; they become `null`.
fn parse(text: &str) -> std::result::Result<Value, Wrong> {
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
    serde_json::from_str(&clean).map_err(|error| Wrong::new(error.to_string(), "JSON"))
}
