//! Fuzz targets: on their seeds, then at random for a while.
//!
//! Seeds are the files of `tests/` and `config/`, and of the fixtures of `crates/dicom`, so none are
//! kept twice. What a run finds new stays
//! in `fuzz/corpus`, which is not in the repository; what it finds wrong becomes a file in
//! `tests/regressions` with a test.

use crate::shell::{self, Result, root};
use std::path::Path;
use std::sync::Mutex;
use std::{fs, iter, thread};

/// A target and its seeds: files below `tests/` and `config/` with one of these endings.
struct Target {
    name: &'static str,
    seeds: &'static [&'static str],
    /// Whether `crates/dicom/examples/seeds.rs` makes seeds.
    is_dicom: bool,
    /// Longest input tried, in bytes; a longer seed is cut.
    longest: u32,
}

const TARGETS: [Target; 12] = [
    Target {
        name: "nifti",
        is_dicom: false,
        seeds: &["nii", "nii.gz", "nrrd", "mha"],
        longest: 4096,
    },
    Target {
        name: "gzip",
        is_dicom: false,
        seeds: &["nii", "nii.gz", "nrrd", "mha"],
        longest: 4096,
    },
    Target { name: "onnx", is_dicom: false, seeds: &["onnx"], longest: 262_144 },
    Target { name: "network", is_dicom: false, seeds: &[], longest: 4096 },
    Target { name: "checkpoint", is_dicom: false, seeds: &["pth"], longest: 65536 },
    Target { name: "archive", is_dicom: false, seeds: &[], longest: 16384 },
    Target { name: "pickle", is_dicom: false, seeds: &["pkl"], longest: 16384 },
    Target { name: "plans", is_dicom: false, seeds: &["json", "ini"], longest: 32768 },
    Target { name: "config", is_dicom: false, seeds: &["json"], longest: 16384 },
    Target { name: "recipe", is_dicom: false, seeds: &["json"], longest: 8192 },
    Target { name: "dicom", is_dicom: true, seeds: &[], longest: 16384 },
    Target { name: "dicom_frame", is_dicom: true, seeds: &[], longest: 4096 },
];

/// What a leak or a runaway costs before the sanitizer ends it, in MiB.
const MEMORY_MIB: u32 = 3072;
/// Longest time one input may take, in seconds, sanitizers included.
const SLOWEST_SECONDS: u32 = 20;

pub(crate) fn run(arguments: &[String]) -> Result {
    let (mut stop, mut names) = ("-max_total_time=60".to_owned(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let flag = match argument.as_str() {
            "--seconds" => "max_total_time",
            "--runs" => "runs",
            name => {
                names.push(name);
                continue;
            }
        };
        let count = arguments.next().and_then(|number| number.parse::<u64>().ok());
        let count = count.ok_or_else(|| format!("{argument} takes a whole number"))?;
        stop = format!("-{flag}={count}");
    }
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|t| t.name != **name)) {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("no target {unknown}; there are {}", known.join(", ")));
    }
    let chosen: Vec<_> =
        TARGETS.iter().filter(|t| names.is_empty() || names.contains(&t.name)).collect();
    shell::run_with("cargo fuzz build --fuzz-dir fuzz", &[UNSTABLE])?;
    for target in &chosen {
        prepare(target)?;
    }
    // A target has one thread: as many run at a time as there are processors.
    let waiting = Mutex::new(chosen.into_iter());
    let next = || waiting.lock().ok()?.next();
    let runners = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let run = || iter::from_fn(next).try_for_each(|target| fuzz(target, &stop));
        let runners: Vec<_> = (0..runners).map(|_| scope.spawn(run)).collect();
        runners
            .into_iter()
            .try_for_each(|runner| runner.join().map_err(|_| "a panic".to_owned())?)
    })
}

/// Sanitizers are unstable options; this makes the installed compiler take them.
const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

fn seeds_of(target: &Target) -> String {
    format!("fuzz/target/seeds/{}", target.name)
}

/// Gathers the target's seeds and makes the folder of what it will find.
fn prepare(target: &Target) -> Result {
    let (name, seeds) = (target.name, seeds_of(target));
    gather(target, &root().join(&seeds)).map_err(|error| format!("seeds of {name}: {error}"))?;
    if target.is_dicom {
        shell::run(&format!(
            "cargo run --quiet --package fastnnunet-dicom --features fuzzing --example seeds -- \
             {name} {seeds}"
        ))?;
    }
    fs::create_dir_all(root().join("fuzz/corpus").join(name))
        .map_err(|error| format!("fuzz/corpus/{name}: {error}"))
}

fn fuzz(target: &Target, stop: &str) -> Result {
    let Target { name, longest, is_dicom, .. } = target;
    // openjp2 loses some bytes when it panics, which is caught (docs/dicom.md). The flag is for each
    // input, the variable for the end of the run.
    let leaks = if *is_dicom { "-detect_leaks=0 " } else { "" };
    let at_end = if *is_dicom { "detect_leaks=0" } else { "" };
    let seeds = seeds_of(target);
    shell::run_apart(
        &format!(
            "cargo fuzz run --fuzz-dir fuzz {name} fuzz/corpus/{name} {seeds} -- {stop} {leaks}\
             -max_len={longest} -timeout={SLOWEST_SECONDS} -rss_limit_mb={MEMORY_MIB} \
             -malloc_limit_mb={MEMORY_MIB} -print_final_stats=1 -verbosity=0"
        ),
        &[UNSTABLE, ("ASAN_OPTIONS", at_end)],
        |line| line.starts_with("stat::"),
    )
}

/// Copies the target's seeds to `folder`, and what once went wrong.
fn gather(target: &Target, folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut open = vec![root().join("tests"), root().join("config")];
    let mut count = 0;
    while let Some(here) = open.pop() {
        for entry in fs::read_dir(here)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_seed = target.seeds.iter().any(|ending| name.ends_with(&format!(".{ending}")));
            let is_regression = name.starts_with(&format!("{}_", target.name))
                && path.parent().is_some_and(|folder| folder.ends_with("regressions"));
            if is_seed || is_regression {
                fs::copy(&path, folder.join(format!("{count}_{name}")))?;
                count += 1;
            }
        }
    }
    Ok(())
}
