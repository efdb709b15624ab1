//! What a model is: its configuration, the ones there are, and what they answer.

pub mod graph;
pub mod head;
pub mod labels;
pub mod modes;
pub mod onnx;
pub mod proto;
pub mod registry;

mod config;
mod folder;
mod installed;
mod selection;
mod subset;

pub use config::{
    Channel, ConfigError, Grade, IntensityProperties, Label, MIN_STEP_SIZE, ModelConfig,
    Normalization, Reader, Resampling,
};
pub use installed::{Facts, Model};
pub use selection::{Request, SelectedPart, Selection};
pub use subset::{LabelSubset, merge_labels, named};
