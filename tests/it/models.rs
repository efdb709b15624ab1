//! Which models answer a mode, with models put into a folder at run time.

use fastnnunet::model::graph;
use fastnnunet::registry::{self, LabelSubset, Model, Registry, Request, Selection};
use fastnnunet::volume::LabelMap;
use fastnnunet::{Error, ErrorKind, Options, PreviousStage, Segmenter, Source, infer};
use ndarray::Array3;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// The self-test network: one input channel, four outputs.
fn network() -> prost::bytes::Bytes {
    registry::find("selftest").expect("self-test model").onnx().expect("embedded")
}

/// The network with the last axis of its input fixed.
fn with_last_axis(edge: i64) -> Vec<u8> {
    use prost::Message as _;
    let mut model = graph::parse(network()).expect("an ONNX model");
    let input = &mut model.graph.as_mut().expect("a graph").input[0];
    let tensor = input.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).expect("a tensor");
    let axis = tensor.shape.as_mut().and_then(|shape| shape.dim.last_mut()).expect("axes");
    axis.dim_value = Some(edge);
    model.encode_to_vec()
}

/// `FastnnUNet`'s own fields, and `extra`.
fn json(extra: &str) -> String {
    format!(
        r#"{{"patch_size": [16, 24, 24], "target_spacing": [3, 2, 2], "intensity_properties":
        {{"mean": 60, "std": 180, "percentile_00_5": -500, "percentile_99_5": 700}}{extra}}}"#
    )
}

fn labels(names: [&str; 3]) -> String {
    let [a, b, c] = names;
    json(&format!(
        r#", "labels": [{{"id": 1, "name": "{a}"}}, {{"id": 2, "name": "{b}"}}, {{"id": 3, "name": "{c}"}}]"#
    ))
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(&path, content).expect("file");
        path
    }

    fn model(&self, name: &str, json: impl AsRef<[u8]>) {
        self.write(&format!("{name}.onnx"), network());
        self.write(&format!("{name}.json"), json);
    }

    fn registry(&self) -> Registry {
        Registry::with_folder(self.0.path()).expect("a good folder")
    }

    fn refused(&self) -> String {
        let error = Registry::with_folder(self.0.path()).expect_err("a bad folder");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model, "{error}");
        error.to_string()
    }
}

fn select(
    registry: &Registry,
    mode: &str,
    fits: &mut dyn FnMut(&Model) -> fastnnunet::Result<bool>,
) -> Result<Selection, Error> {
    registry.select(&Request { mode, quality: None, variant: None }, fits)
}

fn names(selection: &Selection) -> Vec<&str> {
    selection.parts.iter().map(|part| &*part.model.name).collect()
}

#[test]
fn a_folder_adds_models_and_they_run() {
    let folder = Folder::new();
    folder.model("limb", labels(["femur_left", "tibia_left", "something_else"]));
    folder.write("flat.onnx", network());
    folder.write("3d_lowres/flat.json", json(""));
    let registry = folder.registry();
    let model = registry.find("limb").expect("from the folder");
    assert_eq!((model.configuration, model.is_embedded()), ("3d_fullres", false));
    assert_eq!(registry.find("flat").expect("from the folder").configuration, "3d_lowres");
    assert!(registry.find("selftest").is_some(), "the program's own remain");
    let facts = model.facts().expect("a good network");
    assert_eq!((facts.input_channels, facts.output_channels, facts.opset), (1, 4, 17));
    assert_eq!(facts, registry::find("selftest").expect("same").facts().expect("embedded"));
    let engine =
        infer::open(model, [16, 24, 24], &infer::EngineOptions::default()).expect("it opens");
    assert_eq!(engine.output_channels(), 4);

    let selection = select(&registry, "limb", &mut |_| Ok(true)).expect("installed");
    assert_eq!(names(&selection), ["limb"]);
    let ids: Vec<u16> = selection.labels.iter().map(|label| label.id).collect();
    let table = registry.table("limb").expect("the table");
    let id = |name: &str| table.find(name).expect(name).id;
    assert_eq!(ids, [id("femur_left"), id("tibia_left")]);
    assert_eq!(selection.missing.len(), table.labels.len() - 2);
    assert!(selection.why.contains("2 of the mode's 32"), "{}", selection.why);
    let mut map = LabelMap::U8(Array3::from_shape_vec([1, 1, 4], vec![0, 1, 2, 3]).expect("4"));
    selection.parts[0].subset.apply(&mut map);
    let expected = [0, id("femur_left"), id("tibia_left"), 0].map(|id| id as u8).to_vec();
    assert_eq!(map, LabelMap::U8(Array3::from_shape_vec([1, 1, 4], expected).expect("4")));
}

