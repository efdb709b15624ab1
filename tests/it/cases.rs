//! End to end against nnU-Net 2.8.1 on a seeded network: same files in, same labels out.

use crate::golden;
use fastnnunet::model::ModelConfig;
use fastnnunet::pipeline::{self, Input, Settings};
use fastnnunet::registry;
use fastnnunet::volume::LabelMap;
use fastnnunet::{Scan, infer};
use ndarray::{Array3, Ix3};
use std::ops::ControlFlow;

/// nnU-Net accumulates tiles in fp16 and this program in f32; where the two best classes lie
/// closer than fp16 tells apart, the labels may differ.
const EQUAL_SHARE: f64 = 0.999;

#[test]
fn every_case_matches_nnunet() {
    let model = registry::find("selftest").expect("the self-test model is built in");
    let mut worst: f64 = 1.0;
    for case in golden::entries("case", "cases") {
        let json = std::fs::read_to_string(golden::path("case", &case["config"])).expect("config");
        let config = ModelConfig::from_json(&json).expect("a valid configuration");
        let exact =
            infer::EngineOptions { precision: Some(infer::Precision::F32), ..Default::default() };
        let mut engine = infer::open(model, config.patch_size, &exact).expect("engine");
        let scan = Scan::open(golden::path("case", &case["input"])).expect("the input loads");
        let result = pipeline::segment(
            &mut Some(Input::from(&scan)),
            &config,
            engine.as_mut(),
            &Settings::default(),
            &mut |_| ControlFlow::Continue(()),
        )
        .expect("segments");
        let LabelMap::U8(labels) = result.labels else { panic!("four classes fit u8") };
        let expected: Array3<u8> = golden::array::<u8, Ix3>("case", &case["expected"]);
        assert_eq!(labels.dim(), expected.dim(), "{}", case["name"]);
        let equal = labels.iter().zip(&expected).filter(|(a, b)| a == b).count();
        let share = equal as f64 / expected.len() as f64;
        println!("{}: {:.4} % of voxels equal", case["name"], share * 100.0);
        assert!(share >= EQUAL_SHARE, "{}: only {share} of voxels equal", case["name"]);
        assert_eq!(result.tiles.0 as u64, case["tiles"].as_u64().expect("tiles"));
        worst = worst.min(share);
    }
    println!("worst case: {:.4} %", worst * 100.0);
}
