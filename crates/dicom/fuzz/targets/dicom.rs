//! A file from anywhere: its headers, what they say about an image, and its pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fastnnunet_dicom::fuzzing::file(bytes));
