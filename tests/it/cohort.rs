//! Lists of cases through the built program: shares of them, kills between, and what is done again.

use crate::nifti_files::{Nifti, ct};
use crate::program;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A cohort of twelve images of several sizes, for two models.
struct Cohort {
    folder: tempfile::TempDir,
}

impl Cohort {
    fn new() -> Self {
        let cohort = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(cohort.at("images")).expect("a folder");
        for case in 0..12 {
            fs::write(cohort.at(&image(case)), noise(case, 0)).expect("written");
        }
        let lines: Vec<String> = (0..12).map(|case| cohort.line(case).to_string()).collect();
        fs::write(cohort.at("cases.jsonl"), lines.join("\n")).expect("written");
        // The same network by another name.
        fs::create_dir(cohort.at("models")).expect("a folder");
        let product = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (from, to) in [
            ("models/selftest.onnx", "models/other.onnx"),
            ("config/3d_fullres/selftest.json", "models/other.json"),
        ] {
            fs::copy(product.join(from), cohort.at(to)).expect("copied");
        }
        cohort
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The case as a line has it: every fourth is for another model.
    fn line(&self, case: usize) -> Value {
        let mut line = json!({"id": format!("case {case}"), "inputs": self.at(&image(case))});
        if case % 4 == 3 {
            line["model"] = "selftest_2d".into();
            line["inputs"] = json!([self.at(&image(case)), self.at(&image(case))]);
        }
        line
    }

    /// The program ready to run the list into a folder.
    fn run(&self, output: &str, more: &[&str]) -> Command {
        self.run_list("cases.jsonl", output, more)
    }

    fn run_list(&self, list: &str, output: &str, more: &[&str]) -> Command {
        let mut command = program();
        command
            .current_dir(self.folder.path())
            .arg("--cases")
            .arg(self.at(list))
            .arg("-o")
            .arg(self.at(output).join(""));
        command.args(["--precision", "f32", "--threads", "1"]).args(more);
        if !more.contains(&"--model") && !more.contains(&"--mode") {
            command.args(["--model", "selftest"]);
        }
        command
    }

    /// All files below a folder; of status files without what is another number in every run.
    fn tree(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        let mut tree = BTreeMap::new();
        for entry in fs::read_dir(self.at(output)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut bytes = fs::read(entry.path()).expect("read");
            if name.ends_with(".status.json") {
                let mut status: Value = serde_json::from_slice(&bytes).expect("JSON");
                for varies in ["seconds", "peak_bytes"] {
                    assert!(status[varies].as_f64().expect("a number") > 0.0, "{name}: {varies}");
                    status[varies] = Value::Null;
                }
                bytes = status.to_string().into_bytes();
            }
            tree.insert(name, bytes);
        }
        tree
    }

    fn status(&self, output: &str, case: usize) -> Value {
        let path = self.at(output).join(format!("case {case}.status.json"));
        serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
    }
}

fn image(case: usize) -> String {
    format!("images/{case}.nii")
}

/// An image of noise; larger for later cases.
fn noise(case: usize, seed: u32) -> Vec<u8> {
    let shape = [20 + 2 * case, 18, 12 + case % 5];
    let mut state = 1 + seed * 977 + case as u32;
    let mut voxel = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 20) as i16 - 1000).to_le_bytes()
    };
    let voxels = (0..shape.iter().product::<usize>()).flat_map(|_| voxel()).collect();
    let dim = [3].into_iter().chain(shape.map(|n| n as i64)).collect();
    Nifti { dim, voxels, ..ct() }.bytes()
}

fn ended(command: &mut Command, code: i32) -> Output {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    output
}

/// What a run says in JSON: cases done, those that failed, those left out.
fn told(command: &mut Command) -> (usize, usize, usize) {
    let output = command.arg("--json").output().expect("it runs");
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let count = |what: &str| told[what].as_array().expect("a list").len();
    (count("cases"), count("failed"), count("skipped"))
}

