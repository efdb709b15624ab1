//! Series of every kind: read as other programs read them, or refused with the reason.
//!
//! The fixtures are made of a phantom by `judges/fixtures.py`; golden voxels and affines are
//! SimpleITK's.

use crate::fixtures::{Fixture, fixtures, inflated};
use fastnnunet_dicom::{Catalog, Error, LoadOptions, ScanOptions, Series, Verdict, Voxels, scan};
use serde_json::Value;
use std::fmt::Write;

fn catalog(fixture: &Fixture) -> Catalog {
    scan(fixture.path(), &ScanOptions::default()).expect("a folder can be scanned")
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn regular_series_read_as_simpleitk_reads_them() {
    let kinds = fixtures("regular");
    assert!(kinds.len() >= 40);
    for (name, about) in kinds {
        let fixture = Fixture::unpack("regular", &name);
        let catalog = catalog(&fixture);
        let series = catalog.pick(None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let lossy = about.get("lossy").is_some();
        assert_eq!(series.verdict, Verdict::Suitable, "{name}");
        let loaded = series.load(&LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));

        let shape: Vec<f64> = loaded.grid.shape.iter().map(|&n| n as f64).collect();
        assert_eq!(floats(&about["shape"]), shape, "{name}");
        let golden = inflated(&format!("golden/{}", about["voxels"].as_str().expect("a name")));
        let golden = golden.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        // Of a lossy image two decoders may round a value to either side.
        let unit = about["stored_unit"].as_f64().expect("a number") * 1.001;
        let bound = if lossy { unit as f32 } else { 0.0 };
        let voxels = loaded.voxels.to_f32();
        assert_eq!(golden.len(), voxels.len(), "{name}");
        for (k, (ours, theirs)) in voxels.iter().zip(golden).enumerate() {
            assert!((ours - theirs).abs() <= bound, "{name}: voxel {k} is {ours}, not {theirs}");
        }
        if !about["affine"].is_null() {
            let rows = about["affine"].as_array().expect("three rows");
            for (ours, theirs) in loaded.grid.affine.0.iter().zip(rows) {
                for (ours, theirs) in ours.iter().zip(floats(theirs)) {
                    assert!((ours - theirs).abs() <= 1e-4, "{name}: {ours}, not {theirs}");
                }
            }
        }
        let said = loaded.notes.iter().filter(|note| note.contains("with loss")).count();
        assert_eq!(said, usize::from(lossy), "{name}: {:?}", loaded.notes);
    }
}

/// Between looking for series and reading one lie hours, in a batch.
#[test]
fn a_file_that_says_other_things_by_the_time_it_is_loaded_is_refused() {
    let files = |fixture: &Fixture| {
        let entries = std::fs::read_dir(fixture.path()).expect("a folder");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    let other = Fixture::unpack("regular", "implicit_little");
    for name in ["explicit_little", "deflated", "jpeg_lossless_sv1", "enhanced"] {
        let fixture = Fixture::unpack("regular", name);
        let catalog = catalog(&fixture);
        let series = catalog.pick(None).expect(name);
        series.load(&LoadOptions::default()).expect(name);
        let paths = files(&fixture);
        // Another slice of the series, or one of another.
        let from = if paths.len() > 1 { &paths[0] } else { &files(&other)[0] };
        std::fs::copy(from, paths.last().expect("a file")).expect("copies");
        match series.load(&LoadOptions::default()) {
            Err(Error::Input { path, found, .. }) => {
                assert!(found.contains("changed"), "{name}: {found}");
                assert_eq!(Some(&path), paths.last(), "{name}");
            }
            other => panic!("{name}: {:?}", other.map(|loaded| loaded.notes)),
        }
    }
}

fn verdict(series: &Series) -> (&'static str, String) {
    match &series.verdict {
        Verdict::Suitable => ("suitable", String::new()),
        Verdict::Corrected(notes) => ("corrected", notes.join("; ")),
        Verdict::Refused { found, expected } => ("refused", format!("{found}: {expected}")),
    }
}

#[test]
fn odd_series_get_their_verdict_and_say_why() {
    let kinds = fixtures("odd");
    assert!(kinds.len() >= 30);
    for (name, about) in kinds {
        let fixture = Fixture::unpack("odd", &name);
        let catalog = catalog(&fixture);
        let (mut verdicts, said): (Vec<_>, Vec<_>) = catalog.series.iter().map(verdict).unzip();
        verdicts.sort_unstable();
        let mut expected: Vec<&str> = about["verdicts"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        expected.sort_unstable();
        assert_eq!(verdicts, expected, "{name}: {said:?}");
        let said = said.join("; ");
        let says = about["says"].as_str().unwrap_or_default();
        assert!(says.split('|').any(|part| said.contains(part)), "{name}: {said:?}, not {says:?}");

        for series in &catalog.series {
            let loaded = series.load(&LoadOptions::default());
            let failure = about.get("load").and_then(Value::as_str);
            match (loaded, failure) {
                (Ok(loaded), None) => {
                    assert!(series.is_suitable(), "{name}");
                    assert_eq!(Some(loaded.grid.shape), series.shape, "{name}");
                    assert_eq!(loaded.voxels.shape(), loaded.grid.shape, "{name}");
                }
                (Err(error), None) => assert!(!series.is_suitable(), "{name}: {error}"),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (Ok(_), Some(part)) => panic!("{name}: read in spite of {part:?}"),
            }
        }
    }
}

/// Names in the fixtures, in any spelling that a character set gives them.
const NAMES: [&str; 9] = ["Doe", "Jane", "Roe", "Moe", "Müller", "Yamada", "山田", "王", "Люк"];

#[test]
fn no_patient_is_named_unless_asked_for() {
    for group in ["regular", "odd"] {
        for (name, _) in fixtures(group) {
            let fixture = Fixture::unpack(group, &name);
            let catalog = catalog(&fixture);
            let mut said = catalog.to_json(false).to_string();
            for series in &catalog.series {
                write!(said, "{:?}", series.load(&LoadOptions::default()).map(|l| l.notes))
                    .expect("a string");
                said += &series.name;
            }
            write!(said, "{:?}", catalog.pick(None).err()).expect("a string");
            write!(said, "{:?}", catalog.damaged).expect("a string");
            for word in NAMES {
                assert!(!said.contains(word), "{group}/{name}: {word} in {said}");
            }
        }
    }
    let fixture = Fixture::unpack("regular", "explicit_little");
    let shown = catalog(&fixture).to_json(true).to_string();
    assert!(shown.contains("Series of Jane Doe"), "descriptions are shown to who asks: {shown}");
}

#[test]
fn a_zip_reads_as_its_folder() {
    let fixture = Fixture::unpack("odd", "zip");
    let folder = catalog(&fixture);
    let zip = scan(&fixture.path().join("study.zip"), &ScanOptions::default()).expect("a zip");
    let load = |c: &Catalog| c.pick(None).and_then(|s| s.load(&LoadOptions::default()));
    let (a, b) = (load(&folder).expect("a series"), load(&zip).expect("a series"));
    assert_eq!((a.voxels, a.grid, a.sha256), (b.voxels, b.grid, b.sha256));
    let plain = Fixture::unpack("regular", "explicit_little");
    assert_eq!(load(&catalog(&plain)).expect("a series").voxels, load(&zip).expect("again").voxels);
}

#[test]
fn a_dicomdir_stands_for_its_folder() {
    let fixture = Fixture::unpack("odd", "junk_and_index");
    let index = scan(&fixture.path().join("DICOMDIR"), &ScanOptions::default()).expect("an index");
    assert_eq!(index.series.len(), 1);
    assert_eq!(index.others, 4, "the index itself, an empty file, a text and a picture");
    assert!(index.damaged.is_empty());
}

#[test]
fn one_file_is_a_series_of_one_or_of_its_frames() {
    let one = Fixture::unpack("regular", "explicit_little");
    let file = one.path().join("IM0000.dcm");
    let error = scan(&file, &ScanOptions::default()).expect("a file").pick(None).expect_err("one");
    assert!(error.to_string().contains("1 slice"), "{error}");
    let many = Fixture::unpack("regular", "enhanced");
    let file = many.path().join("IM0000.dcm");
    let catalog = scan(&file, &ScanOptions::default()).expect("a file");
    assert_eq!(catalog.pick(None).expect("frames").slices, 6);
}

#[test]
fn several_series_are_listed_and_one_is_picked() {
    let fixture = Fixture::unpack("odd", "two_kernels");
    let catalog = catalog(&fixture);
    let error = catalog.pick(None).expect_err("two parts");
    assert!(matches!(error, Error::Usage { .. }));
    for series in &catalog.series {
        assert!(error.to_string().contains(&series.id()), "{error}");
        assert_eq!(catalog.pick(Some(&series.id())).expect("picked").name, series.name);
        assert_eq!(catalog.pick(Some(&series.name)).expect("by digest").name, series.name);
    }
    assert!(matches!(catalog.pick(Some("1.2.3")), Err(Error::Usage { .. })));
    let uid = catalog.series[0].series_uid.clone();
    assert!(
        matches!(catalog.pick(Some(&uid)), Err(Error::Usage { .. })),
        "two parts have this UID"
    );

    let fixture = Fixture::unpack("odd", "pdf_beside");
    let catalog = self::catalog(&fixture);
    let refused = catalog.series.iter().find(|series| !series.is_suitable()).expect("the document");
    let error = catalog.pick(Some(&refused.series_uid)).expect_err("no CT");
    assert!(matches!(error, Error::Input { .. }) && error.to_string().contains("document"));
}

#[test]
fn studies_are_cases_of_their_own() {
    let fixture = Fixture::unpack("odd", "two_studies");
    let catalog = catalog(&fixture);
    let studies = catalog.studies();
    assert_eq!(studies.len(), 2);
    let names: Vec<&str> =
        studies.iter().map(|study| study.pick().expect("one each").name.as_str()).collect();
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() == 16));
}

#[test]
fn gaps_are_filled_only_if_asked_for() {
    let fixture = Fixture::unpack("odd", "slice_missing");
    let options = ScanOptions { allow_gaps: true, ..Default::default() };
    let catalog = scan(fixture.path(), &options).expect("a folder");
    let series = catalog.pick(None).expect("corrected");
    assert!(verdict(series).1.contains("filled by interpolation"));
    let filled = series.load(&LoadOptions::default()).expect("a volume");
    let whole = Fixture::unpack("regular", "explicit_little");
    let whole = self::catalog(&whole).pick(None).expect("one").load(&LoadOptions::default());
    let whole = whole.expect("a volume");
    assert_eq!(filled.grid, whole.grid);
    for k in [0, 1, 3, 4, 5] {
        assert_eq!(filled.voxels.slice(k), whole.voxels.slice(k), "slice {k}");
    }
}

#[test]
fn memory_is_foretold_and_bounded() {
    for name in ["explicit_little", "enhanced"] {
        let fixture = Fixture::unpack("regular", name);
        let catalog = catalog(&fixture);
        let series = catalog.pick(None).expect("one");
        let need = series.bytes().expect("a volume");
        assert!(need >= 2 * 6 * 24 * 20);
        let error = series.load(&LoadOptions { max_bytes: need - 1 }).expect_err("too much");
        assert!(matches!(error, Error::Memory { need_bytes, .. } if need_bytes == need), "{error}");
        series.load(&LoadOptions { max_bytes: need }).expect("just enough");
    }
}

#[test]
fn integers_stay_integers_where_all_slices_agree() {
    // (group, series, whether its voxels are integers as they are stored)
    let cases = [
        ("regular", "explicit_little", true),
        ("regular", "enhanced", true),
        ("regular", "rescale_per_slice", false),
        ("odd", "gantry_tilt", false),
    ];
    for (group, name, is_stored) in cases {
        let fixture = Fixture::unpack(group, name);
        let catalog = catalog(&fixture);
        let loaded = catalog.pick(None).expect("one").load(&LoadOptions::default());
        let voxels = loaded.expect("a volume").voxels;
        assert_eq!(matches!(voxels, Voxels::I16 { .. }), is_stored, "{name}");
    }
}

#[test]
fn limits_on_files_are_kept() {
    let fixture = Fixture::unpack("regular", "explicit_little");
    let mut options = ScanOptions::default();
    options.limits.max_files = 5;
    let error = scan(fixture.path(), &options).expect_err("six files");
    assert!(error.to_string().contains("more than 5 files"), "{error}");
    let zip = Fixture::unpack("odd", "zip");
    let error = scan(&zip.path().join("study.zip"), &options).expect_err("six entries");
    assert!(error.to_string().contains("more than 5 files"), "{error}");
    let mut options = ScanOptions::default();
    options.limits.max_file_bytes = 1000;
    let catalog = scan(&zip.path().join("study.zip"), &options).expect("a zip");
    assert_eq!((catalog.series.len(), catalog.damaged.len()), (0, 6), "entries beyond the limit");
    options.limits.max_file_bytes = 1 << 20;
    options.limits.max_elements = 20;
    let catalog = scan(fixture.path(), &options).expect("a folder");
    assert!(catalog.series.iter().all(|series| !series.is_suitable()));
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    let fixture = Fixture::unpack("odd", "one_slice");
    let nothing = fixture.path().join("nothing");
    assert!(matches!(scan(&nothing, &ScanOptions::default()), Err(Error::Read { .. })));
    std::fs::create_dir(&nothing).expect("a folder");
    let empty = scan(&nothing, &ScanOptions::default()).expect("an empty folder");
    let error = empty.pick(None).expect_err("nothing in it");
    assert!(error.to_string().contains("without DICOM images"), "{error}");
}

#[test]
fn the_same_series_gives_the_same_volume_at_any_number_of_threads() {
    for name in ["gantry_tilt", "thicker_further_on", "frames_in_any_order"] {
        let fixture = Fixture::unpack("odd", name);
        let read = |threads| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let loaded =
                    catalog(&fixture).pick(None).expect("one").load(&LoadOptions::default());
                let loaded = loaded.expect("a volume");
                (loaded.voxels, loaded.sha256)
            })
        };
        assert_eq!(read(1), read(3), "{name}");
    }
}
