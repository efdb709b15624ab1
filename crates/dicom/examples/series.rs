//! Lists the series below a path as JSON: `series PATH [--show-text] [--allow-gaps]`.
#![expect(clippy::print_stdout, reason = "a program")]

use fastnnunet_dicom::{ScanOptions, scan};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let path = arguments.iter().find(|argument| !argument.starts_with("--"));
    let path = path.ok_or("usage: series PATH [--show-text] [--allow-gaps]")?;
    let options = ScanOptions { allow_gaps: has("--allow-gaps"), ..Default::default() };
    let catalog = scan(Path::new(path), &options)?;
    println!("{:#}", catalog.to_json(has("--show-text")));
    Ok(())
}
