//! What must hold in every file and package and no compiler sees: modules stand where their names say,
//! every package is linted by the same rules, and unsafe code stands only where it may.

use crate::shell::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};

/// Packages of which a file may allow unsafe code, which the workspace denies: arithmetic, launches of
/// GPU kernels, and what takes pointers from C.
const UNSAFE: [&str; 3] = ["crates/kernels", "crates/gpu", "bindings/c"];

/// Packages apart from the workspace: fuzz targets, and what stands in for somebody else's crate.
const APART: [&str; 2] = ["fuzz", "vendor"];

// In two parts, so that this file does not hold them.
const MODULE_ELSEWHERE: &str = concat!("#[", "path");
const ALLOWED: &str = concat!("allow(", "unsafe_code");

pub(crate) fn run() -> Result {
    println!("\nevery file and package: its place, its lints, its unsafe code");
    let root = root();
    let mut wrong = Vec::new();
    for file in files(&root)? {
        let inside = file.strip_prefix(&root).unwrap_or(&file);
        let read = fs::read_to_string(&file);
        let text = read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        wrong.extend(faults(inside, &text));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Rust files and manifests below a folder, but for what is built and hidden, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let cannot = |error| format!("cannot list {}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let (path, name) = (entry.path(), entry.file_name());
            let is_folder = entry.file_type().map_err(cannot)?.is_dir();
            let name = name.to_string_lossy();
            if is_folder && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if !is_folder && (name.ends_with(".rs") || name == "Cargo.toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with a file.
fn faults(file: &Path, text: &str) -> Option<String> {
    let within = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
    let fault = if file.ends_with("Cargo.toml") {
        let is_linted = within(&APART) || text.contains("\n[lints]\nworkspace = true\n");
        (!is_linted).then_some("a package without the lints of the workspace")
    } else if text.contains(MODULE_ELSEWHERE) {
        Some("a module whose place is not its name")
    } else if text.contains(ALLOWED) && !within(&UNSAFE) {
        Some("unsafe code, which only crates/kernels, crates/gpu and bindings/c may have")
    } else {
        None
    };
    fault.map(|fault| format!("{}: {fault}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_found_where_it_is_one() {
        let module = format!("{MODULE_ELSEWHERE} = \"a.rs\"]\nmod b;");
        let allowed = format!("#![{ALLOWED}, reason = \"fast\")]");
        let package = "[package]\nname = \"a\"\n";
        let linted = format!("{package}\n[lints]\nworkspace = true\n");
        // (file, text, whether something is wrong)
        let cases: [(_, &str, _); 9] = [
            ("src/io/mod.rs", &module, true),
            ("tests/it/main.rs", &module, true),
            ("tests/it/main.rs", "mod a;", false),
            ("src/infer/gpu.rs", &allowed, true),
            ("crates/kernels_of_mine/src/lib.rs", &allowed, true),
            ("crates/kernels/src/lib.rs", &allowed, false),
            ("crates/dicom/Cargo.toml", package, true),
            ("crates/dicom/Cargo.toml", &linted, false),
            ("fuzz/Cargo.toml", package, false),
        ];
        for (file, text, is_wrong) in cases {
            assert_eq!(faults(Path::new(file), text).is_some(), is_wrong, "{file}: {text}");
        }
    }

    #[test]
    fn the_source_as_it_is_is_in_order() {
        run().expect("in order");
    }
}
