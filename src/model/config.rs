//! A model's configuration: what the network expects and how its output reads.
//!
//! The JSON is FastnnUNet's, which is valid as it is, plus optional fields whose defaults
//! are the reference's. `build.rs` compiles this file too, so that a configuration which
//! would fail at run time fails the build.

use crate::volume::Orientation;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};

/// Why a configuration is not usable; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct ConfigError {
    /// The JSON field, or `JSON` when the text itself does not parse.
    pub field: String,
    /// What the file holds.
    pub found: String,
    /// What would have been usable.
    pub expected: String,
}

/// Intensities of the training images' foreground, in the image's unit (HU for CT).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IntensityProperties {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// 0.5th percentile: the lower clipping bound.
    pub percentile_00_5: f64,
    /// 99.5th percentile: the upper clipping bound.
    pub percentile_99_5: f64,
}

/// How one input channel is normalized; names are nnU-Net's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Normalization {
    /// Clip to the percentiles, subtract the mean, divide by the standard deviation.
    #[default]
    #[serde(rename = "CTNormalization")]
    Ct,
    /// Mean and standard deviation of the image itself.
    #[serde(rename = "ZScoreNormalization")]
    ZScore,
    /// Minimum to 0, maximum to 1.
    #[serde(rename = "RescaleTo01Normalization")]
    RescaleTo01,
    /// Divide by 255.
    #[serde(rename = "RGBTo01Normalization")]
    RgbTo01,
    /// Leave the values alone.
    #[serde(rename = "NoNormalization")]
    None,
}

/// How much a model may be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Random weights that exercise the program; segments nothing.
    Test,
    /// Shows that a mode works; not for use.
    #[default]
    Demo,
    /// Trained on little public data; useful to start from.
    Starter,
    /// Evaluated on independent data; see the model card.
    Validated,
}

/// One structure the model outputs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Value in the label map; 0 is background and not listed.
    pub id: u16,
    /// TotalSegmentator class name where it has one.
    pub name: String,
    /// `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// SNOMED CT code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snomed: Option<String>,
}

/// Interpolation between grids; the defaults are nnU-Net's `resample_data_or_seg_to_shape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resampling {
    /// Spline order for images: 0, 1 or 3.
    pub order: u8,
    /// Spline order for images along a separately treated axis: 0, 1 or 3.
    pub order_z: u8,
    /// Spline order for logits: 0 or 1.
    pub order_logits: u8,
    /// Treat the coarsest axis separately: always, never, or (absent) when the voxels are
    /// more than three times as long as wide.
    pub force_separate_z: Option<bool>,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { order: 3, order_z: 0, order_logits: 1, force_separate_z: None }
    }
}

/// A checked configuration. Axes are the network's: after `orientation` and
/// `transpose_forward`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// File name of the ONNX graph, as upstream writes it.
    pub model_path: Option<String>,
    /// Voxels per tile; the first is 1 for a 2-D network.
    pub patch_size: [usize; 3],
    /// Whether the network is two-dimensional and runs slice by slice.
    pub two_d: bool,
    /// Millimetres per voxel; `None` keeps the image's own (slice axis of a 2-D network).
    pub target_spacing: [Option<f64>; 3],
    /// One entry per input channel.
    pub channels: Vec<Channel>,
    /// Orientation the network was trained in.
    pub orientation: Orientation,
    /// How the reference reads files for this network; `None` for this program's own way.
    pub reader: Option<Reader>,
    /// Axis `k` of the network is axis `transpose_forward[k]` of the oriented image.
    pub transpose_forward: [usize; 3],
    /// Structures, in ascending `id`.
    pub labels: Vec<Label>,
    /// For region tasks: the label painted for each output channel, in painting order.
    pub regions_class_order: Option<Vec<u16>>,
    /// Axes flipped for test-time averaging; empty for none.
    pub mirror_axes: Vec<usize>,
    /// Distance between tile origins as a fraction of the patch.
    pub step_size: f64,
    /// Weight overlapping tiles by a Gaussian.
    pub use_gaussian: bool,
    /// Interpolation between the image's grid and the network's.
    pub resampling: Resampling,
    /// Crop to the box of nonzero voxels first.
    pub crop_to_nonzero: bool,
    /// nnU-Net's name of this configuration, for instance `3d_fullres`.
    pub configuration: Option<String>,
    /// Name of the configuration whose result this one refines.
    pub previous_stage: Option<String>,
    /// Labels of that result, one input channel each, after those of the image.
    pub previous_stage_labels: Vec<u16>,
    /// Postprocessing recipe by name.
    pub postprocessing: Option<String>,
    /// How much the model may be trusted.
    pub grade: Grade,
}

