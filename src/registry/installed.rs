//! A model that can run: its configuration and weights, from the program or from files.

use crate::files::Allowance;
use crate::model::tasks::Dataset;
use crate::model::{CONFIGURATIONS, Grade, ModelConfig, Name, graph, onnx};
use crate::nnunet::{Folder, Folds, Trained};
use crate::{Error, Mismatch, Result, files};
use prost::bytes::Bytes;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Largest ONNX file read: what protobuf allows.
pub(crate) const MAX_ONNX_BYTES: u64 = 1 << 31;

/// What memory is for, where there is too little.
const READING: &str = "reading the model";

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
    pub name: Name,
    /// nnU-Net's configuration: `2d`, `3d_fullres`, `3d_lowres` or `3d_cascade_fullres`.
    pub configuration: &'static str,
    pub(super) config: ModelConfig,
    pub(super) config_json: Cow<'static, str>,
    /// Where the weights come from.
    pub source: Cow<'static, str>,
    /// SPDX expression for the weights; empty where nothing says.
    pub license: Cow<'static, str>,
    /// How much the model may be trusted.
    pub grade: Grade,
    /// Where it comes from.
    pub place: Place,
    pub(super) weights: Weights,
}

/// Where a model comes from: what is named counts more than what lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Inside the program.
    Program,
    /// In the user's folder of models, which nobody had to name.
    User,
    /// In a folder that was named.
    Named,
}

/// Where the ONNX file is.
#[derive(Clone)]
pub(super) enum Weights {
    /// In the program, checked by the build.
    #[allow(dead_code, reason = "constructed where a model is installed")]
    Embedded(&'static [u8], Facts),
    /// A file, what was found in it once it was read, and the SHA-256 that it should have, where
    /// somebody said.
    File { path: PathBuf, known: OnceLock<Facts>, expected: Option<String> },
    /// Files of several folds, with their SHA-256.
    Folds(Vec<(PathBuf, String)>),
    /// A training where it lies.
    Trained(Box<ByReference>),
}

/// A training that stays where it is.
#[derive(Clone, Debug)]
pub(super) struct ByReference {
    pub(super) trained: Trained,
    pub(super) folds: Folds,
    /// The data set that it is known as, and whose tables say so.
    pub(super) known: Option<(Dataset, String)>,
}

impl ByReference {
    fn known(&self) -> Option<(&Dataset, &str)> {
        self.known.as_ref().map(|(dataset, made_from)| (dataset, made_from.as_str()))
    }

    fn open(&self, allowed: Allowance) -> Result<Folder> {
        self.trained.open_within(&self.folds, self.known(), allowed)
    }
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
        let name = Name::new(name).map_err(|wrong| Error::model_file(onnx, wrong))?;
        let license = config.license.clone().unwrap_or_default().into();
        Ok(Self {
            name,
            configuration,
            grade: config.grade,
            source: config.source.clone().unwrap_or_else(|| onnx.display().to_string()).into(),
            config,
            config_json: config_json.into(),
            license,
            place: Place::Named,
            weights: Weights::File {
                path: onnx.to_path_buf(),
                known: OnceLock::new(),
                expected: None,
            },
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
            Weights::File { path, .. } => Some(path),
            Weights::Folds(files) => files.first().map(|(path, _)| path.as_path()),
            Weights::Trained(by) => Some(&by.trained.path),
        }
    }

    /// Whether the weights are one ONNX file, of which [`facts`](Self::facts) tells.
    #[must_use]
    pub fn is_one_file(&self) -> bool {
        matches!(self.weights, Weights::Embedded(..) | Weights::File { .. })
    }

