//! Recipes: lists of steps in JSON, with structures by name.

use super::map::Map;
use super::patient::PatientAxes;
use super::runs::Voxel;
use super::steps::{Step, in_step};
use crate::model::Label;
use crate::volume::{Grid, LabelMap};
use crate::{Error, Mismatch, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Recipes are longer by no mistake of a person.
const MAX_BYTES: u64 = 4 << 20;

/// Most steps: each looks at the whole label map.
const MOST_STEPS: usize = 256;

/// Steps in the order in which they are applied.
///
/// ```
/// let recipe = fastnnunet::pipeline::postprocess::Recipe::from_json(
///     r#"{"steps": [{"step": "keep_largest", "labels": ["liver", "spleen"], "nearest_mm": 5}]}"#,
/// )?;
/// assert_eq!(recipe.len(), 1);
/// # Ok::<_, fastnnunet::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    steps: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Name in the JSON.
    pub name: String,
    /// Structures that the model does not have are left out instead of an error.
    pub optional: bool,
    pub step: Step,
}

/// What a recipe did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One entry per step, in order.
    pub steps: Vec<StepReport>,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Name of the step.
    pub step: String,
    /// Voxels the step changed; of a step that gives removed voxels the nearest label, those
    /// it removed first.
    pub voxels_changed: u64,
    /// Why the step did nothing at all, if it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    #[allow(dead_code, reason = "a place for remarks in recipe files")]
    comment: Option<String>,
    steps: Vec<serde_json::Map<String, Value>>,
}

impl Recipe {
    /// Reads a recipe: an object with the list `steps`, each with its name in `step`. The format
    /// is documented in `docs/postprocessing.md`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the step: unknown steps and fields, values out of range.
    pub fn from_json(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).map_err(|e| Error::Usage {
            what: "postprocessing recipe".into(),
            found: e.to_string(),
            expected: "an object with a list of steps".into(),
        })?;
        if file.steps.len() > MOST_STEPS {
            let found = format!("{} steps", file.steps.len());
            return Err(Error::usage(
                "postprocessing recipe",
                found,
                format!("at most {MOST_STEPS}"),
            ));
        }
        let steps = file.steps.into_iter().enumerate();
        let steps: Result<_> = steps.map(|(i, fields)| Entry::parse(i, fields)).collect();
        Ok(Self { steps: steps? })
    }

    /// Reads a recipe from a file: this program's JSON, or nnU-Net's `postprocessing.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the file cannot be read or is neither.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = files::read_text(path, MAX_BYTES).map_err(|error| {
            let found = format!("{}: {error}", path.display());
            Error::usage("postprocessing recipe", found, "a recipe that can be read")
        })?;
        if text.contains("postprocessing_fns") {
            Self::from_nnunet_json(&text)
        } else {
            Self::from_json(&text)
        }
    }

    pub(super) fn from_steps(steps: Vec<(&str, Step)>) -> Self {
        let entry = |(name, step): (&str, _)| Entry { name: name.into(), optional: false, step };
        Self { steps: steps.into_iter().map(entry).collect() }
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Checks that every step's structures are in the table `names`, without a label map.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub fn check(&self, names: &[Label]) -> Result<()> {
        for (i, entry) in self.steps.iter().enumerate() {
            entry.step.resolve(names, entry.optional).map_err(|e| in_step(e, i, &entry.name))?;
        }
        // Labels below 255 come in bytes.
        let largest = names.iter().map(|label| label.id).max();
        let background = self.steps.iter().map(|entry| entry.step.background()).max();
        match (largest, background) {
            (Some(0..255), Some(id)) if id > u16::from(u8::MAX) => Err(Error::Usage {
                what: "recipe".into(),
                found: format!("background label {id}"),
                expected: "at most 255 for a model whose labels are below 255".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Applies all steps to `labels`, on `grid`, whose structures are `names`.
    ///
    /// A name that `names` does not have is an error, or left out of a step marked `"optional"`;
    /// such a step is skipped, and reported so, if it has no structure left.
    ///
    /// Besides the labels it holds their runs, and bits or distances over bounding boxes and
    /// slabs: less than one more label map for anatomy.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the step and what is missing from `names`, before anything is
    /// changed; [`Error::Volume`] if the labels do not have the grid's shape or a row has more
    /// than 65535 voxels.
    pub fn apply(&self, labels: &mut LabelMap, grid: &Grid, names: &[Label]) -> Result<Report> {
        self.check(names)?;
        let shape: [usize; 3] = match labels {
            LabelMap::U8(labels) => labels.dim().into(),
            LabelMap::U16(labels) => labels.dim().into(),
        };
        if shape != grid.shape || u16::try_from(shape[2]).is_err() {
            return Err(Error::Volume {
                found: format!("{shape:?} labels"),
                expected: format!("{:?} as the grid says, at most 65535 in a row", grid.shape),
            });
        }
        if let (LabelMap::U8(_), Some(id)) = (&*labels, self.largest_label(names))
            && id > u16::from(u8::MAX)
        {
            return Err(Error::Volume {
                found: format!("a map of 8-bit labels for a model with label {id}"),
                expected: "16-bit labels".into(),
            });
        }
        match labels {
            LabelMap::U8(labels) => self.run(labels, grid, names),
            LabelMap::U16(labels) => self.run(labels, grid, names),
        }
    }

    /// The largest label a step could write.
    fn largest_label(&self, names: &[Label]) -> Option<u16> {
        let backgrounds = self.steps.iter().map(|entry| entry.step.background());
        names.iter().map(|label| label.id).chain(backgrounds).max()
    }

    fn run<T: Voxel>(
        &self,
        labels: &mut ndarray::Array3<T>,
        grid: &Grid,
        names: &[Label],
    ) -> Result<Report> {
        if !labels.is_standard_layout() {
            *labels = labels.as_standard_layout().into_owned();
        }
        let axes = PatientAxes::new(grid);
        let mut map = Map::new(labels.view_mut(), grid.spacing);
        let mut report = Report::default();
        for (i, entry) in self.steps.iter().enumerate() {
            let resolved = entry.step.resolve(names, entry.optional);
            let resolved = resolved.map_err(|e| in_step(e, i, &entry.name))?;
            let (voxels_changed, skipped) = match resolved {
                Some(step) => match step.apply(&mut map, &axes) {
                    Ok(changed) => (changed, None),
                    Err(nothing) => (0, Some(nothing.to_owned())),
                },
                None => (0, Some("the model has none of its structures".to_owned())),
            };
            report.steps.push(StepReport { step: entry.name.clone(), voxels_changed, skipped });
        }
        Ok(report)
    }
}

impl Entry {
    fn parse(index: usize, mut fields: serde_json::Map<String, Value>) -> Result<Self> {
        let name = match fields.remove("step") {
            Some(Value::String(name)) => name,
            other => {
                let found = other.map_or("no name".to_owned(), |value| value.to_string());
                let error = Mismatch::new(found, format!("`step`: {}", Step::one_of()));
                return Err(in_step(error, index, "?"));
            }
        };
        let optional = match fields.remove("optional") {
            None => false,
            Some(Value::Bool(optional)) => optional,
            Some(other) => {
                let error = Mismatch::new(format!("`optional`: {other}"), "true or false");
                return Err(in_step(error, index, &name));
            }
        };
        match Step::parse(&name, Value::Object(fields)) {
            Ok(step) => Ok(Self { name, optional, step }),
            Err(error) => Err(in_step(error, index, &name)),
        }
    }
}
