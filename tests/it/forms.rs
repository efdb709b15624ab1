//! Images and label maps in other formats than NIfTI, and surfaces, through the built program. That
//! other programs read them as they are meant is judged by `tests/fixtures/check_outputs.py`.

use crate::series::{fixture, run, selftest};
use fastnnunet::Scan;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The fixture's voxels in 32-bit floats, as NRRD and as `MetaImage`.
fn write_images(scan: &Scan, folder: &Path) {
    let [z, y, x] = scan.grid().shape;
    // These formats count left and posterior.
    let column = |c: usize| {
        let [a, b, c] = scan.affine().0.map(|row| row[c]);
        [-a, -b, c]
    };
    let list = |values: &[f64], between: &str| {
        values.iter().map(f64::to_string).collect::<Vec<_>>().join(between)
    };
    let voxels: Vec<u8> = scan.voxels().to_f32().iter().flat_map(|v| v.to_le_bytes()).collect();
    let directions: Vec<String> = (0..3).map(|c| format!("({})", list(&column(c), ","))).collect();
    let nrrd = format!(
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: {x} {y} {z}\n\
         space directions: {}\nendian: little\nencoding: raw\nspace origin: ({})\n\n",
        directions.join(" "),
        list(&column(3), ","),
    );
    fs::write(folder.join("ct.nrrd"), [nrrd.as_bytes(), &voxels].concat()).expect("writes");
    let [dz, dy, dx] = scan.grid().spacing;
    let spacing = [dx, dy, dz];
    let matrix: Vec<f64> = (0..3).flat_map(|c| column(c).map(|v| v / spacing[c])).collect();
    let mha = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = False\nTransformMatrix = {}\nOffset = {}\nElementSpacing = {}\n\
         DimSize = {x} {y} {z}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n",
        list(&matrix, " "),
        list(&column(3), " "),
        list(&spacing, " "),
    );
    fs::write(folder.join("other.mha"), [mha.as_bytes(), &voxels].concat()).expect("writes");
}

/// SimpleITK wrote one image in each format, plain and packed (`tests/fixtures/make_formats.py`).
#[test]
fn what_simple_itk_writes_is_one_image_in_every_format() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let open =
        |name: String| Scan::open(folder.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for kind in ["int16", "uint8", "float32", "float64"] {
        let nifti = open(format!("{kind}.nii"));
        for ending in [".nrrd", "_packed.nrrd", ".mha", "_packed.mha", "_packed.nii.gz"] {
            let other = open(format!("{kind}{ending}"));
            assert!(other.voxels().to_f32() == nifti.voxels().to_f32(), "{kind}{ending}");
            assert_near(&other, &nifti, &format!("{kind}{ending}"));
        }
    }
}

/// NIfTI has 32-bit numbers.
fn assert_near(found: &Scan, expected: &Scan, what: &str) {
    let places = found.affine().0.into_iter().zip(expected.affine().0);
    for (own, theirs) in places.flat_map(|(a, b)| a.into_iter().zip(b)) {
        assert!((own - theirs).abs() < 1e-4, "{what}: {own}, expected {theirs}");
    }
}

#[test]
fn nrrd_and_meta_image_are_segmented_as_nifti_is_and_written_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("in")).expect("a folder");
    let scan = Scan::open(fixture("nii.gz")).expect("reads");
    write_images(&scan, &at("in"));
    // What Slicer wrote about an image is no image.
    fs::write(at("in").join("ct.seg.nrrd"), "of another program").expect("writes");
    run(selftest(&fixture("nii.gz")).arg("-o").arg(at("labels.nii.gz")), 0);
    let types = ["--output-type=nrrd", "--output-type=mha", "--output-type=seg-nrrd"];
    run(selftest(&at("in")).arg("-o").arg(at("out")).args(types), 0);
    let expected = Scan::open(at("labels.nii.gz")).expect("reads");
    for case in ["ct", "other"] {
        for ending in ["nrrd", "mha", "seg.nrrd"] {
            let found = at("out").join(format!("{case}_selftest.{ending}"));
            let found = Scan::open(found).expect("reads");
            assert!(found.voxels().to_f32() == expected.voxels().to_f32(), "{case} {ending}");
            assert_near(&found, &expected, &format!("{case} {ending}"));
        }
    }
    let text = fs::read(at("out/ct_selftest.seg.nrrd")).expect("reads");
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("\nSegment1_Name:=two\n"), "names of segments");
}

#[test]
fn surfaces_are_listed_and_complete_where_the_list_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let types = ["--output-type=stl", "--output-type=gltf"];
    for (name, threads) in [("a", "--threads=1"), ("b", "--threads=3")] {
        run(selftest(&fixture("nii.gz")).arg("-o").arg(at(name)).args(types).arg(threads), 0);
    }
    let (stl, glb) = ("chest_series_selftest_surfaces", "chest_series_selftest.glb");
    let read = |path: String| fs::read(at(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let list: Value =
        serde_json::from_slice(&read(format!("a/{stl}/structures.json"))).expect("JSON");
    let rows = list["structures"].as_array().expect("structures");
    assert!(!rows.is_empty());
    for row in rows {
        let file = row["file"].as_str().expect("a name");
        let bytes = read(format!("a/{stl}/{file}"));
        assert!(bytes == read(format!("b/{stl}/{file}")), "{file} at another thread count");
        let triangles = row["triangles"].as_u64().expect("a count");
        assert_eq!(bytes.len() as u64, 84 + 50 * triangles, "{file}");
        let [ml, voxels_ml] = ["ml", "voxels_ml"].map(|key| row[key].as_f64().expect("ml"));
        assert!((ml - voxels_ml).abs() <= 1e-3 * voxels_ml, "{file}: {ml} of {voxels_ml} ml");
    }
    let bytes = read(format!("a/{glb}"));
    assert!(bytes == read(format!("b/{glb}")), "glTF at another thread count");
    assert_eq!(&bytes[..4], b"glTF");
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four")) as usize;
    let document: Value = serde_json::from_slice(&bytes[20..20 + length]).expect("JSON");
    assert_eq!(document["meshes"].as_array().map(Vec::len), Some(rows.len()));

    // What is complete is left alone, what is not is made again.
    let again = |word: &str, status| {
        run(selftest(&fixture("nii.gz")).arg("-o").arg(at("a")).args(types).arg(word), status);
    };
    let first = format!("a/{stl}/{}", rows[0]["file"].as_str().expect("a name"));
    again("--quiet", 7);
    fs::write(at(&first), "made thinner by hand").expect("writes");
    again("--skip-existing", 0);
    assert_eq!(read(first.clone()), b"made thinner by hand");
    fs::remove_file(at(&format!("a/{stl}/structures.json"))).expect("removes");
    again("--overwrite", 0);
    assert_ne!(read(first), b"made thinner by hand");
}
