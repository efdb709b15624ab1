//! Runs that are ended from outside: by limits of the system, by signals, by `kill -9`.

use super::bounded::{one_patch, processor_time};
use super::networks::Network;
use super::shim::{check_left, explained};
use super::{files_below, program, scan};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const MADE: [&str; 3] = ["l.nii.gz", "l.npz", "l.png"];

/// The program ready to segment the small scan, with a picture and probabilities.
fn run(folder: &Path) -> Command {
    let built = program();
    let mut command = Command::new(built.get_program());
    command.args(["--model", "selftest", "--save-probabilities", "-i"]).arg(scan());
    command.arg("-o").arg(folder.join("l.nii.gz")).arg("--preview").arg(folder.join("l.png"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The same under a limit of the shell's `ulimit`.
fn limited(limit: &str, folder: &Path) -> Output {
    let run = run(folder);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {limit}; exec \"$@\"")).arg("sh").arg(run.get_program());
    shell.args(run.get_args()).stdout(Stdio::null()).output().expect("a shell")
}

/// The KiB of address space without which the program, as it is built here, does not even start.
fn least_to_start() -> u64 {
    let starts = |kib: &u64| {
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -v {kib}; exec \"$0\" --version");
        shell.arg("-c").arg(limited).arg(program().get_program());
        shell.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a shell").success()
    };
    (1..400).map(|k| k * 4_000).find(starts).expect("it starts")
}

#[test]
fn limits_of_the_system_end_in_a_code() {
    let least = least_to_start();
    let space = |more: u64| format!("-v {}", least + more);
    for (limit, codes) in [
        ("-f 1".to_owned(), &[7][..]),
        ("-f 8".to_owned(), &[7]),
        (space(12_000), &[6]),
        (space(100_000), &[0, 6]),
        (space(300_000), &[0, 6]),
        ("-d 60000".to_owned(), &[0, 6]),
        ("-d 100000".to_owned(), &[0, 6]),
        ("-n 8".to_owned(), &[0, 3, 4, 7]),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let output = limited(&limit, folder.path());
        let code = explained(&output, &limit);
        assert!(codes.contains(&code), "{limit}: code {code}");
        check_left(folder.path(), &MADE, &limit);
    }
}

fn started(folder: &Path) -> Child {
    run(folder).stderr(Stdio::null()).spawn().expect("it starts")
}

/// How long a whole run takes here and now.
fn length() -> Duration {
    let folder = tempfile::tempdir().expect("folder");
    let begun = Instant::now();
    assert!(started(folder.path()).wait().expect("it ends").success());
    begun.elapsed()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.expect("kill").success());
}

