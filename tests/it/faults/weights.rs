//! Weights that are no numbers, or not those that were written.

use super::{program, refused, scan};
use crate::copy_folder;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A trained folder of one fold whose checkpoint's storages were changed.
fn trained(folder: &Path, change: impl Fn(&mut [u8])) -> PathBuf {
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
    let model = folder.join("model");
    copy_folder(&plain, &model);
    fs::remove_dir_all(model.join("fold_1")).expect("removes");
    let path = model.join("fold_0/checkpoint_final.pth");
    let file = fs::File::open(&path).expect("opens");
    let mut archive = zip::ZipArchive::new(file).expect("an archive");
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        entries.push((entry.name().expect("a name").into_owned(), content));
    }
    for (_, content) in entries.iter_mut().filter(|(name, _)| name.contains("/data/")) {
        change(content);
    }
    let mut written = zip::ZipWriter::new(fs::File::create(&path).expect("creates"));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in entries {
        written.start_file(name, stored).expect("an entry");
        written.write_all(&content).expect("content");
    }
    written.finish().expect("an archive");
    model
}

fn segment(model: &Path, folder: &Path) -> assert_cmd::Command {
    let mut command = program();
    command.arg("-i").arg(scan()).arg("--model").arg(model);
    command.arg("-o").arg(folder.join("labels.nii.gz"));
    command
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = tempfile::tempdir().expect("folder");
        let model =
            trained(folder.path(), |bytes| bytes[..4].copy_from_slice(&value.to_le_bytes()));
        let message = refused(&mut segment(&model, folder.path()), 4);
        assert!(message.contains("not finite"), "{value}: {message}");
        // Nor are they written into a model of one's own.
        let mut convert = program();
        convert.arg("convert").arg(&model).arg("-o").arg(folder.path().join("converted"));
        refused(&mut convert, 4);
        assert!(!folder.path().join("labels.nii.gz").exists());
    }
}

#[test]
fn one_flipped_bit_of_a_checkpoint_is_noticed() {
    let folder = tempfile::tempdir().expect("folder");
    let model = trained(folder.path(), |_| {});
    segment(&model, folder.path()).assert().success();
    let path = model.join("fold_0/checkpoint_final.pth");
    let whole = fs::read(&path).expect("reads");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&whole[..])).expect("an archive");
    let mut places = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).expect("an entry");
        if entry.name().is_ok_and(|name| name.contains("/data/")) {
            places.push((entry.data_start().expect("a place"), entry.size()));
        }
    }
    // The first and the last storages, one bit in the middle of each.
    for (start, bytes) in [places[0], places[places.len() - 1]] {
        let mut damaged = whole.clone();
        damaged[(start + bytes / 2) as usize] ^= 0x10;
        fs::write(&path, &damaged).expect("writes");
        let message = refused(segment(&model, folder.path()).arg("--overwrite"), 4);
        assert!(message.contains("CRC-32"), "{message}");
    }
}
