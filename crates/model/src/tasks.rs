//! `config/tasks.json`: released data sets that are known, and the tasks they answer.
//!
//! A data set is recognized by its number, plans and configuration; what is done around its network
//! is data here. Every task is a mode of its own, and the modes of `config/modes.json` may name tasks
//! as what answers them. The build script reads it too, so that a mistake fails the build.

use crate::Name;
use crate::config::{Label, Refine, RoughCrop};
use crate::labels::LabelTable;
use crate::modes::{Candidate, Choice, Mode, Part, TaskRef};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The file's only version so far.
const VERSION: u32 = 1;

/// What is known of other people's weights.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    version: u32,
    /// The program whose tables these are, with its version.
    pub made_from: String,
    /// One training each.
    pub datasets: Vec<Dataset>,
    /// What can be asked for.
    pub tasks: Vec<Task>,
}

/// A training that people have.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Number of the data set, as in `Dataset297_...`.
    pub id: u32,
    /// Name of the released folder.
    pub folder: String,
    /// The release of TotalSegmentator that has it as an archive; absent where it is given on request.
    pub release: Option<String>,
    /// What the model is called here.
    pub model: String,
    /// The task it is for.
    pub task: String,
    /// Name of the trainer's class.
    pub trainer: String,
    /// Name of the plans.
    pub plans: String,
    /// nnU-Net's configuration.
    pub configuration: String,
    /// Spacing of the task's grid, mm `[z, y, x]`; absent for the image's own.
    pub grid: Option<[f64; 3]>,
    /// Distance between tiles as a fraction of the patch.
    pub step_size: f64,
    /// The folds to average, as the command line has them.
    pub folds: String,
    /// The part of the image that matters.
    pub rough_crop: Option<RoughCrop>,
    /// What draws the border of the labels.
    pub refine: Option<Refine>,
    /// Recipe on the task's grid.
    pub postprocessing: Option<String>,
    /// What is in the images; absent for CT.
    pub modality: Option<String>,
    /// Terms of the weights.
    pub license: String,
    /// Structures, the first of which is label 1.
    pub labels: Vec<String>,
    /// Those that never come out.
    #[serde(default)]
    pub auxiliary: Vec<String>,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The name.
    pub name: Name,
    /// One line for users.
    pub summary: String,
    /// One per quality, from low to high.
    pub choices: Vec<TaskChoice>,
    /// Structures, the first of which has id 1.
    pub labels: Vec<String>,
    /// Whether the makers give the weights on request only.
    #[serde(default)]
    pub licensed: bool,
}

/// The models of a task in one quality.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskChoice {
    /// As in modes; absent where there is one.
    pub quality: Option<String>,
    /// Names of models, in the order they run.
    pub models: Vec<String>,
    /// Smaller networks of the same, where there are.
    #[serde(default)]
    pub small: Vec<String>,
}

impl Tasks {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// A message that names the data set or task and what is wrong with it.
    pub fn parse(json: &str) -> Result<Self, String> {
        let tasks: Self = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if tasks.version != VERSION {
            return Err(format!("version {}, expected {VERSION}", tasks.version));
        }
        for (k, dataset) in tasks.datasets.iter().enumerate() {
            let model = &dataset.model;
            if tasks.datasets[..k].iter().any(|other| other.model == *model) {
                return Err(format!("model {model} twice"));
            }
            let crops = dataset.rough_crop.iter().flat_map(|crop| &crop.models);
            let needed = crops.chain(dataset.refine.iter().map(|refine| &refine.model));
            if let Some(other) = needed.into_iter().find(|name| tasks.dataset(name).is_none()) {
                return Err(format!("model {model} needs {other}, which is no data set's"));
            }
        }
        for task in &tasks.tasks {
            let models = task.choices.iter().flat_map(|c| c.models.iter().chain(&c.small));
            for name in models {
                let Some(dataset) = tasks.dataset(name) else {
                    return Err(format!("task {}: no data set for model {name}", task.name));
                };
                let strange = dataset.labels.iter().find(|label| {
                    !task.labels.contains(label) && !dataset.auxiliary.contains(label)
                });
                if let Some(label) = strange {
                    return Err(format!("task {}: {name} labels {label}", task.name));
                }
            }
        }
        Ok(tasks)
    }

