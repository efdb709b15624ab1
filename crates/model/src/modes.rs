//! `config/modes.json`: what a user asks for, and the model that does it.
//!
//! The build script reads it too, so that a mistake in the list fails the build.

use super::labels::LabelTable;
use crate::Name;
use serde::Deserialize;
use std::collections::HashSet;

/// What the command line calls a mode, for instance `bone`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// The name.
    pub name: Name,
    /// One line for users: what is segmented.
    pub summary: String,
    /// What to choose from: one choice, or one per variant, per quality, or per quality of each
    /// variant. Qualities go from low to high; the first variant is the default.
    pub choices: Vec<Choice>,
}

/// One answer to a mode: what is labeled, and the models that can do it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// `lowest`, `low`, `medium` or `high`, in a mode that has qualities.
    pub quality: Option<String>,
    /// Name of the variant, in a mode that has variants.
    pub variant: Option<String>,
    /// Name of the label table: ids of the result are this table's.
    pub labels: String,
    /// Name of the label table once bone is divided into cortical and trabecular bone.
    pub subseg: Option<String>,
    /// What can answer, the best first.
    pub models: Vec<Candidate>,
    /// Name of the postprocessing recipe.
    pub recipe: Option<String>,
}

impl Choice {
    /// The options that select it, each as name and value; none where the mode has one choice.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variant = self.variant.as_deref().map(|variant| ("variant", variant));
        let quality = self.quality.as_deref().map(|quality| ("quality", quality));
        variant.into_iter().chain(quality)
    }
}

/// A model, or several whose label maps are merged.
///
/// Written as the model's name, as one part, as `{"parts": [...]}`, or as `{"tasks": [...]}` with
/// tasks of `config/tasks.json`. Of a task only the models run that label something of the mode, and
/// those that are missing may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Candidate {
    /// Run in this order; labels of later parts replace those of earlier ones.
    pub parts: Vec<Part>,
    /// The tasks whose models the parts are; empty for models named one by one.
    pub tasks: Vec<TaskRef>,
}

/// A task in one quality.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRef {
    /// Its name.
    pub task: String,
    /// One of its qualities; absent for the highest.
    pub quality: Option<String>,
    /// Whether its smaller networks are meant.
    #[serde(default)]
    pub small: bool,
}

impl std::fmt::Display for TaskRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.task)?;
        self.quality.as_ref().map_or(Ok(()), |quality| write!(f, " {quality}"))?;
        f.write_str(if self.small { " small" } else { "" })
    }
}

impl Candidate {
    /// The names of its models, or of its tasks.
    #[must_use]
    pub fn name(&self) -> String {
        if !self.tasks.is_empty() {
            let tasks: Vec<String> = self.tasks.iter().map(ToString::to_string).collect();
            return format!("TotalSegmentator's {}", tasks.join(" and "));
        }
        self.parts.iter().map(|part| part.model.as_str()).collect::<Vec<_>>().join(" + ")
    }
}

/// A model and the meaning of its labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the model.
    pub model: String,
    /// Id in the table for each label of the model, from 1; 0 drops a label.
    ///
    /// Absent, labels go by their names; where the model's configuration names none, its
    /// first label is the table's first structure, and so on.
    pub ids: Option<Vec<u16>>,
}

impl TryFrom<serde_json::Value> for Candidate {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            parts: Vec<serde_json::Value>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tasks {
            tasks: Vec<TaskRef>,
        }
        let part = |value: serde_json::Value| match value {
            serde_json::Value::String(model) => Ok(Part { model, ids: None }),
            object => serde_json::from_value(object).map_err(|e| e.to_string()),
        };
        if value.get("tasks").is_some() {
            let Tasks { tasks } = serde_json::from_value(value).map_err(|e| e.to_string())?;
            return Ok(Self { parts: Vec::new(), tasks });
        }
        if value.get("parts").is_none() {
            return Ok(Self { parts: vec![part(value)?], tasks: Vec::new() });
        }
        let Parts { parts } = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { parts, tasks: Vec::new() })
    }
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    modes: Vec<Mode>,
}

const QUALITIES: [&str; 4] = ["lowest", "low", "medium", "high"];

