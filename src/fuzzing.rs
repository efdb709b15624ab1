//! Doors for the fuzz targets in `fuzz/`, to parsers that have none in the public interface.
//!
//! Bytes enter; what comes back does not matter, as long as something does.

use std::path::Path;

/// A pickle, and every value in it asked for as everything it might be.
pub fn pickle(bytes: &[u8]) {
    crate::nnunet::fuzzing::pickle(bytes);
}

/// A checkpoint: archive, pickle, and the weights they lead to.
pub fn checkpoint(path: &Path) {
    crate::nnunet::fuzzing::checkpoint(path);
}

/// `plans.json` and `dataset.json`, as every configuration of nnU-Net's.
pub fn plans(plans: &str, dataset: &str) {
    crate::nnunet::fuzzing::plans(plans, dataset);
}

/// The settings file of FastnnUNet's engine.
pub fn engine_ini(text: &str) {
    crate::nnunet::fuzzing::engine_ini(text);
}

/// A released archive: the trainings in it, and what their files hold.
pub fn archive(path: &Path) {
    crate::import::fuzzing::archive(path);
}