/// How one input channel is prepared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// The scheme.
    pub normalization: Normalization,
    /// The training set's statistics, used by [`Normalization::Ct`].
    pub intensity: IntensityProperties,
    /// Whether [`Normalization::ZScore`] looks at, and changes, only voxels inside the patient:
    /// those that are nonzero in any channel, and holes among them.
    pub use_mask: bool,
}

/// The reference's class that reads images; names are nnU-Net's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Reader {
    /// ITK, axes as stored.
    #[serde(rename = "SimpleITKIO")]
    SimpleItk,
    /// ITK, turned to RAS.
    #[serde(rename = "SimpleITKIOWithReorient")]
    SimpleItkReorient,
    /// nibabel, axes as stored.
    #[serde(rename = "NibabelIO")]
    Nibabel,
    /// nibabel, turned to the closest RAS.
    #[serde(rename = "NibabelIOWithReorient")]
    NibabelReorient,
}

/// The JSON as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    model_path: Option<String>,
    patch_size: Vec<usize>,
    target_spacing: Vec<f64>,
    #[serde(deserialize_with = "one_or_many")]
    intensity_properties: Vec<IntensityProperties>,
    #[serde(default = "ct", deserialize_with = "one_or_many")]
    normalization: Vec<Normalization>,
    #[serde(default = "no", deserialize_with = "one_or_many")]
    use_mask_for_norm: Vec<bool>,
    #[serde(default)]
    orientation: Orientation,
    reader: Option<Reader>,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    mirror_axes: Option<Vec<usize>>,
    #[serde(default = "half")]
    step_size: f64,
    #[serde(default = "yes")]
    use_gaussian: bool,
    #[serde(default)]
    resampling: Resampling,
    #[serde(default = "yes")]
    crop_to_nonzero: bool,
    transpose_forward: Option<Vec<usize>>,
    regions_class_order: Option<Vec<u16>>,
    configuration: Option<String>,
    previous_stage: Option<String>,
    previous_stage_labels: Option<Vec<u16>>,
    postprocessing: Option<String>,
    #[serde(default)]
    grade: Grade,
}

fn ct() -> Vec<Normalization> {
    vec![Normalization::Ct]
}

fn no() -> Vec<bool> {
    vec![false]
}

fn half() -> f64 {
    0.5
}

fn yes() -> bool {
    true
}

/// Accepts a single value where a list of one is meant, as upstream's single-channel JSON.
fn one_or_many<'de, D: Deserializer<'de>, T: DeserializeOwned>(de: D) -> Result<Vec<T>, D::Error> {
    let value = serde_json::Value::deserialize(de)?;
    if value.is_array() {
        serde_json::from_value(value).map_err(D::Error::custom)
    } else {
        serde_json::from_value(value).map(|one| vec![one]).map_err(D::Error::custom)
    }
}

/// Longest tile edge accepted; keeps a mistyped configuration from asking for terabytes.
const MAX_PATCH_EDGE: usize = 1024;

impl ModelConfig {
    /// Parses and checks a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the field that is unknown, missing or out of range.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let written: Written = serde_json::from_str(json).map_err(|error| ConfigError {
            field: "JSON".into(),
            found: format!("not usable ({error})"),
            expected: "a model configuration as docs/models.md describes".into(),
        })?;
        written.check()
    }

    /// Number of input channels: those of the image and, in a cascade, one per label of the
    /// previous stage.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.channels.len() + self.previous_stage_labels.len()
    }

    /// Number of network outputs the labels imply, where they are listed.
    #[must_use]
    pub fn output_channels(&self) -> Option<usize> {
        match (&self.regions_class_order, self.labels.last()) {
            (Some(order), _) => Some(order.len()),
            (None, Some(last)) => Some(usize::from(last.id) + 1),
            (None, None) => None,
        }
    }

    /// Name of label `id`, or `label_<id>` where the configuration lists none.
    #[must_use]
    pub fn label_name(&self, id: u16) -> String {
        self.labels
            .iter()
            .find(|label| label.id == id)
            .map_or_else(|| format!("label_{id}"), |label| label.name.clone())
    }
}

/// Fails with the field's name unless `good`.
fn ensure(
    good: bool,
    field: &str,
    found: impl std::fmt::Debug,
    expected: &str,
) -> Result<(), ConfigError> {
    if good {
        return Ok(());
    }
    Err(ConfigError { field: field.into(), found: format!("{found:?}"), expected: expected.into() })
}

