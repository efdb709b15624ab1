//! The JSON as written, and what a file must hold to become a [`ModelConfig`].

use super::{
    Channel, Grade, IntensityProperties, Label, MIN_STEP_SIZE, ModelConfig, NetworkOutput,
    Normalization, Normalize, Reader, Refine, Resampling, RoughCrop, TaskGrid, TileWeights,
};
use crate::{Mismatch, Name, Orientation, Quantization};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use std::collections::HashSet;
use std::hash::Hash;

/// See [`ModelConfig::from_json`].
pub(super) fn read(json: &str) -> Result<ModelConfig, Mismatch> {
    let written: Written = serde_json::from_str(json).map_err(|error| {
        Mismatch::new(
            format!("JSON that is not usable ({error})"),
            "a model configuration as docs/models.md describes",
        )
    })?;
    written.check()
}

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
    #[serde(default)]
    normalize: Normalize,
    #[serde(default)]
    network_output: NetworkOutput,
    #[serde(default)]
    tile_weights: TileWeights,
    transpose_forward: Option<Vec<usize>>,
    regions_class_order: Option<Vec<u16>>,
    configuration: Option<Name>,
    previous_stage: Option<Name>,
    previous_stage_labels: Option<Vec<u16>>,
    postprocessing: Option<String>,
    grid: Option<TaskGrid>,
    rough_crop: Option<RoughCrop>,
    refine: Option<Refine>,
    #[serde(default)]
    auxiliary: Vec<String>,
    modality: Option<String>,
    source: Option<String>,
    #[serde(alias = "licence")]
    license: Option<String>,
    #[serde(default)]
    grade: Grade,
    #[serde(default, deserialize_with = "one_or_many")]
    int8: Vec<Quantization>,
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

/// Fails with the field's name unless `good`.
fn ensure(
    good: bool,
    field: &str,
    found: impl std::fmt::Debug,
    expected: &str,
) -> Result<(), Mismatch> {
    if good {
        return Ok(());
    }
    Err(Mismatch::new(format!("{field} {found:?}"), expected))
}

