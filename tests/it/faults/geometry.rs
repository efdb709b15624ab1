//! Geometry is finite after every product, in every reader.

use super::{program, scan};
use crate::nifti_files::{self, Nifti};
use fastnnunet::infer::{self, EngineOptions};
use fastnnunet::io::ReadOptions;
use fastnnunet::model::{Orientation, Reader};
use fastnnunet::pipeline::{self, Input, Settings};
use fastnnunet::volume::{Affine, AxisMap, Grid, Voxels};
use fastnnunet::{ErrorKind, Scan, registry};
use ndarray::Array3;
use std::fs;
use std::ops::ControlFlow;

const READERS: [Option<Reader>; 5] = [
    None,
    Some(Reader::SimpleItk),
    Some(Reader::SimpleItkReorient),
    Some(Reader::Nibabel),
    Some(Reader::NibabelReorient),
];

/// Files whose numbers are finite, but not what is computed of them.
fn overflowing() -> Vec<(&'static str, Nifti)> {
    let with = |srow: [[f64; 4]; 3], pixdim: [f64; 4], units| Nifti {
        pixdim,
        srow,
        units,
        ..nifti_files::ct2()
    };
    let (usual, pixdim) = (nifti_files::SROW, nifti_files::ct2().pixdim);
    let diagonal = |s: f64| [[s, 0.0, 0.0, 0.0], [0.0, s, 0.0, 0.0], [0.0, 0.0, s, 0.0]];
    let mut one_long = usual;
    one_long[1][0] = 1e154;
    let mut far = usual;
    far[0][3] = 1e307;
    vec![
        ("every axis of 1e154 mm", with(diagonal(1e154), [1.0, 1e154, 1e154, 1e154], 2)),
        ("an sform of 1e154 mm", with(diagonal(1e154), pixdim, 2)),
        ("an sform of 1e308 mm", with(diagonal(1e308), pixdim, 2)),
        ("one axis of 1e154 mm", with(one_long, pixdim, 2)),
        ("metres beyond millimetres", with(far, [1.0, 1e306, 1e306, 1e306], 1)),
        ("voxels beyond volumes", with(usual, [1.0, 1e120, 1e120, 1e120], 2)),
    ]
}

#[test]
fn geometry_that_overflows_is_refused_or_finite_in_every_reader() {
    let folder = tempfile::tempdir().expect("folder");
    let mut refused = 0;
    for (case, file) in overflowing() {
        let path = folder.path().join("ct.nii");
        fs::write(&path, file.bytes()).expect("writes");
        for reader in READERS {
            let options = ReadOptions { reader, ..ReadOptions::default() };
            let scan = match Scan::open_with(&path, &options) {
                Ok(scan) => scan,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Input, "{case}: {error}");
                    refused += 1;
                    continue;
                }
            };
            let grid = scan.grid();
            let numbers = grid.affine.0.as_flattened().iter().chain(&grid.spacing);
            assert!(numbers.chain([&grid.voxel_ml()]).all(|v| v.is_finite()), "{case}: {grid:?}");
            for axis in 0..3 {
                let length: f64 = grid.affine.step(axis).iter().map(|s| s * s).sum();
                assert!(length.is_finite(), "{case} with {reader:?}: {grid:?}");
            }
        }
    }
    assert!(refused >= 12, "only {refused} refused");
}

/// `PixelSpacing` and what lies between slices, in a slice of a series.
#[cfg(feature = "dicom")]
fn with_spacing(bytes: &[u8], spacing: &str) -> Vec<u8> {
    let element = b"\x28\0\x30\0DS";
    let at = bytes.windows(6).position(|window| window == element).expect("PixelSpacing");
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    let mut value = format!("{spacing}\\{spacing}").into_bytes();
    value.resize(value.len().next_multiple_of(2), b' ');
    let written = (value.len() as u16).to_le_bytes();
    [&bytes[..at + 6], &written, &value, &bytes[at + 8 + length..]].concat()
}

