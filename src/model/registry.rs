//! The models built into the program, and which of them does what a user asked for.
//!
//! A mode with its quality or variant enters, an [`EmbeddedModel`] leaves.

use super::modes::{self, Choice, Mode};
use super::{Grade, ModelConfig};
use crate::{Error, Result};
use std::sync::LazyLock;

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// A model and its configuration, checked by the build.
#[non_exhaustive]
pub struct EmbeddedModel {
    /// Name, as in `config/modes.json` and on the command line.
    pub name: &'static str,
    /// nnU-Net's configuration: `2d`, `3d_fullres`, `3d_lowres` or `3d_cascade_fullres`.
    pub configuration: &'static str,
    /// The configuration file; [`config`](Self::config) reads it.
    pub config_json: &'static str,
    /// The ONNX file: the only copy of the weights in the program.
    pub onnx: &'static [u8],
    /// SHA-256 of the ONNX file, lowercase hexadecimal.
    pub sha256: &'static str,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Where the weights come from.
    pub origin: &'static str,
    /// SPDX expression for the weights.
    pub licence: &'static str,
    /// How much the model may be trusted.
    pub grade: Grade,
    /// Channels of the input.
    pub input_channels: usize,
    /// Channels of the output: classes with background, or regions.
    pub output_channels: usize,
}

impl EmbeddedModel {
    /// The parsed configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if it is not valid, which the build has ruled out.
    pub fn config(&self) -> Result<ModelConfig> {
        ModelConfig::from_json(self.config_json).map_err(|e| Error::Model {
            model: self.name.to_owned(),
            found: format!("{} {}", e.field, e.found),
            expected: e.expected,
        })
    }
}

impl std::fmt::Debug for EmbeddedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedModel")
            .field("name", &self.name)
            .field("configuration", &self.configuration)
            .field("bytes", &self.onnx.len())
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// The models in this build, sorted by name.
#[must_use]
pub fn models() -> &'static [EmbeddedModel] {
    MODELS
}

/// The model of that name, if this build has it.
#[must_use]
pub fn find(name: &str) -> Option<&'static EmbeddedModel> {
    models().iter().find(|model| model.name == name)
}

/// The modes users choose from, in the order of `config/modes.json`.
///
/// A mode is listed whether or not its models are installed: see [`Mode::installed`].
#[must_use]
pub fn modes() -> &'static [Mode] {
    // The build refuses a file that does not parse.
    static MODES: LazyLock<Vec<Mode>> =
        LazyLock::new(|| modes::parse(MODES_JSON).unwrap_or_default());
    &MODES
}

impl Mode {
    /// The choices whose model is in this build.
    pub fn installed(&self) -> impl Iterator<Item = (&Choice, &'static EmbeddedModel)> {
        self.choices.iter().filter_map(|choice| Some((choice, find(&choice.model)?)))
    }
}

/// The model for a mode.
///
/// Without `quality` the best installed one is taken; without `variant` the first.
///
/// # Errors
///
/// [`Error::Usage`] for a mode, quality or variant that does not exist, with those that do;
/// [`Error::Model`] if it exists but is not in this build, with the files to add.
pub fn resolve(
    mode: &str,
    quality: Option<&str>,
    variant: Option<&str>,
) -> Result<&'static EmbeddedModel> {
    select(modes(), mode, quality, variant, find)
}

fn select<T>(
    modes: &[Mode],
    mode: &str,
    quality: Option<&str>,
    variant: Option<&str>,
    find: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let known = || join(modes.iter().map(|mode| mode.name.as_str()));
    let mode = modes
        .iter()
        .find(|known| known.name == mode)
        .ok_or_else(|| usage("mode".to_owned(), mode, format!("one of {}", known())))?;
    let choices = pick(mode, "quality", quality, |choice| choice.quality.as_deref())?;
    let choices = match pick(mode, "variant", variant, |choice| choice.variant.as_deref())? {
        all if variant.is_none() && all.iter().any(|c| c.variant.is_some()) => &choices[..1],
        _ if variant.is_none() => &choices[..],
        named => return find(&named[0].model).ok_or_else(|| missing(mode, &named)),
    };
    // Qualities go from low to high.
    let best = choices.iter().rev().find_map(|choice| find(&choice.model));
    best.ok_or_else(|| missing(mode, choices))
}

