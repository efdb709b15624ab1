//! A trained folder, opened.

use super::checkpoint::Checkpoint;
use super::network::{self, Architecture};
use super::pickle::Pickle;
use super::plans::{self, Configuration};
use super::{Fold, Folds, folds, json, others, postprocessing, trained, v1};
use crate::files::Allowance;
use crate::model::{ModelConfig, Name, onnx, proto};
use crate::{Error, Mismatch, Result, files};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A trained folder of nnU-Net v2: `plans.json`, `dataset.json` and at least one checkpoint.
///
/// Opening reads everything but the weights; [`graph`](Self::graph) and
/// [`model`](Self::model) read those of one fold, so that folds can be run one after another.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    checkpoints: Vec<(Fold, PathBuf)>,
    configuration: Name,
    trainer: String,
    plan: Configuration,
    config: ModelConfig,
    student: bool,
    /// The first fold's checkpoint, whose log takes a while to be passed over.
    first: Arc<Checkpoint>,
    /// What all of this takes.
    held_bytes: u64,
}

/// What a label takes at most in the descriptions that are made of it one from the other.
const LABEL_BYTES: u64 = 2048;

impl Folder {
    /// Opens a trained folder, or the only one in a data set's folder.
    ///
    /// Configuration, trainer and mirror axes come from the first fold's checkpoint, as in the
    /// reference. Without `checkpoint`, `checkpoint_final.pth` is taken, or
    /// `checkpoint_best.pth` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) naming the file and what in it is missing, malformed or not supported:
    /// a network class, a trainer's weights that are not those of the plans, a resampling
    /// function, a reader, a hostile or cut checkpoint.
    pub fn open(path: &Path, folds: &Folds, checkpoint: Option<&str>) -> Result<Self> {
        Self::open_within(path, folds, checkpoint, Allowance::default())
    }

    /// As [`open`](Self::open), as far as memory is `allowed` for it: each part asks before it is made.
    pub(crate) fn open_within(
        path: &Path,
        folds: &Folds,
        checkpoint: Option<&str>,
        allowed: Allowance,
    ) -> Result<Self> {
        let path = &the_training(path)?;
        let Described { plans, dataset, bytes } = described(path, allowed)?;
        let labels = dataset.get("labels").and_then(Value::as_object).map_or(0, Map::len);
        let config_bytes = LABEL_BYTES * labels as u64;
        let allowed = allowed.beside(bytes);
        allowed.check("reading dataset.json", config_bytes)?;
        let checkpoints =
            folds::find(path, folds, checkpoint).map_err(|wrong| Error::model_file(path, wrong))?;
        let (_, first) = &checkpoints[0];
        let opened = Checkpoint::open(first, allowed.beside(config_bytes));
        let opened = Arc::new(opened.map_err(|error| error.of_model_file(first))?);
        let held_bytes = config_bytes + opened.held_bytes();
        let allowed = allowed.beside(held_bytes);
        let training = if v1::is_training(path) {
            v1::training(first, &plans, allowed)?
        } else {
            Training::read(&opened, path, allowed).map_err(|error| error.of_model_file(first))?
        };
        let Training { configuration, trainer, mirror_axes, student } = training;
        let mut plan = plans::read(&plans, &dataset, &configuration, &mirror_axes)
            .map_err(|wrong| Error::model_file(path, wrong))?;
        plan.config.insert("grade".into(), "external".into());
        let config = ModelConfig::from_json(&Value::Object(plan.config.clone()).to_string())
            .map_err(|error| Error::model_file(path, error))?;
        let path = path.to_owned();
        let first = opened;
        let folder = Self {
            path,
            checkpoints,
            configuration,
            trainer,
            plan,
            config,
            student,
            first,
            held_bytes,
        };
        // A network that cannot be built is found before a case is loaded.
        folder
            .architecture(&folder.first, allowed)
            .map_err(|error| folder.trained(error).of_model_file(&folder.path))?;
        Ok(folder)
    }

    /// The same folder with another configuration around its network.
    pub(super) fn adapted(mut self, adapt: impl FnOnce(&mut Map<String, Value>)) -> Result<Self> {
        adapt(&mut self.plan.config);
        let text = Value::Object(self.plan.config.clone()).to_string();
        let config = ModelConfig::from_json(&text);
        self.config = config.map_err(|error| Error::model_file(&self.path, error))?;
        Ok(self)
    }

