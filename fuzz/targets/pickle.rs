//! A Python pickle, read as data.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fastnnunet::fuzzing::pickle(bytes));
