//! Trained folders made by nnU-Net's own classes: the same logits without Python.

use fastnnunet::Error;
use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::{Reader, onnx::Graph};
use fastnnunet::nnunet::{Fold, Folder, Folds};
use fastnnunet::volume::Orientation;
use ndarray::{Array4, ArrayD, Axis};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Every folder, by the claim it stands for.
pub(crate) const CASES: [(&str, &str); 14] = [
    ("plain U-Net, anisotropic", "plain"),
    ("residual encoder", "residual_encoder"),
    ("residual encoder and decoder", "residual"),
    ("bottleneck blocks, own stem", "bottleneck"),
    ("two-dimensional", "plane"),
    ("nnUNetTrainerBN", "batch_norm"),
    ("activation first, ReLU, no affine norm, no bias", "options"),
    ("plans without architecture", "old"),
    ("LiteNNUNetStudent", "student"),
    ("LiteResEncStudent", "residual_student"),
    ("f16, bf16, f64 and strided weights, fold_all, best checkpoint", "types"),
    ("compiled and parallel", "wrapped"),
    ("regions", "regions"),
    ("cascade", "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"),
];

pub(crate) fn path(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders").join(case)
}

fn folds(case: &str) -> Folds {
    if case == "types" { Folds::List(vec![Fold::All]) } else { Folds::Auto }
}

pub(crate) fn open(case: &str) -> Folder {
    Folder::open(&path(case), &folds(case), None).unwrap_or_else(|e| panic!("{case}: {e}"))
}

/// An array of the folder, with a slice axis if it has none.
fn array(case: &str, name: &str) -> Array4<f32> {
    let array: ArrayD<f32> = ndarray_npy::read_npy(path(case).join(name)).expect("an array");
    let array = if array.ndim() == 3 { array.insert_axis(Axis(1)) } else { array };
    array.into_dimensionality().expect("four axes")
}

fn logits(graph: &Graph, input: &Array4<f32>) -> Array4<f32> {
    let (_, z, y, x) = input.dim();
    let mut engine = CpuEngine::from_graph(graph.clone(), [z, y, x], Precision::F32, Isa::best())
        .expect("the graph lowers");
    let mut output = Array4::zeros((engine.output_channels(), z, y, x));
    engine.run(input.view(), &mut output).expect("it runs");
    output
}

#[test]
fn every_network_gives_pytorchs_logits() {
    for (claim, case) in CASES {
        let folder = open(case);
        let (input, expected) = (array(case, "input.npy"), array(case, "logits.npy"));
        let (_, z, y, x) = input.dim();
        assert_eq!(folder.config().patch_size, [z, y, x], "{claim}");
        assert_eq!(folder.input_channels(), input.dim().0, "{claim}");
        assert_eq!(folder.config().input_channels(), input.dim().0, "{claim}");
        assert_eq!(folder.config().output_channels(), Some(expected.dim().0), "{claim}");
        let model = folder.model(0).expect(claim);
        // What `convert` writes reads back as the same graph.
        let written = Graph::read(&model.encode_to_vec()).expect(claim);
        let found = logits(&folder.graph(0).expect(claim), &input);
        assert_eq!(found, logits(&written, &input), "{claim}");
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let off = (&found - &expected).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        println!("{claim}: off by {:.1e} of the largest logit", off / largest);
        assert!(largest > 0.1 && off <= 1e-5 * largest, "{claim}: off by {off} of {largest}");
    }
}

