//! Results in every form of the table, by the library and by the built program. That other programs
//! read the DICOM objects as they are meant is judged by crates/dicom/tests/judges.

use crate::series::{fixture, other, run, selftest, silent, uids, unpack};
use fastnnunet::dicom::{LoadOptions, ScanOptions, scan};
use fastnnunet::io::ReadOptions;
use fastnnunet::volume::LabelMap;
use fastnnunet::{Error, Existing, OutputType, Scan, Segmenter, Source};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The forms, and what the program's own names of them end in.
const FORMS: [(&str, &str); 5] = [
    ("nifti", ".nii.gz"),
    ("dicom-seg", ".seg.dcm"),
    ("rtstruct", ".rtstruct.dcm"),
    ("sr", ".sr.dcm"),
    ("sc", ".sc.dcm"),
];

/// The arguments for all forms.
fn all() -> Vec<String> {
    FORMS.iter().flat_map(|(name, _)| ["--output-type".to_owned(), (*name).to_owned()]).collect()
}

/// Paths in a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = list.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The file of a folder that ends so.
fn ending(folder: &Path, suffix: &str) -> PathBuf {
    let fits = |path: &PathBuf| path.display().to_string().ends_with(suffix);
    let found: Vec<PathBuf> = files(folder).into_iter().filter(fits).collect();
    let [one] = &found[..] else { panic!("{suffix}: {found:?}") };
    one.clone()
}

/// A fixture of crates/dicom as a zip in a folder: series of some thousand voxels.
fn small(folder: &Path, name: &str) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("crates/dicom/tests/fixtures/{name}.zip.z"));
    let mut bytes = Vec::new();
    let packed = fs::File::open(packed).expect("opens");
    flate2::read::ZlibDecoder::new(packed).read_to_end(&mut bytes).expect("zlib");
    let input = folder.join("small.zip");
    fs::write(&input, bytes).expect("writes");
    input
}

/// A label map's voxels, `[z, y, x]`.
fn labels(path: &Path) -> Vec<u8> {
    let values = Scan::open(path).expect("a label map").voxels().to_f32();
    values.iter().map(|&value| value as u8).collect()
}

/// The value of the first element of a tag in an explicit data set: headers are searched for.
fn value(bytes: &[u8], tag: [u16; 2], vr: &str) -> Vec<u8> {
    let mut header = tag.map(u16::to_le_bytes).concat();
    header.extend(vr.as_bytes());
    let is_long = matches!(vr, "OB" | "OW" | "UT");
    let at = bytes.windows(6).position(|window| window == header).expect("the element") + 6;
    let (start, len) = if is_long {
        let len = bytes[at + 2..at + 6].try_into().expect("four bytes");
        (at + 6, u32::from_le_bytes(len) as usize)
    } else {
        (at + 2, usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])))
    };
    bytes[start..start + len].to_vec()
}

