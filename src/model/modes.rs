//! `config/modes.json`: what a user asks for, and the model that does it.
//!
//! `build.rs` compiles this file too, so that a mistake in the list fails the build.

use serde::Deserialize;

/// What the command line calls a mode, for instance `bone`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// The name.
    pub name: String,
    /// One line for users: what is segmented.
    pub summary: String,
    /// The models to choose from. Qualities go from low to high; the first variant is the
    /// default.
    pub choices: Vec<Choice>,
}

/// One model of a mode.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// `low`, `medium` or `high`, in a mode that has qualities.
    pub quality: Option<String>,
    /// Name of the variant, in a mode that has variants.
    pub variant: Option<String>,
    /// Name of the model.
    pub model: String,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    modes: Vec<Mode>,
}

const QUALITIES: [&str; 3] = ["low", "medium", "high"];

/// Reads and checks the list of modes.
///
/// # Errors
///
/// A message that names the mode and what is wrong with it.
pub fn parse(json: &str) -> Result<Vec<Mode>, String> {
    let Written { modes } = serde_json::from_str(json).map_err(|e| e.to_string())?;
    for (i, mode) in modes.iter().enumerate() {
        let name = &mode.name;
        if name.is_empty() || modes[..i].iter().any(|other| other.name == *name) {
            return Err(format!("mode {name:?}, expected different names that are not empty"));
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
    if choices.iter().any(|choice| choice.model.is_empty()) {
        return Err("a choice without model".to_owned());
    }
    let qualities: Vec<&str> = choices.iter().filter_map(|c| c.quality.as_deref()).collect();
    let variants: Vec<&str> = choices.iter().filter_map(|c| c.variant.as_deref()).collect();
    match (choices.len(), qualities.len(), variants.len()) {
        (1, 0, 0) => Ok(()),
        (n, q, 0) if n == q && n > 0 => {
            let ranks: Option<Vec<usize>> = qualities
                .iter()
                .map(|quality| QUALITIES.iter().position(|known| known == quality))
                .collect();
            match ranks {
                Some(ranks) if ranks.is_sorted_by(|a, b| a < b) => Ok(()),
                _ => Err(format!("qualities {qualities:?}, expected low, medium, high in order")),
            }
        }
        (n, 0, v) if n == v && n > 0 => {
            let repeated = |i: usize| variants[..i].contains(&variants[i]);
            if (0..v).any(|i| variants[i].is_empty() || repeated(i)) {
                return Err(format!("variants {variants:?}, expected different names"));
            }
            Ok(())
        }
        _ => Err("expected one choice, or a quality for each, or a variant for each".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_mode() {
        // (claim, choices)
        let cases = [
            ("no choice", "[]"),
            ("unknown quality", r#"[{"quality": "best", "model": "a"}]"#),
            (
                "qualities out of order",
                r#"[{"quality": "high", "model": "a"}, {"quality": "low", "model": "b"}]"#,
            ),
            (
                "variant repeated",
                r#"[{"variant": "9", "model": "a"}, {"variant": "9", "model": "b"}]"#,
            ),
            ("both kinds", r#"[{"variant": "9", "model": "a"}, {"quality": "low", "model": "b"}]"#),
            ("two unnamed", r#"[{"model": "a"}, {"model": "b"}]"#),
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
}
