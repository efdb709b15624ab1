//! What a patch costs on NVIDIA's H100, counted from the plan: launches, cubes, bytes.
#![allow(clippy::print_stdout, reason = "figures")]

use crate::bench::seeded;
use crate::choose::{Gpu, Wanted, microseconds};
use crate::conv::Conv;
use crate::plan::{Action, Number, Operand, Plan, Precision, Settings, plan};
use fastnnunet_model::network::Network;
use fastnnunet_model::onnx::Graph;
use std::sync::Arc;

fn student() -> Network {
    let file = std::fs::read(format!("{}/models/bone_low.onnx", super::root())).expect("the model");
    Network::new(Graph::read(&file).expect("a graph"), [80; 3]).expect("a network")
}

fn teacher() -> Network {
    Network::new(seeded(&[32, 64, 128, 256, 320, 320], 61), [128; 3]).expect("a network")
}

fn planned(network: Network, precision: Precision) -> Plan {
    let settings = Settings { precision, images: 1, gpu: Gpu::H100, known: Arc::default() };
    plan(network, settings).expect("a plan")
}

/// Bytes through device memory. A launch that reads a tensor in overlapping tiles reads it once:
/// tiles that overlap run together, and the rest is the cache's.
struct Bytes {
    moved: f64,
    /// Each tensor written once and read once per consumer, weights once.
    least: f64,
}

fn bytes(plan: &Plan) -> Bytes {
    let own = plan.precision.bytes() as f64;
    let size = |number: Number| if number == Number::Single { 4.0 } else { own };
    let tensor = |o: &Operand| {
        (o.channels.next_multiple_of(o.lanes) * o.dims.iter().product::<usize>()) as f64
            * size(o.number)
    };
    let map = |conv: &Conv| (conv.made() * 8 * conv.voxels()) as f64;
    let mut all = Bytes { moved: 0.0, least: 0.0 };
    for action in &plan.steps {
        match action {
            Action::Conv { conv, way, input, .. } => {
                let read = (conv.numbers() - map(conv)) * size(*input);
                let weights = (conv.inputs.iter().sum::<usize>()
                    * conv.outputs
                    * conv.taps()
                    * conv.scattered()) as f64;
                all.least += read + map(conv) * own + weights * own;
                let written = if way.splits > 1 { way.splits as f64 * 4.0 } else { own };
                all.moved += read + map(conv) * written + weights * own;
            }
            Action::Finish { task, norm, voxels, splits, from, .. } => {
                let map = (norm.blocks * 8 * voxels) as f64;
                let written = if task.sums { own } else { 0.0 };
                all.moved += map * (*splits as f64 * size(*from) + written);
            }
            Action::Merge { norm, pieces } => all.moved += (norm.blocks * pieces * 96) as f64,
            other => panic!("{other:?}"),
        }
    }
    let last = tensor(&plan.last.source);
    all.moved += last;
    all.least += last;
    all
}

fn check(name: &str, plan: &Plan, most_launches: usize) {
    let gpu = Gpu::H100;
    let wanted = |moments| Wanted { moments, bytes: plan.precision.bytes(), images: 1 };
    let launches = plan.steps.len() + 1;
    let mut kernels = Vec::new();
    let mut sum = 0.0;
    for action in &plan.steps {
        let Action::Conv { conv, way, .. } = action else { continue };
        let (cubes, time) =
            (way.cubes(conv, 1), microseconds(&gpu, conv, way, wanted(way.kernel.moments())));
        sum += time;
        println!(
            "{name}: {:?}>{} {:?} {} split {}, {cubes} cubes, {time:.1} us",
            conv.inputs,
            conv.outputs,
            conv.input,
            way.kernel.text(),
            way.splits
        );
        assert!(cubes >= 100 || time < 20.0, "{name}: {cubes} cubes for {conv:?}");
        if !kernels.contains(&way.kernel) {
            kernels.push(way.kernel);
        }
    }
    let Bytes { moved, least } = bytes(plan);
    println!(
        "{name}: {launches} launches, {} kinds of convolution kernels, {:.0} of at least {:.0} MB, convolutions {sum:.0} us by the model",
        kernels.len(),
        moved / 1e6,
        least / 1e6
    );
    assert!(launches <= most_launches, "{name}: {launches} launches");
    assert!(moved <= 1.5 * least, "{name}: {moved} bytes for {least}");
    assert!(kernels.len() <= 16, "{name}: {} kernels to compile", kernels.len());
}

#[test]
fn patches_cost_what_they_should() {
    for precision in [Precision::F32, Precision::F16] {
        check(&format!("student {precision:?}"), &planned(student(), precision), 60);
        check(&format!("teacher {precision:?}"), &planned(teacher(), precision), 90);
    }
}
