//! Opening a trained folder holds no more than is allowed, whichever of its files is the large one.

use super::bounded::{Ended, one_patch, peak_of};
use super::program;
use crate::copy_folder;
use fastnnunet::nnunet::{Folder, Folds};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const CHECKPOINT: &str = "fold_0/checkpoint_final.pth";

/// What the limits are, each twice the one before.
const LIMITS: [u64; 6] = [50 << 20, 100 << 20, 200 << 20, 400 << 20, 800 << 20, 1600 << 20];

/// Runs a folder under each limit: it stays within it, or says why not, and the first that is enough is
/// not far beyond what it took.
fn check(case: &str, change: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("folder");
    let model = folder.path().join("model");
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
    copy_folder(&plain, &model);
    change(&model);
    let image = one_patch(folder.path());
    let (mut refused, mut enough) = (0, None);
    for limit in LIMITS {
        let mut command = program();
        command.args(["--threads", "2", "--overwrite", "--folds", "0", "--memory-limit"]);
        command.arg(limit.to_string()).arg("-i").arg(&image).arg("--model").arg(&model);
        command.arg("-o").arg(folder.path().join("labels.nii.gz"));
        let Ended { code, message, peak, .. } = peak_of(&command);
        let took = format!("{case} under {} MiB: {} MiB", limit >> 20, peak >> 20);
        assert!(peak <= limit * 21 / 20, "{took}: {code:?}: {message}");
        if code == Some(0) {
            enough = Some((limit, peak));
            break;
        }
        assert_eq!(code, Some(6), "{took}: {message}");
        let sentences = message.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(sentences == 1 && message.contains(" needs "), "{took}: {message}");
        refused += 1;
    }
    let (limit, peak) = enough.unwrap_or_else(|| panic!("{case}: refused under every limit"));
    assert!(refused > 0, "{case}: {} MiB are enough", limit >> 20);
    assert!(limit <= 5 * peak, "{case}: {} MiB for {} MiB", limit >> 20, peak >> 20);
}

/// Adds a field to a file of JSON.
fn insert(file: &Path, field: &str) {
    let text = fs::read_to_string(file).expect("reads");
    let rest = text.trim_start().strip_prefix('{').expect("an object");
    fs::write(file, format!("{{{field},{rest}")).expect("writes");
}

#[test]
fn lists_in_plans_are_counted_before_they_are_made() {
    check("lists of plans.json", |model| {
        let lists = vec!["[0]"; 800_000].join(",");
        insert(&model.join("plans.json"), &format!("\"padding\":[{lists}]"));
    });
}

#[test]
fn objects_in_dataset_json_are_counted_before_they_are_made() {
    check("objects of dataset.json", |model| {
        let objects = vec!["{\"\":0}"; 400_000].join(",");
        insert(&model.join("dataset.json"), &format!("\"training\":[{objects}]"));
    });
}

/// The checkpoint of a folder with its pickle changed, and with more entries.
fn rewritten(model: &Path, pickle: impl FnOnce(&mut Vec<u8>), more: usize) {
    let path = model.join(CHECKPOINT);
    let mut archive = ZipArchive::new(Cursor::new(fs::read(&path).expect("reads"))).expect("a zip");
    let mut written = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut pickle = Some(pickle);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        let name = entry.name().expect("a name").into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("reads");
        if name.ends_with("/data.pkl")
            && let Some(change) = pickle.take()
        {
            change(&mut content);
        }
        written.start_file(name, options).expect("an entry");
        written.write_all(&content).expect("writes");
    }
    for index in 0..more {
        written.start_file(format!("x/data/more{index}"), options).expect("an entry");
    }
    fs::write(&path, written.finish().expect("a zip").into_inner()).expect("writes");
}

/// A byte of a pickle is a value of 32.
#[test]
fn values_of_a_pickle_are_counted_before_they_are_made() {
    check("values of a pickle", |model| {
        let change = |pickle: &mut Vec<u8>| {
            assert_eq!(pickle.pop(), Some(b'.'));
            // A key that is read where there is no other: `pickle["state_dict"] = [None, ...]`.
            pickle.extend(b"X\x0a\0\0\0state_dict](");
            pickle.extend(vec![b'N'; 3_000_000]);
            pickle.extend(b"es.");
        };
        rewritten(model, change, 0);
    });
}

#[test]
fn entries_of_an_archive_are_counted_before_they_are_listed() {
    check("entries of an archive", |model| rewritten(model, |_| (), 250_000));
}

/// The network with 64 times the features, whose weights are a tensor file.
#[test]
fn weights_are_counted_before_they_are_read() {
    const WIDER: u64 = 64;
    check("weights", |model| {
        let opened = Folder::open(model, &Folds::Auto, None).expect("the plain folder");
        let small = opened.model(0).expect("a network").graph.expect("a graph");
        let path = model.join("plans.json");
        let mut plans: Value =
            serde_json::from_str(&fs::read_to_string(&path).expect("reads")).expect("JSON");
        let features = plans
            .pointer_mut("/configurations/3d_fullres/architecture/arch_kwargs/features_per_stage")
            .expect("features");
        for count in features.as_array_mut().expect("a list") {
            let narrow = count.as_u64().expect("a count");
            *count = json!(narrow * WIDER);
        }
        let features = features.clone();
        fs::write(&path, plans.to_string()).expect("writes");
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = small
            .initializer
            .iter()
            .map(|tensor| {
                let is_head = tensor.name.contains("seg_layers");
                let wide = |(axis, &n): (usize, &i64)| {
                    let n = n as usize;
                    // Neither the image's only channel nor classes.
                    let is_feature = axis < 2 && n > 1 && !(axis == 0 && is_head);
                    if is_feature { n * WIDER as usize } else { n }
                };
                let shape: Vec<usize> = tensor.dims.iter().enumerate().map(wide).collect();
                let count = shape.iter().product::<usize>();
                (tensor.name.clone(), shape, 1e-3_f32.to_le_bytes().repeat(count))
            })
            .collect();
        // Heads that only training used are no part of the graph, and have to be there.
        let stages = features.as_array().expect("a list").len();
        for head in 0..stages - 2 {
            let from = features[stages - 2 - head].as_u64().expect("a count") as usize;
            for (name, shape) in [("weight", vec![3, from, 1, 1, 1]), ("bias", vec![3])] {
                let zeros = vec![0; 4 * shape.iter().product::<usize>()];
                tensors.push((format!("decoder.seg_layers.{head}.{name}"), shape, zeros));
            }
        }
        let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view"))
        };
        let notes = [
            ("trainer_name", "nnUNetTrainer"),
            ("configuration", "3d_fullres"),
            ("inference_allowed_mirroring_axes", "[]"),
        ];
        let notes = notes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let views = tensors.leak().iter().map(view);
        let bytes = safetensors::serialize(views, Some(notes)).expect("serialized");
        println!("{} MiB of weights", bytes.len() >> 20);
        fs::write(model.join("fold_0/checkpoint_final.safetensors"), bytes).expect("writes");
        fs::remove_file(model.join(CHECKPOINT)).expect("removes");
    });
}