#[test]
fn a_folder_says_what_the_reference_would_do() {
    let folder = open("plain");
    assert_eq!(folder.configuration(), "3d_fullres");
    assert_eq!(folder.trainer(), "nnUNetTrainer");
    assert_eq!(folder.folds(), [Fold::Number(0), Fold::Number(1)]);
    assert_eq!(folder.suggested_name(), "tiny_3d_fullres");
    assert_eq!(folder.previous_stage(), None);
    assert!(folder.checkpoint(1).ends_with("fold_1/checkpoint_final.pth"));
    assert_eq!(folder.sha256(0).expect("reads").len(), 64);
    let config = folder.config();
    assert_eq!(config.configuration.as_deref(), Some("3d_fullres"));
    assert_eq!(config.mirror_axes, [0, 1, 2]);
    assert_eq!(config.target_spacing, [Some(2.5), Some(1.5), Some(1.5)]);
    assert_eq!((config.reader, config.orientation), (Some(Reader::SimpleItk), Orientation::Native));
    let intensity = config.channels[0].intensity;
    assert_eq!((intensity.mean, intensity.percentile_99_5), (90.0, 300.0));
    let names: Vec<_> = config.labels.iter().map(|l| (l.id, l.name.as_str())).collect();
    assert_eq!(names, [(1, "bone"), (2, "muscle")]);
    // The two folds are different trainings.
    let input = array("plain", "input.npy");
    assert_ne!(
        logits(&folder.graph(0).expect("fold 0"), &input),
        logits(&folder.graph(1).expect("fold 1"), &input)
    );

    assert!(open("residual").config().mirror_axes.is_empty(), "None is no mirroring");
    let plane = open("plane");
    assert!(plane.config().two_d);
    assert_eq!(plane.config().mirror_axes, [1, 2], "a 2-D network's axes are the last two");
    assert_eq!(open("types").folds(), [Fold::All]);
    assert!(open("types").checkpoint(0).ends_with("fold_all/checkpoint_best.pth"));

    let regions = open("regions");
    let config = regions.config();
    assert_eq!(config.regions_class_order.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(config.transpose_forward, [2, 0, 1]);
    assert_eq!(
        (config.reader, config.orientation),
        (Some(Reader::NibabelReorient), Orientation::Ras)
    );
    assert_eq!(
        config.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(),
        ["whole", "core", "tip"]
    );

    let cascade = open("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres");
    assert_eq!(cascade.config().previous_stage.as_deref(), Some("3d_lowres"));
    assert_eq!(cascade.config().previous_stage_labels, [1, 2]);
    let beside = path("nnUNetTrainer__nnUNetPlans__3d_lowres");
    assert_eq!(cascade.previous_stage().as_ref(), Some(&beside));
    let nameless = open("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres/fold_0/..");
    let folders = path("").canonicalize().expect("a folder");
    assert_eq!(nameless.previous_stage(), beside.file_name().map(|name| folders.join(name)));
}

#[test]
fn postprocessing_is_found_and_read() {
    let found = open("plain").postprocessing().expect("reads").expect("there is one");
    let name = "remove_all_but_largest_component_from_segmentation";
    let expected = serde_json::json!({
        "postprocessing_fns": [name, name],
        "postprocessing_kwargs": [
            {"labels_or_regions": [1, 2]},
            {"labels_or_regions": 2, "background_label": 0},
        ],
    });
    assert_eq!(found, expected);
    assert_eq!(open("old").postprocessing().expect("reads"), None);
}

/// A copy of a folder whose files may be changed.
fn copy(case: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    crate::copy_folder(&path(case), folder.path());
    folder
}

/// Opens a copy with a changed file and reads its network; both may be refused.
fn refusal(case: &str, file: &str, change: &dyn Fn(&mut Value)) -> Error {
    let folder = copy(case);
    let json = folder.path().join(file);
    let text = std::fs::read_to_string(&json).expect("reads");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut value);
    std::fs::write(&json, value.to_string()).expect("writes");
    let opened = Folder::open(folder.path(), &Folds::Auto, None);
    opened.and_then(|folder| folder.model(0)).expect_err(case)
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    type Change = fn(&mut Value);
    // (what the message names, file, change)
    let cases: [(&str, &str, Change); 24] = [
        ("network class UMamba", "plans.json", |p| {
            arch(p)["network_class_name"] = "a.UMamba".into();
        }),
        ("squeeze_excitation", "plans.json", |p| kwargs(p)["squeeze_excitation"] = true.into()),
        ("GELU", "plans.json", |p| kwargs(p)["nonlin"] = "torch.nn.GELU".into()),
        ("GroupNorm", "plans.json", |p| kwargs(p)["norm_op"] = "torch.nn.GroupNorm".into()),
        ("conv_op", "plans.json", |p| kwargs(p)["conv_op"] = "torch.nn.Conv2d".into()),
        ("n_stages", "plans.json", |p| kwargs(p)["n_stages"] = 100.into()),
        ("strides", "plans.json", |p| kwargs(p)["strides"][0] = json!([1, 0, 1])),
        ("features_per_stage", "plans.json", |p| kwargs(p)["features_per_stage"] = json!([1])),
        ("resample_torch_simple", "plans.json", |p| {
            config(p)["resampling_fn_data"] = "resample_torch_simple".into();
        }),
        ("no_resampling_hack", "plans.json", |p| {
            config(p)["resampling_fn_probabilities"] = "no_resampling_hack".into();
        }),
        ("order", "plans.json", |p| {
            config(p)["resampling_fn_data_kwargs"]["order"] = 2.into();
        }),
        ("Tiff3DIO", "plans.json", |p| p["image_reader_writer"] = "Tiff3DIO".into()),
        ("label_manager", "plans.json", |p| p["label_manager"] = "Mine".into()),
        ("preprocessor_name", "plans.json", |p| config(p)["preprocessor_name"] = "Mine".into()),
        ("MyNorm", "plans.json", |p| config(p)["normalization_schemes"][0] = "MyNorm".into()),
        ("transpose", "plans.json", |p| p["transpose_backward"] = json!([1, 0, 2])),
        ("itself", "plans.json", |p| config(p)["inherits_from"] = "3d_fullres".into()),
        ("nowhere", "plans.json", |p| config(p)["inherits_from"] = "nowhere".into()),
        ("spacing", "plans.json", |p| config(p)["spacing"][0] = Value::Null),
        ("mean of channel 0", "plans.json", |p| {
            p["foreground_intensity_properties_per_channel"] = json!({});
        }),
        ("channel_names", "dataset.json", |d| d["channel_names"] = json!({})),
        ("background", "dataset.json", |d| d["labels"]["background"] = 1.into()),
        ("ignore", "dataset.json", |d| d["labels"]["ignore"] = 7.into()),
        ("regions_class_order", "dataset.json", |d| d["labels"]["bone"] = json!([1, 2])),
    ];
    for (named, file, change) in cases {
        let error = refusal("plain", file, &change);
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model, "{named}: {error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

fn config(plans: &mut Value) -> &mut Value {
    &mut plans["configurations"]["3d_fullres"]
}

fn arch(plans: &mut Value) -> &mut Value {
    &mut config(plans)["architecture"]
}

fn kwargs(plans: &mut Value) -> &mut Value {
    &mut arch(plans)["arch_kwargs"]
}

#[test]
fn weights_that_are_not_the_networks_are_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 3] = [
        ("no weights \"encoder.stages.0.0.convs.1.conv.weight\"", |p| {
            kwargs(p)["n_conv_per_stage"] = json!([2, 2, 1]);
        }),
        ("weights \"encoder.stages.1.0.convs.1.conv.bias\"", |p| {
            kwargs(p)["n_conv_per_stage"] = json!([1, 1, 1]);
        }),
        ("of shape [4, 3, 3, 3, 3]", |p| kwargs(p)["features_per_stage"] = json!([3, 5, 4])),
    ];
    for (named, change) in &cases {
        let error = refusal("plain", "plans.json", change);
        assert!(error.to_string().contains(named), "{named}: {error}");
        assert!(error.to_string().contains("PlainConvUNet of nnUNetTrainer"), "{error}");
    }
    let error = refusal("plain", "dataset.json", &|d| d["labels"]["fat"] = 3.into());
    assert!(
        error.to_string().contains("seg_layers") && error.kind() == fastnnunet::ErrorKind::Model,
        "{error}"
    );
}

