//! What an import leaves: a folder per model, with a manifest.

use super::Registry;
use super::installed::{ByReference, Model, Place, read_json, unusable};
use crate::model::Orientation;
use crate::model::tasks::{Dataset, Tasks};
use crate::nnunet::{Folds, Trained, model_name, model_names, trainings};
use crate::{Error, Mismatch, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the manifest in a model's folder.
pub const MANIFEST: &str = "import.json";

/// The file's only version so far.
const VERSION: u32 = 1;

/// Longest name of a model in bytes: with endings it still is a file name.
const LONGEST_NAME: usize = 200;

/// Most models looked at in a folder.
const MAX_MODELS: usize = 1000;

/// What was imported, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// Name of the model, of its folder and of its configuration's file.
    pub name: String,
    /// Name of the data set, such as `Dataset297_Name`.
    pub dataset: String,
    /// `Trainer__Plans__Configuration`.
    pub training: String,
    /// Files of its own, one per fold; empty for a training that stays where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Digest>,
    /// Where the training is, if it stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<PathBuf>,
    /// The folds that are averaged.
    pub folds: String,
    /// How the images lie that it was trained on, where that was said when it was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orientation: Option<Orientation>,
    /// The checkpoints it was made from.
    pub checkpoints: Vec<Digest>,
    /// The program that imported it.
    pub imported_by: String,
}

