//! nnU-Net's `plans.json` and `dataset.json`, and the settings file of FastnnUNet's engine.
//!
//! An input is both files with a zero byte between, or one of them beside an ordinary other.
#![no_main]

use libfuzzer_sys::fuzz_target;

const PLANS: &str = include_str!(
    "../../tests/nnunet/models/Dataset001_Plain/nnUNetTrainer__nnUNetPlans__3d_fullres/plans.json"
);
const DATASET: &str = include_str!(
    "../../tests/nnunet/models/Dataset001_Plain/nnUNetTrainer__nnUNetPlans__3d_fullres/dataset.json"
);

fuzz_target!(|text: &str| {
    if let Some((plans, dataset)) = text.split_once('\0') {
        fastnnunet::fuzzing::plans(plans, dataset);
    } else {
        fastnnunet::fuzzing::plans(text, DATASET);
        fastnnunet::fuzzing::plans(PLANS, text);
        fastnnunet::fuzzing::engine_ini(text);
    }
});
