//! What a model is: its configuration, and the ones built into the program.

pub mod graph;
pub mod modes;
pub mod onnx;
pub mod proto;
pub mod registry;

mod config;

pub use config::{
    Channel, ConfigError, Grade, IntensityProperties, Label, ModelConfig, Normalization, Reader,
    Resampling,
};
