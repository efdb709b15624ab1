//! `import`, and what answers from its models: folders as TotalSegmentator releases them, seen through
//! the built program.

use crate::copy_folder;
use assert_cmd::Command;
use fastnnunet::registry::Registry;
use fastnnunet::{Options, Segmenter, Source};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;

fn totalseg(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/totalseg").join(name)
}

fn image() -> PathBuf {
    totalseg("images/las.nii.gz")
}

/// The data set of that number, as released.
fn dataset(id: u32) -> PathBuf {
    let list = fs::read_dir(totalseg("results")).expect("results");
    let mut paths = list.map(|entry| entry.expect("an entry").path());
    let start = format!("Dataset{id:03}_");
    paths
        .find(|path| path.file_name().expect("a name").to_string_lossy().starts_with(&start))
        .expect("the data set")
}

/// The one training of a data set.
fn training(dataset: &Path) -> PathBuf {
    fs::read_dir(dataset).expect("a data set").next().expect("a training").expect("entry").path()
}

pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::from(crate::program());
    command.args(args);
    command
}

/// The same for a user whose own folders are below `home`.
fn program_of(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::from(crate::program_of(home));
    command.args(args);
    command
}

/// Imports into a folder; what it prints as JSON.
fn import(to: &Path, sources: &[&Path], more: &[&str]) -> Value {
    let mut command = program(&["import", "--json", "-o"]);
    let run = command.arg(to).args(sources).args(more).assert().success();
    serde_json::from_slice(&run.get_output().stdout).expect("JSON")
}

/// What a failing command says, in one line.
fn refused(command: &mut Command, code: i32) -> String {
    let run = command.assert().code(code);
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    errors[0].to_owned()
}

/// Everything in a folder, at any depth.
fn contents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// The summary of a run, and the voxels it wrote.
fn segment(models: &[&str], mode: &[&str], to: &Path) -> (Value, Vec<u8>) {
    let output = to.join("labels.nii");
    let mut command = program(&["--overwrite", "--json", "--precision", "f32", "-i"]);
    command.arg(image()).arg("-o").arg(&output).args(models).args(mode);
    let run = command.assert().success();
    let summary = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    (summary, fs::read(output).expect("labels"))
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let text = |one: &Value| one[field].as_str().expect(field).to_owned();
    list.as_array().expect("a list").iter().map(text).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn an_import_answers_as_the_folders_do() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let sources = [dataset(291), dataset(293), dataset(297)];
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let all = import(&models, &sources, &[]);
    assert_eq!(names(&all["made"], "name"), ["total_organs", "total_cardiac", "total_low"]);
    for made in all["made"].as_array().expect("a list") {
        let own = &made["weights"][0];
        let path = models.join(made["name"].as_str().expect("a name"));
        let path = path.join(own["file"].as_str().expect("a file"));
        assert_eq!(fs::metadata(&path).expect("weights").len(), own["bytes"], "{path:?}");
    }

    // Chest runs the parts it needs: 291 and 293 label something of it, 297 is coarser.
    let named = ["--models-dir", text(&models)];
    let (summary, imported) = segment(&named, &["--mode", "chest", "--quality", "high"], &models);
    let ran = names(&summary["models"], "name");
    assert_eq!(ran, ["total_organs", "total_cardiac"]);
    assert_eq!(summary["grade"], "external");
    let missing = summary["not_labeled"].as_array().expect("a list");
    assert!(missing.contains(&"rib_left_1".into()), "{missing:?}");
    let first = &summary["models"][0];
    assert_eq!(first["license"], "Apache-2.0");
    assert_eq!(first["sha256"], all["made"][0]["weights"][0]["sha256"]);
    assert!(first["file"].as_str().expect("a file").starts_with(text(&models)));

    // The folders themselves answer the same.
    let results = totalseg("results");
    let direct = ["--models-dir", text(&results)];
    let (summary, whole) = segment(&direct, &["--mode", "total", "--quality", "low"], &models);
    assert_eq!(names(&summary["models"], "name"), ["total_low"]);
    let (_, same) = segment(&named, &["--mode", "total", "--quality", "low"], &models);
    assert_eq!(whole, same);
    let parts = ["--mode", "total", "--quality", "high", "--roi", "heart,spleen"];
    let (summary, whole) = segment(&direct, &parts, &models);
    let ran = names(&summary["models"], "name");
    assert_eq!(ran, ["total_lowest", "total_organs", "total_cardiac"], "the first crops");
    assert_ne!(whole, imported);
}

