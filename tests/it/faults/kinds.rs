//! What is no file where a file is expected: it is refused at once, never waited for or read without
//! end.

use super::{program, refused, scan};
use crate::copy_folder;
use fastnnunet::registry;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

fn device(path: &Path) {
    let _ = fs::remove_file(path);
    std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
}

/// Every place where the program expects a small file, as a pipe and as a device.
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
    let selftest = registry::find("selftest").expect("built in");
    for (make, kind) in [(pipe as fn(&Path), "pipe"), (device, "device")] {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let refuse = |what: &str, code: i32, arguments: &[&std::ffi::OsStr]| {
            let mut command = program();
            command.arg("-i").arg(scan()).arg("-o").arg(at("labels.nii.gz")).args(arguments);
            let message = refused(command.timeout(Duration::from_secs(20)), code);
            assert!(message.contains("a pipe or device"), "{kind} as {what}: {message}");
        };
        for name in
            ["plans.json", "dataset.json", "postprocessing.pkl", "fold_0/checkpoint_final.pth"]
        {
            let model = at(&name.replace('/', "-"));
            copy_folder(&plain, &model);
            make(&model.join(name));
            // A folder lists its folds by files, so that a checkpoint of another kind is none.
            if name.contains("fold_0") {
                let folds = ["--folds", "0"].map(std::ffi::OsStr::new);
                let mut command = program();
                command.arg("-i").arg(scan()).arg("--model").arg(&model).args(folds);
                refused(command.timeout(Duration::from_secs(20)), 4);
            } else {
                refuse(name, 4, &["--model".as_ref(), model.as_os_str()]);
            }
        }
        fs::write(at("net.onnx"), selftest.onnx().expect("embedded")).expect("writes");
        fs::write(at("good.json"), selftest.config_json()).expect("writes");
        for (name, onnx, config) in
            [("the configuration", "net.onnx", "odd"), ("the network", "odd.onnx", "good.json")]
        {
            make(&at("odd"));
            make(&at("odd.onnx"));
            let (onnx, config) = (at(onnx), at(config));
            let files: [&std::ffi::OsStr; 4] =
                ["--model".as_ref(), onnx.as_ref(), "--config".as_ref(), config.as_ref()];
            refuse(name, 4, &files);
        }
        let recipe = at("odd");
        let files: [&std::ffi::OsStr; 4] =
            ["--model".as_ref(), "selftest".as_ref(), "--postprocess".as_ref(), recipe.as_ref()];
        refuse("a recipe", 2, &files);
        let models = at("models");
        fs::create_dir(&models).expect("folder");
        make(&models.join("modes.json"));
        let mut command = program();
        command.args(["modes", "--models-dir"]).arg(&models).timeout(Duration::from_secs(20));
        refused(&mut command, 4);
        // The settings of FastnnUNet's engine.
        make(&at("engine.ini"));
        let mut command = program();
        command.arg("convert").arg(at("engine.ini")).arg("-o").arg(at("converted"));
        refused(command.timeout(Duration::from_secs(20)), 4);
    }
}

/// A pipe that is called like what a killed run leaves is no leftover, and nobody waits for it.
#[test]
fn a_pipe_called_like_a_leftover_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("folder");
    let odd = folder.path().join(".fastnnunet-l.nii.gz-abcdef.tmp");
    pipe(&odd);
    let mut command = program();
    command.args(["--model", "selftest", "-i"]).arg(scan()).arg("-o");
    command.arg(folder.path().join("l.nii.gz")).timeout(Duration::from_secs(20));
    command.assert().success();
    assert!(odd.exists() && folder.path().join("l.nii.gz").exists());
}
