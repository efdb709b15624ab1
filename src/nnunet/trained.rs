//! Trained folders as they lie on disk, looked at without their weights.
//!
//! A folder of any level enters (nnU-Net's results, a data set, a training); the trainings in it
//! leave, each with what its name and its two JSON files say.

use super::folder::Training;
use super::{Fold, Folder, Folds, folder, folds, plans, v1};
use crate::files::Allowance;
use crate::model::tasks::Dataset;
use crate::model::{ModelConfig, Orientation};
use crate::{Error, Mismatch, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Most folders looked at: results, not a disk.
const MAX_FOLDERS: usize = 10_000;

/// A training that has not been opened.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its folder.
    pub path: PathBuf,
    /// `Dataset297_Name`, from the folder around it or else from its plans.
    pub dataset: String,
    /// Name of the trainer's class.
    pub trainer: String,
    /// Name of the plans.
    pub plans: String,
    /// nnU-Net's configuration.
    pub configuration: String,
    /// The numbered folds, and `all`, that have a checkpoint.
    pub folds: Vec<Fold>,
    /// How the images lie that it was trained on, where that is not what its reader says.
    pub orientation: Option<Orientation>,
    config: Map<String, Value>,
}

impl Trained {
    /// Looks at a folder called `Trainer__Plans__Configuration`, or one that was renamed, whose first
    /// checkpoint says what it is.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if it is called otherwise and has no weights, or naming the file that is
    /// missing, malformed or asks for what is not supported.
    pub fn look(path: &Path) -> Result<Self> {
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let named =
            |place: &Path| place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = named(&place);
        let folder::Described { plans: written, dataset: described, .. } =
            folder::described(path, Allowance::default())?;
        let folds = folds::with_weights(path);
        let [trainer, plans, configuration] = match &name.split("__").collect::<Vec<_>>()[..] {
            &[trainer, plans, configuration] => [trainer, plans, configuration].map(str::to_owned),
            _ if folds.is_empty() => {
                let found = format!("a folder {name} without weights");
                let expected =
                    "Trainer__Plans__Configuration, or fold_0/checkpoint_final.pth in it";
                return Err(Error::model_file(path, Mismatch::new(found, expected)));
            }
            _ => {
                let training = Training::look(path, &usual(&folds), &written)?;
                let plans = written.get("plans_name").and_then(Value::as_str);
                let plans = plans.unwrap_or("nnUNetPlans").to_owned();
                [training.trainer, plans, training.configuration.to_string()]
            }
        };
        let read = plans::read(&written, &described, &configuration, &[])
            .map_err(|wrong| Error::model_file(path, wrong))?;
        let around = place.parent().map(named).filter(|name| dataset_id(name).is_some());
        Ok(Self {
            path: path.to_owned(),
            dataset: around.or(read.dataset_name).unwrap_or_default(),
            trainer,
            plans,
            configuration,
            folds,
            orientation: None,
            config: read.config,
        })
    }

    /// Number of the data set.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        dataset_id(&self.dataset)
    }

    /// The configuration without what only the checkpoint says; with what is known of the `dataset`.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the two do not go together.
    pub fn config(&self, dataset: Option<(&Dataset, &str)>) -> Result<ModelConfig> {
        let mut config = self.config.clone();
        match dataset {
            Some((dataset, made_from)) => dataset.surround(&mut config, made_from),
            None => self.external(&mut config),
        }
        ModelConfig::from_json(&Value::Object(config).to_string())
            .map_err(|wrong| Error::model_file(&self.path, wrong))
    }

    /// The folds to average where nothing else is known: every numbered one, or the one that was
    /// trained on every case if it is there alone.
    #[must_use]
    pub fn usual_folds(&self) -> Folds {
        usual(&self.folds)
    }

    /// Opens it, as what is known of the `dataset` says.
    ///
    /// # Errors
    ///
    /// As [`Folder::open`], and [`Error::Model`] if its structures are not those of the data set.
    pub fn open(&self, folds: &Folds, dataset: Option<(&Dataset, &str)>) -> Result<Folder> {
        self.open_within(folds, dataset, Allowance::default())
    }

    /// As [`open`](Self::open), as far as memory is `allowed` for it.
    pub(crate) fn open_within(
        &self,
        folds: &Folds,
        dataset: Option<(&Dataset, &str)>,
        allowed: Allowance,
    ) -> Result<Folder> {
        let folder = Folder::open_within(&self.path, folds, None, allowed)?;
        match dataset {
            Some((dataset, made_from)) => {
                self.check_labels(dataset)?;
                folder.adapted(|config| dataset.surround(config, made_from))
            }
            None => folder.adapted(|config| self.external(config)),
        }
    }

    /// What is said of weights that nothing is known of.
    fn external(&self, config: &mut Map<String, Value>) {
        if !self.dataset.is_empty() {
            config.insert("source".into(), self.dataset.as_str().into());
        }
        if let Some(orientation) = self.orientation {
            config.insert("orientation".into(), orientation.to_string().into());
        }
    }

    /// Fails unless the labels are those that the data set is known for.
    fn check_labels(&self, dataset: &Dataset) -> Result<()> {
        let label = |label: &Value| label.get("name").and_then(Value::as_str).map(str::to_owned);
        let own: Vec<String> = self
            .config
            .get("labels")
            .and_then(Value::as_array)
            .iter()
            .flat_map(|labels| labels.iter().filter_map(label))
            .collect();
        if own == dataset.labels {
            return Ok(());
        }
        let differs = own.iter().zip(&dataset.labels).find(|(a, b)| a != b);
        let what = match differs {
            Some((own, known)) => Mismatch::new(format!("label {own}"), known.clone()),
            None => Mismatch::new(
                format!("{} labels", own.len()),
                format!("{}, as {} has", dataset.labels.len(), dataset.folder),
            ),
        };
        Err(Error::model_file(&self.path.join("dataset.json"), what))
    }
}

