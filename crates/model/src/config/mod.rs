//! A model's configuration: what the network expects and how its output reads.
//!
//! The JSON is FastnnUNet's, which is valid as it is, plus optional fields whose defaults
//! are the reference's. The build script reads it too, so that a configuration which would fail
//! at run time fails the build.

mod task;
mod written;

pub use task::{
    Align, GridOrder, Integer, KeepWithin, LabelInterpolation, Refine, RoughCrop, TaskGrid,
};

use crate::{Mismatch, Name, Orientation, Quantization};
use serde::{Deserialize, Serialize};

/// nnU-Net's configurations, as their folders are called.
pub const CONFIGURATIONS: [&str; 4] = ["2d", "3d_cascade_fullres", "3d_fullres", "3d_lowres"];

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

/// When values are normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Those of the image.
    #[default]
    BeforeResampling,
    /// Those on the network's grid, as nnU-Net v1 did.
    AfterResampling,
}

/// How exact the Gaussian is that weights tiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TileWeights {
    /// 16-bit floats, whose smallest stands for all that is smaller.
    #[default]
    Half,
    /// 32-bit floats, as in nnU-Net v1.
    Single,
}

/// What a network gives, which tiles, mirrored passes and folds are averaged of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkOutput {
    /// What a softmax or a sigmoid would make probabilities of.
    #[default]
    Logits,
    /// Probabilities of classes that exclude each other.
    Probabilities,
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
    /// Somebody else's weights, brought by the user: what they are good for, their makers say.
    External,
    /// Evaluated on independent data; see the model card.
    Validated,
}

impl std::fmt::Display for Grade {
    /// As configurations write it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Test => "test",
            Self::Demo => "demo",
            Self::Starter => "starter",
            Self::External => "external",
            Self::Validated => "validated",
        })
    }
}

/// One structure the model outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Value in the label map; 0 is background and not listed.
    pub id: u16,
    /// TotalSegmentator class name where it has one.
    pub name: String,
    /// `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// SNOMED CT code of what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snomed: Option<String>,
    /// What the code means, in the words of DICOM's context groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// Which of two, where the code does not say it; of the region, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// What kind of thing it is, if not an anatomical structure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Concept>,
    /// Where it is, if the code does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Concept>,
}

impl Label {
    /// The name of a structure that nobody named.
    #[must_use]
    pub fn unnamed(id: u16) -> String {
        format!("label_{id}")
    }
}

/// A side of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The patient's left.
    Left,
    /// The patient's right.
    Right,
}

/// A concept of SNOMED CT.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Concept {
    /// Its code.
    pub snomed: String,
    /// What the code means.
    pub meaning: String,
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
    /// When values are normalized.
    pub normalize: Normalize,
    /// What the network gives.
    pub network_output: NetworkOutput,
    /// How exact the Gaussian is.
    pub tile_weights: TileWeights,
    /// nnU-Net's name of this configuration, for instance `3d_fullres`.
    pub configuration: Option<Name>,
    /// Name of the configuration whose result this one refines.
    pub previous_stage: Option<Name>,
    /// Labels of that result, one input channel each, after those of the image.
    pub previous_stage_labels: Vec<u16>,
    /// Postprocessing recipe by name.
    pub postprocessing: Option<String>,
    /// The grid that images come to before anything else; then the recipe works there, too.
    pub grid: Option<TaskGrid>,
    /// The part of the image that is segmented.
    pub rough_crop: Option<RoughCrop>,
    /// Another model that draws the border of the labels.
    pub refine: Option<Refine>,
    /// Structures, by name, that the network labels for its own sake: none comes out.
    pub auxiliary: Vec<String>,
    /// What is in the images; `None` for CT.
    pub modality: Option<String>,
    /// Who made the weights and where they are found.
    pub source: Option<String>,
    /// SPDX expression, or a sentence, for the weights.
    pub license: Option<String>,
    /// How much the model may be trusted.
    pub grade: Grade,
    /// What int8 needs to know of the network, or of each fold, once measured.
    pub int8: Vec<Quantization>,
}

/// Smallest distance between tiles as a fraction of the patch: nobody waits for more tiles.
pub const MIN_STEP_SIZE: f64 = 0.01;

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
    /// nibabel, turned to the closest RAS, spacing from the affine alone and of a series of
    /// volumes the first, as TotalSegmentator does before it calls nnU-Net.
    #[serde(rename = "TotalSegmentator")]
    TotalSegmentator,
}

impl ModelConfig {
    /// Parses and checks a configuration.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] naming the field that is unknown, missing or out of range.
    pub fn from_json(json: &str) -> Result<Self, Mismatch> {
        written::read(json)
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
            .map_or_else(|| Label::unnamed(id), |label| label.name.clone())
    }
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
            assert!(error.found.starts_with(field), "{extra}: {error}");
        }
    }

    #[test]
    fn unknown_field_is_named() {
        let json = UPSTREAM.replace("model_path", "model_pth");
        let error = ModelConfig::from_json(&json).expect_err("unknown field");
        assert!(error.to_string().contains("model_pth"), "{error}");
    }
}
