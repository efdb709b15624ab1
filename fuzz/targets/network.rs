//! Networks made at random from every supported operator, with odd attributes and now and then a
//! shape that lies: refused, or the same logits on two instruction sets, by turns on all of them.
#![no_main]

use arbitrary::{Result, Unstructured};
use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::{onnx, proto};
use libfuzzer_sys::fuzz_target;
use ndarray::Array4;

/// Larger networks say nothing that small ones do not, and fewer of them are tried.
const MOST_BYTES: u64 = 64 << 20;
const MOST_VALUES: usize = 12_000;
const MOST_MULTIPLICATIONS: usize = 1_000_000;

fuzz_target!(|bytes: &[u8]| {
    let mut odd = Unstructured::new(bytes);
    let Ok(Case { model, patch, channels }) = case(&mut odd) else { return };
    let Ok(graph) = onnx::Graph::from_proto(model) else { return };
    let [z, y, x] = patch;
    let input = Array4::from_shape_fn((channels, z, y, x), |(c, z, y, x)| {
        ((c * 7 + z * 5 + y * 3 + x) % 13) as f32 / 3.0 - 2.0
    });
    // Two of them take less than half of the time of all, and more inputs find more.
    let sets = Isa::available();
    let sum: usize = bytes.iter().copied().map(usize::from).sum();
    let (one, other) = (sum % sets.len(), sum / sets.len() % sets.len());
    let Some(logits) = run(&graph, patch, sets[one], &input) else { return };
    // The same one twice: a result may not depend on what an earlier one left.
    if let Some(again) = run(&graph, patch, sets[other], &input) {
        agree(&logits, &again, sets[other]);
    }
});

fn run(
    graph: &onnx::Graph,
    patch: [usize; 3],
    isa: Isa,
    input: &Array4<f32>,
) -> Option<Array4<f32>> {
    let one = &mut |_| Ok(graph.clone());
    let mut engine = CpuEngine::open_folds(1, one, patch, Precision::F32, isa).ok()?;
    if engine.memory_bytes(2) > MOST_BYTES || engine.input_channels() != input.dim().0 {
        return None;
    }
    let mut output = Array4::zeros((engine.output_channels(), patch[0], patch[1], patch[2]));
    engine.run(input.view(), &mut output).ok()?;
    Some(match engine.head() {
        Some(head) => head.logits(output.view()),
        None => output,
    })
}

fn agree(first: &Array4<f32>, other: &Array4<f32>, isa: Isa) {
    assert_eq!(first.dim(), other.dim());
    let largest = first.iter().filter(|v| v.is_finite()).fold(1.0_f32, |m, v| m.max(v.abs()));
    // Beyond, sums of large numbers that cancel say nothing about a kernel.
    if largest > 1e6 {
        return;
    }
    for (a, b) in first.iter().zip(other) {
        let near = !a.is_finite() || (a - b).abs() <= 3e-3 * largest;
        assert!(near, "{isa}: {b} instead of {a}, largest {largest}");
    }
}

struct Case {
    model: proto::Model,
    patch: [usize; 3],
    channels: usize,
}

/// A value of the network: its name and what it is believed to be.
#[derive(Clone)]
struct Flow {
    name: String,
    channels: usize,
    /// Spatial axes only: two or three.
    shape: Vec<usize>,
}

struct Builder<'a, 'b> {
    odd: &'a mut Unstructured<'b>,
    graph: proto::Graph,
    noise: u32,
    multiplications: usize,
}

fn case(odd: &mut Unstructured<'_>) -> Result<Case> {
    let rank = if odd.ratio(1, 4)? { 2 } else { 3 };
    let depth = if rank == 2 { 1 } else { odd.int_in_range(1..=7)? };
    let patch = [depth, odd.int_in_range(1..=12)?, odd.int_in_range(1..=40)?];
    let channels = odd.int_in_range(1..=5)?;
    let noise = odd.arbitrary()?;
    let mut builder = Builder { odd, graph: proto::Graph::default(), noise, multiplications: 0 };
    let shape = patch[3 - rank..].to_vec();
    let mut flows = vec![Flow { name: "input".into(), channels, shape }];
    for _ in 0..builder.odd.int_in_range(1..=8)? {
        let last = flows.len() - 1;
        let from =
            if builder.odd.ratio(1, 2)? { last } else { builder.odd.int_in_range(0..=last)? };
        let flow = builder.step(&flows[from].clone(), &flows)?;
        let size = flow.channels * flow.shape.iter().product::<usize>();
        flows.push(flow);
        if size == 0 || size > MOST_VALUES {
            break;
        }
    }
    let last = flows[flows.len() - 1].clone();
    builder.finish(last, &patch[3 - rank..])?;
    let mut graph = builder.graph;
    graph.input = vec![port("input", Some(channels as i64), rank)];
    graph.output = vec![port("output", None, rank)];
    let opset_import = vec![proto::OperatorSet { version: 17, ..Default::default() }];
    let model =
        proto::Model { ir_version: 8, graph: Some(graph), opset_import, ..Default::default() };
    Ok(Case { model, patch, channels })
}

