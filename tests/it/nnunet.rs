//! Trained folders made by nnU-Net's own classes: the same logits without Python.

use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::{Normalization, Reader, onnx::Graph};
use fastnnunet::nnunet::{Fold, Folder, Folds};
use fastnnunet::volume::Orientation;
use ndarray::{Array4, ArrayD, Axis};
use prost::Message;
use std::path::{Path, PathBuf};

/// Every folder, by the claim it stands for.
const CASES: [(&str, &str); 14] = [
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

fn open(case: &str) -> Folder {
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
    let mut engine = CpuEngine::from_graph(graph, [z, y, x], Precision::F32, Isa::best())
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
