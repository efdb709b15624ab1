//! One network with its configuration and, in a cascade, the network it refines.

use super::Run;
use crate::infer::{self, Engine, EngineOptions};
use crate::model::registry::Registry;
use crate::model::{Grade, Model, ModelConfig};
use crate::nnunet::Folder;
use crate::pipeline::{self, Case, Options, Progress, Segmentation};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// A network ready to run.
pub struct Network {
    info: NetworkInfo,
    config: ModelConfig,
    engine: Box<dyn Engine>,
    /// The stage whose labels this one refines.
    previous: Option<Box<Network>>,
}

/// What identifies a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Name of the model, or path of the folder.
    pub name: String,
    /// nnU-Net's configuration, for instance `3d_fullres`.
    pub configuration: String,
    /// How much it may be trusted.
    pub grade: Grade,
    /// SHA-256 of the files with the weights, lowercase hexadecimal, one per fold.
    pub sha256: Vec<String>,
}

impl Network {
    pub(super) fn from_model(
        model: &Model,
        config: Option<ModelConfig>,
        registry: Option<&Registry>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let config = match config {
            Some(config) => config,
            None => model.config()?,
        };
        let first = registry.map(|all| all.previous_stage(&model.name, &config)).transpose()?;
        let previous = match first.flatten() {
            Some(first) => Some(Box::new(Self::from_model(first, None, None, options)?)),
            None => None,
        };
        let engine = infer::open(model, config.patch_size, options)?;
        let info = NetworkInfo {
            name: model.name.to_string(),
            configuration: model.configuration.to_owned(),
            grade: config.grade,
            sha256: vec![model.facts()?.sha256.to_string()],
        };
        Ok(Self { info, config, engine, previous })
    }

    pub(super) fn from_folder(
        folder: &Folder,
        previous: Option<&Folder>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let config = folder.config().clone();
        let name = folder.path().display().to_string();
        let folds = folder.folds().len();
        let graph = &mut |fold| folder.graph(fold);
        let engine = infer::open_folds(&name, folds, graph, config.patch_size, options)?;
        let previous = match previous {
            Some(first) => Some(Box::new(Self::from_folder(first, None, options)?)),
            None => None,
        };
        let info = NetworkInfo {
            name,
            configuration: folder.configuration().to_owned(),
            grade: config.grade,
            sha256: (0..folds).map(|fold| folder.sha256(fold)).collect::<Result<_>>()?,
        };
        Ok(Self { info, config, engine, previous })
    }

    /// What identifies the network.
    #[must_use]
    pub fn info(&self) -> &NetworkInfo {
        &self.info
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device it runs on.
    #[must_use]
    pub fn device(&self) -> &str {
        self.engine.device()
    }

    /// The arithmetic it uses.
    #[must_use]
    pub fn precision(&self) -> infer::Precision {
        self.engine.precision()
    }

    /// The stage whose labels it refines.
    #[must_use]
    pub fn previous(&self) -> Option<&Network> {
        self.previous.as_deref()
    }

    /// Bytes that it holds, with the stage it refines, once it has run.
    pub(super) fn memory_bytes(&self) -> u64 {
        let first = self.previous.as_ref().map_or(0, |first| first.memory_bytes());
        self.engine.memory_bytes(rayon::current_num_threads()) + first
    }

    /// Runs the network on a case, after the stage it refines if the case has no labels yet.
    pub(super) fn segment(
        &mut self,
        mut case: Case,
        options: &Options,
        runs: &mut Vec<Run>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        let own = self.engine.memory_bytes(rayon::current_num_threads());
        let refined = self.memory_bytes() - own;
        if self.config.previous_stage.is_some() && case.previous.is_none() {
            let Some(first) = &mut self.previous else {
                return Err(Error::Model {
                    model: self.info.name.clone(),
                    found: "the second stage of a cascade alone".into(),
                    expected: "labels of the first stage, or its model".into(),
                });
            };
            let held_bytes = options.held_bytes + case.image_bytes() + own;
            let options = Options { keep_evidence: false, held_bytes, ..options.clone() };
            let found = first.segment(case.clone(), &options, runs, progress)?;
            case.previous = Some(found.labels);
        }
        let options = Options { held_bytes: options.held_bytes + refined, ..options.clone() };
        let engine = self.engine.as_mut();
        let done = pipeline::segment(case, &self.config, engine, &options, progress)?;
        runs.push(Run {
            model: self.info.name.clone(),
            network_shape: done.network_shape,
            patch_size: self.config.patch_size,
            tiles: done.tiles,
            predicted: done.predicted,
            timings: done.timings.clone(),
        });
        Ok(done)
    }
}
