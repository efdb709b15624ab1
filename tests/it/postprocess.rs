//! The postprocessing toolkit against SciPy, scikit-image and nnU-Net's own rule.

use crate::golden::{array, counts, entries, floats};
use fastnnunet::model::Label;
use fastnnunet::pipeline::postprocess::{
    Classes, Components, Connectivity, Map, PatientAxes, Recipe, Runs, distance, holes, keep,
    morphology, nearest, neighbor, order, sides,
};
use fastnnunet::registry::Registry;
use fastnnunet::volume::{Affine, Grid, LabelMap};
use ndarray::{Array3, Array4, Axis, s};
use serde_json::Value;

struct Golden {
    name: String,
    labels: Array3<u8>,
    spacing: [f64; 3],
}

impl Golden {
    fn all() -> Vec<Self> {
        let read = |entry: Value| {
            let labels: Array3<u8> = array("postprocess", &entry["labels"]);
            assert_eq!(labels.dim(), counts::<3>(&entry["shape"]).into());
            let name = entry["name"].as_str().expect("a name").to_owned();
            Self { name, labels, spacing: floats(&entry["spacing"]) }
        };
        entries("postprocess", "volumes").into_iter().map(read).collect()
    }

    /// Runs `f` on 8-bit and on 16-bit labels and returns the common result.
    fn edited(&self, f: impl Fn(&mut dyn Editor)) -> Array3<u8> {
        let mut small = self.labels.clone();
        f(&mut Map::new(small.view_mut(), self.spacing));
        let mut large = self.labels.mapv(u16::from);
        f(&mut Map::new(large.view_mut(), self.spacing));
        assert_eq!(small.mapv(u16::from), large, "{}: 8 and 16 bits agree", self.name);
        small
    }
}

/// The steps on either label type.
trait Editor {
    fn keep_largest(&mut self, classes: &Classes, background: u16) -> u64;
    fn remove_small(&mut self, classes: &Classes, c: Connectivity, min_mm3: f64) -> u64;
    fn fill(&mut self, labels: &[u16], axis: Option<usize>) -> u64;
    fn morphology(&mut self, labels: &[u16], operation: morphology::Operation, mm: f64) -> u64;
    fn nearest(&mut self, removed: &Array3<u8>, mm: f64) -> u64;
    fn clip(&mut self, mm: f64) -> u64;
}

impl<T: fastnnunet::pipeline::postprocess::Voxel> Editor for Map<'_, T> {
    fn keep_largest(&mut self, classes: &Classes, background: u16) -> u64 {
        keep::keep_largest(self, classes, Connectivity::TwentySix, background, None)
    }
    fn remove_small(&mut self, classes: &Classes, c: Connectivity, min_mm3: f64) -> u64 {
        keep::remove_small(self, classes, c, min_mm3, None)
    }
    fn fill(&mut self, labels: &[u16], axis: Option<usize>) -> u64 {
        holes::fill(self, labels, axis, None)
    }
    fn morphology(&mut self, labels: &[u16], operation: morphology::Operation, mm: f64) -> u64 {
        morphology::apply(self, labels, operation, mm, None)
    }
    fn nearest(&mut self, removed: &Array3<u8>, mm: f64) -> u64 {
        nearest::fill_from_nearest(self, removed.view(), mm)
    }
    fn clip(&mut self, mm: f64) -> u64 {
        neighbor::clip(self, &[1], &[2], mm, neighbor::Clip::Voxels)
    }
}

const LABELS: [u16; 4] = [1, 2, 3, 4];

/// Calls `f` with each entry of `list`, its volume, and the entry's expected arrays.
fn each(list: &str, f: impl Fn(&Golden, &Value, &Array4<u8>)) {
    let volumes = Golden::all();
    let found = entries("postprocess", list);
    assert_eq!(found.len(), volumes.len(), "{list} on every volume");
    for entry in found {
        let volume = volumes.iter().find(|v| entry["volume"] == v.name.as_str());
        let volume = volume.expect("a listed volume");
        f(volume, &entry, &array("postprocess", &entry["expected"]));
    }
}

