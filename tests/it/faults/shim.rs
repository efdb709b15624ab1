//! Calls of the operating system that fail, at every place in turn, by a library that is loaded before
//! the C library: codes of the table, nothing half, nothing left.

use super::{files_below, hostile, program, scan};
use fastnnunet::Scan;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Builds the shim. Rust's own linker is the C compiler, so there is one wherever this test is.
pub(super) fn shim(folder: &Path) -> PathBuf {
    let built = folder.join("calls_that_fail.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&built);
    compiler.arg(hostile("calls_that_fail.c")).arg("-ldl");
    let status = compiler.status().expect("a C compiler, which Rust links with");
    assert!(status.success(), "cc refuses tests/hostile/calls_that_fail.c");
    built
}

/// The exit code, which is one of the table, with a sentence if it is not 0.
pub(super) fn explained(output: &Output, case: &str) -> i32 {
    let text = String::from_utf8_lossy(&output.stderr);
    let Some(code) = output.status.code() else { panic!("{case}: {:?}: {text}", output.status) };
    assert!(matches!(code, 0 | 2..=7), "{case}: code {code}: {text}");
    assert!(code == 0 || text.lines().any(|line| line.starts_with("error: ")), "{case}: {text}");
    // No crate says anything of its own.
    assert!(!text.contains("::") && !text.contains("panicked"), "{case}: {text}");
    code
}

/// Checks what a run left: whole files under names that a run of success would have made.
pub(super) fn check_left(folder: &Path, made: &[&str], case: &str) {
    for path in files_below(folder) {
        let name = path.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
        assert!(made.contains(&name.as_str()), "{case}: {name} is left");
        let content = fs::read(&path).expect("readable");
        let is_whole = match name.rsplit('.').next().unwrap_or_default() {
            "gz" => Scan::open(&path).is_ok(),
            "png" => content.ends_with(b"IEND\xaeB`\x82"),
            "npz" => zip::ZipArchive::new(std::io::Cursor::new(content)).is_ok(),
            "json" => serde_json::from_slice::<serde_json::Value>(&content).is_ok(),
            "onnx" => fastnnunet::model::onnx::Graph::read(&content).is_ok(),
            _ => false,
        };
        assert!(is_whole, "{case}: {name} is half");
    }
}

/// Something the program does, and the files it makes.
struct Job {
    name: &'static str,
    arguments: fn(&Path) -> Vec<PathBuf>,
    made: &'static [&'static str],
    /// Files that only come together.
    whole: bool,
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn words(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

const JOBS: [Job; 4] = [
    Job {
        name: "a single case",
        arguments: |out| {
            let mut all = words(&["--model", "selftest", "--save-probabilities", "-i"]);
            all.extend([scan(), "-o".into(), out.join("l.nii.gz"), "--preview".into()]);
            all.push(out.join("l.png"));
            all
        },
        made: &["l.nii.gz", "l.npz", "l.png"],
        whole: false,
    },
    Job {
        name: "a batch",
        arguments: |out| {
            let images = out.with_extension("images");
            fs::create_dir_all(&images).expect("folder");
            for name in ["a.nii.gz", "b.nii.gz"] {
                fs::copy(path("tests/golden/case/input_small.nii.gz"), images.join(name))
                    .expect("copies");
            }
            // Results that replace others are renamed by the C library, others by the system itself.
            let mut all = words(&["--model", "selftest", "--overwrite", "-i"]);
            all.extend([images, "-o".into(), out.to_path_buf()]);
            all
        },
        made: &["a.nii.gz", "b.nii.gz"],
        whole: false,
    },
    Job {
        name: "convert",
        arguments: |out| {
            let model = path("tests/nnunet/folders/plain");
            let mut all = vec!["convert".into(), model, "-o".into(), out.to_path_buf()];
            all.extend(words(&["--name", "net"]));
            all
        },
        made: &["net.onnx", "net.json"],
        whole: true,
    },
    Job {
        name: "import",
        arguments: |out| {
            let models = path("tests/nnunet/models/Dataset001_Plain");
            vec!["import".into(), models, "-o".into(), out.to_path_buf()]
        },
        made: &[
            "plain_3d_fullres/plain_3d_fullres.onnx",
            "plain_3d_fullres/plain_3d_fullres.json",
            "plain_3d_fullres/import.json",
        ],
        whole: true,
    },
];

/// A call, what it says, whether only once, and whether the program should not mind.
struct Fault {
    call: &'static str,
    errno: i32,
    once: bool,
    is_no_matter: bool,
}

const fn fault(call: &'static str, errno: i32) -> Fault {
    Fault { call, errno, once: false, is_no_matter: false }
}

const FAULTS: [Fault; 9] = [
    // ENOSPC, EIO, EINTR, EMFILE.
    fault("write", 28),
    fault("write", 5),
    Fault { once: true, is_no_matter: true, ..fault("write", 4) },
    fault("read", 5),
    Fault { once: true, is_no_matter: true, ..fault("read", 4) },
    Fault { is_no_matter: true, ..fault("short", 0) },
    fault("fsync", 5),
    fault("rename", 28),
    fault("open", 24),
];

/// Places tried: every one with `FASTNNUNET_FAULTS=all`, else ever further apart.
fn next(at: u64) -> u64 {
    let all = std::env::var_os("FASTNNUNET_FAULTS").is_some_and(|value| value == "all");
    if all { at + 1 } else { 2 * at + 1 }
}

/// Runs a job with each fault at place after place; how many that were.
fn check(job: &Job) -> usize {
    let tools = tempfile::tempdir().expect("folder");
    let shim = shim(tools.path());
    let program = program();
    let mut points = 0;
    for Fault { call, errno, once, is_no_matter } in FAULTS {
        let mut at = 1;
        loop {
            let case = format!("{}: {call} fails with {errno} from {at}", job.name);
            let folder = tempfile::tempdir().expect("folder");
            let out = folder.path().join("out");
            fs::create_dir(&out).expect("folder");
            let mut command = Command::new(program.get_program());
            command.args((job.arguments)(&out)).env("LD_PRELOAD", &shim).env("FAULT_CALL", call);
            command.env("XDG_DATA_HOME", folder.path().join("nobody"));
            command.env("FAULT_AT", at.to_string()).env("FAULT_ERRNO", errno.to_string());
            let told = folder.path().join("told");
            command.env("FAULT_TOLD", &told);
            if once {
                command.env("FAULT_ONCE", "1");
            }
            let output = command.stdout(Stdio::null()).output().expect("it runs");
            let code = explained(&output, &case);
            assert!(code == 0 || !is_no_matter, "{case}: code {code}");
            check_left(&out, job.made, &case);
            let left = files_below(&out).len();
            let is_all = left == job.made.len();
            assert!(is_all || code != 0, "{case}: code 0 and {left} files");
            assert!(is_all || left == 0 || !job.whole, "{case}: {left} files of a whole");
            // Beyond the last such call.
            if !told.exists() {
                assert_eq!(code, 0, "{case}, which did not happen");
                assert!(at > 1 || call == "rename", "{case}: there is no such call");
                break;
            }
            points += 1;
            at = next(at);
        }
    }
    points
}

#[test]
fn calls_that_fail_leave_nothing_half_of_a_case() {
    println!("{} places", check(&JOBS[0]));
}

#[test]
fn calls_that_fail_leave_nothing_half_of_a_batch() {
    println!("{} places", check(&JOBS[1]));
}

#[test]
fn calls_that_fail_leave_nothing_half_of_a_conversion() {
    println!("{} places", check(&JOBS[2]));
}

#[test]
fn calls_that_fail_leave_nothing_half_of_an_import() {
    println!("{} places", check(&JOBS[3]));
}

/// Arguments of a job that writes to a folder.
type Arguments = Box<dyn Fn(&Path) -> Vec<PathBuf>>;

/// A signal may interrupt any call: every second one that reads, or writes, has to be made again.
#[test]
fn interrupted_calls_are_made_again() {
    let tools = tempfile::tempdir().expect("folder");
    let shim = shim(tools.path());
    let program = program();
    let formats = path("tests/fixtures/formats");
    let mut jobs: Vec<(String, Arguments)> = Vec::new();
    for Job { name, arguments, .. } in JOBS {
        jobs.push((name.to_owned(), Box::new(arguments)));
    }
    let mut cases = vec![(scan(), path("tests/nnunet/folders/plain"))];
    for entry in fs::read_dir(&formats).expect("images of other formats").flatten() {
        let image = entry.path();
        if image.extension().is_some_and(|ending| ending == "nrrd" || ending == "mha") {
            cases.push((image, "selftest".into()));
        }
    }
    if cfg!(feature = "dicom") {
        cases.push((path("tests/fixtures/chest_series.zip"), "selftest".into()));
    }
    for (image, model) in cases {
        let name = format!("{} by {}", image.display(), model.display());
        let case = move |out: &Path| {
            let given = ["-i".into(), image.clone(), "--model".into(), model.clone()];
            [&given[..], &["-o".into(), out.join("l.nii.gz")]].concat()
        };
        jobs.push((name, Box::new(case)));
    }
    let mut interrupted = 0;
    for (name, arguments) in &jobs {
        let mut run = |call: Option<&str>| {
            let folder = tempfile::tempdir().expect("folder");
            let out = folder.path().join("out");
            fs::create_dir(&out).expect("folder");
            let mut command = Command::new(program.get_program());
            command.args(arguments(&out)).env("XDG_DATA_HOME", folder.path().join("nobody"));
            if let Some(call) = call {
                command.env("LD_PRELOAD", &shim).env("FAULT_CALL", call);
                command.env("FAULT_EVERY", "2").env("FAULT_ERRNO", "4");
                command.env("FAULT_TOLD", folder.path().join("told"));
            }
            let output = command.stdout(Stdio::null()).output().expect("it runs");
            let code = explained(&output, name);
            let files = files_below(&out).len();
            // A small result is one call that writes.
            let told = folder.path().join("told").exists();
            assert!(told || call != Some("read"), "{name}: nothing was interrupted");
            interrupted += usize::from(told);
            (code, files, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, files, _) = run(None);
        for call in ["read", "write"] {
            // What is refused undisturbed writes nothing that could be interrupted.
            if code != 0 && call == "write" {
                continue;
            }
            let (found, made, said) = run(Some(call));
            assert_eq!((found, made), (code, files), "{name}: {call}: {said}");
        }
    }
    assert!(interrupted > jobs.len() + 3, "{interrupted} of {} jobs", jobs.len());
}

#[test]
fn threads_that_cannot_be_started_are_fewer_threads() {
    let tools = tempfile::tempdir().expect("folder");
    let shim = shim(tools.path());
    let program = program();
    for at in [1, 2, 3, 4, 6] {
        for job in &JOBS[..2] {
            let case = format!("{}: thread {at}", job.name);
            let folder = tempfile::tempdir().expect("folder");
            let out = folder.path().join("out");
            fs::create_dir(&out).expect("folder");
            let mut command = Command::new(program.get_program());
            command.args((job.arguments)(&out)).args(["--threads", "4"]);
            command.env("LD_PRELOAD", &shim).env("FAULT_CALL", "thread");
            let output = command.env("FAULT_AT", at.to_string()).output().expect("it runs");
            assert_eq!(explained(&output, &case), 0, "{case}");
            check_left(&out, job.made, &case);
            assert_eq!(files_below(&out).len(), job.made.len(), "{case}");
        }
        let mut command = Command::new(program.get_program());
        command.args(["selftest", "--model", "selftest", "--device", "cpu"]);
        command.env("LD_PRELOAD", &shim).env("FAULT_CALL", "thread");
        let output = command.env("FAULT_AT", at.to_string()).output().expect("it runs");
        assert_eq!(explained(&output, &format!("selftest: thread {at}")), 0);
    }
}

/// The image is replaced by another of the same shape as soon as it was read: picture and parts of
/// bone are those of what was segmented.
#[test]
fn an_image_is_read_once() {
    let tools = tempfile::tempdir().expect("folder");
    let shim = shim(tools.path());
    let program = program();
    // Quick models that answer mode bone.
    let parts = crate::cli::bones();
    for mode in
        [&["--model", "selftest"][..], &["--mode", "bone", "--quality", "low", "--enable-subseg"]]
    {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let run = |image: &Path, to: &str| {
            let mut command = Command::new(program.get_program());
            command.args(mode).arg("-i").arg(image).arg("-o").arg(at(&format!("{to}.nii.gz")));
            command.arg("--preview").arg(at(&format!("{to}.png")));
            if mode[0] == "--mode" {
                command.arg("--models-dir").arg(parts.path());
            }
            command
        };
        let whole = fs::read(scan()).expect("reads");
        fs::write(at("ct.nii.gz"), &whole).expect("writes");
        let expected = run(&at("ct.nii.gz"), "whole").output().expect("it runs");
        assert_eq!(explained(&expected, "undisturbed"), 0, "{mode:?}: {expected:?}");
        let read = |name: &str| fs::read(at(name)).expect("made");
        let (labels, picture) = (read("whole.nii.gz"), read("whole.png"));
        // Another image of that shape, and one of another shape.
        for other in ["input_zeros.nii.gz", "input_small.nii.gz"] {
            fs::copy(path("tests/golden/case").join(other), at("other.nii.gz")).expect("copies");
            // Of the same name, which the picture shows.
            fs::create_dir_all(at("again")).expect("folder");
            let image = at("again").canonicalize().expect("there").join("ct.nii.gz");
            fs::write(&image, &whole).expect("writes");
            let mut command = run(&image, "replaced");
            command.arg("--overwrite").env("LD_PRELOAD", &shim).env("FAULT_CALL", "replace");
            command.env("FAULT_PATH", &image).env("FAULT_OTHER", at("other.nii.gz"));
            let output = command.output().expect("it runs");
            assert_eq!(explained(&output, other), 0, "{other}: {output:?}");
            assert!(!at("other.nii.gz").exists(), "the image was replaced");
            assert!(read("replaced.nii.gz") == labels, "labels with {other}");
            assert!(read("replaced.png") == picture, "the picture with {other}");
        }
    }
}
