//! What `build.rs` refuses: each message names the model and what to do about it.

use fastnnunet::model::{graph, proto};
use fastnnunet::registry;
use fastnnunet_model::manifest;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const CONFIG: &str = r#"{
    "model_path": "knee.onnx", "patch_size": [16, 24, 24], "target_spacing": [3, 2, 2],
    "intensity_properties":
        {"mean": 60, "std": 180, "percentile_00_5": -500, "percentile_99_5": 700},
    "labels": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}],
    "grade": "test"
}"#;

/// A package with the self-test network as its one model, `knee`.
struct Package(TempDir);

impl Package {
    fn new() -> Self {
        let package = Self(tempfile::tempdir().expect("temporary folder"));
        let selftest = registry::find("selftest").expect("self-test model");
        package.onnx(&selftest.onnx().expect("embedded"));
        package.write("config/3d_fullres/knee.json", CONFIG);
        package
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, content).expect("file");
    }

    /// Stores a network with the manifest line that belongs to it.
    fn onnx(&self, bytes: &[u8]) {
        self.write("models/knee.onnx", bytes);
        self.write("models/MANIFEST.toml", line(bytes));
    }

    fn refused(&self, claim: &str) -> String {
        let message = manifest::load(self.root()).expect_err(claim);
        assert!(
            message.to_lowercase().contains("knee"),
            "{claim}: the model is not named in {message}"
        );
        message
    }
}

fn line(bytes: &[u8]) -> String {
    let sha256: Vec<String> = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    let sha256 = sha256.concat();
    format!(
        "[[model]]\nname = \"knee\"\nfile = \"knee.onnx\"\nsha256 = \"{sha256}\"\nopset = 17\n\
         source = \"here\"\nlicense = \"MIT\"\ngrade = \"test\"\n"
    )
}

/// The self-test network after a change.
fn changed(change: impl FnOnce(&mut proto::Model)) -> Vec<u8> {
    use prost::Message as _;
    let onnx = registry::find("selftest").expect("self-test model").onnx().expect("embedded");
    let mut model = graph::parse(onnx.clone()).expect("an ONNX model");
    change(&mut model);
    model.encode_to_vec()
}

fn network(model: &mut proto::Model) -> &mut proto::Graph {
    model.graph.as_mut().expect("a graph")
}

#[test]
fn a_good_package_is_accepted() {
    let models = manifest::load(Package::new().root()).expect("nothing wrong");
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].configuration, "3d_fullres");
    let summary = models[0].summary;
    assert_eq!((summary.opset, summary.input_channels, summary.output_channels), (17, 1, 4));
}

#[test]
fn a_package_without_models_is_accepted() {
    let root = tempfile::tempdir().expect("temporary folder");
    assert!(manifest::load(root.path()).expect("no folders").is_empty());
    fs::create_dir(root.path().join("models")).expect("folder");
    assert!(manifest::load(root.path()).expect("an empty folder").is_empty());
}

#[test]
fn broken_networks_are_refused() {
    let whole = registry::find("selftest").expect("self-test model").onnx().expect("embedded");
    // (claim, file, part of the message)
    let cases: [(&str, Vec<u8>, &str); 18] = [
        ("empty", vec![], "empty file"),
        ("cut off in the graph", whole[..whole.len() / 2].to_vec(), "do not decode"),
        ("cut off by a byte", whole[..whole.len() - 1].to_vec(), "do not decode"),
        ("cut off before the graph", whole[..2].to_vec(), "no graph"),
        ("not protobuf", b"<html>not found</html>".to_vec(), "do not decode"),
        ("no graph", changed(|m| m.graph = None), "no graph"),
        ("no nodes", changed(|m| network(m).node.clear()), "no graph"),
        (
            "unknown operator",
            changed(|m| {
                let node = &mut network(m).node[3];
                (node.op_type, node.name) = ("Resize".to_owned(), "decoder/up".to_owned());
            }),
            "operator Resize (node `decoder/up`)",
        ),
        (
            "operator of another domain",
            changed(|m| network(m).node[0].domain = "com.vendor".to_owned()),
            "operator com.vendor::Conv",
        ),
        ("another opset", changed(|m| m.opset_import[0].version = 13), "opset 13"),
        (
            "another input",
            changed(|m| network(m).input[0].name = "image".to_owned()),
            r#"graph inputs ["image"]"#,
        ),
        ("no output", changed(|m| network(m).output.clear()), "graph outputs []"),
        (
            "too few axes",
            changed(|m| {
                let value = &mut network(m).input[0];
                let tensor = value.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
                tensor.and_then(|t| t.shape.as_mut()).expect("a shape").dim.pop();
            }),
            "`input` of 4 axes",
        ),
        (
            "half-precision input",
            changed(|m| {
                let value = &mut network(m).input[0];
                let tensor = value.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
                tensor.expect("a tensor").elem_type = 10;
            }),
            "ONNX type 10",
        ),
        (
            "weights missing",
            changed(|m| drop(network(m).initializer.remove(0))),
            "before it is made",
        ),
        ("weights too short", changed(|m| network(m).initializer[0].dims[0] += 1), "elements in"),
        (
            "weights in another file",
            changed(|m| network(m).initializer[0].data_location = 1),
            "in another file",
        ),
        (
            "asymmetric padding",
            changed(|m| {
                let attributes = &mut network(m).node[0].attribute;
                let pads = attributes.iter_mut().find(|a| a.name == "pads").expect("pads");
                pads.ints[0] = 0;
            }),
            "the same padding at both ends",
        ),
    ];
    for (claim, bytes, part) in cases {
        let package = Package::new();
        package.onnx(&bytes);
        let message = package.refused(claim);
        assert!(message.contains(part), "{claim}: {message}");
    }
}

