//! Tiles of one value are answered once, with the same bytes; tiles of air on request.

use crate::counted::Counted;
use fastnnunet::infer::{self, Engine, EngineOptions};
use fastnnunet::model::ModelConfig;
use fastnnunet::pipeline::{self, Input, Labeled, Settings};
use fastnnunet::volume::{Affine, Grid, LabelMap, Voxels};
use fastnnunet::{Error, Existing, Result, registry};
use ndarray::Array3;
use std::ops::ControlFlow;

/// The self-test's network and its configuration: 16x24x24 voxels of 3x2x2 mm, HU from -500 to 700.
fn selftest() -> (ModelConfig, Counted) {
    let model = registry::find("selftest").expect("the self-test model is built in");
    let config = model.config().clone();
    let engine = infer::open(model, config.patch_size, &EngineOptions::default()).expect("engine");
    (config, Counted::new(engine))
}

/// A scan on the network's own grid.
fn scan(shape: [usize; 3], hu: impl Fn([usize; 3]) -> f32) -> Input<'static> {
    let data = Array3::from_shape_fn(shape, |(z, y, x)| hu([z, y, x]));
    let affine = Affine([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]);
    let grid = Grid { shape, spacing: [3.0, 2.0, 2.0], affine };
    Input { channels: vec![Voxels::from(data).into()], grid, previous: None }
}

/// Air with noise, beyond it what scanners write outside their field of view, something that
/// varies, and metal: more than the network's range at both ends.
fn air_and_metal([z, y, x]: [usize; 3]) -> f32 {
    match (x, z) {
        (..18, _) => -3024.0,
        (..36, _) => -1000.0 + ((z * 7 + y * 5 + x * 3) % 23) as f32,
        (48.., ..24) => 2000.0 + y as f32,
        _ => 300.0 * (z as f32 * 0.4).sin() + 200.0 * (y as f32 * 0.3 + x as f32 * 0.2).cos(),
    }
}

fn run(input: &Input<'_>, settings: &Settings) -> Result<(Labeled, usize)> {
    let (config, mut engine) = selftest();
    let mut case = Some(input.clone());
    let proceed = &mut |_| ControlFlow::Continue(());
    let done = pipeline::segment(&mut case, &config, &mut engine, settings, proceed)?;
    Ok((done, engine.patches))
}

/// The label map, and the file of probabilities.
fn results(done: &Labeled) -> (LabelMap, Vec<u8>) {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("probabilities.npz");
    let probabilities = done.probabilities.as_ref().expect("kept");
    probabilities.save_npz(&file, Existing::Keep, fastnnunet::Access::default()).expect("written");
    (done.labels.clone(), std::fs::read(file).expect("there"))
}

#[test]
fn a_value_is_answered_once_with_the_same_bytes() {
    let mirror = Some([false, false, true]);
    let settings = Settings { mirror, keep_probabilities: true, ..Settings::default() };
    // 3 x 3 x 5 tiles: 18 of air and what is outside, 6 of metal.
    let case = scan([32, 48, 72], air_and_metal);
    let (config, engine) = selftest();
    let peak = pipeline::plan(&case, &config, &engine, &settings).expect("fits").peak;
    assert_eq!(peak.during, "inference");
    let voxels: usize = config.patch_size.iter().product();
    let answer = (voxels * engine.output_channels() * size_of::<f32>()) as u64;

    let mut all = Vec::new();
    // Where there is no room, each tile is computed.
    for (room, known) in [(0, 17 + 5), (1, 17), (answer + 1, 0)] {
        let limit = Some(peak.bytes - room);
        let settings = Settings { memory_limit_bytes: limit, ..settings.clone() };
        let (done, runs) = run(&case, &settings).expect("fits without answers");
        assert_eq!((done.tiles, done.known_tiles), ((45, 2), known), "{room}");
        assert_eq!(runs, (45 - known) * 2, "{room}");
        assert!(done.predicted.bytes <= peak.bytes - room);
        all.push(results(&done));
    }
    let settings =
        Settings { memory_limit_bytes: Some(peak.bytes - 2 * answer - 1), ..settings.clone() };
    assert!(matches!(run(&case, &settings), Err(Error::Memory { .. })));
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(all[0].0.counts().iter().filter(|&&n| n > 0).count() > 1, "labels differ");
}

#[test]
fn a_tile_that_sticks_out_of_the_image_holds_more_than_air() {
    // Zeros above and below ten slices of air: zero is the mean of the training data.
    let (done, runs) =
        run(&scan([10, 24, 72], |_| -1000.0), &Settings::default()).expect("segments");
    assert_eq!((done.tiles.0, done.known_tiles, runs), (5, 0, 5));
}

#[test]
fn air_is_passed_over_on_request() {
    // Lung and blankets are no clipped air here; one voxel of fat keeps its tiles.
    let case = scan([32, 48, 72], |[z, y, x]| match [z, y, x] {
        [4, 4, 4] => -100.0,
        [_, _, ..36] => -450.0 + ((z * 7 + y * 5 + x * 3) % 47) as f32,
        other => air_and_metal(other).max(-390.0),
    });
    let (all, runs) = run(&case, &Settings::default()).expect("segments");
    assert_eq!((all.tiles.0, all.known_tiles, runs), (45, 5, 40), "metal alone");
    let settings = Settings { skip_air: true, ..Settings::default() };
    let (some, runs) = run(&case, &settings).expect("segments");
    // 18 tiles of air but for the one with fat; the first of them runs.
    assert_eq!((some.known_tiles, runs), (5 + 16, 45 - 21));
    // Where all tiles are looked at, labels stay.
    let (LabelMap::U8(all), LabelMap::U8(some)) = (&all.labels, &some.labels) else {
        panic!("four classes fit u8")
    };
    let kept = ndarray::s![.., .., 48..];
    assert_eq!(all.slice(kept), some.slice(kept));
    assert_ne!(all, some, "air was not looked at");
}

#[test]
fn air_is_known_in_cts_only() {
    let model = registry::find("selftest_2d").expect("built in");
    let config = model.config().clone();
    let engine = infer::open(model, config.patch_size, &EngineOptions::default()).expect("engine");
    let mut case = scan([4, 24, 24], air_and_metal);
    case.channels.push(case.channels[0].clone());
    let settings = Settings { skip_air: true, ..Settings::default() };
    let refused = pipeline::plan(&case, &config, engine.as_ref(), &settings);
    assert!(matches!(refused, Err(Error::Usage { .. })), "{refused:?}");
}