#[test]
fn every_mode_that_total_covers_answers_from_it() {
    let results = totalseg("results");
    let run = program(&["modes", "--json", "--models-dir", text(&results)]).assert().success();
    let modes: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    let taken = |mode: &str| {
        let modes = modes.as_array().expect("modes");
        let found = modes.iter().find(|entry| entry["mode"] == mode).expect(mode);
        let choices = found["choices"].as_array().expect("choices");
        let taken = choices.iter().find(|choice| choice["default"] == true).expect("a default");
        (taken["model"].as_str().expect("models").to_owned(), taken["grade"].clone())
    };
    for (mode, models) in [
        ("chest", "total_organs + total_cardiac + total_muscles + total_ribs"),
        ("abdomen", "total_organs + total_cardiac"),
        ("pelvic", "total_organs + total_vertebrae + total_cardiac + total_muscles"),
        ("spine", "total_vertebrae"),
        ("limb", "total_muscles + appendicular_bones"),
        ("total", "total_organs + total_vertebrae + total_cardiac + total_muscles + total_ribs"),
        ("body", "body"),
        ("lung_vessels", "lung_vessels"),
        // Structures of a table of its own, from the tasks that have them.
        (
            "headneck",
            "head_glands_cavities + craniofacial_structures + total_organs + total_muscles",
        ),
        ("headneck_muscles", "headneck_muscles_1 + headneck_muscles_2"),
    ] {
        assert_eq!(taken(mode), (models.to_owned(), "external".into()), "{mode}");
    }
    assert_eq!(taken("bone").0, "bone_medium", "keeps its own");
}

/// The five parts of `total`, from an import, beside what TotalSegmentator wrote with them.
#[test]
fn a_task_of_five_parts_is_imported_and_answers_as_there() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let parts: Vec<PathBuf> = (291..=295).map(dataset).collect();
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    let all = import(&models, &parts, &[]);
    let expected = ["organs", "vertebrae", "cardiac", "muscles", "ribs"];
    let expected: Vec<String> = expected.iter().map(|part| format!("total_{part}")).collect();
    assert_eq!(names(&all["made"], "name"), expected);
    let output = folder.path().join("labels.nii.gz");
    let mut run = program(&["--mode", "total", "--json", "--precision", "f32", "--models-dir"]);
    run.arg(&models).arg("-i").arg(totalseg("images/pir.nii.gz")).arg("-o").arg(&output);
    let run = run.assert().success();
    let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    assert_eq!(names(&summary["models"], "name"), expected);
    let share = crate::totalseg::agreement(&output, &totalseg("expected/total.nii.gz"));
    assert!(share >= 0.9999, "{share}");
}

#[test]
fn weights_that_are_not_those_of_the_import_are_not_run() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    import(&models, &[&dataset(298)], &[]);
    let network = models.join("total_lowest/total_lowest.onnx");
    let mut bytes = fs::read(&network).expect("the network");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&network, bytes).expect("changed");
    let mut run = program(&["--mode", "total", "--models-dir", text(&models), "-i"]);
    let said = refused(run.arg(image()).arg("-o").arg(folder.path().join("x.nii.gz")), 4);
    assert!(said.contains("changed since it was listed") && said.contains("SHA-256"), "{said}");
}

/// What people try first: the data set's folder, and the archive as it was released.
#[test]
fn a_data_sets_folder_stands_for_its_only_training_and_archives_are_for_import() {
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("labels.nii.gz");
    let run = |model: &Path| {
        let mut run = program(&["--overwrite", "--precision", "f32", "--model", text(model), "-i"]);
        run.arg(image()).arg("-o").arg(&output);
        run
    };
    let (one, two) = (dataset(298), dataset(836));
    let labels = [one.clone(), training(&one)].map(|model| {
        run(&model).assert().success();
        fs::read(&output).expect("labels")
    });
    assert_eq!(labels[0], labels[1]);
    let said = refused(&mut run(&two), 4);
    assert!(said.contains("2 trainings") && said.contains("nnUNetResEncUNetLPlans_8"), "{said}");
    program(&["convert", "-o", text(folder.path())]).arg(&one).assert().success();

    let archive = folder.path().join("Dataset298.zip");
    zipped(&one, "", &archive);
    for mut command in [run(&archive), program(&["convert", "-o", "x", text(&archive)])] {
        let said = refused(&mut command, 2);
        assert!(said.contains("fastnnunet import"), "{said}");
    }
}

