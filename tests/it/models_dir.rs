//! `--models-dir` in the lists of models and modes: models of one's own beside the program's.

use assert_cmd::Command;
use fastnnunet::registry;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder whose one model has the self-test's weights, which label three structures.
fn folder_with(name: &str, labels: [&str; 3]) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    add(folder.path(), name, labels);
    folder
}

fn add(folder: &Path, name: &str, labels: [&str; 3]) {
    let selftest = registry::find("selftest").expect("self-test model");
    fs::write(folder.join(format!("{name}.onnx")), selftest.onnx().expect("embedded"))
        .expect("writes");
    let mut config: Value = serde_json::from_str(selftest.config_json()).expect("JSON");
    let fields = config.as_object_mut().expect("an object");
    fields.remove("model_path");
    for (label, name) in fields["labels"].as_array_mut().expect("labels").iter_mut().zip(labels) {
        label["name"] = name.into();
    }
    fs::write(folder.join(format!("{name}.json")), config.to_string()).expect("writes");
}

fn list(args: &[&str], folder: Option<&Path>) -> Command {
    let mut command = Command::from(crate::program());
    command.args(args);
    if let Some(folder) = folder {
        command.arg("--models-dir").arg(folder);
    }
    command
}

fn text(args: &[&str], folder: Option<&Path>) -> String {
    let run = list(args, folder).assert().success();
    String::from_utf8(run.get_output().stdout.clone()).expect("UTF-8")
}

fn json(args: &[&str], folder: Option<&Path>) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    serde_json::from_str(&text(&args, folder)).expect("JSON")
}

/// The line of a table that begins with a word.
fn line<'a>(table: &'a str, start: &str) -> &'a str {
    table
        .lines()
        .find(|line| line.trim_start().starts_with(start))
        .unwrap_or_else(|| panic!("no {start} in\n{table}"))
}

#[test]
fn models_of_a_folder_are_listed_with_their_file() {
    let folder = folder_with("headneck_30", ["brainstem", "mandible", "lips"]);
    let file = folder.path().join("headneck_30.onnx").display().to_string();
    let table = text(&["models"], Some(folder.path()));
    assert!(line(&table, "headneck_30").ends_with(&file), "{table}");
    assert!(line(&table, "selftest ").ends_with("this program"), "{table}");
    let own = text(&["models", "headneck_30"], Some(folder.path()));
    assert!(line(&own, "from").contains(&file) && own.contains("lips"), "{own}");
    let list = json(&["models", "headneck_30"], Some(folder.path()));
    assert_eq!((&list[0]["embedded"], &list[0]["file"]), (&false.into(), &file.as_str().into()));
    let list = json(&["models", "selftest"], Some(folder.path()));
    assert_eq!((&list[0]["embedded"], &list[0]["file"]), (&true.into(), &Value::Null));

    assert!(!text(&["models"], None).contains("headneck_30"), "only when asked for");
    list_fails(&["models", "headneck_30"], None, 2, "one of");
    list_fails(&["models", "nothing"], Some(folder.path()), 2, "headneck_30");
}

