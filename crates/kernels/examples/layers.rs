//! Speed of real layers on every instruction set and arithmetic, beside what the inner loop reaches
//! when all it reads is in the cache: `cargo run --release -p fastnnunet-kernels --example layers --
//! [--threads N] [--seconds S] [--cpu] [--isa NAME ...]`.
//!
//! GFLOP/s count the multiplications and additions of direct convolution, whatever the kernel does.
//! Activations are stored as the engine stores them in that arithmetic. With `--cpu`, seconds are
//! those that the threads had a core (Linux tells), each thread's share: for a busy machine.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use fastnnunet_kernels::buffer::{Buffer, ScratchPool};
use fastnnunet_kernels::conv::{
    Arithmetic, ByteCode, Coding, Conv, Format, Layer, Shape, Source, Upsample, multiply_in_cache,
};
use fastnnunet_kernels::row::{Affine, Moments};
use fastnnunet_kernels::{Isa, Layout};
use rayon::prelude::*;
use std::time::Instant;

/// Name, input and output channels, input voxels, kernel, stride.
type Case = (&'static str, usize, usize, [usize; 3], usize, usize);

const LAYERS: [Case; 13] = [
    ("first 1-8", 1, 8, [160, 96, 96], 3, 1),
    ("full 8-8", 8, 8, [160, 96, 96], 3, 1),
    ("joined 16-8", 16, 8, [160, 96, 96], 3, 1),
    ("down 8-16", 8, 16, [160, 96, 96], 3, 2),
    ("half 16-16", 16, 16, [80, 48, 48], 3, 1),
    ("joined 32-16", 32, 16, [80, 48, 48], 3, 1),
    ("quarter 32-32", 32, 32, [40, 24, 24], 3, 1),
    ("joined 64-32", 64, 32, [40, 24, 24], 3, 1),
    ("deep 80-80", 80, 80, [10, 6, 6], 3, 1),
    ("teacher 32-32", 32, 32, [32, 128, 128], 3, 1),
    ("teacher 128-128", 128, 128, [32, 32, 32], 3, 1),
    ("teacher 320-320", 320, 320, [8, 8, 8], 3, 1),
    ("head 8-61", 8, 61, [80, 96, 96], 1, 1),
];

/// A transposed convolution: input and output channels, input voxels.
const UPSAMPLED: (usize, usize, [usize; 3]) = (16, 8, [80, 48, 48]);

fn values(n: usize) -> Buffer {
    let values: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Buffer::from_slice(&values)
}

/// How the engine stores activations in an arithmetic.
fn format(arithmetic: Arithmetic) -> Format {
    match arithmetic {
        Arithmetic::F32 => Format::F32,
        Arithmetic::Bf16 => Format::Bf16,
        Arithmetic::Int8 => Format::I16,
    }
}

/// Seconds that all threads of this process have run on a core.
fn cpu_seconds() -> Option<f64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut sum = 0.0;
    for task in tasks {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        sum += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(sum / 1e9)
}

/// Seconds of a run of `work`: the least of all runs, or with `--cpu` the mean of what its threads
/// had a core for, which Linux counts in steps too coarse for one run.
fn least(seconds: f64, mut work: impl FnMut()) -> f64 {
    let by_core = std::env::args().any(|argument| argument == "--cpu");
    work();
    let (start, used) = (Instant::now(), cpu_seconds());
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while start.elapsed().as_secs_f64() < seconds {
        let run = Instant::now();
        work();
        (best, runs) = (best.min(run.elapsed().as_secs_f64()), runs + 1);
    }
    match cpu_seconds().zip(used) {
        Some((now, before)) if by_core => {
            (now - before) / f64::from(runs) / rayon::current_num_threads() as f64
        }
        _ => best,
    }
}

/// GFLOP/s of all threads in the inner loop.
fn peak(isa: Isa, arithmetic: Arithmetic, seconds: f64) -> f64 {
    const CALLS: usize = 2000;
    let threads = rayon::current_num_threads();
    let took = least(seconds, || {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            let _ = multiply_in_cache(isa, arithmetic, CALLS);
        });
    });
    let flops = multiply_in_cache(isa, arithmetic, CALLS).unwrap_or(0);
    flops as f64 * threads as f64 / took / 1e9
}