    /// Bytes that it takes as long as it is open, as they were counted.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration, in this program's terms.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The configuration as the JSON that [`ModelConfig::from_json`] reads, naming
    /// `model_path` as the ONNX file if there is one.
    #[must_use]
    pub fn config_json(&self, model_path: Option<&str>) -> String {
        super::pretty(&self.plan.config, model_path)
    }

    /// A name for the model, from the data set's and the configuration's.
    #[must_use]
    pub fn suggested_name(&self) -> String {
        let name = self.plan.dataset_name.as_deref().unwrap_or_default();
        super::suggested_name(name, &self.configuration)
    }

    /// nnU-Net's configuration, for instance `3d_fullres`.
    #[must_use]
    pub fn configuration(&self) -> &Name {
        &self.configuration
    }

    /// Name of the trainer's class.
    #[must_use]
    pub fn trainer(&self) -> &str {
        &self.trainer
    }

    /// The folds to average, in this order.
    #[must_use]
    pub fn folds(&self) -> Vec<Fold> {
        self.checkpoints.iter().map(|(fold, _)| *fold).collect()
    }

    /// The checkpoint of a fold, by its place in [`folds`](Self::folds).
    ///
    /// # Panics
    ///
    /// If there is no such fold.
    #[must_use]
    pub fn checkpoint(&self, fold: usize) -> &Path {
        &self.checkpoints[fold].1
    }

    /// Channels of the input: image channels and, in a cascade, one per label of the previous
    /// stage.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.plan.input_channels
    }

    /// Channels of the output: classes with background, or regions.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.plan.output_channels
    }

    /// Where the reference keeps the training this one refines: beside this folder, with the
    /// same trainer and plans. `None` if it refines none; the folder need not exist.
    #[must_use]
    pub fn previous_stage(&self) -> Option<PathBuf> {
        let previous = self.plan.previous_stage.as_deref()?;
        let path = match self.path.file_name() {
            Some(_) if !self.path.is_symlink() => self.path.clone(),
            // A folder given as `.` has a name all the same.
            _ => self.path.canonicalize().unwrap_or_else(|_| self.path.clone()),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = if let Some((start, _)) = name.rsplit_once("__") {
            start.to_owned()
        } else {
            let plans = self.plan.plans_name.as_deref().unwrap_or("nnUNetPlans");
            format!("{}__{plans}", self.trainer)
        };
        Some(path.with_file_name(format!("{start}__{previous}")))
    }

    /// The postprocessing found in the folder, as nnU-Net's `postprocessing.json` spells it:
    /// lists `postprocessing_fns` of names and `postprocessing_kwargs` of arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) if there is one that cannot be read.
    pub fn postprocessing(&self) -> Result<Option<Value>> {
        postprocessing::find(&self.path)
    }

    /// SHA-256 of a fold's checkpoint, lowercase hexadecimal; reads the whole file.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) if the file cannot be read.
    ///
    /// # Panics
    ///
    /// If there is no such fold.
    pub fn sha256(&self, fold: usize) -> Result<String> {
        let path = self.checkpoint(fold);
        files::sha256_of(path)
            .map_err(|error| Error::model_file(path, error.instead_of("a readable file")))
    }

    /// As [`sha256`](Self::sha256), of every fold.
    ///
    /// # Errors
    ///
    /// As [`sha256`](Self::sha256).
    pub fn digests(&self) -> Result<Vec<String>> {
        (0..self.checkpoints.len()).map(|fold| self.sha256(fold)).collect()
    }

    /// The network of a fold as an ONNX model: opset 17, `input` to `output`, batch and spatial
    /// axes dynamic.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) naming the weights that are missing, of another shape or left over.
    ///
    /// # Panics
    ///
    /// If there is no such fold.
    pub fn model(&self, fold: usize) -> Result<proto::Model> {
        self.model_within(fold, Allowance::default())
    }

    /// As [`model`](Self::model), if what it takes, and what its graph would, is `allowed` beside this
    /// folder.
    fn model_within(&self, fold: usize, allowed: Allowance) -> Result<proto::Model> {
        let path = self.checkpoint(fold);
        let build = || {
            let (checkpoint, allowed) = if fold == 0 {
                (self.first.clone(), allowed)
            } else {
                let opened = Checkpoint::open(path, allowed)?;
                let allowed = allowed.beside(opened.held_bytes());
                (Arc::new(opened), allowed)
            };
            let architecture = self.architecture(&checkpoint, allowed)?;
            network::build(&architecture, &checkpoint, allowed)
        };
        build().map_err(|error| self.trained(error).of_model_file(path))
    }

    /// The network of a fold, ready to be lowered.
    ///
    /// # Errors
    ///
    /// As [`model`](Self::model).
    ///
    /// # Panics
    ///
    /// If there is no such fold.
    pub fn graph(&self, fold: usize) -> Result<onnx::Graph> {
        self.graph_within(fold, Allowance::default())
    }

    /// As [`graph`](Self::graph), as far as memory is `allowed` for it beside this folder.
    pub(crate) fn graph_within(&self, fold: usize, allowed: Allowance) -> Result<onnx::Graph> {
        Ok(onnx::Graph::from_proto(self.model_within(fold, allowed)?)?)
    }

    /// The network of the plans, changed as the trainer changed it.
    fn architecture(&self, checkpoint: &Checkpoint, allowed: Allowance) -> Result<Architecture> {
        let Configuration { class, arguments, rank, input_channels, output_channels, .. } =
            &self.plan;
        let channels = (*input_channels, *output_channels);
        let mut architecture = Architecture::read(class, arguments, *rank, channels)?;
        let weights = network::names(checkpoint, allowed)?;
        architecture.follow_norm(&weights);
        if self.student || class.starts_with("Lite") {
            architecture.follow_student(&weights)?;
        }
        Ok(architecture)
    }

    /// Adds class and trainer to what is wrong with a network.
    fn trained(&self, error: Error) -> Error {
        error.within(&format!("a {} of {}", self.plan.class, self.trainer))
    }
}

