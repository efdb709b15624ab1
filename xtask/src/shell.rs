//! Running commands where the workspace is, loudly.

use std::path::PathBuf;
use std::process::Command;

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
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().unwrap_or_default())
        .args(words)
        .envs(variables.iter().copied())
        .current_dir(root())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed ({status})")),
        Err(error) => Err(format!("`{line}` did not start: {error}")),
    }
}

/// As [`run_with`] beside others: what it says is printed when it has ended, of a success the lines
/// that `matter`.
pub(crate) fn run_apart(
    line: &str,
    variables: &[(&str, &str)],
    matter: impl Fn(&str) -> bool,
) -> Result {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .envs(variables.iter().copied())
        .current_dir(root())
        .output()
        .map_err(|error| format!("`{line}` did not start: {error}"))?;
    let ok = output.status.success();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said.lines().filter(|said| !ok || matter(said)).collect();
    println!("\n$ {line}\n{}", said.join("\n"));
    if ok { Ok(()) } else { Err(format!("`{line}` failed ({})", output.status)) }
}

/// What `line` prints.
pub(crate) fn output(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let output =
        Command::new(words.next().unwrap_or_default()).args(words).current_dir(root()).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(format!("`{line}` failed ({})", output.status)),
        Err(error) => Err(format!("`{line}` did not start: {error}")),
    }
}
