//! TotalSegmentator's tasks through the built program, from folders as it releases them, against the
//! label maps it writes itself; `tests/totalseg/README.md` says how both were made.

use fastnnunet::Scan;
use ndarray::Array3;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Share of voxels that must have the reference's label: random networks of 118 classes leave gaps of
/// a millionth between the best two.
const EQUAL_SHARE: f64 = 0.9999;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/totalseg").join(name)
}

fn index() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(path("index.json")).expect("index.json");
    serde_json::from_str(&text).expect("index.json parses")
}

/// What we are asked for the same with.
fn options(run: &Value) -> Vec<String> {
    let arguments = run["arguments"].as_object().expect("arguments");
    let has = |name: &str| arguments.get(name) == Some(&Value::Bool(true));
    let mut options = vec!["--mode".to_owned(), run["task"].as_str().expect("a task").to_owned()];
    let mut add = |option: &str, value: &str| options.extend([option.into(), value.into()]);
    if has("fast") {
        add("--quality", "low");
    }
    if has("fastest") {
        add("--quality", "lowest");
    }
    if arguments.get("model_size").is_some() {
        add("--variant", "small");
    }
    if let Some(names) = arguments.get("roi_subset").and_then(Value::as_array) {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        add("--roi", &names.join(","));
    }
    options
}

pub(crate) fn labels(file: &Path) -> Array3<u16> {
    Scan::open(file).expect("a label map").voxels().to_f32().mapv(|v| v as u16)
}

/// Share of voxels with the same label.
pub(crate) fn agreement(ours: &Path, theirs: &Path) -> f64 {
    let (ours, theirs) = (labels(ours), labels(theirs));
    assert_eq!(ours.dim(), theirs.dim());
    let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
    same as f64 / ours.len() as f64
}

fn program(models: &Path) -> Command {
    let mut program = crate::program();
    program.args(["--precision", "f32", "-q", "--models-dir"]).arg(models);
    program
}