/// A file and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Its name, or its place in the training.
    pub file: String,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl Manifest {
    /// The manifest of an import of this version.
    #[must_use]
    pub fn new(name: &str, trained: &Trained, folds: &Folds) -> Self {
        Self {
            version: VERSION,
            name: name.to_owned(),
            dataset: trained.dataset.clone(),
            training: [&*trained.trainer, &trained.plans, &trained.configuration].join("__"),
            weights: Vec::new(),
            link: None,
            folds: folds.to_string(),
            orientation: trained.orientation,
            checkpoints: Vec::new(),
            imported_by: concat!("fastnnunet ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Whether it was made of the training of those names: trainer, plans and configuration.
    #[must_use]
    pub fn is_of(&self, dataset: &str, training: [&str; 3]) -> bool {
        self.dataset == dataset && self.training == training.join("__")
    }

    /// Reads the manifest in a model's folder; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if it cannot be read, or names files elsewhere.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Ok(None);
        }
        let wrong = |found: String| Error::model_file(&path, Mismatch::new(found, "an import"));
        let manifest: Self =
            serde_json::from_str(&read_json(&path)?).map_err(|error| wrong(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(wrong(format!("version {}", manifest.version)));
        }
        manifest.check().map_err(|what| Error::model_file(&path, what))?;
        Ok(Some(manifest))
    }

    /// Fails unless its names are those of files beside it, and its digests are digests.
    fn check(&self) -> Result<(), Mismatch> {
        if self.name.len() > LONGEST_NAME || model_name(&self.name) != self.name {
            let found = format!("name {:?}", self.name);
            return Err(Mismatch::new(found, "lowercase letters, digits and _"));
        }
        let begins = |digest: &&Digest| {
            let end =
                digest.file.strip_prefix(&self.name).and_then(|rest| rest.strip_suffix(".onnx"));
            end.is_some_and(|end| end.is_empty() || end.starts_with("_fold"))
        };
        let is_plain = |digest: &&Digest| !digest.file.contains(['/', '\\']);
        if let Some(other) = self.weights.iter().find(|digest| !begins(digest) || !is_plain(digest))
        {
            return Err(Mismatch::new(format!("weights {:?}", other.file), "files of the model"));
        }
        if self.weights.is_empty() != self.link.is_some() {
            return Err(Mismatch::new("weights and a link, or neither", "one of them"));
        }
        let is_digest = |digest: &&Digest| {
            digest.sha256.len() == 64 && digest.sha256.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let mut digests = self.weights.iter().chain(&self.checkpoints);
        match digests.find(|digest| !is_digest(digest)) {
            Some(odd) => Err(Mismatch::new(format!("sha256 of {:?}", odd.file), "64 digits")),
            None => Ok(()),
        }
    }
}

/// The imports in a folder of models, each with its own folder, sorted by that; a manifest that
/// cannot be used, as one of a later version, ends none of the others.
///
/// # Errors
///
/// [`Error::Model`] if there are more than anybody has.
pub fn imports(folder: &Path) -> Result<Vec<(PathBuf, Result<Manifest>)>> {
    let mut found = Vec::new();
    let Ok(list) = fs::read_dir(folder) else { return Ok(found) };
    for entry in list.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden
            && path.is_dir()
            && let Some(manifest) = Manifest::read(&path).transpose()
        {
            found.push((path, manifest));
        }
        if found.len() > MAX_MODELS {
            let found = format!("more than {MAX_MODELS} imports");
            return Err(unusable(folder, found, "a folder of models".to_owned()));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

impl Registry {
    /// Adds what was imported to `folder`.
    pub(super) fn add_imports(&mut self, folder: &Path, place: Place) -> Result<usize> {
        let all = imports(folder)?;
        let count = all.len();
        for (folder, manifest) in all {
            let model = manifest.and_then(|manifest| self.imported(&folder, &manifest));
            if let Some(model) = self.usable(model, place)? {
                self.add(Model { place, ..model });
            }
        }
        Ok(count)
    }

    fn imported(&self, folder: &Path, manifest: &Manifest) -> Result<Model> {
        let Some(link) = &manifest.link else {
            let json = folder.join(format!("{}.json", manifest.name));
            let files = manifest.weights.iter();
            let files = files.map(|own| (folder.join(&own.file), own.sha256.clone())).collect();
            return Model::of_folds(&manifest.name, &json, files);
        };
        let mut trained = Trained::look(link)?;
        trained.orientation = manifest.orientation;
        let known = self.tasks.dataset(&manifest.name);
        let known = known.map(|dataset| (dataset.clone(), self.tasks.made_from.clone()));
        let folds: Folds = manifest.folds.parse()?;
        Model::by_reference(ByReference { trained, folds, known }, manifest.name.clone())
    }

    /// Adds the trainings of nnU-Net in `folder`, which stay where they are. What cannot be used is
    /// noted.
    pub(super) fn add_trainings(&mut self, folder: &Path, place: Place) -> usize {
        let mut all = Vec::new();
        for path in trainings(folder) {
            match Trained::look(&path) {
                Ok(trained) => all.push(trained),
                Err(error) => self.notes.push(format!("left out: {error}")),
            }
        }
        let parts = all.iter().map(|t| [&*t.dataset, &*t.trainer, &*t.plans, &*t.configuration]);
        let names = model_names(&parts.collect::<Vec<_>>());
        let mut added: Vec<String> = Vec::new();
        for (trained, name) in all.iter().zip(names) {
            let models = match self.referred(trained, name) {
                Ok(models) => models,
                Err(error) => {
                    self.notes.push(format!("left out: {error}"));
                    continue;
                }
            };
            for model in models {
                if added.iter().any(|name| **name == *model.name) {
                    let path = trained.path.display();
                    self.notes.push(format!("left out: {path}, another {}", model.name));
                    continue;
                }
                added.push(model.name.to_string());
                self.add(Model { place, ..model });
            }
        }
        added.len()
    }

    /// The models of a training; `name` is that of one that is not known.
    fn referred(&self, trained: &Trained, name: String) -> Result<Vec<Model>> {
        if trained.folds.is_empty() {
            let what = Mismatch::new("no weights", "fold_0/checkpoint_final.pth or another fold's");
            return Err(Error::model_file(&trained.path, what));
        }
        let known = of(&self.tasks, trained);
        if known.is_empty() {
            let (trained, folds) = (trained.clone(), trained.usual_folds());
            return Ok(vec![Model::by_reference(
                ByReference { trained, folds, known: None },
                name,
            )?]);
        }
        let model = |dataset: &&Dataset| {
            let known = Some(((*dataset).clone(), self.tasks.made_from.clone()));
            let (trained, folds) = (trained.clone(), dataset.folds.parse()?);
            Model::by_reference(ByReference { trained, folds, known }, dataset.model.clone())
        };
        known.iter().map(model).collect()
    }

    fn add(&mut self, model: Model) {
        self.models.retain(|known| known.name != model.name);
        self.models.push(Arc::new(model));
    }
}

/// The data sets that a training is known as.
fn of<'a>(tasks: &'a Tasks, trained: &Trained) -> Vec<&'a Dataset> {
    let id = trained.id().unwrap_or(0);
    tasks.known(id, &trained.plans, &trained.configuration).collect()
}