/// Runs a list that is refused with one sentence.
fn list_fails(args: &[&str], folder: Option<&Path>, code: i32, part: &str) {
    let run = list(args, folder).assert().code(code);
    let message = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(message.starts_with("error: ") && message.contains(part), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_mode_whose_weights_are_in_the_folder_is_installed() {
    let folder = folder_with("headneck_30", ["brainstem", "mandible", "lips"]);
    let file = folder.path().join("headneck_30.onnx").display().to_string();
    let without = text(&["modes", "headneck"], None);
    assert!(line(&without, "--variant 30").contains("not installed"), "{without}");
    let with = text(&["modes", "headneck"], Some(folder.path()));
    let row = line(&with, "--variant 30");
    for word in ["3 of 30", "headneck_30", "test", &file] {
        assert!(row.contains(word), "{word} is missing in\n{with}");
    }
    assert!(!with.contains("installed  no"), "{with}");
    let all = text(&["modes"], Some(folder.path()));
    assert!(line(&all, "--variant 30").contains(&file), "{all}");

    let before = json(&["modes", "headneck"], None)[0]["choices"][1].clone();
    assert_eq!((&before["installed"], &before["from"]), (&false.into(), &Value::Null));
    let after = json(&["modes", "headneck"], Some(folder.path()))[0]["choices"][1].clone();
    assert_eq!((&after["installed"], &after["model"]), (&true.into(), &"headneck_30".into()));
    assert_eq!(after["from"], file);
    assert_eq!(after["missing"].as_array().expect("names").len(), 27);
}

#[test]
fn a_model_of_the_folder_replaces_the_programs() {
    let folder = folder_with("bone_low", ["bone", "x", "y"]);
    let choices = json(&["modes", "bone"], Some(folder.path()))[0]["choices"].clone();
    let file = folder.path().join("bone_low.onnx").display().to_string();
    assert_eq!((&choices[0]["model"], &choices[0]["from"]), (&"bone_low".into(), &file.into()));
    assert_eq!(json(&["models", "bone_low"], Some(folder.path()))[0]["classes"], 4);
}

#[test]
fn modes_of_the_folder_are_listed() {
    let folder = folder_with("knee", ["femur_left", "tibia_left", "patella_left"]);
    fs::write(
        folder.path().join("modes.json"),
        r#"{"modes": [{"name": "knee", "summary": "Knees",
            "choices": [{"labels": "limb", "models": ["knee"]}]}]}"#,
    )
    .expect("writes");
    let table = text(&["modes"], Some(folder.path()));
    let row = line(&table, "knee");
    assert!(row.contains("3 of 32") && row.ends_with("Knees"), "{table}");
    list_fails(&["modes", "knee"], None, 2, "bone");
}

/// Runs mode abdomen of a folder on a small scan; returns its voxels by label.
fn counts(folder: &Path, args: &[&str]) -> Vec<usize> {
    let scan = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/case/input_plain.nii.gz");
    let output = folder.join("labels.nii.gz");
    let mut command = list(&["--quiet", "--overwrite", "--mode", "abdomen"], Some(folder));
    command.arg("-i").arg(scan).arg("-o").arg(&output).args(args).assert().success();
    let result = fastnnunet::Scan::open(&output).expect("loads");
    let mut counts = vec![0; 8];
    result.voxels().to_f32().iter().for_each(|&label| counts[label as usize] += 1);
    counts
}

#[test]
fn recipes_see_what_the_mode_does_not_show() {
    let folder = folder_with("total", ["kidney_left", "vertebrae_L1", "liver"]);
    let recipe = folder.path().join("recipe.txt");
    fs::write(
        &recipe,
        r#"{"steps": [{"step": "clip_to_neighbor", "labels": ["kidney_left"],
            "neighbor": ["vertebrae_L1"], "distance_mm": 4}]}"#,
    )
    .expect("writes");
    let recipe = recipe.to_str().expect("UTF-8");
    let raw = counts(folder.path(), &["--postprocess", "none"]);
    let clipped = counts(folder.path(), &["--postprocess", recipe]);
    // Ids 3 and 5 are the left kidney and the liver; nothing else comes out.
    assert!(raw[3] > 0 && raw[5] > 0, "{raw:?}");
    assert_eq!(raw.iter().sum::<usize>(), raw[0] + raw[3] + raw[5], "{raw:?}");
    assert!(clipped[3] > 0 && clipped[3] < raw[3], "{clipped:?} of {raw:?}");
    assert_eq!(clipped[5], raw[5]);
    assert_eq!(clipped[0], raw[0] + raw[3] - clipped[3]);
    // A structure is the same whether it is shown alone or among others.
    let alone = counts(folder.path(), &["--postprocess", recipe, "--roi", "kidney_left"]);
    assert_eq!((alone[3], alone[5]), (clipped[3], 0));
}

#[test]
fn weights_that_cannot_answer_are_not_installed_and_say_why() {
    let folder = folder_with("headneck_30", ["left", "right", "middle"]);
    let check = |claim: &str, part: &str| {
        let table = text(&["modes", "headneck"], Some(folder.path()));
        assert!(line(&table, "--variant 30").contains("unusable model"), "{claim}: {table}");
        assert!(table.contains(part), "{claim}: {table}");
        let choice = json(&["modes", "headneck"], Some(folder.path()))[0]["choices"][1].clone();
        assert_eq!(choice["installed"], false, "{claim}");
        assert!(choice["unusable"].as_str().expect("a reason").contains(part), "{claim}");
    };
    check("names of another table", "names of label table headneck_30");
    add(folder.path(), "headneck_30", ["brainstem", "mandible", "lips"]);
    fs::write(folder.path().join("headneck_30.onnx"), "no network").expect("writes");
    check("a damaged file", "headneck_30.onnx");
    list_fails(&["models"], Some(folder.path()), 4, "headneck_30.onnx");
    list_fails(&["modes"], Some(&folder.path().join("nowhere")), 4, "nowhere");
}

