//! A model that can run: its configuration and weights, from the program or from files.

use crate::model::{CONFIGURATIONS, Grade, ModelConfig, graph};
use crate::{Error, Mismatch, Result, files};
use prost::bytes::Bytes;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Largest ONNX file read: what protobuf allows.
pub(crate) const MAX_ONNX_BYTES: u64 = 1 << 31;

/// Largest JSON file read; label tables of hundreds of structures take a hundredth of it.
const MAX_JSON_BYTES: u64 = 4 << 20;

/// A model: one network with its configuration.
///
/// Weights of the program stay where they are; those of files are read when they are asked
/// for and not kept.
#[non_exhaustive]
#[derive(Clone)]
pub struct Model {
    /// Name, as in `config/modes.json` and on the command line.
    pub name: Cow<'static, str>,
    /// nnU-Net's configuration: `2d`, `3d_fullres`, `3d_lowres` or `3d_cascade_fullres`.
    pub configuration: &'static str,
    pub(super) config: ModelConfig,
    pub(super) config_json: Cow<'static, str>,
    /// Where the weights come from.
    pub origin: Cow<'static, str>,
    /// SPDX expression for the weights; empty where nothing says.
    pub licence: Cow<'static, str>,
    /// How much the model may be trusted.
    pub grade: Grade,
    pub(super) weights: Weights,
}

/// Where the ONNX file is.
#[derive(Clone)]
pub(super) enum Weights {
    /// In the program, checked by the build.
    #[allow(dead_code, reason = "constructed where a model is installed")]
    Embedded(&'static [u8], Facts),
    /// A file, and what was found in it once it was read.
    File(PathBuf, OnceLock<Facts>),
}

/// What the ONNX file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, lowercase hexadecimal.
    pub sha256: Cow<'static, str>,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Channels of the input.
    pub input_channels: usize,
    /// Channels of the output: classes with background, or regions.
    pub output_channels: usize,
}

impl Model {
    /// A model from an ONNX file and its configuration, which is `FastnnUNet`'s JSON as it is
    /// or with the fields of `docs/models.md`. It is called as the ONNX file without `.onnx`.
    ///
    /// Both files are read and checked; the network may have fixed or dynamic axes.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] naming the file and field, or the part of the graph that does not fit.
    pub fn from_files(onnx: &Path, json: &Path) -> Result<Self> {
        let model = Self::listed(onnx, json, None)?;
        model.facts()?;
        Ok(model)
    }

    /// As [`from_files`](Self::from_files), without reading the ONNX file yet.
    ///
    /// `configuration` comes from the configuration's content where it is not given.
    pub(super) fn listed(
        onnx: &Path,
        json: &Path,
        configuration: Option<&'static str>,
    ) -> Result<Self> {
        let config_json = read_json(json)?;
        let config =
            ModelConfig::from_json(&config_json).map_err(|e| Error::model_file(json, e))?;
        // Of a file beside its weights, what it says itself.
        let said = |name: &&&str| config.configuration.as_deref() == Some(**name);
        let configuration = configuration.or_else(|| CONFIGURATIONS.iter().find(said).copied());
        let configuration = match (configuration, config.two_d) {
            (Some("2d"), false)
            | (Some("3d_cascade_fullres" | "3d_fullres" | "3d_lowres"), true) => {
                return Err(unusable(
                    json,
                    format!("a patch_size of {} axes", if config.two_d { 2 } else { 3 }),
                    format!("that of a {} model", configuration.unwrap_or_default()),
                ));
            }
            (Some(given), _) => given,
            (None, true) => "2d",
            (None, false) if config.previous_stage.is_some() => "3d_cascade_fullres",
            (None, false) => "3d_fullres",
        };
        let name = onnx.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name: name.into(),
            configuration,
            grade: config.grade,
            config,
            config_json: config_json.into(),
            origin: onnx.display().to_string().into(),
            licence: Cow::Borrowed(""),
            weights: Weights::File(onnx.to_path_buf(), OnceLock::new()),
        })
    }

    /// Whether the weights are part of the program.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.weights, Weights::Embedded(..))
    }

    /// The file with the weights, unless they are part of the program.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.weights {
            Weights::Embedded(..) => None,
            Weights::File(path, _) => Some(path),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The configuration as its file has it.
    #[must_use]
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// The ONNX file: the program's own bytes, or read and checked.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the file cannot be read or does not fit the configuration.
    pub fn onnx(&self) -> Result<Bytes> {
        match &self.weights {
            Weights::Embedded(bytes, _) => Ok(Bytes::from_static(bytes)),
            Weights::File(path, known) => {
                let bytes = Bytes::from(read_bounded(path, MAX_ONNX_BYTES)?);
                let digest = files::sha256(&bytes);
                if let Some(facts) = known.get() {
                    if facts.sha256 != digest {
                        return Err(unusable(
                            path,
                            "a file that changed since it was listed".to_owned(),
                            format!("SHA-256 {}", facts.sha256),
                        ));
                    }
                } else {
                    let found = inspect(bytes.clone(), &self.config, digest)
                        .map_err(|what| Error::model_file(path, what))?;
                    // Another thread may have been first, with the same result.
                    let _ = known.set(found);
                }
                Ok(bytes)
            }
        }
    }

    /// Whether the weights still have the SHA-256 they were built in with or listed under.
    ///
    /// # Errors
    ///
    /// As [`onnx`](Self::onnx).
    pub fn is_intact(&self) -> Result<bool> {
        Ok(files::sha256(&self.onnx()?) == self.facts()?.sha256)
    }

    /// What the ONNX file says; reads it once where it is not part of the program.
    ///
    /// # Errors
    ///
    /// As [`onnx`](Self::onnx).
    pub fn facts(&self) -> Result<&Facts> {
        match &self.weights {
            Weights::Embedded(_, facts) => Ok(facts),
            Weights::File(path, known) => {
                if known.get().is_none() {
                    self.onnx()?;
                }
                known
                    .get()
                    .ok_or_else(|| unusable(path, "nothing".to_owned(), "an ONNX model".to_owned()))
            }
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let facts = match &self.weights {
            Weights::Embedded(_, facts) => Some(facts),
            Weights::File(_, known) => known.get(),
        };
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("configuration", &self.configuration)
            .field("grade", &self.grade)
            .field("origin", &self.origin)
            .field("facts", &facts)
            .finish_non_exhaustive()
    }
}

/// What the file of a network that the build has not seen says: one input and one output with the
/// axes and channels of the configuration. What its operators need, the engine says.
fn inspect(file: Bytes, config: &ModelConfig, sha256: String) -> Result<Facts, Mismatch> {
    let bytes = file.len() as u64;
    let expected = graph::Expected {
        opset: None,
        two_d: config.two_d,
        patch_size: config.patch_size,
        input_channels: config.input_channels(),
        output_channels: config.output_channels(),
    };
    let graph::Summary { opset, input_channels, output_channels } =
        graph::summary(&graph::parse(file)?, &expected)?;
    Ok(Facts { bytes, sha256: sha256.into(), opset, input_channels, output_channels })
}

/// The text of a JSON file of at most 4 MiB.
pub(super) fn read_json(path: &Path) -> Result<String> {
    files::read_text(path, MAX_JSON_BYTES)
        .map_err(|error| Error::model_file(path, error.instead_of("a JSON file")))
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    files::read(path, limit)
        .map_err(|error| Error::model_file(path, error.instead_of("a model's file")))
}

pub(super) fn unusable(path: &Path, found: String, expected: String) -> Error {
    Error::model_file(path, Mismatch { found, expected })
}
