//! Weights that are not in a folder of nnU-Net's full name: those that run all the same, and those of
//! other programs, refused by name.

use crate::copy_folder;
use crate::folders::path as nnunet;
use crate::import::program;
use crate::totalseg::{agreement, labels};
use assert_cmd::Command;
use std::fs;
use std::path::Path;

/// What a failing command says.
fn refused(command: &mut Command, code: i32) -> String {
    let run = command.assert().code(code);
    String::from_utf8_lossy(&run.get_output().stderr).into_owned()
}

#[test]
fn weights_of_mrsegmentator_are_a_renamed_training_whose_images_are_turned() {
    let folder = tempfile::tempdir().expect("folder");
    let [base, models] = ["base", "models"].map(|name| folder.path().join(name));
    copy_folder(&nnunet("models/Dataset001_Plain/nnUNetTrainer__nnUNetPlans__3d_fullres"), &base);
    let import = |more: &[&str]| {
        let mut command = program(&["import", "--name", "mrsegmentator", "-o"]);
        command.arg(&models).arg(&base).args(more);
        command
    };
    for (turned, agrees) in [(&[][..], false), (&["--orientation", "lps"], true)] {
        for link in [&[][..], &["--link"]] {
            import(&["--overwrite"]).args(turned).args(link).assert().success();
            let output = folder.path().join("labels.nii.gz");
            let mut run = program(&["--model", "mrsegmentator", "--precision", "f32", "--quiet"]);
            run.args(["--overwrite", "--models-dir"]).arg(&models).arg("-i");
            run.arg(nnunet("images/turned.nii.gz")).arg("-o").arg(&output).assert().success();
            // Of the rest nnU-Net's 16-bit sums decide (tests/nnunet/README.md).
            let share = agreement(&output, &nnunet("expected/mrsegmentator.nii.gz"));
            assert_eq!(share > 0.999, agrees, "{turned:?} {link:?}: {share}");
        }
    }
    // It is another model if its images lie otherwise.
    let said = refused(&mut import(&["--link", "--orientation", "RAS"]), 7);
    assert!(said.contains("--overwrite"), "{said}");
    let again = import(&["--link", "--orientation", "LPS"]).assert().success();
    let said = String::from_utf8_lossy(&again.get_output().stdout).into_owned();
    assert!(said.contains("1 of the same weights were there"), "{said}");
}

#[test]
fn names_and_orientations_are_for_one_training_that_is_not_known() {
    let folder = tempfile::tempdir().expect("folder");
    let known = nnunet("../totalseg/results");
    let own = nnunet("models/Dataset001_Plain");
    let cases: [(&Path, &[&str], &str); 5] = [
        (&known, &["--name", "mine"], "trainings"),
        (&own, &["--name", "total_low"], "no known task"),
        (&own, &["--name", "../up"], "lowercase letters"),
        (&own, &["--orientation", "up"], "LPS, RAS or native"),
        (&known, &["--orientation", "LPS"], "none for what is known"),
    ];
    for (source, more, part) in cases {
        let mut command = program(&["import", "-o"]);
        let said = refused(command.arg(folder.path()).arg(source).args(more), 2);
        assert!(said.contains(part), "{more:?}: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
}

#[test]
fn weights_of_other_programs_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let cases = [
        ("Task003_Liver/fold_0/model_final_checkpoint.model.pkl", "nnU-Net v1"),
        ("lungmask/unet_r231-d5d2fc3d.pth", "lungmask"),
        ("wholeBody_ct_segmentation/configs/metadata.json", "MONAI"),
        ("ct_fm/model.safetensors", "CT-FM"),
        ("mine/best.ckpt", "without nnU-Net's plans"),
    ];
    for (file, name) in cases {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, "x").expect("written");
        let top = folder.path().join(file.split('/').next().expect("a folder"));
        let said = refused(program(&["import", "--list"]).arg(&top), 4);
        assert!(said.contains(name) && said.contains("nnU-Net v2"), "{file}: {said}");
        let to = folder.path().join("labels.nii.gz");
        let mut run = program(&["-i"]);
        run.arg(nnunet("images/plain.nii.gz")).arg("-o").arg(&to).arg("--model").arg(&top);
        let said = refused(&mut run, 4);
        assert!(said.contains(name), "{file}: {said}");
        let listed = program(&["modes", "--models-dir"]).arg(&top).assert().success();
        let said = String::from_utf8_lossy(&listed.get_output().stderr).into_owned();
        assert!(said.contains(name), "{file}: {said}");
    }
    let file = folder.path().join("lungmask/unet_r231-d5d2fc3d.pth");
    let said = refused(program(&["import", "--list"]).arg(&file), 4);
    assert!(said.contains("lungmask"), "{said}");
    let mut run = program(&["-i", "ct.nii.gz", "--model"]);
    let said = refused(run.arg(&file), 2);
    assert!(said.contains("an ONNX file"), "{said}");
}