/// Spacings from which everything is infinitely far.
#[test]
fn voxels_smaller_than_atoms_are_refused_in_every_format() {
    let folder = tempfile::tempdir().expect("folder");
    let voxels = nifti_files::ct().voxels;
    for tiny in ["1e-8", "1e-20", "1e-30", "1e-44", "1e-320"] {
        let mm: f64 = tiny.parse().expect("a number");
        let mut files = Vec::new();
        for file in [nifti_files::ct(), nifti_files::ct2()] {
            for units in [2, 3] {
                let srow = [[mm, 0.0, 0.0, 0.0], [0.0, mm, 0.0, 0.0], [0.0, 0.0, mm, 0.0]];
                let pixdim = [1.0, mm, mm, mm];
                let all = Nifti { pixdim, srow, units, ..file.clone() };
                let one = Nifti { pixdim: [1.0, 0.75, 1.5, mm], units, ..file.clone() };
                files.extend([("nii", all.bytes()), ("nii", one.bytes())]);
            }
        }
        let nrrd = format!(
            "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n\
             space directions: ({tiny},0,0) (0,{tiny},0) (0,0,{tiny})\nendian: little\n\
             encoding: raw\nspace origin: (0,0,0)\n\n"
        );
        files.push(("nrrd", [nrrd.as_bytes(), &voxels].concat()));
        let mha = format!(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
             CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n\
             ElementSpacing = {tiny} {tiny} {tiny}\nDimSize = 4 3 2\nElementType = MET_SHORT\n\
             ElementDataFile = LOCAL\n"
        );
        files.push(("mha", [mha.as_bytes(), &voxels].concat()));
        for (ending, bytes) in files {
            let path = folder.path().join(format!("ct.{ending}"));
            fs::write(&path, bytes).expect("writes");
            for reader in READERS {
                let options = ReadOptions { reader, ..ReadOptions::default() };
                let error = match Scan::open_with(&path, &options) {
                    // By a reader that takes spacing from an affine of usual length.
                    Ok(scan) => {
                        let grid = scan.grid();
                        assert!(grid.spacing.iter().all(|&mm| mm > 0.1), "{ending}: {grid:?}");
                        assert_eq!(reader, Some(Reader::NibabelReorient), "{ending}, {tiny}");
                        continue;
                    }
                    Err(error) => error,
                };
                assert_eq!(error.kind(), ErrorKind::Input, "{ending}, {tiny}: {error}");
                assert!(error.to_string().contains("expected"), "{ending}, {tiny}: {error}");
            }
        }
        #[cfg(feature = "dicom")]
        {
            let series = folder.path().join("series");
            crate::series::unpack(&series, &[]);
            for file in super::files_below(&series) {
                let bytes = fs::read(&file).expect("reads");
                fs::write(&file, with_spacing(&bytes, tiny)).expect("writes");
            }
            let error = Scan::open(&series).map(|scan| scan.grid().clone()).expect_err("tiny");
            assert_eq!(error.kind(), ErrorKind::Input, "a series, {tiny}: {error}");
        }
    }
    // Of a caller, and for a program.
    let affine = Affine([[1e-20, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let grid = Grid { shape: [2, 2, 2], spacing: [1.0, 1.0, 1e-20], affine };
    let error = Scan::new(Array3::<f32>::zeros((2, 2, 2)), grid).expect_err("tiny");
    assert!(error.to_string().contains("1e-20 mm"), "{error}");
    // What microscopes see is read.
    let mm = 1e-4;
    let srow = [[mm, 0.0, 0.0, 0.0], [0.0, mm, 0.0, 0.0], [0.0, 0.0, mm, 0.0]];
    let small = Nifti { pixdim: [1.0, mm, mm, mm], srow, ..nifti_files::ct() };
    let path = folder.path().join("small.nii");
    fs::write(&path, small.bytes()).expect("writes");
    let mut command = program();
    command.args(["--model", "selftest", "-i"]).arg(&path);
    let message = super::refused(command.arg("-o").arg(folder.path().join("l.nii")), 3);
    assert!(message.contains("half a voxel of the model"), "{message}");
}

/// Rounding makes a quaternion of 32 bits, or one copied into 64, a little longer than one: a half turn
/// in both versions, as in the NIfTI library that ITK reads with.
#[test]
fn a_quaternion_a_little_longer_than_one_is_a_half_turn_in_both_versions() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ct.nii");
    for [b, c, d] in [[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [0.577_350_27_f64; 3]] {
        let length = (b * b + c * c + d * d).sqrt();
        for reader in READERS {
            let mut found: Vec<Affine> = Vec::new();
            for longer in [0.0, 1e-12, 3e-8, 1e-7, 2e-7] {
                for file in [nifti_files::ct(), nifti_files::ct2()] {
                    let quaternion = [b, c, d].map(|part| part / length * (1.0 + longer));
                    let qform = [quaternion, [1.0, 2.0, 3.0]];
                    let file = Nifti { codes: [1, 0], qform, ..file };
                    fs::write(&path, file.bytes()).expect("writes");
                    let options = ReadOptions { reader, ..ReadOptions::default() };
                    let scan = Scan::open_with(&path, &options);
                    let scan = scan.unwrap_or_else(|error| panic!("{longer}, {reader:?}: {error}"));
                    found.push(scan.affine());
                }
            }
            for affine in &found {
                let pairs = affine.0.as_flattened().iter().zip(found[0].0.as_flattened());
                let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart < 2e-3, "{reader:?}: {found:?}");
            }
        }
    }
}

#[test]
fn every_axis_has_one_place_whatever_the_affine() {
    for value in [f64::NAN, f64::INFINITY, 1e154, 1e308, 0.0, 1e-320] {
        for orientation in [Orientation::Lps, Orientation::Ras] {
            let mut source = AxisMap::to(orientation, &Affine([[value; 4]; 3])).source;
            source.sort_unstable();
            assert_eq!(source, [0, 1, 2], "{value}");
        }
    }
}

#[test]
fn a_grid_from_a_caller_is_checked_too() {
    let affine = Affine([[1e200, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let grid = Grid { shape: [8, 8, 8], spacing: [1.0; 3], affine };
    let voxels = Array3::<f32>::zeros((8, 8, 8));
    let error = Scan::new(voxels.clone(), grid.clone()).expect_err("not finite when squared");
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");

    let model = registry::find("selftest").expect("built in");
    let config = model.config();
    let options = EngineOptions::default();
    let mut engine = infer::open(model, config.patch_size, &options).expect("engine");
    let input = Input { channels: vec![Voxels::from(voxels).into()], grid, previous: None };
    let go_on = &mut |_| ControlFlow::Continue(());
    let result =
        pipeline::segment(&mut Some(input), config, engine.as_mut(), &Settings::default(), go_on);
    assert_eq!(result.expect_err("refused").kind(), ErrorKind::Input);
}

/// In a batch, the cases after it are segmented.
#[test]
fn a_case_without_usable_geometry_does_not_keep_others_from_being_segmented() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, images) = (folder.path().join("model"), folder.path().join("images"));
    fs::create_dir_all(&model).expect("folder");
    fs::create_dir_all(&images).expect("folder");
    let selftest = registry::find("selftest").expect("built in");
    let mut config: serde_json::Value = serde_json::from_str(selftest.config_json()).expect("JSON");
    config["reader"] = "NibabelIOWithReorient".into();
    let (onnx, json) = (model.join("net.onnx"), model.join("net.json"));
    fs::write(&onnx, selftest.onnx().expect("embedded")).expect("writes");
    fs::write(&json, config.to_string()).expect("writes");
    let (_, bad) = overflowing().swap_remove(1);
    fs::write(images.join("a.nii"), bad.bytes()).expect("writes");
    fs::copy(scan(), images.join("b.nii.gz")).expect("copies");
    let output = folder.path().join("labels");
    program()
        .arg("-i")
        .arg(&images)
        .arg("-o")
        .arg(&output)
        .arg("--model")
        .arg(&onnx)
        .arg("--config")
        .arg(&json)
        .assert()
        .code(3);
    assert!(output.join("b.nii.gz").is_file() && !output.join("a.nii.gz").exists());
}
