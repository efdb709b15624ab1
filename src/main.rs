//! The `fastnnunet` command: parse, run, report the error chain, exit.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