#[test]
fn the_users_own_folder_is_looked_into_without_being_named() {
    let home = tempfile::tempdir().expect("home");
    let at = |args: &[&str]| program_of(home.path(), args);
    at(&["import"]).arg(dataset(298)).assert().success();
    let run = at(&["import", "--list", "--json"]).assert().success();
    let list: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    assert_eq!(names(&list, "name"), ["total_lowest"]);

    let output = home.path().join("labels.nii.gz");
    let mut asked = at(&["--mode", "chest", "-i"]);
    let run = asked.arg(image()).arg("-o").arg(&output).assert().success();
    let said = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    let weights = said.lines().find(|line| line.starts_with("weights")).expect("the weights");
    assert!(weights.contains(text(home.path())) && weights.contains("sha256"), "{said}");
    assert!(!said.contains("not for use"), "{said}");

    let mut without = at(&["--mode", "chest", "--no-user-models", "--json", "--overwrite", "-i"]);
    let run = without.arg(image()).arg("-o").arg(&output).assert().success();
    let summary: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    assert_eq!(names(&summary["models"], "name"), ["total"]);

    at(&["import", "--remove", "total_lowest"]).assert().success();
    let gone = refused(&mut at(&["import", "--remove", "total_lowest"]), 2);
    assert!(gone.contains("total_lowest"), "{gone}");
}

#[test]
fn a_list_says_what_each_source_is() {
    let folder = tempfile::tempdir().expect("folder");
    let nnunet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/models/Dataset001_Plain");
    // A training whose weights have not arrived.
    let bare = folder.path().join("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres");
    fs::create_dir_all(&bare).expect("folder");
    for name in ["plans.json", "dataset.json"] {
        fs::copy(training(&dataset(297)).join(name), bare.join(name)).expect("copied");
    }
    let mut command = program(&["import", "--list", "--json"]);
    let run = command.arg(dataset(803)).arg(&nnunet).arg(folder.path()).assert().success();
    let list: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    assert_eq!(list[0]["models"], serde_json::json!(["vertebrae_pp", "vertebrae_pp_refined"]));
    assert_eq!(list[0]["task"], "vertebrae_pp");
    assert_eq!(list[1]["task"], Value::Null);
    assert_eq!(list[1]["models"], serde_json::json!(["plain_3d_fullres"]));
    assert_eq!((&list[2]["task"], &list[2]["folds"]), (&"total".into(), &serde_json::json!([])));

    let models = folder.path().join("models");
    let mut command = program(&["import", "-o"]);
    let said = refused(command.arg(&models).arg(folder.path()), 4);
    assert!(said.contains("no weights"), "{said}");
    assert!(!models.exists());
    let said = refused(program(&["import", "--list"]).arg(totalseg("images")), 4);
    assert!(said.contains("a folder without a training"), "{said}");
}

#[test]
fn an_import_goes_on_where_it_stopped_and_replaces_nothing_unasked() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let (one, two) = (dataset(291), dataset(292));
    import(&models, &[&one], &[]);
    // What a killed run left behind.
    let left = models.join(".fastnnunet-import-left");
    fs::create_dir(&left).expect("folder");
    fs::write(left.join("lock"), "").expect("a lock that nobody holds");

    let all = import(&models, &[&one, &two], &[]);
    assert_eq!(names(&all["kept"], "name"), ["total_organs"]);
    assert_eq!(names(&all["made"], "name"), ["total_vertebrae"]);
    assert!(!left.exists());
    let own = ["import.json", "total_organs.json", "total_organs.onnx"];
    let files: Vec<PathBuf> =
        own.iter().map(|name| models.join("total_organs").join(name)).collect();
    assert_eq!(contents(&models.join("total_organs")), files);

    // Other weights of the same name.
    let other = folder.path().join("other").join(one.file_name().expect("a name"));
    copy_folder(&one, &other);
    let checkpoint = training(&other).join("fold_0/checkpoint_final.pth");
    let mut bytes = fs::read(&checkpoint).expect("checkpoint");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&checkpoint, bytes).expect("written");
    let before = contents(&models);
    let said = refused(program(&["import", "-o"]).arg(&models).arg(&other), 7);
    assert!(said.contains("total_organs") && said.contains("--overwrite"), "{said}");
    assert_eq!(contents(&models), before);
    let all = import(&models, &[&one], &["--overwrite"]);
    assert_eq!(names(&all["made"], "name"), ["total_organs"]);
    assert_eq!(contents(&models), before);

    let said = refused(program(&["import", "-o"]).arg(&models).arg(&other).arg(&one), 2);
    assert!(said.contains("total_organs"), "{said}");
}

