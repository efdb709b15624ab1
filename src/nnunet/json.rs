//! JSON files as nnU-Net writes them.

use crate::files::Allowance;
use crate::{Error, Mismatch, Result, files};
use serde_json::Value;
use std::path::Path;

/// Largest file read; `plans.json` and `dataset.json` list a few numbers per training case.
const MAX_BYTES: u64 = 1 << 28;

/// Deepest nesting that is read, which is the parser's own bound.
const MAX_DEPTH: u32 = 128;

/// Reads a JSON file of a trained folder, as far as memory is `allowed` for it; also what the value takes.
pub(super) fn read(path: &Path, allowed: Allowance) -> Result<(Value, u64)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("reading {name}");
    let wrong = |error: files::Unreadable| {
        Error::model_file(path, error.instead_of("a trained folder of nnU-Net v2"))
    };
    let opened = files::open(path).map_err(wrong)?;
    allowed.check(&what, opened.bytes.min(MAX_BYTES))?;
    let text = opened.read_text(MAX_BYTES).map_err(wrong)?;
    let held = value_bytes(&text);
    // A text that Python wrote is there twice.
    allowed.check(&what, held.saturating_add(2 * text.len() as u64))?;
    let value = parse(&text).map_err(|wrong| Error::model_file(path, wrong))?;
    Ok((value, held))
}

/// Bytes that the value of a text takes at most while it is made: lists grow to twice their length, and
/// move while they do.
pub(super) fn value_bytes(text: &str) -> u64 {
    // What the allocator takes beside each piece, and the smallest list that it is asked for.
    const PIECE: usize = 16;
    const FIRST: usize = 4;
    let value = size_of::<Value>();
    // With its key, that text beside it, and its place in the table of keys.
    let entry = value + size_of::<(u64, String)>() + 2 * size_of::<usize>();
    let (mut bytes, mut depth, mut objects) = (value as u64, 0_u32, 0_u128);
    let (mut in_text, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        let is_object = |depth: u32| depth > 0 && objects >> (depth - 1) & 1 == 1;
        bytes += match byte {
            b'"' => {
                in_text = true;
                2 * PIECE as u64
            }
            b'[' | b'{' => {
                // The parser goes no deeper.
                if depth == MAX_DEPTH {
                    break;
                }
                objects &= !(1 << depth);
                objects |= u128::from(byte == b'{') << depth;
                depth += 1;
                let first = if byte == b'{' { FIRST * entry + PIECE } else { FIRST * value };
                (first + 2 * PIECE) as u64
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                0
            }
            b',' => 3 * (if is_object(depth) { entry } else { value }) as u64,
            _ => 0,
        };
    }
    bytes + text.len() as u64
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
