//! The command line. It sees only the library's public interface, so an embedding
//! application can do whatever the command can.

// The one place in the crate that talks to people.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bar;
mod calibrate;
mod cases;
mod convert;
mod images;
mod import;
mod interrupt;
#[cfg(feature = "cuda")]
mod kernels;
mod list;
mod listed;
mod load;
mod outputs;
mod peak;
mod predict;
mod report;
mod request;
mod selftest;
#[cfg(feature = "dicom")]
mod series;
mod summary;
mod table;
mod threads;
mod totalsegmentator;
mod user;
mod values;

use args::{Cli, Command};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command and returns its exit code.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match totalsegmentator::translated(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return failed(&error),
    };
    if let Some(note) = arguments.note {
        report::tell(note);
    }
    let cli = match Cli::try_parse_from(arguments.words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows their streams and codes.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let asked = match &cli.command {
        Some(Command::Calibrate(request)) => request.threads,
        Some(Command::Selftest(request)) => request.threads,
        Some(_) => None,
        None => cli.predict.threads,
    };
    interrupt::listen();
    threads::start(asked);
    let result = match &cli.command {
        Some(Command::Modes(request)) => list::modes(request).map(|()| 0),
        Some(Command::Models(request)) => list::models(request).map(|()| 0),
        #[cfg(feature = "dicom")]
        Some(Command::Series(request)) => series::list(request).map(|()| 0),
        Some(Command::Import(request)) => import::run(request).map(|()| 0),
        Some(Command::Convert(request)) => convert::run(request).map(|()| 0),
        Some(Command::Calibrate(request)) => calibrate::run(request).map(|()| 0),
        Some(Command::Selftest(request)) => selftest::run(request).map(|()| 0),
        #[cfg(feature = "cuda")]
        Some(Command::Warm(request)) => kernels::warm(request).map(|()| 0),
        None => predict::run(&cli.predict),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

/// Says what went wrong, and gives the exit code for it.
fn failed(error: &fastnnunet::Error) -> ExitCode {
    report::tell(&format!("error: {}", report::chain(error)));
    ExitCode::from(report::exit_code(error))
}
