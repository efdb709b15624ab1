//! Files in, files out.

use crate::nifti_files::{HU, Nifti, SROW, ct, ct2, gzip, unusable};
use fastnnunet::io::{NiftiVersion, ReadOptions, SourceHeader, save_labels};
use fastnnunet::model::Reader;
use fastnnunet::{Error, ErrorKind, Existing, OutputType, Result, Scan};
use ndarray::{Array3, s};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Loads bytes through a file.
fn load_bytes(bytes: &[u8]) -> Result<Scan> {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("case.nii.gz");
    fs::write(&path, bytes).expect("temporary file");
    Scan::open(&path)
}

fn values(scan: &Scan) -> Vec<f32> {
    scan.voxels().to_f32().iter().copied().collect()
}

#[test]
fn every_type_version_and_byte_order_is_read() {
    fn raw<const N: usize>(f: impl Fn(i16) -> [u8; N]) -> Vec<[u8; 8]> {
        let widen = |v: &i16| {
            let mut wide = [0; 8];
            wide[..N].copy_from_slice(&f(*v));
            wide
        };
        HU.iter().map(widen).collect()
    }
    // (datatype, bytes per sample, intercept, little-endian samples)
    let cases = [
        (2, 1, -1000.0, raw(|v| [((v + 1000) / 100) as u8])),
        (256, 1, -1000.0, raw(|v| (((v + 1000) / 100) as i8).to_le_bytes())),
        (4, 2, 0.0, raw(i16::to_le_bytes)),
        (512, 2, -1000.0, raw(|v| ((v + 1000) as u16).to_le_bytes())),
        (8, 4, 0.0, raw(|v| i32::from(v).to_le_bytes())),
        (768, 4, -1000.0, raw(|v| ((v + 1000) as u32).to_le_bytes())),
        (16, 4, 0.0, raw(|v| f32::from(v).to_le_bytes())),
        (64, 8, 0.0, raw(|v| f64::from(v).to_le_bytes())),
        (1024, 8, 0.0, raw(|v| i64::from(v).to_le_bytes())),
        (1280, 8, -1000.0, raw(|v| ((v + 1000) as u64).to_le_bytes())),
    ];
    let expected: Vec<f32> = HU.iter().map(|&v| f32::from(v)).collect();
    for (datatype, size, intercept, samples) in cases {
        for big_endian in [false, true] {
            for base in [ct(), ct2()] {
                let slope = if size == 1 { 100.0 } else { 1.0 };
                let mut voxels = Vec::new();
                for sample in &samples {
                    let mut sample = sample[..size].to_vec();
                    if big_endian {
                        sample.reverse();
                    }
                    voxels.extend(sample);
                }
                let file =
                    Nifti { datatype, big_endian, voxels, scaling: [slope, intercept], ..base };
                for bytes in [file.bytes(), gzip(&file.bytes())] {
                    let scan = load_bytes(&bytes).expect("valid file");
                    assert_eq!(values(&scan), expected, "{file:?}");
                    assert_eq!(scan.voxels().to_f32().dim(), (2, 3, 4));
                    assert_eq!(scan.grid().shape, [2, 3, 4]);
                    assert_eq!(scan.grid().spacing.to_vec(), [2.5, 1.5, 0.75]);
                    assert_eq!(scan.grid().affine.0, SROW);
                    assert_eq!(scan.warnings(), [""; 0]);
                }
            }
        }
    }
}

#[test]
fn scaling_that_means_none_follows_itk() {
    // (slope, intercept, value of the first voxel)
    let cases = [
        (1.0, 0.0, -1000.0),
        (0.0, 0.0, -1000.0),
        (0.0, 5.0, -995.0),
        (f64::NAN, 5.0, -995.0),
        (f64::INFINITY, 0.0, -1000.0),
        (2.0, f64::NAN, -2000.0),
        (0.5, 1.0, -499.0),
    ];
    for (slope, intercept, first) in cases {
        for base in [ct(), ct2()] {
            let file = Nifti { scaling: [slope, intercept], ..base };
            let scan = load_bytes(&file.bytes()).expect("valid file");
            assert_eq!(values(&scan)[..1], [first], "{slope} {intercept}");
        }
    }
}

