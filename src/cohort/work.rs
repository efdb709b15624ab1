//! What a case costs, told by the headers of its images before anything is opened.

use crate::model::ModelConfig;
use crate::model::network::Network;
use crate::model::onnx::Graph;
use crate::nnunet::Folder;
use crate::pipeline::{Settings, runs_over};
use crate::registry::{Model, Registry, Request};
use crate::segmenter::{Options, Quality, Source};
use crate::volume::Grid;
use crate::{Error, Mismatch, Result};

/// What a voxel of an image takes besides, in multiply-adds: it is read, resampled, labeled and written.
/// A core that makes 40 billion of them a second takes 50 ns for a voxel.
const PER_VOXEL: u64 = 2_000;

/// Models that find parts of images for each other.
const MOST_DEPTH: usize = 3;

/// The networks that answer a request, and what each takes.
///
/// It is the same on every machine, whatever that one's memory and devices would have it choose: runs on
/// several machines have to share cases out in the same way.
#[derive(Clone, Debug)]
pub struct Work {
    networks: Vec<Counted>,
    settings: Settings,
}

/// A network and its multiply-adds for one patch, all folds together.
#[derive(Clone, Debug)]
struct Counted {
    config: ModelConfig,
    multiply_adds: u64,
}

impl Work {
    /// Of the networks that answer `source` where there is memory enough for any.
    ///
    /// # Errors
    ///
    /// As [`Segmenter::open_with`](crate::Segmenter::open_with), of devices and memory none.
    pub fn of(source: &Source, options: &Options) -> Result<Self> {
        let registry = options.models.as_deref().unwrap_or(Registry::embedded());
        let mut counting = Counting { registry, robust: options.robust_crop, networks: Vec::new() };
        match source {
            Source::Mode(mode) => {
                let request = Request {
                    mode,
                    quality: options.quality.map(Quality::name),
                    variant: options.variant.as_deref(),
                };
                let mut selection = registry.select(&request, &mut |_| Ok(true))?;
                if !options.structures.is_empty() {
                    selection.keep_only(&options.structures)?;
                }
                for part in &selection.parts {
                    counting.model(&part.model, None, 0)?;
                }
            }
            Source::Model { name, config } => {
                let model = registry.find(name).ok_or_else(|| {
                    Error::usage("model", name, "one that `fastnnunet models` lists")
                })?;
                counting.model(model, config.as_deref().map(read_config).transpose()?, 0)?;
            }
            Source::Onnx { onnx, config } => {
                counting.model(&Model::from_files(onnx, config)?, None, 0)?;
            }
            Source::Folder { path, config } => {
                let folder = Folder::open(path, &options.folds, options.checkpoint.as_deref())?;
                if let Some(first) = folder.previous_stage().filter(|first| first.is_dir()) {
                    let first = Folder::open(&first, &options.folds, options.checkpoint.as_deref());
                    counting.folder(&first?, None)?;
                }
                counting.folder(&folder, config.as_deref().map(read_config).transpose()?)?;
            }
        }
        let settings = Settings {
            mirror: options.mirror,
            step_size: options.step_size,
            ..Settings::default()
        };
        Ok(Self { networks: counting.networks, settings })
    }

    /// What an image on this grid takes, in multiply-adds. Where a task looks for the part of the image
    /// that matters, as if that were all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Volume`] if a model cannot take such an image.
    pub fn multiply_adds(&self, grid: &Grid) -> Result<u64> {
        let mut sum = 0_u64;
        for Counted { config, multiply_adds } in &self.networks {
            let runs = runs_over(grid, config, &self.settings)?;
            sum = sum.saturating_add(runs.saturating_mul(*multiply_adds));
        }
        Ok(sum)
    }

    /// The same with what is done around the networks, for each voxel of the image.
    ///
    /// # Errors
    ///
    /// As [`multiply_adds`](Self::multiply_adds).
    pub fn cost(&self, grid: &Grid) -> Result<u64> {
        let voxels: u64 = grid.shape.iter().map(|&n| n as u64).product();
        Ok(self.multiply_adds(grid)?.saturating_add(voxels.saturating_mul(PER_VOXEL)))
    }
}

/// Collects the networks.
struct Counting<'a> {
    registry: &'a Registry,
    robust: bool,
    networks: Vec<Counted>,
}

impl Counting<'_> {
    /// A model, what it refines, and what finds and draws for it.
    fn model(&mut self, model: &Model, config: Option<ModelConfig>, depth: usize) -> Result<()> {
        if let Some(folder) = model.trained() {
            return self.folder(&folder?, config);
        }
        let config = config.unwrap_or_else(|| model.config().clone());
        if depth < MOST_DEPTH {
            let (registry, crop) = (self.registry, config.rough_crop.as_ref());
            let mut rough = crop.into_iter().flat_map(|crop| &crop.models);
            let mut installed = rough.by_ref().filter_map(|name| registry.find(name));
            // From coarse to fine.
            let rough = if self.robust { installed.last() } else { installed.next() };
            let refine = config.refine.as_ref().and_then(|refine| registry.find(&refine.model));
            let first = registry.previous_stage(&model.name, &config)?;
            for helper in [rough, refine, first].into_iter().flatten() {
                self.model(helper, None, depth + 1)?;
            }
        }
        self.add(config, model.graph(0)?, model.folds())
            .map_err(|what| Error::model(&*model.name, what))
    }

    fn folder(&mut self, folder: &Folder, config: Option<ModelConfig>) -> Result<()> {
        let config = config.unwrap_or_else(|| folder.config().clone());
        self.add(config, folder.graph(0)?, folder.folds().len())
            .map_err(|what| Error::model_file(folder.path(), what))
    }

    /// A network of so many folds, of which the first is given: the others are like it.
    fn add(&mut self, config: ModelConfig, graph: Graph, folds: usize) -> Result<(), Mismatch> {
        let network = Network::new(graph, config.patch_size)?;
        let multiply_adds = network.multiply_adds().saturating_mul(folds as u64);
        self.networks.push(Counted { config, multiply_adds });
        Ok(())
    }
}

fn read_config(path: &std::path::Path) -> Result<ModelConfig> {
    let text = crate::registry::read_json(path)?;
    ModelConfig::from_json(&text).map_err(|what| Error::model_file(path, what))
}