/// The training that a folder is, or the only one in it.
fn the_training(path: &Path) -> Result<PathBuf> {
    if path.join("plans.json").exists() {
        return Ok(path.to_owned());
    }
    match &trained::trainings(path)[..] {
        [one] => Ok(one.clone()),
        [] => match others::of_path(path) {
            Some(family) => {
                let what = Mismatch::new(family, "a trained folder of nnU-Net");
                Err(Error::model_file(path, what))
            }
            None => Ok(path.to_owned()),
        },
        several => {
            let names = several.iter().take(8).map(|one| one.display().to_string());
            let names: Vec<String> = names.collect();
            let found = format!("{} trainings, such as {}", several.len(), names.join(", "));
            Err(Error::model_file(path, Mismatch::new(found, "one of them")))
        }
    }
}

/// `plans.json` and `dataset.json` of a training, as they are or as v2 would have written them.
pub(super) struct Described {
    pub(super) plans: Value,
    pub(super) dataset: Value,
    /// What both take.
    bytes: u64,
}

/// Reads them, as far as memory is `allowed` for it.
pub(super) fn described(folder: &Path, allowed: Allowance) -> Result<Described> {
    if v1::is_training(folder) {
        let (plans, dataset, bytes) = v1::described(folder, allowed)?;
        return Ok(Described { plans, dataset, bytes });
    }
    let (plans, bytes) = json::read(&folder.join("plans.json"), allowed)?;
    let (dataset, more) = json::read(&folder.join("dataset.json"), allowed.beside(bytes))?;
    Ok(Described { plans, dataset, bytes: bytes + more })
}

/// What a checkpoint says about its training.
pub(super) struct Training {
    pub(super) configuration: Name,
    pub(super) trainer: String,
    pub(super) mirror_axes: Vec<i64>,
    /// Whether FastnnUNet distilled it: then the network is narrower than the plans say.
    pub(super) student: bool,
}

