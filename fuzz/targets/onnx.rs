//! Bytes of an ONNX file: decoded, checked as a model of one's own would be, lowered to a plan, and
//! run where that is small.
#![no_main]

use fastnnunet::infer::cpu::{CpuEngine, Isa};
use fastnnunet::infer::{Engine, Precision};
use fastnnunet::model::onnx::Graph;
use libfuzzer_sys::fuzz_target;
use ndarray::Array4;

/// Larger networks say nothing that small ones do not.
const MOST_BYTES: u64 = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(graph) = Graph::read(bytes) else { return };
    for patch in [[8, 8, 8], [1, 12, 16]] {
        let one = &mut |_| Ok(graph.clone());
        let Ok(mut engine) = CpuEngine::open_folds(1, one, patch, Precision::F32, Isa::best())
        else {
            continue;
        };
        let sizes = [engine.input_channels(), engine.output_channels()];
        if engine.memory_bytes(2) > MOST_BYTES || sizes.iter().any(|&c| c > 256) {
            continue;
        }
        let [z, y, x] = patch;
        let input = Array4::from_elem((sizes[0], z, y, x), 0.5);
        let mut output = Array4::zeros((sizes[1], z, y, x));
        let _ = engine.run(input.view(), &mut output);
    }
});