/// The data set as an archive, with what comes before each name.
fn zipped(dataset: &Path, before: &str, to: &Path) {
    let mut archive = zip::ZipWriter::new(File::create(to).expect("archive"));
    for path in contents(dataset).into_iter().filter(|path| path.is_file()) {
        let name = path.strip_prefix(dataset.parent().expect("results")).expect("inside");
        let name = format!("{before}{}", name.display());
        archive.start_file(name, SimpleFileOptions::default()).expect("entry");
        archive.write_all(&fs::read(&path).expect("file")).expect("written");
    }
    archive.finish().expect("archive");
}

#[test]
fn a_released_archive_is_imported_and_never_unpacked_elsewhere() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let archive = folder.path().join("Dataset300_body_6mm_1559subj.zip");
    zipped(&dataset(300), "", &archive);
    let all = import(&models, &[folder.path()], &[]);
    assert_eq!(names(&all["made"], "name"), ["body_low"]);
    let direct = tempfile::tempdir().expect("folder");
    let same = import(direct.path(), &[&dataset(300)], &[]);
    for field in ["weights", "checkpoints"] {
        assert_eq!(all["made"][0][field], same["made"][0][field], "{field}");
    }
    assert_eq!(names(&import(&models, &[&archive], &[])["kept"], "name"), ["body_low"]);
    assert_eq!(contents(&models).len(), 4, "the model's folder and its three files");

    let said = refused(program(&["import", "--link", "-o"]).arg(&models).arg(&archive), 2);
    assert!(said.contains("packed"), "{said}");
    zipped(&dataset(300), "../../", &archive);
    import(&models, &[&archive], &["--overwrite"]);
    assert_eq!(contents(folder.path()).len(), 6, "{:?}", contents(folder.path()));
    let whole = fs::read(&archive).expect("archive");
    fs::write(&archive, &whole[..whole.len() / 2]).expect("written");
    let said = refused(program(&["import", "--list"]).arg(&archive), 4);
    assert!(said.contains(".zip"), "{said}");
}

#[test]
fn linked_weights_stay_where_they_are() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let away = folder.path().join("away").join(dataset(298).file_name().expect("a name"));
    copy_folder(&dataset(298), &away);
    let all = import(&models, &[&away], &["--link"]);
    assert_eq!(all["made"][0]["name"], "total_lowest");
    assert_eq!(contents(&models).len(), 2, "a folder with a manifest");
    let named = ["--models-dir", text(&models)];
    let (linked, labels) = segment(&named, &["--mode", "total", "--quality", "lowest"], &models);
    assert_eq!(linked["models"][0]["sha256"], all["made"][0]["checkpoints"][0]["sha256"]);
    let results = dataset(298);
    let direct = ["--models-dir", text(&results)];
    let (_, same) = segment(&direct, &["--mode", "total", "--quality", "lowest"], &models);
    assert_eq!(labels, same);

    // Weights that changed since are not run in silence.
    fs::remove_dir_all(&away).expect("removed");
    let mut gone = program(&["--mode", "total", "--models-dir", text(&models), "-i"]);
    let said = refused(gone.arg(image()).arg("-o").arg(folder.path().join("x.nii.gz")), 4);
    assert!(said.contains("away"), "{said}");
}