    /// Checks that the weights are there and are what they should be, as far as that takes no time.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] naming the file that is missing or does not fit the configuration.
    pub fn check(&self) -> Result<()> {
        match &self.weights {
            Weights::Embedded(..) | Weights::File { .. } => self.facts().map(drop),
            Weights::Folds(files) => match files.iter().find(|(path, _)| !path.is_file()) {
                Some((path, _)) => Err(unusable(path, "no file".into(), "its weights".into())),
                None => Ok(()),
            },
            Weights::Trained(by) if by.trained.folds.is_empty() => {
                let path = &by.trained.path;
                Err(unusable(path, "no weights".into(), "a checkpoint of a fold".into()))
            }
            Weights::Trained(_) => Ok(()),
        }
    }

    /// Number of networks whose results are averaged; those of a training are found when it is
    /// opened.
    #[must_use]
    pub fn folds(&self) -> usize {
        match &self.weights {
            Weights::Folds(files) => files.len(),
            _ => 1,
        }
    }

    /// The training that it is by reference, opened; `None` for a model of its own files.
    ///
    /// # Errors
    ///
    /// As [`Folder::open`].
    pub fn trained(&self) -> Option<Result<Folder>> {
        self.trained_within(Allowance::default())
    }

    /// As [`trained`](Self::trained), as far as memory is `allowed` for it.
    pub(crate) fn trained_within(&self, allowed: Allowance) -> Option<Result<Folder>> {
        let Weights::Trained(by) = &self.weights else { return None };
        Some(by.open(allowed))
    }

    /// A model whose folds are `files` with their SHA-256.
    pub(super) fn of_folds(name: &str, json: &Path, files: Vec<(PathBuf, String)>) -> Result<Self> {
        let (first, sha256) = files.first().cloned().unwrap_or_default();
        let mut model = Self::listed(&first, json, None)?;
        model.name = Name::new(name.to_owned()).map_err(|wrong| Error::model_file(json, wrong))?;
        model.weights = if files.len() > 1 {
            Weights::Folds(files)
        } else {
            let (known, expected) = (OnceLock::new(), Some(sha256));
            Weights::File { path: first, known, expected }
        };
        Ok(model)
    }

    /// A training where it lies, as what it is known as.
    pub(super) fn by_reference(by: ByReference, name: String) -> Result<Self> {
        let trained = &by.trained;
        let config = trained.config(by.known())?;
        let kind = trained.configuration.as_str();
        let configuration = CONFIGURATIONS.iter().find(|known| kind.starts_with(**known));
        Ok(Self {
            name: Name::new(name).map_err(|wrong| Error::model_file(&trained.path, wrong))?,
            // Those that inherit from one of nnU-Net's are of its kind.
            configuration: configuration.copied().unwrap_or("3d_fullres"),
            grade: config.grade,
            source: config.source.clone().unwrap_or_default().into(),
            license: config.license.clone().unwrap_or_default().into(),
            config_json: String::new().into(),
            config,
            place: Place::Named,
            weights: Weights::Trained(Box::new(by)),
        })
    }

    /// SHA-256 of each file with weights; reads those whose digest is not known yet.
    ///
    /// # Errors
    ///
    /// As [`onnx`](Self::onnx).
    pub fn digests(&self) -> Result<Vec<String>> {
        match &self.weights {
            Weights::Embedded(..) | Weights::File { .. } => {
                Ok(vec![self.facts()?.sha256.to_string()])
            }
            Weights::Folds(files) => Ok(files.iter().map(|(_, sha256)| sha256.clone()).collect()),
            Weights::Trained(by) => by.open(Allowance::default())?.digests(),
        }
    }

    /// The network of one of several folds.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the file cannot be read, is no network, or has another SHA-256 than it was
    /// listed under.
    ///
    /// # Panics
    ///
    /// If there is no such fold.
    pub fn graph(&self, fold: usize) -> Result<onnx::Graph> {
        self.graph_within(fold, Allowance::default())
    }