#[test]
fn shares_make_the_tree_that_one_process_makes() {
    let cohort = Cohort::new();
    ended(&mut cohort.run("whole", &[]), 0);
    let whole = cohort.tree("whole");
    assert_eq!(whole.len(), 24, "a label map and a status each: {:?}", whole.keys());
    let labels: Vec<_> = whole.keys().filter(|name| name.ends_with(".nii.gz")).collect();
    assert_eq!(labels.len(), 12);

    // Each case in exactly one share, whatever the order of the list.
    let mut lines: Vec<String> = (0..12).map(|case| cohort.line(case).to_string()).collect();
    lines.reverse();
    fs::write(cohort.at("turned.jsonl"), lines.join("\r\n")).expect("written");
    let mut shares = Vec::new();
    for share in ["2/3", "1/3", "3/3"] {
        let alone = format!("alone {}", &share[..1]);
        let (done, failed, skipped) =
            told(&mut cohort.run_list("turned.jsonl", &alone, &["--shard", share]));
        assert_eq!((failed, skipped), (0, 0), "{share}");
        ended(&mut cohort.run("shared", &["--shard", share, "-q"]), 0);
        let tree = cohort.tree(&alone);
        assert_eq!(tree.len(), 2 * done);
        assert!((1..=10).contains(&done), "{share} has {done} cases");
        shares.push(tree.into_keys().collect::<Vec<_>>());
    }
    let mut names = shares.concat();
    names.sort();
    assert!(names.iter().eq(whole.keys()), "each in one share");
    assert!(cohort.tree("shared") == whole);

    // A share that there is nothing for does nothing.
    let more = told(&mut cohort.run("whole", &["--skip-existing", "--shard", "40/40"]));
    assert_eq!(more, (0, 0, 0));
    assert_eq!(told(&mut cohort.run("whole", &["--skip-existing"])), (0, 0, 12));
}

#[test]
fn costs_of_a_list_say_who_gets_what() {
    let cohort = Cohort::new();
    let rows = (0..4).map(|case| {
        let cost = if case == 2 { "30" } else { "9.5" };
        format!("{case}\t{}\t{cost}\tselftest", cohort.at(&image(case)).display())
    });
    let table = format!("id\tinputs\tcost\tmodel\n{}\n", rows.collect::<Vec<_>>().join("\n"));
    fs::write(cohort.at("cases.tsv"), table).expect("written");
    // No header is needed: what is not there fails when its turn comes.
    fs::remove_file(cohort.at(&image(0))).expect("removed");
    let run = |share: &str| {
        let mut command = program();
        command.arg("--cases").arg(cohort.at("cases.tsv")).args(["--shard", share, "-q"]);
        command.arg("-o").arg(cohort.at("out/"));
        command
    };
    ended(&mut run("1/2"), 0);
    let names: Vec<_> = cohort.tree("out").into_keys().collect();
    assert_eq!(names, ["2.nii.gz", "2.status.json"]);
    let said = ended(&mut run("2/2"), 3).stderr;
    let said = String::from_utf8(said).expect("UTF-8");
    assert!(said.contains("1 of 3 cases failed: 0"), "{said}");
    let status = fs::read(cohort.at("out/0.status.json")).expect("there");
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!((&status["exit_code"], &status["retry"]), (&json!(3), &json!(false)));
    assert!(status["error"].as_str().expect("a sentence").contains("cannot read"), "{status}");
    assert_eq!(status["outputs"], json!([]));
}