fn assert_same(case: &str, got: &Array3<u8>, expected: ndarray::ArrayView3<'_, u8>) {
    let differ = got.iter().zip(expected).filter(|(a, b)| a != b).count();
    assert_eq!(differ, 0, "{case}: {differ} of {} voxels differ", got.len());
}

fn connectivity(value: &Value) -> Connectivity {
    serde_json::from_value(value.clone()).expect("6, 18 or 26")
}

fn classes(union: &Value) -> Classes {
    if union.as_bool().expect("a flag") { Classes::union(&LABELS) } else { Classes::each(&LABELS) }
}

#[test]
fn components_equal_scikit_image() {
    let volumes = Golden::all();
    for entry in entries("postprocess", "components") {
        let volume = volumes.iter().find(|v| entry["volume"] == v.name.as_str()).expect("listed");
        let expected: Array4<i16> = array("postprocess", &entry["expected"]);
        let runs = Runs::new(volume.labels.view());
        for (kind, expected) in entry["kinds"]
            .as_array()
            .expect("kinds")
            .iter()
            .zip(&expected.axis_iter(Axis(0)).collect::<Vec<_>>())
        {
            let found = Components::new(
                &runs,
                &classes(&kind["union"]),
                connectivity(&kind["connectivity"]),
            );
            let painted = found.paint(&runs).mapv(|n| i16::try_from(n).expect("few"));
            assert_eq!(painted, expected, "{} {kind}", volume.name);
            let total: u64 = found.voxels.iter().sum();
            let foreground = volume.labels.iter().filter(|&&l| l != 0).count();
            assert_eq!(total, foreground as u64, "{} {kind}", volume.name);
        }
    }
}

#[test]
fn small_components_go_as_by_scikit_image() {
    each("remove_small", |volume, entry, expected| {
        let min_mm3 = entry["min_mm3"].as_f64().expect("a number");
        for (i, kind) in entry["kinds"].as_array().expect("kinds").iter().enumerate() {
            let got = volume.edited(|map| {
                let c = connectivity(&kind["connectivity"]);
                map.remove_small(&classes(&kind["union"]), c, min_mm3);
            });
            assert_same(&format!("{} {kind}", volume.name), &got, expected.index_axis(Axis(0), i));
        }
    });
}

#[test]
fn nnunet_rules_equal_nnunet() {
    each("nnunet", |volume, entry, expected| {
        for (i, kwargs) in entry["kwargs"].as_array().expect("kwargs").iter().enumerate() {
            let file = serde_json::json!({
                "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
                "postprocessing_kwargs": [kwargs],
                "input_folder": {"foreground_mean": {"Dice": 0.5}},
            });
            let recipe = Recipe::from_nnunet_json(&file.to_string()).expect("nnU-Net's format");
            let mut labels = LabelMap::U8(volume.labels.clone());
            let grid = grid(volume.labels.dim().into(), volume.spacing);
            let report = recipe.apply(&mut labels, &grid, &[]).expect("applies");
            let LabelMap::U8(got) = labels else { panic!("the type stays") };
            let changed = got.iter().zip(&volume.labels).filter(|(a, b)| a != b).count();
            assert_eq!(report.steps[0].voxels_changed, changed as u64);
            assert_same(
                &format!("{} {kwargs}", volume.name),
                &got,
                expected.index_axis(Axis(0), i),
            );
        }
    });
    // The case above in which several labels make up one structure, by hand.
    each("nnunet", |volume, _, expected| {
        let got = volume.edited(|map| {
            map.keep_largest(&Classes::union(&[1]), 7);
        });
        assert_same(&volume.name, &got, expected.index_axis(Axis(0), 5));
    });
}

#[test]
fn holes_equal_scipy() {
    each("fill_holes", |volume, entry, expected| {
        for (i, axis) in entry["axes"].as_array().expect("axes").iter().enumerate() {
            let axis = axis.as_u64().map(|axis| axis as usize);
            let got = volume.edited(|map| {
                map.fill(&LABELS, axis);
            });
            let case = format!("{} axis {axis:?}", volume.name);
            assert_same(&case, &got, expected.index_axis(Axis(0), i));
        }
    });
}