#[test]
fn tasks_are_those_of_totalsegmentator() {
    let folder = tempfile::tempdir().expect("folder");
    let mut worse = Vec::new();
    for (name, run) in index() {
        let output = folder.path().join(format!("{name}.nii.gz"));
        let image = path(run["image"].as_str().expect("an image"));
        let mut program = program(&path("results"));
        let done = program.args(options(&run)).arg("-i").arg(image).arg("-o").arg(&output);
        let done = done.output().expect("runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if !done.status.success() {
            worse.push(format!("{name}: {said}"));
            continue;
        }
        let share = agreement(&output, &path(run["expected"].as_str().expect("a file")));
        println!("{name}: {:.5} % of voxels agree", 100.0 * share);
        if share < EQUAL_SHARE {
            worse.push(format!("{name}: {share}"));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
fn weights_for_mr_say_so_and_take_no_image_for_a_ct() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("labels.nii.gz");
    // Nothing in it is as dark as air in a CT.
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/images/box_mr.nii.gz");
    for (mode, is_mr) in [("total_mr", true), ("total", false)] {
        let mut program = crate::program();
        program.args(["--overwrite", "--quality", "low", "--mode", mode, "--models-dir"]);
        program.arg(path("results")).arg("-i").arg(&image).arg("-o").arg(&output);
        let said = String::from_utf8(program.output().expect("runs").stderr).expect("UTF-8");
        assert_eq!(said.contains("segment MR"), is_mr, "{mode}: {said}");
        assert_eq!(said.contains("does not look like a CT"), !is_mr, "{mode}: {said}");
    }
}

#[test]
fn smooth_labels_are_those_that_the_trained_folder_gives_by_itself() {
    let folder = tempfile::tempdir().expect("folder");
    let index = index();
    let run = &index["total_low"];
    let image = path(run["image"].as_str().expect("an image"));
    let at = |name: &str| folder.path().join(name);
    let mut smooth = program(&path("results"));
    smooth.args(options(run)).args(["--labels", "smooth"]);
    let trained = "results/Dataset297_TotalSegmentator_total_3mm_1559subj/\
                   nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres";
    let mut alone = crate::program();
    alone.args(["--precision", "f32", "-q", "--mirror", "none", "--step-size", "0.8", "--model"]);
    alone.arg(path(trained));
    for (mut program, name) in [(smooth, "smooth.nii.gz"), (alone, "alone.nii.gz")] {
        let done = program.arg("-i").arg(&image).arg("-o").arg(at(name)).output().expect("runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let share = agreement(&at("smooth.nii.gz"), &at("alone.nii.gz"));
    assert!(share >= EQUAL_SHARE, "{share}");
    let own = agreement(&at("smooth.nii.gz"), &path(run["expected"].as_str().expect("a file")));
    assert!(own < EQUAL_SHARE, "another result than the task's: {own}");
}

#[test]
fn lines_of_totalsegmentator_write_what_it_writes() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let index = index();
    let expected = |name: &str| labels(&path(index[name]["expected"].as_str().expect("a file")));
    let typed = |line: &str, image: &str, output: &Path| {
        let mut program = program(&path("results"));
        program.args(line.split(' ')).arg("-i").arg(path(image)).arg("-o").arg(output);
        let done = program.output().expect("runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };

    // A folder with a file per class, statistics and picture, twice: what is there is replaced.
    for _ in 0..2 {
        let (code, said) = typed("-ta body -f -s -p -ns 6", "images/pir.nii.gz", &at("body"));
        assert_eq!(code, Some(0), "{said}");
    }
    let whole = expected("body_low");
    let text = fs::read_to_string(at("body/statistics.json")).expect("statistics");
    let statistics: Value = serde_json::from_str(&text).expect("JSON");
    for (name, id) in [("body_trunc", 1_u16), ("body_extremities", 2)] {
        let mask = labels(&at("body").join(format!("{name}.nii.gz")));
        let same = mask.iter().zip(&whole).filter(|(m, label)| **m == u16::from(**label == id));
        assert!(same.count() as f64 >= EQUAL_SHARE * whole.len() as f64, "{name}");
        let voxels = mask.iter().filter(|m| **m == 1).count();
        assert_eq!(statistics[name]["n_voxels"], voxels, "{name}");
    }
    assert!(at("body/preview_body.png").is_file());
    assert_eq!(fs::read_dir(at("body")).expect("a folder").count(), 4);

    // One label map.
    let (code, said) = typed("--task total --fast --ml", "images/las.nii.gz", &at("total.nii.gz"));
    assert_eq!(code, Some(0), "{said}");
    let theirs = path(index["total_low"]["expected"].as_str().expect("a file"));
    assert!(agreement(&at("total.nii.gz"), &theirs) >= EQUAL_SHARE);

    // Names of structures, of which the others are no files.
    let (code, said) = typed("-ta total -ff -rs liver spleen", "images/las.nii.gz", &at("two"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_dir(at("two")).expect("a folder").count(), 2);

    // By name, what is not taken; and no demonstration in place of weights.
    let (code, said) = typed("-ta total -rmb 100", "images/las.nii.gz", &at("none"));
    assert!(code == Some(2) && said.contains("-rmb 100"), "{said}");
    let mut bare = crate::program();
    bare.args(["-ta", "total", "-f", "-i"]).arg(path("images/las.nii.gz"));
    let done = bare.arg("-o").arg(at("none")).output().expect("runs");
    assert!(!done.status.success(), "no weights");
    assert!(!at("none").exists());
}

/// The structures of a task, by what its program calls their files.
fn classes(task: &str) -> Vec<String> {
    let tasks = fastnnunet::registry::Registry::embedded().tasks();
    let task = tasks.tasks.iter().find(|one| one.name == task).expect("a task");
    let mut files: Vec<_> = task.labels.iter().map(|name| format!("{name}.nii.gz")).collect();
    files.sort();
    files
}

#[test]
fn lines_of_its_readme_run_as_typed() {
    let page = include_str!("../../docs/from-totalsegmentator.md");
    let lines = page.lines().filter_map(|line| line.strip_prefix("TotalSegmentator "));
    let home = tempfile::tempdir().expect("folder");
    let of_user = || crate::program_of(home.path());
    let imported = of_user().arg("import").arg(path("results")).output().expect("runs");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let mut typed = 0;
    for line in lines {
        let room = tempfile::tempdir().expect("folder");
        for (image, name) in [("las", "ct"), ("float", "mri")] {
            let to = room.path().join(format!("{name}.nii.gz"));
            fs::copy(path(&format!("images/{image}.nii.gz")), to).expect("copies");
        }
        let mut program = of_user();
        let done = program.current_dir(room.path()).args(line.split(' ')).output().expect("runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {said}");

        let words: Vec<&str> = line.split(' ').collect();
        let named = words.iter().position(|word| ["-ta", "--task"].contains(word));
        let is_told = words.contains(&"-q") || named.is_some();
        assert_eq!(said.contains("whose task is then total"), !is_told, "{line}: {said}");
        let task = named.map_or("total", |at| words[at + 1]);
        let mut expected = classes(task);
        if line.contains("roi_subset") {
            expected = ["brain", "colon", "spleen"].map(|name| format!("{name}.nii.gz")).to_vec();
        }
        for (word, file) in [("preview", "preview_total.png"), ("statistics", "statistics.json")] {
            expected.extend(line.contains(word).then(|| file.to_owned()));
        }
        expected.sort();
        let output =
            room.path().join(words[words.iter().position(|w| *w == "-o").expect("-o") + 1]);
        if words.contains(&"--ml") {
            assert!(labels(&output).iter().any(|label| *label > 0), "{line}");
        } else {
            let files = fs::read_dir(&output).expect("a folder").map(|entry| entry.expect("entry"));
            let mut files: Vec<_> =
                files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
            files.sort();
            assert_eq!(files, expected, "{line}");
        }
        typed += 1;
    }
    assert!(typed >= 10, "{typed} lines");
}

#[test]
fn structures_are_called_as_planning_systems_call_them() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let mut program = program(&path("results"));
    let line = "--mode total --quality lowest --roi kidney_left,rib_left_2,gluteus_maximus_left \
                --names tg263 --output-type per-structure";
    program.args(line.split(' ')).arg("-i").arg(path("images/las.nii.gz")).arg("-o").arg(&out);
    assert!(program.status().expect("runs").success());
    let mut names: Vec<String> = fs::read_dir(&out)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["Kidney_L.nii.gz", "Rib02_L.nii.gz", "gluteus_maximus_left.nii.gz"]);
}

#[test]
fn bones_without_a_side_get_the_one_they_lie_on() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("limb.nii.gz");
    let image = path("images/las.nii.gz");
    let mut program = program(&path("results"));
    program.args(["--mode", "limb", "--quality", "high", "--json", "-i"]).arg(&image);
    let done = program.arg("-o").arg(&output).output().expect("runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: Value = serde_json::from_slice(&done.stdout).expect("one JSON value");
    assert_eq!(summary["not_labeled"], serde_json::json!([]), "all of the mode's bones");
    let ids = |names: &dyn Fn(&str) -> bool| -> Vec<u16> {
        let labels = summary["labels"].as_array().expect("labels").iter();
        let wanted = labels.filter(|label| names(label["name"].as_str().expect("a name")));
        wanted.map(|label| label["id"].as_u64().expect("an id") as u16).collect()
    };
    // Bones of `total`, up to 119, have sides of their own.
    let told = |side: &'static str| ids(&move |name: &str| name.ends_with(side));
    let map = labels(&output);
    // LAS: to the left along the last axis.
    let mean = |ids: &[u16]| {
        let at: Vec<usize> = map
            .indexed_iter()
            .filter(|(_, label)| ids.contains(label))
            .map(|(at, _)| at.2)
            .collect();
        at.iter().sum::<usize>() as f64 / at.len() as f64
    };
    let halves = |side| told(side).into_iter().partition::<Vec<u16>, _>(|id| *id < 120);
    let ((known_left, left), (known_right, right)) = (halves("_left"), halves("_right"));
    assert_eq!((left.len(), right.len()), (11, 11));
    let middle = f64::midpoint(mean(&known_left), mean(&known_right));
    for (ids, is_left) in [(left, true), (right, false)] {
        assert!(map.iter().any(|label| ids.contains(label)), "found on this side");
        assert_eq!(mean(&ids) > middle, is_left, "{ids:?}");
    }
}