    /// The data set of a model.
    #[must_use]
    pub fn dataset(&self, model: &str) -> Option<&Dataset> {
        self.datasets.iter().find(|dataset| dataset.model == model)
    }

    /// The data sets that a trained folder is: `Dataset<id>_...` with its plans and configuration.
    pub fn known(
        &self,
        id: u32,
        plans: &str,
        configuration: &str,
    ) -> impl Iterator<Item = &Dataset> {
        self.datasets.iter().filter(move |dataset| {
            dataset.id == id && dataset.plans == plans && dataset.configuration == configuration
        })
    }

    /// The models of a task.
    fn models(&self, wanted: &TaskRef) -> Option<Vec<String>> {
        let task = self.tasks.iter().find(|task| task.name == wanted.task)?;
        let choice = match &wanted.quality {
            Some(_) => task.choices.iter().find(|choice| choice.quality == wanted.quality)?,
            None => task.choices.last()?,
        };
        Some(if wanted.small { choice.small.clone() } else { choice.models.clone() })
    }

    /// Gives candidates that name tasks their models, and adds a mode for every task that has none.
    ///
    /// # Errors
    ///
    /// A message that names the mode whose task there is not.
    pub fn join(&self, modes: &mut Vec<Mode>) -> Result<(), String> {
        let new = self.tasks.iter().filter(|task| modes.iter().all(|mode| mode.name != task.name));
        let new: Vec<Mode> = new.map(Self::mode).collect();
        modes.extend(new);
        self.fill(modes)
    }

    /// Gives candidates that name tasks their models.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn fill(&self, modes: &mut [Mode]) -> Result<(), String> {
        for mode in modes {
            let name = &mode.name;
            for candidate in mode.choices.iter_mut().flat_map(|choice| &mut choice.models) {
                if candidate.tasks.is_empty() {
                    continue;
                }
                let mut models = Vec::new();
                for task in &candidate.tasks {
                    models.extend(self.models(task).ok_or_else(|| {
                        format!("mode {name}: no task {task}, expected one of config/tasks.json")
                    })?);
                }
                let part = |model| Part { model, ids: None };
                candidate.parts = models.into_iter().map(part).collect();
            }
        }
        Ok(())
    }

    /// The mode that is this task, to be filled.
    fn mode(task: &Task) -> Mode {
        let has_small = task.choices.iter().any(|choice| !choice.small.is_empty());
        let variants: &[(Option<&str>, bool)] = if has_small {
            &[(Some("big"), false), (Some("small"), true)]
        } else {
            &[(None, false)]
        };
        let mut choices = Vec::new();
        for &(variant, small) in variants {
            for TaskChoice { quality, .. } in &task.choices {
                let of = TaskRef { task: task.name.to_string(), quality: quality.clone(), small };
                choices.push(Choice {
                    quality: quality.clone(),
                    variant: variant.map(str::to_owned),
                    labels: task.name.to_string(),
                    subseg: None,
                    models: vec![Candidate { parts: Vec::new(), tasks: vec![of] }],
                    recipe: None,
                });
            }
        }
        Mode { name: task.name.clone(), summary: task.summary.clone(), choices }
    }

    /// A label table for every task that is not among the `known`: with colors and codes of the
    /// structures that a known table has, too.
    #[must_use]
    pub fn tables(&self, known: &[LabelTable]) -> Vec<LabelTable> {
        let seen = |name: &str| known.iter().find_map(|table| table.find(name));
        let new = self.tasks.iter().filter(|task| known.iter().all(|t| *t.name != *task.name));
        let label = |(k, name): (usize, &String)| {
            let like = seen(name).cloned().unwrap_or_default();
            let color = like.color.clone().or_else(|| Some(color(k)));
            Label { id: k as u16 + 1, name: name.clone(), color, ..like }
        };
        new.map(|task| LabelTable {
            name: task.name.to_string(),
            labels: task.labels.iter().enumerate().map(label).collect(),
        })
        .collect()
    }
}

