//! A graph is checked whole before anything runs, and small files cannot ask for much.

#[cfg(target_os = "linux")]
use super::bounded::{Ended, peak_of};
use super::{hostile, program, refused, scan};
use fastnnunet::model::proto::{self, Attribute, Dim, Graph, Model, Node, OperatorSet, Tensor};
use prost::Message;
use serde_json::json;
use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::time::Duration;

/// A network being written, from `input` of one channel and 8 x 8 x 8 voxels.
#[derive(Default)]
pub(super) struct Network {
    graph: Graph,
}

impl Network {
    fn port(name: &str, channels: i64) -> proto::ValueInfo {
        let dims = [1, channels, 8, 8, 8];
        let dim = dims.map(|n| Dim { dim_value: Some(n), dim_param: None }).to_vec();
        let tensor = proto::TensorType { elem_type: 1, shape: Some(proto::Shape { dim }) };
        let r#type = Some(proto::Type { tensor_type: Some(tensor) });
        proto::ValueInfo { name: name.to_owned(), r#type }
    }

    /// Weights that are small and not all alike.
    pub(super) fn weights(&mut self, name: &str, dims: &[i64]) -> &mut Self {
        let count: i64 = dims.iter().product();
        let values = (0..count).flat_map(|i| ((i % 7 - 3) as f32 * 1e-2).to_le_bytes());
        self.graph.initializer.push(Tensor {
            dims: dims.to_vec(),
            data_type: 1,
            name: name.to_owned(),
            raw_data: values.collect::<Vec<u8>>().into(),
            ..Tensor::default()
        });
        self
    }

    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, &[i64])],
    ) -> &mut Self {
        let attribute = |(name, ints): &(&str, &[i64])| Attribute {
            name: (*name).to_owned(),
            i: (ints.len() == 1).then(|| ints[0]),
            ints: if ints.len() == 1 { Vec::new() } else { ints.to_vec() },
            ..Attribute::default()
        };
        self.graph.node.push(Node {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(attribute).collect(),
            ..Node::default()
        });
        self
    }

    /// Writes the network, which ends in `output`, and its configuration; returns a command.
    pub(super) fn command(&self, folder: &Path, channels: i64) -> assert_cmd::Command {
        self.command_on(&scan(), folder, channels)
    }

    /// The same, to segment another image.
    pub(super) fn command_on(
        &self,
        image: &Path,
        folder: &Path,
        channels: i64,
    ) -> assert_cmd::Command {
        let graph = Graph {
            name: "g".to_owned(),
            input: vec![Self::port("input", 1)],
            output: vec![Self::port("output", channels)],
            ..self.graph.clone()
        };
        let opset_import = vec![OperatorSet { domain: String::new(), version: 17 }];
        let model = Model { ir_version: 8, graph: Some(graph), opset_import, ..Model::default() };
        let (onnx, config) = (folder.join("net.onnx"), folder.join("net.json"));
        fs::write(&onnx, model.encode_to_vec()).expect("writes");
        let labels: Vec<_> =
            (1..channels).map(|id| json!({"id": id, "name": format!("l{id}")})).collect();
        let written = json!({
            "patch_size": [8, 8, 8],
            "target_spacing": [3, 2, 2],
            "intensity_properties":
                {"mean": 0, "std": 100, "percentile_00_5": -1000, "percentile_99_5": 1000},
            "labels": labels,
        });
        fs::write(&config, written.to_string()).expect("writes");
        let mut command = program();
        command.arg("-i").arg(image).arg("--model").arg(&onnx);
        command.arg("--config").arg(&config).arg("-o").arg(folder.join("labels.nii.gz"));
        command
    }
}

/// Its last layer takes two channels of four.
#[test]
fn the_last_layer_is_checked_before_anything_runs() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = program();
    command.arg("-i").arg(scan()).arg("-o").arg(folder.path().join("l.nii"));
    command.arg("--model").arg(hostile("less.onnx")).arg("--config").arg(hostile("less.json"));
    let message = refused(&mut command, 4);
    assert!(message.contains("found 4 input channels"), "{message}");
}

/// 4096 channels through 60 000 nodes, each of which keeps how it reads every channel: gigabytes.
#[test]
fn channels_that_nodes_read_are_counted() {
    let mut network = Network::default();
    network.weights("w", &[4096, 1, 1, 1, 1]).weights("h", &[2, 4096, 1, 1, 1]);
    network.node("Conv", &["input", "w"], "s0", &[("strides", &[8, 8, 8])]);
    for k in 0..60_000 {
        network.node("Sigmoid", &[&format!("s{k}")], &format!("s{}", k + 1), &[]);
    }
    network.node("Conv", &["s60000", "h"], "output", &[]);
    let folder = tempfile::tempdir().expect("folder");
    let message = refused(network.command(folder.path(), 2).args(["--memory-limit", "500MiB"]), 4);
    assert!(message.contains("channels read"), "{message}");
}

/// Each file is a few megabytes and asks for quadratic work. Bounded in processor time: the machine may
/// be shared.
#[cfg(target_os = "linux")]
#[test]
fn thousands_of_inputs_and_labels_take_no_minutes() {
    let folder = tempfile::tempdir().expect("folder");
    let mut network = Network::default();
    network.weights("w", &[2, 8, 1, 1, 1]);
    let names = vec!["input"; 4096];
    network.node("Concat", &names, "wide", &[("axis", &[1])]);
    let wide = peak_of(&network.command(folder.path(), 2));

    let mut network = Network::default();
    network.weights("w", &[65_535, 1, 1, 1, 1]).node("Conv", &["input", "w"], "output", &[]);
    let mut command = network.command(folder.path(), 65_535);
    let many = peak_of(command.args(["--memory-limit", "1MiB"]));
    for (Ended { code, message, took, .. }, expected) in [(wide, 4), (many, 6)] {
        assert_eq!(code, Some(expected), "{message}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
