//! Measures on scans what int8 needs to know of a model, and how well its labels then agree with
//! those of `f32`.

use super::answer;
use super::network::{Network, check_file};
use super::options::{Options, Source};
use crate::infer::cpu::{Calibrator, CpuEngine, Isa};
use crate::infer::{Device, Engine, EngineOptions, LinearHead, Precision};
use crate::io::{ReadOptions, Scan};
use crate::model::onnx::Graph;
use crate::model::{Agreement, ModelConfig, Quantization};
use crate::nnunet::Folder;
use crate::pipeline::{BASE_BYTES, Input, OnProgress, Settings};
use crate::registry::{Model, Registry};
use crate::volume::LabelMap;
use crate::{Error, Existing, Result, files};
use ndarray::{Array3, Array4, ArrayView4};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Of how many tiles one is looked at: neighbors overlap and have much the same in them.
const LOOKED_AT: usize = 3;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The configuration with the ranges in its field `int8`: a JSON file's text.
    pub config_json: String,
    /// The ranges of each fold.
    pub folds: Vec<Quantization>,
    /// How well the labels agree; `None` if nothing was found.
    pub agreement: Option<Agreement>,
    /// Every structure found in every scan.
    pub structures: Vec<Compared>,
}

impl Calibration {
    /// Checks, before hours of measuring depend on it, that [`save`](Self::save) could write there.
    ///
    /// # Errors
    ///
    /// Those of [`save`](Self::save), as far as they can be foreseen.
    pub fn check_output(path: impl AsRef<Path>, existing: Existing) -> Result<()> {
        files::Target::new(path.as_ref(), existing).check()
    }

    /// Writes the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if it cannot be written, or is there and to be kept.
    pub fn save(&self, path: impl AsRef<Path>, existing: Existing) -> Result<()> {
        files::Target::new(path.as_ref(), existing).write_bytes(self.config_json.as_bytes())
    }
}

/// One structure in one scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Which of the scans.
    pub scan: usize,
    /// Its name.
    pub name: String,
    /// Its volume in `f32` or int8, where it is larger, in millilitres.
    pub volume_ml: f64,
    /// Dice between int8 and `f32`.
    pub dice: f64,
}

/// What is measured: a model of its own files, or a training.
pub struct Uncalibrated {
    weights: Weights,
    config: ModelConfig,
    config_json: String,
    options: Options,
}

/// Where the networks come from.
enum Weights {
    Model(Box<Model>),
    /// And in a cascade the training it refines.
    Trained(Box<Folder>, Option<Box<Folder>>),
}

impl Uncalibrated {
    /// Opens all but the weights. Of the options, models, folds, checkpoint, instruction set and
    /// memory limit count.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a mode, a model with another configuration than its own or folds of
    /// what is no folder, and what [`Segmenter::open_with`](super::Segmenter::open_with) returns.
    pub fn open(source: &Source, options: &Options) -> Result<Self> {
        let mut uncalibrated = match source {
            Source::Model { name, config: None } => {
                let registry = options.models.as_deref().unwrap_or(Registry::embedded());
                Self::of_model(answer::named(registry, name)?, options)?
            }
            Source::Onnx { onnx, config } => {
                check_file(onnx, &plain(options, 0))?;
                Self::of_model(&Model::from_files(onnx, config)?, options)?
            }
            Source::Folder { path, config: None } => {
                let (folder, first) =
                    answer::trained(path, options, plain(options, 0).allowance())?;
                Self::of_folder(folder, first, options)
            }
            _ => {
                let expected =
                    "a model, an ONNX file or a trained folder with its own configuration";
                return Err(Error::usage("what to calibrate", said(source), expected));
            }
        };
        let is_folder = matches!(source, Source::Folder { .. });
        if !is_folder {
            options.check_no_training("a model")?;
        }
        if uncalibrated.config.grid.is_some() {
            let expected = "a model that runs on the image's own grid";
            return Err(Error::usage("what to calibrate", said(source), expected));
        }
        // What an earlier run wrote may be of other weights.
        uncalibrated.config.int8 = Vec::new();
        Ok(uncalibrated)
    }

    fn of_model(model: &Model, options: &Options) -> Result<Self> {
        if let Some(folder) = model.trained_within(plain(options, 0).allowance()) {
            return Ok(Self::of_folder(folder?, None, options));
        }
        Ok(Self {
            config: model.config().clone(),
            config_json: model.config_json().to_owned(),
            weights: Weights::Model(Box::new(model.clone())),
            options: options.clone(),
        })
    }

    fn of_folder(folder: Folder, first: Option<Folder>, options: &Options) -> Self {
        Self {
            config: folder.config().clone(),
            config_json: folder.config_json(None),
            weights: Weights::Trained(Box::new(folder), first.map(Box::new)),
            options: options.clone(),
        }
    }

