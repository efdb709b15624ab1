//! The developers' task runner.
//!
//! `cargo xtask quick` is the loop while writing, `cargo xtask full` what must hold before a release;
//! CONTRIBUTING.md says when to use which. A task is a list of commands, printed as they are run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a task runner does")]

mod bench;
mod full;
mod fuzz;
mod golden;
mod hashes;
mod house;
mod quick;
mod rooms;
mod shell;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

  quick            format, rooms, lint, docs and unit tests without burn: about a minute
  full             all that .ci/run does, and what takes too long for it
  bench [FILTER]   every benchmark, or those whose name holds FILTER
  golden [NAME]    writes golden arrays anew with the reference's own packages: all, a stage of
                   tests/golden/generate.py, or totalseg, v1, mrsegmentator
  hashes [PROGRAM] digests of what the program, or another commit's, makes of the fixtures
  fuzz [--seconds N | --runs N] [TARGET ...]
                   fuzz targets on their seeds, then at random: 60 seconds each unless told";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((task, rest)) => run(task, rest),
        None => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, rest: &[String]) -> shell::Result {
    match (task, rest) {
        ("quick", []) => quick::run(),
        ("full", []) => full::run(),
        ("bench", [] | [_]) => bench::run(rest),
        ("golden", _) => golden::run(rest),
        ("hashes", _) => hashes::run(rest),
        ("fuzz", _) => fuzz::run(rest),
        // What quick checks first; .ci/run asks for it alone.
        ("rooms", []) => rooms::run().and_then(|()| house::run()),
        _ => Err(format!("cannot run `{task} {}`\n{USAGE}", rest.join(" "))),
    }
}