/// Reads and checks the list of modes.
///
/// # Errors
///
/// A message that names the mode and what is wrong with it.
pub fn parse(json: &str) -> Result<Vec<Mode>, String> {
    let Written { modes } = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let mut names = HashSet::new();
    for mode in &modes {
        let name = &mode.name;
        if !names.insert(name) {
            return Err(format!("mode {name:?} twice, expected different names"));
        }
        if mode.summary.is_empty() || mode.summary.contains('\n') {
            return Err(format!("mode {name}: summary {:?}, expected one line", mode.summary));
        }
        check_choices(mode).map_err(|e| format!("mode {name}: {e}"))?;
    }
    Ok(modes)
}

fn check_choices(mode: &Mode) -> Result<(), String> {
    let choices = &mode.choices;
    let unnamed = |candidate: &Candidate| {
        candidate.parts.is_empty() && candidate.tasks.is_empty()
            || candidate.parts.iter().any(|part| part.model.is_empty())
    };
    if choices.iter().any(|choice| choice.models.is_empty() || choice.models.iter().any(unnamed)) {
        return Err("a choice without model".to_owned());
    }
    let variants: Vec<Option<&str>> = choices.iter().map(|c| c.variant.as_deref()).collect();
    let groups: Vec<&[Choice]> = choices.chunk_by(|a, b| a.variant == b.variant).collect();
    let names: Vec<Option<&str>> = groups.iter().map(|g| g[0].variant.as_deref()).collect();
    let mut seen = HashSet::new();
    let repeated = names.iter().any(|name| !seen.insert(name));
    if repeated || names.contains(&Some("")) || (names.len() > 1 && names.contains(&None)) {
        return Err(format!("variants {variants:?}, expected a name for each, side by side"));
    }
    match groups.iter().find(|group| !has_qualities_in_order(group)) {
        None if groups.is_empty() => Err("no choice".to_owned()),
        None => Ok(()),
        Some(group) => {
            let found: Vec<Option<&str>> = group.iter().map(|c| c.quality.as_deref()).collect();
            Err(format!(
                "qualities {found:?}, expected one choice, or some of lowest, low, \
                 medium, high in order"
            ))
        }
    }
}

/// Whether these are a single choice, or one for each of several qualities.
fn has_qualities_in_order(choices: &[Choice]) -> bool {
    let rank = |choice: &Choice| {
        let quality = choice.quality.as_deref()?;
        QUALITIES.iter().position(|known| *known == quality)
    };
    let single = choices.len() == 1 && choices[0].quality.is_none();
    single
        || choices.iter().all(|choice| rank(choice).is_some())
            && choices.is_sorted_by(|a, b| rank(a) < rank(b))
}

