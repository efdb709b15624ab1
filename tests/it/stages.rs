//! Each stage against the arrays its counterpart in nnU-Net 2.8.1 gives.

use crate::golden;
use fastnnunet::model::{Channel, IntensityProperties, Normalization};
use fastnnunet::pipeline::{crop, normalize, tile};
use fastnnunet::volume::{AxisMap, Orientation, VoxelView};
use ndarray::{Array3, Array4, Axis, Ix3, Ix4};

#[test]
fn orientation_matches() {
    for case in golden::entries("orient", "cases") {
        let scan =
            fastnnunet::Scan::open(golden::path("orient", &case["file"])).expect("the file loads");
        let target: Orientation =
            serde_json::from_value(case["target"].clone()).expect("a known orientation");
        let (data, grid) = (scan.voxels().to_f32(), scan.grid());
        let map = AxisMap::to(target, &grid.affine);
        let expected: Array3<i16> = golden::array::<i16, Ix3>("orient", &case["expected"]);
        assert_eq!(map.view(data.view()), expected.mapv(f32::from), "{}", case["name"]);
        // Headers hold spacings as f32.
        let spacing: [f64; 3] = golden::floats(&case["spacing"]);
        let off = |k: usize| (map.permute(grid.spacing)[k] - spacing[k]).abs();
        assert!((0..3).all(|k| off(k) < 1e-6), "{}: {:?}", case["name"], grid.spacing);
    }
}

#[test]
fn crop_box_matches() {
    for case in golden::entries("crop", "cases") {
        let image: Array4<f32> = golden::array::<f32, Ix4>("crop", &case["input"]);
        let channels: Vec<_> = image.axis_iter(Axis(0)).map(VoxelView::from).collect();
        assert_eq!(crop::nonzero_box(&channels), golden::ranges(&case["bbox"]), "{}", case["name"]);
    }
}

#[test]
fn normalization_matches() {
    for case in golden::entries("normalize", "cases") {
        let scheme: Normalization =
            serde_json::from_value(case["scheme"].clone()).expect("a known scheme");
        let intensity: IntensityProperties = serde_json::from_value(case["properties"].clone())
            .unwrap_or(IntensityProperties {
                mean: f64::NAN,
                std: f64::NAN,
                percentile_00_5: f64::NAN,
                percentile_99_5: f64::NAN,
            });
        let mut image: Array3<f32> = golden::array::<f32, Ix3>("normalize", &case["input"]);
        let expected: Array3<f32> = golden::array::<f32, Ix3>("normalize", &case["expected"]);
        let use_mask = case["use_mask_for_norm"] == true;
        let channel = Channel { normalization: scheme, intensity, use_mask };
        let mask = use_mask.then(|| -> Array3<bool> {
            golden::array::<i8, Ix3>("normalize", &case["seg"]).mapv(|v| v >= 0)
        });
        let mask = mask.as_ref().map(|mask| mask.view());
        normalize::normalize(image.view_mut(), &channel, mask).expect("normalizes");
        let tolerance = case["relative_tolerance"].as_f64().expect("a tolerance") as f32;
        for (got, want) in image.iter().zip(&expected) {
            let bound = tolerance * want.abs().max(1.0);
            assert!((got - want).abs() <= bound, "{}: {got} is not {want}", case["name"]);
        }
    }
}

#[test]
fn rgb_normalization_refuses_values_outside_its_range() {
    let mut image = Array3::from_elem((1, 1, 2), 300.0);
    let intensity =
        IntensityProperties { mean: 0.0, std: 1.0, percentile_00_5: 0.0, percentile_99_5: 1.0 };
    let channel = Channel { normalization: Normalization::RgbTo01, intensity, use_mask: false };
    let error =
        normalize::normalize(image.view_mut(), &channel, None).expect_err("300 is no RGB value");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Input);
}