#[test]
fn ids_of_a_mode_must_be_those_of_the_names() {
    let folder = folder_with("knee", ["femur_left", "tibia_left", "own name"]);
    let path = folder.path().display().to_string();
    let run = |ids: &str| {
        let modes = format!(
            r#"{{"modes": [{{"name": "knee", "summary": "Knees", "choices":
                [{{"labels": "limb", "models": [{{"model": "knee", "ids": {ids}}}]}}]}}]}}"#
        );
        fs::write(folder.path().join("modes.json"), modes).expect("writes");
        text(&["modes", "knee"], Some(folder.path()))
    };
    let table: Value = json(&["modes", "limb"], None)[0]["choices"][0].clone();
    let id = |name: &str| {
        let labels = table["labels"].as_array().expect("labels");
        labels.iter().find(|label| label["name"] == name).expect(name)["id"].clone()
    };
    let (femur, tibia, patella) = (id("femur_left"), id("tibia_left"), id("patella_left"));
    // (claim, ids, part of the message)
    let refused = [
        ("another structure's id", format!("[{tibia}, {femur}, {patella}]"), "called femur_left"),
        ("too many", format!("[{femur}, {tibia}, {patella}, {patella}]"), "3 labels"),
        ("too few", format!("[{femur}, {tibia}]"), "3 labels"),
    ];
    for (claim, ids, part) in refused {
        let told = run(&ids);
        assert!(told.contains("unusable model") && told.contains(part), "{claim}: {told}");
    }
    for ids in [format!("[{femur}, {tibia}, {patella}]"), format!("[0, {tibia}, 0]")] {
        let told = run(&ids);
        assert!(line(&told, "knee").contains(&path) || told.contains(&path), "{ids}: {told}");
        assert!(!told.contains("unusable"), "{ids}: {told}");
    }
}

#[test]
fn halves_of_models_and_unknown_recipes_are_refused() {
    let folder = folder_with("knee", ["femur_left", "tibia_left", "patella_left"]);
    let at = |file: &str| folder.path().join(file);
    fs::write(at("notes.json"), "{}").expect("writes");
    text(&["models"], Some(folder.path()));
    fs::create_dir(at("3d_fullres")).expect("folder");
    fs::copy(at("knee.json"), at("3d_fullres/hip.json")).expect("copies");
    list_fails(&["models"], Some(folder.path()), 4, "hip.onnx");
    fs::rename(at("3d_fullres/hip.json"), at("hip.json")).expect("moves");
    list_fails(&["models"], Some(folder.path()), 4, "hip.onnx");
    fs::remove_file(at("hip.json")).expect("removes");
    fs::copy(at("knee.onnx"), at("3d_fullres/knee.onnx")).expect("copies");
    list_fails(&["models"], Some(folder.path()), 4, "3d_fullres");
    fs::remove_file(at("3d_fullres/knee.onnx")).expect("removes");
    let modes = r#"{"modes": [{"name": "knee", "summary": "Knees",
        "choices": [{"labels": "limb", "models": ["knee"], "recipe": "knee"}]}]}"#;
    fs::write(at("modes.json"), modes).expect("writes");
    list_fails(&["modes"], Some(folder.path()), 4, "no recipe \"knee\"");
}

#[test]
fn a_configuration_beside_its_weights_may_say_which_it_is() {
    let folder = folder_with("first", ["a", "b", "c"]);
    let path = folder.path().join("first.json");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("reads")).expect("JSON");
    config["configuration"] = "3d_lowres".into();
    fs::write(&path, config.to_string()).expect("writes");
    let listed = json(&["models", "first"], Some(folder.path()));
    assert_eq!(listed[0]["configuration"], "3d_lowres", "{listed}");
}