#[test]
fn morphology_equals_scipy() {
    each("morphology", |volume, entry, expected| {
        for (i, run) in entry["runs"].as_array().expect("runs").iter().enumerate() {
            let operation = match run["operation"].as_str() {
                Some("dilate") => morphology::Operation::Dilate,
                Some("erode") => morphology::Operation::Erode,
                Some("open") => morphology::Operation::Open,
                Some("close") => morphology::Operation::Close,
                other => panic!("{other:?}"),
            };
            let got = volume.edited(|map| {
                map.morphology(&LABELS, operation, run["radius_mm"].as_f64().expect("a number"));
            });
            assert_same(&format!("{} {run}", volume.name), &got, expected.index_axis(Axis(0), i));
        }
    });
}

#[test]
fn nearest_labels_equal_scipy() {
    each("nearest", |volume, entry, expected| {
        let removed: Array3<u8> = array("postprocess", &entry["removed"]);
        let mut start = volume.labels.clone();
        start.zip_mut_with(&removed, |label, &gone| *label = if gone > 0 { 0 } else { *label });
        let start = Golden { name: volume.name.clone(), labels: start, spacing: volume.spacing };
        for (i, within) in entry["within_mm"].as_array().expect("limits").iter().enumerate() {
            let got = start.edited(|map| {
                map.nearest(&removed, within.as_f64().expect("a number"));
            });
            let case = format!("{} within {within}", volume.name);
            assert_same(&case, &got, expected.index_axis(Axis(0), i));
        }
    });
}

#[test]
fn clipping_equals_scipy() {
    each("clip", |volume, entry, expected| {
        for (i, mm) in entry["distances_mm"].as_array().expect("distances").iter().enumerate() {
            let got = volume.edited(|map| {
                map.clip(mm.as_f64().expect("a number"));
            });
            assert_same(&format!("{} {mm}", volume.name), &got, expected.index_axis(Axis(0), i));
        }
    });
}

#[test]
fn distances_equal_scipy() {
    let volumes = Golden::all();
    for entry in entries("postprocess", "distance") {
        let volume = volumes.iter().find(|v| entry["volume"] == v.name.as_str()).expect("listed");
        let expected: Array3<f32> = array("postprocess", &entry["expected"]);
        let got = distance::squared(volume.labels.mapv(|l| l == 1).view(), volume.spacing);
        for (a, b) in got.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-6 * b, "{}: {a} for {b}", volume.name);
        }
    }
    let none = distance::squared(Array3::from_elem([2, 3, 4], false).view(), [1.0; 3]);
    assert!(none.iter().all(|d| d.is_infinite()), "nothing to be near to");
}

/// A grid in RAS: `z` superior, `y` anterior, `x` right.
fn grid(shape: [usize; 3], spacing: [f64; 3]) -> Grid {
    let [z, y, x] = spacing;
    let affine = Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
    Grid { shape, spacing, affine }
}

/// The same grid with `x` towards the left and `z` towards the feet.
fn turned(shape: [usize; 3], spacing: [f64; 3]) -> Grid {
    let [z, y, x] = spacing;
    let affine = Affine([[-x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, -z, 0.0]]);
    Grid { shape, spacing, affine }
}

fn names(names: &[&str]) -> Vec<Label> {
    let label = |(i, name): (usize, &&str)| Label {
        id: i as u16 + 1,
        name: (*name).to_owned(),
        ..Label::default()
    };
    names.iter().enumerate().map(label).collect()
}

/// 1 the left kidney, 2 the right one, 3 the spinal cord, in RAS: left at small `x`.
fn kidneys() -> Array3<u8> {
    let mut labels = Array3::zeros([20, 20, 60]);
    labels.slice_mut(s![.., 8..10, 29..31]).fill(3);
    labels.slice_mut(s![5..12, 5..12, 5..12]).fill(1);
    labels.slice_mut(s![5..12, 5..12, 45..52]).fill(2);
    labels
}