/// The choices a given quality or variant leaves: all of them when none is given.
fn pick<'a>(
    mode: &'a Mode,
    what: &str,
    given: Option<&str>,
    of: impl Fn(&'a Choice) -> Option<&'a str>,
) -> Result<Vec<&'a Choice>> {
    let Some(given) = given else { return Ok(mode.choices.iter().collect()) };
    let found: Vec<&Choice> = mode.choices.iter().filter(|c| of(c) == Some(given)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let known = join(mode.choices.iter().filter_map(of));
    let expected = if known.is_empty() {
        format!("no {what} for this mode")
    } else {
        format!("one of {known}")
    };
    Err(usage(format!("{what} of mode {}", mode.name), given, expected))
}

fn usage(what: String, found: &str, expected: String) -> Error {
    Error::Usage { what, found: found.to_owned(), expected }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Says what to add for the first of the models that would do.
fn missing(mode: &Mode, choices: &[&Choice]) -> Error {
    let name = &choices[0].model;
    let others = join(choices[1..].iter().map(|choice| choice.model.as_str()));
    let or = if others.is_empty() { String::new() } else { format!(" (nor {others})") };
    Error::Model {
        model: name.clone(),
        found: format!("no weights for mode {} in this build{or}", mode.name),
        expected: format!(
            "models/{name}.onnx, config/3d_fullres/{name}.json and a line for {name} in \
             models/MANIFEST.toml, then a rebuild"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_the_right_model() {
        // (claim, installed, mode, quality, variant, model or part of the message)
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static str,
            Option<&'static str>,
            Option<&'static str>,
            Result<&'static str, &'static str>,
        );
        let cases: [Case; 12] = [
            ("best quality", &["bone_low", "bone_high"], "bone", None, None, Ok("bone_high")),
            ("falls back", &["bone_low"], "bone", None, None, Ok("bone_low")),
            ("as asked", &["bone_low", "bone_high"], "bone", Some("low"), None, Ok("bone_low")),
            ("asked is missing", &["bone_low"], "bone", Some("high"), None, Err("bone_high.onnx")),
            ("none installed", &[], "bone", None, None, Err("models/bone_low.onnx")),
            ("unknown quality", &[], "bone", Some("best"), None, Err("low, medium, high")),
            ("unknown mode", &[], "knee", None, None, Err("bone, chest, abdomen, headneck")),
            ("no qualities", &[], "chest", Some("low"), None, Err("no quality for this mode")),
            (
                "first variant",
                &["abdomen", "abdomen_extended"],
                "abdomen",
                None,
                None,
                Ok("abdomen"),
            ),
            (
                "a default is not replaced",
                &["headneck_30"],
                "headneck",
                None,
                None,
                Err("headneck_9"),
            ),
            ("variant as asked", &["headneck_30"], "headneck", None, Some("30"), Ok("headneck_30")),
            ("unknown variant", &[], "headneck", None, Some("10"), Err("one of 9, 30")),
        ];
        for (claim, installed, mode, quality, variant, expected) in cases {
            let find = |name: &str| installed.iter().copied().find(|known| *known == name);
            match (select(modes(), mode, quality, variant, find), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{claim}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{claim}: {error}");
                    let code = if matches!(error, Error::Usage { .. }) { 2 } else { 4 };
                    assert_eq!(error.exit_code(), code, "{claim}");
                }
                (found, _) => panic!("{claim}: {found:?}"),
            }
        }
    }

    #[test]
    fn there_are_eight_modes() {
        let names: Vec<&str> = modes().iter().map(|mode| mode.name.as_str()).collect();
        assert_eq!(
            names,
            ["bone", "chest", "abdomen", "headneck", "pelvic", "spine", "limb", "total"]
        );
    }

    #[test]
    fn embedded_configurations_parse() {
        for model in models() {
            let config = model.config().expect(model.name);
            assert_eq!(config.channels.len(), model.input_channels, "{}", model.name);
            assert_eq!(config.grade, model.grade, "{}", model.name);
        }
    }
}
