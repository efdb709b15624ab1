//! Measures on scans what int8 needs to know of a model, and how well its labels then agree with
//! those of `f32`.

use super::network::Network;
use super::options::{Options, Source};
use crate::infer::cpu::{Calibrator, CpuEngine, Isa};
use crate::infer::{Device, Engine, EngineOptions, LinearHead, Precision};
use crate::io::Scan;
use crate::model::onnx::Graph;
use crate::model::{Agreement, Quantization};
use crate::pipeline::{Input, OnProgress, Settings};
use crate::registry::{Model, Registry};
use crate::volume::LabelMap;
use crate::{Error, Existing, Result, files};
use ndarray::{Array3, Array4, ArrayView4};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Of how many tiles one is looked at: neighbors overlap and have much the same in them.
const LOOKED_AT: usize = 3;

/// What was measured of a model.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The model's configuration with the ranges in its field `int8`: a JSON file's text.
    pub config_json: String,
    /// The ranges, and how well the labels agree.
    pub quantization: Quantization,
    /// Every structure found in every scan.
    pub structures: Vec<Compared>,
}

impl Calibration {
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
    /// Its volume in `f32`, in millilitres.
    pub volume_ml: f64,
    /// Dice between int8 and `f32`.
    pub dice: f64,
}

/// Measures the network of a model, a [`Source::Model`] or [`Source::Onnx`], on `scans`: once in
/// `f32`, when ranges are collected, and once in int8 by those.
///
/// Of the options, models, instruction set and memory limit count. `progress` hears of the runs one
/// after the other.
///
/// # Errors
///
/// [`Error::Usage`] for another source or no scan, and what [`Segmenter::open_with`] and
/// [`Segmenter::segment`] return.
///
/// [`Segmenter::open_with`]: super::Segmenter::open_with
/// [`Segmenter::segment`]: super::Segmenter::segment
pub fn calibrate(
    source: &Source,
    scans: &[Scan],
    options: &Options,
    progress: &mut OnProgress<'_>,
) -> Result<Calibration> {
    if scans.is_empty() {
        return Err(Error::usage("scans", "none", "one or several"));
    }
    let registry = options.models.as_deref().unwrap_or(Registry::embedded());
    let of_files;
    let model: &Model = match source {
        Source::Model { name, config: None } => registry.find(name).ok_or_else(|| {
            let names: Vec<&str> = registry.models().iter().map(|m| &*m.name).collect();
            Error::usage("model", name, format!("one of {}", names.join(", ")))
        })?,
        Source::Onnx { onnx, config } => {
            of_files = Model::from_files(onnx, config)?;
            &of_files
        }
        _ => return Err(Error::usage("what to calibrate", format!("{source:?}"), "a model")),
    };
    if model.config().grid.is_some() {
        let expected = "a model that runs on the image's own grid";
        return Err(Error::usage("what to calibrate", model.name.clone(), expected));
    }
    let isa = options.isa.unwrap_or_else(Isa::best);
    // What an earlier run wrote may be of other weights.
    let mut config = model.config().clone();
    config.int8 = None;
    let patch = config.patch_size;
    let graph = || -> Result<Graph> { Ok(Graph::decode(model.onnx()?)?) };
    let plain = EngineOptions {
        device: Device::Cpu,
        precision: Some(Precision::F32),
        isa: Some(isa),
        ..EngineOptions::default()
    };
    let open = || Network::from_model(model, Some(config.clone()), Some(registry), &plain);
    let settings = Settings {
        isa: Some(isa),
        memory_limit_bytes: options.memory_limit_bytes,
        ..Settings::default()
    };
    let mut run = |network: &mut Network, scan: &Scan| -> Result<LabelMap> {
        let mut input = Some(Input::from(scan));
        Ok(network.segment(&mut input, &settings, &mut Vec::new(), progress)?.labels)
    };

    let calibrator = Arc::new(Mutex::new(Calibrator::new(graph()?, patch, isa)?));
    let mut watched = open()?.on(Box::new(Watched::new(&calibrator)));
    let exact = scans.iter().map(|scan| run(&mut watched, scan)).collect::<Result<Vec<_>>>()?;
    drop(watched);
    let calibrator = Arc::into_inner(calibrator).map(Mutex::into_inner);
    let Some(calibrator) = calibrator else { unreachable!("the network that shared it is gone") };
    let mut quantization = calibrator.unwrap_or_else(PoisonError::into_inner).finish();

    let ranges = std::slice::from_ref(&quantization);
    let engine = CpuEngine::open_quantized(&mut |_| graph(), patch, isa, ranges)?;
    let mut rounded = open()?.on(Box::new(engine));
    let mut structures = Vec::new();
    for (k, (scan, exact)) in scans.iter().zip(&exact).enumerate() {
        let found = run(&mut rounded, scan)?;
        let voxel_ml = scan.grid().spacing.iter().product::<f64>() / 1000.0;
        structures.extend(compared(exact, &found).into_iter().map(|(id, voxels, dice)| Compared {
            scan: k,
            name: config.label_name(id),
            volume_ml: voxels as f64 * voxel_ml,
            dice,
        }));
    }
    quantization.weights_sha256 = model.facts()?.sha256.to_string();
    quantization.agreement = agreement(scans.len(), &structures);
    let config_json = quantization.written_into(model.config_json())?;
    Ok(Calibration { config_json, quantization, structures })
}

/// Mean and least Dice; `None` if nothing was found.
fn agreement(scans: usize, structures: &[Compared]) -> Option<Agreement> {
    let sum: f64 = structures.iter().map(|structure| structure.dice).sum();
    let large = structures.iter().filter(|s| s.volume_ml >= Agreement::LEAST_VOLUME_ML);
    let least_dice = large.map(|structure| structure.dice).min_by(f64::total_cmp)?;
    Some(Agreement { scans, mean_dice: sum / structures.len() as f64, least_dice })
}

/// Label, voxels of it in `exact`, and Dice, of every label that occurs in one of the two.
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
        (a + b > 0).then(|| (label as u16, a, 2.0 * both[label] as f64 / (a + b) as f64))
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
        let engine = known.plain();
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
        calibrator.plain().memory_bytes(threads)
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let mut calibrator = self.calibrator.lock().unwrap_or_else(PoisonError::into_inner);
        self.tiles += 1;
        if self.tiles % LOOKED_AT == 1 {
            calibrator.run(input, output)
        } else {
            calibrator.engine().run(input, output)
        }
    }
}