#[test]
fn grids_are_those_that_itk_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/headers");
    let json = fs::read_to_string(folder.join("expected.json")).expect("fixture");
    let all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&json).expect("fixture");
    assert!(all.len() > 50);
    for (name, expected) in all {
        let found = Scan::open(folder.join(format!("{name}.nii")));
        if expected.is_null() {
            assert!(matches!(found, Err(Error::Input { .. })), "{name}: {found:?}");
            continue;
        }
        let grid = found.unwrap_or_else(|e| panic!("{name}: {e}")).grid().clone();
        for axis in 0..3 {
            let spacing = expected["spacing_xyz"][axis].as_f64().expect("number");
            // ITK multiplies unit and spacing in f32.
            let gap = (grid.spacing[2 - axis] - spacing).abs();
            assert!(gap <= 1e-7 * spacing, "{name}: {:?}", grid.spacing);
            for column in 0..4 {
                let wanted = expected["affine"][axis][column].as_f64().expect("number");
                let got = grid.affine.0[axis][column];
                let bound = 1e-6 * wanted.abs().max(1.0);
                assert!((got - wanted).abs() <= bound, "{name} {axis} {column}: {got} {wanted}");
            }
        }
    }
}

/// ITK compares left singular vectors, which flipped axes may share: an image keeps its sform
/// though `pixdim[0]` lost its sign, or does not.
#[test]
fn the_transform_is_the_one_that_itk_chooses() {
    #[derive(serde::Deserialize)]
    struct Pair {
        quaternion: [f64; 3],
        qfac: f64,
        spacing: [f64; 3],
        rows: [[f64; 4]; 3],
        sform: bool,
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/headers");
    let json = fs::read_to_string(folder.join("similar.json")).expect("fixture");
    let pairs: Vec<Pair> = serde_json::from_str(&json).expect("fixture");
    assert!(pairs.iter().filter(|pair| pair.sform).count() > 30);
    assert!(pairs.iter().filter(|pair| !pair.sform).count() > 30);
    for (k, Pair { quaternion, qfac, spacing, rows, sform }) in pairs.into_iter().enumerate() {
        let [x, y, z] = spacing;
        let file = Nifti {
            pixdim: [qfac, x, y, z],
            codes: [1, 2],
            qform: [quaternion, rows.map(|row| row[3])],
            srow: rows,
            ..ct()
        };
        let got = load_bytes(&file.bytes()).expect("valid file").grid().affine.0;
        let gap = (0..3).fold(0.0_f64, |gap, c| {
            let length = rows.iter().map(|row| row[c] * row[c]).sum::<f64>().sqrt();
            let gaps = (0..3).map(|r| (got[r][c] / spacing[c] - rows[r][c] / length).abs());
            gaps.fold(gap, f64::max)
        });
        assert_eq!(gap < 1e-5, sform, "{k}: {gap}");
    }
}

#[test]
fn unusable_files_are_input_errors() {
    for (case, content, message) in unusable() {
        let e = load_bytes(&content).expect_err(case);
        assert!(matches!(e, Error::Input { .. }), "{case}: {e:?}");
        assert_eq!(e.kind(), ErrorKind::Input, "{case}");
        assert!(e.to_string().contains(message), "{case}: {e}");
        assert!(!e.to_string().contains("DOE"), "{case}: {e}");
    }
}

#[test]
fn nibabel_drops_the_sign_of_a_spacing_and_knows_no_empty_axes() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("case.nii");
    let read = |file: Nifti| {
        fs::write(&path, file.bytes()).expect("temporary file");
        Scan::open_with(
            &path,
            &ReadOptions { reader: Some(Reader::NibabelReorient), ..Default::default() },
        )
    };
    let scan = read(Nifti { pixdim: [1.0, -0.75, 1.5, 2.5], ..ct() }).expect("valid file");
    assert_eq!(scan.grid().spacing, [2.5, 1.5, 0.75]);
    assert!(scan.warnings().iter().any(|w| w.contains("sign is dropped")), "{:?}", scan.warnings());
    let e = read(Nifti { dim: vec![4, 4, 3, 2, 0], ..ct() }).expect_err("nothing in it");
    assert!(e.to_string().contains("a size of 0 along axis 4"), "{e}");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = TempDir::new().expect("temporary folder");
    let missing = Scan::open(folder.path().join("no.nii")).expect_err("missing");
    assert!(matches!(missing, Error::Read { .. }), "{missing:?}");
    assert_eq!(missing.kind(), ErrorKind::Input);
    let e = Scan::open(folder.path()).expect_err("folder");
    assert!(e.to_string().contains("found a folder"), "{e}");
    assert_eq!(e.kind(), ErrorKind::Input);
}

