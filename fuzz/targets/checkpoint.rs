//! A PyTorch checkpoint: the zip archive, the pickle in it, and the weights they lead to.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fastnnunet_fuzz::with_file(bytes, fastnnunet::fuzzing::checkpoint);
});