impl Written {
    fn check(mut self) -> Result<ModelConfig, ConfigError> {
        let rank = self.patch_size.len();
        let two_d = rank == 2;
        ensure(
            (rank == 2 || rank == 3)
                && self.patch_size.iter().all(|&n| (1..=MAX_PATCH_EDGE).contains(&n)),
            "patch_size",
            &self.patch_size,
            "two or three edges of 1 to 1024 voxels, [z, y, x]",
        )?;
        ensure(
            (self.target_spacing.len() == rank || self.target_spacing.len() == 3)
                && self.target_spacing.iter().all(|s| s.is_finite() && *s > 0.0),
            "target_spacing",
            &self.target_spacing,
            "one finite positive number of millimetres per axis, [z, y, x]",
        )?;
        ensure(
            self.step_size > 0.0 && self.step_size <= 1.0,
            "step_size",
            self.step_size,
            "a fraction in (0, 1]",
        )?;
        let channels = self.channels()?;
        self.check_labels()?;
        let mirror_axes = self.mirror_axes.take().unwrap_or_default();
        ensure(
            mirror_axes.iter().all(|&axis| axis < rank) && all_differ(&mirror_axes),
            "mirror_axes",
            &mirror_axes,
            "different axis numbers below the patch's rank",
        )?;
        let transpose: Vec<usize> = self.transpose_forward.take().unwrap_or_else(|| vec![0, 1, 2]);
        let transpose_forward: [usize; 3] = transpose.as_slice().try_into().unwrap_or([3; 3]);
        ensure(
            transpose_forward.iter().all(|&axis| axis < 3) && all_differ(&transpose_forward),
            "transpose_forward",
            &transpose,
            "an order of the axes 0, 1 and 2",
        )?;
        // Both stages of a cascade have the same labels unless the configuration says otherwise.
        let own = || self.labels.iter().map(|label| label.id).collect();
        let previous_stage_labels = match (&self.previous_stage, self.previous_stage_labels.take())
        {
            (_, Some(list)) => list,
            (Some(_), None) => own(),
            (None, None) => Vec::new(),
        };
        let stage = &previous_stage_labels;
        ensure(
            stage.iter().all(|&id| id > 0)
                && all_differ(stage)
                && (stage.is_empty() || self.previous_stage.is_some()),
            "previous_stage_labels",
            stage,
            "different labels above 0, with previous_stage",
        )?;
        let Resampling { order, order_z, order_logits, .. } = self.resampling;
        ensure(
            [order, order_z].iter().all(|o| [0, 1, 3].contains(o)) && order_logits <= 1,
            "resampling",
            self.resampling,
            "order and order_z of 0, 1 or 3 and order_logits of 0 or 1",
        )?;
        // A 2-D network's axes are the last two; the slice axis keeps the image's spacing.
        let in_plane = |k: usize| k + rank - 3;
        let spacing_offset = 3 - self.target_spacing.len();
        Ok(ModelConfig {
            patch_size: std::array::from_fn(|k| {
                if two_d && k == 0 { 1 } else { self.patch_size[in_plane(k)] }
            }),
            two_d,
            target_spacing: std::array::from_fn(|k| {
                (!two_d || k > 0).then(|| self.target_spacing[k - spacing_offset])
            }),
            channels,
            orientation: self.orientation,
            reader: self.reader,
            transpose_forward,
            labels: self.labels,
            regions_class_order: self.regions_class_order,
            mirror_axes: mirror_axes.iter().map(|&axis| axis + usize::from(two_d)).collect(),
            step_size: self.step_size,
            use_gaussian: self.use_gaussian,
            resampling: self.resampling,
            crop_to_nonzero: self.crop_to_nonzero,
            configuration: self.configuration,
            previous_stage: self.previous_stage,
            previous_stage_labels,
            postprocessing: self.postprocessing,
            grade: self.grade,
            model_path: self.model_path,
        })
    }

    /// Pairs normalization schemes with intensity properties, one per input channel.
    fn channels(&self) -> Result<Vec<Channel>, ConfigError> {
        let (schemes, intensities) = (&self.normalization, &self.intensity_properties);
        ensure(
            !intensities.is_empty()
                && !schemes.is_empty()
                && (schemes.len() == intensities.len()
                    || schemes.len() == 1
                    || intensities.len() == 1),
            "normalization",
            format!("{} schemes for {} intensity_properties", schemes.len(), intensities.len()),
            "one of each per input channel",
        )?;
        let count = schemes.len().max(intensities.len());
        let masks = &self.use_mask_for_norm;
        ensure(
            masks.len() == 1 || masks.len() == count,
            "use_mask_for_norm",
            masks,
            "one truth value, or one per input channel",
        )?;
        let channels: Vec<Channel> = (0..count)
            .map(|c| Channel {
                normalization: schemes[c.min(schemes.len() - 1)],
                intensity: intensities[c.min(intensities.len() - 1)],
                use_mask: masks[c.min(masks.len() - 1)],
            })
            .collect();
        for channel in &channels {
            let p = channel.intensity;
            ensure(
                [p.mean, p.std, p.percentile_00_5, p.percentile_99_5].iter().all(|v| v.is_finite())
                    && p.std >= 0.0
                    && p.percentile_00_5 <= p.percentile_99_5,
                "intensity_properties",
                p,
                "finite numbers with std >= 0 and percentile_00_5 <= percentile_99_5",
            )?;
        }
        Ok(channels)
    }

