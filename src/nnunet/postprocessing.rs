//! The postprocessing rule nnU-Net found best, beside the trained folds.

use super::pickle::Pickle;
use crate::files::Allowance;
use crate::{Mismatch, Result, files};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Largest rule read; a rule is a few names and labels.
const MAX_BYTES: u64 = 1 << 20;

/// Looks for `postprocessing.json` or `.pkl` in `folder`, then in the folder of
/// cross-validation results inside.
pub(super) fn find(folder: &Path) -> Result<Option<Value>> {
    let mut places = vec![folder.to_owned()];
    let mut inner: Vec<PathBuf> = fs::read_dir(folder)
        .map(|list| list.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    inner.retain(|path| {
        path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("crossval_results_folds"))
    });
    inner.sort();
    places.extend(inner);
    for place in places {
        // The pickle is what the reference applies.
        let (pickle, text) = (place.join("postprocessing.pkl"), place.join("postprocessing.json"));
        // Whatever is there is meant: what cannot be read is an error, not nothing.
        if pickle.exists() {
            return read_pickle(&pickle).map(Some);
        }
        if text.exists() {
            // Of a megabyte at most, which is no matter.
            let (rule, _) = super::json::read(&text, Allowance::default())?;
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

/// Reads nnU-Net's `postprocessing.pkl`, a pair of functions and a dictionary of arguments for
/// each, as what `postprocessing.json` would hold. Nothing in the file is executed.
///
/// # Errors
///
/// [`Error::Model`](crate::Error::Model) if it is anything else.
pub fn read_pickle(path: &Path) -> Result<Value> {
    let read = || {
        let bytes = files::read(path, MAX_BYTES);
        let bytes = bytes.map_err(|error| error.instead_of("a postprocessing rule"))?;
        let pickle = Pickle::parse(bytes, Allowance::default())?;
        let whole = pickle.json(pickle.root());
        match whole.as_ref().and_then(Value::as_array).map(Vec::as_slice) {
            Some([Value::Array(functions), Value::Array(arguments)])
                if functions.len() == arguments.len() =>
            {
                Ok(json!({
                    "postprocessing_fns": functions,
                    "postprocessing_kwargs": arguments,
                }))
            }
            _ => {
                let expected = "a list of functions and one of arguments";
                Err(Mismatch::new("another pickle", expected).into())
            }
        }
    };
    read().map_err(|error: crate::Error| error.of_model_file(path))
}