/// Waits until there is a status in a folder; whether the run was still going then.
fn after_the_first(child: &mut std::process::Child, folder: &Path) -> bool {
    let begun = std::time::Instant::now();
    let is_status = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".status.json"))
    };
    loop {
        let ended = child.try_wait().expect("a child").is_some();
        let any = fs::read_dir(folder).is_ok_and(|list| list.into_iter().any(is_status));
        if ended || any {
            return !ended;
        }
        assert!(begun.elapsed().as_secs() < 300, "no result in five minutes");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_share_that_is_killed_goes_on_to_the_same_tree() {
    let cohort = Cohort::new();
    ended(&mut cohort.run("whole", &["-q"]), 0);
    let whole = cohort.tree("whole");
    ended(&mut cohort.run("shared", &["-q", "--shard", "1/2"]), 0);
    let before = cohort.tree("shared").len();
    let quiet = &["-q", "--shard", "2/2"];
    let mut child = cohort.run("shared 2", quiet).spawn().expect("it starts");
    let was_killed = after_the_first(&mut child, &cohort.at("shared 2"));
    let _ = child.kill();
    child.wait().expect("it ends");
    assert!(was_killed, "it was over too soon to show anything");
    let done = |folder: &str| {
        let names = fs::read_dir(cohort.at(folder)).expect("a folder").flatten();
        names.filter(|name| name.file_name().to_string_lossy().ends_with(".status.json")).count()
    };
    let left = done("shared 2");
    let again = told(&mut cohort.run("shared 2", &["--skip-existing", "--shard", "2/2"]));
    assert_eq!(again, (12 - before / 2 - left, 0, left), "what has a status is left as it is");
    let mut joined = cohort.tree("shared");
    joined.extend(cohort.tree("shared 2"));
    assert!(joined == whole);
}

/// As a scheduler ends a run whose time is up.
#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_goes_on_to_the_same_tree() {
    let cohort = Cohort::new();
    ended(&mut cohort.run("whole", &["-q"]), 0);
    let mut child = cohort.run("ended", &["-q"]).spawn().expect("it starts");
    let was_going = after_the_first(&mut child, &cohort.at("ended"));
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
    let code = child.wait().expect("it ends").code();
    assert!(was_going && sent.success(), "it was over too soon to show anything");
    assert_eq!(code, Some(143));
    ended(&mut cohort.run("ended", &["-q", "--skip-existing"]), 0);
    assert!(cohort.tree("ended") == cohort.tree("whole"));
}

/// Changes one thing after a run.
type Change = fn(&Cohort);

// (what, the change, options besides, how many are computed again, why)
const CHANGES: [(&str, Change, &[&str], usize, &str); 9] = [
    (
        "no status",
        |c| fs::remove_file(c.at("out/case 5.status.json")).expect("removed"),
        &[],
        1,
        "its result has no status file",
    ),
    (
        "half a status",
        |c| {
            let path = c.at("out/case 5.status.json");
            let text = fs::read(&path).expect("there");
            fs::write(path, &text[..text.len() / 2]).expect("written");
        },
        &[],
        1,
        "its status file is not whole",
    ),
    (
        "another result",
        |c| {
            let path = c.at("out/case 5.nii.gz");
            let mut bytes = fs::read(&path).expect("there");
            *bytes.last_mut().expect("a byte") ^= 1;
            fs::write(path, bytes).expect("written");
        },
        &[],
        1,
        "its result is not as it was written",
    ),
    (
        "no result",
        |c| fs::remove_file(c.at("out/case 5.nii.gz")).expect("removed"),
        &[],
        1,
        "its result is not as it was written",
    ),
    (
        "another input",
        |c| fs::write(c.at(&image(5)), noise(5, 1)).expect("written"),
        &[],
        1,
        "it was done on other inputs",
    ),
    (
        "the first input again",
        |c| fs::write(c.at(&image(5)), noise(5, 0)).expect("written"),
        &[],
        1,
        "it was done on other inputs",
    ),
    ("another option", |_| (), &["--step-size", "0.9"], 12, "it was done with other options"),
    (
        "another model",
        |_| (),
        &["--model", "other", "--models-dir", "models"],
        9,
        "it was done by other models",
    ),
    ("another output", |_| (), &["--output-type", "nrrd"], 12, "it has other outputs"),
];

#[test]
fn what_has_changed_is_computed_again() {
    let cohort = Cohort::new();
    ended(&mut cohort.run("out", &["-q"]), 0);
    let first = cohort.tree("out");
    let skip = &["--skip-existing"][..];
    assert_eq!(told(&mut cohort.run("out", skip)), (0, 0, 12));
    for (what, change, options, count, why) in CHANGES {
        change(&cohort);
        let more = [skip, options].concat();
        let output = ended(&mut cohort.run("out", &more), 0);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        let notes = said.lines().filter(|line| line.contains("so it is computed again"));
        let notes: Vec<_> = notes.collect();
        assert_eq!(notes.len(), count, "{what}: {said}");
        assert!(notes.iter().all(|note| note.contains(why)), "{what}: {notes:?}");
        assert_eq!(told(&mut cohort.run("out", &more)), (0, 0, 12), "{what}, once more");
        if !options.is_empty() {
            // Back to how it was.
            ended(&mut cohort.run("out", &[skip, &["-q"]].concat()), 0);
        }
    }
    let last = cohort.tree("out");
    for (name, bytes) in &first {
        assert!(last.get(name) == Some(bytes), "{name} is as it was at first");
    }
}

