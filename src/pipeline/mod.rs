//! Stages 2 to 12.

pub mod label;
pub mod resample;