impl Builder<'_, '_> {
    /// Numbers between -0.3 and 0.3, the same for the same input.
    fn weights(&mut self, dims: &[usize]) -> String {
        let count: usize = dims.iter().product();
        let mut next = || {
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((self.noise >> 16) as f32 / 65536.0 - 0.5) * 0.6
        };
        let data: Vec<u8> = (0..count).flat_map(|_| next().to_le_bytes()).collect();
        self.constant(dims, 1, data)
    }

    fn constant(&mut self, dims: &[usize], data_type: i32, data: Vec<u8>) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        self.graph.initializer.push(proto::Tensor {
            dims: dims.iter().map(|&n| n as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: data.into(),
            ..Default::default()
        });
        name
    }

    fn node(&mut self, op: &str, input: Vec<String>, attribute: Vec<proto::Attribute>) -> String {
        let name = format!("v{}", self.graph.node.len());
        let (output, op_type) = (vec![name.clone()], op.to_owned());
        let node = proto::Node {
            input,
            output,
            name: name.clone(),
            op_type,
            attribute,
            ..Default::default()
        };
        self.graph.node.push(node);
        name
    }

    fn each(&mut self, rank: usize, range: std::ops::RangeInclusive<usize>) -> Result<Vec<usize>> {
        (0..rank).map(|_| self.odd.int_in_range(range.clone())).collect()
    }

    fn step(&mut self, from: &Flow, flows: &[Flow]) -> Result<Flow> {
        let same = |name: String| Flow { name, ..from.clone() };
        let (name, c) = (from.name.clone(), from.channels);
        Ok(match self.odd.int_in_range(0..=12)? {
            0..=4 => self.conv(from)?,
            5 | 6 => self.upsample(from)?,
            7 => {
                let inputs = vec![name, self.weights(&[c]), self.weights(&[c])];
                same(self.node("InstanceNormalization", inputs, vec![float("epsilon", 1e-5)]))
            }
            8 => {
                let said = if self.odd.ratio(1, 40)? { c + 1 } else { c };
                let mut inputs = vec![name];
                inputs.extend((0..4).map(|_| self.weights(&[said])));
                same(self.node("BatchNormalization", inputs, vec![float("epsilon", 1.0)]))
            }
            9 => {
                let slope = *self.odd.choose(&[0.01, 0.0, -0.5, 1.0, 2.0])?;
                same(self.node("LeakyRelu", vec![name], vec![float("alpha", slope)]))
            }
            10 => {
                let op = *self.odd.choose(&["Relu", "Sigmoid", "Identity", "Dropout"])?;
                same(self.node(op, vec![name], vec![]))
            }
            11 => {
                let other = self.odd.choose(flows)?.clone();
                let op = *self.odd.choose(&["Add", "Mul", "Sub"])?;
                let channels = c.max(other.channels);
                Flow { channels, ..same(self.node(op, vec![name, other.name], vec![])) }
            }
            _ => {
                let other = self.odd.choose(flows)?.clone();
                let channels = c + other.channels;
                let joined = self.node("Concat", vec![name, other.name], vec![int("axis", 1)]);
                Flow { channels, ..same(joined) }
            }
        })
    }

    /// Counts what a convolution multiplies; an error where it is too much.
    fn multiply(&mut self, factors: &[&[usize]]) -> Result<()> {
        let all = factors.iter().copied().flatten();
        self.multiplications += all.fold(1, |product: usize, &n| product.saturating_mul(n));
        let fits = self.multiplications <= MOST_MULTIPLICATIONS;
        fits.then_some(()).ok_or(arbitrary::Error::IncorrectFormat)
    }

