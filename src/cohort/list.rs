//! The file that lists cases: JSON Lines, or a table with tabs.

use crate::model::Name;
use crate::{Error, Result, files};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest file: a million cases with half a kilobyte each, and as much again.
const MOST_BYTES: u64 = 1 << 30;

/// What a case may say of itself.
const FIELDS: [&str; 6] = ["id", "inputs", "output", "mode", "model", "cost"];

/// What stands between the inputs of a case in a table.
const BETWEEN_INPUTS: char = ';';

/// One case of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The line it stands in, from 1.
    pub line: usize,
    /// What it is called.
    pub id: Name,
    /// Its images, in channel order; at least one.
    pub inputs: Vec<PathBuf>,
    /// Where its result goes, if the list says so.
    pub output: Option<PathBuf>,
    /// What answers, if the list says so.
    pub asked: Option<Asked>,
    /// What it takes beside the other cases, if the list says so: above 0, in any unit.
    pub cost: Option<f64>,
}

/// What answers for a case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A mode by name.
    Mode(String),
    /// A model: a name or a path.
    Model(String),
}

/// Reads a list: of `.jsonl`, an object per line; of `.tsv`, a case per line under a line of the
/// fields' names.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read, and [`Error::Usage`] with the line, what was found and
/// what was expected for whatever is wrong in it: a list with one fault is none.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let at = |line| Place { path, line };
    let Some(ending) = files::ending_of(path, &[".jsonl", ".tsv"]) else {
        let named = path.display().to_string();
        return Err(Error::usage("cases", named, "a name that ends in .jsonl or .tsv"));
    };
    let is_table = ending == ".tsv";
    let text = files::read_text(path, MOST_BYTES).map_err(|why| match why {
        files::Unreadable::Io(source) => Error::Read { path: path.to_path_buf(), source },
        why => Error::input(path, why.instead_of("a text that lists cases")),
    })?;
    let mut lines = text.lines().enumerate().map(|(k, line)| (at(k + 1), line));
    let mut lines = lines.by_ref().filter(|(_, line)| !line.trim().is_empty());
    let entries = if is_table {
        let Some((place, heading)) = lines.next() else { return Err(at(1).lacking()) };
        let columns = columns(place, heading)?;
        lines.map(|(place, line)| entry(place, row(place, &columns, line)?)).collect()
    } else {
        lines.map(|(place, line)| entry(place, object(place, line)?)).collect::<Result<Vec<_>>>()
    };
    let entries = entries?;
    if entries.is_empty() {
        return Err(at(1).lacking());
    }
    check_together(path, &entries)?;
    Ok(entries)
}

/// A line of the file, for sentences about it.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Place<'_> {
    fn wrong(self, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::usage(format!("{}, line {}", self.path.display(), self.line), found, expected)
    }

    fn lacking(self) -> Error {
        self.wrong("no case", "at least one")
    }
}

/// A field of a case and what is in it.
type Cells = Vec<(String, Value)>;

/// The fields of a JSON object, one that is there twice included.
struct Object(Cells);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut cells = Cells::new();
                while let Some(cell) = map.next_entry()? {
                    cells.push(cell);
                }
                Ok(Object(cells))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn object(place: Place<'_>, line: &str) -> Result<Cells> {
    let Object(cells) = serde_json::from_str(line).map_err(|error| {
        let found = format!("text that is none at column {}", error.column());
        place.wrong(found, "a JSON object")
    })?;
    for (k, (name, _)) in cells.iter().enumerate() {
        check_field(place, name, cells[..k].iter().map(|(name, _)| name.as_str()))?;
    }
    Ok(cells)
}