fn of_v1(configuration: &str) -> std::path::PathBuf {
    nnunet(&format!("v1/{configuration}/Task001_Seeded/nnUNetTrainerV2__nnUNetPlansv2.1"))
}

/// What would compute otherwise than our reading of the same weights.
#[test]
fn trainings_of_nnunet_v1_that_are_not_the_usual_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let changes = [
        ("fold_0/model_final_checkpoint.model.pkl", "nnUNetTrainerV2", "nnUNetV2_ReLU_x"),
        ("fold_0/model_final_checkpoint.model.pkl", "nnUNetTrainerV2", "CascadeFullResX"),
        ("plans.pkl", "GenericPreprocessor", "AnotherPreprocessor"),
    ];
    for (file, from, to) in changes {
        let trained = folder.path().join(to);
        copy_folder(&of_v1("3d_fullres"), &trained);
        let bytes = fs::read(trained.join(file)).expect("a pickle");
        let mut text: String = bytes.iter().copied().map(char::from).collect();
        assert!(text.contains(from), "{file}");
        text = text.replace(from, to);
        let bytes: Vec<u8> = text.chars().map(|c| u32::from(c) as u8).collect();
        fs::write(trained.join(file), bytes).expect("changed");
        let mut run = program(&["--folds", "0", "-o", "x.nii.gz", "-i"]);
        run.arg(nnunet("images/plain.nii.gz")).arg("--model").arg(&trained);
        let said = refused(&mut run, 4);
        assert!(said.contains(to), "{to}: {said}");
    }
}

#[test]
fn the_fold_of_all_cases_has_another_name_in_nnunet_v1() {
    let folder = tempfile::tempdir().expect("folder");
    let trained = folder.path().join("nnUNetTrainerV2__nnUNetPlansv2.1");
    copy_folder(&of_v1("3d_fullres"), &trained);
    let output = folder.path().join("labels.nii.gz");
    let segment = |fold: &str| {
        let mut run = program(&["--mirror", "none", "--quiet", "--overwrite", "-i"]);
        run.arg(nnunet("images/thick.nii.gz")).arg("-o").arg(&output).arg("--model").arg(&trained);
        run.args(["--folds", fold]).assert().success();
        labels(&output)
    };
    let numbered = segment("1");
    fs::rename(trained.join("fold_1"), trained.join("all")).expect("renamed");
    assert_eq!(segment("all"), numbered);
}

/// The label maps in `tests/nnunet/expected` that nnU-Net v1 wrote.
#[test]
fn a_training_of_nnunet_v1_answers_as_there() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let top = nnunet("v1");
    program(&["import", "-o"]).arg(&models).arg(&top).assert().success();
    let runs: [(&str, &str, &[&str]); 6] = [
        ("plain", "plain", &["--folds", "0", "--mirror", "none", "--postprocess", "none"]),
        ("plain_mirrored", "plain", &["--folds", "0", "--postprocess", "none"]),
        ("thick", "thick", &["--mirror", "none", "--postprocess", "none"]),
        ("box", "box", &["--folds", "0", "--mirror", "none", "--postprocess", "none"]),
        ("box_kept", "box", &["--folds", "0", "--mirror", "none"]),
        ("plain_2d", "plain", &["--folds", "0"]),
    ];
    for (name, image, options) in runs {
        let output = folder.path().join("labels.nii.gz");
        let segment = |model: &[&std::ffi::OsStr], more: &[&str]| {
            let mut run = program(&["--precision", "f32", "--quiet", "--overwrite", "-i"]);
            run.arg(nnunet(&format!("images/{image}.nii.gz"))).arg("-o").arg(&output);
            run.args(model).args(more).assert().success();
            labels(&output)
        };
        let trained = of_v1(if name.ends_with("2d") { "2d" } else { "3d_fullres" });
        let found = segment(&["--model".as_ref(), trained.as_os_str()], options);
        let share = agreement(&output, &nnunet(&format!("expected/v1_{name}.nii.gz")));
        assert!(share >= 0.9999, "{name}: {share}");
        if name == "thick" {
            let imported = ["--models-dir".as_ref(), models.as_os_str(), "--model".as_ref()];
            let imported = [&imported[..], &["seeded_3d_fullres".as_ref()]].concat();
            assert_eq!(segment(&imported, options), found, "what was imported answers alike");
        }
    }
}
