//! Times an embedded model on a device; `benches/gpu/compare.py` calls it.
//!
//! `bench_device MODEL DEVICE Z Y X [--image Z Y X] [--precision f32] [--input RAW] [--output RAW]
//! [--runs N] [--serve]`: one patch of `Z Y X` voxels, or with `--image` a whole image in tiles of that
//! size. Files are little-endian f32, `[c, z, y, x]`. Prints JSON; with `--serve` the times to
//! open and for the first run, then runs once per line of standard input.

use fastnnunet::Error as Failure;
use fastnnunet::infer::{Device, Engine, EngineOptions, Precision, Tiles, open};
use fastnnunet::pipeline::tile::{Tiling, gaussian};
use fastnnunet::registry;
use ndarray::{Array3, Array4};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

/// What is timed.
enum Work {
    Patch(Box<dyn Engine>),
    Image(Box<dyn Engine>, Tiling, Array3<f32>),
}

impl Work {
    fn run(&mut self, input: &Array4<f32>, output: &mut Array4<f32>) -> Result<(), Failure> {
        match self {
            Self::Patch(engine) => engine.run(input.view(), output),
            Self::Image(engine, tiling, weights) => {
                let tiles = Tiles {
                    image: input.view(),
                    tiling,
                    weights: weights.view(),
                    passes: &[vec![]],
                };
                let map = engine.run_image(tiles, &mut || Ok(()))?;
                *output = map.ok_or_else(|| Failure::Device {
                    device: engine.device().to_owned(),
                    reason: "it does not hold that image".to_owned(),
                })?;
                Ok(())
            }
        }
    }

    fn engine(&self) -> &dyn Engine {
        match self {
            Self::Patch(engine) | Self::Image(engine, ..) => engine.as_ref(),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let position = |name: &str| arguments.iter().position(|a| a == name);
    let after = |name: &str| arguments.get(position(name)? + 1).cloned();
    let [model, device, z, y, x, ..] = &arguments[..] else {
        return Err("usage: bench_device MODEL DEVICE Z Y X [options]".into());
    };
    let model = registry::find(model).ok_or("no such model in this build")?;
    let device: Device = device.parse()?;
    let patch = [z.parse()?, y.parse()?, x.parse()?];
    let precision = after("--precision").map_or(Ok(Precision::F32), |text| text.parse())?;
    let options = EngineOptions { device, precision: Some(precision), ..EngineOptions::default() };
    let facts = model.facts()?;
    let runs: usize = after("--runs").map_or(Ok(5), |n| n.parse())?;

    let opened = Instant::now();
    let (mut work, shape) = match position("--image") {
        Some(at) => {
            let edge = |k: usize| arguments.get(at + k).map_or(Ok(0), |n| n.parse::<usize>());
            let image = [edge(1)?, edge(2)?, edge(3)?];
            let engine = open(model, patch, &options)?;
            (Work::Image(engine, Tiling::new(image, patch, 0.5), gaussian(patch)), image)
        }
        None => (Work::Patch(open(model, patch, &options)?), patch),
    };
    let open_seconds = opened.elapsed().as_secs_f64();
    let size = |channels: usize| (channels, shape[0], shape[1], shape[2]);
    let input = match after("--input") {
        Some(path) => {
            let bytes = std::fs::read(path)?;
            let values = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            Array4::from_shape_vec(size(facts.input_channels), values)?
        }
        None => Array4::from_shape_fn(size(facts.input_channels), |(c, z, y, x)| {
            ((c * 7 + z * 31 + y * 17 + x * 5) % 97) as f32 / 48.0 - 1.0
        }),
    };
    let mut output = Array4::zeros(size(work.engine().output_channels()));
    let mut once = || -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        work.run(&input, &mut output)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let first_seconds = once()?;
    let mut stdout = std::io::stdout().lock();
    let mut seconds = Vec::new();
    if position("--serve").is_some() {
        writeln!(stdout, "ready {open_seconds} {first_seconds}")?;
        stdout.flush()?;
        for line in std::io::stdin().lock().lines() {
            line?;
            writeln!(stdout, "{}", once()?)?;
            stdout.flush()?;
        }
    } else {
        for _ in 0..runs {
            seconds.push(once()?);
        }
        let report = serde_json::json!({
            "model": model.name,
            "device": device.to_string(),
            "open_seconds": open_seconds,
            "first_seconds": first_seconds,
            "seconds": seconds,
        });
        writeln!(stdout, "{report}")?;
    }
    if let Some(path) = after("--output") {
        let head = work.engine().head();
        let output = head.map(|head| head.logits(output.view())).unwrap_or(output);
        let bytes: Vec<u8> = output.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