/// Those of `folds` to average.
fn usual(folds: &[Fold]) -> Folds {
    if folds == [Fold::All] { Folds::List(vec![Fold::All]) } else { Folds::Auto }
}

/// Names for models of trainings nothing is known of, each `[dataset, trainer, plans, configuration]`:
/// the data set's and the configuration; in full where that is another's too.
pub(crate) fn model_names(trainings: &[[&str; 4]]) -> Vec<String> {
    let short =
        |[dataset, _, _, configuration]: &[&str; 4]| super::suggested_name(dataset, configuration);
    let names: Vec<String> = trainings.iter().map(short).collect();
    let is_shared = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
    let name = |(name, training): (&String, &[&str; 4])| {
        if is_shared(name) { super::model_name(&training.join("_")) } else { name.clone() }
    };
    names.iter().zip(trainings).map(name).collect()
}

/// `297` of `Dataset297_Name`.
pub(crate) fn dataset_id(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("Dataset")?;
    let digits = rest.split('_').next()?;
    (digits.len() >= 3).then(|| digits.parse().ok())?
}

/// Whether a folder holds the two files that describe a training, or the one of nnU-Net v1.
#[must_use]
pub fn is_training(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    (has("plans.json") && has("dataset.json")) || v1::is_training(folder)
}

/// The folders of trainings in `folder`: itself, those in it, and those in the data sets in it,
/// sorted by path. Empty if there are none, and if there is no such folder.
#[must_use]
pub fn trainings(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), MAX_FOLDERS);
    collect(folder, 4, &mut left, &mut found);
    found.sort();
    found
}

/// Looks `levels` deep.
fn collect(folder: &Path, levels: usize, left: &mut usize, found: &mut Vec<PathBuf>) {
    if is_training(folder) {
        found.push(folder.to_owned());
        return;
    }
    if levels == 0 {
        return;
    }
    let Ok(list) = std::fs::read_dir(folder) else { return };
    for entry in list.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && *left > 0 && path.is_dir() {
            *left -= 1;
            collect(&path, levels - 1, left, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trainings_of_one_data_set_have_two_names() {
        let liver = ["Dataset012_Liver", "nnUNetTrainer", "nnUNetPlans", "3d_fullres"];
        let longer = ["Dataset012_Liver", "nnUNetTrainer_8000epochs", "nnUNetPlans", "3d_fullres"];
        let knee = ["Dataset013_Knee", "nnUNetTrainer", "nnUNetPlans", "2d"];
        assert_eq!(model_names(&[liver, knee]), ["liver_3d_fullres", "knee_2d"]);
        assert_eq!(
            model_names(&[liver, longer, knee]),
            [
                "dataset012_liver_nnunettrainer_nnunetplans_3d_fullres",
                "dataset012_liver_nnunettrainer_8000epochs_nnunetplans_3d_fullres",
                "knee_2d"
            ]
        );
    }

    #[test]
    fn the_number_of_a_data_set_is_in_its_name() {
        for (name, id) in [
            ("Dataset297_TotalSegmentator", Some(297)),
            ("Dataset008_HepaticVessel", Some(8)),
            ("Dataset8_X", None),
            ("Task008_X", None),
            ("Dataset", None),
        ] {
            assert_eq!(dataset_id(name), id, "{name}");
        }
    }
}
