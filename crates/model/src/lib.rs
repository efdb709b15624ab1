//! What a model is: its configuration, its labels, the modes it answers, and its network as a
//! checked graph. No weights are kept here and nothing is run; the build script and the program
//! read models by the same code.
#![forbid(unsafe_code)]

pub mod color;

mod config;
mod measure;
mod mismatch;
mod name;
mod orientation;
mod quantization;

pub mod graph;
pub mod head;
pub mod labels;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod modes;
pub mod network;
pub mod onnx;
pub mod proto;
pub mod tasks;

pub use config::{
    Align, CONFIGURATIONS, Channel, Concept, Grade, GridOrder, Integer, IntensityProperties,
    KeepWithin, Label, LabelInterpolation, MIN_STEP_SIZE, ModelConfig, NetworkOutput,
    Normalization, Normalize, Reader, Refine, Resampling, RoughCrop, Side, TaskGrid, TileWeights,
};
pub use mismatch::Mismatch;
pub use name::{Name, is_shown};
pub use orientation::Orientation;
pub use quantization::{Agreement, Quantization, Ranges};
