//! The 25 cases where a reimplementation of nnU-Net goes wrong, one test each; numbers count
//! the cases, names state them.
//!
//! Values are hand-made where they are exact, else what `nnunetv2` 2.8.1 gives. Cases that
//! need a whole results folder are in `folders`, under the same kind of name: 16 to 22, and
//! nibabel's side of 22 to 25.

use crate::nifti_files::{Nifti, ct};
use fastnnunet::Scan;
use fastnnunet::model::{Channel, IntensityProperties, Normalization, Resampling};
use fastnnunet::pipeline::label::{Decision, label_resampled};
use fastnnunet::pipeline::resample::{
    resample_image, resample_labels, resampled_shape, separate_axis,
};
use fastnnunet::pipeline::{crop, mirror_passes, normalize, tile};
use fastnnunet::volume::{Affine, AxisMap};
use half::f16;
use ndarray::{Array3, Array4, s};

fn load_bytes(bytes: &[u8]) -> fastnnunet::Result<Scan> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("case.nii");
    std::fs::write(&path, bytes).expect("writes");
    fastnnunet::Scan::open(&path)
}

fn header_fixture(name: &str) -> fastnnunet::Result<Scan> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/headers");
    fastnnunet::Scan::open(folder.join(name))
}

/// One row along `x`, resized with nnU-Net's default orders.
fn resized_row(row: &[f32], length: usize) -> Vec<f32> {
    let image = Array3::from_shape_vec((1, 1, row.len()), row.to_vec()).expect("a row");
    resample_image(image.view(), |v| v, [1, 1, length], None, &Resampling::default())
        .into_raw_vec_and_offset()
        .0
}

fn assert_near(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{got} {expected}");
    }
}

/// Labels of logits given per class, one row along `x` on its own grid.
fn labels(classes: &[&[f32]], decision: &Decision) -> Vec<u8> {
    let row = classes[0].len();
    let logits =
        Array4::from_shape_vec((classes.len(), 1, 1, row), classes.concat()).expect("rows");
    let mut target = Array3::<u8>::zeros((1, 1, row));
    label_resampled(logits.view(), None, decision, target.view_mut());
    target.into_raw_vec_and_offset().0
}

#[test]
fn case_01_end_of_the_box_is_exclusive() {
    let mut image = Array3::<f32>::zeros((6, 7, 8));
    image[[1, 2, 3]] = 1.0;
    image[[4, 5, 6]] = -1.0;
    let bounds = crop::nonzero_box(&[image.view().into()]);
    assert_eq!(bounds, [1..5, 2..6, 3..7]);
    assert_eq!(crop::crop(image.view(), &bounds)[[3, 3, 3]], -1.0, "the last voxel is inside");
}

#[test]
fn case_02_empty_foreground_keeps_the_whole_image() {
    let image = Array3::<f32>::zeros((3, 4, 5));
    assert_eq!(crop::nonzero_box(&[image.view().into()]), [0..3, 0..4, 0..5]);
}

#[test]
fn case_03_odd_padding_has_its_extra_voxel_on_the_high_side() {
    let tiling = tile::Tiling::new([5, 6, 8], [8, 8, 8], 0.5);
    assert_eq!(tiling.origins, [[-1, -1, 0]]);
    // Three voxels are missing along z: one before, two after.
    assert_eq!(tiling.overlap([-1, -1, 0]), [(1, 0, 5), (1, 0, 6), (0, 0, 8)]);
}

#[test]
fn case_04_padding_is_the_mean_of_a_ct_and_not_air() {
    let intensity = IntensityProperties {
        mean: 40.0,
        std: 20.0,
        percentile_00_5: -1000.0,
        percentile_99_5: 1000.0,
    };
    let channel = Channel { normalization: Normalization::Ct, intensity, use_mask: false };
    let mut image = Array3::from_elem((1, 1, 2), -1000.0_f32);
    normalize::normalize(image.view_mut(), &channel, None).expect("normalizes");
    let tiling = tile::Tiling::new([1, 1, 2], [1, 1, 4], 0.5);
    let mut tile = Array4::from_elem((1, 1, 1, 4), f32::NAN);
    tiling.cut(image.view().insert_axis(ndarray::Axis(0)), tiling.origins[0], tile.view_mut());
    let mut mean = Array3::from_elem((1, 1, 1), 40.0_f32);
    normalize::normalize(mean.view_mut(), &channel, None).expect("normalizes");
    assert_eq!(tile.as_slice().expect("contiguous"), [mean[[0, 0, 0]], -52.0, -52.0, 0.0]);
}

