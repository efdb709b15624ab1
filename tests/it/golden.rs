//! Reads the golden arrays under `tests/golden`, made by the reference's own packages.

use ndarray::Array;
use ndarray_npy::ReadableElement;
use serde_json::Value;
use std::path::PathBuf;

/// Path of `name` in a golden stage's folder.
pub(crate) fn path(stage: &str, name: &Value) -> PathBuf {
    let name = name.as_str().expect("a file name");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(stage).join(name)
}

/// The entries of `list` in a stage's index; fails if there are none.
pub(crate) fn entries(stage: &str, list: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(stage, &"index.json".into())).expect("index.json");
    let index: Value = serde_json::from_str(&text).expect("index.json parses");
    let entries = index[list].as_array().expect("the index has the list").clone();
    assert!(!entries.is_empty(), "{stage}/{list} lists nothing");
    entries
}

/// An array of the stage, of the dimension the caller expects.
pub(crate) fn array<A: ReadableElement, D: ndarray::Dimension>(
    stage: &str,
    name: &Value,
) -> Array<A, D> {
    ndarray_npy::read_npy(path(stage, name)).unwrap_or_else(|e| panic!("{stage}/{name}: {e}"))
}

/// Numbers of a JSON list, whichever way they are written.
pub(crate) fn floats<const N: usize>(list: &Value) -> [f64; N] {
    std::array::from_fn(|k| list[k].as_f64().expect("a number"))
}

/// Counts of a JSON list.
pub(crate) fn counts<const N: usize>(list: &Value) -> [usize; N] {
    std::array::from_fn(|k| list[k].as_u64().expect("a count") as usize)
}

/// Half-open ranges of a JSON list of pairs.
pub(crate) fn ranges(list: &Value) -> [std::ops::Range<usize>; 3] {
    std::array::from_fn(|k| {
        let [start, end] = counts(&list[k]);
        start..end
    })
}
