//! Inputs that once went wrong, found by fuzzing or by users: files of `tests/regressions`, which are
//! seeds of the fuzz targets their names begin with. Each test is named after its file.

use fastnnunet::import::{self, ImportOptions};
use fastnnunet::infer::Precision;
use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::model::Label;
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::registry::Registry;
use fastnnunet::volume::{Affine, Grid, LabelMap};
use ndarray::Array3;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions").join(name);
    fs::read(path).expect("a file of the repository")
}

/// Both ways of lowering a network refuse the file and say why.
fn refused(name: &str, expected: &str) {
    let (onnx, patch) = (read(name), [8, 8, 8]);
    let opened = CpuEngine::open(&onnx, patch, Precision::F32, Isa::best());
    let error = opened.expect_err("no engine").to_string();
    assert!(error.contains(expected), "{error}");
    let features = CpuEngine::open_features(&onnx, patch, Precision::F32, Isa::best());
    features.expect_err("no engine");
}

/// The head was left to after the resampling, and only there did its features not fit: a panic.
#[test]
fn onnx_last_layer_of_other_channels() {
    refused("onnx_last_layer_of_other_channels.onnx", "input channels");
}

/// A head that is linear in nothing took part as one of a single feature: a panic.
#[test]
fn network_head_of_no_features() {
    refused("network_head_of_no_features.onnx", "expected");
}

/// Voxels of 1e-30 mm: the millimetres of `nearest_mm` are more voxels than can be counted.
#[test]
fn recipe_overflow() {
    let text = String::from_utf8(read("recipe_overflow.json")).expect("text");
    let recipe = Recipe::from_json(&text).expect("a recipe");
    let size = 1e-30;
    let affine = Affine([[size, 0.0, 0.0, 0.0], [0.0, size, 0.0, 0.0], [0.0, 0.0, size, 0.0]]);
    let grid = Grid { shape: [4, 4, 4], spacing: [size; 3], affine };
    let labels = Array3::from_shape_fn((4, 4, 4), |(z, y, x)| u8::from(z + y == x));
    let liver = Label { id: 1, name: "liver".into(), ..Label::default() };
    let mut map = LabelMap::U8(labels);
    let report = recipe.apply(&mut map, &grid, &[liver]).expect("it applies");
    // All of it is smaller than 10 mm³.
    assert!(report.steps[0].voxels_changed > 0);
    assert_eq!(map.counts()[1], 0);
}

/// Checkpoints whose announced sizes are together more than a number holds: a panic, or a sum that
/// every disk has room for.
#[test]
fn archive_sizes_beyond_numbers() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/regressions/archive_sizes_beyond_numbers.zip");
    let tasks = Registry::embedded().tasks();
    let found = import::find(&[archive], tasks).expect("trainings");
    assert_eq!((found.len(), found[0].bytes), (1, u64::MAX));
    let models = tempfile::tempdir().expect("folder");
    let mut go_on = |_: &str| ControlFlow::Continue(());
    let error = import::import(&found, models.path(), tasks, ImportOptions::default(), &mut go_on)
        .expect_err("no disk is that large");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Output, "{error}");
    assert_eq!(fs::read_dir(models.path()).expect("folder").count(), 0);
}