/// GFLOP/s of a layer, or of the transposed convolution.
fn layer(isa: Isa, arithmetic: Arithmetic, which: Option<usize>, seconds: f64) -> f64 {
    let (inputs, outputs, input, kernel, stride) = match which {
        Some(k) => (LAYERS[k].1, LAYERS[k].2, LAYERS[k].3, LAYERS[k].4, LAYERS[k].5),
        None => (UPSAMPLED.0, UPSAMPLED.1, UPSAMPLED.2, 1, 1),
    };
    let pad = [kernel / 2; 3];
    let plain = Shape::plain(inputs, outputs, input, [kernel; 3]);
    let shape = Shape { stride: [stride; 3], pad_begin: pad, pad_end: pad, ..plain };
    let stored = format(arithmetic);
    // As the engine does: the first layer and the head multiply floats.
    let floats = inputs == 1 || (kernel == 1 && which.is_some());
    let (multiplied, read) = match (floats, inputs) {
        (true, 1) => (Arithmetic::F32, Format::F32),
        (true, _) => (Arithmetic::F32, stored),
        (false, _) => (arithmetic, stored),
    };
    let written = if floats && inputs > 1 { Format::F32 } else { stored };
    let layout = Layout::sliced(inputs, input, input[2] + 2);
    let data = values(read.floats(layout.len()));
    let scale = if read == Format::I16 { 4e-4 } else { 1.1 };
    let affines = vec![Affine { scale, shift: 0.1, slope: 0.01 }; inputs];
    let source = Source { data: &data, format: read, layout, affines: &affines };
    let factor = if which.is_some() { 1 } else { 8 };
    let (weights, bias) = (values(shape.weights() * factor), values(outputs));
    let bytes = vec![ByteCode { step: 0.02, zero: 3 }; inputs];
    let codings = vec![Coding { center: 0.0, step: 1e-3 }; outputs];
    let layer = Layer {
        bytes: if multiplied == Arithmetic::Int8 { &bytes } else { &[] },
        format: written,
        codings: if written == Format::I16 { &codings } else { &[] },
        ..Layer::new(multiplied, shape.clone(), &weights, &bias)
    };
    if which.is_none() {
        let up = Upsample::new(isa, &layer, [2; 3]);
        let layout = Layout::sliced(outputs, up.output(), up.output()[2]);
        let mut out = Buffer::zeros(written.floats(layout.len()));
        let scratch = ScratchPool::new(up.scratch_len());
        let took = least(seconds, || up.run(&[source], &mut out, layout, None, &scratch));
        return up.flops() as f64 / took / 1e9;
    }
    let conv = Conv::new(isa, &layer);
    let dims = shape.output().unwrap_or_default();
    let layout = Layout::sliced(outputs, dims, conv.pitch());
    let mut out = Buffer::zeros(written.floats(layout.len()));
    let mut moments = vec![Moments::default(); conv.moments_len()];
    let scratch = ScratchPool::new(conv.scratch_len());
    let took = least(seconds, || {
        conv.run(&[source], &mut out, layout, Some(&mut moments), &scratch);
    });
    shape.flops() as f64 / took / 1e9
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let threads = after("--threads").and_then(|n| n.parse().ok()).unwrap_or(1);
    let seconds: f64 = after("--seconds").and_then(|n| n.parse().ok()).unwrap_or(0.1);
    let named: Vec<&String> = arguments.iter().skip_while(|a| *a != "--isa").skip(1).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let Ok(pool) = pool else { panic!("no thread pool") };
    let mut columns = Vec::new();
    for isa in Isa::available() {
        let wanted = named.is_empty() || named.iter().any(|name| *name == isa.name());
        if !wanted || isa == Isa::SCALAR {
            continue;
        }
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8] {
            // A set that brings nothing new here has been measured already.
            let new = columns.iter().all(|&(other, which): &(Isa, Arithmetic)| {
                which != arithmetic || !isa.multiplies_as(other, arithmetic)
            });
            // Nor is plain Rust, where the set leaves an arithmetic to it.
            let own = !isa.multiplies_as(Isa::SCALAR, arithmetic);
            if own && new {
                columns.push((isa, arithmetic));
            }
        }
    }
    println!("GFLOP/s, {threads} threads");
    let names: Vec<String> =
        columns.iter().map(|(isa, arithmetic)| format!("{isa} {arithmetic}")).collect();
    print!("{:16}", "");
    for name in &names {
        print!(" {name:>20}");
    }
    println!();
    let row = |name: &str, speed: &(dyn Fn(Isa, Arithmetic) -> f64 + Sync)| {
        print!("{name:16}");
        for &(isa, arithmetic) in &columns {
            print!(" {:20.1}", pool.install(|| speed(isa, arithmetic)));
        }
        println!();
    };
    row("in the cache", &|isa, arithmetic| peak(isa, arithmetic, seconds));
    for (k, (name, ..)) in LAYERS.iter().enumerate() {
        row(name, &|isa, arithmetic| layer(isa, arithmetic, Some(k), seconds));
    }
    row("upsample 16-8", &|isa, arithmetic| layer(isa, arithmetic, None, seconds));
}
