//! The GPU engine by itself, for measuring: opens a network, prints a line of JSON, then obeys
//! lines of standard input.
//!
//! `gpu_bench MODEL PRECISION Z Y X [--images N] [--kernels FOLDER] [--input RAW] [--output RAW]`;
//! MODEL is an ONNX file, or `teacher`: nnU-Net's plain U-Net, 32 to 320 features, 61 classes.
#![allow(clippy::print_stdout)]

use fastnnunet_gpu::{
    Device, Image, Labels, Network, Options, Precision, bench, keep_kernels_in, kernel_counts,
};
use fastnnunet_model::network;
use fastnnunet_model::onnx::Graph;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Arguments(Vec<String>);

impl Arguments {
    fn after(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
}

#[cfg(feature = "cuda")]
fn device() -> std::result::Result<Device, fastnnunet_gpu::Error> {
    Device::cuda(0)
}

#[cfg(not(feature = "cuda"))]
fn device() -> std::result::Result<Device, fastnnunet_gpu::Error> {
    Device::vulkan(0)
}

fn floats(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn main() -> Result<()> {
    let began = Instant::now();
    let arguments = Arguments(std::env::args().skip(1).collect());
    let [model, precision, z, y, x, ..] = &arguments.0[..] else {
        return Err("gpu_bench MODEL PRECISION Z Y X [options]".into());
    };
    if let Some(folder) = arguments.after("--kernels") {
        keep_kernels_in(Some(Path::new(folder)))?;
    }
    let patch = [z.parse()?, y.parse()?, x.parse()?];
    let images = arguments.after("--images").map_or(Ok(1), str::parse)?;
    let precision = match precision.as_str() {
        "f16" => Precision::F16,
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    let graph = match model.as_str() {
        "teacher" => bench::seeded(&[32, 64, 128, 256, 320, 320], 61),
        "small" => bench::seeded(&[8, 16], 2),
        path => Graph::read(&std::fs::read(path)?)?,
    };
    let checked = network::Network::new(graph, patch)?;
    let device = device()?;
    let opened = began.elapsed().as_secs_f64();
    let mut one = bench::Patch::new(&device, checked.clone(), precision, images)?;
    let compiled = began.elapsed().as_secs_f64();
    let input = match arguments.after("--input") {
        Some(path) => floats(Path::new(path))?,
        None => (0..one.inputs()).map(|i| (i as f32 * 0.37).sin()).collect(),
    };
    let answer = one.round(&input)?;
    let ran = began.elapsed().as_secs_f64();
    let (made, read) = kernel_counts();
    let (launches, buffers, weights, kinds) = one.facts();
    println!(
        "{{\"client\": {opened:.3}, \"compiled\": {compiled:.3}, \"first\": {ran:.3}, \"kernels_compiled\": {made}, \
         \"kernels_read\": {read}, \"launches\": {launches}, \"buffer_bytes\": {buffers}, \
         \"weight_bytes\": {weights}, \"convolution_kernels\": {kinds}, \"finite\": {}}}",
        answer.iter().all(|v| v.is_finite())
    );
    if let Some(path) = arguments.after("--output") {
        let bytes: Vec<u8> = answer.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
    }
    let mut bench = Bench { device, checked, precision, input, one, whole: None };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        bench = bench.obey(&words)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// What commands work on.
struct Bench {
    device: Device,
    checked: network::Network,
    precision: Precision,
    input: Vec<f32>,
    one: bench::Patch,
    whole: Option<Network>,
}

impl Bench {
    /// Does what a line says and prints a line.
    fn obey(mut self, words: &[&str]) -> Result<Self> {
        let mut lines = Vec::new();
        match words {
            ["record"] => println!("{}", self.one.record()),
            ["patch"] => {
                let start = Instant::now();
                self.one.round(&self.input)?;
                println!("{}", start.elapsed().as_secs_f64());
            }
            ["wait"] => println!("{}", self.one.waited()),
            ["device"] => {
                let (steps, all) = self.one.on_device();
                println!("[{steps:e}, {all:e}]");
            }
            ["steps"] => {
                self.one.steps(&mut |line| lines.push(line));
                println!("{}", lines.join("\t"));
            }
            ["tune", ways, seconds] => {
                let limit = Duration::from_secs(seconds.parse()?);
                self.one = self.one.tune(ways.parse()?, limit, &mut |line| lines.push(line))?;
                self.one.round(&self.input)?;
                println!("{}", lines.join("\t"));
            }
            ["image", sizes @ ..] => {
                let numbers: std::result::Result<Vec<usize>, _> =
                    sizes.iter().map(|n| n.parse()).collect();
                let [z, y, x, tz, ty, tx, tiles] = numbers?[..] else {
                    return Err("image Z Y X Z Y X TILES".into());
                };
                let mut whole = match self.whole.take() {
                    Some(network) => network,
                    None => open(&self.device, &self.checked, self.precision, tiles)?,
                };
                println!("{}", image(&mut whole, &self.checked, [z, y, x], [tz, ty, tx])?);
                self.whole = Some(whole);
            }
            ["forget"] => {
                self.whole = None;
                println!("true");
            }
            _ => println!("null"),
        }
        Ok(self)
    }
}

/// The linear layer at a network's end, which comes last of all.
fn head(checked: &network::Network) -> (network::Network, Option<network::Conv>) {
    let mut features = checked.clone();
    let late = features.head().is_some_and(|(classes, channels)| channels < classes);
    let head = if late { features.take_head() } else { None };
    (features, head)
}

fn open(
    device: &Device,
    checked: &network::Network,
    precision: Precision,
    tiles: usize,
) -> Result<Network> {
    let (features, _) = head(checked);
    let tiles = Some(tiles).filter(|&n| n > 0);
    let options = Options { precision, tiles, ..Options::default() };
    Ok(Network::open(device, vec![features], options)?)
}

/// Segments an image that is on the network's grid and gives labels on another: seconds from the
/// host's image to the host's labels, tiles, and how many voxels have each of the first classes.
fn image(
    network: &mut Network,
    checked: &network::Network,
    shape: [usize; 3],
    target: [usize; 3],
) -> Result<String> {
    let (_, head) = head(checked);
    let patch = network.patch();
    let starts = |k: usize| -> Vec<isize> {
        let last = shape[k].saturating_sub(patch[k]);
        let count = (last * 2).div_ceil(patch[k]) + 1;
        (0..count).map(|i| if count == 1 { 0 } else { (last * i + (count - 1) / 2) / (count - 1) } as isize).collect()
    };
    let mut origins = Vec::new();
    for z in starts(0) {
        for y in starts(1) {
            origins.extend(starts(2).into_iter().map(|x| [z, y, x]));
        }
    }
    let values: Vec<f32> = (0..shape.iter().product::<usize>() * network.inputs())
        .map(|i| ((i % shape[2]) as f32 * 0.17).sin() * ((i / shape[2]) as f32 * 0.013).cos())
        .collect();
    let along = |n: usize, i: usize| {
        (-((i as f32 - n as f32 / 2.0) / (n as f32 / 8.0)).powi(2) / 2.0).exp()
    };
    let [pz, py, px] = patch;
    let bell: Vec<f32> = (0..pz * py * px)
        .map(|i| (along(pz, i / px / py) * along(py, i / px % py) * along(px, i % px)).max(1e-4))
        .collect();
    let axes: [Vec<(usize, usize, f32)>; 3] = std::array::from_fn(|k| {
        let (n, m) = (shape[k], target[k]);
        (0..m)
            .map(|o| {
                let at = (o as f64 + 0.5) * n as f64 / m as f64 - 0.5;
                let clamp = |v: f64| v.clamp(0.0, n as f64 - 1.0) as usize;
                (clamp(at.floor()), clamp(at.floor() + 1.0), (at - at.floor()) as f32)
            })
            .collect()
    });
    let start = Instant::now();
    let image =
        Image { values: &values, shape, origins: &origins, bell: &bell, passes: &[[false; 3]] };
    let voxels = target.iter().product();
    let means = network.means(&image, voxels, &mut || true)?.ok_or("stopped")?;
    let mean = start.elapsed().as_secs_f64();
    let bias = head.as_ref().map(|conv| conv.bias.to_vec(conv.weights.dims()[0]));
    let head = head.as_ref().zip(bias.as_deref()).map(|(conv, bias)| (&conv.weights[..], bias));
    let labels =
        means.labels(&Labels { axes: axes.each_ref().map(Vec::as_slice), head, above: None })?;
    let seconds = start.elapsed().as_secs_f64();
    let ones = labels.iter().filter(|&&label| label == 1).count();
    let bytes = network.image_bytes(shape, voxels, origins.len()).unwrap_or(0);
    Ok(format!(
        "{{\"seconds\": {seconds:.4}, \"means\": {mean:.4}, \"tiles\": {}, \"ones\": {ones}, \"planned_bytes\": {bytes}}}",
        origins.len()
    ))
}
