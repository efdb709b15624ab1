//! One network with its configuration and, in a cascade, the network it refines.

use super::segmentation::NetworkRun;
use crate::infer::{self, Engine, EngineOptions, Precision};
use crate::model::{Grade, ModelConfig};
use crate::nnunet::Folder;
use crate::pipeline::{self, Input, OnProgress, Settings};
use crate::registry::{Model, Registry};
use crate::{Error, Mismatch, Result};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

/// A network ready to run.
pub(super) struct Network {
    info: NetworkInfo,
    config: ModelConfig,
    engine: Box<dyn Engine>,
    /// The stage whose labels this one refines.
    previous: Option<Box<Network>>,
}

/// What identifies a network, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Name of the model, or path of the folder.
    pub name: String,
    /// nnU-Net's configuration, for instance `3d_fullres`.
    pub configuration: String,
    /// How much it may be trusted.
    pub grade: Grade,
    /// The file or folder of the weights; none for those inside the program.
    pub file: Option<PathBuf>,
    /// Terms of the weights; empty where nothing says.
    pub licence: String,
    /// Who made them; empty where nothing says.
    pub source: String,
    /// SHA-256 of the files with the weights, lowercase hexadecimal, one per fold; of a trained
    /// folder only if [`Options::digests`](super::Options::digests) asked for it.
    pub sha256: Vec<String>,
    /// The device it runs on.
    pub device: String,
    /// What it multiplies in.
    pub precision: Precision,
}

impl Network {
    /// A model; in a cascade with the model it refines, which comes from `registry`. Without one,
    /// cases must come with the first stage's labels.
    pub(super) fn from_model(
        model: &Model,
        config: Option<ModelConfig>,
        registry: Option<&Registry>,
        options: &EngineOptions,
    ) -> Result<Self> {
        if let Some(folder) = model.trained() {
            return Self::by_reference(&folder?, model, config, options);
        }
        let config = config.unwrap_or_else(|| model.config().clone());
        let first = registry.map(|all| all.previous_stage(&model.name, &config)).transpose()?;
        let previous = match first.flatten() {
            Some(first) => Some(Box::new(Self::from_model(first, None, None, options)?)),
            None => None,
        };
        model.file().map_or(Ok(()), |file| check_file(file, options))?;
        let engine = if model.folds() > 1 {
            let graph = &mut |fold| model.graph(fold);
            infer::open_folds(&model.name, model.folds(), graph, config.patch_size, &[], options)?
        } else {
            let ranges = config.int8.as_ref();
            if let Some(ranges) = ranges {
                ranges
                    .check_weights(&model.facts()?.sha256)
                    .map_err(|other| Error::model(&*model.name, other))?;
            }
            infer::open_with(model, config.patch_size, ranges, options)?
        };
        let info = NetworkInfo {
            name: model.name.to_string(),
            configuration: model.configuration.to_owned(),
            grade: config.grade,
            file: model.file().map(Path::to_path_buf),
            licence: model.licence.to_string(),
            source: model.origin.to_string(),
            sha256: model.digests()?,
            device: engine.device().to_owned(),
            precision: engine.precision(),
        };
        Ok(Self { info, config, engine, previous })
    }

    /// A model that is a training where it lies.
    fn by_reference(
        folder: &Folder,
        model: &Model,
        config: Option<ModelConfig>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let mut network = Self::from_folder(folder, None, options, true)?;
        network.info.name = model.name.to_string();
        network.info.licence = model.licence.to_string();
        network.info.source = model.origin.to_string();
        if let Some(config) = config {
            network.config = config;
        }
        Ok(network)
    }

    /// A trained folder; in a cascade with the folder it refines, or cases must come with its
    /// labels.
    pub(super) fn from_folder(
        folder: &Folder,
        previous: Option<&Folder>,
        options: &EngineOptions,
        digests: bool,
    ) -> Result<Self> {
        let config = folder.config().clone();
        let name = folder.path().display().to_string();
        let folds = folder.folds().len();
        let graph = &mut |fold| folder.graph(fold);
        let engine = infer::open_folds(
            &name,
            folds,
            graph,
            config.patch_size,
            config.int8.as_slice(),
            options,
        )?;
        let previous = match previous {
            Some(first) => Some(Box::new(Self::from_folder(first, None, options, digests)?)),
            None => None,
        };
        let hashed = if digests { 0..folds } else { 0..0 };
        let info = NetworkInfo {
            name,
            configuration: folder.configuration().to_string(),
            grade: config.grade,
            file: Some(folder.path().to_path_buf()),
            licence: config.licence.clone().unwrap_or_default(),
            source: config.source.clone().unwrap_or_default(),
            sha256: hashed.map(|fold| folder.sha256(fold)).collect::<Result<_>>()?,
            device: engine.device().to_owned(),
            precision: engine.precision(),
        };
        Ok(Self { info, config, engine, previous })
    }

    /// The same network on another engine.
    pub(super) fn on(mut self, engine: Box<dyn Engine>) -> Self {
        engine.device().clone_into(&mut self.info.device);
        self.info.precision = engine.precision();
        self.engine = engine;
        self
    }

    pub(super) fn info(&self) -> &NetworkInfo {
        &self.info
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The stage it refines, if there is one, and itself.
    pub(super) fn stages(&self) -> impl Iterator<Item = &Self> {
        self.previous.as_deref().into_iter().chain([self])
    }

    /// Bytes that it holds, with the stage it refines, once it has run.
    pub(super) fn memory_bytes(&self, threads: usize) -> u64 {
        self.stages().map(|network| network.engine.memory_bytes(threads)).sum()
    }

    /// Runs the network on a case, after the stage it refines if the case has no labels yet. The
    /// images are taken once it is known that they fit.
    pub(super) fn segment(
        &mut self,
        input: &mut Option<Input<'_>>,
        settings: &Settings,
        runs: &mut Vec<NetworkRun>,
        progress: &mut OnProgress<'_>,
    ) -> Result<pipeline::Labeled> {
        let threads = rayon::current_num_threads();
        let own = self.engine.memory_bytes(threads);
        let refined = self.memory_bytes(threads) - own;
        if let Some(case) = input
            && self.config.previous_stage.is_some()
            && case.previous.is_none()
        {
            let Some(first) = &mut self.previous else {
                let what = Mismatch::new(
                    "the second stage of a cascade alone",
                    "labels of the first stage, or its model",
                );
                return Err(Error::model(&self.info.name, what));
            };
            let settings = Settings { keep_probabilities: false, ..settings.holding(own) };
            let found = first.segment(&mut Some(case.borrowed()), &settings, runs, progress)?;
            case.previous = Some(Cow::Owned(found.labels));
        }
        let engine = self.engine.as_mut();
        let settings = settings.holding(refined);
        let done = pipeline::segment(input, &self.config, engine, &settings, progress)?;
        runs.push(NetworkRun {
            model: self.info.name.clone(),
            network_shape: done.network_shape,
            patch_size: self.config.patch_size,
            tiles: done.tiles.0,
            known_tiles: done.known_tiles,
            passes: done.tiles.1,
            predicted: done.predicted,
            timings: done.timings.clone(),
        });
        Ok(done)
    }
}

/// Fails if reading a model's file would hold more than allowed: the file, and the numbers in it.
pub(super) fn check_file(path: &Path, options: &EngineOptions) -> Result<()> {
    // A file that is missing is told of by whoever reads it.
    let bytes = fs::metadata(path).map_or(0, |found| found.len());
    infer::within(options.memory_limit_bytes, "reading the model", 2 * bytes)
}
