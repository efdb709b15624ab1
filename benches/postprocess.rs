//! Postprocessing of a long CT with 60 structures; throughput counts each label byte once.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastnnunet::pipeline::postprocess::{Classes, Components, Connectivity, Map, Recipe, Runs};
use fastnnunet::pipeline::postprocess::{holes, morphology};
use fastnnunet::registry::Registry;
use fastnnunet::volume::LabelMap;
use std::hint::black_box;

mod phantom;

fn postprocess(c: &mut Criterion) {
    let mut group = c.benchmark_group("postprocess");
    group.sample_size(10);
    let labels = phantom::labels();
    let (grid, names) = (phantom::grid(), phantom::names());
    let ids: Vec<u16> = names.iter().map(|label| label.id).collect();
    group.throughput(Throughput::Bytes(labels.len() as u64));

    group.bench_function("runs", |b| b.iter(|| Runs::new(black_box(labels.view()))));
    let runs = Runs::new(labels.view());
    for connectivity in [Connectivity::Six, Connectivity::Eighteen, Connectivity::TwentySix] {
        group.bench_function(format!("components/{}", u8::from(connectivity)), |b| {
            b.iter(|| Components::new(black_box(&runs), &Classes::each(&ids), connectivity));
        });
    }
    group.bench_function("holes", |b| {
        b.iter_batched_ref(
            || labels.clone(),
            |labels| holes::fill(&mut Map::new(labels.view_mut(), grid.spacing), &ids, None, None),
            criterion::BatchSize::PerIteration,
        );
    });
    for radius in [2.0, 8.0] {
        group.bench_function(format!("close/{radius}mm"), |b| {
            b.iter_batched_ref(
                || labels.clone(),
                |labels| {
                    let mut map = Map::new(labels.view_mut(), grid.spacing);
                    morphology::apply(&mut map, &ids, morphology::Operation::Close, radius, None)
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
    let json = Registry::embedded().recipe("total").expect("a mode");
    let recipe = Recipe::from_json(json).expect("checked by the build");
    group.bench_function("recipe/total", |b| {
        b.iter_batched_ref(
            || LabelMap::U8(labels.clone()),
            |labels| recipe.apply(labels, &grid, &names).expect("applies"),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, postprocess);
criterion_main!(benches);
