//! nnU-Net v2's trained folders.
//!
//! A folder with `plans.json`, `dataset.json` and `fold_*/checkpoint_final.pth` enters; a
//! [`ModelConfig`](crate::model::ModelConfig) and, fold by fold, the network as an ONNX graph leave. The checkpoint is
//! read as data: nothing in it is executed, and only the weights of the network are read.
//!
//! ```no_run
//! use fastnnunet::nnunet::{Folder, Folds};
//! use fastnnunet::infer::{Precision, cpu::{CpuEngine, Isa}};
//! use std::path::Path;
//!
//! # fn main() -> fastnnunet::Result<()> {
//! let folder = Folder::open(Path::new("nnUNetTrainer__nnUNetPlans__3d_fullres"), &Folds::Auto, None)?;
//! for fold in 0..folder.folds().len() {
//!     let graph = folder.graph(fold)?;
//!     let patch = folder.config().patch_size;
//!     let engine = CpuEngine::from_graph(graph, patch, Precision::F32, Isa::best())?;
//! }
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod convert;
mod engine_ini;
mod folder;
mod folds;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod json;
mod labels;
mod network;
pub(crate) mod others;
pub(crate) mod pickle;
mod plans;
mod postprocessing;
mod trained;
mod v1;

pub use convert::{Converted, convert, model_name};
pub use engine_ini::EngineIni;
pub use folder::Folder;
pub(crate) use folds::CHECKPOINTS;
pub use folds::{Fold, Folds};
pub use postprocessing::read_pickle as read_postprocessing;
pub use trained::{Trained, is_training, trainings};
pub(crate) use trained::{dataset_id, model_names};

use serde_json::{Map, Value};

/// A configuration as the text of a file.
fn pretty(config: &Map<String, Value>, model_path: Option<&str>) -> String {
    let mut config = config.clone();
    if let Some(model_path) = model_path {
        config.insert("model_path".into(), model_path.into());
    }
    let mut text = serde_json::to_string_pretty(&Value::Object(config)).unwrap_or_default();
    text.push('\n');
    text
}

/// A name for a model, from the data set's (`Dataset012_Liver`) and the configuration's.
pub(crate) fn suggested_name(dataset: &str, configuration: &str) -> String {
    let dataset = if dataset.is_empty() { "nnunet" } else { dataset };
    let short = dataset.split_once('_').map_or(dataset, |(_, short)| short);
    model_name(&format!("{short}_{configuration}"))
}