fn text(bytes: &[u8], tag: [u16; 2], vr: &str) -> String {
    let value = value(bytes, tag, vr);
    String::from_utf8_lossy(&value).trim_end_matches(['\0', ' ']).to_owned()
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

const INSTANCE: [u16; 2] = [0x0008, 0x0018];
const SERIES: [u16; 2] = [0x0020, 0x000E];
const SERIES_DATE: [u16; 2] = [0x0008, 0x0021];
const PIXELS: [u16; 2] = [0x7FE0, 0x0010];

/// The bits of a BINARY segmentation of these labels: of each label, each slice that has any of it.
fn bits(labels: &[u8], pixels: usize) -> Vec<u8> {
    let mut all: Vec<bool> = Vec::new();
    for id in 1..=*labels.iter().max().expect("voxels") {
        for slice in labels.chunks(pixels).filter(|slice| slice.contains(&id)) {
            all.extend(slice.iter().map(|&label| label == id));
        }
    }
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    let mut bytes: Vec<u8> = all.chunks(8).map(byte).collect();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}

#[test]
fn a_series_is_written_in_every_form_and_all_hold_one_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let [json, said] =
        run(selftest(&fixture("zip")).arg("-o").arg(&out).args(all()).arg("--json"), 0);
    assert!(!said.contains("error"), "{said}");
    let summary: Value = serde_json::from_str(&json).expect("one JSON value");
    let listed = summary["outputs"].as_array().expect("outputs");
    assert_eq!(listed.len(), FORMS.len());
    let catalog = scan(&fixture("zip"), &ScanOptions::default()).expect("a series");
    let series = catalog.pick(None).expect("one");
    let source = series.load(&LoadOptions::default()).expect("a volume").source;
    for ((name, suffix), listed) in FORMS.iter().zip(listed) {
        let path = out.join(format!("{}_selftest{suffix}", series.name));
        assert_eq!(listed["type"], *name);
        assert_eq!(listed["path"], path.display().to_string());
        assert!(path.is_file(), "{}", path.display());
    }
    assert_eq!(files(&out).len(), FORMS.len(), "and nothing else");
    let labels = labels(&ending(&out, ".nii.gz"));
    let seg = fs::read(ending(&out, ".seg.dcm")).expect("reads");
    assert_eq!(value(&seg, PIXELS, "OB"), bits(&labels, 64 * 53));
    for (_, suffix) in &FORMS[1..] {
        let object = fs::read(ending(&out, suffix)).expect("reads");
        assert_eq!(&object[128..132], b"DICM", "{suffix}");
        assert!(holds(&object, "Doe^Jane"), "{suffix}: the patient is copied");
        assert!(holds(&object, &source.study_uid), "{suffix}");
        for slice in &source.slices {
            assert!(holds(&object, &slice.instance_uid), "{suffix}");
        }
        assert!(holds(&object, "Research use only"), "{suffix}");
    }
    // The report is of the segments; of a result without a segmentation, of the series.
    let report = fs::read(ending(&out, ".sr.dcm")).expect("reads");
    let instance = text(&seg, INSTANCE, "UI");
    assert!(holds(&report, &instance));
    let alone = folder.path().join("alone.dcm");
    run(selftest(&fixture("zip")).arg("-o").arg(&alone).args(["--output-type", "sr"]), 0);
    let alone = fs::read(alone).expect("reads");
    assert!(!holds(&alone, &instance) && holds(&alone, "Measurement Group"));

    let labelmap = folder.path().join("seg.seg.dcm");
    run(selftest(&fixture("zip")).arg("-o").arg(&labelmap).args(["--seg-encoding", "labelmap"]), 0);
    let labelmap = fs::read(labelmap).expect("reads");
    assert_eq!(value(&labelmap, PIXELS, "OB"), labels);
}

#[test]
fn the_same_result_gives_the_same_bytes_unless_new_uids_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    for (name, more) in
        [("a", "--quiet"), ("b", "--threads=1"), ("c", "--new-uids"), ("d", "--new-uids")]
    {
        run(selftest(&fixture("zip")).arg("-o").arg(out(name)).args(all()).arg(more), 0);
    }
    let date = |bytes: &[u8]| text(bytes, SERIES_DATE, "DA");
    for (_, suffix) in FORMS {
        let read = |name: &str| fs::read(ending(&out(name), suffix)).expect("reads");
        assert_eq!(read("a"), read("b"), "{suffix}");
        // Structure sets have implicit elements, whose headers are others.
        if matches!(suffix, ".nii.gz" | ".rtstruct.dcm") {
            continue;
        }
        let [content, fresh, again] = ["a", "c", "d"].map(read);
        let uid = |bytes: &[u8]| [INSTANCE, SERIES].map(|tag| text(bytes, tag, "UI"));
        assert!(uid(&content) != uid(&fresh) && uid(&fresh) != uid(&again), "{suffix}");
        assert_ne!(date(&content), date(&fresh), "{suffix}");
        assert!(date(&fresh).as_str() >= "20260101", "{suffix}: {}", date(&fresh));
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_inference() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("scans")).expect("a folder");
    fs::copy(fixture("nii.gz"), at("scans/ct.nii.gz")).expect("copies");
    let (zip, nifti, scans) = (fixture("zip"), fixture("nii.gz"), at("scans"));
    // (claim, input, output, further arguments, part of the message)
    let cases: [(&str, &Path, &str, &[&str], &str); 14] = [
        (
            "a segmentation of NIfTI",
            &nifti,
            "out",
            &["--output-type=dicom-seg"],
            "which is no DICOM series",
        ),
        ("a picture of NIfTI", &nifti, "x.dcm", &["--output-type=sc"], "which is no DICOM series"),
        ("by the ending", &nifti, "x.seg.dcm", &[], "which is no DICOM series"),
        (
            "one of several forms of NIfTI",
            &nifti,
            "out",
            &["--output-type=nifti", "--output-type=sr"],
            "which is no DICOM series",
        ),
        (
            "of a folder of NIfTI",
            &scans,
            "out",
            &["--output-type=rtstruct"],
            "which is no DICOM series",
        ),
        ("an object of no type", &zip, "x.dcm", &[], "dicom-seg, rtstruct, sr, sc"),
        ("an object under NIfTI's name", &zip, "x.nii", &["--output-type=sr"], ".dcm for sr"),
        (
            "NIfTI under an object's name",
            &zip,
            "x.dcm",
            &["--output-type=nifti"],
            ".nii.gz or .nii",
        ),
        (
            "two forms in one file",
            &zip,
            "x.dcm",
            &["--output-type=sr", "--output-type=sc"],
            "a folder for 2 types",
        ),
        ("no ending of any form", &zip, "x.png", &[], ".nii.gz or .nii"),
        ("an unknown form", &zip, "out", &["--output-type=dicom"], "rtstruct"),
        ("an unknown encoding", &zip, "x.seg.dcm", &["--seg-encoding=both"], "labelmap"),
        ("an encoding of nothing", &zip, "x.nii", &["--seg-encoding=binary"], "dicom-seg"),
        ("UIDs of nothing", &zip, "x.nii", &["--new-uids"], "no type that has UIDs"),
    ];
    for (claim, input, output, more, part) in cases {
        let [_, said] = run(selftest(input).arg("-o").arg(at(output)).args(more), 2);
        assert!(said.contains(part), "{claim}: {said}");
        assert_eq!(files(folder.path()), [at("scans")], "{claim}: nothing is written");
    }
    fs::write(at("there.dcm"), "something of somebody's").expect("writes");
    let there = at("there.dcm");
    let [_, said] = run(selftest(&zip).arg("-o").arg(&there).args(["--output-type", "sc"]), 7);
    assert!(said.contains("--overwrite"), "{said}");
    assert_eq!(fs::read(&there).expect("reads"), b"something of somebody's");
    run(selftest(&zip).arg("-o").arg(&there).args(["--output-type", "sc", "--overwrite"]), 0);
    assert_eq!(&fs::read(&there).expect("reads")[128..132], b"DICM");
}

