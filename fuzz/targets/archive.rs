//! A released archive of weights: what trainings are in it, and what their files hold.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fastnnunet_fuzz::with_file(bytes, fastnnunet::fuzzing::archive);
});