#[test]
fn another_configuration_is_another_model() {
    let cohort = Cohort::new();
    let other = &["--model", "other", "--models-dir", "models", "--skip-existing"];
    assert_eq!(told(&mut cohort.run("out", other)), (12, 0, 0));
    let path = cohort.at("models/other.json");
    let text = fs::read_to_string(&path).expect("there");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["step_size"] = json!(0.75);
    fs::write(path, config.to_string()).expect("written");
    assert_eq!(told(&mut cohort.run("out", other)), (9, 0, 3));
    assert_eq!(told(&mut cohort.run("out", other)), (0, 0, 12));
}

#[test]
fn a_status_says_what_was_read_and_who_answered() {
    let cohort = Cohort::new();
    let pictures = format!("--preview={}", cohort.at("pictures").display());
    ended(&mut cohort.run("out", &["-q", &pictures]), 0);
    let status = cohort.status("out", 3);
    assert_eq!(status["id"], "case 3");
    assert_eq!((&status["exit_code"], &status["retry"]), (&json!(0), &json!(false)));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["models"][0]["name"], "selftest_2d");
    assert_eq!(status["answered_by"], status["models"]);
    assert_eq!(status["inputs"][0]["path"], json!(cohort.at(&image(3))));
    let outputs = status["outputs"].as_array().expect("a list");
    assert_eq!(outputs[0]["path"], "case 3.nii.gz", "wherever the tree is moved to");
    assert_eq!((outputs.len(), &outputs[1]["type"]), (2, &json!("preview")));
    let digests = [&status["inputs"][0]["sha256"], &outputs[0]["sha256"], &status["terms_sha256"]];
    for digest in digests {
        assert_eq!(digest.as_str().expect("a digest").len(), 64);
    }
    let text = status.to_string();
    assert!(!text.contains("DOE"), "nothing of the file's free text: {text}");
}