#[test]
fn case_05_tile_starts_round_ties_to_even() {
    assert_eq!(tile::tile_starts(97, 64, 0.5), [0, 16, 33]);
}

#[test]
fn case_06_shapes_round_ties_to_even() {
    let shape = |n: usize| resampled_shape([n; 3], [1.0; 3], [2.0; 3])[0];
    assert_eq!([5, 7, 1].map(shape), [2, 4, 0]);
}

#[test]
fn case_07_order_3_beyond_the_border_continues_the_padded_spline() {
    let got = resized_row(&[0.0, 10.0, 0.0, 4.0, 7.0], 9);
    // The last sample lies at 4.22, beyond the last voxel: clamping it would give 7.
    let expected = [
        0.0,
        3.845_248_2,
        9.794_54,
        6.415_201,
        0.0,
        0.767_972_23,
        4.674_496_7,
        6.614_898_7,
        7.093_388_6,
    ];
    assert_near(&got, &expected);
}

#[test]
fn case_08_spline_is_symmetric_about_the_edge_of_padded_data() {
    let got = resized_row(&[8.0, -8.0, 1.0, 0.0, -2.0], 8);
    // Mirrored about the voxel's center, the second sample would be 2.2997.
    let expected =
        [8.0, 0.342_786_82, -8.0, -2.580_828_7, 2.248_07, 0.269_465_5, -1.566_029_2, -2.064_833_2];
    assert_near(&got, &expected);
}

#[test]
fn case_09_slices_are_clipped_one_by_one_where_an_axis_is_separate() {
    let rows = [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [-5.0, -5.0, 5.0, 5.0, -5.0, -5.0]];
    let image = Array3::from_shape_fn((2, 1, 6), |(z, _, x)| rows[z][x]);
    let resize = |separate| {
        let all = resample_image(image.view(), |v| v, [2, 1, 12], separate, &Resampling::default());
        all.slice(s![0, 0, ..]).to_vec()
    };
    let half = [0.024_153_717, 0.0, 0.0, 0.201_321_45, 0.758_292_85, 1.0];
    let mirrored =
        |half: [f32; 6]| -> Vec<f32> { half.into_iter().chain(half.into_iter().rev()).collect() };
    assert_near(&resize(Some(0)), &mirrored(half));
    // As one volume, the range of the other slice leaves room for the overshoot.
    let half =
        [0.024_153_717, -0.049_757_212, -0.090_142_9, 0.201_321_45, 0.758_292_85, 1.150_721_4];
    assert_near(&resize(None), &mirrored(half));
}

#[test]
fn case_10_nearest_ties_go_up() {
    let image = Array3::from_shape_fn((8, 2, 2), |(z, _, _)| z as f32);
    let halved = resample_image(image.view(), |v| v, [4, 2, 2], Some(0), &Resampling::default());
    assert_eq!(halved.slice(s![.., 0, 0]).to_vec(), [1.0, 3.0, 5.0, 7.0]);
    let map = image.mapv(|v| v as u8);
    let halved = resample_labels(map.view(), [4, 2, 2], Some(0));
    assert_eq!(halved.slice(s![.., 0, 0]).to_vec(), [1, 3, 5, 7]);
}

#[test]
fn case_11_ratio_of_exactly_three_and_two_coarse_axes_are_plain() {
    // (current spacing, new spacing, separate axis)
    let cases = [
        ([3.0, 1.0, 1.0], [1.0, 1.0, 1.0], None),
        ([3.000_001, 1.0, 1.0], [1.0, 1.0, 1.0], Some(0)),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 3.5], Some(2)),
        ([1.0, 4.0, 4.0], [1.0, 1.0, 1.0], None),
        // Two coarse axes settle it: the new spacing is not asked.
        ([1.0, 4.0, 4.0], [9.0, 1.0, 1.0], None),
    ];
    for (current, new, axis) in cases {
        assert_eq!(separate_axis(None, current, new), axis, "{current:?} {new:?}");
    }
}