#[test]
fn forms_of_a_folder_have_case_and_mode_in_their_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let [study, uid] = uids();
    unpack(&at("in/first"), &[]);
    unpack(&at("in/second"), &[(&study, &other(&study)), (&uid, &other(&uid))]);
    let two = ["--output-type=dicom-seg", "--output-type=nifti"];
    run(selftest(&at("in")).arg("-o").arg(at("out")).args(two), 0);
    let names: Vec<String> = files(&at("out"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|name| name.contains("_selftest.")), "{names:?}");
    // What is there stays, what is not is made.
    let (kept, lost) = (at("out").join(&names[0]), at("out").join(&names[1]));
    fs::write(&kept, "corrected by hand").expect("writes");
    fs::remove_file(&lost).expect("removes");
    run(selftest(&at("in")).arg("-o").arg(at("out")).args(two).arg("--skip-existing"), 0);
    assert!(lost.is_file());
    assert_eq!(fs::read(&kept).expect("reads"), b"corrected by hand");
    // A folder that is named gets a single case too, by the program's own name for it.
    run(selftest(&fixture("nii.gz")).arg("-o").arg(at("single")), 0);
    assert!(at("single/chest_series_selftest.nii.gz").is_file(), "{:?}", files(&at("single")));
}

/// Files of a run with all forms, and a folder that holds those of them whose bits are set.
fn part(whole: &Path, set: usize, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for (k, path) in files(whole).iter().enumerate().filter(|(k, _)| set >> k & 1 == 1) {
        fs::copy(path, to.join(path.file_name().expect("a name")))
            .unwrap_or_else(|e| panic!("file {k}: {e}"));
    }
}

#[test]
fn what_is_missing_of_a_result_is_written_as_a_whole_run_writes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = small(folder.path(), "regular/explicit_little");
    let whole = folder.path().join("whole");
    run(selftest(&input).arg("-o").arg(&whole).args(all()), 0);
    let names = files(&whole);
    assert_eq!(names.len(), FORMS.len());
    for set in 0..1 << FORMS.len() {
        let out = folder.path().join(format!("part{set}"));
        part(&whole, set, &out);
        run(selftest(&input).arg("-o").arg(&out).args(all()).arg("--skip-existing"), 0);
        assert_eq!(files(&out).len(), FORMS.len(), "set {set:05b}");
        for path in &names {
            let again = fs::read(out.join(path.file_name().expect("a name"))).expect("reads");
            assert!(fs::read(path).expect("reads") == again, "{} of {set:05b}", path.display());
        }
    }
}