impl Training {
    /// What the first checkpoint of the training in `folder`, with these plans, says about it.
    pub(super) fn look(folder: &Path, folds: &Folds, plans: &Value) -> Result<Self> {
        let checkpoints =
            folds::find(folder, folds, None).map_err(|wrong| Error::model_file(folder, wrong))?;
        let (_, first) = &checkpoints[0];
        if v1::is_training(folder) {
            return v1::training(first, plans, Allowance::default());
        }
        let allowed = Allowance::default();
        let read = || Self::read(&Checkpoint::open(first, allowed)?, folder, allowed);
        read().map_err(|error| error.of_model_file(first))
    }

    /// What the checkpoint of the training in `folder` says about it, and else the folder's name.
    fn read(checkpoint: &Checkpoint, folder: &Path, allowed: Allowance) -> Result<Self> {
        match checkpoint.pickle() {
            Some(pickle) => Ok(Self::pickled(pickle)?),
            None => Self::noted(checkpoint, folder, allowed),
        }
    }

    fn pickled(pickle: &Pickle) -> Result<Self, Mismatch> {
        let get = |key: &str| pickle.lookup(pickle.root(), key);
        let text = |id: Option<_>, name: &str| {
            let text = id.and_then(|id| pickle.text(id)).map(str::to_owned);
            text.ok_or_else(|| Mismatch::new(format!("no {name}"), "a checkpoint nnU-Net v2 wrote"))
        };
        let arguments = get("init_args");
        let argument = |name: &str| pickle.lookup(arguments?, name);
        let trainer = text(get("trainer_name"), "trainer_name")?;
        let configuration = text(argument("configuration"), "configuration in init_args")?;
        let configuration = Name::new(configuration)?;
        let axes = get("inference_allowed_mirroring_axes");
        let axes = axes.filter(|&id| !pickle.is_none(id));
        let mirror_axes = match axes {
            None => Vec::new(),
            Some(id) => {
                let list = pickle.items(id).map(|list| list.iter().map(|&n| pickle.int(n)));
                list.and_then(Iterator::collect).ok_or_else(|| {
                    Mismatch::new(
                        format!("inference_allowed_mirroring_axes {}", pickle.describe(id)),
                        "axes",
                    )
                })?
            }
        };
        let wrapped = || {
            let weights = pickle.entries(get("network_weights")?)?;
            let name = pickle.text(weights.first()?.0)?;
            Some(name.trim_start_matches("module.").starts_with("network."))
        };
        let student = trainer.contains("Distillation")
            || argument("feature_reduction_factor").is_some()
            || wrapped().unwrap_or(false);
        Ok(Self { configuration, trainer, mirror_axes, student })
    }

    /// From notes beside the tensors (`trainer_name`, `configuration`, and the axes as JSON), or from
    /// the name `Trainer__Plans__Configuration` that nnU-Net gives the folder; a trainer whose name
    /// does not say otherwise mirrors every axis.
    fn noted(checkpoint: &Checkpoint, folder: &Path, allowed: Allowance) -> Result<Self> {
        let place = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.split("__");
        let (named_trainer, _, named_configuration) = (parts.next(), parts.next(), parts.next());
        let either = |key: &str, named: Option<&str>| {
            let found = checkpoint.note(key).or(named.filter(|_| named_configuration.is_some()));
            found.map(str::to_owned).ok_or_else(|| {
                Mismatch::new(
                    format!("no {key} in the file's metadata, and a folder called {name}"),
                    "either, the folder being Trainer__Plans__Configuration",
                )
            })
        };
        let trainer = either("trainer_name", named_trainer)?;
        let configuration = Name::new(either("configuration", named_configuration)?)?;
        let key = "inference_allowed_mirroring_axes";
        let mirror_axes = match checkpoint.note(key) {
            Some(text) => serde_json::from_str::<Option<Vec<i64>>>(text)
                .map_err(|_| Mismatch::new(format!("{key} {text:?}"), "a list of axes, or null"))?
                .unwrap_or_default(),
            None if trainer.contains("NoMirroring") => Vec::new(),
            None if trainer.contains("onlyMirror01") => vec![0, 1],
            None if configuration == "2d" => vec![0, 1],
            None => vec![0, 1, 2],
        };
        let weights = checkpoint.weights(allowed)?;
        let wrapped = weights.keys().any(|name| name.starts_with("network."));
        let student = trainer.contains("Distillation") || wrapped;
        Ok(Self { configuration, trainer, mirror_axes, student })
    }
}