/// What is wrong with a list: its name and text, the line, what was found, what was expected.
type Wrong = (&'static str, String, usize, &'static str, &'static str);

// The list is long.
#[allow(clippy::too_many_lines)]
fn wrong_lists() -> [Wrong; 30] {
    let ok = r#"{"id": "a", "inputs": "a.nii", "output": "a.nii.gz", "model": "selftest"}"#;
    // (name of the list, its text, line, what was found, what was expected)
    [
        ("c.jsonl", String::new(), 1, "no case", "at least one"),
        ("c.tsv", "\n\n".into(), 1, "no case", "at least one"),
        ("c.tsv", "id\tinputs\n".into(), 1, "no case", "at least one"),
        ("c.jsonl", format!("{ok}\n{{\"id\": \"b\""), 2, "at column 10", "a JSON object"),
        ("c.jsonl", format!("{ok}\n\n[1]"), 3, "column", "a JSON object"),
        ("c.jsonl", r#"{"id": "a", "id": "b"}"#.into(), 1, "the field id twice", "each once"),
        ("c.jsonl", r#"{"name": "a"}"#.into(), 1, "the field \"name\"", "id, inputs, output"),
        ("c.jsonl", r#"{"inputs": "a.nii"}"#.into(), 1, "no id", "by which the case is known"),
        ("c.jsonl", r#"{"id": 7, "inputs": "a"}"#.into(), 1, "7 as id", "a text"),
        ("c.jsonl", r#"{"id": "../a", "inputs": "a"}"#.into(), 1, "\"../a\"", "without /"),
        ("c.jsonl", r#"{"id": "a"}"#.into(), 1, "no inputs", "a path, or one per channel"),
        ("c.jsonl", r#"{"id": "a", "inputs": []}"#.into(), 1, "an empty list", "at least one path"),
        ("c.jsonl", r#"{"id": "a", "inputs": ["x", 1]}"#.into(), 1, "1 as a path", "a text"),
        ("c.jsonl", r#"{"id": "a", "inputs": ""}"#.into(), 1, "\"\" as a path", "not empty"),
        (
            "c.jsonl",
            r#"{"id": "a", "inputs": "a", "mode": "bone", "model": "m"}"#.into(),
            1,
            "mode bone and model m",
            "one of the two",
        ),
        ("c.jsonl", r#"{"id": "a", "inputs": "a"}"#.into(), 1, "neither mode nor model", "--mode"),
        ("c.jsonl", r#"{"id": "a", "inputs": "a", "cost": -1}"#.into(), 1, "-1 as cost", "above 0"),
        ("c.jsonl", format!("{ok}\n{ok}"), 2, "the id a of line 1 again", "for each case"),
        (
            "c.jsonl",
            format!("{ok}\n{}", ok.replace("\"a\"", "\"b\"").replace("a.nii.gz", "./a.nii.gz")),
            2,
            "line 1",
            "another output for each case",
        ),
        (
            "c.jsonl",
            format!("{ok}\n{}", ok.replace("\"a\"", "\"A\"").replace("a.nii.gz", "A.nii.gz")),
            2,
            "the id A of line 1 again",
            "not in capitals alone",
        ),
        (
            "c.jsonl",
            format!("{ok}\n{}", ok.replace("\"a\"", "\"b\"").replace("a.nii.gz", "a.nii")),
            2,
            "a.status.json, which line 1 writes",
            "another output",
        ),
        ("c.jsonl", ok.replace("a.nii.gz", "a.dcm"), 1, "--output", "--output-type with it"),
        ("c.tsv", "id\tinputs\tid\na\tb\tc".into(), 1, "the field id twice", "each once"),
        ("c.tsv", "id\tfile\na\tb".into(), 1, "the field \"file\"", "id, inputs"),
        ("c.tsv", "id\tinputs\na\tb\tc".into(), 2, "3 fields", "2, as the first line has"),
        ("c.tsv", "id\tinputs\n\tb".into(), 2, "no id", "one"),
        ("c.tsv", "id\tinputs\na\tb;".into(), 2, "\"\" as a path of inputs", "not empty"),
        ("c.tsv", "id\tinputs\tcost\na\tb\tmuch".into(), 2, "\"much\" as cost", "above 0"),
        (
            "c.tsv",
            "id\tinputs\tcost\tmodel\na\tb\t1\tselftest\nc\td\t\tselftest".into(),
            3,
            "no cost",
            "of every case, or of none",
        ),
        ("c.tsv", "id\tinputs\nCON\tb".into(), 2, "the name \"CON\"", "printable"),
    ]
}

#[test]
fn whatever_is_wrong_with_a_list_is_one_sentence_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text, line, found, expected) in &wrong_lists() {
        fs::write(folder.path().join(name), text).expect("written");
        let mut command = program();
        command.current_dir(folder.path()).args(["--cases", name]);
        let said = ended(&mut command, 2).stderr;
        let said = String::from_utf8(said).expect("UTF-8");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
        let (about, rest) = said.split_once(": found ").expect("found");
        let (what, wanted) = rest.split_once(", expected ").expect("expected");
        assert!(about.starts_with(&format!("error: {name}, line {line}")), "{text}: {said}");
        assert!(what.contains(found) || about.contains(found), "{text}: {said}");
        assert!(wanted.contains(expected), "{text}: {said}");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        assert!(left.iter().all(|entry| entry.file_name().to_string_lossy().starts_with("c.")));
    }
    // What is no list at all.
    let run = |arguments: &[&str], code| {
        let mut command = program();
        let said = ended(command.current_dir(folder.path()).args(arguments), code).stderr;
        String::from_utf8(said).expect("UTF-8")
    };
    assert!(run(&["--cases", "none.jsonl"], 3).contains("cannot read"));
    assert!(run(&["--cases", "cases.csv"], 2).contains(".jsonl or .tsv"));
    assert!(run(&["--cases", "c.tsv", "--shard", "0/3"], 2).contains("I/N"));
    run(&["--cases", "c.tsv", "-i", "a.nii"], 2);
    run(&["--shard", "1/3", "-i", "a.nii", "--mode", "bone"], 2);
    run(&["--cases", "c.tsv", "--task", "total"], 2);
}
