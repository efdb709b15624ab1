//! The rooms of `src/` and the one direction between them.
//!
//! A room is a folder or file right under `src/`. It may use rooms before it in [`ORDER`], never one
//! after it: so there is no import that runs upward, and no circle. Between crates cargo sees to that.

use crate::shell::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground floor up; `docs/architecture.md` shows the same.
const ORDER: [&str; 17] = [
    "error",
    "files",
    "volume",
    "io",
    "nnunet",
    "registry",
    "import",
    "infer",
    "pipeline",
    "segmenter",
    "preview",
    "statistics",
    "mesh",
    "output",
    "selftest",
    "fuzzing",
    "cli",
];

/// Names that `lib.rs` gives at the top, and the room each comes from.
const RE_EXPORTED: [(&str, &str); 7] = [
    ("Error", "error"),
    ("ErrorKind", "error"),
    ("Access", "files"),
    ("Scan", "io"),
    ("Segmenter", "segmenter"),
    ("Segmentation", "segmenter"),
    ("OutputType", "output"),
];

pub(crate) fn run() -> Result {
    println!("\nrooms of src/: no import runs upward");
    let source = root().join("src");
    let mut files = Vec::new();
    collect(&source, &mut files).map_err(|error| format!("cannot list src: {error}"))?;
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap_or(file);
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        wrong.extend(upward(inside, &text));
        if text.contains("#[path") {
            wrong.push(format!("{}: a module by #[path]", inside.display()));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The imports of a file that lead to a room after its own.
fn upward(file: &Path, text: &str) -> Vec<String> {
    let Some(room) = file.iter().next().and_then(|first| Path::new(first).file_stem()) else {
        return Vec::new();
    };
    let room = room.to_string_lossy();
    // The doors themselves: what re-exports everything belongs to no room.
    if room == "lib" || room == "main" {
        return Vec::new();
    }
    let Some(own) = place(&room) else {
        return vec![format!("{}: a room that xtask/src/rooms.rs does not list", file.display())];
    };
    // Tests may reach for what is above, as a user of the library would.
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: Vec<&str> =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    used(&code.join("\n"))
        .into_iter()
        .filter_map(|name| {
            let at = place(&name)?;
            (at > own).then(|| format!("{}: {room} uses {name}, which is above it", file.display()))
        })
        .collect()
}

/// Where a name of the crate's top stands; `None` for what is no room of ours.
fn place(name: &str) -> Option<usize> {
    let re_exported = RE_EXPORTED.iter().find(|(alias, _)| *alias == name);
    let room = re_exported.map_or(name, |(_, room)| room);
    ORDER.iter().position(|known| *known == room)
}

/// First names after `crate::`, those in braces too.
fn used(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(list) => names.extend(heads(list)),
        }
    }
    names
}

/// The names at the first level of a list in braces.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, vec![word(list)], false);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_runs_upward_is_found() {
        // (case, file, text, what is found)
        let cases: [(_, _, _, &[&str]); 7] = [
            ("downward", "pipeline/crop.rs", "use crate::volume::Grid;", &[]),
            ("own room", "pipeline/crop.rs", "use crate::pipeline::Plan;", &[]),
            ("upward", "io/mod.rs", "use crate::segmenter::Case;", &["segmenter"]),
            ("in a path", "volume/mod.rs", "fn f(e: crate::infer::Device) {}", &["infer"]),
            (
                "in braces",
                "infer/mod.rs",
                "use crate::{\n    Error, cli::{self, a},\n    pipeline::Plan,\n};",
                &["cli", "pipeline"],
            ),
            ("by its name at the top", "files.rs", "use crate::{Result, Scan};", &["io"]),
            ("in a comment", "files.rs", "// crate::cli prints it", &[]),
        ];
        for (case, file, text, expected) in cases {
            let found = upward(Path::new(file), text);
            assert_eq!(found.len(), expected.len(), "{case}: {found:?}");
        }
    }

    #[test]
    fn a_room_nobody_listed_is_found() {
        assert_eq!(upward(Path::new("attic/mod.rs"), "").len(), 1);
    }

    #[test]
    fn the_architecture_shows_the_rooms_in_this_order() {
        let text = fs::read_to_string(root().join("docs/architecture.md")).expect("it is there");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.filter_map(|row| row.split(['`', '/', '.']).next());
        let shown: Vec<_> = names.filter(|name| ORDER.contains(name)).collect();
        // Not part of the product.
        let order: Vec<_> = ORDER.into_iter().filter(|room| *room != "fuzzing").collect();
        assert_eq!(shown[..order.len()], order);
    }

    #[test]
    fn the_source_as_it_is_has_one_direction() {
        run().expect("one direction");
    }
}
