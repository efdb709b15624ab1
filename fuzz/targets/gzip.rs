//! The same file plain and compressed is the same image; bytes that follow a compressed image or
//! are no gzip at all end in an error or a warning.
#![no_main]

use fastnnunet::Scan;
use fastnnunet::io::ReadOptions;
use libfuzzer_sys::fuzz_target;
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let options = ReadOptions { reader: None, max_bytes: 16 << 20, expects_ct: true };
    // What is compressed already is the other target's.
    if bytes.starts_with(&[0x1f, 0x8b]) {
        fastnnunet_fuzz::with_file(bytes, |path| drop(Scan::open_with(path, &options)));
        return;
    }
    let mut plain = None;
    fastnnunet_fuzz::with_file(bytes, |path| plain = Scan::open_with(path, &options).ok());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    let packed = encoder.finish().expect("memory");
    fastnnunet_fuzz::with_file(&packed, |path| {
        let unpacked = Scan::open_with(path, &options).ok();
        if let (Some(plain), Some(unpacked)) = (plain, unpacked) {
            assert_eq!(plain.grid(), unpacked.grid());
        }
    });
});
