use super::*;
use crate::nnunet::{Folder, Folds};
use ::safetensors::{Dtype, tensor::TensorView};
use prost::Message;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// A trained folder with optimizer state and log, as real ones have.
fn trained() -> PathBuf {
    let dataset =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/models/Dataset001_Plain");
    let entry =
        fs::read_dir(dataset).expect("data set").next().expect("a training").expect("entry");
    entry.path()
}

#[test]
fn skipping_what_nobody_asks_for_changes_nothing_else() {
    let checkpoint =
        Checkpoint::open(&trained().join("fold_0/checkpoint_final.pth"), Allowance::default())
            .expect("open");
    let short = checkpoint.pickle().expect("a pickle");
    let is_unread = |key| short.lookup(short.root(), key).is_some_and(|value| short.is_none(value));
    for key in ["optimizer_state", "logging", "_best_ema"] {
        assert!(is_unread(key), "{key} is in the file and not read");
    }
    // Files of nnU-Net v1 have another name for the weights.
    for key in WANTED.iter().filter(|key| **key != "state_dict") {
        assert!(short.lookup(short.root(), key).is_some(), "{key}");
    }
    assert!(!checkpoint.weights(Allowance::default()).expect("weights").is_empty());
}

/// The same training with its tensors in a safetensors file.
fn as_safetensors(notes: &[(&str, &str)], folder: &Path) {
    let from = trained();
    for name in ["plans.json", "dataset.json"] {
        fs::create_dir_all(folder.join("fold_0")).expect("folder");
        fs::copy(from.join(name), folder.join(name)).expect("copied");
    }
    let checkpoint =
        Checkpoint::open(&from.join("fold_0/checkpoint_final.pth"), Allowance::default())
            .expect("checkpoint");
    let weights = checkpoint.weights(Allowance::default()).expect("weights");
    let mut storages = checkpoint.storages(weights.values()).expect("opens again");
    let read = |(name, stored): (&String, &Stored)| {
        let bytes = storages.read(stored).expect("tensor").to_vec();
        (name.clone(), stored.shape.clone(), bytes)
    };
    let mut tensors: Vec<_> = weights.iter().map(read).collect();
    tensors.sort();
    let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view"))
    };
    let views = tensors.leak().iter().map(view);
    let notes = notes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let bytes = ::safetensors::serialize(views, Some(notes)).expect("serialized");
    fs::write(folder.join("fold_0/checkpoint_final.safetensors"), bytes).expect("written");
}

#[test]
fn safetensors_stand_for_a_checkpoint() {
    let open = |folder: &Path| Folder::open(folder, &Folds::Auto, None).expect("opens");
    let expected = open(&trained());
    let root = tempfile::tempdir().expect("folder");
    let named = root.path().join("nnUNetTrainer__nnUNetPlans__3d_fullres");
    as_safetensors(&[], &named);
    let noted = root.path().join("elsewhere");
    as_safetensors(
        &[
            ("trainer_name", "nnUNetTrainer"),
            ("configuration", "3d_fullres"),
            ("inference_allowed_mirroring_axes", "[0, 2]"),
        ],
        &noted,
    );
    for (folder, mirrored) in [(&named, &[0, 1, 2][..]), (&noted, &[0, 2][..])] {
        let found = open(folder);
        assert_eq!(found.config().mirror_axes, mirrored);
        assert_eq!(found.configuration(), expected.configuration());
        let network = |folder: &Folder| folder.model(0).expect("a network").encode_to_vec();
        assert!(network(&found) == network(&expected), "{}", folder.display());
    }
    let unnamed = root.path().join("unnamed");
    as_safetensors(&[], &unnamed);
    let error = Folder::open(&unnamed, &Folds::Auto, None).expect_err("who trained it?");
    assert!(error.to_string().contains("trainer_name"), "{error}");
}

#[test]
fn broken_safetensors_are_errors() {
    let folder = tempfile::tempdir().expect("folder");
    as_safetensors(&[], folder.path());
    let path = folder.path().join("fold_0/checkpoint_final.safetensors");
    let whole = fs::read(&path).expect("read");
    let longer = [&whole[..], &[0]].concat();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for (case, bytes) in
        [("cut", &whole[..whole.len() - 1]), ("longer", &longer), ("huge header", &huge)]
    {
        fs::write(&path, bytes).expect("written");
        let error = Checkpoint::open(&path, Allowance::default()).expect_err(case).to_string();
        assert!(error.contains("broken safetensors"), "{case}: {error}");
    }
}

/// A checkpoint whose tensors `a` and `b` are one storage of four numbers: `a` all of it, `b` of
/// the given offset, shape and strides.
fn sharing(b: (u8, u8, u8)) -> Vec<u8> {
    noted(b, b"")
}

