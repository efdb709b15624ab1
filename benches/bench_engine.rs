//! Times the CPU engine on one patch and prints JSON; `benches/peers/compare.py` calls it.
//!
//! `bench_engine MODEL Z Y X --isa NAME --precision f32|bf16|int8 --threads N --runs N
//! [--input RAW] [--output RAW] [--profile]`: input and output are little-endian f32,
//! `[c, z, y, x]`. With `--serve`, runs once per line of standard input instead. MODEL is an
//! ONNX file or a folder that nnU-Net trained. Ranges for int8 are measured on the input first.

use fastnnunet::infer::cpu::{Calibrator, CpuEngine, Isa, StepTime};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::onnx::Graph;
use fastnnunet::nnunet::{Folder, Folds};
use ndarray::Array4;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What was typed.
struct Arguments(Vec<String>);

impl Arguments {
    fn after(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|a| a == name)
    }

    fn count(&self, name: &str, usual: usize) -> Result<usize> {
        Ok(self.after(name).map_or(Ok(usual), str::parse)?)
    }

    fn model(&self) -> Result<(&Path, [usize; 3])> {
        let [model, z, y, x, ..] = &self.0[..] else {
            return Err("usage: bench_engine MODEL Z Y X [options]".into());
        };
        Ok((Path::new(model), [z.parse()?, y.parse()?, x.parse()?]))
    }

    fn open(&self) -> Result<CpuEngine> {
        let (model, patch) = self.model()?;
        let isa = match self.after("--isa") {
            Some(name) => Isa::named(name).ok_or("no such instruction set here")?,
            None => Isa::best(),
        };
        let precision = self.after("--precision").map_or(Ok(Precision::F32), str::parse)?;
        if precision != Precision::Int8 {
            return Ok(CpuEngine::from_graph(network(model)?, patch, precision, isa)?);
        }
        let own = network(model)?;
        let graph = &mut |_| Ok(own.clone());
        let mut calibrator = Calibrator::new(1, graph, patch, isa)?;
        let [z, y, x] = patch;
        calibrator.add(self.input((calibrator.input_channels(), z, y, x))?.view())?;
        Ok(CpuEngine::open_quantized(graph, patch, isa, &calibrator.finish())?)
    }

    fn input(&self, shape: (usize, usize, usize, usize)) -> Result<Array4<f32>> {
        let Some(path) = self.after("--input") else {
            return Ok(Array4::from_shape_fn(shape, |(c, z, y, x)| {
                ((c * 7 + z * 31 + y * 17 + x * 5) % 97) as f32 / 48.0 - 1.0
            }));
        };
        let bytes = std::fs::read(path)?;
        let values = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Ok(Array4::from_shape_vec(shape, values)?)
    }
}

/// The graph in an ONNX file, or of the first fold in a folder.
fn network(model: &Path) -> Result<Graph> {
    if model.is_dir() {
        return Ok(Folder::open(model, &Folds::Auto, None)?.graph(0)?);
    }
    Ok(Graph::read(&std::fs::read(model)?)?)
}

fn main() -> Result<()> {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let runs = arguments.count("--runs", 5)?;
    let threads = arguments.count("--threads", 0)?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let opened = Instant::now();
    let mut engine = arguments.open()?;
    let (open_seconds, peak_of_open) = (opened.elapsed().as_secs_f64(), peak_bytes());
    let (_, [z, y, x]) = arguments.model()?;
    let input = arguments.input((engine.input_channels(), z, y, x))?;
    let mut output = Array4::zeros((engine.output_channels(), z, y, x));
    engine.run(input.view(), &mut output)?;
    if let Some(path) = arguments.after("--output") {
        let bytes: Vec<u8> = output.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
    }
    let mut stdout = std::io::stdout().lock();
    let mut once = |engine: &mut CpuEngine| -> Result<f64> {
        let start = Instant::now();
        engine.run(input.view(), &mut output)?;
        Ok(start.elapsed().as_secs_f64())
    };
    if arguments.has("--serve") {
        writeln!(stdout, "ready")?;
        stdout.flush()?;
        for line in std::io::stdin().lock().lines() {
            line?;
            writeln!(stdout, "{}", once(&mut engine)?)?;
            stdout.flush()?;
        }
        return Ok(());
    }
    let before = cpu_seconds();
    let seconds = (0..runs).map(|_| once(&mut engine)).collect::<Result<Vec<_>>>()?;
    let used = cpu_seconds().zip(before).map(|(after, before)| (after - before) / runs as f64);
    if arguments.has("--profile") {
        for step in profile(&mut engine, &input, &mut output, runs)? {
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
        "cpu_seconds": used,
        "peak_bytes_of_open": peak_of_open,
        "engine_bytes": engine.memory_bytes(rayon::current_num_threads()),
        "peak_bytes": peak_bytes(),
    });
    writeln!(stdout, "{report}")?;
    Ok(())
}

/// The shortest time of each step.
fn profile(
    engine: &mut CpuEngine,
    input: &Array4<f32>,
    output: &mut Array4<f32>,
    runs: usize,
) -> Result<Vec<StepTime>> {
    let mut best = engine.profile(input.view(), output)?;
    for _ in 1..runs {
        let times = engine.profile(input.view(), output)?;
        for (best, time) in best.iter_mut().zip(times) {
            best.seconds = best.seconds.min(time.seconds);
        }
    }
    Ok(best)
}

/// Processor time of this process so far, where the system tells, in its steps of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = status.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

/// Largest resident size of this process, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