/// Checks that the label tables the modes name exist and hold the ids they use.
///
/// # Errors
///
/// A message that names the mode and what it lacks.
pub fn check_tables(modes: &[Mode], tables: &[LabelTable]) -> Result<(), String> {
    for Mode { name, choices, .. } in modes {
        for choice in choices {
            let find = |wanted: &str| tables.iter().find(|table| table.name == wanted);
            let unknown = |wanted: &str| format!("mode {name}: no label table {wanted:?}");
            let table = find(&choice.labels).ok_or_else(|| unknown(&choice.labels))?;
            if let Some(subseg) = &choice.subseg {
                let parts = find(subseg).ok_or_else(|| unknown(subseg))?;
                let has = |word| parts.labels.iter().any(|label| label.name.starts_with(word));
                if !(has("cortical") && has("trabecular")) {
                    return Err(format!(
                        "mode {name}: table {subseg} of the parts of a bone has no label that \
                         begins with cortical, or none with trabecular"
                    ));
                }
            }
            let known: HashSet<u16> = table.labels.iter().map(|label| label.id).collect();
            for part in choice.models.iter().flat_map(|candidate| &candidate.parts) {
                let ids = part.ids.iter().flatten().filter(|id| **id > 0);
                let lacking = ids.copied().find(|id| !known.contains(id));
                if let Some(id) = lacking {
                    let model = &part.model;
                    return Err(format!(
                        "mode {name}: {model} has id {id}, which table {} lacks",
                        table.name
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks that the postprocessing recipes the modes name exist.
///
/// # Errors
///
/// A message that names the mode and the recipe.
pub fn check_recipes(modes: &[Mode], known: &[&str]) -> Result<(), String> {
    for Mode { name, choices, .. } in modes {
        let mut asked = choices.iter().filter_map(|choice| choice.recipe.as_deref());
        if let Some(recipe) = asked.find(|recipe| !known.contains(recipe)) {
            let known = known.join(", ");
            return Err(format!("mode {name}: no recipe {recipe:?}, expected one of {known}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_mode() {
        // (claim, choices)
        let cases = [
            ("no choice", "[]"),
            ("no model", r#"[{"labels": "knee", "models": []}]"#),
            ("no part", r#"[{"labels": "knee", "models": [{"parts": []}]}]"#),
            ("unknown quality", r#"[{"quality": "best", "labels": "knee", "models": ["a"]}]"#),
            (
                "qualities out of order",
                r#"[{"quality": "high", "labels": "knee", "models": ["a"]}, {"quality": "low", "labels": "knee", "models": ["b"]}]"#,
            ),
            (
                "variant repeated",
                r#"[{"variant": "9", "labels": "knee", "models": ["a"]}, {"variant": "9", "labels": "knee", "models": ["b"]}]"#,
            ),
            (
                "both kinds",
                r#"[{"variant": "9", "labels": "knee", "models": ["a"]}, {"quality": "low", "labels": "knee", "models": ["b"]}]"#,
            ),
            (
                "a variant with a quality here and none there",
                r#"[{"variant": "9", "labels": "knee", "models": ["a"]}, {"variant": "9", "quality": "low", "labels": "knee", "models": ["b"]}]"#,
            ),
            (
                "a variant in two places",
                r#"[{"variant": "9", "quality": "low", "labels": "knee", "models": ["a"]}, {"variant": "30", "labels": "knee", "models": ["b"]}, {"variant": "9", "quality": "high", "labels": "knee", "models": ["c"]}]"#,
            ),
            (
                "two unnamed",
                r#"[{"labels": "knee", "models": ["a"]}, {"labels": "knee", "models": ["b"]}]"#,
            ),
        ];
        for (claim, choices) in cases {
            let json = format!(
                r#"{{"modes": [{{"name": "knee", "summary": "Knees", "choices": {choices}}}]}}"#
            );
            let message = parse(&json).expect_err(claim);
            assert!(message.contains("knee"), "{claim}: {message}");
        }
    }

    #[test]
    fn unknown_field_is_named() {
        let message = parse(r#"{"modes": [], "default": 1}"#).expect_err("unknown field");
        assert!(message.contains("default"), "{message}");
    }

    const PARTS: &str = r#"{"modes": [{"name": "knee", "summary": "Knees", "choices": [
        {"labels": "knee", "models": ["a", {"model": "b", "ids": [2]}, {"parts": ["c", {"model": "d", "ids": [0, 7]}]}]}
    ]}]}"#;

    #[test]
    fn candidates_are_names_parts_or_several_parts() {
        let modes = parse(PARTS).expect("good modes");
        let models = &modes[0].choices[0].models;
        assert_eq!(models.iter().map(Candidate::name).collect::<Vec<_>>(), ["a", "b", "c + d"]);
        assert_eq!(models[1].parts[0].ids.as_deref(), Some([2].as_slice()));
        assert_eq!(models[2].parts[1].ids.as_deref(), Some([0, 7].as_slice()));
        let unknown = PARTS.replace("\"model\": \"b\"", "\"modle\": \"b\"");
        assert!(parse(&unknown).expect_err("a misspelled field").contains("modle"));
    }

    #[test]
    fn tables_must_exist_and_hold_the_ids() {
        let modes = parse(PARTS).expect("good modes");
        let table = |ids: &[u16]| LabelTable {
            name: "knee".to_owned(),
            labels: ids
                .iter()
                .map(|&id| crate::Label { id, name: format!("l{id}"), ..Default::default() })
                .collect(),
        };
        assert_eq!(check_tables(&modes, &[table(&[2, 7])]), Ok(()));
        let message = check_tables(&modes, &[table(&[2])]).expect_err("id 7 is missing");
        assert!(message.contains("knee") && message.contains('7'), "{message}");
        assert!(check_tables(&modes, &[]).expect_err("no table").contains("knee"));
    }
}