#[test]
fn case_12_fp16_ties_take_the_lowest_label() {
    let (first, second) = ([1000.05_f32, -3.0], [1000.2_f32, -3.0]);
    let stored = [first, second].map(|row| row.map(|v| f16::from_f32(v).to_f32()));
    assert_eq!(stored[0], stored[1], "fp16 cannot tell them apart");
    assert_eq!(labels(&[&stored[0], &stored[1]], &Decision::Argmax), [0, 0]);
    assert_eq!(labels(&[&[-7.0], &stored[0][..1], &stored[1][..1]], &Decision::Argmax), [1]);
}

#[test]
fn case_13_gaussian_underflows_in_fp16_and_is_centered_at_half_the_edge() {
    const SMALLEST: f32 = 1.0 / (1 << 24) as f32;
    let map = tile::gaussian([16; 3]);
    assert_eq!(map[[8, 8, 8]], 10.0);
    assert_eq!(map.iter().filter(|&&w| w == 10.0).count(), 1);
    // The high corner is one voxel nearer to the center than the low one.
    assert_eq!([map[[0, 0, 0]], map[[15, 15, 15]]], [SMALLEST, 2.0 * SMALLEST]);
    let long = tile::gaussian([48, 4, 4]);
    assert_eq!(long.iter().filter(|&&w| w == SMALLEST).count(), 21);
    assert!(long.iter().all(|&w| w >= SMALLEST), "nothing is zero");
}

#[test]
fn case_14_tiles_run_in_the_order_that_fp16_sums_depend_on() {
    let tiling = tile::Tiling::new([6, 6, 4], [4, 4, 4], 0.5);
    assert_eq!(tiling.origins, [[0, 0, 0], [0, 2, 0], [2, 0, 0], [2, 2, 0]]);
    let sum = |terms: [f32; 3]| {
        terms.iter().fold(f16::ZERO, |sum, &v| f16::from_f32(sum.to_f32() + v)).to_f32()
    };
    assert_ne!(sum([2048.0, 1.0, 1.0]), sum([1.0, 1.0, 2048.0]), "why the order is fixed");
}

#[test]
fn case_15_faint_positive_logits_are_in_no_region() {
    let faint = 1.0 / (1 << 24) as f32;
    let regions = Decision::Regions(vec![1, 2]);
    assert_eq!(labels(&[&[faint, 2.0 * faint, -1.0], &[-1.0, -1.0, 1.0]], &regions), [0, 1, 2]);
}

#[test]
fn case_16_label_255_and_above_are_told_from_smaller_ones() {
    // The file's type is checked on a whole folder: `case_16_label_255_is_written_as_uint16`.
    assert_eq!(Decision::Argmax.largest_label(255), 254);
    assert_eq!(Decision::Argmax.largest_label(256), 255);
    assert_eq!(Decision::Regions(vec![3, 255, 7]).largest_label(3), 255);
}

#[test]
fn case_19_mirroring_flips_every_subset_of_the_axes_given_and_none_disables() {
    assert_eq!(mirror_passes(&[]), [Vec::<usize>::new()]);
    assert_eq!(mirror_passes(&[0, 2]), [vec![], vec![0], vec![2], vec![0, 2]]);
}

#[test]
fn case_20_two_d_neither_pads_nor_blends_slices_and_still_asks_for_a_separate_axis() {
    // One slice per tile, all slices outermost, and only y and x padded.
    let tiling = tile::Tiling::new([3, 4, 6], [1, 6, 4], 0.5);
    let origins: Vec<_> = (0..3).flat_map(|z| [[z, -1, 0], [z, -1, 2]]).collect();
    assert_eq!(tiling.origins, origins);
    // The slice axis keeps its spacing, which still decides how slices are clipped.
    assert_eq!(separate_axis(None, [5.0, 1.0, 1.0], [5.0, 1.4, 1.4]), Some(0));
    assert_eq!(separate_axis(None, [2.5, 1.0, 1.0], [2.5, 1.4, 1.4]), None);
}

