//! Lists of cases through the built program: shares of them, kills between, and what is done again.

mod lists;

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

#[test]
fn a_folder_of_files_is_another_one_for_each_case() {
    let cohort = Cohort::new();
    let mut lines = [0, 1, 2].map(|case| cohort.line(case));
    lines[2]["output"] = json!(cohort.at("own"));
    fs::write(cohort.at("three.jsonl"), lines.map(|line| line.to_string()).join("\n"))
        .expect("written");
    let run = |more: &[&str]| {
        let more = [&["--output-type", "stl"][..], more].concat();
        cohort.run_list("three.jsonl", "out", &more)
    };
    ended(&mut run(&["-q"]), 0);
    for case in 0..2 {
        let list = format!("case {case}_surfaces/structures.json");
        assert_eq!(cohort.status("out", case)["outputs"][0]["path"], list);
        assert!(cohort.at("out").join(list).is_file());
    }
    assert!(cohort.at("own/structures.json").is_file() && cohort.at("own.status.json").is_file());
    assert_eq!(told(&mut run(&["--skip-existing"])), (0, 0, 3));
}

#[test]
fn no_output_replaces_what_a_case_of_any_share_reads() {
    let cohort = Cohort::new();
    let refused = |output: PathBuf, more: &[&str]| {
        // A case of another model.
        let mut line = cohort.line(3);
        line["output"] = json!(output);
        let lines = [cohort.line(0), line].map(|line| line.to_string());
        fs::write(cohort.at("clash.jsonl"), lines.join("\n")).expect("written");
        let said = ended(&mut cohort.run_list("clash.jsonl", "out", more), 2).stderr;
        String::from_utf8(said).expect("UTF-8")
    };
    let options: [&[&str]; 5] = [
        &[],
        &["--overwrite"],
        &["--skip-existing"],
        &["--overwrite", "--shard", "1/2"],
        &["--overwrite", "--shard", "2/2"],
    ];
    for more in options {
        let said = refused(cohort.at("images/../images/0.nii"), more);
        assert!(said.contains("clash.jsonl, line 2: found"), "{more:?}: {said}");
        assert!(said.contains("0.nii, which line 1 reads"), "{more:?}: {said}");
    }
    // Labels that a cascade refines are read as well.
    fs::create_dir(cohort.at("stage")).expect("a folder");
    let said = refused(cohort.at("stage/case 0.nii.gz"), &["--previous-stage", "stage"]);
    assert!(said.contains("case 0.nii.gz, which line 1 reads"), "{said}");
    assert!(fs::read(cohort.at(&image(0))).expect("there") == noise(0, 0));
    assert!(!cohort.at("out").exists());
}

#[test]
fn a_slower_run_leaves_what_another_finished() {
    let cohort = Cohort::new();
    let mut command = cohort.run("out", &["-q"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let was_going = after_the_first(&mut child, &cohort.at("out"));
    // Another run is first with the last case.
    let others = ["case 11.nii.gz", "case 11.status.json"].map(|name| cohort.at("out").join(name));
    for path in &others {
        fs::write(path, "another's").expect("written");
    }
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(was_going, "it was over too soon to show anything");
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("1 of 12 cases failed: case 11"), "{said}");
    for path in &others {
        assert_eq!(fs::read(path).expect("there"), b"another's", "{}", path.display());
    }
}

#[cfg(unix)]
#[test]
fn a_header_that_may_not_be_read_ends_a_share_before_it_begins() {
    use std::os::unix::fs::PermissionsExt;
    let cohort = Cohort::new();
    let image = cohort.at(&image(5));
    fs::set_permissions(&image, PermissionsExt::from_mode(0o000)).expect("narrower");
    if fs::read(&image).is_ok() {
        // An administrator reads anything; the command line's own tests cover that.
        eprintln!("skipped: this user may read any file");
        return;
    }
    for share in ["1/2", "2/2"] {
        ended(&mut cohort.run("out", &["--shard", share]), 3);
    }
    assert!(!cohort.at("out").exists());
}
