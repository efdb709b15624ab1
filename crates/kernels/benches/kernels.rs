//! Convolutions of real layers on every instruction set: `cargo bench --bench kernels`.
//!
//! Throughput counts the multiplications and additions of direct convolution, whatever the
//! kernel does, so methods compare.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastnnunet_kernels::buffer::{Buffer, ScratchPool};
use fastnnunet_kernels::conv::{Arithmetic, Conv, Format, Layer, Shape, Source, Upsample};
use fastnnunet_kernels::row::{Affine, Moments};
use fastnnunet_kernels::{Isa, Layout};
use std::hint::black_box;

fn values(n: usize) -> Buffer {
    let values: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Buffer::from_slice(&values)
}

fn same(inputs: usize, outputs: usize, input: [usize; 3], kernel: usize, stride: usize) -> Shape {
    let pad = [kernel / 2; 3];
    let plain = Shape::plain(inputs, outputs, input, [kernel; 3]);
    Shape { stride: [stride; 3], pad_begin: pad, pad_end: pad, ..plain }
}

fn convolutions(c: &mut Criterion) {
    let layers = [
        ("first", same(1, 8, [160, 96, 96], 3, 1)),
        ("full", same(8, 8, [160, 96, 96], 3, 1)),
        ("joined", same(16, 8, [160, 96, 96], 3, 1)),
        ("down", same(8, 16, [160, 96, 96], 3, 2)),
        ("middle", same(32, 32, [40, 24, 24], 3, 1)),
        ("deep", same(80, 80, [10, 6, 6], 3, 1)),
        ("head", same(8, 61, [160, 96, 96], 1, 1)),
    ];
    for (name, shape) in layers {
        let mut group = c.benchmark_group(format!("conv/{name}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(shape.flops()));
        let layout = Layout::sliced(shape.inputs, shape.input, shape.input[2] + 2);
        let data = values(layout.len());
        let affines = vec![Affine { scale: 1.1, shift: 0.1, slope: 0.01 }; shape.inputs];
        let source = Source { data: &data, format: Format::F32, layout, affines: &affines };
        for isa in Isa::available() {
            for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
                if arithmetic == Arithmetic::Bf16 && !isa.has_bf16() {
                    continue;
                }
                let weights = values(shape.weights());
                let bias = values(shape.outputs);
                let conv = Conv::new(isa, &Layer::new(arithmetic, shape.clone(), &weights, &bias));
                let dims = shape.output().unwrap_or_default();
                let layout = Layout::sliced(shape.outputs, dims, conv.pitch());
                let mut out = Buffer::zeros(layout.len());
                let mut moments = vec![Moments::default(); conv.moments_len()];
                let scratch = ScratchPool::new(conv.scratch_len());
                group.bench_function(conv.name(), |b| {
                    b.iter(|| {
                        let out = black_box(&mut out[..]);
                        conv.run(&[source], out, layout, Some(&mut moments), &scratch);
                    });
                });
            }
        }
        group.finish();
    }
}

fn upsampling(c: &mut Criterion) {
    let (inputs, outputs, input) = (16, 8, [80, 48, 48]);
    let mut group = c.benchmark_group("upsample/last");
    group.sample_size(10);
    let layout = Layout::sliced(inputs, input, input[2] + 2);
    let data = values(layout.len());
    let affines = vec![Affine { scale: 1.1, shift: 0.1, slope: 0.01 }; inputs];
    let source = Source { data: &data, format: Format::F32, layout, affines: &affines };
    for isa in Isa::available() {
        let weights = values(inputs * outputs * 8);
        let (shape, bias) = (Shape::plain(inputs, outputs, input, [1; 3]), values(outputs));
        let layer = Layer::new(Arithmetic::F32, shape, &weights, &bias);
        let up = Upsample::new(isa, &layer, [2; 3]);
        group.throughput(Throughput::Elements(up.flops()));
        let layout = Layout::sliced(outputs, up.output(), up.output()[2]);
        let mut out = Buffer::zeros(layout.len());
        let scratch = ScratchPool::new(up.scratch_len());
        group.bench_function(up.name(), |b| {
            b.iter(|| up.run(&[source], black_box(&mut out[..]), layout, None, &scratch));
        });
    }
    group.finish();
}

criterion_group!(benches, convolutions, upsampling);
criterion_main!(benches);