#[test]
fn case_21_transposition_is_undone_by_its_inverse() {
    let image = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| 100 * z + 10 * y + x);
    let forward = AxisMap::transpose([2, 0, 1]);
    let seen = forward.view(image.view());
    assert_eq!(seen.dim(), (4, 2, 3));
    assert_eq!(seen[[3, 1, 2]], image[[1, 2, 3]]);
    let mut back = Array3::zeros(image.dim());
    forward.view_mut(back.view_mut()).assign(&seen);
    assert_eq!(back, image);
    assert_ne!(forward.view(seen).dim(), image.dim(), "twice forward is not back");
}

#[test]
fn case_22_scaled_integers_are_widened_first_and_a_slope_of_zero_keeps_the_intercept() {
    let first = |scaling: [f64; 2], raw: i16| {
        let mut file = Nifti { scaling, ..ct() };
        file.voxels[..2].copy_from_slice(&raw.to_le_bytes());
        load_bytes(&file.bytes()).expect("loads").voxels().to_f32()[[0, 0, 0]]
    };
    assert_eq!(first([2.0, 100.0], 30_000), 60_100.0, "beyond 16 bits");
    assert_eq!(first([0.0, -200.0], 50), -150.0, "as ITK");
    assert_eq!(first([0.5, -200.0], 3), -198.5);
}

#[test]
fn case_23_sform_and_qform_that_differ_are_chosen_as_itk_does() {
    let affine = |codes: [i16; 2]| {
        let file = Nifti { codes, ..ct() };
        load_bytes(&file.bytes()).expect("loads").grid().affine
    };
    let diagonal =
        |x: f64, y: f64| Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, 2.5, 0.0]]);
    // The quaternion is zero, so the qform is the identity with the spacing.
    let qform = diagonal(0.75, 1.5);
    let sform = Affine(crate::nifti_files::SROW);
    assert_eq!(affine([1, 1]), sform, "sform_code 1");
    assert_eq!(affine([0, 2]), sform, "no qform");
    assert_eq!(affine([1, 2]), qform, "another sform that disagrees");
    assert_eq!(affine([2, 0]), qform, "no sform");
    assert_eq!(affine([0, 0]), diagonal(-0.75, -1.5), "neither: left, posterior, superior");
}

#[test]
fn case_24_sheared_and_singular_sforms_need_a_qform() {
    for name in ["sheared_1e-2", "singular"] {
        let error = header_fixture(&format!("{name}.nii")).expect_err(name);
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Input, "{name}: {error}");
        header_fixture(&format!("{name}_with_qform.nii")).expect(name);
    }
}

#[test]
fn case_25_odd_files_are_refused_or_read_as_itk_reads_them() {
    // The reference segments these two; a wrong answer without a word is no answer here.
    let four = Nifti { dim: vec![4, 2, 2, 2, 3], ..ct() };
    assert_eq!(load_bytes(&four.bytes()).expect_err("4-D").kind(), fastnnunet::ErrorKind::Input);
    let mut raw = [40.0_f32; 24];
    raw[5] = f32::NAN;
    let voxels = raw.iter().flat_map(|v| v.to_le_bytes()).collect();
    let nan = Nifti { datatype: 16, voxels, ..ct() };
    assert_eq!(load_bytes(&nan.bytes()).expect_err("NaN").kind(), fastnnunet::ErrorKind::Input);
    // Micrometers become millimeters.
    let micro = Nifti { units: 3, pixdim: [1.0, 750.0, 1500.0, 2500.0], codes: [1, 0], ..ct() };
    let spacing = load_bytes(&micro.bytes()).expect("loads").grid().spacing;
    for (got, expected) in spacing.iter().zip([2.5, 1.5, 0.75]) {
        assert!((got - expected).abs() < 1e-7 * expected, "{spacing:?}");
    }
    // Spacing comes from pixdim, whatever the lengths of the affine's columns.
    let twice = crate::nifti_files::SROW.map(|row| row.map(|v| 2.0 * v));
    let longer = Nifti { srow: twice, ..ct() };
    let spacing = load_bytes(&longer.bytes()).expect("loads").grid().spacing;
    assert_eq!(spacing, [2.5, 1.5, 0.75]);
}
