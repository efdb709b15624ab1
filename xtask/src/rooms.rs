//! The rooms of `src/` and the one direction between them.
//!
//! A room is a folder or file right under `src/`. It may use rooms before it in [`ORDER`], never one
//! after it: so there is no import that runs upward, and no circle. Between crates cargo sees to that.

use crate::shell::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground floor up; `docs/architecture.md` shows the same.
const ORDER: [&str; 18] = [
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
    "cohort",
    "selftest",
    "fuzzing",
    "cli",
];

pub(crate) fn run() -> Result {
    println!("\nrooms of src/: no import runs upward");
    let source = root().join("src");
    let mut files = Vec::new();
    collect(&source, &mut files).map_err(|error| format!("cannot list src: {error}"))?;
    files.sort();
    let doors = fs::read_to_string(source.join("lib.rs"));
    let top = Top::new(&doors.map_err(|error| format!("cannot read src/lib.rs: {error}"))?);
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap_or(file);
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        wrong.extend(upward(inside, &text, &top));
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

/// Names that `lib.rs` gives at the top, and what each comes from: a room, or another crate.
struct Top(Vec<(String, String)>);

impl Top {
    fn new(lib: &str) -> Self {
        let mut names = Vec::new();
        for line in lib.split(';').filter_map(|line| line.split_once("pub use ")) {
            let from = word(line.1);
            if let Some((_, list)) = line.1.split_once('{') {
                names.extend(heads(list).into_iter().map(|name| (name, from.clone())));
            } else {
                let last = line.1.rsplit([':', ' ']).next().unwrap_or_default();
                names.push((word(last), from));
            }
        }
        Self(names)
    }

    /// Where a name stands: a place in the order, or none for another crate's.
    fn place(&self, name: &str) -> Result<Option<usize>> {
        let given = self.0.iter().find(|(alias, _)| alias == name);
        let room = given.map_or(name, |(_, room)| room);
        match place(room) {
            None if given.is_none() => Err(format!("{name}, which src/lib.rs does not give")),
            place => Ok(place),
        }
    }
}

/// The imports of a file that lead to a room after its own, or to what nobody knows.
fn upward(file: &Path, text: &str, top: &Top) -> Vec<String> {
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
    let code = code.join("\n");
    let is_mod = file.file_stem().is_some_and(|stem| stem == "mod");
    let depth = file.iter().count() - usize::from(is_mod);
    let mut wrong: Vec<String> = used(&code)
        .into_iter()
        .filter_map(|name| match top.place(&name) {
            Ok(at) if at > Some(own) => Some(format!("{room} uses {name}, which is above it")),
            Ok(_) => None,
            Err(unknown) => Some(format!("{room} uses {unknown}")),
        })
        .collect();
    if code.contains(&"super::".repeat(depth)) {
        wrong.push("super:: leads out of the room, where crate:: says which it is".to_owned());
    }
    wrong.iter().map(|what| format!("{}: {what}", file.display())).collect()
}

/// Where a room stands; `None` for what is none.
fn place(name: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == name)
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
        let top = Top::new(
            "pub use error::{Error, Result};\n#[doc]\npub use fastnnunet_model as model;\npub use \
             fastnnunet_model::Mismatch;\npub use io::Scan;",
        );
        // (case, file, text, what is found)
        let cases: [(_, _, _, &[&str]); 12] = [
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
            ("by its name at the top", "files.rs", "use crate::{Result, Scan};", &["Scan"]),
            ("in a comment", "files.rs", "// crate::cli prints it", &[]),
            ("another crate's", "files.rs", "use crate::{Mismatch, model::Name};", &[]),
            ("a name nobody gives", "cli/mod.rs", "use crate::Attic;", &["Attic"]),
            ("out of a file", "files.rs", "use super::io;", &["super"]),
            ("out of a folder", "io/save.rs", "use super::super::cli;", &["super"]),
            ("within a room", "io/save.rs", "use super::Scan;", &[]),
        ];
        for (case, file, text, expected) in cases {
            let found = upward(Path::new(file), text, &top);
            assert_eq!(found.len(), expected.len(), "{case}: {found:?}");
            for (found, name) in found.iter().zip(expected) {
                assert!(found.contains(name), "{case}: {found}");
            }
        }
    }

    #[test]
    fn a_room_nobody_listed_is_found() {
        assert_eq!(upward(Path::new("attic/mod.rs"), "", &Top::new("")).len(), 1);
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
