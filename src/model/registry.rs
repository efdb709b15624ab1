//! The models, modes and label tables there are: those of the program, and those of a folder.
//!
//! The functions see the program's own; a [`Registry`] may have more.

use super::installed::{Facts, Weights};
use super::labels::{self, LabelTable};
use super::modes::{self, Mode};
use super::{Grade, ModelConfig};
use crate::{Error, Result};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

pub use super::installed::Model;

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// A set of models with the modes they answer.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub(super) models: Vec<Arc<Model>>,
    pub(super) modes: Vec<Mode>,
    pub(super) tables: Vec<LabelTable>,
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
            Registry {
                models: MODELS.iter().cloned().map(Arc::new).collect(),
                // The build refuses files that do not parse.
                modes: modes::parse(MODES_JSON).unwrap_or_default(),
                tables: labels::parse(&files, &[]).unwrap_or_default(),
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

    /// The label tables, sorted by name.
    #[must_use]
    pub fn tables(&self) -> &[LabelTable] {
        &self.tables
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
        self.tables.iter().find(|table| table.name == name).ok_or_else(|| Error::Model {
            model: format!("label table {name}"),
            found: "no such table".to_owned(),
            expected: format!("one of {}", join(self.tables.iter().map(|t| t.name.as_str()))),
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
        if found.config()?.previous_stage.is_some() {
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
                .config()?
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

pub(super) fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eight_modes() {
        let names: Vec<&str> = modes().iter().map(|mode| mode.name.as_str()).collect();
        assert_eq!(
            names,
            ["bone", "chest", "abdomen", "headneck", "pelvic", "spine", "limb", "total"]
        );
    }

    #[test]
    fn embedded_configurations_parse() {
        for model in models() {
            let config = model.config().expect("checked by the build");
            let facts = model.facts().expect("known to the build");
            assert_eq!(config.input_channels(), facts.input_channels, "{}", model.name);
            assert_eq!(config.grade, model.grade, "{}", model.name);
            assert_eq!(facts.bytes, model.onnx().expect("embedded").len() as u64);
            assert!(model.is_embedded());
        }
    }
}