#[test]
fn what_lies_on_the_wrong_side_changes_it() {
    let recipe = Recipe::from_json(
        r#"{"steps": [{"step": "sides", "labels": "all", "midline": ["spinal_cord"], "margin_mm": 5}]}"#,
    )
    .expect("a recipe");
    let names = names(&["kidney_left", "kidney_right", "spinal_cord"]);
    let right = kidneys();
    // (case, where a piece of which label is put, what it becomes)
    let wrong = [("left kidney on the right", 40..43, 1, 2), ("right on the left", 14..17, 2, 1)];
    for (case, x, label, expected) in wrong {
        let mut start = right.clone();
        start.slice_mut(s![2..4, 2..4, x.clone()]).fill(label);
        let mut fixed = right.clone();
        fixed.slice_mut(s![2..4, 2..4, x]).fill(expected);
        let mut labels = LabelMap::U8(start.clone());
        let there = grid([20, 20, 60], [2.0, 1.0, 1.0]);
        let report = recipe.apply(&mut labels, &there, &names).expect("applies");
        assert_eq!(report.steps[0].voxels_changed, 12, "{case}");
        assert_eq!(labels, LabelMap::U8(fixed.clone()), "{case}");
        // In a flipped file the same anatomy is stored the other way round.
        let flip = |a: &Array3<u8>| a.slice(s![..;-1, .., ..;-1]).to_owned();
        let mut labels = LabelMap::U8(flip(&start));
        let there = turned([20, 20, 60], [2.0, 1.0, 1.0]);
        recipe.apply(&mut labels, &there, &names).expect("applies");
        assert_eq!(labels, LabelMap::U8(flip(&fixed)), "{case}, flipped");
    }
    // By voxel, what crosses the margin changes and the rest stays.
    let mut crossing = right.clone();
    crossing.slice_mut(s![2..4, 2..4, 20..40]).fill(1);
    let mut map = Map::new(crossing.view_mut(), [2.0, 1.0, 1.0]);
    let axes = PatientAxes::new(&grid([20, 20, 60], [2.0, 1.0, 1.0]));
    let pair = sides::Pair { left: 1, right: 2 };
    let changed = sides::correct(&mut map, &[pair], &[3], &axes, 5.0, sides::Unit::Voxels);
    // The midline is at 29.5; beyond 34.5 lie 35 to 39.
    assert_eq!(changed, Some(2 * 2 * 5));
    assert!(crossing.slice(s![2..4, 2..4, 35..40]).iter().all(|&l| l == 2));
    assert!(crossing.slice(s![2..4, 2..4, 20..35]).iter().all(|&l| l == 1));
}

#[test]
fn sides_follow_a_tilted_midline_and_need_one() {
    let axes = PatientAxes::new(&grid([40, 6, 60], [1.0; 3]));
    let mut labels = Array3::<u8>::zeros([40, 6, 60]);
    for z in 0..40 {
        labels[[z, 3, 10 + z]] = 3;
    }
    // Left of the tilted line at the top, though right of its middle.
    labels.slice_mut(s![36..39, 1..3, 36..39]).fill(1);
    let before = labels.clone();
    let pair = sides::Pair { left: 1, right: 2 };
    let unit = sides::Unit::Components(Connectivity::TwentySix);
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    assert_eq!(sides::correct(&mut map, &[pair], &[3], &axes, 2.0, unit), Some(0));
    assert_eq!(sides::correct(&mut map, &[pair], &[9], &axes, 2.0, unit), None);
    assert_eq!(labels, before);
}

/// A column of blocks of 8 planes each, top first, with `labels` from top to bottom.
fn column(labels: &[u8]) -> Array3<u8> {
    let mut out = Array3::zeros([labels.len() * 8, 6, 6]);
    for (i, &label) in labels.iter().rev().enumerate() {
        out.slice_mut(s![i * 8..i * 8 + 7, 1..5, 1..5]).fill(label);
    }
    out
}

