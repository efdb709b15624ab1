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