impl Written {
    fn check(mut self) -> Result<ModelConfig, Mismatch> {
        let rank = self.patch_size.len();
        let two_d = rank == 2;
        self.check_extents()?;
        let channels = self.channels()?;
        self.check_labels()?;
        self.check_task()?;
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
        let previous_stage_labels = self.labels_of_previous_stage()?;
        self.check_arithmetic()?;
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
            normalize: self.normalize,
            network_output: self.network_output,
            tile_weights: self.tile_weights,
            configuration: self.configuration,
            previous_stage: self.previous_stage,
            previous_stage_labels,
            postprocessing: self.postprocessing,
            grid: self.grid,
            rough_crop: self.rough_crop,
            refine: self.refine,
            auxiliary: self.auxiliary,
            modality: self.modality,
            source: self.source,
            license: self.license,
            grade: self.grade,
            int8: self.int8,
            model_path: self.model_path,
        })
    }

    /// What is done to numbers, and what the network was measured to hold.
    fn check_arithmetic(&self) -> Result<(), Mismatch> {
        ensure(
            self.normalize == Normalize::BeforeResampling
                || !self.use_mask_for_norm.contains(&true),
            "normalize",
            self.normalize,
            "before_resampling where use_mask_for_norm is true",
        )?;
        ensure(
            self.network_output == NetworkOutput::Logits || self.regions_class_order.is_none(),
            "network_output",
            self.network_output,
            "logits for regions",
        )?;
        if let Some((layer, found)) = self.int8.iter().find_map(Quantization::fault) {
            let expected = "ranges as `fastnnunet calibrate` writes them";
            return Err(Mismatch::new(format!("int8.layers.{layer} {found}"), expected));
        }
        let Resampling { order, order_z, order_logits, .. } = self.resampling;
        ensure(
            [order, order_z].iter().all(|o| [0, 1, 3].contains(o)) && order_logits <= 1,
            "resampling",
            format_args!("order {order}, order_z {order_z}, order_logits {order_logits}"),
            "order and order_z of 0, 1 or 3 and order_logits of 0 or 1",
        )
    }

    fn check_extents(&self) -> Result<(), Mismatch> {
        let rank = self.patch_size.len();
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
            (MIN_STEP_SIZE..=1.0).contains(&self.step_size),
            "step_size",
            self.step_size,
            &format!("a fraction of {MIN_STEP_SIZE} to 1"),
        )
    }

    fn labels_of_previous_stage(&mut self) -> Result<Vec<u16>, Mismatch> {
        // Both stages of a cascade have the same labels unless the configuration says otherwise.
        let own = || self.labels.iter().map(|label| label.id).collect();
        let stage: Vec<u16> = match (&self.previous_stage, self.previous_stage_labels.take()) {
            (_, Some(list)) => list,
            (Some(_), None) => own(),
            (None, None) => Vec::new(),
        };
        ensure(
            stage.iter().all(|&id| id > 0)
                && all_differ(&stage)
                && (stage.is_empty() || self.previous_stage.is_some()),
            "previous_stage_labels",
            &stage,
            "different labels above 0, with previous_stage",
        )?;
        Ok(stage)
    }

    /// Pairs normalization schemes with intensity properties, one per input channel.
    fn channels(&self) -> Result<Vec<Channel>, Mismatch> {
        let (schemes, intensities) = (&self.normalization, &self.intensity_properties);
        ensure(
            !intensities.is_empty()
                && !schemes.is_empty()
                && (schemes.len() == intensities.len()
                    || schemes.len() == 1
                    || intensities.len() == 1),
            "normalization",
            format_args!(
                "{} schemes for {} intensity_properties",
                schemes.len(),
                intensities.len()
            ),
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
                // As the program computes with them.
                [p.mean, p.std, p.percentile_00_5, p.percentile_99_5]
                    .iter()
                    .all(|&v| (v as f32).is_finite())
                    && p.std >= 0.0
                    && p.percentile_00_5 <= p.percentile_99_5,
                "intensity_properties",
                format_args!(
                    "mean {}, std {}, percentile_00_5 {}, percentile_99_5 {}",
                    p.mean, p.std, p.percentile_00_5, p.percentile_99_5
                ),
                "finite numbers with std >= 0 and percentile_00_5 <= percentile_99_5",
            )?;
        }
        Ok(channels)
    }

    /// What surrounds the network: a crop is cut and labels refined where there is a grid to go
    /// back from.
    fn check_task(&self) -> Result<(), Mismatch> {
        self.grid.as_ref().map_or(Ok(()), TaskGrid::check)?;
        self.rough_crop.as_ref().map_or(Ok(()), RoughCrop::check)?;
        self.refine.as_ref().map_or(Ok(()), Refine::check)?;
        let surrounds = self.rough_crop.is_some() || self.refine.is_some();
        ensure(
            !surrounds || self.grid.is_some(),
            "grid",
            format_args!("that is missing"),
            "one, if only {} for the image's own, with rough_crop or refine",
        )?;
        ensure(
            self.grid.is_none() || self.previous_stage.is_none() && self.patch_size.len() == 3,
            "grid",
            format_args!("of a cascade or a 2-D network"),
            "none",
        )?;
        let known = |name: &String| self.labels.iter().any(|label| label.name == *name);
        ensure(
            self.auxiliary.iter().all(known),
            "auxiliary",
            &self.auxiliary,
            "names of the labels",
        )
    }

    fn check_labels(&mut self) -> Result<(), Mismatch> {
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

fn all_differ<T: Eq + Hash>(items: &[T]) -> bool {
    let mut seen = HashSet::with_capacity(items.len());
    items.iter().all(|item| seen.insert(item))
}