#[test]
fn vertebrae_are_renumbered_where_they_disagree() {
    let labels_mode = order::Instances::Labels { gap_mm: 2.0 };
    // (case, labels from top to bottom, instances, expected)
    let cases: [(_, &[u8], _, &[u8]); 7] = [
        ("in order", &[1, 2, 3, 4], labels_mode, &[1, 2, 3, 4]),
        ("one missing is no disagreement", &[1, 2, 4, 5], labels_mode, &[1, 2, 4, 5]),
        ("two exchanged", &[1, 3, 2, 4], labels_mode, &[1, 2, 3, 4]),
        ("one twice, the next free", &[1, 2, 2, 4], labels_mode, &[1, 2, 3, 4]),
        ("one twice, counted on", &[2, 3, 3, 4, 5, 6], labels_mode, &[1, 2, 3, 4, 5, 6]),
        ("upside down", &[3, 2, 1], labels_mode, &[1, 2, 3]),
        ("union in order", &[2, 3, 4], order::Instances::Union, &[2, 3, 4]),
    ];
    for (case, start, instances, expected) in cases {
        let start = column(start);
        let mut labels = start.clone();
        let shape: [usize; 3] = labels.dim().into();
        let options = order::Options {
            instances,
            position: order::Position::Centroid,
            min_mm3: 20.0,
            connectivity: Connectivity::TwentySix,
        };
        let axes = PatientAxes::new(&grid(shape, [1.0; 3]));
        let mut map = Map::new(labels.view_mut(), [1.0; 3]);
        let changed = order::renumber(&mut map, &[1, 2, 3, 4, 5, 6, 7], &axes, &options);
        assert_eq!(labels, column(expected), "{case}");
        let differ = labels.iter().zip(&start).filter(|(a, b)| a != b).count();
        assert_eq!(changed, differ as u64, "{case}");
    }
}

#[test]
fn fragments_and_mixed_bodies_are_no_reason_to_renumber_the_rest() {
    let options = |instances| order::Options {
        instances,
        position: order::Position::Centroid,
        min_mm3: 20.0,
        connectivity: Connectivity::TwentySix,
    };
    // A fragment of 2 beside 3, less than half of 2: not an instance.
    let mut labels = column(&[1, 2, 3, 4]);
    labels.slice_mut(s![8..12, 1..5, 5..6]).fill(2);
    let before = labels.clone();
    let axes = PatientAxes::new(&grid([32, 6, 6], [1.0; 3]));
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    let chain = [1, 2, 3, 4];
    let by_label = options(order::Instances::Labels { gap_mm: 2.0 });
    assert_eq!(order::renumber(&mut map, &chain, &axes, &by_label), 0);
    assert_eq!(labels, before);
    // A body whose lower part leaked into the next number: as a body apart, it becomes one.
    let mut labels = column(&[1, 2, 3, 4]);
    labels.slice_mut(s![16..18, 1..5, 1..5]).fill(3);
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    let union = options(order::Instances::Union);
    assert_eq!(order::renumber(&mut map, &chain, &axes, &union), 2 * 16);
    assert_eq!(labels, column(&[1, 2, 3, 4]));
}

#[test]
fn sloping_ribs_are_ordered_by_their_posterior_ends() {
    // Rib 1 slopes down so far in front that its centroid is below that of rib 2.
    let mut labels = Array3::<u8>::zeros([60, 60, 4]);
    for y in 0..60 {
        let z = 50 - y * 45 / 59;
        labels.slice_mut(s![z - 1..z + 2, y, ..]).fill(1);
    }
    labels.slice_mut(s![40..43, 0..8, ..]).fill(2);
    let before = labels.clone();
    let axes = PatientAxes::new(&grid([60, 60, 4], [1.0; 3]));
    let options = order::Options {
        instances: order::Instances::Labels { gap_mm: 100.0 },
        position: order::Position::Posterior,
        min_mm3: 1.0,
        connectivity: Connectivity::TwentySix,
    };
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    assert_eq!(order::renumber(&mut map, &[1, 2], &axes, &options), 0);
    assert_eq!(labels, before);
    let centroid = order::Options { position: order::Position::Centroid, ..options };
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    assert!(order::renumber(&mut map, &[1, 2], &axes, &centroid) > 0, "that is what it is for");
}