/// Opens the plain folder with another checkpoint.
fn with_checkpoint(bytes: &[u8]) -> Result<(), Error> {
    let folder = copy("plain");
    std::fs::write(folder.path().join("fold_0/checkpoint_final.pth"), bytes).expect("writes");
    Folder::open(folder.path(), &Folds::Auto, None)?.graph(0).map(|_| ())
}

/// An archive as `torch.save` writes it, around a pickle.
fn archive(pickle: &[u8], compress: bool) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = zip::CompressionMethod::Stored;
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    zip.start_file("archive/data.pkl", options).expect("an entry");
    zip.write_all(pickle).expect("writes");
    let mut bytes = zip.finish().expect("an archive").into_inner();
    if compress {
        // Deflate in the central directory and the local header.
        for at in 0..bytes.len() - 12 {
            let offset = match &bytes[at..at + 4] {
                b"PK\x01\x02" => 10,
                b"PK\x03\x04" => 8,
                _ => continue,
            };
            bytes[at + offset] = 8;
        }
    }
    bytes
}

#[test]
fn checkpoints_that_cannot_be_used_are_refused() {
    let legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    // (part of the message, the file)
    let cases: [(&str, Vec<u8>); 8] = [
        ("before version 1.6", legacy.to_vec()),
        ("no zip archive", b"version https://git-lfs".to_vec()),
        ("no zip archive", Vec::new()),
        ("broken zip", b"PK\x03\x04 and no more".to_vec()),
        ("os.system", archive(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", false)),
        ("trainer_name", archive(b"\x80\x02}.", false)),
        ("compressed", archive(b"\x80\x02}.", true)),
        ("ends in byte", archive(b"\x80\x02X\xff\xff\xff\xff.", false)),
    ];
    for (part, bytes) in cases {
        let error = with_checkpoint(&bytes).expect_err(part);
        assert_eq!(error.kind(), fastnnunet::ErrorKind::Model, "{part}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(error.to_string().contains("checkpoint_final.pth"), "{error}");
    }
    let whole = std::fs::read(path("plain").join("fold_0/checkpoint_final.pth")).expect("reads");
    assert!(with_checkpoint(&whole).is_ok());
    for end in (0..whole.len()).step_by(whole.len() / 40) {
        assert!(with_checkpoint(&whole[..end]).is_err(), "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_checkpoints_never_panic(at in 0..1_000_000_usize, byte in any::<u8>()) {
        let path = path("residual_encoder").join("fold_0/checkpoint_final.pth");
        let mut bytes = std::fs::read(path).expect("reads");
        let len = bytes.len();
        bytes[at % len] = byte;
        let folder = copy("residual_encoder");
        std::fs::write(folder.path().join("fold_0/checkpoint_final.pth"), bytes).expect("writes");
        let _ = Folder::open(folder.path(), &Folds::Auto, None).and_then(|f| f.graph(0));
    }
}

#[test]
#[cfg(feature = "cli")]
fn convert_writes_what_other_programs_read() {
    use fastnnunet::model::ModelConfig;
    use fastnnunet::registry::Registry;
    let program = || assert_cmd::Command::from(crate::program());
    let out = tempfile::tempdir().expect("folder");
    let target = out.path().join("new");
    let convert = |case: &str| {
        let mut command = program();
        command.arg("convert").arg(path(case)).arg("-o").arg(&target);
        command
    };
    let run = convert("regions").arg("--verify").assert().success();
    let text = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    assert!(text.contains("tiny_3d_fullres.onnx") && text.contains("verify"), "{text}");
    assert!(text.contains("same label in 100.0000 %"), "{text}");
    let json = std::fs::read_to_string(target.join("tiny_3d_fullres.json")).expect("written");
    let mut written = ModelConfig::from_json(&json).expect("valid");
    assert_eq!(written.model_path.take().as_deref(), Some("tiny_3d_fullres.onnx"));
    assert_eq!(&written, open("regions").config());
    // The folder it wrote is one that `--models-dir` reads.
    let registry = Registry::with_folder(&target).expect("a folder of models");
    assert!(registry.models().iter().any(|model| model.name == "tiny_3d_fullres"));

    convert("regions").assert().code(7);
    convert("regions").arg("--overwrite").assert().success();
    convert("plain").args(["--fold", "1", "--name", "second"]).assert().success();
    let first = Graph::read(&std::fs::read(target.join("second.onnx")).expect("written"));
    let input = array("plain", "input.npy");
    let folder = open("plain");
    assert_eq!(
        logits(&first.expect("reads"), &input),
        logits(&folder.graph(1).expect("fold 1"), &input)
    );
    convert("plain").args(["--fold", "0,1"]).assert().code(2);
    convert("plain").args(["--fold", "4", "--name", "x"]).assert().code(4);
    convert("plain").args(["--name", "Two Words"]).assert().code(2);
    convert("nowhere").assert().code(4);

    let ini = out.path().join("turbo.ini");
    let text = "[model]\nfile_name=bone.onnx\n[input]\npatch_size=160,96,96\nspacing=2,1,1\n\
                [preprocessing]\nmean=1\nstd_dev=2\nlower_bound=-60\nupper_bound=300\n";
    std::fs::write(&ini, text).expect("writes");
    program().arg("convert").arg(&ini).arg("-o").arg(&target).assert().success();
    let json = std::fs::read_to_string(target.join("bone.json")).expect("written");
    assert_eq!(ModelConfig::from_json(&json).expect("valid").patch_size, [160, 96, 96]);
    program().arg("convert").arg(&ini).arg("--verify").arg("-o").arg(&target).assert().code(2);
}
