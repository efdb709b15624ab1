//! The settings file of FastnnUNet's engine as this program's configuration.
//!
//! The text of an INI file enters, JSON for [`ModelConfig::from_json`] leaves. Upstream has
//! published one such file; keys are accepted in the spellings that go with it.

use crate::model::ModelConfig;
use crate::{Error, Mismatch, Result, files};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest settings file read.
const MAX_BYTES: u64 = 1 << 20;

/// The engine's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineIni {
    config: Map<String, Value>,
    /// The network's file, where the settings name one.
    pub model_file: Option<String>,
    /// Output channels, where the settings give them.
    pub classes: Option<usize>,
    /// Settings this program has no use for, as `section.key`.
    pub unused: Vec<String>,
}

/// Settings by lowercase section and key; what is taken is removed.
struct Settings(BTreeMap<(String, String), String>);

impl EngineIni {
    /// Reads a settings file.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) naming the setting that is missing or malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path, MAX_BYTES)
            .map_err(|error| Error::model_file(path, error.instead_of("a settings file")))?;
        Self::parse(&text).map_err(|wrong| Error::model_file(path, wrong))
    }

    pub(super) fn parse(text: &str) -> Result<Self, Mismatch> {
        let mut settings = Settings::parse(text)?;
        let mut config = Map::new();
        let model_file = settings.take("model", &["file_name", "model_path", "file"]);
        let classes = settings
            .take("model", &["num_class", "num_classes"])
            .map(|text| {
                text.parse().map_err(|_| Mismatch::new(format!("num_class {text}"), "a count"))
            })
            .transpose()?;
        for (key, usual) in [("input_name", "input"), ("output_name", "output")] {
            if let Some(name) = settings.take("model", &[key])
                && name != usual
            {
                return Err(Mismatch::new(format!("{key} {name}"), usual));
            }
        }
        let patch = settings.axes("input", &["patch_size", "patch", "input_size"])?;
        let patch: Option<Vec<u64>> = patch
            .iter()
            .map(|&n| (n.fract() == 0.0 && (1.0..1e6).contains(&n)).then_some(n as u64))
            .collect();
        let patch = patch.ok_or_else(|| Mismatch::new("a broken patch", "counts of voxels"))?;
        config.insert("patch_size".into(), json!(patch));
        let spacing = settings.axes("input", &["target_spacing", "spacing"])?;
        config.insert("target_spacing".into(), json!(spacing));
        let mut number = |names: &[&str]| settings.number("preprocessing", names);
        config.insert(
            "intensity_properties".into(),
            json!({
                "mean": number(&["mean", "mean_value"])?,
                "std": number(&["std_dev", "std"])?,
                "percentile_00_5":
                    number(&["percentile_00_5", "lower_bound", "min_bound", "clip_min", "min"])?,
                "percentile_99_5":
                    number(&["percentile_99_5", "upper_bound", "max_bound", "clip_max", "max"])?,
            }),
        );
        if settings.flag("inference", "use_mirroring")? == Some(true) {
            config.insert("mirror_axes".into(), json!([0, 1, 2]));
        }
        if settings.has("inference", &["step_size", "tile_step_size"]) {
            let step = settings.number("inference", &["step_size", "tile_step_size"])?;
            config.insert("step_size".into(), json!(step));
        }
        if let Some(gaussian) = settings.flag("inference", "use_gaussian")? {
            config.insert("use_gaussian".into(), json!(gaussian));
        }
        let unused = settings.0.into_keys().map(|(section, key)| format!("{section}.{key}"));
        let unused = unused.collect();
        let ini = Self { config, model_file, classes, unused };
        ModelConfig::from_json(&ini.config_json("model.onnx"))?;
        Ok(ini)
    }

    /// The configuration as the JSON that [`ModelConfig::from_json`] reads, naming `model_path`
    /// as the ONNX file.
    #[must_use]
    pub fn config_json(&self, model_path: &str) -> String {
        super::pretty(&self.config, Some(model_path))
    }
}

