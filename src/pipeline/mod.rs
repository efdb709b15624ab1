//! Stages 2 to 12.

pub mod resample;