/// A report never names a segmentation that is not there, and no segmentation of others is replaced.
#[test]
fn a_report_is_of_the_segmentation_beside_it_or_there_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = small(folder.path(), "regular/explicit_little");
    let whole = folder.path().join("whole");
    run(selftest(&input).arg("-o").arg(&whole).args(all()), 0);
    let again = |out: &Path, more: &[&str], code| {
        let mut command = selftest(&input);
        let [_, said] =
            run(command.arg("-o").arg(out).args(all()).arg("--skip-existing").args(more), code);
        said
    };
    let at = |name: &str, without: &str| {
        let out = folder.path().join(name);
        part(&whole, usize::MAX, &out);
        fs::remove_file(ending(&out, without)).expect("there");
        out
    };
    // What somebody made of it, another object, and another encoding of the same labels.
    let picture = fs::read(ending(&whole, ".sc.dcm")).expect("reads");
    for (name, seg) in [("corrected", &b"corrected by hand"[..]), ("other", &picture[..])] {
        let out = at(name, ".sr.dcm");
        let path = ending(&out, ".seg.dcm");
        fs::write(&path, seg).expect("writes");
        let said = again(&out, &[], 3);
        assert!(said.contains("another object, expected the segmentation"), "{said}");
        assert_eq!(fs::read(&path).expect("reads"), seg, "{name}");
        assert_eq!(files(&out).len(), FORMS.len() - 1, "{name}: no report");
    }
    let said = again(&at("encoded", ".sr.dcm"), &["--seg-encoding=labelmap"], 3);
    assert!(said.contains("another object"), "{said}");
    // Identifiers of this run are in neither of the two.
    for (name, without) in [("no report", ".sr.dcm"), ("no segmentation", ".seg.dcm")] {
        let out = at(name, without);
        let said = again(&out, &["--new-uids"], 2);
        assert!(said.contains("both or neither"), "{said}");
        assert_eq!(files(&out).len(), FORMS.len() - 1, "{name}");
    }
    let out = at("neither", ".sr.dcm");
    fs::remove_file(ending(&out, ".seg.dcm")).expect("there");
    again(&out, &["--new-uids"], 0);
    let [seg, report] = [".seg.dcm", ".sr.dcm"].map(|suffix| fs::read(ending(&out, suffix)));
    let instance = text(&seg.expect("reads"), INSTANCE, "UI");
    assert!(holds(&report.expect("reads"), &instance));
}

#[cfg(unix)]
#[test]
fn objects_are_no_easier_to_read_than_slices() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    unpack(&input, &[]);
    fs::set_permissions(input.join("IM004"), PermissionsExt::from_mode(0o600)).expect("narrower");
    run(selftest(&input).arg("-o").arg(&out).args(all()), 0);
    for path in files(&out) {
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

/// A tilted series is segmented on an upright grid, and its labels go back to its slices.
#[test]
fn labels_of_a_tilted_series_lie_on_its_slices() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = small(folder.path(), "odd/gantry_tilt");
    let out = folder.path().join("out");
    let types = ["--output-type=nifti", "--output-type=dicom-seg", "--seg-encoding=labelmap"];
    run(selftest(&input).arg("-o").arg(&out).args(types), 0);
    let catalog = scan(&input, &ScanOptions::default()).expect("a series");
    let loaded = catalog.pick(None).expect("one").load(&LoadOptions::default()).expect("a volume");
    let (source, upright) = (&loaded.source, labels(&ending(&out, ".nii.gz")));
    let own = value(&fs::read(ending(&out, ".seg.dcm")).expect("reads"), PIXELS, "OB");
    assert_eq!(upright.len(), loaded.grid.shape.iter().product::<usize>());
    assert_eq!(own.len(), source.slices.len() * source.size[0] * source.size[1]);
    assert!(own.len() < upright.len(), "the upright grid is the larger one");
    // A pixel has the label of the voxel it lies in; the grid's axes are at right angles.
    let affine = &loaded.grid.affine.0;
    let [_, ny, nx] = loaded.grid.shape;
    let axes = [0, 1, 2].map(|axis| [0, 1, 2].map(|row| affine[row][axis]));
    let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut wrong = 0;
    for (n, &pixel) in own.iter().enumerate() {
        let [rows, columns] = source.size;
        let slice = &source.slices[n / columns / rows];
        let (down, across) = (n / columns % rows, n % columns);
        let (down, across) = (down as f64 * source.spacing[0], across as f64 * source.spacing[1]);
        let from_origin = [0, 1, 2].map(|i| {
            let [right, below] = slice.orientation;
            let at = slice.position[i] + across * right[i] + down * below[i];
            // Left and posterior are counted there, right and anterior here.
            (if i < 2 { -at } else { at }) - affine[i][3]
        });
        let [x, y, z] =
            axes.map(|axis| (dot(from_origin, axis) / dot(axis, axis)).round() as usize);
        wrong += usize::from(pixel != upright[(z * ny + y) * nx + x]);
    }
    assert_eq!(wrong, 0);
}

