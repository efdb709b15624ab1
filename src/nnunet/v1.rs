//! Trainings of nnU-Net v1, said as v2 would.
//!
//! `plans.pkl` enters; `plans.json` and `dataset.json` as v2 would have written them leave. Three things
//! differ in the computation, and the configuration says so: values are normalized after resampling, the
//! network ends in probabilities, which are what mirrored passes, tiles and folds are averaged of, and
//! the Gaussian that weights tiles does not underflow in their corners.

use super::folder::Training;
use super::pickle::{Id, Pickle};
use crate::files::Allowance;
use crate::model::Name;
use crate::{Error, Mismatch, Result, files};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The plans, in the folder of a training.
const PLANS: &str = "plans.pkl";

/// Largest file of plans read; they list some numbers of each case.
const MAX_BYTES: u64 = 1 << 27;

/// Most features of a stage, by the network's axes.
const MOST_FEATURES: [(usize, u64); 2] = [(2, 480), (3, 320)];

/// What is in the names of trainers, in lowercase, whose networks compute otherwise with weights of the
/// same names, in several stages, or regions.
const ELSEWHERE: &[&str] = &["cascade", "regions", "relu", "gelu", "mish", "_gn", "_frn"];

/// What is in the names of trainers that did not mirror.
const UNMIRRORED: &[&str] = &["nomirror", "noda"];

/// Whether a folder holds the plans of a training of nnU-Net v1, and not those of v2.
pub(super) fn is_training(folder: &Path) -> bool {
    folder.join(PLANS).is_file() && !folder.join("plans.json").exists()
}

fn wrong(found: impl Into<String>, expected: impl Into<String>) -> Mismatch {
    Mismatch::new(found, expected).within(PLANS)
}

fn read_pickle(path: &Path, wanted: &[&str], allowed: Allowance) -> Result<Pickle> {
    let wrong = |error: files::Unreadable| error.instead_of("a pickle that nnU-Net v1 wrote");
    let read = || {
        let opened = files::open(path).map_err(wrong)?;
        allowed.check("reading a pickle", opened.bytes.min(MAX_BYTES))?;
        Pickle::parse_only(opened.read(MAX_BYTES).map_err(wrong)?, wanted, allowed)
    };
    read().map_err(|error| error.of_model_file(path))
}

/// What the plans of the training in `folder` say, as `plans.json` and `dataset.json`, and what a
/// `dataset.json` that is there takes; of the pickle little becomes JSON, and no more than a bound.
pub(super) fn described(folder: &Path, allowed: Allowance) -> Result<(Value, Value, u64)> {
    let path = folder.join(PLANS);
    let pickle = read_pickle(&path, WANTED, allowed)?;
    let allowed = allowed.beside(pickle.held_bytes());
    let place = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let named = |place: Option<&Path>| {
        place.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
    };
    let own = named(Some(&place));
    let plans_name = own.split_once("__").map_or("nnUNetPlansv2.1", |(_, plans)| plans);
    let names = (named(place.parent()), plans_name.to_owned());
    let dataset = folder.join("dataset.json");
    let dataset =
        if dataset.is_file() { Some(super::json::read(&dataset, allowed)?) } else { None };
    let (dataset, bytes) = dataset.unzip();
    let (plans, dataset) = Plans { pickle: &pickle, root: pickle.root() }
        .described(&names, dataset)
        .map_err(|what| Error::model_file(&path, what))?;
    Ok((plans, dataset, bytes.unwrap_or(0)))
}

/// The keys of the plans that are read.
const WANTED: &[&str] = &[
    "plans_per_stage",
    "num_modalities",
    "num_classes",
    "modalities",
    "normalization_schemes",
    "use_mask_for_norm",
    "transpose_forward",
    "transpose_backward",
    "base_num_features",
    "conv_per_stage",
    "dataset_properties",
    "preprocessor_name",
    "segmentation_export_params",
];

struct Plans<'a> {
    pickle: &'a Pickle,
    root: Id,
}