    /// How scans are read for it.
    #[must_use]
    pub fn read_options(&self) -> ReadOptions {
        super::read_options(&self.config, &self.options)
    }

    /// Measures the networks on `scans`: once in `f32`, when the ranges of each fold are collected,
    /// and once in int8 by those. `progress` hears of the runs one after the other. All scans and their
    /// labels are held at once, and count towards the memory limit.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for no scan, and what
    /// [`Segmenter::segment`](super::Segmenter::segment) returns.
    pub fn measure(&self, scans: &[Scan], progress: &mut OnProgress<'_>) -> Result<Calibration> {
        if scans.is_empty() {
            return Err(Error::usage("scans", "none", "one or several"));
        }
        let images: u64 = scans.iter().map(|scan| scan.voxels().bytes()).sum();
        let (exact, mut folds) = self.ranges(scans, images, progress)?;
        let held = images + exact.iter().map(LabelMap::bytes).sum::<u64>();
        let (patch, isa) = (self.config.patch_size, isa(&self.options));
        let mut rounded = self.network(held)?.on(|| {
            let graph = &mut |fold| self.graph(fold);
            Ok(Box::new(CpuEngine::open_quantized(graph, patch, isa, &folds)?))
        })?;
        let mut structures = Vec::new();
        for (k, (scan, exact)) in scans.iter().zip(&exact).enumerate() {
            let found = self.labels(&mut rounded, scan, held, progress)?;
            let voxel_ml = scan.grid().voxel_ml();
            let all = compared(exact, &found).into_iter();
            structures.extend(all.map(|(id, voxels, dice)| Compared {
                scan: k,
                name: self.config.label_name(id),
                volume_ml: voxels as f64 * voxel_ml,
                dice,
            }));
        }
        let agreement = agreement(scans.len(), &structures);
        for (fold, sha256) in folds.iter_mut().zip(self.digests()?) {
            (fold.weights_sha256, fold.agreement) = (sha256, agreement);
        }
        let config_json = Quantization::written_into(&folds, &self.config_json)?;
        Ok(Calibration { config_json, folds, agreement, structures })
    }

    /// The labels of every scan in `f32`, and the ranges of each fold; the scans hold `images` bytes.
    fn ranges(
        &self,
        scans: &[Scan],
        images: u64,
        progress: &mut OnProgress<'_>,
    ) -> Result<(Vec<LabelMap>, Vec<Quantization>)> {
        let (patch, isa) = (self.config.patch_size, isa(&self.options));
        let mut collected = None;
        let mut watched = self.network(images)?.on(|| {
            let graph = &mut |fold| self.graph(fold);
            let calibrator =
                Arc::new(Mutex::new(Calibrator::new(self.folds(), graph, patch, isa)?));
            let engine = Watched::new(&calibrator);
            collected = Some(calibrator);
            Ok(Box::new(engine))
        })?;
        let (mut exact, mut held) = (Vec::new(), images);
        for scan in scans {
            let labels = self.labels(&mut watched, scan, held, progress)?;
            held += labels.bytes();
            exact.push(labels);
        }
        drop(watched);
        let Some(calibrator) = collected.and_then(Arc::into_inner) else {
            unreachable!("the network that shared it is gone")
        };
        let calibrator = calibrator.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((exact, calibrator.finish()))
    }

    fn folds(&self) -> usize {
        match &self.weights {
            Weights::Model(model) => model.folds(),
            Weights::Trained(folder, _) => folder.folds().len(),
        }
    }

    fn graph(&self, fold: usize) -> Result<Graph> {
        match &self.weights {
            Weights::Model(model) => model.graph(fold),
            Weights::Trained(folder, _) => folder.graph(fold),
        }
    }

    fn digests(&self) -> Result<Vec<String>> {
        match &self.weights {
            Weights::Model(model) => model.digests(),
            Weights::Trained(folder, _) => folder.digests(),
        }
    }

    /// The network in `f32`, with the one that it refines, opened where `held` bytes are held. Those
    /// that take its place hold no more.
    fn network(&self, held: u64) -> Result<Network> {
        let plain = plain(&self.options, held);
        let config = Some(self.config.clone());
        match &self.weights {
            Weights::Model(model) => {
                let registry = self.options.models.as_deref().unwrap_or(Registry::embedded());
                Network::from_model(model, config, Some(registry), &plain, false)
            }
            Weights::Trained(folder, first) => {
                Network::from_folder(folder, config, first.as_deref(), &plain, false)
            }
        }
    }

