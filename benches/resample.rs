//! Resampling at the sizes of real cases; throughput counts source and target once each.
//!
//! `copy` moves as many bytes as the first case and shows what the memory allows.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastnnunet::model::Resampling;
use fastnnunet::pipeline::label::{Decision, label_resampled};
use fastnnunet::pipeline::resample::resample_image;
use ndarray::parallel::prelude::*;
use ndarray::{Array3, Array4, Dimension, Zip};
use std::hint::black_box;

/// A chest CT of 0.7 x 0.7 x 2.5 mm.
const SCAN: [usize; 3] = [133, 512, 512];

/// The scan at 3 mm.
const COARSE: [usize; 3] = [111, 119, 119];

/// The scan at 2.0 x 0.977 x 0.977 mm.
const FINE: [usize; 3] = [166, 367, 367];

/// Smooth along the axes with some detail: neither constant nor noise.
fn scan<D: Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>) -> ndarray::Array<f32, D> {
    let mut i = 0_u32;
    ndarray::Array::from_shape_simple_fn(shape, || {
        i = i.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (i >> 20) as f32 - 1024.0
    })
}

fn bytes(elements: usize, size: usize) -> u64 {
    (elements * size) as u64
}

fn images(c: &mut Criterion) {
    let mut group = c.benchmark_group("image");
    group.sample_size(10);
    let source: Array3<f32> = scan(SCAN);
    let mut copy = Array3::<f32>::zeros(SCAN);
    group.throughput(Throughput::Bytes(bytes(2 * source.len(), 4)));
    group.bench_function("copy", |b| {
        b.iter(|| {
            Zip::from(black_box(&mut copy))
                .and(&source)
                .into_par_iter()
                .for_each(|(to, from)| *to = *from);
        });
    });
    let flipped = {
        let mut view = source.view();
        view.invert_axis(ndarray::Axis(1));
        view.invert_axis(ndarray::Axis(2));
        view
    };
    let cubic = Resampling::default();
    for (name, view, shape, separate) in [
        ("3mm", source.view(), COARSE, None),
        ("3mm/flipped", flipped, COARSE, None),
        ("fine", source.view(), FINE, None),
        ("fine/separate", source.view(), FINE, Some(0)),
    ] {
        let voxels = source.len() + shape.iter().product::<usize>();
        group.throughput(Throughput::Bytes(bytes(voxels, 4)));
        group.bench_function(name, |b| {
            b.iter(|| resample_image(black_box(view), |v| v, shape, separate, &cubic));
        });
    }
    group.finish();
}

fn labels(c: &mut Criterion) {
    let mut group = c.benchmark_group("label");
    group.sample_size(10);
    let mut labels = Array3::<u8>::zeros(SCAN);
    for classes in [2, 61] {
        let [z, y, x] = COARSE;
        let logits: Array4<f32> = scan([classes, z, y, x]);
        group.throughput(Throughput::Bytes(bytes(logits.len(), 4) + bytes(labels.len(), 1)));
        group.bench_function(format!("{classes}-classes"), |b| {
            b.iter(|| {
                label_resampled(
                    black_box(logits.view()),
                    None,
                    &Decision::Argmax,
                    black_box(labels.view_mut()),
                );
            });
        });
    }
    group.finish();
}

criterion_group!(benches, images, labels);
criterion_main!(benches);