    fn check_labels(&mut self) -> Result<(), ConfigError> {
        self.labels.sort_by_key(|label| label.id);
        let ids: Vec<u16> = self.labels.iter().map(|label| label.id).collect();
        ensure(
            ids.iter().all(|&id| id > 0) && all_differ(&ids),
            "labels",
            &ids,
            "different ids above 0 (0 is background)",
        )?;
        let names: Vec<&str> = self.labels.iter().map(|label| label.name.as_str()).collect();
        ensure(
            names.iter().all(|name| !name.is_empty()) && all_differ(&names),
            "labels",
            &names,
            "different names that are not empty",
        )?;
        let colors: Vec<&str> = self.labels.iter().filter_map(|l| l.color.as_deref()).collect();
        ensure(colors.iter().all(|c| is_color(c)), "labels", &colors, "colors written #rrggbb")?;
        let order = self.regions_class_order.as_deref().unwrap_or(&[1]);
        ensure(
            !order.is_empty() && order.iter().all(|&id| id > 0),
            "regions_class_order",
            order,
            "one label above 0 for each output channel",
        )
    }
}

fn is_color(text: &str) -> bool {
    let hex = text.strip_prefix('#').unwrap_or("");
    hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn all_differ<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().all(|(i, item)| !items[..i].contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's only published sample, with the two fields it leaves to the program.
    const UPSTREAM: &str = r#"{
        "patch_size": [56, 160, 192],
        "target_spacing": [3.0, 0.78015, 0.78015],
        "intensity_properties":
            {"mean": 85.858, "std": 108.009, "percentile_00_5": -913.0, "percentile_99_5": 284.0},
        "model_path": "model.onnx"
    }"#;

    #[test]
    fn upstream_sample_is_valid_as_it_is() {
        let config = ModelConfig::from_json(UPSTREAM).expect("upstream's sample");
        assert_eq!(config.patch_size, [56, 160, 192]);
        assert_eq!(config.target_spacing, [Some(3.0), Some(0.78015), Some(0.78015)]);
        assert_eq!(config.channels[0].normalization, Normalization::Ct);
        assert!((config.step_size - 0.5).abs() < f64::EPSILON);
        assert!(config.use_gaussian && config.crop_to_nonzero && config.mirror_axes.is_empty());
        assert_eq!(config.orientation, Orientation::Lps);
    }

    #[test]
    fn two_dimensional_patch_gains_a_slice_axis() {
        let json = UPSTREAM
            .replace("[56, 160, 192]", "[160, 192]")
            .replace("[3.0, 0.78015, 0.78015]", "[0.8, 0.9]");
        let config = ModelConfig::from_json(&json).expect("2-D configuration");
        assert!(config.two_d);
        assert_eq!(config.patch_size, [1, 160, 192]);
        assert_eq!(config.target_spacing, [None, Some(0.8), Some(0.9)]);
    }

    #[test]
    fn each_mistake_names_its_field() {
        // (field, what replaces the last member's end)
        let cases = [
            ("step_size", r#""step_size": 0"#),
            ("labels", r#""labels": [{"id": 0, "name": "x"}]"#),
            ("labels", r#""labels": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]"#),
            ("labels", r#""labels": [{"id": 1, "name": "x", "color": "red"}]"#),
            ("mirror_axes", r#""mirror_axes": [3]"#),
            ("transpose_forward", r#""transpose_forward": [0, 1]"#),
            ("transpose_forward", r#""transpose_forward": [0, 1, 1]"#),
            ("resampling", r#""resampling": {"order": 2}"#),
            ("normalization", r#""normalization": []"#),
            ("regions_class_order", r#""regions_class_order": []"#),
        ];
        for (field, extra) in cases {
            let json = UPSTREAM.replace(
                r#""model_path": "model.onnx""#,
                &format!(r#""model_path": "model.onnx", {extra}"#),
            );
            let error = ModelConfig::from_json(&json).expect_err(extra);
            assert_eq!(error.field, field, "{extra}: {error}");
        }
    }

    #[test]
    fn unknown_field_is_named() {
        let json = UPSTREAM.replace("model_path", "model_pth");
        let error = ModelConfig::from_json(&json).expect_err("unknown field");
        assert!(error.to_string().contains("model_pth"), "{error}");
    }
}