    /// The labels of a scan, which is part of the `held` bytes.
    fn labels(
        &self,
        network: &mut Network,
        scan: &Scan,
        held: u64,
        progress: &mut OnProgress<'_>,
    ) -> Result<LabelMap> {
        let others = held - scan.voxels().bytes();
        let settings = Settings {
            isa: Some(isa(&self.options)),
            memory_limit_bytes: self.options.memory_limit_bytes,
            held_bytes: self.options.held_bytes.saturating_add(others),
            ..Settings::default()
        };
        let mut input = Some(Input::from(scan));
        Ok(network.segment(&mut input, &settings, &mut Vec::new(), progress)?.labels)
    }
}

fn isa(options: &Options) -> Isa {
    options.isa.unwrap_or_else(Isa::best)
}

/// An engine in `f32`, opened where `held` bytes are held.
fn plain(options: &Options, held: u64) -> EngineOptions {
    EngineOptions {
        device: Device::Cpu,
        precision: Some(Precision::F32),
        isa: Some(isa(options)),
        memory_limit_bytes: options.memory_limit_bytes,
        held_bytes: (BASE_BYTES + options.held_bytes).saturating_add(held),
        ..EngineOptions::default()
    }
}

/// What was asked for, in the user's words.
fn said(source: &Source) -> String {
    let other =
        |config: &Option<_>| if config.is_some() { " with another configuration" } else { "" };
    match source {
        Source::Mode(name) => format!("mode {name}"),
        Source::Model { name, config } => format!("{name}{}", other(config)),
        Source::Onnx { onnx, .. } => onnx.display().to_string(),
        Source::Folder { path, config } => format!("{}{}", path.display(), other(config)),
    }
}

/// Mean and least Dice; `None` if nothing of a millilitre was found.
fn agreement(scans: usize, structures: &[Compared]) -> Option<Agreement> {
    let sum: f64 = structures.iter().map(|structure| structure.dice).sum();
    let large = structures.iter().filter(|s| s.volume_ml >= Agreement::LEAST_VOLUME_ML);
    let least_dice = large.map(|structure| structure.dice).min_by(f64::total_cmp)?;
    Some(Agreement { scans, mean_dice: sum / structures.len() as f64, least_dice })
}

/// Label, voxels of it in the one that has more, and Dice, of every label that occurs in one of the two.
fn compared(exact: &LabelMap, found: &LabelMap) -> Vec<(u16, u64, f64)> {
    fn common<T: Copy + PartialEq + Into<u16>>(a: &Array3<T>, b: &Array3<T>, counts: &mut [u64]) {
        for (a, b) in a.iter().zip(b) {
            if a == b {
                counts[usize::from((*a).into())] += 1;
            }
        }
    }
    let (ours, theirs) = (exact.counts(), found.counts());
    let mut both = vec![0; ours.len().max(theirs.len())];
    match (exact, found) {
        (LabelMap::U8(a), LabelMap::U8(b)) => common(a, b, &mut both),
        (LabelMap::U16(a), LabelMap::U16(b)) => common(a, b, &mut both),
        _ => unreachable!("one network has one kind of labels"),
    }
    let dice = |label: usize| {
        let (a, b) = (ours[label], theirs[label]);
        (a + b > 0).then(|| (label as u16, a.max(b), 2.0 * both[label] as f64 / (a + b) as f64))
    };
    (1..both.len()).filter_map(dice).collect()
}

/// The network in `f32`, while ranges are collected.
struct Watched {
    calibrator: Arc<Mutex<Calibrator>>,
    device: String,
    channels: (usize, usize),
    tiles: usize,
}

impl Watched {
    fn new(calibrator: &Arc<Mutex<Calibrator>>) -> Self {
        let known = calibrator.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = known.engine();
        let channels = (engine.input_channels(), engine.output_channels());
        let device = engine.device().to_owned();
        drop(known);
        Self { calibrator: Arc::clone(calibrator), device, channels, tiles: 0 }
    }
}

impl Engine for Watched {
    fn device(&self) -> &str {
        &self.device
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn input_channels(&self) -> usize {
        self.channels.0
    }

    fn output_channels(&self) -> usize {
        self.channels.1
    }

    fn head(&self) -> Option<&LinearHead> {
        None
    }

    fn memory_bytes(&self, threads: usize) -> u64 {
        let calibrator = self.calibrator.lock().unwrap_or_else(PoisonError::into_inner);
        calibrator.engine().memory_bytes(threads)
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let mut calibrator = self.calibrator.lock().unwrap_or_else(PoisonError::into_inner);
        self.tiles += 1;
        if self.tiles % LOOKED_AT == 1 {
            calibrator.run(input, output)
        } else {
            calibrator.engine_mut().run(input, output)
        }
    }
}
