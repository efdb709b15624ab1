//! One network with its configuration and, in a cascade, the network it refines.

use super::segmentation::NetworkRun;
use crate::infer::{self, Engine, EngineOptions, Precision, Tiles};
use crate::model::{Grade, ModelConfig, Quantization};
use crate::nnunet::Folder;
use crate::pipeline::tile::{self, Tiling};
use crate::pipeline::{self, Input, OnProgress, Settings};
use crate::registry::{Model, Registry};
use crate::{Error, Mismatch, Result, files};
use ndarray::Array4;
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
    pub license: String,
    /// Who made them; empty where nothing says.
    pub source: String,
    /// SHA-256 of the files with the weights, lowercase hexadecimal, one per fold; of a trained
    /// folder only if [`Options::digests`](super::Options::digests) asked for it or its
    /// configuration has ranges for int8.
    pub sha256: Vec<String>,
    /// SHA-256 of the configuration as it was understood, which is another one in other versions of
    /// this program.
    pub configuration_sha256: String,
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
        digests: bool,
    ) -> Result<Self> {
        if let Some(folder) = model.trained_within(options.allowance()) {
            let mut network = Self::from_folder(&folder?, config, None, options, digests)?;
            network.info.name = model.name.to_string();
            network.info.license = model.license.to_string();
            network.info.source = model.source.to_string();
            return Ok(network);
        }
        let config = config.unwrap_or_else(|| model.config().clone());
        let first = registry.map(|all| all.previous_stage(&model.name, &config)).transpose()?;
        let previous = match first.flatten() {
            Some(first) => Some(Box::new(Self::from_model(first, None, None, options, digests)?)),
            None => None,
        };
        model.file().map_or(Ok(()), |file| check_file(file, options))?;
        // Of a file, the digest is known once it was read for the network; ranges have to know before.
        let weights = if config.int8.is_empty() { Vec::new() } else { model.digests()? };
        let ranges = Quantization::of_weights(&config.int8, &weights)
            .map_err(|other| Error::model(&*model.name, other))?;
        let (folds, patch) = (model.folds(), config.patch_size);
        let engine = if folds > 1 {
            let graph = &mut |fold, allowed| model.graph_within(fold, allowed);
            infer::open_folds_within(&model.name, folds, graph, patch, &ranges, options)?
        } else {
            infer::open_with(model, patch, ranges.first(), options)?
        };
        let info = NetworkInfo {
            name: model.name.to_string(),
            configuration: model.configuration.to_owned(),
            grade: config.grade,
            file: model.file().map(Path::to_path_buf),
            license: model.license.to_string(),
            source: model.source.to_string(),
            sha256: model.digests()?,
            configuration_sha256: digest_of(&config),
            device: engine.device().to_owned(),
            precision: engine.precision(),
        };
        Ok(Self { info, config, engine, previous })
    }

    /// A trained folder, with another configuration than its own if there is one; in a cascade with
    /// the folder it refines, or cases must come with its labels.
    pub(super) fn from_folder(
        folder: &Folder,
        config: Option<ModelConfig>,
        previous: Option<&Folder>,
        options: &EngineOptions,
        digests: bool,
    ) -> Result<Self> {
        // It is open as long as its networks are being opened.
        let options = &options.beside(folder.held_bytes());
        let config = config.unwrap_or_else(|| folder.config().clone());
        let name = folder.path().display().to_string();
        let folds = folder.folds().len();
        // Reads all weights, so only where somebody asked for it or ranges could be of others.
        let sha256 = || {
            let wanted = digests || !config.int8.is_empty();
            if wanted { folder.digests() } else { Ok(Vec::new()) }
        };
        let engine = |ranges: &[Quantization]| {
            let graph = &mut |fold, allowed| folder.graph_within(fold, allowed);
            // What it refines is open meanwhile.
            let options = &options.beside(previous.map_or(0, Folder::held_bytes));
            infer::open_folds_within(&name, folds, graph, config.patch_size, ranges, options)
        };
        let (sha256, engine) = if config.int8.is_empty() {
            // A digest is the work of one thread, and takes as long as the rest.
            let (sha256, engine) = rayon::join(sha256, || engine(&[]));
            (sha256?, engine?)
        } else {
            let sha256 = sha256()?;
            let ranges = Quantization::of_weights(&config.int8, &sha256)
                .map_err(|other| Error::model_file(folder.path(), other))?;
            let engine = engine(&ranges)?;
            (sha256, engine)
        };
        let previous = match previous {
            Some(first) => Some(Box::new(Self::from_folder(first, None, None, options, digests)?)),
            None => None,
        };
        let info = NetworkInfo {
            name,
            configuration: folder.configuration().to_string(),
            grade: config.grade,
            file: Some(folder.path().to_path_buf()),
            license: config.license.clone().unwrap_or_default(),
            source: config.source.clone().unwrap_or_default(),
            sha256,
            configuration_sha256: digest_of(&config),
            device: engine.device().to_owned(),
            precision: engine.precision(),
        };
        Ok(Self { info, config, engine, previous })
    }

    /// The same network on another engine, which is opened once its own is gone.
    pub(super) fn on(self, open: impl FnOnce() -> Result<Box<dyn Engine>>) -> Result<Self> {
        let Self { info, config, engine, previous } = self;
        drop(engine);
        let engine = open()?;
        let (device, precision) = (engine.device().to_owned(), engine.precision());
        let info = NetworkInfo { device, precision, ..info };
        Ok(Self { info, config, engine, previous })
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

    /// Runs the network once on nothing, and the stage it refines: a patch, and tiles of an image where
    /// the device takes one.
    pub(super) fn warm(&mut self) -> Result<()> {
        if let Some(first) = &mut self.previous {
            first.warm()?;
        }
        let (patch, channels) = (self.config.patch_size, self.engine.input_channels());
        let nothing = |[z, y, x]: [usize; 3]| Array4::<f32>::zeros((channels, z, y, x));
        self.engine.logits(nothing(patch).view())?;
        // As many tiles as run at once: twice the patch along each axis, or eight slices.
        let shape = if patch[0] == 1 { [8, patch[1], patch[2]] } else { patch.map(|n| 2 * n) };
        let (tiling, weights) = (Tiling::new(shape, patch, 1.0), tile::uniform(patch));
        let (image, passes) = (nothing(shape), [Vec::new()]);
        let tiles = Tiles {
            image: image.view(),
            tiling: &tiling,
            weights: weights.view(),
            passes: &passes,
        };
        self.engine.run_image(tiles, &mut || Ok(())).map(drop)
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

/// What tells a configuration from another one; where the model lies makes none of the difference.
fn digest_of(config: &ModelConfig) -> String {
    let config = ModelConfig { model_path: None, ..config.clone() };
    files::sha256(format!("{config:?}").as_bytes())
}

/// Fails if reading a model's file would hold more than allowed: the file, and the numbers in it.
pub(super) fn check_file(path: &Path, options: &EngineOptions) -> Result<()> {
    // A file that is missing is told of by whoever reads it.
    let bytes = fs::metadata(path).map_or(0, |found| found.len());
    options.allowance().check("reading the model", bytes.saturating_mul(2))
}