/// Builds the package with one file replaced, or removed without content, and asks for part of the message.
fn refused_with(claim: &str, file: &str, content: Option<String>, part: &str) {
    let package = Package::new();
    match content {
        Some(content) => package.write(file, content),
        None => fs::remove_file(package.root().join(file)).expect("a file to remove"),
    }
    let message = package.refused(claim);
    assert!(message.contains(part), "{claim}: {message}");
}

#[test]
fn a_wrong_manifest_is_refused() {
    const FILE: &str = "models/MANIFEST.toml";
    let whole = registry::find("selftest").expect("self-test model").onnx().expect("embedded");
    let line = line(&whole);
    let with = |from: &str, to: &str| Some(line.replace(from, to));
    for (claim, content, part) in [
        ("no line", Some(String::new()), "[[model]]"),
        ("no file", None, "models/MANIFEST.toml; add"),
        ("wrong hash", with("sha256 = \"", "sha256 = \"0"), "SHA-256"),
        ("opset", with("= 17", "= 16"), "opset 17 in the graph"),
        ("twice", Some(line.repeat(2)), "listed twice"),
        ("name", with("\"knee\"", "\"Knee\""), "lowercase"),
        ("other file", with("knee.onnx", "a.onnx"), "\"knee.onnx\""),
        ("license", with("\"MIT\"", "\"\""), "license is empty"),
    ] {
        refused_with(claim, FILE, content, part);
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let config = "config/3d_fullres/knee.json";
    let with = |field: &str| Some(CONFIG.replacen('{', &format!("{{{field}, "), 1));
    // (claim, file, content or none to remove it, part of the message)
    let cases = [
        ("no network", "models/knee.onnx", None, "cannot read models/knee.onnx"),
        ("no configuration", config, None, "add config/3d_fullres/knee.json"),
        (
            "two configurations",
            "config/3d_lowres/knee.json",
            Some(CONFIG.to_owned()),
            "3d_fullres and 3d_lowres; keep one",
        ),
        (
            "configuration in the wrong folder",
            config,
            Some(CONFIG.replace("[16, 24, 24]", "[24, 24]").replace("[3, 2, 2]", "[2, 2]")),
            "patch_size has 2 axes, expected 3",
        ),
        (
            "too many labels",
            config,
            Some(CONFIG.replace("\"labels\": [", "\"labels\": [{\"id\": 4, \"name\": \"d\"}, ")),
            "found 4 output channels in the graph, expected 5",
        ),
        (
            "labels with a gap",
            config,
            Some(CONFIG.replace("\"id\": 3", "\"id\": 7")),
            "3 structures up to id 7",
        ),
        (
            "two input channels",
            config,
            with("\"normalization\": [\"CTNormalization\", \"CTNormalization\"]"),
            "found 1 input channels in the graph, expected 2",
        ),
        (
            "ranges of other weights",
            config,
            with("\"int8\": {\"weights_sha256\": \"0a\", \"layers\": {}}"),
            "int8 ranges of weights with SHA-256 0a",
        ),
        ("grades differ", config, Some(CONFIG.replace("\"test\"", "\"demo\"")), "grade is demo"),
        ("unknown field", config, Some(CONFIG.replace("\"grade\"", "\"grad\"")), "grad"),
        (
            "unlisted configuration",
            "config/2d/knee_2d.json",
            Some(CONFIG.to_owned()),
            "add models/knee_2d.onnx",
        ),
    ];
    for (claim, file, content, part) in cases {
        refused_with(claim, file, content, part);
    }
}

#[test]
fn a_wrong_list_of_modes_is_refused() {
    let package = Package::new();
    package.write("config/modes.json", r#"{"modes": [{"name": "knee", "choices": []}]}"#);
    let message = manifest::load(package.root()).expect_err("no summary");
    assert!(message.starts_with("config/modes.json: "), "{message}");
    let table = r##"{"labels": [{"id": 1, "name": "knee", "color": "#ffffff"}]}"##;
    package.write("config/labels/knee.json", table);
    let modes = r#"{"modes": [{"name": "knee", "summary": "Knees",
        "choices": [{"labels": "knee", "models": ["knee"], "recipe": "knee"}]}]}"#;
    package.write("config/modes.json", modes);
    let message = manifest::load(package.root()).expect_err("no such recipe");
    assert!(message.starts_with("config/modes.json: mode knee: no recipe \"knee\""), "{message}");
}
