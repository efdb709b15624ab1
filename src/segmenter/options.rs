//! What a user may choose: what is segmented, by which models, and how they run.

use super::names::Names;
use crate::infer::cpu::Isa;
use crate::infer::{Device, Precision};
use crate::nnunet::Folds;
use crate::pipeline::BASE_BYTES;
use crate::pipeline::postprocess::Recipe;
use crate::registry::Registry;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// What does the segmenting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A mode such as `bone`: the best of its models that is installed and fits.
    Mode(String),
    /// A model by name.
    Model {
        /// As in the list of models.
        name: String,
        /// A configuration in place of the model's own.
        config: Option<PathBuf>,
    },
    /// An ONNX file.
    Onnx {
        /// The network.
        onnx: PathBuf,
        /// Its configuration, a JSON file.
        config: PathBuf,
    },
    /// A trained folder of nnU-Net v2.
    Folder {
        /// The folder with `plans.json`, `dataset.json` and folds.
        path: PathBuf,
        /// A configuration in place of the folder's own.
        config: Option<PathBuf>,
    },
}

impl From<&str> for Source {
    fn from(mode: &str) -> Self {
        Self::Mode(mode.to_owned())
    }
}

impl From<String> for Source {
    fn from(mode: String) -> Self {
        Self::Mode(mode)
    }
}

impl From<&Path> for Source {
    fn from(folder: &Path) -> Self {
        Self::Folder { path: folder.to_path_buf(), config: None }
    }
}

/// How fine the grid of a mode's model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// For an overview.
    Lowest,
    /// A coarse grid, in little time.
    Low,
    /// Between the two.
    Medium,
    /// The finest grid.
    High,
}

impl Quality {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lowest => "lowest",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl FromStr for Quality {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        let all = [Self::Lowest, Self::Low, Self::Medium, Self::High];
        let found = all.into_iter().find(|quality| quality.name() == text);
        found.ok_or_else(|| crate::Error::usage("quality", text, "lowest, low, medium or high"))
    }
}

/// How a result is cleaned up.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Postprocessing {
    /// By the mode's own recipe, the one a model's configuration names, or the rule found in a
    /// trained folder.
    #[default]
    Own,
    /// Not at all.
    None,
    /// By this recipe.
    Recipe(Recipe),
}

/// How the labels of a task with a grid of its own come to the image's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelsBack {
    /// As the task does it: TotalSegmentator's take the label of the nearest voxel.
    #[default]
    Own,
    /// As nnU-Net does it: the network's logits come to the image's grid, and labels are read off
    /// there. Borders are smoother; it takes longer, and is another result than the task's.
    Smooth,
}

/// Where a cascade's second stage gets the labels it refines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PreviousStage {
    /// From the model it names, or from the trained folder beside it.
    #[default]
    Own,
    /// From another trained folder.
    Folder(PathBuf),
    /// From the caller, with every case.
    Given,
}

/// Which models answer, and how they run. What is not set is left to mode and model.
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Grid of a mode that offers several; `None` for the finest of the best grade that is
    /// installed and fits.
    pub quality: Option<Quality>,
    /// Set of structures of a mode that offers several; `None` for the first.
    pub variant: Option<String>,
    /// Structures of a mode to keep, by name; one that ends in `*` stands for all that begin so.
    /// Empty for all. Models that label none of them do not run.
    pub structures: Vec<String>,
    /// Divide bone into cortical and trabecular bone, in a mode that can.
    pub divide_bone: bool,
    /// The models there are; `None` for those inside the program.
    pub models: Option<Arc<Registry>>,
    /// Folds of a trained folder whose logits are averaged.
    pub folds: Folds,
    /// File of a trained folder's weights; `None` for `checkpoint_final.pth`, else
    /// `checkpoint_best.pth`.
    pub checkpoint: Option<String>,
    /// What a cascade refines.
    pub previous_stage: PreviousStage,
    /// How the result is cleaned up.
    pub postprocessing: Postprocessing,
    /// How labels of a task with a grid of its own come to the image's.
    pub labels: LabelsBack,
    /// What structures are called in the result.
    pub names: Names,
    /// Find the part of the image that matters by the finest model that a task allows for it.
    pub robust_crop: bool,
    /// Where networks run.
    pub device: Device,
    /// What they multiply in; `None` for bf16 where the CPU multiplies that, else f32.
    pub precision: Option<Precision>,
    /// Highest instruction set used; `None` for the CPU's best.
    pub isa: Option<Isa>,
    /// Threads; `None` for those of the rayon pool that the call is made in.
    pub threads: Option<usize>,
    /// Bytes of memory a case may hold; more is an error, or the next smaller model of the mode.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes that the program around the library holds for itself, which that limit counts and what
    /// is predicted includes.
    pub held_bytes: u64,
    /// Whether a picture of each result will be drawn ([`Segmentation::preview`](super::Segmentation::preview)),
    /// which that limit counts too.
    pub picture: bool,
    /// Bytes of a GPU's memory to plan with; `None` for what is free.
    pub gpu_memory_limit_bytes: Option<u64>,
    /// Axes flipped for test-time averaging, of the network's `[z, y, x]`.
    pub mirror: Option<[bool; 3]>,
    /// Distance between tiles as a fraction of the patch, from 0.01 to 1.
    pub step_size: Option<f64>,
    /// Weight tiles by a Gaussian (or all voxels alike).
    pub gaussian: Option<bool>,
    /// Treat tiles that hold nothing denser than -400 HU as air, whose answer is computed once.
    /// Faster where much of a scan is air; models of CTs only.
    pub skip_air: bool,
    /// Keep what is needed to write class probabilities.
    pub keep_probabilities: bool,
    /// Hash the files of a trained folder, for [`NetworkInfo::sha256`](super::NetworkInfo::sha256).
    pub digests: bool,
}