/// Sends a signal and waits for the end. The time is what passed, or what the program took of
/// processors meanwhile where that is less: the machine may be busy with something else.
fn ended(child: &mut Child, name: &str) -> (ExitStatus, Duration) {
    let stat = format!("/proc/{}/stat", child.id());
    let taken = || processor_time(&fs::read_to_string(&stat).unwrap_or_default());
    signal(child, name);
    let (sent, before) = (Instant::now(), taken());
    let mut last = before;
    loop {
        last = last.max(taken());
        if let Some(status) = child.try_wait().expect("a child") {
            return (status, sent.elapsed().min(last.saturating_sub(before)));
        }
        assert!(sent.elapsed() < Duration::from_secs(20), "{name} is not noticed");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a run returns that a signal ended.
fn code_of(name: &str) -> i32 {
    match name {
        "HUP" => 129,
        "INT" => 130,
        "TERM" => 143,
        other => panic!("{other} is not listened for"),
    }
}

/// Sends a signal after `share` of a run; how long it took to end, if it had not ended before.
fn ended_by(name: &str, share: f64) -> Option<Duration> {
    let after = length().mul_f64(share);
    let folder = tempfile::tempdir().expect("folder");
    let mut child = started(folder.path());
    thread::sleep(after);
    if child.try_wait().expect("a child").is_some() {
        return None;
    }
    let (status, took) = ended(&mut child, name);
    // Before it listens, the system's default ends it; a run that was all but done ends as it would.
    let ended =
        [Some(0), Some(code_of(name))].contains(&status.code()) || status.signal().is_some();
    assert!(ended, "{name} at {share}: {status:?}");
    check_left(folder.path(), &MADE, &format!("{name} at {share}"));
    Some(took)
}

#[test]
fn a_signal_ends_a_run_within_half_a_second_whatever_it_is_doing() {
    let mut stopped = 0;
    for k in 0..12_u32 {
        let name = ["TERM", "INT", "HUP"][k as usize % 3];
        let share = (f64::from(k) + 0.5) / 12.0;
        let Some(took) = ended_by(name, share) else { continue };
        assert!(took < Duration::from_millis(500), "{name} at {share}: {took:?}");
        stopped += 1;
    }
    // A run may be over sooner than the one that was measured, beside other tests.
    assert!(stopped >= 3, "only {stopped} of 12 runs were stopped");
}

/// A tile that takes many times as long as that: transposed convolutions of plain loops.
#[test]
fn a_signal_ends_a_run_within_a_long_tile() {
    let folder = tempfile::tempdir().expect("folder");
    let mut network = Network::default();
    network.weights("few", &[128, 1, 1, 1, 1]).weights("w", &[128, 128, 5, 5, 5]);
    network.weights("head", &[2, 128, 1, 1, 1]);
    network.node("Conv", &["input", "few"], "s0", &[]);
    for k in 0..12 {
        let [from, to] = [k, k + 1].map(|k| format!("s{k}"));
        network.node("ConvTranspose", &[&from, "w"], &to, &[("pads", &[2; 6])]);
    }
    network.node("Conv", &["s12", "head"], "output", &[]);
    let built = network.command_on(&one_patch(folder.path()), folder.path(), 2);
    let mut command = Command::new(built.get_program());
    command.args(built.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in ["TERM", "INT", "HUP"] {
        let mut child = command.spawn().expect("it starts");
        thread::sleep(Duration::from_secs(1));
        let (status, took) = ended(&mut child, name);
        assert_eq!(status.code(), Some(code_of(name)), "{name}");
        assert!(took < Duration::from_millis(500), "{name}: {took:?}");
        assert!(!folder.path().join("labels.nii.gz").exists(), "{name}");
    }
    // Who is started to survive the end of its terminal does. That SIGINT is ignored, as in a job that a
    // script starts with `&`, keeps nobody from ending it so.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(command.get_program());
    shell.args(command.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().expect("it starts");
    thread::sleep(Duration::from_secs(1));
    signal(&child, "HUP");
    thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().expect("a child").is_none(), "it goes on");
    let (status, _) = ended(&mut child, "INT");
    assert_eq!(status.code(), Some(130));
}

/// What comes after the label map may fail, but never takes that along.
#[test]
fn a_finished_label_map_stays_when_what_is_beside_it_cannot_be_written() {
    let folder = tempfile::tempdir().expect("folder");
    assert!(limited("-f unlimited", folder.path()).status.success());
    let made = |name: &str| fs::read(folder.path().join(name)).expect("made");
    let (labels, probabilities) = (made("l.nii.gz"), made("l.npz"));
    // Shells count in blocks of 512 or of 1024 bytes.
    let blocks = labels.len().div_ceil(512);
    assert!(probabilities.len() > 1024 * blocks, "more than the limit");
    let folder = tempfile::tempdir().expect("folder");
    let output = limited(&format!("-f {blocks}"), folder.path());
    assert_eq!(explained(&output, "a limit for the label map"), 7);
    let left = folder.path().join("l.nii.gz");
    assert_eq!(files_below(folder.path()).len(), 1);
    assert!(fs::read(left).expect("there") == labels);
}

/// Killed at any moment, a run leaves whole files and what the next run of the same output removes;
/// `FASTNNUNET_KILLS` says how often.
#[test]
fn a_killed_run_leaves_nothing_that_the_next_does_not_remove() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let length = length();
    let asked = std::env::var("FASTNNUNET_KILLS").ok();
    let rounds: u32 = asked.and_then(|count| count.parse().ok()).unwrap_or(20);
    let clear = || {
        for name in MADE {
            let _ = fs::remove_file(folder.path().join(name));
        }
    };
    let mut left = 0;
    for k in 0..rounds {
        clear();
        let mut child = started(folder.path());
        // Spread over the run, with its end, where files are written, more often than its begin.
        let share = f64::from(k * 7 % rounds + 1) / f64::from(rounds);
        thread::sleep(length.mul_f64(share.sqrt()));
        let _ = child.kill();
        child.wait().expect("it ends");
        for path in files_below(folder.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !MADE.contains(&name.as_str()) {
                assert!(name.starts_with(".fastnnunet-l."), "{name}");
                let found = fs::metadata(&path).expect("there").permissions().mode();
                let source = fs::metadata(scan()).expect("there").permissions().mode();
                assert_eq!(found & !source & 0o777, 0, "{name} is more readable than the image");
                left += 1;
            }
        }
    }
    println!("{rounds} kills, {left} temporary files seen");
    clear();
    assert!(started(folder.path()).wait().expect("it ends").success());
    check_left(folder.path(), &MADE, "after kills");
}

/// An import that is interrupted takes the folder with it in which it made models.
#[test]
fn a_signal_ends_an_import_and_leaves_whole_models_only() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/models");
    let import = |to: &Path| {
        let built = program();
        let mut command = Command::new(built.get_program());
        command.arg("import").arg(&models).arg("-o").arg(to);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let whole = tempfile::tempdir().expect("folder");
    let begun = Instant::now();
    // One of these trainings is refused, after several that are not.
    import(whole.path()).wait().expect("it ends");
    let length = begun.elapsed();
    assert!(fs::read_dir(whole.path()).expect("a folder").count() > 3);
    for k in 0..6_u32 {
        let folder = tempfile::tempdir().expect("folder");
        let mut child = import(folder.path());
        thread::sleep(length * (2 * k + 1) / 12);
        if child.try_wait().expect("a child").is_none() {
            signal(&child, "INT");
        }
        child.wait().expect("it ends");
        for entry in fs::read_dir(folder.path()).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with('.'), "{k}: {name} is left");
            let known = whole.path().join(&name);
            assert_eq!(
                files_below(&entry.path()).len(),
                files_below(&known).len(),
                "{k}: {name} is half"
            );
        }
    }
}