#[test]
fn modes_share_a_model_of_all_structures() {
    let folder = Folder::new();
    folder.model("total", labels(["liver", "vertebrae_L1", "hip_left"]));
    let registry = folder.registry();
    // (mode, structure that the shared model has for it, id)
    let cases = [
        ("abdomen", "liver", 5),
        ("spine", "vertebrae_L1", 31),
        ("pelvic", "hip_left", 77),
        ("limb", "hip_left", 77),
    ];
    for (mode, name, id) in cases {
        let selection = select(&registry, mode, &mut |_| Ok(true)).expect(mode);
        assert_eq!(names(&selection), ["total"], "{mode}");
        let found: Vec<(&str, u16)> =
            selection.labels.iter().map(|label| (label.name.as_str(), label.id)).collect();
        assert_eq!(found, [(name, id)], "{mode}");
        assert!(selection.why.contains("not installed"), "{}", selection.why);
    }
    let error = select(&registry, "chest", &mut |_| Ok(true)).expect_err("no structure in common");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Model);
}

#[test]
fn the_best_that_is_installed_and_fits_is_chosen() {
    let folder = Folder::new();
    for name in ["bone_low", "bone_medium", "bone_high"] {
        folder.model(name, labels(["bone", "x", "y"]));
    }
    let registry = folder.registry();
    let all = select(&registry, "bone", &mut |_| Ok(true)).expect("installed");
    assert_eq!(names(&all), ["bone_high"]);
    assert_eq!(all.quality.as_deref(), Some("high"));
    assert_eq!(all.why.lines().count(), 1);
    let small =
        select(&registry, "bone", &mut |model| Ok(model.name != "bone_high")).expect("two fit");
    assert_eq!(names(&small), ["bone_medium"]);
    assert!(small.why.contains("bone_high does not fit"), "{}", small.why);
    let none = select(&registry, "bone", &mut |_| Ok(false)).expect("left to fail with numbers");
    let broken = select(&registry, "bone", &mut |model| {
        Err(Error::Model {
            model: model.name.to_string(),
            found: "half a file".into(),
            expected: "a whole one".into(),
        })
    });
    assert_eq!(broken.expect_err("not passed over").kind(), fastnnunet::ErrorKind::Model);
    assert_eq!(names(&none), ["bone_low"]);
    let asked = Request { mode: "bone", quality: Some("medium"), variant: None };
    assert_eq!(
        names(&registry.select(&asked, &mut |_| Ok(true)).expect("installed")),
        ["bone_medium"]
    );
    // The program's own, where the finest is tried last for its grade.
    let none = select(Registry::embedded(), "bone", &mut |_| Ok(false)).expect("the smallest");
    assert_eq!(names(&none), ["bone_low"], "{}", none.why);
}

#[test]
fn a_variant_may_have_qualities() {
    let folder = Folder::new();
    folder.write(
        "modes.json",
        r#"{"modes": [{"name": "knee", "summary": "Knees", "choices": [
            {"variant": "9", "quality": "low", "labels": "limb", "models": ["knee_low"]},
            {"variant": "9", "quality": "high", "labels": "limb", "models": ["knee_high"]},
            {"variant": "30", "labels": "limb", "models": ["knee_30"]}
        ]}]}"#,
    );
    for name in ["knee_low", "knee_high", "knee_30"] {
        folder.model(name, labels(["humerus_left", "x", "y"]));
    }
    let registry = folder.registry();
    // (quality, variant, what is too large, the model, part of the reason)
    let cases = [
        (None, None, "", "knee_high", "mode knee, variant 9, quality high, the best"),
        (Some("low"), None, "", "knee_low", "quality low, as asked"),
        (Some("high"), Some("9"), "", "knee_high", "as asked"),
        (None, Some("9"), "knee_high", "knee_low", "knee_high does not fit"),
        (None, Some("30"), "knee_30", "knee_30", "as asked"),
    ];
    for (quality, variant, large, model, reason) in cases {
        let request = Request { mode: "knee", quality, variant };
        let found =
            registry.select(&request, &mut |model| Ok(model.name != large)).expect("installed");
        assert_eq!(names(&found), [model], "{quality:?} {variant:?}");
        assert!(found.why.contains(reason), "{quality:?} {variant:?}: {}", found.why);
    }
    let request = Request { mode: "knee", quality: Some("low"), variant: Some("30") };
    let error =
        registry.select(&request, &mut |_| Ok(true)).expect_err("variant 30 has no qualities");
    assert!(error.to_string().contains("no quality"), "{error}");
}

