//! Commands of README.md and docs/models.md, run as they stand there in a folder that has the files they name.

use fastnnunet::registry::{self, Registry};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The command lines of a section, in order.
fn commands(section: &str) -> Vec<String> {
    let heading = format!("## {section}");
    let mut found = Vec::new();
    for page in ["README.md", "docs/models.md"] {
        let page = fs::read_to_string(repository(page)).expect(page);
        let mut inside = false;
        for line in page.lines().skip_while(|line| *line != heading).skip(1) {
            match line {
                next if next.starts_with("## ") => break,
                "```sh" => inside = true,
                "```" => inside = false,
                command if inside => found.push(command.to_owned()),
                _ => {}
            }
        }
    }
    assert!(!found.is_empty(), "no page has commands in {heading}");
    found
}

/// A folder to type commands in.
struct Desk(TempDir);

impl Desk {
    /// With what the pages' names stand for: a scan `CT.nii.gz`, a folder of scans
    /// `imagesTs`, a trained folder `FOLDER`, and the same in nnU-Net's place for results.
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("folder"));
        let scan = repository("tests/nnunet/images/small.nii.gz");
        fs::copy(&scan, desk.path("CT.nii.gz")).expect("copies");
        fs::create_dir(desk.path("imagesTs")).expect("creates");
        for case in ["case_1", "case_2"] {
            let image = desk.path("imagesTs").join(format!("{case}_0000.nii.gz"));
            fs::copy(&scan, image).expect("copies");
        }
        desk.trained("FOLDER");
        desk.trained("nnUNet_results/Dataset001/nnUNetTrainer__nnUNetPlans__3d_fullres");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A trained folder with folds 0, 1 and 2 that labels bones of the limbs.
    fn trained(&self, name: &str) {
        let source = repository("tests/nnunet/models/Dataset009_Folds")
            .join("nnUNetTrainer__nnUNetPlans__3d_fullres");
        let target = self.path(name);
        for (from, to) in [("fold_0", "fold_0"), ("fold_1", "fold_1"), ("fold_3", "fold_2")] {
            fs::create_dir_all(target.join(to)).expect("creates");
            let file = |fold: &str| format!("{fold}/checkpoint_final.pth");
            fs::copy(source.join(file(from)), target.join(file(to))).expect("copies");
        }
        fs::copy(source.join("plans.json"), target.join("plans.json")).expect("copies");
        let text = fs::read_to_string(source.join("dataset.json")).expect("reads");
        let mut dataset: Value = serde_json::from_str(&text).expect("JSON");
        dataset["labels"] =
            serde_json::json!({"background": 0, "femur_left": 1, "hip_left": 2, "hip_right": 3});
        fs::write(target.join("dataset.json"), dataset.to_string()).expect("writes");
    }

    /// Types a command; it must succeed.
    fn run(&self, command: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_fastnnunet"));
        let mut search = vec![program.parent().expect("a folder").to_path_buf()];
        search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let Output { status, stdout, stderr } = Command::new("sh")
            .args(["-c", command])
            .current_dir(self.0.path())
            .env("PATH", std::env::join_paths(search).expect("a search path"))
            // Its user has no models but those imported here.
            .env("HOME", self.0.path())
            .env_remove("XDG_DATA_HOME")
            .output()
            .expect("a shell");
        let message = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{command}\n{message}");
        String::from_utf8(stdout).expect("UTF-8")
    }

    /// Runs a section's commands; returns each with what it printed.
    fn run_section(&self, section: &str) -> Vec<(String, String)> {
        let run = |command: String| {
            let printed = self.run(&command);
            (command, printed)
        };
        commands(section).into_iter().map(run).collect()
    }

    /// The labels of a result, which lies on the scan's grid.
    fn labels(&self, name: &str) -> BTreeSet<u16> {
        let load = |name: &str| fastnnunet::Scan::open(self.path(name)).expect(name);
        let result = load(name);
        assert_eq!(result.grid(), load("CT.nii.gz").grid(), "{name}");
        result.voxels().to_f32().iter().map(|&label| label as u16).collect()
    }
}

/// What a command printed, found by a part of it.
fn printed<'a>(runs: &'a [(String, String)], part: &str) -> &'a str {
    let found: Vec<&(String, String)> =
        runs.iter().filter(|(command, _)| command.contains(part)).collect();
    assert_eq!(found.len(), 1, "commands with {part:?}");
    &found[0].1
}

