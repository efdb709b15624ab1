//! The command line. It sees only the library's public interface, so an embedding
//! application can do whatever the command can.

// The one place in the crate that talks to people.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bar;
mod convert;
mod interrupt;
mod job;
mod list;
mod peak;
mod predict;
mod summary;
mod table;

use args::{Cli, Command};
use clap::Parser;
use fastnnunet::Error;
use std::error::Error as _;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Runs the command and returns its exit code.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments.map(args::dashed)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows their streams and codes.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let result = match &cli.command {
        Some(Command::Modes(request)) => list::modes(request),
        Some(Command::Models(request)) => list::models(request),
        Some(Command::Convert(request)) => convert::run(request),
        None => predict::run(&cli.predict),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("error: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                line = format!("{line}: {inner}");
                cause = inner.source();
            }
            if let Error::Write { source, .. } = &error
                && source.kind() == ErrorKind::AlreadyExists
            {
                line += "; --overwrite replaces it";
            }
            eprintln!("{line}");
            ExitCode::from(error.exit_code())
        }
    }
}