#[test]
fn limit_is_checked_before_reading() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("a.nii");
    fs::write(&path, ct().bytes()).expect("temporary file");
    let within = |max_bytes| ReadOptions { max_bytes, ..Default::default() };
    assert!(Scan::open_with(&path, &within(48)).is_ok());
    let e = Scan::open_with(&path, &within(47)).expect_err("limit");
    assert_eq!(e.to_string(), "the image needs 48 bytes, the limit is 47 bytes");
    assert_eq!(e.kind(), ErrorKind::Memory);
}

#[test]
fn odd_but_usable_files_are_read() {
    let plain = ct().bytes();
    let mut extended = Nifti { offset: 352.0 + 32.0, voxels: vec![7; 32], ..ct() };
    extended.voxels.extend(ct().voxels);
    let mut members = gzip(&plain[..300]);
    members.extend(gzip(&plain[300..360]));
    members.extend(gzip(&plain[360..]));
    let tail = |mut bytes: Vec<u8>| {
        bytes.extend(b"tail");
        bytes
    };
    let far = Nifti { codes: [1, 1], ..ct() };
    let shear = [[-0.75, 0.5, 0.0, 0.0], SROW[1], SROW[2]];
    let flat = ct().voxels.iter().map(|_| 0).collect();
    // (case, content, word of the only warning, if any)
    let cases = [
        ("trailing axes", Nifti { dim: vec![5, 4, 3, 2, 1, 1], ..ct() }.bytes(), ""),
        ("one slice", Nifti { dim: vec![3, 6, 4, 1], ..ct() }.bytes(), ""),
        ("sizes beyond the axes", Nifti { dim: vec![3, 4, 3, 2, 9, 9], ..ct() }.bytes(), ""),
        ("no time points", Nifti { dim: vec![4, 4, 3, 2, 0], ..ct() }.bytes(), "axis 4 is taken"),
        ("extension", extended.bytes(), ""),
        ("gzip members", members, ""),
        ("trailing bytes", tail(plain.clone()), "goes on"),
        ("trailing bytes in gzip", gzip(&tail(plain.clone())), "goes on"),
        ("trailing bytes after gzip", tail(gzip(&plain)), "goes on"),
        ("no orientation", Nifti { codes: [0, 0], ..ct() }.bytes(), "orientation is unknown"),
        ("transforms differ", far.bytes(), "differently; the sform"),
        ("shear with qform", Nifti { codes: [1, 1], srow: shear, ..ct() }.bytes(), "sheared"),
        ("flat", Nifti { voxels: flat, ..ct() }.bytes(), "look like a CT"),
        ("positive", Nifti { scaling: [1.0, 1000.0], ..ct() }.bytes(), "from 0 to 2300"),
    ];
    for (case, content, word) in cases {
        let scan = load_bytes(&content).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(scan.warnings().len(), usize::from(!word.is_empty()), "{case} {scan:?}");
        assert!(scan.warnings().iter().all(|w| w.contains(word)), "{case}: {:?}", scan.warnings());
    }
}

