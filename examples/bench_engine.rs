//! Times the CPU engine on one patch and prints JSON; `benches/peers/compare.py` calls it.
//!
//! `bench_engine MODEL Z Y X --isa NAME --precision f32|bf16 --threads N --runs N
//! [--input RAW] [--output RAW] [--profile]`: input and output are little-endian f32,
//! `[c, z, y, x]`. With `--serve`, runs once per line of standard input instead. MODEL is an
//! ONNX file or a folder that nnU-Net trained.

use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::nnunet::{Folder, Folds};
use ndarray::Array4;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let [model, z, y, x, ..] = &arguments[..] else {
        return Err("usage: bench_engine MODEL Z Y X [options]".into());
    };
    let patch = [z.parse()?, y.parse()?, x.parse()?];
    let isa = match after("--isa") {
        Some(name) => Isa::named(&name).ok_or("no such instruction set here")?,
        None => Isa::best(),
    };
    let precision = match after("--precision").as_deref() {
        Some("bf16") => Precision::Bf16,
        _ => Precision::F32,
    };
    let threads: usize = after("--threads").map_or(Ok(0), |n| n.parse())?;
    let runs: usize = after("--runs").map_or(Ok(5), |n| n.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let opened = Instant::now();
    let mut engine = if Path::new(model).is_dir() {
        let folder = Folder::open(Path::new(model), &Folds::Auto, None)?;
        CpuEngine::from_graph(folder.graph(0)?, patch, precision, isa)?
    } else {
        CpuEngine::open(&std::fs::read(model)?, patch, precision, isa)?
    };
    let (open_seconds, peak_of_open) = (opened.elapsed().as_secs_f64(), peak_bytes());
    let shape = (engine.input_channels(), patch[0], patch[1], patch[2]);
    let input = match after("--input") {
        Some(path) => {
            let bytes = std::fs::read(path)?;
            let values = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            Array4::from_shape_vec(shape, values)?
        }
        None => Array4::from_shape_fn(shape, |(c, z, y, x)| {
            ((c * 7 + z * 31 + y * 17 + x * 5) % 97) as f32 / 48.0 - 1.0
        }),
    };
    let mut output = Array4::zeros((engine.output_channels(), patch[0], patch[1], patch[2]));
    engine.run(input.view(), &mut output)?;
    if let Some(path) = after("--output") {
        let bytes: Vec<u8> = output.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
    }
    let mut stdout = std::io::stdout().lock();
    let mut once = |engine: &mut CpuEngine| -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        engine.run(input.view(), &mut output)?;
        Ok(start.elapsed().as_secs_f64())
    };
    if has("--serve") {
        writeln!(stdout, "ready")?;
        stdout.flush()?;
        for line in std::io::stdin().lock().lines() {
            line?;
            writeln!(stdout, "{}", once(&mut engine)?)?;
            stdout.flush()?;
        }
        return Ok(());
    }
    let seconds = (0..runs).map(|_| once(&mut engine)).collect::<Result<Vec<_>, _>>()?;
    if has("--profile") {
        let mut best: Vec<_> = engine.profile(input.view(), &mut output)?;
        for _ in 1..runs {
            let times = engine.profile(input.view(), &mut output)?;
            for (best, time) in best.iter_mut().zip(times) {
                best.seconds = best.seconds.min(time.seconds);
            }
        }
        for step in best {
            let rate = step.flops as f64 / step.seconds / 1e9;
            let ms = step.seconds * 1e3;
            writeln!(stdout, "{ms:8.2} ms {rate:7.1} GFLOP/s  {}", step.name)?;
        }
    }
    let report = serde_json::json!({
        "device": engine.device(),
        "precision": engine.precision().to_string(),
        "threads": rayon::current_num_threads(),
        "open_seconds": open_seconds,
        "seconds": seconds,
        "peak_bytes_of_open": peak_of_open,
        "engine_bytes": engine.memory_bytes(rayon::current_num_threads()),
        "peak_bytes": peak_bytes(),
    });
    writeln!(stdout, "{report}")?;
    Ok(())
}

/// Largest resident size of this process, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