#[test]
fn a_manifest_that_names_files_elsewhere_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    import(&models, &[&dataset(298)], &[]);
    let path = models.join("total_lowest/import.json");
    let good = fs::read_to_string(&path).expect("manifest");
    for (claim, from, to) in [
        ("another folder's file", "total_lowest.onnx", "../total_lowest.onnx"),
        ("a name that is none", r#""name": "total_lowest""#, r#""name": "../../x""#),
        ("a later version", r#""version": 1"#, r#""version": 2"#),
        ("no digest", r#""sha256": ""#, r#""sha256": "xx"#),
    ] {
        fs::write(&path, good.replace(from, to)).expect("written");
        let said = refused(&mut program(&["modes", "--models-dir", text(&models)]), 4);
        assert!(said.contains("import.json"), "{claim}: {said}");
    }
}

#[test]
fn folders_that_cannot_answer_are_told_of() {
    let folder = tempfile::tempdir().expect("folder");
    let said = |models: &Path| {
        let run = program(&["modes", "--models-dir", text(models)]).assert().success();
        String::from_utf8_lossy(&run.get_output().stderr).into_owned()
    };
    assert!(said(folder.path()).contains("no model in"), "{}", said(folder.path()));
    let empty = folder.path().join("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres");
    copy_folder(&training(&dataset(297)), &empty);
    fs::remove_dir_all(empty.join("fold_0")).expect("removed");
    assert!(said(folder.path()).contains("no weights"), "{}", said(folder.path()));
}

#[test]
fn the_page_about_weights_has_every_data_set() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/weights.md");
    let page = fs::read_to_string(page).expect("docs/weights.md");
    for dataset in &fastnnunet::registry::Registry::embedded().tasks().datasets {
        let release = dataset.release.as_deref().unwrap_or("on request");
        let start = format!("| {} | `{}` |", dataset.id, dataset.folder);
        let row = page.lines().find(|line| line.starts_with(&start)).expect(&dataset.folder);
        assert!(row.contains(&format!("`{}`", dataset.model)) && row.contains(release), "{row}");
    }
}

/// A moved link and a manifest of a later version lie in the folder that nobody names: they end no run
/// that needs none of them, and can be removed.
#[test]
fn what_cannot_be_used_in_the_users_folder_ends_no_run_and_can_be_removed() {
    let home = tempfile::tempdir().expect("home");
    let at = |args: &[&str]| program_of(home.path(), args);
    let away = home.path().join("away").join(dataset(298).file_name().expect("a name"));
    copy_folder(&dataset(298), &away);
    at(&["import", "--link"]).arg(&away).assert().success();
    at(&["import"]).arg(dataset(300)).assert().success();
    fs::remove_dir_all(&away).expect("moved");
    let own = contents(home.path());
    let manifest = own.iter().find(|path| path.ends_with("body_low/import.json"));
    let manifest = manifest.expect("the manifest");
    let later = fs::read_to_string(manifest).expect("text");
    fs::write(manifest, later.replace(r#""version": 1"#, r#""version": 2"#)).expect("written");

    let mut run = at(&["--model", "selftest", "-i"]);
    run.arg(image()).arg("-o").arg(home.path().join("labels.nii.gz"));
    let said = String::from_utf8_lossy(&run.assert().success().get_output().stderr).into_owned();
    for what in ["away", "version 2"] {
        assert!(said.contains("note: left out") && said.contains(what), "{said}");
    }
    let run = at(&["import", "--list"]).assert().success();
    let (list, odd) = (&run.get_output().stdout, &run.get_output().stderr);
    assert!(String::from_utf8_lossy(list).contains("total_lowest"));
    assert!(String::from_utf8_lossy(odd).contains("body_low cannot be used"));
    let nothing = refused(&mut at(&["import", "--remove", "knee"]), 2);
    assert!(nothing.contains("body_low, total_lowest"), "{nothing}");
    for name in ["body_low", "total_lowest"] {
        at(&["import", "--remove", name]).assert().success();
    }
    let left = contents(home.path());
    assert!(!left.iter().any(|path| path.ends_with("import.json")), "{left:?}");
}

#[test]
fn one_training_given_several_times_is_one() {
    let folder = tempfile::tempdir().expect("folder");
    let (a, b) = (dataset(297), dataset(298));
    let all = import(&folder.path().join("models"), &[&a, &b, &a], &[]);
    assert_eq!(names(&all["made"], "name"), ["total_low", "total_lowest"]);
    let text = folder.path().join("readme.txt");
    fs::write(&text, "no archive").expect("written");
    let said = refused(program(&["import", "--list"]).arg(&text), 4);
    assert!(said.contains("a file that is no .zip"), "{said}");
    let said = refused(program(&["import", "--list"]).arg(folder.path().join("none")), 4);
    assert!(said.contains("no such folder"), "{said}");
}

/// Weights that stay where they are may be gigabytes: they are hashed where somebody asks for it.
#[test]
fn linked_weights_are_hashed_where_somebody_asks() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    import(&models, &[&dataset(298)], &["--link"]);
    let registry = std::sync::Arc::new(Registry::with_folder(&models).expect("models"));
    for digests in [false, true] {
        let source = Source::Model { name: "total_lowest".into(), config: None };
        let options = Options::default().models(std::sync::Arc::clone(&registry)).digests(digests);
        let opened = Segmenter::open_with(source, options).expect("it opens");
        assert_eq!(opened.about().networks[0].sha256.len(), usize::from(digests));
    }
}
