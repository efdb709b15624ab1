//! Times of single layers, for choosing kernels and for checking the model that chooses.

use super::nets::noise;
use crate::choose::{self, Known, Wanted};
use crate::conv::{Bases, Buffers, Conv, Kernel, Types, Way, launch, pack};
use crate::device::Device;
use crate::kernels::geometry::BLOCK;
use crate::kernels::matrix::Form;
use crate::plan::{Action, Plan, Precision};
use crate::queue::{Queue, compile_ahead};
use cubecl::client::Client;
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::server::Handle;
use half::{bf16, f16};
use std::time::Instant;

const F32: ElemType = ElemType::Float(FloatKind::F32);

fn bytes(values: &[f32], element: ElemType) -> Vec<u8> {
    match element {
        ElemType::Float(FloatKind::F16) => {
            values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
        }
        ElemType::Float(FloatKind::BF16) => {
            values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
        }
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn number(bytes: &[u8], element: ElemType) -> f32 {
    let half = || u16::from_le_bytes([bytes[0], bytes[1]]);
    match element {
        ElemType::Float(FloatKind::F16) => f16::from_bits(half()).to_f32(),
        ElemType::Float(FloatKind::BF16) => bf16::from_bits(half()).to_f32(),
        _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
    }
}

fn rounded(value: f32, element: ElemType) -> f32 {
    match element {
        ElemType::Float(FloatKind::F16) => f16::from_f32(value).to_f32(),
        ElemType::Float(FloatKind::BF16) => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Seconds that `run` takes on the device, once it is warm: many at once, in a graph where the device
/// has graphs. The second number is the time of the first run, compilation included.
pub(crate) fn seconds(client: &Client, run: &dyn Fn()) -> (f64, f64) {
    let start = Instant::now();
    run();
    let done = block_on(client.sync()).is_ok();
    let first = start.elapsed().as_secs_f64();
    if !done {
        return (f64::NAN, first);
    }
    let window = |work: &dyn Fn()| -> Option<f64> {
        let token = client.profile_start().ok()?;
        work();
        let duration = client.profile_end(token).ok()?;
        Some(block_on(duration.resolve())?.duration().as_secs_f64())
    };
    let once = window(run).unwrap_or(f64::NAN);
    let many = ((0.0015 / once) as usize).clamp(3, 40);
    let repeat = || (0..many).for_each(|_| run());
    let graph = client.graph_prepare().ok().and_then(|()| {
        repeat();
        client.start_capture().ok()?;
        repeat();
        client.stop_capture().ok()
    });
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let time = match &graph {
            // SAFETY: all buffers of the captured launches live as long as `run` borrows them, and
            // this is the one stream that uses them.
            #[allow(unsafe_code)]
            Some(graph) => window(&|| drop(unsafe { graph.replay() })),
            None => window(&repeat),
        };
        best = best.min(time.unwrap_or(f64::NAN) / many as f64);
    }
    (best, first)
}

/// A device with room for the largest layers.
pub(crate) struct Lab {
    device: Device,
    element: ElemType,
    host: Vec<f32>,
    input: Handle,
    second: Handle,
    output: Handle,
    sums: Handle,
    parts: Handle,
}

/// A layer of a plan, how it runs, and whether moments of its output are taken.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    conv: Conv,
    way: Way,
}

impl Lab {
    /// For layers whose largest tensor has `most` numbers.
    fn new(device: &Device, precision: Precision, most: usize) -> Self {
        let element = match precision {
            Precision::F16 => ElemType::Float(FloatKind::F16),
            Precision::Bf16 => ElemType::Float(FloatKind::BF16),
            Precision::F32 => F32,
        };
        let client = &device.client;
        let host: Vec<f32> = noise(1 << 20, 1).iter().map(|&v| rounded(v, element)).collect();
        let large = |period: usize| {
            let mut all = Vec::with_capacity(most);
            while all.len() < most {
                all.extend_from_slice(&host[..(most - all.len()).min(period)]);
            }
            client.create_from_slice(&bytes(&all, element))
        };
        let (input, second) = (large(1 << 20), large((1 << 20) - 8));
        let output = client.empty(most * 4);
        let sums = client.empty(64 << 20);
        let parts = client.empty(64 << 20);
        Self { device: device.clone(), element, host, input, second, output, sums, parts }
    }

    /// One launch, with nothing in particular.
    fn once(&self, queue: &Queue<'_>, conv: &Conv, way: &Way, images: usize) {
        let client = &self.device.client;
        let params = client.empty(1 << 16);
        let buffers = Buffers {
            inputs: [self.input.clone(), self.second.clone()],
            weights: params.clone(),
            params,
            output: self.output.clone(),
            sums: self.sums.clone(),
            parts: self.parts.clone(),
        };
        let types = Types { input: self.element, output: self.element };
        launch(queue, conv, way, images, &Bases::default(), types, buffers);
    }

    /// Seconds, seconds of the first run, and the largest error relative to the largest value.
    fn time(&self, conv: &Conv, way: &Way, images: usize) -> (f64, f64, f64) {
        let client = &self.device.client;
        let all: usize = conv.inputs.iter().sum();
        let taps = conv.taps() * conv.scatter.iter().product::<usize>();
        let matrix = matches!(way.kernel, Kernel::Matrix(_));
        let kind = if matrix { self.element } else { F32 };
        let scale = (1.0 / (all * conv.taps()) as f32).sqrt();
        let host = &self.host;
        let weight = |o: usize, c: usize, tap: usize| {
            rounded(host[((o * all + c) * taps + tap) % host.len()] * scale, kind)
        };
        let packed = client.create_from_slice(&bytes(&pack(conv, way, &weight), kind));
        // Bias 0, scale 1, shift 0.25, slope 0.125 for everyone.
        let blocks = conv.blocks_in();
        let mut params = vec![0.0; conv.blocks_out() * BLOCK];
        let affine = params.len() / 4;
        let (a, b, s) = if conv.lanes == 1 { (1.0, 0.0, 1.0) } else { (1.0, 0.25, 0.125) };
        for _ in 0..blocks {
            params.extend([a; 8].iter().chain(&[b; 8]).chain(&[s; 8]));
        }
        let params = client.create_from_slice(&bytes(&params, F32));
        let bases = Bases { affine: [affine; 2], ..Bases::default() };
        let made = if way.splits > 1 { F32 } else { self.element };
        // The first layer reads f32; noise of halves does as well for time.
        let types = Types { input: self.element, output: self.element };
        let run = || {
            let buffers = Buffers {
                inputs: [self.input.clone(), self.second.clone()],
                params: params.clone(),
                weights: packed.clone(),
                output: self.output.clone(),
                sums: self.sums.clone(),
                parts: self.parts.clone(),
            };
            launch(&Queue::new(client), conv, way, images, &bases, types, buffers);
        };
        let (seconds, first) = seconds(client, &run);
        let error = self.error(conv, way, made, &weight, (b, s));
        (seconds, first, error)
    }

    /// At some voxels of the first image.
    fn error(
        &self,
        conv: &Conv,
        way: &Way,
        kind: ElemType,
        weight: &dyn Fn(usize, usize, usize) -> f32,
        (shift, slope): (f32, f32),
    ) -> f64 {
        let matrix = matches!(way.kernel, Kernel::Matrix(_));
        let voxels: usize = conv.input.iter().product();
        let size = kind.size();
        let scatter: usize = conv.scatter.iter().product();
        let wide: [usize; 3] = std::array::from_fn(|k| conv.output[k] * conv.scatter[k]);
        let map = conv.voxels() * scatter;
        let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
        for sample in 0..12_usize {
            let o = (sample * 37 + 5) % conv.outputs;
            let place: [usize; 3] = std::array::from_fn(|k| match sample {
                0 => 0,
                1 => wide[k] - 1,
                _ => (sample * [7919, 104_729, 1_299_709][k]) % wide[k],
            });
            let at = (place[0] * wide[1] + place[1]) * wide[2] + place[2];
            let mut found = 0.0;
            for split in 0..way.splits {
                let vector = ((o / BLOCK * way.splits) + split) * map + at;
                let start = ((vector * BLOCK + o % BLOCK) * size) as u64;
                let made = if way.splits > 1 { &self.sums } else { &self.output };
                let from = made.clone().offset_start(start);
                let end = from.size_in_used() - size as u64;
                let Ok(read) = self.device.client.read_one(from.offset_end(end)) else {
                    return f64::NAN;
                };
                found += f64::from(number(&read, kind));
            }
            let mut exact = 0.0;
            for (tap, v) in conv.reads(place) {
                for c in 0..conv.inputs.iter().sum() {
                    let (input, channel) =
                        if c < conv.inputs[0] { (0, c) } else { (1, c - conv.inputs[0]) };
                    let period = if input == 0 { 1 << 20 } else { (1 << 20) - 8 };
                    let index =
                        ((channel / conv.lanes * voxels) + v) * conv.lanes + channel % conv.lanes;
                    let value = self.host[index % period] + shift;
                    let value = if value < 0.0 { value * slope } else { value };
                    let value = if matrix { rounded(value, self.element) } else { value };
                    exact += f64::from(weight(o, c, tap)) * f64::from(value);
                }
            }
            worst = worst.max((found - exact).abs());
            largest = largest.max(exact.abs());
        }
        worst / largest
    }
}

/// The convolutions of a plan, each once.
fn layers(plan: &Plan) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for step in &plan.steps {
        let Action::Conv { conv, way, .. } = step else { continue };
        let layer = Layer { conv: conv.clone(), way: *way };
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    layers
}

/// The ways for a layer that the model likes best, with the microseconds it expects, and its own.
fn candidates(device: &Device, plan: &Plan, layer: &Layer, most: usize) -> Vec<(f64, Way)> {
    let Layer { conv, way } = layer;
    let brain = (plan.precision != Precision::F32).then_some(plan.precision == Precision::Bf16);

    let wanted = Wanted {
        moments: way.kernel.moments(),
        bytes: plan.precision.bytes(),
        images: plan.images,
    };
    let ways = choose::ways(&device.gpu, conv, wanted, brain).into_iter();
    let timed = ways.map(|way| (choose::microseconds(&device.gpu, conv, &way, wanted), way));
    let mut timed: Vec<(f64, Way)> = timed.collect();
    timed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut kernels: Vec<(Kernel, usize)> = Vec::new();
    timed.retain(|(_, way)| {
        // Two numbers of parts for a kernel, and two tiles for a shape.
        let shape = |kernel: &Kernel| kernel.text().split(" tile").next().map(str::to_owned);
        let splits = kernels.iter().filter(|(k, _)| *k == way.kernel).count();
        let mut tiles: Vec<Kernel> = kernels.iter().map(|(k, _)| *k).collect();
        tiles.retain(|k| shape(k) == shape(&way.kernel) && *k != way.kernel);
        tiles.dedup();
        let keep = splits < 2 && tiles.len() < 2;
        if keep {
            kernels.push((way.kernel, way.splits));
        }
        keep
    });
    let own = timed.iter().find(|(_, other)| other == way).copied();
    timed.truncate(most);
    timed.extend(own.filter(|own| !timed.contains(own)));
    // The model does not know what asking early is worth: the first ones also without.
    let late = timed.iter().take(2).filter_map(|&(time, way)| match way.kernel {
        Kernel::Matrix(form) if form.early => {
            let kernel = Kernel::Matrix(Form { early: false, ..form });
            Some((time, Way { kernel, ..way }))
        }
        _ => None,
    });
    let late: Vec<(f64, Way)> = late.collect();
    timed.extend(late);
    timed
}

/// Times, for every convolution of a plan, the ways that the model likes best, at most `most` of each,
/// until the time is up: what was quickest. Calls `report` with a line for each.
pub(crate) fn tune(
    device: &Device,
    plan: &Plan,
    most: usize,
    until: Instant,
    report: &mut dyn FnMut(String),
) -> Known {
    let mut layers = layers(plan);
    // Those that take longest come first.
    layers.sort_by(|a, b| b.conv.flops().total_cmp(&a.conv.flops()));
    let largest = layers.iter().map(|Layer { conv, .. }| {
        let input = conv.inputs[0].max(8) * conv.input.iter().product::<usize>();
        input.max(conv.made() * BLOCK * conv.voxels()) * plan.images
    });
    let lab = Lab::new(device, plan.precision, largest.max().unwrap_or(0));
    let candidates: Vec<Vec<(f64, Way)>> =
        layers.iter().map(|layer| candidates(device, plan, layer, most)).collect();
    compile_ahead(device, |queue| {
        for (layer, ways) in layers.iter().zip(&candidates) {
            for (_, way) in ways {
                lab.once(queue, &layer.conv, way, plan.images);
            }
        }
    });
    let mut known = Known::default();
    for (Layer { conv, way: own }, ways) in layers.iter().zip(&candidates) {
        let mut best: Option<(f64, Way)> = None;
        for &(model, way) in ways {
            if Instant::now() > until {
                report(format!("{:?}>{} {:?}: out of time", conv.inputs, conv.outputs, conv.input));
                break;
            }
            let (seconds, _, error) = lab.time(conv, &way, plan.images);
            let us = seconds * 1e6;
            // Parts of a sum are added up by a kernel of its own, where others merge moments.
            let bytes =
                (conv.blocks_out() * 8 * conv.voxels() * plan.images * way.splits * 4) as f64;
            let rest =
                if way.splits > 1 { 2.0 + 0.2 * way.splits as f64 + bytes / 2.0e6 } else { 0.0 };
            report(format!(
                "{} {:?}>{} {:?}{} {} split {} cubes {} {us:.2} us (model {model:.1}) {:.1} TF/s {:.0} GB/s error {error:.1e}",
                if way == *own { "*" } else { " " },
                conv.inputs,
                conv.outputs,
                conv.input,
                if conv.scattered() > 1 { " up" } else { "" },
                way.kernel.text(),
                way.splits,
                way.cubes(conv, plan.images),
                conv.flops() * plan.images as f64 / seconds / 1e12,
                conv.numbers() * (plan.images * plan.precision.bytes()) as f64 / seconds / 1e9,
            ));
            if error < 0.02 && best.is_none_or(|(least, _)| us + rest < least) {
                best = Some((us + rest, way));
            }
        }
        if let Some((_, way)) = best {
            known.insert((conv.clone(), plan.images), way);
        }
    }
    known
}
