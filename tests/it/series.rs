//! DICOM series as input: the library and the built program on one case as DICOM and as NIfTI
//! (`tests/fixtures/make_series.py`). What becomes of odd series is tested in crates/dicom.

use assert_cmd::Command;
use fastnnunet::dicom::{ScanOptions, scan};
use fastnnunet::io::ReadOptions;
use fastnnunet::{Error, Scan, Segmenter};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the fixture says about its invented patient, and no result may repeat.
const PATIENT: [&str; 7] = ["Doe", "DOE", "4711", "Jane", "Roe", "19700101", "A1"];

pub(crate) fn fixture(ending: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/chest_series.{ending}"))
}

/// UIDs of study and series.
pub(crate) fn uids() -> [String; 2] {
    let catalog = scan(&fixture("zip"), &ScanOptions::default()).expect("a series");
    let series = catalog.pick(None).expect("one");
    [series.study_uid.clone(), series.series_uid.clone()]
}

/// Unpacks the series into a folder, with every `from` replaced by its `to` of the same length.
pub(crate) fn unpack(to: &Path, replaced: &[(&str, &str)]) {
    fs::create_dir_all(to).expect("a folder");
    let mut archive =
        zip::ZipArchive::new(fs::File::open(fixture("zip")).expect("opens")).expect("a zip");
    for k in 0..archive.len() {
        let mut bytes = Vec::new();
        archive.by_index(k).expect("an entry").read_to_end(&mut bytes).expect("reads");
        for (from, to) in replaced {
            assert_eq!(from.len(), to.len());
            let places: Vec<usize> = bytes
                .windows(from.len())
                .enumerate()
                .filter_map(|(at, window)| (window == from.as_bytes()).then_some(at))
                .collect();
            for at in places {
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
        }
        fs::write(to.join(format!("IM{k:03}")), bytes).expect("writes");
    }
}

/// Another identifier of the same length.
pub(crate) fn other(uid: &str) -> String {
    let last = if uid.ends_with('1') { "2" } else { "1" };
    format!("{}{last}", &uid[..uid.len() - 1])
}

/// The program ready to run the self-test network, which is quick.
pub(crate) fn selftest(input: &Path) -> Command {
    let mut command = Command::from(crate::program());
    command.args(["--model", "selftest", "-i"]).arg(input);
    command
}

/// Runs, checks the exit code and that nothing about the patient is said; returns both streams.
pub(crate) fn run(command: &mut Command, code: i32) -> [String; 2] {
    let result = command.assert().code(code).get_output().clone();
    let texts = [result.stdout, result.stderr].map(|t| String::from_utf8(t).expect("UTF-8"));
    for text in &texts {
        silent(text);
    }
    texts
}

/// Names are looked for anywhere; numbers as whole words, for times, digests and the names of temporary
/// folders hold any digits by chance.
pub(crate) fn silent(text: &str) {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for word in PATIENT {
        let number = word.bytes().any(|b| b.is_ascii_digit());
        let said = if number { words.contains(&word) } else { text.contains(word) };
        assert!(!said, "{word} in {text}");
    }
}

#[test]
fn one_case_as_dicom_and_as_nifti_is_one_image_with_one_result() {
    let dicom = Scan::open(fixture("zip")).expect("a series");
    let nifti = Scan::open(fixture("nii.gz")).expect("a file");
    assert_eq!(dicom.voxels().to_f32(), nifti.voxels().to_f32());
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(close(dicom.affine().0.as_flattened(), nifti.affine().0.as_flattened()));
    assert!(close(&dicom.grid().spacing, &nifti.grid().spacing));
    assert!(dicom.warnings().is_empty(), "{:?}", dicom.warnings());

    let mut bone = Segmenter::open("bone").expect("a mode");
    let [dicom, nifti] = [&dicom, &nifti].map(|scan| bone.segment(scan).expect("segments"));
    assert!(dicom.found()[0].ml > 300.0, "{:?}", dicom.found());
    assert_eq!(dicom.labels, nifti.labels);
}

#[test]
fn a_folder_a_zip_and_a_file_of_it_are_told_apart_by_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let [_, uid] = uids();
    unpack(&folder.path().join("deep/er"), &[]);
    fs::write(folder.path().join("notes.txt"), "no image").expect("writes");
    fs::copy(fixture("zip"), folder.path().join("unnamed")).expect("copies");
    let whole = Scan::open(fixture("zip")).expect("a zip");
    let unnamed = Scan::open(folder.path().join("unnamed")).expect("a zip by content");
    assert_eq!(whole.sha256(), unnamed.sha256());
    // The copy without an ending is no zip to a folder that is looked through.
    let nested = Scan::open(folder.path()).expect("a folder");
    assert_eq!(whole.voxels(), nested.voxels());
    match Scan::open(folder.path().join("deep/er/IM000")) {
        Err(Error::Input { found, .. }) => assert!(found.contains("slice"), "{found}"),
        other => panic!("{other:?}"),
    }
    let catalog = scan(folder.path(), &ScanOptions::default()).expect("a series");
    let series = catalog.pick(Some(&uid)).expect("by its UID");
    let few = ReadOptions { max_bytes: 1 << 16, ..Default::default() };
    assert!(matches!(Scan::open_series(series, &few), Err(Error::Memory { .. })));
}

