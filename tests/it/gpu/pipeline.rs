//! The pipeline gives the same labels whether an engine runs the image as a whole or tile by
//! tile.

use super::{DEVICES, least, open_on};
use crate::counted::Counted;
use fastnnunet::infer::Engine;
use fastnnunet::model::ModelConfig;
use fastnnunet::pipeline::{self, Input, Returns, Settings};
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
    /// `regions` are the labels that each channel paints, if it is not the largest that wins.
    fn config(&self, regions: Option<&[u16]>) -> ModelConfig {
        let regions = regions.map(|order| format!(r#""regions_class_order": {order:?},"#));
        let json = format!(
            r#"{{{} "patch_size": {:?}, "target_spacing": [1.25, 1.0, 1.25],
                "intensity_properties": {{"mean": 0.0, "std": 1.0,
                    "percentile_00_5": -2.0, "percentile_99_5": 2.0}}, "orientation": "native"}}"#,
            regions.unwrap_or_default(),
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
    fn run(&self, engine: &mut Counted, regions: Option<&[u16]>) -> (Array3<u8>, usize) {
        let mut told = 0;
        let mut progress = |progress: pipeline::Progress| {
            if progress.stage == pipeline::Stage::Infer && progress.done > 0 {
                told += 1;
                assert_eq!(progress.done, told, "tile after tile");
                assert!(progress.done <= progress.total);
            }
            ControlFlow::Continue(())
        };
        let (config, settings) = (self.config(regions), self.settings());
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
            let place = format!("{device}, {}", scan.model);
            let order: Vec<u16> = (1..=engine.classes() as u16).rev().collect();
            for regions in [None, Some(&order[..])] {
                let mut counts = [0; 3];
                let mut run = |whole: bool, labels: bool| {
                    (engine.takes_images, engine.labels_images) = (whole, labels);
                    let (labels, told) = scan.run(&mut engine, regions);
                    let now = [engine.labeled, engine.images, engine.patches];
                    let more = std::array::from_fn(|k| now[k] - counts[k]);
                    counts = now;
                    (labels, told, more)
                };
                let (labels, told, asked) = run(true, true);
                assert_eq!(asked, [1, 0, 0], "{place}: labels leave the device");
                let (means, _, asked) = run(true, false);
                assert_eq!(asked, [0, 1, 0], "{place}: means leave the device");
                let (tiled, _, asked) = run(false, false);
                assert_eq!(asked, [0, 0, told], "{place}: tiles leave the device");
                for other in [&means, &tiled] {
                    let differ = labels.iter().zip(other).filter(|(a, b)| a != b).count();
                    assert_eq!(differ, 0, "{place}, {regions:?}: of {}", labels.len());
                }
                let found = (0..=u8::MAX).filter(|label| labels.iter().any(|l| l == label)).count();
                assert!(found >= scan.labels, "{place}, {regions:?}: {found} labels");
                engine.labeled = 0;
                (engine.images, engine.patches) = (0, 0);
            }
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
        let (config, settings) = (scan.config(None), scan.settings());
        let error =
            pipeline::segment(&mut Some(scan.input()), &config, &mut engine, &settings, &mut stop);
        assert_eq!(error.expect_err("stopped").kind(), fastnnunet::ErrorKind::Interrupted);
        assert_eq!((done, engine.labeled), (3, 1));
    }
}

/// Where the host or the device does not hold the whole image, tiles run one by one.
#[test]
fn what_does_not_fit_streams() {
    let scan = Scan { shape: [160, 30, 30], ..SCANS[0] };
    let (input, config) = (scan.input(), scan.config(None));
    for &device in DEVICES {
        let engine = |limit| {
            let engine = open_on(device, scan.model, scan.patch, limit)?;
            Some(Counted::new(Box::new(engine)))
        };
        let plan = |engine: &Counted, settings: &Settings| {
            pipeline::plan(&input, &config, engine, settings).expect("it fits")
        };
        let Some(mut all) = engine(None) else { continue };
        let labels = plan(&all, &scan.settings());
        all.labels_images = false;
        let means = plan(&all, &scan.settings());
        all.takes_images = false;
        let streamed = plan(&all, &scan.settings());
        (all.takes_images, all.labels_images) = (true, true);
        let returns = [labels.whole_image, means.whole_image, streamed.whole_image];
        assert_eq!(returns, [Some(Returns::Labels), Some(Returns::Means), None]);
        assert!(streamed.peak.bytes < means.peak.bytes, "{streamed:?} {means:?}");
        assert!(labels.peak.bytes < means.peak.bytes, "{labels:?} {means:?}");
        let image = means.network_shape.iter().product::<usize>() as u64 * 4;
        let maps = all.output_channels() as u64;
        assert!(means.peak.bytes > image * (1 + maps), "the whole map is counted");

        // The host: a map of means is the only thing that may be too large for it.
        all.labels_images = false;
        let within = |bytes| {
            let settings = Settings { memory_limit_bytes: Some(bytes), ..scan.settings() };
            plan(&all, &settings)
        };
        assert_eq!(within(means.peak.bytes).whole_image, Some(Returns::Means));
        let narrow = within(means.peak.bytes - 1);
        assert_eq!((narrow.whole_image, narrow.peak), (None, streamed.peak));
        all.labels_images = true;
        // Who asks for probabilities gets means.
        let settings = Settings { keep_probabilities: true, ..scan.settings() };
        assert_eq!(plan(&all, &settings).whole_image, Some(Returns::Means));

        // The device: one tile fits, the image with its sums does not.
        let tile = least(device, scan.model, scan.patch);
        let mut small = engine(Some(tile + (1 << 20))).expect("as before");
        assert_eq!(plan(&small, &scan.settings()).whole_image, None);
        let (labels, _) = scan.run(&mut small, None);
        assert_eq!((small.labeled, small.images), (0, 0));
        assert_eq!(labels, scan.run(&mut all, None).0);
    }
}
