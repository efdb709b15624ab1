//! Resampling and labeling against nnU-Net's arrays, and what must hold for any input.

use crate::golden;
use fastnnunet::model::Resampling;
use fastnnunet::pipeline::label::{Decision, label_resampled};
use fastnnunet::pipeline::resample::{
    resample_image, resample_labels, resampled_shape, separate_axis,
};
use half::f16;
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis, Ix3, Ix4, s, stack};
use serde_json::Value;

/// The separate axis of a golden entry, from its own spacings.
fn separate(case: &Value) -> Option<usize> {
    let spacing = |key: &str| golden::floats(&case[key]);
    let force = case["force_separate_z"].as_bool();
    separate_axis(force, spacing("current_spacing"), spacing("new_spacing"))
}

fn axis(value: &Value) -> Option<usize> {
    value.as_u64().map(|axis| axis as usize)
}

fn order(value: &Value) -> u8 {
    value.as_u64().expect("a spline order") as u8
}

/// Resamples all channels.
fn resample(
    source: ArrayView4<'_, f32>,
    shape: [usize; 3],
    separate: Option<usize>,
    options: Resampling,
) -> Array4<f32> {
    let channels: Vec<_> =
        source.outer_iter().map(|c| resample_image(c, |v| v, shape, separate, &options)).collect();
    let views: Vec<_> = channels.iter().map(|a| a.view()).collect();
    stack(Axis(0), &views).expect("channels of one shape")
}

#[test]
fn shapes_match() {
    for case in golden::entries("resample", "new_shape") {
        let [old, new] = ["old_spacing", "new_spacing"].map(|key| golden::floats(&case[key]));
        let expected: [usize; 3] = golden::counts(&case["expected"]);
        assert_eq!(resampled_shape(golden::counts(&case["shape"]), old, new), expected, "{case}");
    }
}

#[test]
fn separate_axes_match() {
    for case in golden::entries("resample", "separate_z") {
        let [old, new] = ["current_spacing", "new_spacing"].map(|key| golden::floats(&case[key]));
        let expected = axis(&case["axis"]);
        assert_eq!(separate_axis(case["force"].as_bool(), old, new), expected, "{case}");
    }
}

#[test]
fn images_and_logits_match() {
    let mut worst = [0.0_f64; 4];
    for case in golden::entries("resample", "cases") {
        if case["is_seg"] == true {
            continue;
        }
        let source: Array4<f32> = golden::array::<f32, Ix4>("resample", &case["input"]);
        let expected: Array4<f32> = golden::array::<f32, Ix4>("resample", &case["expected"]);
        let separate = separate(&case);
        assert_eq!(separate, axis(&case["separate_axis"]), "{}", case["name"]);
        let options = Resampling {
            order: order(&case["order"]),
            order_z: order(&case["order_z"]),
            ..Resampling::default()
        };
        let got = resample(source.view(), golden::counts(&case["new_shape"]), separate, options);
        let largest = source.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let half = case["dtype"] == "f16";
        let tolerance = if options.order == 3 { 2e-6 } else { 1e-6 };
        for (got, want) in got.iter().zip(&expected) {
            // A stored fp16 may round to either neighbor of a value near their middle.
            let step =
                if half { f64::from(want.abs()) * f64::from(f16::EPSILON.to_f32()) } else { 0.0 };
            let got = if half { f16::from_f32(*got).to_f32() } else { *got };
            let off = f64::from((got - want).abs());
            assert!(off <= tolerance * f64::from(largest) + step, "{}: {got} {want}", case["name"]);
            if !half {
                let worst = &mut worst[usize::from(options.order)];
                *worst = worst.max(off / f64::from(largest));
            }
        }
    }
    println!("largest difference / largest value, by order: {worst:?}");
}

#[test]
fn label_maps_match() {
    for case in golden::entries("resample", "cases") {
        if case["is_seg"] == false {
            continue;
        }
        let source: Array4<i16> = golden::array::<i16, Ix4>("resample", &case["input"]);
        let expected: Array4<i16> = golden::array::<i16, Ix4>("resample", &case["expected"]);
        let shape = golden::counts(&case["new_shape"]);
        let got = resample_labels(source.index_axis(Axis(0), 0), shape, separate(&case));
        assert_eq!(got, expected.index_axis(Axis(0), 0), "{}", case["name"]);
    }
}