#[test]
fn the_program_says_nothing_about_the_patient() {
    let folder = tempfile::tempdir().expect("a folder");
    let [json, said] =
        run(selftest(&fixture("zip")).current_dir(folder.path()).args(["--json", "--verbose"]), 0);
    let summary: Value = serde_json::from_str(&json).expect("one JSON value");
    assert_eq!(summary["series"], uids()[1]);
    assert_eq!(summary["geometry"]["shape_xyz"], serde_json::json!([64, 53, 33]));
    assert!(said.contains("models"), "{said}");
    let names: Vec<String> = fs::read_dir(folder.path().join("results"))
        .expect("results")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let [name] = &names[..] else { panic!("{names:?}") };
    let digest = name.strip_suffix("_selftest.nii.gz").expect("the model");
    assert!(digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    let written = fs::read(folder.path().join("results").join(name)).expect("reads");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&written[..]).read_to_end(&mut plain).expect("gzip");
    silent(&String::from_utf8_lossy(&plain[..352]));

    let mut list = Command::from(crate::program());
    let [text, _] = run(list.arg("series").arg(fixture("zip")), 0);
    assert!(text.contains("suitable") && text.contains("64x53x33") && text.contains(digest));
    let [json, _] = run(list.arg("--json"), 0);
    let catalog: Value = serde_json::from_str(&json).expect("one JSON value");
    assert_eq!(catalog["studies"][0]["series"][0]["uid"], uids()[1]);
    let shown = list.arg("--show-text").assert().success().get_output().clone();
    let catalog: Value = serde_json::from_slice(&shown.stdout).expect("one JSON value");
    assert_eq!(catalog["studies"][0]["series"][0]["description"], "Series of Jane Doe");
}

#[test]
fn one_of_several_series_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let [_, uid] = uids();
    unpack(&folder.path().join("in/a"), &[]);
    unpack(&folder.path().join("in/b"), &[(&uid, &other(&uid))]);
    let (input, output) = (folder.path().join("in"), folder.path().join("seg.nii"));
    let [_, said] = run(selftest(&input).arg("-o").arg(&output), 2);
    assert!(said.contains(&uid) && said.contains(&other(&uid)), "{said}");
    assert!(said.contains("--series"), "{said}");
    let [_, said] = run(selftest(&input).arg("-o").arg(&output).args(["--series", "1.2.3"]), 2);
    assert!(said.contains("1.2.3") && said.contains(&uid), "{said}");
    let [json, _] =
        run(selftest(&input).arg("-o").arg(&output).args(["--json", "--series", &other(&uid)]), 0);
    let summary: Value = serde_json::from_str(&json).expect("one JSON value");
    assert_eq!(summary["series"], other(&uid));
    assert!(output.is_file());
}