#[test]
fn a_better_grade_goes_before_a_finer_grid_and_is_the_reason() {
    let folder = Folder::new();
    for (name, grade) in [("knee_low", "starter"), ("knee_medium", "demo")] {
        let extra = format!(r#", "grade": "{grade}""#);
        folder.model(name, json(&extra));
    }
    folder.write(
        "modes.json",
        r#"{"modes": [{"name": "knee", "summary": "Knees", "choices": [
            {"quality": "low", "labels": "limb", "models": ["knee_low"]},
            {"quality": "medium", "labels": "limb", "models": ["knee_medium"]},
            {"quality": "high", "labels": "limb", "models": ["knee_high"]}
        ]}]}"#,
    );
    let registry = folder.registry();
    let best = select(&registry, "knee", &mut |_| Ok(true)).expect("installed");
    assert_eq!(names(&best), ["knee_low"]);
    for reason in ["knee_high is not installed", "knee_medium is of grade demo"] {
        assert_eq!(best.why.matches(reason).count(), 1, "{}", best.why);
    }
    let small =
        select(&registry, "knee", &mut |model| Ok(model.name != "knee_low")).expect("one fits");
    assert_eq!(names(&small), ["knee_medium"]);
    for reason in ["knee_high is not installed", "knee_low does not fit"] {
        assert_eq!(small.why.matches(reason).count(), 1, "{}", small.why);
    }
    let asked = Request { mode: "knee", quality: Some("medium"), variant: None };
    let asked = registry.select(&asked, &mut |_| Ok(true)).expect("installed");
    assert!(
        asked.why.ends_with("as asked; it labels 3 of the mode's 32 structures"),
        "{}",
        asked.why
    );
}

#[test]
fn a_star_stands_for_all_names_that_begin_so() {
    let folder = Folder::new();
    folder.model("total", labels(["rib_left_1", "rib_right_1", "liver"]));
    let selection = select(&folder.registry(), "total", &mut |_| Ok(true)).expect("installed");
    let keep = |names: &[&str]| {
        let mut selection = selection.clone();
        selection
            .keep_only(names)
            .map(|()| selection.labels.into_iter().map(|label| label.name).collect::<Vec<_>>())
    };
    assert_eq!(keep(&["rib_*"]).expect("two"), ["rib_left_1", "rib_right_1"]);
    assert_eq!(keep(&["rib_left_*", "liver"]).expect("two"), ["liver", "rib_left_1"]);
    let absent = keep(&["vertebrae_*"]).expect_err("the model labels none of them");
    assert_eq!(absent.kind(), fastnnunet::ErrorKind::Model, "{absent}");
    assert!(absent.to_string().contains("vertebrae_*"), "{absent}");
    let unknown = keep(&["ribs_*"]).expect_err("no such names");
    assert_eq!(unknown.kind(), fastnnunet::ErrorKind::Usage, "{unknown}");
}

