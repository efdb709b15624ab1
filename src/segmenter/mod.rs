//! One or several networks with all that turns a case into a finished label map: the stages of
//! a cascade, parts that are merged, the choice of structures, and postprocessing.
//!
//! Images come from [`io`](crate::io) or from the caller; a [`LabelMap`] on the same grid
//! leaves. Weights are loaded once and serve every case.

mod network;

pub use network::{Network, NetworkInfo};

use crate::infer::EngineOptions;
use crate::model::registry::Registry;
use crate::model::{
    Grade, Label, LabelSubset, Model, ModelConfig, Reader, Selection, merge_labels,
};
use crate::nnunet::Folder;
use crate::pipeline::plan::BASE_BYTES;
use crate::pipeline::postprocess::{Recipe, Report};
use crate::pipeline::{Case, Evidence, Memory, Options, Progress, Timings};
use crate::volume::{Grid, LabelMap};
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Networks ready to segment case after case.
pub struct Segmenter {
    parts: Vec<Part>,
    /// The structures that can come out.
    labels: Vec<Label>,
    /// Structures that only the recipe sees.
    context: Vec<Label>,
    recipe: Recipe,
}

/// A network, and what becomes of its labels.
struct Part {
    network: Network,
    subset: Option<LabelSubset>,
}

/// A finished case.
#[derive(Debug)]
pub struct Outcome {
    /// The labels, on the grid of the images.
    pub labels: LabelMap,
    /// How each network ran, in order; the stages of a cascade one by one.
    pub runs: Vec<Run>,
    /// What postprocessing changed.
    pub report: Report,
    /// What the last network gave, if [`Options::keep_evidence`] asked for it.
    pub evidence: Option<Evidence>,
    /// Wall time of postprocessing.
    pub postprocess_time: Duration,
}

/// How one network ran on one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Name of the model.
    pub model: String,
    /// Grid the network ran on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Voxels per tile, `[z, y, x]`.
    pub patch_size: [usize; 3],
    /// Tiles per pass and passes per tile (mirrored ones included).
    pub tiles: (usize, usize),
    /// Memory expected before the run.
    pub predicted: Memory,
    /// Wall time per stage.
    pub timings: Timings,
}

impl Segmenter {
    /// A single model; in a cascade with the model it refines, which comes from `registry`.
    ///
    /// Without a `registry`, cases of a cascade must come with the previous stage's labels.
    /// `config` replaces the model's own configuration.
    ///
    /// # Errors
    ///
    /// Those of [`infer::open`](crate::infer::open), and [`Error::Model`] if the model it
    /// refines is not installed.
    pub fn from_model(
        model: &Model,
        config: Option<ModelConfig>,
        registry: Option<&Registry>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let network = Network::from_model(model, config, registry, options)?;
        Ok(Self::alone(network))
    }

    fn alone(network: Network) -> Self {
        let labels = network.config().labels.clone();
        let parts = vec![Part { network, subset: None }];
        Self { parts, labels, context: Vec::new(), recipe: Recipe::default() }
    }

    /// The models that answer a mode. Applies no recipe: see
    /// [`postprocess_with`](Self::postprocess_with).
    ///
    /// # Errors
    ///
    /// As [`from_model`](Self::from_model).
    pub fn from_selection(
        selection: &Selection,
        registry: &Registry,
        options: &EngineOptions,
    ) -> Result<Self> {
        let part = |part: &crate::model::SelectedPart| {
            let network = Network::from_model(&part.model, None, Some(registry), options)?;
            Ok(Part { network, subset: Some(part.whole.clone()) })
        };
        Ok(Self {
            parts: selection.parts.iter().map(part).collect::<Result<_>>()?,
            labels: selection.labels.clone(),
            context: selection.context.clone(),
            recipe: Recipe::default(),
        })
    }