#[test]
fn ribs_cut_by_the_scan_keep_their_numbers() {
    // Of rib 1 only the low front is in the scan, below the end of rib 2.
    let mut labels = Array3::<u8>::zeros([60, 40, 4]);
    labels.slice_mut(s![50..53, 0..20, ..]).fill(2);
    labels.slice_mut(s![30..60, 30..33, ..]).fill(1);
    labels.slice_mut(s![20..23, 0..20, ..]).fill(3);
    let before = labels.clone();
    let axes = PatientAxes::new(&grid([60, 40, 4], [1.0; 3]));
    let options = order::Options {
        instances: order::Instances::Labels { gap_mm: 100.0 },
        position: order::Position::Posterior,
        min_mm3: 1.0,
        connectivity: Connectivity::TwentySix,
    };
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    assert_eq!(order::renumber(&mut map, &[1, 2, 3, 4], &axes, &options), 0);
    assert_eq!(labels, before);
    // The others can still be put in order, and never get the number of the one that is cut.
    let exchanged = before.mapv(|l| [0_u8, 1, 3, 2][usize::from(l)]);
    let mut labels = exchanged.clone();
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    assert!(order::renumber(&mut map, &[1, 2, 3], &axes, &options) > 0);
    assert_eq!(labels[[51, 5, 0]], 2);
    assert_eq!(labels[[21, 5, 0]], 3);
    assert_eq!(labels[[40, 31, 0]], 1);
}

#[test]
fn whole_components_far_from_their_neighbor_go() {
    let mut labels = Array3::<u8>::zeros([3, 3, 30]);
    labels.slice_mut(s![.., .., 0..4]).fill(2);
    labels.slice_mut(s![.., .., 6..12]).fill(1);
    labels.slice_mut(s![.., .., 20..22]).fill(1);
    let mut expected = labels.clone();
    expected.slice_mut(s![.., .., 20..22]).fill(0);
    let mut map = Map::new(labels.view_mut(), [1.0; 3]);
    let clip = neighbor::Clip::Components(Connectivity::Six);
    assert_eq!(neighbor::clip(&mut map, &[1], &[2], 4.0, clip), 18);
    assert_eq!(labels, expected);
}

#[test]
fn the_embedded_recipes_suit_any_table() {
    let grid = grid([10, 12, 14], [1.0; 3]);
    for mode in ["bone", "chest", "abdomen", "headneck", "pelvic", "spine", "limb", "total"] {
        let recipe = Registry::embedded().recipe(mode).and_then(Recipe::from_json);
        let recipe = recipe.expect("every mode has a recipe");
        assert!(!recipe.is_empty(), "{mode}");
        for table in [names(&[]), names(&["bone"]), names(&["liver", "vertebrae_L1", "rib_left_3"])]
        {
            let mut labels = Array3::<u8>::zeros([10, 12, 14]);
            labels.slice_mut(s![2..8, 2..8, 2..8]).fill(1);
            labels[[5, 5, 5]] = 0;
            let mut labels = LabelMap::U8(labels);
            let report = recipe.apply(&mut labels, &grid, &table).expect(mode);
            assert_eq!(report.steps.len(), recipe.len(), "{mode}");
            let filled =
                report.steps.iter().find(|s| s.step == "fill_holes" && s.skipped.is_none());
            if !table.is_empty() && mode != "limb" {
                assert_eq!(filled.map(|s| s.voxels_changed), Some(1), "{mode}");
            }
        }
    }
    let none = Registry::embedded().recipe("knee").expect_err("no such mode");
    assert!(none.to_string().contains("headneck"), "{none}");
}