#[test]
fn use_your_own_nnunet_works_as_typed() {
    let desk = Desk::new();
    let runs = desk.run_section("Use your own nnU-Net");
    assert_eq!(runs.len(), 4, "{runs:?}");
    assert!(printed(&runs, "-i imagesTs").contains("2 done, 0 failed"), "{runs:?}");
    let all = BTreeSet::from([0, 1, 2, 3]);
    for result in ["labels/case_1.nii.gz", "labels/case_2.nii.gz", "seg.nii.gz"] {
        assert_eq!(desk.labels(result), all, "{result}");
    }
    let probabilities = fs::File::open(desk.path("seg.npz")).expect("probabilities");
    assert!(zip::ZipArchive::new(probabilities).is_ok_and(|archive| !archive.is_empty()));
    assert!(printed(&runs, "convert").contains("same label in 100.0000 %"), "{runs:?}");
    let registry = Registry::with_folder(&desk.path("my_models")).expect("a folder of models");
    let own = registry.models().iter().filter(|model| !model.is_embedded());
    assert_eq!(own.count(), 1);
    assert!(printed(&runs, "import").starts_with("imported 1 model "), "{runs:?}");
}

#[test]
fn totalsegmentators_weights_work_as_typed() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path(".totalsegmentator/nnunet")).expect("creates");
    let results = desk.path(".totalsegmentator/nnunet/results");
    std::os::unix::fs::symlink(repository("tests/totalseg/results"), results).expect("links");
    let runs = desk.run_section("TotalSegmentator's weights");
    assert_eq!(runs.len(), 4, "{runs:?}");
    for (part, models) in [
        ("--mode total", &["total_organs", "total_vertebrae", "total_cardiac"][..]),
        ("--mode chest", &["total_organs", "total_cardiac", "total_muscles", "total_ribs"]),
        ("--mode lung_vessels", &["total_low", "lung_vessels"]),
    ] {
        let ran = printed(&runs, part);
        for model in models {
            let line = format!("{model} (3d_fullres, grade external)");
            assert!(ran.contains(&line), "{part}: no {line} in\n{ran}");
        }
        let home = desk.path(".local/share/fastnnunet/models").display().to_string();
        assert!(ran.contains(&home), "{part}: no {home} in\n{ran}");
    }
}

#[test]
fn models_without_a_rebuild_work_as_typed() {
    let desk = Desk::new();
    // What others exported: a network and the configuration that belongs to it.
    let selftest = registry::find("selftest").expect("self-test model");
    fs::write(desk.path("net.onnx"), selftest.onnx().expect("embedded")).expect("writes");
    let mut config: Value = serde_json::from_str(selftest.config_json()).expect("JSON");
    config.as_object_mut().expect("an object").remove("model_path");
    for (label, name) in config["labels"].as_array_mut().expect("labels").iter_mut().zip([
        "vertebrae_L4",
        "vertebrae_L5",
        "sacrum",
    ]) {
        label["name"] = name.into();
    }
    fs::write(desk.path("net.json"), config.to_string()).expect("writes");

    let runs = desk.run_section("Without a rebuild");
    assert!(runs.len() >= 9, "{runs:?}");
    let limb = printed(&runs, "modes limb");
    assert!(limb.contains("my_models/limb.onnx") && limb.contains("3 of 32"), "{limb}");
    assert!(printed(&runs, "models --models-dir").contains("my_models/limb.onnx"), "{runs:?}");
    let all = printed(&runs, "modes --models-dir");
    assert!(all.contains("my_models/spine.onnx"), "{all}");

    // The modes ran the models of the folder and gave their labels the modes' ids.
    for (mode, file, names) in [
        ("limb", "limb.nii.gz", ["femur_left", "hip_left", "hip_right"].as_slice()),
        ("spine", "spine.nii.gz", &["vertebrae_L4", "vertebrae_L5", "sacrum"]),
    ] {
        let ran = printed(&runs, &format!("--mode {mode}"));
        let model = ran.lines().find(|line| line.starts_with("model")).expect("a model");
        assert!(model.contains(&format!(" {mode} (3d_fullres")), "{ran}");
        let table = Registry::embedded().table(mode).expect("the table");
        let ids = names.iter().map(|name| table.find(name).expect(name).id);
        let possible: BTreeSet<u16> = ids.chain([0]).collect();
        let found = desk.labels(file);
        assert!(found.len() > 1 && found.is_subset(&possible), "{mode}: {found:?}");
    }
    assert!(desk.labels("any.nii.gz").len() > 1);
}
