//! One list of networks, and what the frameworks that made them compute.

use crate::golden;
use fastnnunet::infer::{Device, Engine, EngineOptions, Precision, open, open_folds};
use fastnnunet::model::onnx::Graph;
use fastnnunet::nnunet::Folder;
use fastnnunet::{Result, registry};
use ndarray::{Array5, ArrayD, Axis};
use serde_json::Value;
use std::path::PathBuf;

/// Where a network comes from.
enum Network {
    /// A model inside the program.
    Embedded(String),
    /// An ONNX file.
    File(PathBuf),
    /// The first training of a folder.
    Folder(Box<Folder>),
}

/// Patches and the logits of the exporting framework.
pub(super) struct Case {
    pub(super) name: String,
    network: Network,
    /// `[n, c, z, y, x]`; a two-dimensional network's patches have `z` = 1.
    pub(super) input: Array5<f32>,
    /// The same axes.
    pub(super) logits: Array5<f32>,
    /// Whether it runs on every device with every change.
    pub(super) is_first: bool,
}

/// These do: a network of the program in three and one in two dimensions, an ONNX file with what
/// nnU-Net's networks lack, and three trainings.
const FIRST: [&str; 6] = [
    "1x1x8x12x16",
    "2d",
    "mixed_3d",
    "residual encoder",
    "activation first, ReLU, no affine norm, no bias",
    "plain U-Net, anisotropic",
];

impl Case {
    pub(super) fn patch(&self) -> [usize; 3] {
        let (_, _, z, y, x) = self.input.dim();
        [z, y, x]
    }

    /// Whether the device runs networks like this: generated code is of the program's own models.
    pub(super) fn is_for(&self, device: Device) -> bool {
        let reference = matches!(device, Device::Reference | Device::ReferenceCuda(_));
        !reference || matches!(self.network, Network::Embedded(_))
    }

    pub(super) fn open(&self, device: Device, precision: Precision) -> Result<Box<dyn Engine>> {
        let options =
            EngineOptions { device, precision: Some(precision), ..EngineOptions::default() };
        let folds = |graph: &mut dyn FnMut(usize) -> Result<Graph>| {
            open_folds(&self.name, 1, graph, self.patch(), &[], &options)
        };
        match &self.network {
            Network::Embedded(name) => {
                open(registry::find(name).expect("an installed model"), self.patch(), &options)
            }
            Network::File(path) => {
                folds(&mut |_| Ok(Graph::read(&std::fs::read(path).expect("the file"))?))
            }
            Network::Folder(folder) => folds(&mut |fold| folder.graph(fold)),
        }
    }
}

fn volumes(array: ArrayD<f32>) -> Array5<f32> {
    let array = if array.ndim() == 4 { array.insert_axis(Axis(2)) } else { array };
    array.into_dimensionality().expect("an array of four or five axes")
}

/// Networks of `tests/golden`: those of the program, and ONNX files with what nnU-Net's lack.
fn golden_cases(stage: &'static str) -> impl Iterator<Item = Case> {
    golden::entries(stage, "cases").into_iter().map(move |case| {
        let file = case["model"].as_str().expect("a model");
        let model = file.strip_prefix("models/").and_then(|file| file.strip_suffix(".onnx"));
        let array = |name: &Value| volumes(golden::array(stage, name));
        let name = case["name"].as_str().expect("a name").to_owned();
        Case {
            is_first: FIRST.contains(&&*name),
            name,
            network: match model {
                Some(model) => Network::Embedded(model.to_owned()),
                None => Network::File(golden::path(stage, &case["model"])),
            },
            input: array(&case["input"]),
            logits: array(&case["expected"]),
        }
    })
}

pub(super) fn cases() -> Vec<Case> {
    let stages = ["network", "engine", "graphs"];
    let folders = crate::nnunet::CASES.iter().map(|&(claim, case)| {
        let array = |name: &str| {
            let array: ArrayD<f32> =
                ndarray_npy::read_npy(crate::nnunet::path(case).join(name)).expect("an array");
            volumes(array.insert_axis(Axis(0)))
        };
        Case {
            name: claim.to_owned(),
            is_first: FIRST.contains(&claim),
            network: Network::Folder(Box::new(crate::nnunet::open(case))),
            input: array("input.npy"),
            logits: array("logits.npy"),
        }
    });
    let all: Vec<Case> = stages.into_iter().flat_map(golden_cases).chain(folders).collect();
    assert_eq!(all.iter().filter(|case| case.is_first).count(), FIRST.len(), "a name changed");
    all
}