#[test]
fn several_studies_are_a_batch_and_one_that_fails_fails_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let [study, uid] = uids();
    let at = |name: &str| folder.path().join("in").join(name);
    let third = other(&other(&study).replace("2.25.8", "2.25.7"));
    unpack(&at("first"), &[]);
    unpack(&at("second"), &[(&study, &other(&study)), (&uid, &other(&uid))]);
    unpack(&at("third/a"), &[(&study, &third)]);
    unpack(&at("third/b"), &[(&study, &third), (&uid, &other(&uid))]);
    let outputs = folder.path().join("out");
    let [json, said] =
        run(selftest(&folder.path().join("in")).arg("-o").arg(&outputs).arg("--json"), 2);
    let tally: Value = serde_json::from_str(&json).expect("one JSON value");
    assert_eq!(tally["cases"].as_array().expect("cases").len(), 2, "{said}");
    assert_eq!(tally["failed"].as_array().expect("failed").len(), 1);
    assert!(tally["failed"][0]["error"].as_str().expect("why").contains("2 suitable series"));
    assert_eq!(fs::read_dir(&outputs).expect("results").count(), 2);
    // Results would be cases of the next run.
    let [_, said] = run(selftest(&folder.path().join("in")).arg("-o").arg(at("out")), 2);
    assert!(said.contains("elsewhere"), "{said}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    unpack(&at("mixed/dicom"), &[]);
    fs::copy(fixture("nii.gz"), at("mixed/ct.nii.gz")).expect("copies");
    fs::create_dir(at("junk")).expect("a folder");
    fs::write(at("junk/notes.txt"), "no image").expect("writes");
    unpack(&at("series"), &[]);
    let slice = at("series/IM000");
    let output = at("seg.nii.gz");
    let (zip, nifti) = (fixture("zip"), fixture("nii.gz"));
    let text = |path: &Path| path.display().to_string();
    // (claim, input, further arguments, exit code, part of the message)
    let cases: [(&str, &Path, Vec<String>, i32, &str); 8] = [
        ("a folder of both", &at("mixed"), vec![], 3, "NIfTI and DICOM"),
        ("one of each", &zip, vec!["-i".into(), text(&nifti)], 2, "NIfTI and DICOM"),
        ("a folder of neither", &at("junk"), vec![], 3, "no file of NIfTI"),
        ("a slice", &slice, vec![], 3, "slice"),
        ("a series of NIfTI", &nifti, vec!["--series=1.2".into()], 2, "--series"),
        (
            "a series of two",
            &zip,
            vec!["-i".into(), text(&zip), "--series=1".into()],
            2,
            "one input",
        ),
        ("little memory", &zip, vec!["--memory-limit=60KiB".into()], 6, "limit"),
        ("no such path", &at("absent"), vec![], 3, "cannot read"),
    ];
    for (claim, input, more, code, part) in cases {
        let [_, said] = run(selftest(input).arg("-o").arg(&output).args(more), code);
        assert!(said.contains(part), "{claim}: {said}");
        assert!(!output.exists(), "{claim}");
    }
    // A slice is never written over, whatever it is called.
    let bare = at("series/IM001");
    let [_, said] = run(selftest(&at("series")).arg("--overwrite").arg("-o").arg(&bare), 2);
    assert!(said.contains("ends in .nii.gz or .nii, or a folder"), "{said}");
    let named = at("series/IM001.dcm");
    fs::rename(&bare, &named).expect("renames");
    let more = ["--overwrite", "--output-type=sc"];
    let [_, said] = run(selftest(&at("series")).args(more).arg("-o").arg(&named), 2);
    assert!(said.contains("which is read"), "{said}");
}

#[cfg(unix)]
#[test]
fn results_are_no_easier_to_read_than_slices() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("in");
    unpack(&input, &[]);
    fs::set_permissions(input.join("IM004"), PermissionsExt::from_mode(0o600)).expect("narrower");
    let output = folder.path().join("seg.nii.gz");
    run(selftest(&input).arg("-o").arg(&output), 0);
    assert_eq!(fs::metadata(output).expect("there").permissions().mode() & 0o777, 0o600);
}
