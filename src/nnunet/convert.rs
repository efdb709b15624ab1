//! A trained folder as files of this program, and of any ONNX runtime.
//!
//! One fold of an opened [`Folder`] enters; `NAME.onnx` in FastnnUNet's export format and
//! `NAME.json` beside it leave, ready for `--models-dir`, or for `models/` and `config/`.

use super::{EngineIni, Folder, Wrong};
use crate::Result;
use crate::infer::cpu::{CpuEngine, Isa};
use crate::infer::{Engine, Precision};
use crate::io::{check_place, write_whole};
use crate::model::onnx::Graph;
use ndarray::Array4;
use prost::Message;
use std::fs;
use std::io::Write;
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

/// How far the network in the ONNX file is from the one in the folder, on one sample patch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Voxels of the patch, `[z, y, x]`.
    pub patch: [usize; 3],
    /// Largest absolute difference between two logits.
    pub largest: f32,
    /// Largest absolute logit.
    pub scale: f32,
    /// Fraction of voxels whose best channel is the same.
    pub same_labels: f64,
}

/// Writes fold `fold` (its place in [`Folder::folds`]) as `name.onnx` and `name.json` in `out`,
/// which is created if it is missing.
///
/// Each file appears complete or not at all.
///
/// # Errors
///
/// [`Error::Write`](crate::Error::Write) if a file exists and `overwrite` is off, or cannot be
/// written; [`Error::Model`](crate::Error::Model) as [`Folder::model`].
///
/// # Panics
///
/// If there is no such fold.
pub fn convert(
    folder: &Folder,
    fold: usize,
    out: &Path,
    name: &str,
    overwrite: bool,
) -> Result<Converted> {
    let (onnx, json) = (out.join(format!("{name}.onnx")), out.join(format!("{name}.json")));
    check_place(&onnx, overwrite)?;
    check_place(&json, overwrite)?;
    let config = folder.config_json(&format!("{name}.onnx"));
    // Built in memory before anything appears.
    let bytes = folder.model(fold)?.encode_to_vec();
    write_whole(&onnx, overwrite, |file| file.write_all(&bytes))?;
    write_whole(&json, overwrite, |file| file.write_all(config.as_bytes()))?;
    Ok(Converted { onnx, json, onnx_bytes: bytes.len() as u64 })
}

impl EngineIni {
    /// Writes the configuration as `name.json` in `out`, which is created if it is missing;
    /// returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Write`](crate::Error::Write) if the file exists and `overwrite` is off, or
    /// cannot be written.
    pub fn write(&self, out: &Path, name: &str, overwrite: bool) -> Result<PathBuf> {
        let path = out.join(format!("{name}.json"));
        let config = self.config_json(&format!("{name}.onnx"));
        write_whole(&path, overwrite, |file| file.write_all(config.as_bytes()))?;
        Ok(path)
    }
}

/// Runs the folder's network and the one in the file `onnx` on the same patch.
///
/// # Errors
///
/// [`Error::Model`](crate::Error::Model) if a network cannot be read or run.
///
/// # Panics
///
/// If there is no such fold.
pub fn verify(folder: &Folder, fold: usize, onnx: &Path) -> Result<Difference> {
    let bytes = fs::read(onnx)
        .map_err(|error| Wrong::new(error.to_string(), "the file just written").of(onnx))?;
    let patch = folder.config().patch_size;
    let expected = logits(folder.graph(fold)?, patch)?;
    let found = logits(Graph::read(&bytes)?, patch)?;
    if found.dim() != expected.dim() {
        let found = format!("{} output channels", found.dim().0);
        return Err(Wrong::new(found, expected.dim().0.to_string()).of(onnx));
    }
    let largest = found.iter().zip(&expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    let scale = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let (_, z, y, x) = expected.dim();
    let best = |logits: &Array4<f32>, at: [usize; 3]| {
        let [z, y, x] = at;
        let column = (0..logits.dim().0).map(|c| logits[[c, z, y, x]]);
        column.enumerate().fold((0, f32::MIN), |m, (c, v)| if v > m.1 { (c, v) } else { m }).0
    };
    let same = ndarray::indices((z, y, x))
        .into_iter()
        .filter(|&(z, y, x)| best(&found, [z, y, x]) == best(&expected, [z, y, x]))
        .count();
    Ok(Difference { patch, largest, scale, same_labels: same as f64 / (z * y * x) as f64 })
}

/// A patch with structure at several scales, and what the network says about it.
fn logits(graph: Graph, patch: [usize; 3]) -> Result<Array4<f32>> {
    let mut engine = CpuEngine::from_graph(graph, patch, Precision::F32, Isa::best())?;
    let [z, y, x] = patch;
    let input = Array4::from_shape_fn((engine.input_channels(), z, y, x), |(c, z, y, x)| {
        let wave = |n: usize, step: f32| (n as f32 * step + c as f32).sin();
        wave(z, 0.31) + wave(y, 0.17) * wave(x, 0.43) + 0.5 * wave(z * 7 + y * 5 + x * 3, 1.9)
    });
    let mut output = Array4::zeros((engine.output_channels(), z, y, x));
    engine.run(input.view(), &mut output)?;
    Ok(output)
}