    /// As [`graph`](Self::graph), as far as memory is `allowed` for it: the file, the structures that it
    /// is decoded to, and the numbers in it.
    pub(crate) fn graph_within(&self, fold: usize, allowed: Allowance) -> Result<onnx::Graph> {
        let decoded = |bytes: Bytes| -> Result<onnx::Graph> {
            // What is part of the program is counted with it.
            let file = if self.is_embedded() { 0 } else { bytes.len() as u64 };
            let made = graph::parsed_bytes(&bytes).saturating_add(graph::constant_bytes(&bytes));
            allowed.check(READING, file.saturating_add(made))?;
            Ok(onnx::Graph::decode(bytes)?)
        };
        let Weights::Folds(files) = &self.weights else {
            return decoded(self.onnx_within(allowed)?);
        };
        let (path, expected) = &files[fold];
        let bytes = read_bounded(path, allowed)?;
        let digest = files::sha256(&bytes);
        if digest != *expected {
            let found = "a file that changed since it was imported".to_owned();
            return Err(unusable(path, found, format!("SHA-256 {expected}")));
        }
        decoded(bytes.into()).map_err(|error| error.of_model_file(path))
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
        self.onnx_within(Allowance::default())
    }

    /// As [`onnx`](Self::onnx), as far as memory is `allowed` for it.
    pub(crate) fn onnx_within(&self, allowed: Allowance) -> Result<Bytes> {
        match &self.weights {
            Weights::Embedded(bytes, _) => Ok(Bytes::from_static(bytes)),
            Weights::Folds(files) => Ok(read_bounded(&files[0].0, allowed)?.into()),
            Weights::Trained(by) => {
                let found = "a training by reference".to_owned();
                Err(unusable(&by.trained.path, found, "a model that was imported".to_owned()))
            }
            Weights::File { path, known, expected } => {
                let bytes = Bytes::from(read_bounded(path, allowed)?);
                let digest = files::sha256(&bytes);
                let listed = known.get().map(|facts| &*facts.sha256).or(expected.as_deref());
                if let Some(listed) = listed.filter(|listed| *listed != digest) {
                    let found = "a file that changed since it was listed".to_owned();
                    return Err(unusable(path, found, format!("SHA-256 {listed}")));
                }
                if known.get().is_none() {
                    let made = graph::parsed_bytes(&bytes);
                    allowed.check(READING, made.saturating_add(bytes.len() as u64))?;
                    let found = inspect(bytes.clone(), &self.config, digest)
                        .map_err(|what| Error::model_file(path, what))?;
                    // Another thread may have been first, with the same result.
                    let _ = known.set(found);
                }
                Ok(bytes)
            }
        }
    }

    /// Whether the weights of a model of one file still have the SHA-256 they were built in with or
    /// listed under.
    ///
    /// # Errors
    ///
    /// As [`facts`](Self::facts).
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
            Weights::Folds(files) => {
                let (path, _) = &files[0];
                Err(unusable(path, "several folds".to_owned(), "a model of one file".to_owned()))
            }
            Weights::Trained(by) => {
                let found = "a training by reference".to_owned();
                Err(unusable(&by.trained.path, found, "a model of one file".to_owned()))
            }
            Weights::File { path, known, .. } => {
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
            Weights::File { known, .. } => known.get(),
            Weights::Folds(_) | Weights::Trained(_) => None,
        };
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("configuration", &self.configuration)
            .field("grade", &self.grade)
            .field("source", &self.source)
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
pub(crate) fn read_json(path: &Path) -> Result<String> {
    files::read_text(path, MAX_JSON_BYTES)
        .map_err(|error| Error::model_file(path, error.instead_of("a JSON file")))
}

/// A model's file, if it may be held.
fn read_bounded(path: &Path, allowed: Allowance) -> Result<Vec<u8>> {
    let wrong =
        |error: files::Unreadable| Error::model_file(path, error.instead_of("a model's file"));
    let opened = files::open(path).map_err(wrong)?;
    allowed.check(READING, opened.bytes.min(MAX_ONNX_BYTES))?;
    opened.read(MAX_ONNX_BYTES).map_err(wrong)
}

pub(super) fn unusable(path: &Path, found: String, expected: String) -> Error {
    Error::model_file(path, Mismatch { found, expected })
}