/// Distance of the best two logits, or of the nearest one to zero, in units of fp16.
fn margin(logits: &[f32], decision: &Decision) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(f32::total_cmp);
    let last = sorted.len() - 1;
    let best = sorted[last].abs().max(f16::MIN_POSITIVE.to_f32());
    match decision {
        Decision::Argmax => (sorted[last] - sorted[last - 1]) / (best * f16::EPSILON.to_f32()),
        Decision::Regions(_) => {
            sorted.iter().fold(f32::INFINITY, |m, v| m.min(v.abs())) / f16::EPSILON.to_f32()
        }
    }
}

#[test]
fn exported_labels_match() {
    for case in golden::entries("export", "cases") {
        if case["from_probabilities"] == true {
            continue; // an older order of operations, which this program does not offer
        }
        let logits: Array4<f32> = golden::array::<f32, Ix4>("export", &case["logits"]);
        let decision = match serde_json::from_value(case["regions_class_order"].clone()) {
            Ok(Some(order)) => Decision::Regions(order),
            _ => Decision::Argmax,
        };
        let forward: [usize; 3] = golden::counts(&case["transpose_forward"]);
        let spacing: [f64; 3] = golden::floats(&case["file_spacing"]);
        let spacing = forward.map(|k| spacing[k]);
        let separate = separate_axis(None, golden::floats(&case["model_spacing"]), spacing);
        let expected: Array3<u8> = golden::array::<u8, Ix3>("export", &case["expected"]);
        let mut got = Array3::<u8>::zeros(expected.dim());
        let [z, y, x] = golden::ranges(&case["bbox"]);
        let mut window = got.view_mut().permuted_axes(forward);
        let window = window.slice_mut(s![z.clone(), y.clone(), x.clone()]);
        label_resampled(logits.view(), separate, &decision, window);

        let shape = [z.len(), y.len(), x.len()];
        let linear = Resampling { order: 1, ..Resampling::default() };
        let fine = resample(logits.view(), shape, separate, linear);
        let [got, expected] = [&got, &expected].map(|a| {
            a.view().permuted_axes(forward).slice_move(s![z.clone(), y.clone(), x.clone()])
        });
        for (at, &got) in got.indexed_iter() {
            let here = fine.slice(s![.., at.0, at.1, at.2]).to_vec();
            let exact = case["logits_dtype"] == "f32" || shape[..] == logits.shape()[1..];
            let close = !exact && margin(&here, &decision) < 2.0;
            assert!(got == expected[at] || close, "{}: {at:?} {here:?}", case["name"]);
        }
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn cubic() -> Resampling {
        Resampling::default()
    }

    fn noise(shape: [usize; 3], seed: u64) -> Array3<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Array3::from_shape_simple_fn(shape, || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 20) as f32 - 8.0
        })
    }

    fn logits(shape: [usize; 3], channels: u64, seed: u64) -> Array4<f32> {
        let channels: Vec<_> = (0..channels).map(|c| noise(shape, seed ^ (c << 33))).collect();
        stack(Axis(0), &channels.iter().map(|a| a.view()).collect::<Vec<_>>()).expect("one shape")
    }

    fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(work)
    }

    fn shape() -> impl Strategy<Value = [usize; 3]> {
        prop::array::uniform3(1_usize..40)
    }

    fn options() -> impl Strategy<Value = Resampling> {
        let orders = || prop::sample::select(vec![0_u8, 1, 3]);
        (orders(), orders()).prop_map(|(order, order_z)| Resampling {
            order,
            order_z,
            ..Resampling::default()
        })
    }

    /// Some strided view of `array`: permuted and flipped.
    fn view(array: &Array3<f32>, turn: usize, flip: [bool; 3]) -> ArrayView3<'_, f32> {
        let axes = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][turn];
        let mut view = array.view().permuted_axes(axes);
        for (axis, flip) in flip.into_iter().enumerate() {
            if flip {
                view.invert_axis(Axis(axis));
            }
        }
        view
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_constant_stays_constant(
            from in shape(), to in shape(), value in -1000.0_f32..1000.0,
            separate in prop::option::of(0_usize..3), options in options(),
        ) {
            let got = resample_image(Array3::from_elem(from, value).view(), |v| v, to, separate, &options);
            // Along a separate axis a cubic result is not clipped.
            let exact = options.order_z != 3 || separate.is_none();
            for &v in &got {
                prop_assert!(v == value || (!exact && (v - value).abs() <= 2e-6 * value.abs()));
            }
        }

        #[test]
        fn ramps_are_reproduced_inside(from in prop::array::uniform3(2_usize..30), to in shape()) {
            let linear = Resampling { order: 1, ..cubic() };
            let value = |at: [f64; 3]| at[0] + 2.0 * at[1] - 3.0 * at[2];
            let ramp = Array3::from_shape_fn(from, |(z, y, x)| {
                value([z, y, x].map(|i| i as f64)) as f32
            });
            for ((z, y, x), &got) in resample_image(ramp.view(), |v| v, to, None, &linear).indexed_iter() {
                let at: [f64; 3] = std::array::from_fn(|k| {
                    ([z, y, x][k] as f64 + 0.5) * from[k] as f64 / to[k] as f64 - 0.5
                });
                if (0..3).all(|k| at[k] >= 0.0 && at[k] <= (from[k] - 1) as f64) {
                    prop_assert!((f64::from(got) - value(at)).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn any_view_gives_the_bits_of_its_copy(
            from in shape(), to in shape(), seed: u64, turn in 0_usize..6, flip: [bool; 3],
            separate in prop::option::of(0_usize..3), options in options(),
        ) {
            let array = noise(from, seed);
            let view = view(&array, turn, flip);
            let copy = view.as_standard_layout();
            let got = resample_image(view, |v| v, to, separate, &options);
            prop_assert_eq!(&got, &resample_image(copy.view(), |v| v, to, separate, &options));
            prop_assert!(got.is_standard_layout());
        }

        #[test]
        fn the_same_shape_is_untouched(from in shape(), seed: u64, options in options()) {
            let array = noise(from, seed);
            prop_assert_eq!(&resample_image(array.view(), |v| v, from, None, &options), &array);
        }

        #[test]
        fn results_stay_in_range_on_any_number_of_threads(
            from in shape(), to in shape(), seed: u64, separate in prop::option::of(0_usize..3),
        ) {
            let array = noise(from, seed);
            let run = || resample_image(array.view(), |v| v, to, separate, &cubic());
            let (one, two) = (with_threads(1, run), with_threads(2, run));
            prop_assert_eq!(&one, &two);
            let low = array.iter().copied().fold(f32::INFINITY, f32::min);
            let high = array.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert!(one.iter().all(|v| (low..=high).contains(v)));
        }

        #[test]
        fn labels_are_the_argmax_of_resampled_logits(
            from in shape(), to in shape(), seed: u64, channels in 1_u64..5,
            separate in prop::option::of(0_usize..3), turn in 0_usize..6, flip: [bool; 3],
        ) {
            let logits = logits(from, channels, seed);
            let linear = Resampling { order: 1, ..cubic() };
            let fine = resample(logits.view(), to, separate, linear);
            let paint = |threads| {
                let mut map = Array3::<u8>::zeros(to);
                with_threads(threads, || {
                    label_resampled(logits.view(), separate, &Decision::Argmax, map.view_mut());
                });
                map
            };
            let map = paint(1);
            prop_assert_eq!(&map, &paint(2));
            for (at, &label) in map.indexed_iter() {
                let here = fine.slice(s![.., at.0, at.1, at.2]);
                let best = here.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                prop_assert!(here[usize::from(label)] >= best - 1e-5, "{} {}", here, label);
            }
            // Through a strided window of a larger map.
            let axes = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][turn];
            let mut stored = [0; 3];
            (0..3).for_each(|k| stored[axes[k]] = to[k] + 2);
            let mut large = Array3::<u16>::from_elem(stored, 9);
            let mut window = large.view_mut().permuted_axes(axes);
            window.slice_each_axis_inplace(|axis| (1..axis.len - 1).into());
            for (axis, _) in flip.iter().enumerate().filter(|(_, flip)| **flip) {
                window.invert_axis(Axis(axis));
            }
            label_resampled(logits.view(), separate, &Decision::Argmax, window.view_mut());
            prop_assert_eq!(window.mapv(|v| v as u8), map);
            prop_assert_eq!(large.iter().filter(|&&v| v == 9).count(), large.len() - to.iter().product::<usize>());
        }
    }
}