/// The same with what else PyTorch says of the tensors, pickled.
fn noted(b: (u8, u8, u8), notes: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[b'X', text.len() as u8, 0, 0, 0], text.as_bytes()].concat();
    let tensor = |(offset, len, stride): (u8, u8, u8)| {
        let storage = [
            b"(".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text("0"),
            text("cpu"),
            b"K\x04tQ".to_vec(),
        ]
        .concat();
        let rest = [b'K', offset, b'K', len, 0x85, b'K', stride, 0x85, 0x89, b'}'];
        let call = b"ctorch._utils\n_rebuild_tensor_v2\n(";
        [call, &storage[..], &rest, notes, b"tR"].concat()
    };
    let pickle = [
        b"\x80\x02}(".to_vec(),
        text("network_weights"),
        b"}(".to_vec(),
        text("a"),
        tensor((0, 4, 1)),
        text("b"),
        tensor(b),
        b"uu.".to_vec(),
    ]
    .concat();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let numbers: Vec<u8> =
        [1.0_f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
    for (name, content) in [("x/data.pkl", &pickle), ("x/data/0", &numbers)] {
        archive.start_file(name, options).expect("entry");
        archive.write_all(content).expect("content");
    }
    archive.finish().expect("archive").into_inner()
}

#[test]
fn what_tensors_share_is_held_once() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), sharing((1, 2, 1))).expect("written");
    let checkpoint = Checkpoint::open(file.path(), Allowance::default()).expect("opens");
    let weights = checkpoint.weights(Allowance::default()).expect("weights");
    let mut storages = checkpoint.storages(weights.values()).expect("opens again");
    let (a, b) = (&weights["a"], &weights["b"]);
    let (a, b) = (storages.read(a).expect("a"), storages.read(b).expect("b"));
    assert_eq!(&a[4..12], &b[..]);
    assert_eq!(a.as_ptr().wrapping_add(4), b.as_ptr(), "one memory");
}

#[test]
fn strided_tensors_are_copied_in_order_and_not_without_end() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), sharing((0, 2, 2))).expect("written");
    let checkpoint = Checkpoint::open(file.path(), Allowance::default()).expect("opens");
    let weights = checkpoint.weights(Allowance::default()).expect("weights");
    let mut storages = checkpoint.storages(weights.values()).expect("opens again");
    let every_second: Vec<u8> = [1.0_f32, 3.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let mut copies = 0;
    while let Ok(copy) = storages.read(&weights["b"]) {
        assert_eq!(copy, every_second);
        copies += 1;
        assert!(copies < 1000, "copies of a few numbers go on");
    }
    assert!(copies > 0);
}

#[test]
fn a_view_that_changes_signs_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let weights = |notes: &[u8]| {
        fs::write(file.path(), noted((1, 2, 1), notes)).expect("written");
        Checkpoint::open(file.path(), Allowance::default())
            .expect("opens")
            .weights(Allowance::default())
    };
    // {"neg": True}, as torch.save writes it behind the hooks.
    for view in ["neg", "conj"] {
        let key = [&[b'}', b'X', view.len() as u8, 0, 0, 0], view.as_bytes()].concat();
        let error = weights(&[&key[..], b"\x88s"].concat()).expect_err(view).to_string();
        assert!(error.contains(view), "{error}");
        assert!(weights(&[&key[..], b"\x89s"].concat()).is_ok(), "no {view}");
    }
    assert!(weights(b"}").is_ok(), "nothing noted");
}

/// One bit of each entry in turn.
#[test]
fn damaged_bytes_are_noticed_where_the_file_has_a_checksum() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let whole = sharing((1, 2, 1));
    let numbers: Vec<u8> = [1.0_f32, 2.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let place = whole.windows(8).position(|bytes| bytes == numbers).expect("stored");
    // (what is asked for: all numbers of the storage, or a part), the damaged byte
    for (names, at) in [(&["a"][..], 3), (&["b"], 3), (&["b"], 14), (&["a", "b"], 9)] {
        let mut damaged = whole.clone();
        damaged[place + at] ^= 1;
        fs::write(file.path(), &damaged).expect("written");
        let checkpoint = Checkpoint::open(file.path(), Allowance::default()).expect("opens");
        let weights = checkpoint.weights(Allowance::default()).expect("weights");
        let asked = || names.iter().map(|name| &weights[*name]);
        let mut storages = checkpoint.storages(asked()).expect("opens again");
        let error = storages.read(&weights[names[0]]).expect_err("damaged").to_string();
        assert!(error.contains("CRC-32"), "{error}");
        // Files without checksums are taken as they are.
        let mut unchecked = damaged;
        for entry in 0..unchecked.len() - 20 {
            if unchecked[entry..].starts_with(b"PK\x01\x02") {
                unchecked[entry + 16..][..4].fill(0);
            }
        }
        fs::write(file.path(), &unchecked).expect("written");
        let checkpoint = Checkpoint::open(file.path(), Allowance::default()).expect("opens");
        let mut storages = checkpoint.storages(asked()).expect("opens again");
        assert!(storages.read(&weights[names[0]]).is_ok());
    }
    // Of the description itself.
    let mut damaged = whole.clone();
    let at = whole.windows(5).position(|bytes| bytes == b"cpuK\x04").expect("described");
    damaged[at] ^= 1;
    fs::write(file.path(), damaged).expect("written");
    let error =
        Checkpoint::open(file.path(), Allowance::default()).expect_err("damaged").to_string();
    assert!(error.contains("data.pkl") && error.contains("CRC-32"), "{error}");
}
