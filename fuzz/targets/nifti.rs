//! A NIfTI file, plain or gzip-compressed, a NRRD or a `MetaImage`, read by the rules of each of nnU-Net's readers.
#![no_main]

use fastnnunet::Scan;
use fastnnunet::io::ReadOptions;
use fastnnunet::model::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fastnnunet_fuzz::with_file(bytes, |path| {
        let readers = [Reader::SimpleItk, Reader::Nibabel, Reader::NibabelReorient];
        for reader in [None].into_iter().chain(readers.map(Some)) {
            let options = ReadOptions { reader, max_bytes: 16 << 20, expects_ct: true };
            if let Ok(scan) = Scan::open_with(path, &options) {
                assert_eq!(scan.voxels().shape(), scan.grid().shape);
                assert!(scan.grid().spacing.iter().all(|s| s.is_finite() && *s > 0.0));
            }
        }
    });
});
