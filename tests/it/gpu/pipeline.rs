//! The pipeline gives the same labels whether an engine runs the image as a whole or tile by
//! tile.

use super::{DEVICES, least, open_on};
use crate::counted::Counted;
use fastnnunet::infer::Engine;
use fastnnunet::model::ModelConfig;
use fastnnunet::pipeline::{self, Input, Settings};
use fastnnunet::volume::{Affine, Grid, LabelMap, Voxels};
use ndarray::Array3;
use std::ops::ControlFlow;

struct Scan {
    model: &'static str,
    shape: [usize; 3],
    patch: [usize; 3],
    mirror_axes: &'static [usize],
    /// Labels expected at least: fewer, and the comparison would say little.
    labels: usize,
}

const SCANS: &[Scan] = &[
    Scan {
        model: "selftest",
        shape: [40, 44, 50],
        patch: [16, 24, 24],
        mirror_axes: &[],
        labels: 3,
    },
    // Walked along y, and smaller than a tile along z.
    Scan {
        model: "selftest",
        shape: [24, 90, 30],
        patch: [32, 16, 24],
        mirror_axes: &[1, 2],
        labels: 3,
    },
    // Features travel, and the last layer is applied at the voxels of the image.
    Scan { model: "total", shape: [40, 44, 32], patch: [32, 32, 32], mirror_axes: &[0], labels: 2 },
];

impl Scan {
    fn config(&self) -> ModelConfig {
        let json = format!(
            r#"{{"patch_size": {:?}, "target_spacing": [1.25, 1.0, 1.25],
                "intensity_properties": {{"mean": 0.0, "std": 1.0,
                    "percentile_00_5": -2.0, "percentile_99_5": 2.0}}, "orientation": "native"}}"#,
            self.patch
        );
        ModelConfig::from_json(&json).expect("a valid configuration")
    }

    fn input(&self) -> Input<'static> {
        let data = Array3::from_shape_fn(self.shape, |(z, y, x)| {
            let wave = (z as f32 * 0.21).sin() + (y as f32 * 0.13 + 1.0).cos();
            wave * (x as f32 * 0.17).sin()
                + if (z / 9 + y / 7 + x / 8) % 3 == 0 { 1.0 } else { 0.0 }
        });
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        let grid = Grid { shape: self.shape, spacing: [1.0; 3], affine };
        Input { channels: vec![Voxels::from(data).into()], grid, previous: None }
    }

    fn settings(&self) -> Settings {
        let mirror = std::array::from_fn(|axis| self.mirror_axes.contains(&axis));
        Settings { mirror: Some(mirror), ..Settings::default() }
    }

    /// The labels, and how often progress was told while tiles ran.
    fn run(&self, engine: &mut Counted) -> (Array3<u8>, usize) {
        let mut told = 0;
        let mut progress = |progress: pipeline::Progress| {
            if progress.stage == pipeline::Stage::Infer && progress.done > 0 {
                told += 1;
                assert_eq!(progress.done, told, "tile after tile");
                assert!(progress.done <= progress.total);
            }
            ControlFlow::Continue(())
        };
        let (config, settings) = (self.config(), self.settings());
        let result =
            pipeline::segment(&mut Some(self.input()), &config, engine, &settings, &mut progress);
        let result = result.expect("segments");
        assert_eq!(told, result.tiles.0 * result.tiles.1);
        match result.labels {
            LabelMap::U8(labels) => (labels, told),
            LabelMap::U16(_) => panic!("few classes"),
        }
    }
}

#[test]
fn labels_are_those_of_the_tiles() {
    for scan in SCANS {
        for &device in DEVICES {
            let Some(engine) = open_on(device, scan.model, scan.patch, None) else { continue };
            let mut engine = Counted::new(Box::new(engine));
            let (whole, told) = scan.run(&mut engine);
            assert_eq!((engine.images, engine.patches), (1, 0), "{device}, {}", scan.model);
            engine.takes_images = false;
            let (tiled, _) = scan.run(&mut engine);
            assert_eq!((engine.images, engine.patches), (1, told), "{device}, {}", scan.model);
            let differ = whole.iter().zip(&tiled).filter(|(a, b)| a != b).count();
            assert_eq!(differ, 0, "{device}, {}: of {}", scan.model, whole.len());
            let found = (0..=u8::MAX).filter(|label| whole.iter().any(|l| l == label)).count();
            assert!(found >= scan.labels, "{device}, {}: {found} labels", scan.model);
        }
    }
}

/// A run that is stopped stops, at a tile.
#[test]
fn a_run_over_a_whole_image_can_be_stopped() {
    let scan = &SCANS[0];
    for &device in DEVICES {
        let Some(engine) = open_on(device, scan.model, scan.patch, None) else { continue };
        let mut engine = Counted::new(Box::new(engine));
        let mut done = 0;
        let mut stop = |progress: pipeline::Progress| {
            done = progress.done;
            let enough = progress.stage == pipeline::Stage::Infer && progress.done == 3;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (config, settings) = (scan.config(), scan.settings());
        let error =
            pipeline::segment(&mut Some(scan.input()), &config, &mut engine, &settings, &mut stop);
        assert_eq!(error.expect_err("stopped").kind(), fastnnunet::ErrorKind::Interrupted);
        assert_eq!((done, engine.images), (3, 1));
    }
}

/// Where the host or the device does not hold the whole image, tiles run one by one.
#[test]
fn what_does_not_fit_streams() {
    let scan = Scan { shape: [160, 30, 30], ..SCANS[0] };
    let (input, config) = (scan.input(), scan.config());
    for &device in DEVICES {
        let engine = |limit| {
            let engine = open_on(device, scan.model, scan.patch, limit)?;
            Some(Counted::new(Box::new(engine)))
        };
        let plan = |engine: &Counted, settings: &Settings| {
            pipeline::plan(&input, &config, engine, settings).expect("it fits")
        };
        let Some((all, mut tiles)) = engine(None).zip(engine(None)) else { continue };
        tiles.takes_images = false;
        let (whole, streamed) = (plan(&all, &scan.settings()), plan(&tiles, &scan.settings()));
        assert!(whole.whole_image && !streamed.whole_image);
        assert!(streamed.peak.bytes < whole.peak.bytes, "{streamed:?} {whole:?}");
        let image = whole.network_shape.iter().product::<usize>() as u64 * 4;
        let maps = all.output_channels() as u64;
        assert!(whole.peak.bytes > image * (1 + maps), "the whole map is counted");

        // The host.
        let limit = whole.peak.bytes - 1;
        let settings = Settings { memory_limit_bytes: Some(limit), ..scan.settings() };
        let narrow = plan(&all, &settings);
        assert!(!narrow.whole_image);
        assert_eq!(narrow.peak, streamed.peak);
        let settings = Settings { memory_limit_bytes: Some(limit + 1), ..scan.settings() };
        assert!(plan(&all, &settings).whole_image);

        // The device: one tile fits, the image with its sums does not.
        let tile = least(device, scan.model, scan.patch);
        let mut small = engine(Some(tile + (1 << 20))).expect("as before");
        assert!(!plan(&small, &scan.settings()).whole_image);
        let (labels, _) = scan.run(&mut small);
        assert_eq!(small.images, 0);
        assert_eq!(labels, scan.run(&mut engine(None).expect("as before")).0);
    }
}