    fn conv(&mut self, from: &Flow) -> Result<Flow> {
        let rank = from.shape.len();
        let groups =
            if self.odd.ratio(1, 5)? { *self.odd.choose(&[1, 2, from.channels])? } else { 1 };
        let out = self.odd.int_in_range(1..=40_usize)?.div_ceil(groups) * groups;
        let kernel = if self.odd.ratio(1, 2)? { vec![3; rank] } else { self.each(rank, 1..=7)? };
        let stride = if self.odd.ratio(1, 2)? { vec![1; rank] } else { self.each(rank, 1..=4)? };
        let dilation = if self.odd.ratio(3, 4)? { vec![1; rank] } else { self.each(rank, 1..=3)? };
        let half: Vec<usize> = kernel.iter().map(|k| (k - 1) / 2).collect();
        let pads = if self.odd.ratio(1, 2)? {
            [&half[..], &half].concat()
        } else {
            self.each(2 * rank, 0..=9)?
        };
        let lie = self.odd.ratio(1, 40)?;
        let inputs = if lie { self.odd.int_in_range(0..=9)? } else { from.channels / groups };
        let mut names =
            vec![from.name.clone(), self.weights(&[&[out, inputs], &kernel[..]].concat())];
        if self.odd.ratio(2, 3)? {
            names.push(self.weights(&[out]));
        }
        let mut attributes = vec![
            ints("kernel_shape", &kernel),
            ints("strides", &stride),
            ints("dilations", &dilation),
            int("group", groups as i64),
        ];
        if self.odd.ratio(1, 12)? {
            let how = *self.odd.choose(&["SAME_UPPER", "SAME_LOWER", "VALID"])?;
            attributes.push(text("auto_pad", how));
        } else {
            attributes.push(ints("pads", &pads));
        }
        let shape = (0..rank).map(|k| {
            let room = from.shape[k] + pads[k] + pads[rank + k];
            let span = (kernel[k] - 1) * dilation[k] + 1;
            room.checked_sub(span).map_or(0, |left| left / stride[k] + 1)
        });
        let shape: Vec<usize> = shape.collect();
        self.multiply(&[&[out, from.channels / groups], &kernel, &shape])?;
        Ok(Flow { name: self.node("Conv", names, attributes), channels: out, shape })
    }

    fn upsample(&mut self, from: &Flow) -> Result<Flow> {
        let rank = from.shape.len();
        let stride = self.each(rank, 1..=3)?;
        let kernel = if self.odd.ratio(2, 3)? { stride.clone() } else { self.each(rank, 1..=5)? };
        let out = self.odd.int_in_range(1..=20)?;
        self.multiply(&[&[out, from.channels], &kernel, &from.shape])?;
        let weights = self.weights(&[&[from.channels, out], &kernel[..]].concat());
        let mut names = vec![from.name.clone(), weights];
        if self.odd.ratio(2, 3)? {
            names.push(self.weights(&[out]));
        }
        let attributes = vec![ints("kernel_shape", &kernel), ints("strides", &stride)];
        let shape = (0..rank).map(|k| (from.shape[k].max(1) - 1) * stride[k] + kernel[k]).collect();
        Ok(Flow { name: self.node("ConvTranspose", names, attributes), channels: out, shape })
    }

    /// Back to the patch's shape, mostly, and to classes.
    fn finish(&mut self, last: Flow, patch: &[usize]) -> Result<()> {
        let mut name = last.name;
        if last.shape != patch && self.odd.ratio(19, 20)? {
            let sizes = [&[1, last.channels], patch].concat();
            let data = sizes.iter().flat_map(|&n| (n as i64).to_le_bytes()).collect();
            let sizes = self.constant(&[sizes.len()], 7, data);
            let inputs = vec![name, String::new(), String::new(), sizes];
            name = self.node("Resize", inputs, vec![text("mode", "nearest")]);
        }
        if self.odd.ratio(3, 4)? {
            let classes = self.odd.int_in_range(1..=70)?;
            let lie = self.odd.ratio(1, 30)?;
            let inputs = if lie { self.odd.int_in_range(0..=9)? } else { last.channels };
            let kernel = vec![1; patch.len()];
            let weights = self.weights(&[&[classes, inputs], &kernel[..]].concat());
            let inputs = vec![name, weights, self.weights(&[classes])];
            name = self.node("Conv", inputs, vec![ints("kernel_shape", &kernel)]);
        }
        for output in self.graph.node.iter_mut().flat_map(|node| &mut node.output) {
            if *output == name {
                "output".clone_into(output);
            }
        }
        Ok(())
    }
}

fn int(name: &str, i: i64) -> proto::Attribute {
    proto::Attribute { name: name.into(), i: Some(i), r#type: 2, ..Default::default() }
}

fn ints(name: &str, all: &[usize]) -> proto::Attribute {
    let ints = all.iter().map(|&n| n as i64).collect();
    proto::Attribute { name: name.into(), ints, r#type: 7, ..Default::default() }
}

fn float(name: &str, f: f32) -> proto::Attribute {
    proto::Attribute { name: name.into(), f: Some(f), r#type: 1, ..Default::default() }
}

fn text(name: &str, s: &str) -> proto::Attribute {
    let s = Some(s.as_bytes().to_vec().into());
    proto::Attribute { name: name.into(), s, r#type: 3, ..Default::default() }
}

/// An input or output of a batch of one, its spatial axes left open.
fn port(name: &str, channels: Option<i64>, rank: usize) -> proto::ValueInfo {
    let fixed = [Some(1), channels].into_iter().chain((0..rank).map(|_| None));
    let dim = fixed.map(|dim_value| proto::Dim { dim_value, dim_param: None }).collect();
    let shape = Some(proto::Shape { dim });
    let tensor_type = Some(proto::TensorType { elem_type: 1, shape });
    proto::ValueInfo { name: name.into(), r#type: Some(proto::Type { tensor_type }) }
}