#[test]
fn a_file_per_structure_is_its_part_of_the_label_map() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let both = ["--output-type", "nifti", "--output-type", "per-structure"];
    run(selftest(&fixture("nii.gz")).arg("-o").arg(&out).args(both), 0);
    let whole = labels(&ending(&out, ".nii.gz"));
    let masks = files(&ending(&out, "_structures"));
    assert_eq!(masks.len(), 3, "{masks:?}");
    for (name, id) in [("one", 1), ("two", 2), ("three", 3)] {
        let path = ending(&out, "_structures").join(format!("{name}.nii.gz"));
        let expected: Vec<u8> = whole.iter().map(|&label| u8::from(label == id)).collect();
        assert!(labels(&path) == expected, "{name}");
        assert_eq!(
            Scan::open(&path).expect("reads").grid(),
            Scan::open(fixture("nii.gz")).expect("reads").grid()
        );
    }

    // Alone it takes the folder for its own; what is there stays, or is completed.
    let (alone, kind) = (folder.path().join("alone"), ["--output-type", "per-structure"]);
    run(selftest(&fixture("nii.gz")).arg("-o").arg(&alone).args(kind), 0);
    let names = |folder: &Path| -> Vec<_> {
        files(folder).iter().map(|path| path.file_name().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(names(&alone), names(&ending(&out, "_structures")));
    run(selftest(&fixture("nii.gz")).arg("-o").arg(&alone).args(kind), 7);
    let one = alone.join("one.nii.gz");
    let bytes = fs::read(&one).expect("reads");
    fs::remove_file(&one).expect("removes");
    run(selftest(&fixture("nii.gz")).arg("-o").arg(&alone).args(kind).arg("--skip-existing"), 0);
    assert!(fs::read(&one).expect("there again") == bytes);
}

#[test]
fn the_library_writes_what_the_program_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let kinds: Vec<OutputType> = OutputType::all().filter(|kind| !kind.is_folder()).collect();
    let types = kinds.iter().map(|kind| format!("--output-type={kind}"));
    run(selftest(&fixture("zip")).arg("-o").arg(at("program")).args(types), 0);
    let mut selftest =
        Segmenter::open(Source::Model { name: "selftest".into(), config: None }).expect("opens");
    let catalog = scan(&fixture("zip"), &ScanOptions::default()).expect("a series");
    let series = catalog.pick(None).expect("one");
    let scan = Scan::open_series(series, &ReadOptions::default()).expect("a volume");
    silent(&format!("{scan:?}"));
    let result = selftest.segment(&scan).expect("segments");
    let mut writer = result.writer().image(&scan).title(series.name.clone());
    for kind in kinds {
        let path = at(&format!("case{}", kind.suffix()));
        writer.write(kind, &path).expect("writes");
        let program = ending(&at("program"), &format!("_selftest{}", kind.suffix()));
        let program = fs::read(program).expect("reads");
        assert!(fs::read(&path).expect("reads") == program, "{kind}");
        assert!(matches!(writer.write(kind, &path), Err(Error::Write { .. })), "{kind} stays");
    }
    result
        .writer()
        .existing(Existing::Replace)
        .write(OutputType::Nifti, at("case.nii.gz"))
        .expect("replaces");
    // What is missing is said.
    let usage = |result: fastnnunet::Result<()>| match result {
        Err(Error::Usage { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    let blind = usage(result.write(OutputType::Sr, at("blind.sr.dcm")));
    assert!(blind.contains("without the image"), "{blind}");
    assert!(usage(result.write(OutputType::Sc, at("x.png"))).contains("x.png"));
    let nifti = Scan::open(fixture("nii.gz")).expect("a file");
    let result = selftest.segment(&nifti).expect("segments");
    assert!(matches!(result.labels, LabelMap::U8(_)));
    let none = usage(result.write(OutputType::DicomSeg, at("none.dcm")));
    assert!(none.contains("no DICOM series"), "{none}");
    assert!(!at("none.dcm").exists() && !at("blind.sr.dcm").exists());
}
