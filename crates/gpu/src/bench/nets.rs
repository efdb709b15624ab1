//! Networks for measuring.

use fastnnunet_model::onnx::{Attribute, Data, Graph, Node, Port, Tensor};
use std::collections::HashMap;

/// Numbers that look like activations, quick to make.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Builds a graph whose weights are noise.
struct Builder {
    graph: Graph,
    /// Constants and nodes so far.
    count: usize,
}

impl Builder {
    fn add(&mut self, op: &str, inputs: Vec<String>, attributes: &[(&str, Attribute)]) -> String {
        self.count += 1;
        let out = format!("v{}", self.count);
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.graph.nodes.push(Node {
            name: format!("{op} {}", self.count),
            op: op.to_owned(),
            inputs,
            outputs: vec![out.clone()],
            attributes: attributes.collect::<HashMap<_, _>>(),
        });
        out
    }

    fn constant(&mut self, dims: &[usize], scale: f32, base: f32) -> String {
        self.count += 1;
        let values = noise(dims.iter().product(), self.count as u64)
            .iter()
            .map(|v| v * scale + base)
            .collect();
        let name = format!("w{}", self.count);
        self.graph
            .constants
            .insert(name.clone(), Tensor { dims: dims.to_vec(), data: Data::Floats(values) });
        name
    }

    /// A convolution, its normalization and its activation.
    fn block(&mut self, x: String, from: usize, to: usize, stride: i64) -> String {
        let w = self.constant(&[to, from, 3, 3, 3], (3.0 / (from * 27) as f32).sqrt(), 0.0);
        let b = self.constant(&[to], 0.1, 0.0);
        let (gamma, beta) = (self.constant(&[to], 0.2, 1.0), self.constant(&[to], 0.2, 0.0));
        let conv =
            self.add("Conv", vec![x, w, b], &[("strides", ints(stride, 3)), ("pads", ints(1, 6))]);
        let norm = self.add("InstanceNormalization", vec![conv, gamma, beta], &[]);
        self.add("LeakyRelu", vec![norm], &[("alpha", Attribute::Float(0.01))])
    }
}

fn ints(n: i64, count: usize) -> Attribute {
    Attribute::Ints(vec![n; count])
}

/// A plain U-Net with weights of noise, as nnU-Net builds them.
#[must_use]
pub fn seeded(widths: &[usize], classes: usize) -> Graph {
    let mut builder = Builder { graph: Graph::default(), count: 0 };
    let port = |name: &str, channels: usize| Port {
        name: name.to_owned(),
        dims: vec![Some(1), Some(channels), None, None, None],
    };
    let mut skips = Vec::new();
    let mut x = "input".to_owned();
    let mut from = 1;
    for (level, &width) in widths.iter().enumerate() {
        x = builder.block(x, from, width, if level == 0 { 1 } else { 2 });
        x = builder.block(x, width, width, 1);
        skips.push(x.clone());
        from = width;
    }
    for level in (0..widths.len() - 1).rev() {
        let (below, width) = (widths[level + 1], widths[level]);
        let w = builder.constant(&[below, width, 2, 2, 2], (3.0 / below as f32).sqrt(), 0.0);
        let b = builder.constant(&[width], 0.1, 0.0);
        let up = builder.add("ConvTranspose", vec![x, w, b], &[("strides", ints(2, 3))]);
        let joined =
            builder.add("Concat", vec![up, skips[level].clone()], &[("axis", Attribute::Int(1))]);
        x = builder.block(joined, 2 * width, width, 1);
        x = builder.block(x, width, width, 1);
    }
    let w = builder.constant(&[classes, widths[0], 1, 1, 1], 0.5, 0.0);
    let b = builder.constant(&[classes], 0.1, 0.0);
    let out = builder.add("Conv", vec![x, w, b], &[]);
    let Builder { mut graph, .. } = builder;
    graph.inputs = vec![port("input", 1)];
    graph.outputs = vec![Port { name: out, ..port("", classes) }];
    graph
}