impl Plans<'_> {
    fn json(&self, key: &str) -> Option<Value> {
        self.pickle.json(self.pickle.lookup(self.root, key)?).filter(|value| !value.is_null())
    }

    fn count(&self, key: &str) -> Result<u64, Mismatch> {
        let count = self.json(key).as_ref().and_then(Value::as_u64).filter(|&n| n > 0);
        count.ok_or_else(|| wrong(format!("no {key}"), "a count"))
    }

    fn described(
        &self,
        (dataset_name, plans_name): &(String, String),
        dataset: Option<Value>,
    ) -> Result<(Value, Value), Mismatch> {
        let preprocessor = self.json("preprocessor_name");
        let usual = ["GenericPreprocessor", "PreprocessorFor2D"];
        if let Some(other) = preprocessor.filter(|name| usual.iter().all(|usual| name != usual)) {
            return Err(wrong(format!("preprocessor_name {other}"), usual.join(" or ")));
        }
        if let Some(other) = self.json("segmentation_export_params") {
            return Err(wrong(format!("segmentation_export_params {other}"), "none"));
        }
        let channels = self.count("num_modalities")?;
        let stages = self.json("plans_per_stage");
        let stages = stages.as_ref().and_then(Value::as_object).filter(|map| !map.is_empty());
        let stages = stages.ok_or_else(|| wrong("no plans_per_stage", "one at least"))?;
        let schemes = self.schemes(channels)?;
        let mut configurations = Map::new();
        for (stage, one) in stages {
            let stage = stage.parse().map_err(|_| wrong(format!("stage {stage:?}"), "a number"))?;
            let rank = rank(one)?;
            let name = configuration(rank, stage, stages.len());
            configurations.insert(name.into(), self.configuration(one, rank, &schemes)?);
        }
        let order = |key: &str| self.json(key).unwrap_or_else(|| json!([0, 1, 2]));
        let plans = json!({
            "dataset_name": dataset_name,
            "plans_name": plans_name,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": order("transpose_forward"),
            "transpose_backward": order("transpose_backward"),
            "foreground_intensity_properties_per_channel": self.intensities()?,
            "configurations": configurations,
            "normalize": "after_resampling",
            "network_output": "probabilities",
            "tile_weights": "single",
        });
        Ok((plans, self.dataset(channels, dataset)?))
    }

    fn schemes(&self, channels: u64) -> Result<Vec<&'static str>, Mismatch> {
        let (schemes, masks) = (self.json("normalization_schemes"), self.json("use_mask_for_norm"));
        let of = |map: &Option<Value>, channel: u64| {
            map.as_ref().and_then(|map| map.get(channel.to_string())).cloned()
        };
        let scheme = |channel: u64| {
            if of(&masks, channel).is_some_and(|mask| mask != false && mask != 0) {
                return Err(wrong(
                    "use_mask_for_norm true",
                    "images that are normalized as a whole",
                ));
            }
            match of(&schemes, channel).as_ref().and_then(Value::as_str) {
                Some("CT") => Ok("CTNormalization"),
                Some("nonCT") => Ok("ZScoreNormalization"),
                Some("noNorm") => Ok("NoNormalization"),
                other => {
                    let found =
                        format!("normalization {} of channel {channel}", other.unwrap_or("none"));
                    Err(wrong(found, "CT, nonCT or noNorm"))
                }
            }
        };
        (0..channels).map(scheme).collect()
    }

    /// What training images had inside structures, under v2's names.
    fn intensities(&self) -> Result<Value, Mismatch> {
        let properties = self.pickle.lookup(self.root, "dataset_properties");
        let properties = properties.and_then(|id| self.pickle.lookup(id, "intensityproperties"));
        let Some(properties) = properties.filter(|&id| !self.pickle.is_none(id)) else {
            return Ok(Value::Null);
        };
        let entries = self.pickle.entries(properties);
        let entries = entries.ok_or_else(|| wrong("other intensityproperties", "a dictionary"))?;
        let mut all = Map::new();
        for &(channel, of) in entries {
            let number =
                |key: &str| self.pickle.lookup(of, key).and_then(|id| self.pickle.json(id));
            let names = [
                ("mean", "mean"),
                ("std", "sd"),
                ("percentile_00_5", "percentile_00_5"),
                ("percentile_99_5", "percentile_99_5"),
            ];
            let one: Map<String, Value> =
                names.into_iter().filter_map(|(v2, v1)| Some((v2.into(), number(v1)?))).collect();
            let channel = self.pickle.int(channel).unwrap_or_default();
            all.insert(channel.to_string(), one.into());
        }
        Ok(all.into())
    }

    fn configuration(
        &self,
        stage: &Value,
        rank: usize,
        schemes: &[&str],
    ) -> Result<Value, Mismatch> {
        let list = |key: &str| {
            let value = stage.get(key).filter(|value| value.is_array());
            value.cloned().ok_or_else(|| wrong(format!("a stage without {key}"), "a list"))
        };
        // Of a 2-D network the first is that of the slices, which stay as they are.
        let spacing = list("current_spacing")?;
        let spacing: Vec<_> = spacing.as_array().into_iter().flatten().rev().take(rank).collect();
        let spacing: Vec<_> = spacing.into_iter().rev().collect();
        let pools = list("pool_op_kernel_sizes")?;
        let mut strides = vec![json!(vec![1; rank])];
        strides.extend(pools.as_array().into_iter().flatten().cloned());
        let count = strides.len();
        let most =
            MOST_FEATURES.iter().find(|(axes, _)| *axes == rank).map_or(0, |(_, most)| *most);
        let base = self.count("base_num_features")?;
        let doubled =
            |s: usize| base.saturating_mul(1_u64.checked_shl(s as u32).unwrap_or(u64::MAX));
        let features: Vec<u64> = (0..count).map(|s| doubled(s).min(most)).collect();
        let convolutions = self.count("conv_per_stage").unwrap_or(2);
        let resample = |order: u8, is_seg: bool| json!({"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": null});
        let function = "resample_data_or_seg_to_shape";
        Ok(json!({
            "patch_size": list("patch_size")?,
            "spacing": spacing,
            "normalization_schemes": schemes,
            "use_mask_for_norm": vec![false; schemes.len()],
            "resampling_fn_data": function,
            "resampling_fn_data_kwargs": resample(3, false),
            "resampling_fn_probabilities": function,
            "resampling_fn_probabilities_kwargs": resample(1, false),
            "architecture": {
                "network_class_name": "Generic_UNet",
                "arch_kwargs": {
                    "n_stages": count,
                    "features_per_stage": features,
                    "conv_op": format!("torch.nn.Conv{rank}d"),
                    "kernel_sizes": list("conv_kernel_sizes")?,
                    "strides": strides,
                    "n_conv_per_stage": convolutions,
                    "n_conv_per_stage_decoder": convolutions,
                    "conv_bias": true,
                    "norm_op": format!("torch.nn.InstanceNorm{rank}d"),
                    "norm_op_kwargs": {"eps": 1e-5, "affine": true},
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"negative_slope": 0.01},
                },
            },
        }))
    }

    /// Structures and channels, by the names of a `dataset.json` that somebody put beside the plans, or by
    /// their numbers.
    fn dataset(&self, channels: u64, given: Option<Value>) -> Result<Value, Mismatch> {
        let classes = self.count("num_classes")?;
        let given_name = |number: u64| {
            let names = given.as_ref()?.get("labels")?;
            names.get(number.to_string())?.as_str().map(str::to_owned)
        };
        let name = |number: u64| given_name(number).unwrap_or_else(|| format!("label_{number}"));
        let mut labels = Map::new();
        labels.insert("background".into(), 0.into());
        labels.extend((1..=classes).map(|number| (name(number), number.into())));
        let modalities = self.json("modalities");
        let modality = |channel: u64| {
            let known = modalities.as_ref().and_then(|map| map.get(channel.to_string()));
            (channel.to_string(), known.cloned().unwrap_or_else(|| "unknown".into()))
        };
        let channels: Map<String, Value> = (0..channels).map(modality).collect();
        Ok(json!({"channel_names": channels, "labels": labels, "file_ending": ".nii.gz"}))
    }
}