impl Settings {
    pub(super) fn parse(text: &str) -> Result<Self, Mismatch> {
        let (mut all, mut section) = (BTreeMap::new(), String::new());
        for (number, line) in text.lines().enumerate() {
            // A comment may follow a value after a space.
            let line = line.split([';', '#']).next().unwrap_or_default();
            let line = line.trim_start_matches('\u{feff}').trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim().to_ascii_lowercase();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                let found = format!("line {} {line:?}", number + 1);
                return Err(Mismatch::new(found, "[section] or key = value"));
            };
            let key = (section.clone(), key.trim().to_ascii_lowercase());
            let value = value.trim().trim_matches('"').to_owned();
            if all.insert(key.clone(), value).is_some() {
                return Err(Mismatch::new(format!("{}.{} twice", key.0, key.1), "each once"));
            }
        }
        Ok(Self(all))
    }

    fn has(&self, section: &str, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.contains_key(&(section.to_owned(), (*name).to_owned())))
    }

    fn take(&mut self, section: &str, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.0.remove(&(section.to_owned(), (*name).to_owned())))
    }

    fn number(&mut self, section: &str, names: &[&str]) -> Result<f64, Mismatch> {
        let missing = || Mismatch::new(format!("no {section}.{}", names[0]), "a number");
        let text = self.take(section, names).ok_or_else(missing)?;
        let number = text.parse().ok().filter(|x: &f64| x.is_finite());
        number.ok_or_else(|| Mismatch::new(format!("{section}.{} {text}", names[0]), "a number"))
    }

    fn flag(&mut self, section: &str, name: &str) -> Result<Option<bool>, Mismatch> {
        match self.take(section, &[name]).map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(text) => Err(Mismatch::new(format!("{section}.{name} {text}"), "true or false")),
        }
    }

    /// Three numbers, `[z, y, x]`: in one list, or one key per axis.
    fn axes(&mut self, section: &str, names: &[&str]) -> Result<Vec<f64>, Mismatch> {
        if let Some(text) = self.take(section, names) {
            let inner = text.trim_matches(['[', ']', '(', ')']);
            let parts = inner.split([',', 'x', ' ']).filter(|part| !part.trim().is_empty());
            let list: Option<Vec<f64>> = parts.map(|part| part.trim().parse().ok()).collect();
            return list.filter(|list| list.len() == 3).ok_or_else(|| {
                Mismatch::new(format!("{section}.{} {text}", names[0]), "three numbers, z first")
            });
        }
        for axes in [["z", "y", "x"], ["depth", "height", "width"], ["d", "h", "w"]] {
            for name in names {
                let keys = axes.map(|axis| format!("{name}_{axis}"));
                if self.has(section, &[&keys[0]]) {
                    return keys.iter().map(|key| self.number(section, &[key])).collect();
                }
            }
        }
        Err(Mismatch::new(format!("no {section}.{}", names[0]), "three numbers, z first"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream's `fast_nnunet_bone_turbo` says.
    const TURBO: &str = "\
[model]
file_name = bone_turbo.onnx
input_name = input
output_name = output
num_class = 61

[input]
patch_size = 160, 96, 96          ; z, y, x
spacing = 2.0, 0.9765625, 0.9765625

[preprocessing]
mean = 418.680
std_dev = 412.188
lower_bound = -60
upper_bound = 3068

[inference]
use_mirroring = false
step_size = 0.5
use_gaussian = true
num_threads = 4
";

    #[test]
    fn upstreams_settings_become_a_configuration() {
        let ini = EngineIni::parse(TURBO).expect("valid");
        assert_eq!(ini.model_file.as_deref(), Some("bone_turbo.onnx"));
        assert_eq!(ini.classes, Some(61));
        assert_eq!(ini.unused, ["inference.num_threads"]);
        let config = ModelConfig::from_json(&ini.config_json("x.onnx")).expect("valid");
        assert_eq!(config.patch_size, [160, 96, 96]);
        assert_eq!(config.target_spacing, [Some(2.0), Some(0.976_562_5), Some(0.976_562_5)]);
        let intensity = config.channels[0].intensity;
        assert_eq!((intensity.mean, intensity.std), (418.68, 412.188));
        assert_eq!((intensity.percentile_00_5, intensity.percentile_99_5), (-60.0, 3068.0));
        assert!(config.mirror_axes.is_empty() && config.use_gaussian);
    }

    #[test]
    fn axes_may_be_keys_of_their_own_and_mirroring_means_all() {
        let text = TURBO
            .replace("patch_size = 160, 96, 96", "patch_depth=160\npatch_height=96\npatch_width=80")
            .replace("use_mirroring = false", "use_mirroring = true");
        let ini = EngineIni::parse(&text).expect("valid");
        let config = ModelConfig::from_json(&ini.config_json("x.onnx")).expect("valid");
        assert_eq!(config.patch_size, [160, 96, 80]);
        assert_eq!(config.mirror_axes, [0, 1, 2]);
    }

    #[test]
    fn each_mistake_names_its_setting() {
        for (part, instead, named) in [
            ("mean = 418.680", "", "preprocessing.mean"),
            ("std_dev = 412.188", "std_dev = wide", "preprocessing.std_dev"),
            ("160, 96, 96", "160, 96", "input.patch_size"),
            ("160, 96, 96", "1.5, 96, 96", "patch"),
            ("use_gaussian = true", "use_gaussian = maybe", "use_gaussian"),
            ("input_name = input", "input_name = image", "input_name"),
            ("step_size = 0.5", "step_size = 7", "step_size"),
            ("[inference]", "inference", "line 17"),
            ("[inference]", "[inference]\nstep_size = 0.5", "twice"),
        ] {
            let error = EngineIni::parse(&TURBO.replace(part, instead)).expect_err(named);
            assert!(error.to_string().contains(named), "{named}: {error}");
        }
    }
}