/// Mode, quality, variant, exit code and parts of the message.
type Refusal =
    (&'static str, Option<&'static str>, Option<&'static str>, ErrorKind, &'static [&'static str]);

#[test]
fn requests_that_cannot_be_answered_say_what_would() {
    let folder = Folder::new();
    folder.write(
        "modes.json",
        r#"{"modes": [
            {"name": "knee", "summary": "Knees", "choices": [
                {"quality": "low", "labels": "limb", "models": ["knee_low"]},
                {"quality": "high", "labels": "limb", "models": [{"parts": ["a", "b"]}, "knee_high"]}
            ]},
            {"name": "hip", "summary": "Hips", "choices": [
                {"variant": "9", "labels": "limb", "models": ["hip_9"]},
                {"variant": "30", "labels": "limb", "models": ["hip_30"]}
            ]},
            {"name": "toe", "summary": "Toes", "choices": [{"labels": "limb", "models": ["toe"]}]}
        ]}"#,
    );
    folder.model("hip_30", json(r#", "regions_class_order": [1, 2, 3, 4]"#));
    let registry = folder.registry();
    let cases: [Refusal; 8] = [
        (
            "elbow",
            None,
            None,
            ErrorKind::Usage,
            &["elbow", "bone, chest, abdomen, headneck", "knee"],
        ),
        ("knee", Some("best"), None, ErrorKind::Usage, &["low, high"]),
        ("toe", Some("low"), None, ErrorKind::Usage, &["no quality for this mode"]),
        ("hip", None, Some("10"), ErrorKind::Usage, &["one of 9, 30"]),
        (
            "knee",
            None,
            None,
            ErrorKind::Model,
            &["model knee_low", "nor a + b, knee_high", "a folder of models"],
        ),
        ("knee", Some("high"), None, ErrorKind::Model, &["knee_high.onnx and knee_high.json"]),
        // The other variant is installed, but a default is not replaced.
        ("hip", None, None, ErrorKind::Model, &["hip_9.onnx"]),
        ("hip", None, Some("9"), ErrorKind::Model, &["hip_9.json"]),
    ];
    for (mode, quality, variant, kind, parts) in cases {
        let request = Request { mode, quality, variant };
        let error = registry.select(&request, &mut |_| Ok(true)).expect_err("nothing answers");
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let other = Request { mode: "hip", quality: None, variant: Some("30") };
    assert_eq!(names(&registry.select(&other, &mut |_| Ok(true)).expect("installed")), ["hip_30"]);
}

#[test]
fn parts_are_merged_by_their_ids() {
    let folder = Folder::new();
    for name in ["part_a", "part_b"] {
        folder.model(name, json(""));
    }
    folder.model("joints", json(""));
    folder.write(
        "labels/joint.json",
        r#"{"of": "total", "labels": ["hip_left", {"id": 200, "name": "knee"}, {"id": 201, "name": "ankle"}]}"#,
    );
    folder.write(
        "modes.json",
        r#"{"modes": [{"name": "joint", "summary": "Joints", "choices": [
            {"variant": "parts", "labels": "joint", "models": [
                {"parts": [{"model": "part_a", "ids": [200, 0, 0]}, {"model": "part_b", "ids": [0, 77, 201]}]}
            ]},
            {"variant": "whole", "labels": "joint", "models": ["joints"]}
        ]}]}"#,
    );
    let registry = folder.registry();
    let mut selection = select(&registry, "joint", &mut |_| Ok(true)).expect("installed");
    assert_eq!(names(&selection), ["part_a", "part_b"]);
    assert!(selection.missing.is_empty());
    assert_eq!(selection.parts[0].subset.ids(), [200]);
    assert_eq!(selection.parts[1].subset.ids(), [77, 201]);
    // Labels without names are the table's structures in turn, as many as there are outputs.
    let request = Request { mode: "joint", quality: None, variant: Some("whole") };
    let whole = registry.select(&request, &mut |_| Ok(true)).expect("installed");
    assert_eq!(whole.parts[0].subset, LabelSubset::by_ids([77, 200, 201]));

    let error = selection.keep_only(&["knees"]).expect_err("an unknown name");
    assert!(
        error.kind() == fastnnunet::ErrorKind::Usage && error.to_string().contains("knee"),
        "{error}"
    );
    selection.keep_only(&["ankle"]).expect("a known name");
    assert_eq!(names(&selection), ["part_b"], "the other part has nothing to do");
    assert_eq!(selection.parts[0].subset.ids(), [201]);
    assert_eq!(selection.labels.len(), 1);
}

