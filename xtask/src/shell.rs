//! Running commands where the workspace is, loudly.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// What a task ends in; the message says which command failed.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

/// Prints and runs `line`, words parted by spaces, at the root of the workspace.
pub(crate) fn run(line: &str) -> Result {
    run_with(line, &[])
}

/// As [`run`], with environment variables of its own.
pub(crate) fn run_with(line: &str, variables: &[(&str, &str)]) -> Result {
    let shown: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}='{value}' ")).collect();
    println!("\n$ {}{line}", shown.concat());
    let status = command(line).envs(variables.iter().copied()).status();
    well(line, status.map_err(|error| not_started(line, &error))?)
}

/// As [`run_with`] beside others: what it says is printed when it has ended, of a success the lines
/// that `matter`.
pub(crate) fn run_apart(
    line: &str,
    variables: &[(&str, &str)],
    matter: impl Fn(&str) -> bool,
) -> Result {
    let output = command(line).envs(variables.iter().copied()).output();
    let output = output.map_err(|error| not_started(line, &error))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_told = |said: &&str| !output.status.success() || matter(said);
    let said: Vec<&str> = said.lines().filter(is_told).collect();
    println!("\n$ {line}\n{}", said.join("\n"));
    well(line, output.status)
}

/// What `line` prints.
pub(crate) fn output(line: &str) -> Result<String> {
    let output = command(line).output().map_err(|error| not_started(line, &error))?;
    well(line, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(root());
    command
}

fn not_started(line: &str, error: &io::Error) -> String {
    format!("`{line}` did not start: {error}")
}

fn well(line: &str, status: ExitStatus) -> Result {
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}
