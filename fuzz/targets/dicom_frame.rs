//! A compressed frame: RLE, deflated, JPEG, JPEG-LS or JPEG 2000, of up to 256 x 256 pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fastnnunet_fuzz::let_jpeg2000_panic(), |bytes: &[u8]| {
    fastnnunet_dicom::fuzzing::frame(bytes);
});
