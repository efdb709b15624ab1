//! A file from anywhere: its headers, what they say about an image, and its pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fastnnunet_fuzz::let_jpeg2000_panic(), |bytes: &[u8]| {
    fastnnunet_dicom::fuzzing::file(bytes);
});
