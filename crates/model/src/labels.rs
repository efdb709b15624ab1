//! `config/labels/`: the structures a mode may answer with, one table per file.
//!
//! The ids of a result are those of its mode's table. Structures that TotalSegmentator v2
//! numbers in its task `total` keep that number in every table of the trunk and limbs, so one
//! id means one structure there; `bone` and `headneck` count their own from 1.
//!
//! `build.rs` compiles this file too, so that a mistake in a table fails the build.

use super::config::{Concept, Label};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

/// A named list of structures, in ascending id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTable {
    /// The file's name without `.json`.
    pub name: String,
    /// The structures; every id and every name occurs once.
    pub labels: Vec<Label>,
}

impl LabelTable {
    /// The structure of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Label> {
        self.labels.iter().find(|label| label.name == name)
    }
}

/// A table as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The table that labels given by name alone are taken from.
    of: Option<String>,
    labels: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Name(String),
    Label(Label),
}

/// Reads tables, given as file name without `.json` and content.
///
/// A table may take labels from one of the others or of `known` by name; those it takes from
/// must spell out all of theirs. Tables come in the order given.
///
/// # Errors
///
/// A message that names the table and what is wrong with it.
pub fn parse(files: &[(String, String)], known: &[LabelTable]) -> Result<Vec<LabelTable>, String> {
    let mut written = Vec::new();
    for (name, json) in files {
        let table: Written = serde_json::from_str(json).map_err(|e| format!("{name}: {e}"))?;
        written.push((name, table));
    }
    let own = |of: &str| {
        let (_, table) = written.iter().find(|(name, _)| *name == of)?;
        Some(table.labels.iter().filter_map(|item| match item {
            Item::Label(label) => Some(label.clone()),
            Item::Name(_) => None,
        }))
    };
    let shared = |of: &str| -> Option<Vec<Label>> {
        let others = || known.iter().find(|table| table.name == of).map(|t| t.labels.clone());
        own(of).map(Iterator::collect).or_else(others)
    };
    written
        .iter()
        .map(|(name, table)| {
            table_of(name, table, &shared).map_err(|message| format!("{name}: {message}"))
        })
        .collect()
}

fn table_of(
    name: &str,
    written: &Written,
    shared: &dyn Fn(&str) -> Option<Vec<Label>>,
) -> Result<LabelTable, String> {
    let of = written.of.as_deref().unwrap_or_default();
    let from = match &written.of {
        Some(of) => shared(of).ok_or_else(|| format!("of {of:?}, expected another table"))?,
        None => Vec::new(),
    };
    let mut labels = Vec::with_capacity(written.labels.len());
    let by_name: HashMap<&str, &Label> =
        from.iter().rev().map(|label| (label.name.as_str(), label)).collect();
    for item in &written.labels {
        labels.push(match item {
            Item::Label(label) => label.clone(),
            Item::Name(name) => {
                by_name.get(name.as_str()).copied().cloned().ok_or_else(|| {
                    format!("label {name:?}, which table {of:?} does not spell out")
                })?
            }
        });
    }
    labels.sort_by_key(|label| label.id);
    check(&labels)?;
    Ok(LabelTable { name: name.to_owned(), labels })
}

fn check(labels: &[Label]) -> Result<(), String> {
    if labels.is_empty() {
        return Err("no labels".to_owned());
    }
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    for label in labels {
        let Label { id, name, color, .. } = label;
        if *id == 0 || name.is_empty() || !ids.insert(*id) || !names.insert(name.as_str()) {
            return Err(format!(
                "label {id} {name:?}, expected different ids above 0 and different names"
            ));
        }
        if !color.as_deref().is_none_or(is_color) {
            return Err(format!("label {name}: color {color:?}, expected #rrggbb"));
        }
        check_codes(label).map_err(|message| format!("label {name}: {message}"))?;
    }
    Ok(())
}