/// Axes of a stage's network.
fn rank(stage: &Value) -> Result<usize, Mismatch> {
    let patch = stage.get("patch_size").and_then(Value::as_array).map(Vec::len);
    patch
        .filter(|rank| [2, 3].contains(rank))
        .ok_or_else(|| wrong("another patch_size", "2 or 3 edges"))
}

/// What v2 calls a stage.
fn configuration(rank: usize, stage: usize, stages: usize) -> &'static str {
    match (rank, stage) {
        (2, _) => "2d",
        (_, 0) if stages > 1 => "3d_lowres",
        _ => "3d_fullres",
    }
}

/// What stands beside a checkpoint says about the training.
pub(super) fn training(checkpoint: &Path, plans: &Value, allowed: Allowance) -> Result<Training> {
    let path = PathBuf::from(format!("{}.pkl", checkpoint.display()));
    let pickle = read_pickle(&path, &["init", "name"], allowed)?;
    let read = || {
        let get = |key: &str| pickle.lookup(pickle.root(), key);
        let trainer = get("name").and_then(|id| pickle.text(id));
        let trainer = trainer.ok_or_else(|| Mismatch::new("no name", "a trainer's"))?.to_owned();
        let lower = trainer.to_lowercase();
        let is_any = |kinds: &[&str]| kinds.iter().any(|kind| lower.contains(kind));
        if is_any(ELSEWHERE) {
            let expected = "one stage, labels, and the layers of nnU-Net v1's usual trainer";
            return Err(Mismatch::new(format!("trainer {trainer}"), expected));
        }
        // Plans, fold, two folders, dice of the batch, stage.
        let stage = get("init").and_then(|id| pickle.items(id)).and_then(|all| all.get(5).copied());
        let stage = stage.and_then(|id| pickle.int(id)).unwrap_or(0);
        let known = plans.get("configurations").and_then(Value::as_object);
        let has = |name: &str| known.is_some_and(|all| all.contains_key(name));
        let configuration = match stage {
            _ if has("2d") => "2d",
            0 if has("3d_lowres") => "3d_lowres",
            _ => "3d_fullres",
        };
        let axes = if configuration == "2d" { 2 } else { 3 };
        let mirrors = !is_any(UNMIRRORED);
        let mirror_axes = (0..axes).filter(|_| mirrors).collect();
        let configuration = Name::new(configuration.to_owned())?;
        Ok(Training { configuration, trainer, mirror_axes, student: false })
    };
    read().map_err(|what| Error::model_file(&path, what))
}