#[test]
fn label_maps_come_back_with_the_geometry_of_the_image() {
    let folder = TempDir::new().expect("temporary folder");
    let labels = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| (z * 12 + y * 4 + x) as u16 * 999);
    let small = labels.mapv(|v| (v / 999) as u8);
    let oblique = Nifti { codes: [1, 2], units: 10, pixdim: [-1.0, 0.75, 1.5, 2.5], ..ct() };
    let four = |n| Nifti { dim: vec![4, 4, 3, 2, n], ..ct2() };
    for file in [ct(), ct2(), oblique, four(1), four(0)] {
        let scan = load_bytes(&file.bytes()).expect("valid file");
        for (name, zipped) in [("new/folder/a.nii", false), ("b.nii.gz", true), ("C.NII.GZ", true)]
        {
            let path = folder.path().join(name);
            save_labels(&path, labels.view().into(), scan.header(), Existing::Replace)
                .expect("writable");
            let back = Scan::open(&path).expect("own file");
            assert_eq!(back.grid(), scan.grid(), "{name}");
            assert_eq!(back.header(), scan.header(), "{name}");
            assert_eq!(back.voxels().to_f32().mapv(|v| v as u16), labels, "{name}");
            let is_gzip = fs::read(&path).expect("file").starts_with(&[0x1f, 0x8b]);
            assert_eq!(is_gzip, zipped, "{name}");

            save_labels(&path, small.view().into(), scan.header(), Existing::Replace)
                .expect("writable");
            let back = Scan::open(&path).expect("own file");
            assert_eq!(back.voxels().to_f32().mapv(|v| v as u8), small, "{name}");
        }
    }
}

#[test]
fn label_map_header_holds_what_readers_need_and_no_text_of_the_source() {
    let folder = TempDir::new().expect("temporary folder");
    let labels = Array3::<u8>::zeros((2, 3, 4));
    let path = folder.path().join("a.nii");
    for (file, size, intent, datatype, text, offset) in
        [(ct(), 348, 68, 70, 148, 352_usize), (ct2(), 540, 504, 12, 240, 544)]
    {
        let scan = load_bytes(&file.bytes()).expect("valid file");
        assert_eq!(scan.header().version == NiftiVersion::One, size == 348);
        save_labels(&path, labels.view().into(), scan.header(), Existing::Replace)
            .expect("writable");
        let bytes = fs::read(&path).expect("file");
        assert_eq!(bytes.len(), offset + 24);
        assert_eq!(bytes[..4], i32::to_le_bytes(size));
        assert_eq!(bytes[intent..intent + 2], 1002_i16.to_le_bytes());
        assert_eq!(bytes[datatype..datatype + 2], 2_i16.to_le_bytes());
        let name = format!("fastnnunet {}\0", env!("CARGO_PKG_VERSION"));
        assert!(bytes[text..].starts_with(name.as_bytes()));
        assert!(!bytes.windows(3).any(|w| w == b"DOE"));
    }
}

#[test]
fn views_in_any_memory_order_are_written_alike() {
    let folder = TempDir::new().expect("temporary folder");
    let scan = load_bytes(&ct().bytes()).expect("valid file");
    let wide = Array3::from_shape_fn((2, 3, 8), |(z, y, x)| (z * 24 + y * 8 + x) as u8);
    let view = wide.slice(s![.., .., ..;-2]);
    let dense = view.as_standard_layout().into_owned();
    let (a, b) = (folder.path().join("a.nii.gz"), folder.path().join("b.nii.gz"));
    save_labels(&a, view.into(), scan.header(), Existing::Keep).expect("writable");
    save_labels(&b, dense.view().into(), scan.header(), Existing::Keep).expect("writable");
    assert_eq!(fs::read(a).expect("file"), fs::read(b).expect("file"));
}