/// A setter that gives the options back.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($value:ident: $type:ty) => $stored:expr;)*) => {
        impl Options {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $value: $type) -> Self {
                self.$name = $stored;
                self
            })*
        }
    };
}

setters! {
    /// Sets [`quality`](Self#structfield.quality).
    quality(value: Quality) => Some(value);
    /// Sets [`variant`](Self#structfield.variant).
    variant(value: impl Into<String>) => Some(value.into());
    /// Sets [`structures`](Self#structfield.structures).
    structures(value: impl IntoIterator<Item = impl Into<String>>) => value.into_iter().map(Into::into).collect();
    /// Sets [`divide_bone`](Self#structfield.divide_bone).
    divide_bone(value: bool) => value;
    /// Sets [`models`](Self#structfield.models).
    models(value: impl Into<Arc<Registry>>) => Some(value.into());
    /// Sets [`folds`](Self#structfield.folds).
    folds(value: Folds) => value;
    /// Sets [`checkpoint`](Self#structfield.checkpoint).
    checkpoint(value: impl Into<String>) => Some(value.into());
    /// Sets [`previous_stage`](Self#structfield.previous_stage).
    previous_stage(value: PreviousStage) => value;
    /// Sets [`postprocessing`](Self#structfield.postprocessing).
    postprocessing(value: Postprocessing) => value;
    /// Sets [`labels`](Self#structfield.labels).
    labels(value: LabelsBack) => value;
    /// Sets [`names`](Self#structfield.names).
    names(value: Names) => value;
    /// Sets [`robust_crop`](Self#structfield.robust_crop).
    robust_crop(value: bool) => value;
    /// Sets [`device`](Self#structfield.device).
    device(value: Device) => value;
    /// Sets [`precision`](Self#structfield.precision).
    precision(value: Precision) => Some(value);
    /// Sets [`isa`](Self#structfield.isa).
    isa(value: Isa) => Some(value);
    /// Sets [`threads`](Self#structfield.threads).
    threads(value: usize) => Some(value);
    /// Sets [`memory_limit_bytes`](Self#structfield.memory_limit_bytes).
    memory_limit_bytes(value: u64) => Some(value);
    /// Sets [`held_bytes`](Self#structfield.held_bytes).
    held_bytes(value: u64) => value;
    /// Sets [`picture`](Self#structfield.picture).
    picture(value: bool) => value;
    /// Sets [`gpu_memory_limit_bytes`](Self#structfield.gpu_memory_limit_bytes).
    gpu_memory_limit_bytes(value: u64) => Some(value);
    /// Sets [`mirror`](Self#structfield.mirror).
    mirror(value: [bool; 3]) => Some(value);
    /// Sets [`step_size`](Self#structfield.step_size).
    step_size(value: f64) => Some(value);
    /// Sets [`gaussian`](Self#structfield.gaussian).
    gaussian(value: bool) => Some(value);
    /// Sets [`skip_air`](Self#structfield.skip_air).
    skip_air(value: bool) => value;
    /// Sets [`keep_probabilities`](Self#structfield.keep_probabilities).
    keep_probabilities(value: bool) => value;
    /// Sets [`digests`](Self#structfield.digests).
    digests(value: bool) => value;
}

impl Options {
    /// What is taken beside counted arrays, and what the caller holds.
    pub(super) fn base_bytes(&self) -> u64 {
        BASE_BYTES.saturating_add(self.held_bytes)
    }

    /// Fails if there are choices that only trained folders have, for `found`, which is none.
    pub(super) fn check_no_training(&self, found: &str) -> Result<()> {
        let given =
            [("folds", self.folds != Folds::Auto), ("checkpoint", self.checkpoint.is_some())];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((what, _)) => Err(Error::usage(what, found, "a trained folder")),
            None => Ok(()),
        }
    }
}