#[test]
fn what_a_shared_model_labels_besides_is_context() {
    let folder = Folder::new();
    folder.model("total", labels(["kidney_left", "vertebrae_L1", "liver"]));
    let registry = folder.registry();
    let mut selection = select(&registry, "abdomen", &mut |_| Ok(true)).expect("installed");
    let table = registry.table("abdomen_standard").expect("the table");
    let [context] = &selection.context[..] else { panic!("{:?}", selection.context) };
    assert_eq!(context.name, "vertebrae_L1");
    assert!(table.labels.iter().all(|label| label.id != context.id), "an id of its own");
    let id = |name: &str| table.find(name).expect(name).id;
    let part = &selection.parts[0];
    assert_eq!(part.subset.ids(), [id("kidney_left"), id("liver")]);
    assert_eq!(part.whole, LabelSubset::by_ids([id("kidney_left"), context.id, id("liver")]));

    let whole = part.whole.clone();
    selection.keep_only(&["liver"]).expect("labeled");
    assert_eq!(selection.parts[0].whole, whole, "the recipe still sees all");
    let context: Vec<&str> = selection.context.iter().map(|label| &*label.name).collect();
    assert_eq!(context, ["vertebrae_L1", "kidney_left"]);
}

/// What has no side in the model has one in the answer, and is no context.
#[test]
fn a_model_alone_takes_sides_and_its_context_is_the_rest() {
    let folder = Folder::new();
    folder.model("limb", labels(["femur_left", "tibia", "bladder"]));
    let registry = folder.registry();
    let selection = select(&registry, "limb", &mut |_| Ok(true)).expect("installed");
    let table = registry.table("limb").expect("the table");
    let id = |name: &str| table.find(name).expect(name).id;
    let sides = (id("tibia_left"), id("tibia_right"));
    let context: Vec<&str> = selection.context.iter().map(|label| label.name.as_str()).collect();
    assert_eq!(context, ["bladder"]);
    let part = &selection.parts[0];
    assert_eq!((part.subset.halves(), part.whole.halves()), (&[sides][..], &[sides][..]));
    let mut map = LabelMap::U8(Array3::from_shape_vec([1, 1, 4], vec![0, 1, 2, 3]).expect("4"));
    part.whole.apply(&mut map);
    let expected = [0, id("femur_left"), sides.0, selection.context[0].id].map(|id| id as u8);
    assert_eq!(map, LabelMap::U8(Array3::from_shape_vec([1, 1, 4], expected.to_vec()).expect("4")));
}

#[test]
fn structures_the_weights_lack_are_not_unknown() {
    let folder = Folder::new();
    folder.model("total", labels(["liver", "spleen", "colon"]));
    let mut selection =
        select(&folder.registry(), "abdomen", &mut |_| Ok(true)).expect("installed");
    let error = selection.keep_only(&["pancreas"]).expect_err("not labeled");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Model);
    assert!(error.to_string().contains("pancreas"), "{error}");
    selection.keep_only(&["liver"]).expect("labeled");
}