impl Dataset {
    /// Writes into a model's configuration what is done around the network.
    pub fn surround(&self, config: &mut Map<String, Value>, made_from: &str) {
        let mut set = |field: &str, value: Value| {
            config.insert(field.to_owned(), value);
        };
        let grid = match self.grid {
            Some(spacing) => json!({
                "spacing": spacing, "order": 1, "align": "corners", "integer": "truncate",
                "labels_back": "nearest",
            }),
            None => json!({"labels_back": "nearest"}),
        };
        set("grid", grid);
        set("reader", "TotalSegmentator".into());
        set("orientation", "RAS".into());
        set("mirror_axes", json!([]));
        set("step_size", self.step_size.into());
        set("grade", "external".into());
        set("license", self.license.as_str().into());
        set("source", format!("{}, {made_from}", self.folder).into());
        for (field, value) in [
            ("rough_crop", json!(self.rough_crop)),
            ("refine", json!(self.refine)),
            ("postprocessing", json!(self.postprocessing)),
            ("modality", json!(self.modality)),
        ] {
            if !value.is_null() {
                set(field, value);
            }
        }
        if !self.auxiliary.is_empty() {
            set("auxiliary", json!(self.auxiliary));
        }
    }
}

/// A colour for the structure of that place: hues a golden angle apart, in three lightnesses.
fn color(k: usize) -> String {
    let hue = (k as f64 * 137.508) % 360.0;
    let level = [0.85, 0.7, 0.95][k % 3];
    let channel = |n: f64| {
        // HSV with a saturation of 0.6.
        let at = (n + hue / 60.0) % 6.0;
        let value = level - level * 0.6 * at.min(4.0 - at).clamp(0.0, 1.0);
        (value * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(5.0), channel(3.0), channel(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"version": 1, "made_from": "a program", "datasets": [
        {"id": 7, "folder": "Dataset007_Knee", "model": "knee", "task": "knee", "trainer": "t",
         "plans": "p", "configuration": "c", "step_size": 0.5, "folds": "0", "license": "CC0-1.0",
         "labels": ["patella", "tibia", "skin"], "auxiliary": ["skin"], "grid": [1, 2, 3]}],
        "tasks": [{"name": "knee", "summary": "Knees", "choices": [{"models": ["knee"]}],
        "labels": ["patella", "tibia"]}]}"#;

    #[test]
    fn a_task_is_a_mode_with_a_table_of_its_own() {
        let tasks = Tasks::parse(TWO).expect("good tasks");
        let mut modes = Vec::new();
        tasks.join(&mut modes).expect("joined");
        assert_eq!(modes[0].name, "knee");
        assert_eq!(modes[0].choices[0].models[0].parts[0].model, "knee");
        let table = &tasks.tables(&[])[0];
        assert_eq!(table.labels.iter().map(|l| l.id).collect::<Vec<_>>(), [1, 2]);
        assert!(
            tasks.known(7, "p", "c").next().is_some() && tasks.known(8, "p", "c").next().is_none()
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (mistake, from, to, named) in [
            ("a version of the future", r#""version": 1"#, r#""version": 2"#, "version 2"),
            ("a model nobody has", r#"{"models": ["knee"]}"#, r#"{"models": ["hip"]}"#, "hip"),
            ("a label of no task", r#""auxiliary": ["skin"], "#, "", "skin"),
            ("an unknown field", r#""folds""#, r#""fold""#, "fold"),
        ] {
            let message = Tasks::parse(&TWO.replace(from, to)).expect_err(mistake);
            assert!(message.contains(named), "{mistake}: {message}");
        }
    }

    #[test]
    fn surroundings_are_a_configuration() {
        let tasks = Tasks::parse(TWO).expect("good tasks");
        let json = r#"{"patch_size": [8, 8, 8], "target_spacing": [1, 1, 1], "labels":
            [{"id": 1, "name": "patella"}, {"id": 2, "name": "tibia"}, {"id": 3, "name": "skin"}],
            "intensity_properties": {"mean": 0, "std": 1, "percentile_00_5": 0, "percentile_99_5": 1}}"#;
        let mut config: Map<String, Value> = serde_json::from_str(json).expect("JSON");
        tasks.datasets[0].surround(&mut config, "a program");
        let config = crate::ModelConfig::from_json(&Value::Object(config).to_string());
        let config = config.expect("a configuration");
        assert_eq!(config.grid.expect("a grid").spacing, Some([1.0, 2.0, 3.0]));
        assert_eq!(config.auxiliary, ["skin"]);
        assert_eq!(config.grade, crate::Grade::External);
    }
}