#[test]
fn nothing_is_replaced_or_left_behind() {
    let folder = TempDir::new().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let count = || fs::read_dir(folder.path()).expect("folder").count();
    let scan = load_bytes(&ct().bytes()).expect("valid file");
    let labels = Array3::<u8>::zeros((2, 3, 4));
    let check = |name: &str, existing| OutputType::Nifti.check(&at(name), existing, &[]);
    let save = |name: &str, overwrite| {
        save_labels(&at(name), labels.view().into(), scan.header(), overwrite)
    };

    check("deep/er/a.nii.gz", Existing::Keep).expect("can be created");
    check("a.nii.gz", Existing::Keep).expect("free name");
    assert_eq!(count(), 0, "a check leaves nothing");

    fs::write(at("a.nii.gz"), b"mine").expect("file");
    for result in [check("a.nii.gz", Existing::Keep), save("a.nii.gz", Existing::Keep)] {
        let e = result.expect_err("exists");
        assert!(matches!(&e, Error::Write { path, .. } if *path == at("a.nii.gz")), "{e:?}");
        assert_eq!(e.kind(), ErrorKind::Output);
    }
    assert_eq!(fs::read(at("a.nii.gz")).expect("file"), b"mine");
    check("a.nii.gz", Existing::Replace).expect("may be replaced");
    save("a.nii.gz", Existing::Replace).expect("may be replaced");
    assert_eq!(count(), 1, "no temporary file stays");

    fs::create_dir(at("dir.nii")).expect("folder");
    for name in ["dir.nii", "a.nii.gz/b.nii"] {
        assert_eq!(
            check(name, Existing::Replace).expect_err(name).kind(),
            ErrorKind::Output,
            "{name}"
        );
        assert_eq!(
            save(name, Existing::Replace).expect_err(name).kind(),
            ErrorKind::Output,
            "{name}"
        );
    }
    for name in ["a", "a.gz", "a.nrrd", ".nii.gz", ".nii"] {
        assert_eq!(
            check(name, Existing::Replace).expect_err(name).kind(),
            ErrorKind::Usage,
            "{name}"
        );
        assert_eq!(
            save(name, Existing::Replace).expect_err(name).kind(),
            ErrorKind::Usage,
            "{name}"
        );
    }
    assert_eq!(count(), 2, "no temporary file stays");
}

#[cfg(unix)]
#[test]
fn results_have_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().expect("temporary folder");
    let scan = load_bytes(&ct().bytes()).expect("valid file");
    let (ours, theirs) = (folder.path().join("a.nii"), folder.path().join("b.nii"));
    let labels = Array3::<u8>::zeros((2, 3, 4));
    save_labels(&ours, labels.view().into(), scan.header(), Existing::Keep).expect("writable");
    fs::write(&theirs, b"").expect("writable");
    let mode = |path: &Path| fs::metadata(path).expect("file").permissions().mode();
    assert_eq!(mode(&ours), mode(&theirs));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn mutated_files_never_panic(
        second in any::<bool>(),
        big_endian in any::<bool>(),
        zipped in any::<bool>(),
        changes in prop::collection::vec((0_usize..600, any::<u8>()), 0..8),
        keep in 0_usize..700,
    ) {
        let mut bytes = Nifti { big_endian, ..if second { ct2() } else { ct() } }.bytes();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(keep);
        let content = if zipped { gzip(&bytes) } else { bytes };
        if let Err(e) = load_bytes(&content) {
            prop_assert!(matches!(e.kind(), ErrorKind::Input | ErrorKind::Memory), "{e:?}");
        }
    }

    #[test]
    fn mutated_gzip_never_panics(
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 1..6),
    ) {
        let mut bytes = gzip(&ct().bytes());
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Err(e) = load_bytes(&bytes) {
            prop_assert!(matches!(e.kind(), ErrorKind::Input | ErrorKind::Memory), "{e:?}");
        }
    }
}

#[test]
fn a_volume_without_a_file_gets_its_own_header() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("a.nii.gz");
    let grid = load_bytes(&ct().bytes()).expect("valid file").grid().clone();
    let labels = Array3::<u8>::zeros((2, 3, 4));
    save_labels(&path, labels.view().into(), &SourceHeader::for_grid(&grid), Existing::Keep)
        .expect("writable");
    assert_eq!(*Scan::open(&path).expect("own file").grid(), grid);
}
