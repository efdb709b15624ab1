//! The models, modes and label tables there are: those of the program, and those of a folder.
//!
//! A name or a request enters; a [`Model`], or the [`Selection`] of models that answers, leaves.
//! What a model is (configuration, labels, modes, graph) is the crate `fastnnunet-model`.

mod folder;
mod imported;
mod installed;
mod selection;
mod subset;

pub use imported::{Digest, MANIFEST, Manifest, imports};
pub use installed::{Facts, Model, Place};
pub(crate) use installed::{MAX_ONNX_BYTES, read_json};
pub use selection::{Request, SelectedPart, Selection};
pub(crate) use subset::sides_of;
pub use subset::{LabelSubset, merge_labels, named};

use crate::model::labels::{self, LabelTable};
use crate::model::modes::{self, Mode};
use crate::model::tasks::Tasks;
use crate::model::{Grade, ModelConfig, Name};
use crate::{Error, Mismatch, Result};
use installed::Weights;
use std::sync::{Arc, LazyLock};

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// A model of the program as the build wrote it down, every part of it checked.
struct Embedded {
    name: &'static str,
    configuration: &'static str,
    config_json: &'static str,
    source: &'static str,
    license: &'static str,
    grade: Grade,
    onnx: &'static [u8],
    sha256: &'static str,
    opset: i64,
    /// Of the input and the output.
    channels: (usize, usize),
}

impl Embedded {
    fn model(&self) -> Model {
        let facts = Facts {
            bytes: self.onnx.len() as u64,
            sha256: self.sha256.into(),
            opset: self.opset,
            input_channels: self.channels.0,
            output_channels: self.channels.1,
        };
        Model {
            name: Name::new(self.name).expect("checked by the build"),
            configuration: self.configuration,
            config: ModelConfig::from_json(self.config_json).expect("checked by the build"),
            config_json: self.config_json.into(),
            source: self.source.into(),
            license: self.license.into(),
            grade: self.grade,
            place: Place::Program,
            weights: Weights::Embedded(self.onnx, facts),
        }
    }
}

/// A set of models with the modes they answer.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    models: Vec<Arc<Model>>,
    modes: Vec<Mode>,
    tables: Vec<LabelTable>,
    tasks: Arc<Tasks>,
    /// What is odd about the folders it was read from.
    notes: Vec<String>,
}