#[test]
fn recipes_say_which_step_is_wrong() {
    // (claim, recipe, part of the message)
    let cases = [
        ("not JSON", "steps", "expected value"),
        ("no list", r#"{"step": []}"#, "unknown field `step`"),
        ("no name", r#"{"steps": [{"labels": "all"}]}"#, "step 1 (?)"),
        ("unknown step", r#"{"steps": [{"step": "polish"}]}"#, "step 1 (polish): found `polish`"),
        (
            "unknown field",
            r#"{"steps": [{"step": "fill_holes", "labels": "all", "mm": 1}]}"#,
            "step 1 (fill_holes): found unknown field `mm`",
        ),
        (
            "missing field",
            r#"{"steps": [{"step": "fill_holes", "labels": "all"}, {"step": "open", "labels": "all"}]}"#,
            "step 2 (open): found missing field `radius_mm`",
        ),
        (
            "negative",
            r#"{"steps": [{"step": "open", "labels": "all", "radius_mm": -1}]}"#,
            "`radius_mm`: -1, expected 0 to 100",
        ),
        (
            "connectivity",
            r#"{"steps": [{"step": "keep_largest", "labels": "all", "connectivity": 8}]}"#,
            "connectivity 8, expected 6, 18 or 26",
        ),
    ];
    for (claim, text, message) in cases {
        let error = Recipe::from_json(text).expect_err(claim);
        assert!(error.to_string().contains(message), "{claim}: {error}");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Usage, "{claim}");
    }
    let absent = r#"{"steps": [{"step": "keep_largest", "labels": ["liver", "spleen"]}]}"#;
    let error = Recipe::from_json(absent).expect("a recipe").check(&names(&["liver"]));
    let error = error.expect_err("spleen is not in the table").to_string();
    assert!(error.contains("step 1 (keep_largest): found structure `spleen`"), "{error}");
    let optional = absent.replace("\"step\"", "\"optional\": true, \"step\"");
    Recipe::from_json(&optional).expect("a recipe").check(&names(&["liver"])).expect("optional");
}

#[test]
fn nnunet_files_that_are_something_else_are_refused() {
    let cases = [
        "{}",
        r#"{"postprocessing_fns": ["os.system"], "postprocessing_kwargs": [{"labels_or_regions": 1}]}"#,
        r#"{"postprocessing_fns": [], "postprocessing_kwargs": [{"labels_or_regions": 1}]}"#,
        r#"{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
            "postprocessing_kwargs": [{"labels_or_regions": "liver"}]}"#,
        r#"{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
            "postprocessing_kwargs": [{"labels_or_regions": [[[[1]]]]}]}"#,
        r#"{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
            "postprocessing_kwargs": [{"labels_or_regions": 70000}]}"#,
    ];
    for text in cases {
        assert_eq!(
            Recipe::from_nnunet_json(text).expect_err(text).kind(),
            fastnnunet::ErrorKind::Model,
            "{text}"
        );
    }
    // A background label that 8-bit labels cannot hold is refused, not a panic.
    let wide = r#"{"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": 1, "background_label": 300}]}"#;
    let recipe = Recipe::from_nnunet_json(wide).expect("well formed");
    let mut labels = LabelMap::U8(Array3::zeros([2, 2, 2]));
    assert!(recipe.apply(&mut labels, &grid([2, 2, 2], [1.0; 3]), &[]).is_err());
}

#[test]
fn the_same_bytes_at_any_number_of_threads() {
    let volume = Golden::all().into_iter().find(|v| v.name == "anatomy").expect("listed");
    let recipe = Recipe::from_json(
        r#"{"steps": [
            {"step": "close", "labels": "all", "radius_mm": 1.5},
            {"step": "keep_largest", "labels": "all", "nearest_mm": 4},
            {"step": "open", "labels": "all", "radius_mm": 1, "nearest_mm": 3},
            {"step": "remove_small", "labels": "all", "min_mm3": 10, "nearest_mm": 3},
            {"step": "fill_holes", "labels": "all"},
            {"step": "fill_holes", "labels": "all", "plane": "sagittal"}]}"#,
    )
    .expect("a recipe");
    let table = names(&["a", "b", "c", "d"]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let mut labels = LabelMap::U8(volume.labels.clone());
        let grid = grid(volume.labels.dim().into(), volume.spacing);
        let report = pool.install(|| recipe.apply(&mut labels, &grid, &table)).expect("applies");
        assert!(report.steps.iter().all(|s| s.voxels_changed > 0), "every step acts: {report:?}");
        (labels, report)
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}
