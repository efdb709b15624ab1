//! Labels do not depend on whether a network hands out logits or features, nor on the walk.

use fastnnunet::Result;
use fastnnunet::infer::{Engine, LinearHead, Precision};
use fastnnunet::model::ModelConfig;
use fastnnunet::pipeline::{self, Input, Settings};
use fastnnunet::volume::{Affine, Grid, LabelMap, Voxels};
use ndarray::{Array2, Array3, Array4, ArrayView4, Axis};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// A network of one pointwise layer over three features of the patch.
struct Toy {
    head: LinearHead,
    hands_out_features: bool,
}

impl Toy {
    fn new(classes: usize, hands_out_features: bool) -> Self {
        let weights =
            Array2::from_shape_fn((classes, 3), |(c, f)| ((c * 37 + f * 101) as f32 * 0.61).sin());
        let bias = (0..classes).map(|c| (c as f32 * 1.7).cos() * 0.3).collect();
        Self { head: LinearHead { weights, bias }, hands_out_features }
    }
}

impl Engine for Toy {
    fn device(&self) -> &'static str {
        "toy"
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn input_channels(&self) -> usize {
        1
    }

    fn output_channels(&self) -> usize {
        if self.hands_out_features { 3 } else { self.head.bias.len() }
    }

    fn head(&self) -> Option<&LinearHead> {
        self.hands_out_features.then_some(&self.head)
    }

    fn memory_bytes(&self, _: usize) -> u64 {
        0
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        let image = input.index_axis(Axis(0), 0);
        for ((z, y, x), &v) in image.indexed_iter() {
            let place = (z as f32 * 0.3).sin() + (y as f32 * 0.2).cos() + (x as f32 * 0.1).sin();
            let features = [v, v * v - 0.5, place];
            if self.hands_out_features {
                (0..3).for_each(|f| output[[f, z, y, x]] = features[f]);
            } else {
                for (class, bias) in self.head.bias.iter().enumerate() {
                    let weights = self.head.weights.row(class);
                    let sum: f32 = weights.iter().zip(features).map(|(w, f)| w * f).sum();
                    output[[class, z, y, x]] = sum + bias;
                }
            }
        }
        Ok(())
    }
}

/// The labels of a scan of 1 mm.
fn labels(shape: [usize; 3], patch: [usize; 3], classes: usize, features: bool) -> Array3<u8> {
    labels_of((shape, [1.0; 3]), patch, classes, features)
}

/// The labels of a scan of that shape and spacing by a network of 2 x 1.5 x 1.5 mm.
fn labels_of(
    scan: ([usize; 3], [f64; 3]),
    patch: [usize; 3],
    classes: usize,
    features: bool,
) -> Array3<u8> {
    segment(scan, patch, classes, features).expect("segments")
}

fn segment(
    (shape, spacing): ([usize; 3], [f64; 3]),
    patch: [usize; 3],
    classes: usize,
    features: bool,
) -> fastnnunet::Result<Array3<u8>> {
    let json = format!(
        r#"{{"patch_size": {patch:?}, "target_spacing": [2.0, 1.5, 1.5],
            "intensity_properties": {{"mean": 0.0, "std": 1.0,
                "percentile_00_5": -2.0, "percentile_99_5": 2.0}}, "orientation": "native"}}"#
    );
    let config = ModelConfig::from_json(&json).expect("a valid configuration");
    let data = Array3::from_shape_fn(shape, |(z, y, x)| {
        (z as f32 * 0.21).sin() + (y as f32 * 0.13 + 1.0).cos() * (x as f32 * 0.17).sin()
    });
    let [z, y, x] = spacing;
    let affine = Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
    let grid = Grid { shape, spacing, affine };
    let channels = vec![Voxels::from(data).into()];
    let mut input = Some(Input { channels, grid, previous: None });
    let mut engine = Toy::new(classes, features);
    let settings = Settings::default();
    let result = pipeline::segment(&mut input, &config, &mut engine, &settings, &mut |_| {
        ControlFlow::Continue(())
    })?;
    match result.labels {
        LabelMap::U8(labels) => Ok(labels),
        LabelMap::U16(_) => panic!("few classes"),
    }
}

#[test]
fn features_and_logits_give_the_same_labels() {
    // (shape, patch): walks along z and along y, images smaller than the patch, one slice.
    let cases = [
        ([90, 40, 44], [16, 24, 24]),
        ([40, 90, 44], [24, 16, 24]),
        ([30, 140, 60], [40, 8, 24]),
        ([8, 9, 10], [16, 24, 24]),
        ([2, 40, 44], [1, 24, 24]),
        ([64, 33, 29], [1, 24, 24]),
    ];
    for (shape, patch) in cases {
        for classes in [4, 7, 61] {
            let (logits, features) =
                (labels(shape, patch, classes, false), labels(shape, patch, classes, true));
            let used =
                (0..classes).filter(|&c| logits.iter().any(|&l| usize::from(l) == c)).count();
            assert!(used > 2, "{shape:?}: {used} of {classes} classes occur");
            let differ = logits.iter().zip(&features).filter(|(a, b)| a != b).count();
            // Ties within rounding only.
            assert!(
                differ * 2000 <= logits.len(),
                "{shape:?} {patch:?} {classes}: {differ} differ"
            );
        }
    }
}

/// Between two slices of a coarse scan lie planes of the network that no slice reads: the next
/// slice may begin above everything that is finished.
#[test]
fn scans_coarser_than_the_network_are_labeled() {
    // (shape, spacing in mm, patch): slices far apart along z and along y.
    let cases = [
        ([30, 40, 44], [4.25, 1.0, 1.0], [16, 24, 24]),
        ([9, 40, 44], [20.0, 1.0, 1.0], [16, 24, 24]),
        ([40, 18, 44], [1.0, 9.0, 1.0], [24, 16, 24]),
        ([12, 30, 30], [15.0, 1.5, 1.5], [1, 24, 24]),
    ];
    for (shape, spacing, patch) in cases {
        let scan = (shape, spacing);
        let (logits, features) =
            (labels_of(scan, patch, 61, false), labels_of(scan, patch, 61, true));
        for slice in logits.outer_iter() {
            let first = slice.first();
            assert!(slice.iter().any(|label| Some(label) != first), "{shape:?}: a flat slice");
        }
        let differ = logits.iter().zip(&features).filter(|(a, b)| a != b).count();
        assert!(differ * 500 <= logits.len(), "{shape:?} {spacing:?}: {differ} differ");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Or refused, if it is thinner than half a slice of the network.
    #[test]
    fn any_scan_is_labeled(
        shape in [1..14_usize, 1..14_usize, 1..14_usize],
        spacing in [0.8..12.0_f64, 0.8..6.0_f64, 0.8..6.0_f64],
        patch in [1..12_usize, 4..20_usize, 4..20_usize],
        features in any::<bool>(),
    ) {
        let result = segment((shape, spacing), patch, 4, features);
        if shape[0] as f64 * spacing[0] <= 1.0 {
            let error = result.expect_err("too thin");
            prop_assert!(error.to_string().contains("half a voxel of the model or less"), "{}", error);
            return Ok(());
        }
        let labels = result.expect("segments");
        prop_assert_eq!(labels.dim(), shape.into());
        prop_assert!(labels.iter().all(|&label| label < 4));
    }
}

#[test]
fn threads_do_not_change_a_label() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| labels([40, 90, 44], [24, 16, 24], 61, true))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}