/// Checks that codes are whole: DICOM writes none without its meaning.
fn check_codes(label: &Label) -> Result<(), String> {
    let Label { snomed, meaning, category, region, .. } = label;
    let own = match (snomed, meaning) {
        (None, None) => None,
        (Some(snomed), Some(meaning)) => {
            Some(Concept { snomed: snomed.clone(), meaning: meaning.clone() })
        }
        _ => return Err("one of snomed and meaning, expected both or none".to_owned()),
    };
    if own.is_none() && (category.is_some() || region.is_some()) {
        return Err("a category or region without snomed, expected what lies there".to_owned());
    }
    for Concept { snomed, meaning } in [&own, category, region].into_iter().flatten() {
        // SNOMED CT's identifiers have 6 to 18 digits.
        if !(6..=18).contains(&snomed.len()) || !snomed.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("snomed {snomed:?}, expected 6 to 18 digits"));
        }
        // The longest that DICOM's value representation LO holds.
        if !(1..=64).contains(&meaning.chars().count()) || meaning.contains(['\\', '\n']) {
            return Err(format!("meaning {meaning:?}, expected 1 to 64 characters"));
        }
    }
    Ok(())
}

fn is_color(text: &str) -> bool {
    let hex = text.strip_prefix('#').unwrap_or_default();
    hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(tables: &[(&str, &str)]) -> Result<Vec<LabelTable>, String> {
        let files: Vec<(String, String)> =
            tables.iter().map(|(name, json)| ((*name).into(), (*json).into())).collect();
        parse(&files, &[])
    }

    const KNEE: &str = r##"{"labels": [
        {"id": 7, "name": "tibia", "color": "#0a0B0c"}, {"id": 2, "name": "patella",
         "snomed": "64234005", "meaning": "Patella"}
    ]}"##;

    #[test]
    fn labels_are_shared_by_name_and_sorted() {
        let leg = r#"{"of": "knee", "labels": ["tibia", {"id": 3, "name": "fibula"}]}"#;
        let tables = parsed(&[("leg", leg), ("knee", KNEE)]).expect("good tables");
        let names = |k: usize| {
            let labels = &tables[k].labels;
            labels.iter().map(|l| (l.id, l.name.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(names(0), [(3, "fibula"), (7, "tibia")]);
        assert_eq!(names(1), [(2, "patella"), (7, "tibia")]);
        assert_eq!(tables[0].find("tibia"), tables[1].find("tibia"));
        let files = [("leg".to_owned(), leg.to_owned())];
        assert_eq!(parse(&files, &tables[1..]).expect("known table")[0], tables[0]);
    }

    #[test]
    fn mistakes_name_the_table() {
        // (claim, table, part of the message)
        let cases = [
            ("no labels", r#"{"labels": []}"#, "no labels"),
            ("unknown field", r#"{"labels": [], "x": 1}"#, "x"),
            ("background", r#"{"labels": [{"id": 0, "name": "a"}]}"#, "above 0"),
            ("id twice", r#"{"labels": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}"#, "b"),
            ("name twice", r#"{"labels": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}"#, "a"),
            ("color", r#"{"labels": [{"id": 1, "name": "a", "color": "red"}]}"#, "#rrggbb"),
            (
                "code",
                r#"{"labels": [{"id": 1, "name": "a", "snomed": "x12345", "meaning": "A"}]}"#,
                "digits",
            ),
            (
                "code alone",
                r#"{"labels": [{"id": 1, "name": "a", "snomed": "64234005"}]}"#,
                "meaning",
            ),
            (
                "empty meaning",
                r#"{"labels": [{"id": 1, "name": "a", "snomed": "64234005", "meaning": ""}]}"#,
                "64 characters",
            ),
            ("side", r#"{"labels": [{"id": 1, "name": "a", "side": "up"}]}"#, "bad"),
            (
                "region of nothing",
                r#"{"labels": [{"id": 1, "name": "a",
                    "region": {"snomed": "85562004", "meaning": "Hand"}}]}"#,
                "region",
            ),
            ("unknown table", r#"{"of": "hip", "labels": ["a"]}"#, "hip"),
            ("unknown label", r#"{"of": "knee", "labels": ["hip_left"]}"#, "hip_left"),
            ("name without table", r#"{"labels": ["tibia"]}"#, "tibia"),
        ];
        for (claim, table, part) in cases {
            let message = parsed(&[("knee", KNEE), ("bad", table)]).expect_err(claim);
            assert!(message.starts_with("bad: ") && message.contains(part), "{claim}: {message}");
        }
    }
}