#[test]
fn a_cascade_finds_its_first_stage() {
    let folder = Folder::new();
    let stage = |previous: &str| json(&format!(r#", "previous_stage": "{previous}""#));
    folder.model("by_name", stage("coarse"));
    folder.model("by_configuration", stage("3d_lowres"));
    folder.model("nowhere", stage("nothing"));
    folder.model("itself", stage("itself"));
    folder.write("coarse.onnx", network());
    folder.write("3d_lowres/coarse.json", json(""));
    let registry = folder.registry();
    let stage = |name: &str| {
        let model = registry.find(name).expect(name);
        let found = registry.previous_stage(name, model.config());
        found.map(|found| found.map(|model| model.name.to_string()))
    };
    assert_eq!(registry.find("by_name").expect("there").configuration, "3d_cascade_fullres");
    assert_eq!(stage("by_name").expect("found").as_deref(), Some("coarse"));
    assert_eq!(stage("by_configuration").expect("found").as_deref(), Some("coarse"));
    assert_eq!(stage("coarse").expect("no cascade"), None);
    assert_eq!(stage("nowhere").expect_err("no such stage").kind(), fastnnunet::ErrorKind::Model);
    let error = stage("itself").expect_err("a circle").to_string();
    assert!(error.contains("has one itself"), "{error}");
    // One whose labels come with the case needs no first stage.
    let nowhere = registry.find("nowhere").expect("there");
    let options = Options::default().models(registry.clone()).previous_stage(PreviousStage::Given);
    let source = Source::Model { name: nowhere.name.to_string(), config: None };
    Segmenter::open_with(source, options).expect("one whose labels come with the case");
}

/// Claim, files with their content, and part of the message.
type BadFolder<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn bad_folders_name_the_file() {
    let good = labels(["femur_left", "x", "y"]);
    let cases: [BadFolder<'_>; 9] = [
        ("no configuration", &[("knee.onnx", "x")], "knee.json"),
        (
            "two configurations",
            &[("knee.onnx", "x"), ("knee.json", &good), ("2d/knee.json", &good)],
            "2d",
        ),
        ("wrong configuration", &[("knee.onnx", "x"), ("2d/knee.json", &good)], "3 axes"),
        ("bad JSON", &[("knee.onnx", "x"), ("knee.json", "{")], "knee.json"),
        (
            "unknown field",
            &[("knee.onnx", "x"), ("knee.json", &json(r#", "spacing": 1"#))],
            "spacing",
        ),
        ("bad modes", &[("modes.json", r#"{"modes": [{"name": "knee"}]}"#)], "modes.json"),
        (
            "unknown table",
            &[(
                "modes.json",
                r#"{"modes": [{"name": "knee", "summary": "s", "choices": [{"labels": "knee", "models": ["a"]}]}]}"#,
            )],
            "label table",
        ),
        ("bad table", &[("labels/knee.json", r#"{"labels": []}"#)], "no labels"),
        (
            "table lacks an id",
            &[(
                "modes.json",
                r#"{"modes": [{"name": "knee", "summary": "s", "choices": [{"labels": "spine", "models": [{"model": "a", "ids": [200]}]}]}]}"#,
            )],
            "200",
        ),
    ];
    for (claim, files, part) in cases {
        let folder = Folder::new();
        for (file, content) in files {
            folder.write(file, content);
        }
        let message = folder.refused();
        assert!(message.contains(part), "{claim}: {message}");
    }
    let folder = Folder::new();
    folder.write("big.onnx", "x");
    folder.write("big.json", vec![b' '; (4 << 20) + 1]);
    assert!(folder.refused().contains("4 MiB"));
    let missing = folder.0.path().join("missing");
    assert_eq!(
        Registry::with_folder(&missing).expect_err("no folder").kind(),
        fastnnunet::ErrorKind::Model
    );
}

#[test]
fn a_model_from_two_files_is_checked_whole() {
    let folder = Folder::new();
    let onnx = folder.write("net.onnx", network());
    let model = Model::from_files(&onnx, &folder.write("a.json", json(""))).expect("a good model");
    assert_eq!(model.name, "net");
    assert_eq!(model.onnx().expect("readable"), network());
    // (claim, configuration, part of the message)
    let cases = [
        ("labels", json(r#", "labels": [{"id": 1, "name": "a"}]"#), "4 output channels"),
        (
            "channels",
            json(r#", "normalization": ["NoNormalization", "NoNormalization"]"#),
            "input channels",
        ),
    ];
    for (claim, config, part) in cases {
        let error = Model::from_files(&onnx, &folder.write("b.json", config)).expect_err(claim);
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model, "{claim}");
        assert!(error.to_string().contains(part), "{claim}: {error}");
    }
    // Axes may be open, as they are here, or fixed; then they are the patch.
    for (edge, fits) in [(24, true), (32, false)] {
        let fixed = folder.write("fixed.onnx", with_last_axis(edge));
        let model = Model::from_files(&fixed, &folder.write("a.json", json("")));
        assert_eq!(model.is_ok(), fits, "{model:?}");
    }
    let json = folder.write("c.json", json(""));
    for bytes in [&b""[..], b"<html>", &network()[..5000]] {
        let error = Model::from_files(&folder.write("cut.onnx", bytes), &json).expect_err("cut");
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model);
        assert!(error.to_string().contains("cut.onnx"), "{error}");
    }
    // A file that changes under a model that was checked is not run.
    folder.write("net.onnx", b"other");
    assert_eq!(model.onnx().expect_err("changed").kind(), fastnnunet::ErrorKind::Model);
}

#[test]
fn a_users_model_does_not_run_the_programs_code_of_the_same_name() {
    let folder = Folder::new();
    folder.model("selftest", json(""));
    let registry = folder.registry();
    let model = registry.find("selftest").expect("from the folder");
    assert!(!model.is_embedded());
    let reference = infer::EngineOptions { device: infer::Device::Reference, ..Default::default() };
    let error = infer::open(model, [16, 24, 24], &reference).err().expect("no code");
    assert_eq!(error.kind(), fastnnunet::ErrorKind::Device, "{error}");
}