#[test]
fn tile_starts_match() {
    for case in golden::entries("tile", "steps") {
        let [image, edge] =
            [&case["image"], &case["tile"]].map(|n| n.as_u64().expect("n") as usize);
        let step = case["step"].as_f64().expect("step");
        let starts: Vec<usize> = serde_json::from_value(case["starts"].clone()).expect("starts");
        assert_eq!(tile::tile_starts(image, edge, step), starts, "{image} {edge} {step}");
    }
}

#[test]
fn tiles_run_with_the_first_axis_outermost() {
    for case in golden::entries("tile", "grids") {
        let image: [usize; 3] = golden::counts(&case["image"]);
        let patch: [usize; 3] = golden::counts(&case["tile"]);
        let starts: [Vec<isize>; 3] =
            serde_json::from_value(case["starts"].clone()).expect("starts per axis");
        let tiling = tile::Tiling::new(image, patch, case["step"].as_f64().expect("step"));
        let mut expected = Vec::new();
        for &z in &starts[0] {
            for &y in &starts[1] {
                expected.extend(starts[2].iter().map(|&x| [z, y, x]));
            }
        }
        assert_eq!(tiling.origins, expected);
    }
}

#[test]
fn padding_matches() {
    for case in golden::entries("tile", "padding") {
        let image: [usize; 3] = golden::counts(&case["image"]);
        let patch: [usize; 3] = golden::counts(&case["patch"]);
        let low: [usize; 3] = golden::counts(&case["low"]);
        let tiling = tile::Tiling::new(image, patch, 0.5);
        let expected = low.map(|n| -(n as isize));
        assert_eq!(tiling.origins[0], expected, "{image:?} {patch:?}");
    }
}

#[test]
fn gaussian_is_bit_identical() {
    for case in golden::entries("tile", "gaussians") {
        let expected: Array3<f32> = golden::array::<f32, Ix3>("tile", &case["expected"]);
        assert_eq!(tile::gaussian(golden::counts(&case["tile"])), expected, "{}", case["tile"]);
    }
}

mod properties {
    use fastnnunet::pipeline::{stitch::Stitcher, tile};
    use ndarray::{Array4, Axis, s};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_voxel_and_average_to_the_image(
            image in prop::array::uniform3(1_usize..20),
            patch in prop::array::uniform3(1_usize..9),
            step in 0.3_f64..=1.0,
            gaussian: bool,
        ) {
            let tiling = tile::Tiling::new(image, patch, step);
            let [z, y, x] = image;
            let voxels = Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| {
                (z * 400 + y * 20 + x) as f32
            });
            let weights =
                if gaussian { tile::gaussian(patch) } else { tile::uniform(patch) };
            let mut stitcher = Stitcher::new(tiling.clone(), weights, 1);
            let mut cut = Array4::zeros((1, patch[0], patch[1], patch[2]));
            let mut means = Array4::from_elem((1, z, y, x), f32::NAN);
            let mut read = |stitcher: &mut Stitcher, plane: usize| {
                stitcher.finish_below(plane);
                let (planes, first) = stitcher.means();
                let held = first..first + planes.len_of(Axis(1));
                means.slice_mut(s![.., held, .., ..]).assign(&planes);
                // Interpolation still needs one plane of those that are done.
                stitcher.forget_below(plane.saturating_sub(1));
            };
            for &origin in &tiling.origins {
                let plane = origin[0].max(0) as usize;
                if stitcher.is_due(plane) {
                    read(&mut stitcher, plane);
                }
                tiling.cut(voxels.view(), origin, cut.view_mut());
                stitcher.add(origin, cut.view());
            }
            read(&mut stitcher, z);
            // At most 4 tiles per axis cover a voxel, so 64 additions round each of two sums.
            let bound = 2.0 * 64.0 * f32::EPSILON;
            // A voxel no tile covers would be 0/0; a wrong place would average to another value.
            for (got, want) in means.iter().zip(&voxels) {
                prop_assert!((got - want).abs() <= bound * want.abs().max(1.0), "{got} {want}");
            }
        }
    }
}