/// The names in the first line of a table.
fn columns(place: Place<'_>, heading: &str) -> Result<Vec<String>> {
    let names: Vec<&str> = heading.split('\t').map(str::trim).collect();
    for (k, name) in names.iter().enumerate() {
        check_field(place, name, names[..k].iter().copied())?;
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn check_field<'a>(
    place: Place<'_>,
    name: &str,
    mut before: impl Iterator<Item = &'a str>,
) -> Result<()> {
    if !FIELDS.contains(&name) {
        return Err(place.wrong(format!("the field {name:?}"), FIELDS.join(", ")));
    }
    if before.any(|other| other == name) {
        return Err(place.wrong(format!("the field {name} twice"), "each once"));
    }
    Ok(())
}

/// The fields of a line; empty ones are not there.
fn row(place: Place<'_>, columns: &[String], line: &str) -> Result<Cells> {
    let cells: Vec<&str> = line.split('\t').collect();
    if cells.len() != columns.len() {
        let expected = format!("{}, as the first line has", columns.len());
        return Err(place.wrong(format!("{} fields", cells.len()), expected));
    }
    let value = |name: &str, text: &str| match name {
        "inputs" => Value::from(text.split(BETWEEN_INPUTS).map(str::trim).collect::<Vec<_>>()),
        // JSON has no number for nan and inf: they stay texts, and are refused as such.
        "cost" => match text.parse::<f64>() {
            Ok(cost) if cost.is_finite() => Value::from(cost),
            _ => Value::from(text),
        },
        _ => Value::from(text),
    };
    let cells = columns.iter().zip(cells).map(|(name, text)| (name, text.trim()));
    let filled = cells.filter(|(_, text)| !text.is_empty());
    Ok(filled.map(|(name, text)| (name.clone(), value(name, text))).collect())
}

fn entry(place: Place<'_>, cells: Cells) -> Result<Entry> {
    let mut cells: HashMap<String, Value> = cells.into_iter().collect();
    // What is null was left out.
    let mut take = |name: &str| cells.remove(name).filter(|value| !value.is_null());
    let text = |name: &str, value: Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        other => Err(place.wrong(format!("{other} as {name}"), "a text that is not empty")),
    };
    let id = take("id").ok_or_else(|| place.wrong("no id", "one, by which the case is known"))?;
    let id = Name::new(text("id", id)?).map_err(|what| place.wrong(what.found, what.expected))?;
    let inputs = match take("inputs") {
        None => return Err(place.wrong("no inputs", "a path, or one per channel")),
        Some(Value::Array(paths)) if paths.is_empty() => {
            return Err(place.wrong("an empty list of inputs", "at least one path"));
        }
        Some(Value::Array(paths)) => paths,
        Some(path) => vec![path],
    };
    let inputs = inputs.into_iter().map(|path| text("a path of inputs", path).map(PathBuf::from));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let output = take("output").map(|path| text("output", path)).transpose()?.map(PathBuf::from);
    let mode = take("mode").map(|mode| text("mode", mode)).transpose()?;
    let model = take("model").map(|model| text("model", model)).transpose()?;
    let asked = match (mode, model) {
        (Some(mode), Some(model)) => {
            return Err(place.wrong(format!("mode {mode} and model {model}"), "one of the two"));
        }
        (Some(mode), None) => Some(Asked::Mode(mode)),
        (None, model) => model.map(Asked::Model),
    };
    let cost = match take("cost") {
        None => None,
        Some(value) => match value.as_f64().filter(|cost| cost.is_finite() && *cost > 0.0) {
            Some(cost) => Some(cost),
            None => return Err(place.wrong(format!("{value} as cost"), "a number above 0")),
        },
    };
    Ok(Entry { line: place.line, id, inputs, output, asked, cost })
}

/// Fails if two cases have one name, or some a cost and some none.
fn check_together(path: &Path, entries: &[Entry]) -> Result<()> {
    let mut ids: HashMap<String, usize> = HashMap::new();
    for entry in entries {
        let place = Place { path, line: entry.line };
        // Results are called by it, and not every file system tells a from A.
        if let Some(other) = ids.insert(entry.id.to_lowercase(), entry.line) {
            let found = format!("the id {} of line {other} again", entry.id.as_str());
            return Err(place.wrong(found, "another one for each case, not in capitals alone"));
        }
    }
    let costs = entries.iter().filter(|entry| entry.cost.is_some()).count();
    match entries.iter().find(|entry| entry.cost.is_none()) {
        Some(entry) if costs > 0 => {
            let place = Place { path, line: entry.line };
            let found = format!("no cost, which {costs} others have");
            Err(place.wrong(found, "the cost of every case, or of none"))
        }
        _ => Ok(()),
    }
}