    /// A trained folder of nnU-Net; in a cascade with the folder it refines, `previous`.
    ///
    /// Without `previous`, cases of a cascade must come with the previous stage's labels. Applies
    /// no recipe: see [`postprocess_with`](Self::postprocess_with).
    ///
    /// # Errors
    ///
    /// [`Error::Model`] naming the file and what in it cannot be used.
    pub fn from_folder(
        folder: &Folder,
        previous: Option<&Folder>,
        options: &EngineOptions,
    ) -> Result<Self> {
        let network = Network::from_folder(folder, previous, options)?;
        Ok(Self::alone(network))
    }

    /// Applies `recipe` to every result from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the step whose structures these networks do not have.
    pub fn postprocess_with(&mut self, recipe: Recipe) -> Result<()> {
        recipe.check(&self.seen())?;
        self.recipe = recipe;
        Ok(())
    }

    /// What the recipe works on, by id: the same however few of them remain in the end.
    fn seen(&self) -> Vec<Label> {
        let mut seen = [&self.labels[..], &self.context].concat();
        seen.sort_by_key(|label| label.id);
        seen
    }

    /// The structures that can come out, with the ids they have in the result.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The networks, in the order they run.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.parts.iter().map(|part| &part.network)
    }

    /// How much the least trusted of the networks may be trusted.
    #[must_use]
    pub fn grade(&self) -> Grade {
        self.networks().map(|network| network.info().grade).min().unwrap_or_default()
    }

    /// How the reference reads files for these networks.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        self.parts[0].network.config().reader
    }

    /// Images per case.
    #[must_use]
    pub fn images(&self) -> usize {
        self.parts[0].network.config().channels.len()
    }

    /// Bytes that the program and the networks, all of which stay open, hold between two cases.
    #[must_use]
    pub fn idle_bytes(&self) -> u64 {
        BASE_BYTES + self.networks().map(Network::memory_bytes).sum::<u64>()
    }

    /// Segments one case.
    ///
    /// A case of a cascade that comes with the previous stage's labels does not run that stage.
    /// `progress` is as in [`pipeline::segment`](crate::pipeline::segment).
    ///
    /// # Errors
    ///
    /// Those of [`pipeline::segment`](crate::pipeline::segment) and of the recipe.
    pub fn segment(
        &mut self,
        case: Case,
        options: &Options,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Outcome> {
        let grid: Grid = case.grid.clone();
        let mut case = Some(case);
        let last = self.parts.len() - 1;
        let (mut labels, mut runs, mut evidence) = (None::<LabelMap>, Vec::new(), None);
        let networks = self.idle_bytes() - BASE_BYTES;
        for (k, part) in self.parts.iter_mut().enumerate() {
            // Networks normalize in place; only the last one may have the images themselves.
            let images = if k == last { case.take() } else { case.clone() };
            let Some(images) = images else { unreachable!("taken by the last part only") };
            let others = networks - part.network.memory_bytes();
            let kept = case.as_ref().map_or(0, Case::image_bytes)
                + labels.as_ref().map_or(0, LabelMap::bytes)
                + others;
            let options = Options { held_bytes: options.held_bytes + kept, ..options.clone() };
            let mut found = part.network.segment(images, &options, &mut runs, progress)?;
            if let Some(subset) = &part.subset {
                subset.apply(&mut found.labels);
            }
            evidence = found.evidence;
            match &mut labels {
                None => labels = Some(found.labels),
                Some(labels) => merge_labels(labels, &found.labels),
            }
        }
        let Some(mut labels) = labels else {
            return Err(Error::Usage {
                what: "networks".into(),
                found: "none".into(),
                expected: "at least one".into(),
            });
        };
        let started = Instant::now();
        let report = if self.recipe.is_empty() {
            Report::default()
        } else {
            self.recipe.apply(&mut labels, &grid, &self.seen())?
        };
        if !self.context.is_empty() {
            let all = self.labels.iter().chain(&self.context).map(|label| label.id).max();
            LabelSubset::by_ids(1..=all.unwrap_or(0)).keeping(&self.labels).apply(&mut labels);
        }
        Ok(Outcome { labels, runs, report, evidence, postprocess_time: started.elapsed() })
    }
}