impl Registry {
    /// What is inside the program.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static EMBEDDED: LazyLock<Registry> = LazyLock::new(|| {
            let files: Vec<(String, String)> = LABEL_TABLES
                .iter()
                .map(|&(name, json)| (name.to_owned(), json.to_owned()))
                .collect();
            let tasks = Tasks::parse(TASKS_JSON).expect("checked by the build");
            let mut tables = labels::parse(&files, &[]).expect("checked by the build");
            let of_tasks = tasks.tables(&tables);
            tables.extend(of_tasks);
            tables.sort_by(|a, b| a.name.cmp(&b.name));
            let mut modes = modes::parse(MODES_JSON).expect("checked by the build");
            tasks.join(&mut modes).expect("checked by the build");
            Registry {
                models: MODELS.iter().map(|model| Arc::new(model.model())).collect(),
                modes,
                tables,
                tasks: Arc::new(tasks),
                notes: Vec::new(),
            }
        });
        &EMBEDDED
    }

    /// The models, sorted by name.
    #[must_use]
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The modes users choose from; listed whether or not their models are installed.
    #[must_use]
    pub fn modes(&self) -> &[Mode] {
        &self.modes
    }

    /// The data sets and tasks of other programs that are known.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Sentences about folders that were read: what in them was left out, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The label tables, sorted by name.
    #[must_use]
    pub fn tables(&self) -> &[LabelTable] {
        &self.tables
    }

    /// The postprocessing recipe of that name, as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the recipes there are.
    pub fn recipe(&self, name: &str) -> Result<&'static str> {
        let found = RECIPES.iter().find(|(known, _)| *known == name);
        let names = || join(RECIPES.iter().map(|(name, _)| *name));
        found
            .map(|(_, json)| *json)
            .ok_or_else(|| Error::usage("recipe", name, format!("one of {}", names())))
    }

    /// The model of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The label table of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if there is none, which loading the modes has ruled out for theirs.
    pub fn table(&self, name: &str) -> Result<&LabelTable> {
        self.tables.iter().find(|table| table.name == name).ok_or_else(|| {
            let names = join(self.tables.iter().map(|t| t.name.as_str()));
            let what = Mismatch::new("no such table", format!("one of {names}"));
            Error::model(format!("label table {name}"), what)
        })
    }

    /// The mode of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the modes there are.
    pub fn mode(&self, name: &str) -> Result<&Mode> {
        self.modes.iter().find(|mode| mode.name == name).ok_or_else(|| Error::Usage {
            what: "mode".to_owned(),
            found: name.to_owned(),
            expected: format!("one of {}", join(self.modes.iter().map(|m| m.name.as_str()))),
        })
    }

    /// The model whose result `model`, with that configuration, refines, for a cascade.
    ///
    /// `previous_stage` of the configuration names a model or, as nnU-Net has it, a
    /// configuration; then the one model of that configuration with the same structures.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if there is not exactly one, or if that refines another model itself.
    pub fn previous_stage(&self, model: &str, config: &ModelConfig) -> Result<Option<&Arc<Model>>> {
        let Some(previous) = &config.previous_stage else { return Ok(None) };
        let found = self.of_stage(previous, model, config)?;
        if found.config().previous_stage.is_some() {
            return Err(Error::Model {
                model: model.to_owned(),
                found: format!("{} as its previous stage, which has one itself", found.name),
                expected: "a model that runs on the image alone".to_owned(),
            });
        }
        Ok(Some(found))
    }

    /// The model that `previous_stage` of `model` names.
    fn of_stage(&self, previous: &str, model: &str, config: &ModelConfig) -> Result<&Arc<Model>> {
        if let Some(found) = self.find(previous) {
            return Ok(found);
        }
        let mut fitting = Vec::new();
        for other in self.models.iter().filter(|other| other.configuration == previous) {
            let same = other
                .config()
                .labels
                .iter()
                .map(|label| &label.name)
                .eq(config.labels.iter().map(|label| &label.name));
            if same {
                fitting.push(other);
            }
        }
        match fitting[..] {
            [found] => Ok(found),
            _ => Err(Error::Model {
                model: model.to_owned(),
                found: format!("{} models for its previous stage {previous}", fitting.len()),
                expected: "one model of that name, or one of that configuration with the same \
                           labels"
                    .to_owned(),
            }),
        }
    }
}

/// The models in this build, sorted by name.
#[must_use]
pub fn models() -> &'static [Arc<Model>] {
    Registry::embedded().models()
}

/// The model of that name, if this build has it.
#[must_use]
pub fn find(name: &str) -> Option<&'static Arc<Model>> {
    Registry::embedded().find(name)
}

/// The modes of this build, in the order of `config/modes.json`.
#[must_use]
pub fn modes() -> &'static [Mode] {
    Registry::embedded().modes()
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eight_modes_and_one_for_each_task() {
        let names: Vec<&str> = modes().iter().map(|mode| mode.name.as_str()).collect();
        assert_eq!(
            names[..8],
            ["bone", "chest", "abdomen", "headneck", "pelvic", "spine", "limb", "total"]
        );
        let tasks = &Registry::embedded().tasks().tasks;
        assert!(tasks.iter().all(|task| names.contains(&task.name.as_str())));
        assert_eq!(names.len(), 8 + tasks.len() - 1);
    }

    #[test]
    fn embedded_configurations_parse() {
        for model in models() {
            let config = model.config();
            let facts = model.facts().expect("known to the build");
            assert_eq!(config.input_channels(), facts.input_channels, "{}", model.name);
            assert_eq!(config.grade, model.grade, "{}", model.name);
            assert_eq!(facts.bytes, model.onnx().expect("embedded").len() as u64);
            assert!(model.is_embedded());
        }
    }
}
