//! The models there are and what they answer: built in, in a user's folder, and the choice among them.
//!
//! What a model is (configuration, labels, modes, graph) is the crate `fastnnunet-model`, whose types
//! are found here too.

pub mod registry;

mod folder;
mod installed;
mod selection;
mod subset;

pub use fastnnunet_model::{
    Channel, ConfigError, Grade, IntensityProperties, Label, MIN_STEP_SIZE, Mismatch, ModelConfig,
    Normalization, Reader, Resampling, graph, head, labels, modes, onnx, proto,
};
pub use installed::{Facts, Model};
pub use selection::{Request, SelectedPart, Selection};
pub use subset::{LabelSubset, merge_labels, named};
