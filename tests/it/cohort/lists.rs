//! Lists with a fault.

use super::ended;
use crate::program;
use std::fs;

/// What is wrong with a list: its name and text, the line, what was found, what was expected.
type Wrong = (&'static str, String, usize, &'static str, &'static str);

// The list is long.
#[allow(clippy::too_many_lines)]
fn wrong_lists() -> [Wrong; 36] {
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
            format!("{ok}\n{}", ok.replace("\"a\"", "\"b\"").replace("a.nii.gz", "a.nrrd")),
            2,
            "a.status.json, which line 1 writes",
            "another output",
        ),
        (
            "c.jsonl",
            format!("{ok}\n{}", ok.replace("\"a\"", "\"b\"").replace("a.nii.gz", "a.nii")),
            2,
            "a.nii, which line 1 reads",
            "an output that is no input",
        ),
        (
            "c.jsonl",
            ok.replace("\"a.nii\"", "\"./a.status.json\""),
            1,
            "a.status.json, which line 1 reads",
            "an output that is no input",
        ),
        (
            "c.jsonl",
            ok.replace("a.nii.gz", "labels/p1.txt"),
            1,
            "labels/p1.txt",
            "a name that ends in .nii.gz or .nii, or a folder",
        ),
        ("c.jsonl", ok.replace("a.nii.gz", "a.dcm"), 1, "--output", "--output-type with it"),
        ("c.tsv", "id\tinputs\tid\na\tb\tc".into(), 1, "the field id twice", "each once"),
        ("c.tsv", "id\tfile\na\tb".into(), 1, "the field \"file\"", "id, inputs"),
        ("c.tsv", "id\tinputs\na\tb\tc".into(), 2, "3 fields", "2, as the first line has"),
        ("c.tsv", "id\tinputs\n\tb".into(), 2, "no id", "one"),
        ("c.tsv", "id\tinputs\na\tb;".into(), 2, "\"\" as a path of inputs", "not empty"),
        ("c.tsv", "id\tinputs\tcost\na\tb\tmuch".into(), 2, "\"much\" as cost", "above 0"),
        ("c.tsv", "id\tinputs\tcost\na\tb\tnan".into(), 2, "\"nan\" as cost", "above 0"),
        ("c.tsv", "id\tinputs\tcost\na\tb\tinf".into(), 2, "\"inf\" as cost", "above 0"),
        ("c.tsv", "id\tinputs\tcost\na\tb\t0".into(), 2, "0.0 as cost", "above 0"),
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
