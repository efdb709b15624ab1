//! What will happen to one case, and what it will cost, before anything heavy starts.

use super::flat::{Air, MOST_ANSWERS};
use super::infer_tiles::{Walk, cheapest_walk, is_direct, mirror_passes};
use super::label::Decision;
use super::stitch::Stitcher;
use super::{Input, Settings, crop, normalize, resample};
use crate::infer::Engine;
use crate::model::{MIN_STEP_SIZE, ModelConfig};
use crate::volume::{AxisMap, Grid, Image, VoxelView, tile_count};
use crate::{Error, Result};
use fastnnunet_kernels::Isa;
use std::time::{Duration, Instant};

/// What an engine returns that runs an image as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Labels of the image's voxels.
    Labels,
    /// What the network gives, on its own grid.
    Means,
}

/// Grids and choices of one case, from [`plan`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// Grid the network runs on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Bytes the run is expected to hold at its largest moment, the case itself included.
    pub peak: Memory,
    /// What the engine returns where it runs the image as a whole instead of tile by tile, because
    /// its device and the host's memory hold it.
    pub whole_image: Option<Returns>,
    /// From the array as stored to the network's axes.
    pub(super) axes: AxisMap,
    /// The part of the case, in the network's axes, that is worked on.
    pub(super) bounds: crop::Box3,
    /// Separately treated axis on the way in.
    pub(super) separate_in: Option<usize>,
    /// Separately treated axis on the way back.
    pub(super) separate_back: Option<usize>,
    pub(super) decision: Decision,
    pub(super) walk: Walk,
    pub(super) mirrors: Vec<Vec<usize>>,
    pub(super) step: f64,
    pub(super) gaussian: bool,
    pub(super) isa: Isa,
    pub(super) keeps_probabilities: bool,
    /// What counts as air, where tiles of it are not looked at.
    pub(super) air: Option<Air>,
    /// Answers to tiles of one value that are kept.
    pub(super) flat_answers: usize,
    pub(super) crop_time: Duration,
}

/// Memory a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// Bytes at the largest moment.
    pub bytes: u64,
    /// What is going on then.
    pub during: &'static str,
}

/// What threads, the allocator and the system's libraries take in a run with an image of no size, beside
/// the arrays counted and what the program around the library says it holds (`Options::held_bytes`).
/// Measured: 6 to 7 MiB on one to four threads.
pub(crate) const BASE_BYTES: u64 = 7 << 20;

/// The same with images of so many bytes. Measured: 6 to 7 MiB up to 112 MiB of images, 8 to 15 with 900
/// slices.
pub(crate) fn base_bytes(image_bytes: u64) -> u64 {
    BASE_BYTES + (image_bytes / 64).min(8 << 20)
}

/// What drawing a picture takes at most beside the image and its labels. Measured: 10 MiB.
const DRAWING_BYTES: u64 = 11 << 20;

/// Most voxels along an axis, of the image and of the network's grid: rows of label maps are
/// counted in 16 bits.
const MOST_VOXELS: usize = u16::MAX as usize;

/// Most voxels of the network's grid: few enough that no number of bytes below overflows.
const MOST_IN_ALL: u64 = 1 << 40;

/// Most tiles of one pass: nobody waits for more, and their places take a few hundred megabytes.
const MOST_TILES: u64 = 1 << 24;

fn voxels(shape: [usize; 3]) -> u64 {
    shape.iter().map(|&n| n as u64).product()
}

/// Decides how a case will be segmented.
///
/// # Errors
///
/// [`Error::Volume`] if the case does not fit the model, [`Error::Model`] if the network does
/// not fit its configuration, and [`Error::Memory`] if the run would hold more than
/// `options.memory_limit_bytes`.
pub fn plan(
    case: &Input<'_>,
    config: &ModelConfig,
    engine: &dyn Engine,
    options: &Settings,
) -> Result<Plan> {
    let started = Instant::now();
    let decision = check_fit(case, config, engine)?;
    check_request(case, options)?;
    let grid = &case.grid;
    let axes = network_axes(config, grid);
    let bounds = {
        let views: Vec<_> = case.channels.iter().map(|c| axes.voxels(c.view())).collect();
        if config.crop_to_nonzero {
            crop::nonzero_box(&views)
        } else {
            axes.permute(grid.shape).map(|n| 0..n)
        }
    };
    let spacing = axes.permute(grid.spacing);
    let target: [f64; 3] = std::array::from_fn(|k| config.target_spacing[k].unwrap_or(spacing[k]));
    let cropped = crop::box_shape(&bounds);
    let network_shape = network_grid(cropped, spacing, target)?;
    let step = options.step_size.unwrap_or(config.step_size);
    let tiles = tile_count(network_shape, config.patch_size, step);
    if tiles > MOST_TILES {
        return Err(Error::usage(
            "step size",
            format!("{step}, which makes {tiles} tiles"),
            format!("one that makes at most {MOST_TILES}"),
        ));
    }
    let force = config.resampling.force_separate_z;
    let mirrors = mirror_passes(&mirror_axes(options.mirror, config));
    let mut plan = Plan {
        network_shape,
        peak: Memory { bytes: 0, during: "" },
        whole_image: None,
        axes,
        separate_in: resample::separate_axis(force, spacing, target),
        separate_back: resample::separate_axis(force, target, spacing),
        walk: cheapest_walk(network_shape, config.patch_size),
        step,
        gaussian: options.use_gaussian.unwrap_or(config.use_gaussian),
        isa: options.isa.unwrap_or_else(Isa::best),
        keeps_probabilities: options.keep_probabilities,
        air: options.skip_air.then(|| air(config)).transpose()?,
        flat_answers: MOST_ANSWERS,
        decision,
        mirrors,
        bounds,
        crop_time: Duration::ZERO,
    };
    plan.fit(case, config, engine, options)?;
    plan.crop_time = started.elapsed();
    Ok(plan)
}

/// Stage 2 and nnU-Net's transposition.
fn network_axes(config: &ModelConfig, grid: &Grid) -> AxisMap {
    let orient = AxisMap::to(config.orientation, &grid.affine);
    orient.then(&AxisMap::transpose(config.transpose_forward))
}

/// How often a network runs over a whole image on `grid`, mirrored passes counted: told before the
/// image is read.
///
/// # Errors
///
/// [`Error::Volume`] if the model cannot take the grid.
pub(crate) fn runs_over(grid: &Grid, config: &ModelConfig, options: &Settings) -> Result<u64> {
    let axes = network_axes(config, grid);
    let (shape, spacing) = (axes.permute(grid.shape), axes.permute(grid.spacing));
    let target = std::array::from_fn(|k| config.target_spacing[k].unwrap_or(spacing[k]));
    let shape = network_grid(shape, spacing, target)?;
    let tiles = tile_count(shape, config.patch_size, options.step_size.unwrap_or(config.step_size));
    let passes = mirror_passes(&mirror_axes(options.mirror, config)).len() as u64;
    Ok(tiles.saturating_mul(passes))
}

/// Refuses what no model could answer.
fn check_request(case: &Input<'_>, options: &Settings) -> Result<()> {
    case.grid.check().map_err(|what| Error::volume(what.found, what.expected))?;
    let shape = case.grid.shape;
    if shape.iter().any(|&n| n > MOST_VOXELS) {
        return Err(Error::Volume {
            found: format!("{shape:?} voxels"),
            expected: format!("at most {MOST_VOXELS} along each axis"),
        });
    }
    match options.step_size {
        Some(step) if !(MIN_STEP_SIZE..=1.0).contains(&step) => Err(Error::Usage {
            what: "step size".into(),
            found: step.to_string(),
            expected: format!("a fraction of {MIN_STEP_SIZE} to 1"),
        }),
        _ => Ok(()),
    }
}

/// What counts as air in the model's images.
fn air(config: &ModelConfig) -> Result<Air> {
    Air::of(&config.channels).ok_or_else(|| Error::Usage {
        what: "air to be skipped".into(),
        found: "a model whose images are not normalized as CTs".into(),
        expected: "a model of CTs".into(),
    })
}

/// Voxels per axis of an image of `cropped` voxels at the model's spacing `target`.
fn network_grid(cropped: [usize; 3], spacing: [f64; 3], target: [f64; 3]) -> Result<[usize; 3]> {
    let shape = resample::resampled_shape(cropped, spacing, target);
    if shape.contains(&0) {
        return Err(Error::Volume {
            found: format!(
                "{cropped:?} voxels of {spacing:?} mm, half a voxel of the model or less"
            ),
            expected: format!("more than half of its {target:?} mm along each axis"),
        });
    }
    // Spacings of a file may be anything above 0.
    if shape.iter().any(|&n| n > MOST_VOXELS) || voxels(shape) > MOST_IN_ALL {
        return Err(Error::Volume {
            found: format!("{cropped:?} voxels of {spacing:?} mm for a model of {target:?} mm"),
            expected: format!(
                "a grid of at most {MOST_VOXELS} voxels along each axis and {MOST_IN_ALL} in all"
            ),
        });
    }
    Ok(shape)
}

impl Plan {
    /// Spends what is left below the limit on what spares time, and predicts the peak.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the case exceeds the limit without any of it.
    fn fit(
        &mut self,
        case: &Input<'_>,
        config: &ModelConfig,
        engine: &dyn Engine,
        options: &Settings,
    ) -> Result<()> {
        let exceeds =
            |peak: Memory| options.memory_limit_bytes.is_some_and(|limit| peak.bytes > limit);
        self.peak = self.predict(case, config, engine, options, None);
        // They spare work where there is room for them.
        while self.flat_answers > 0 && exceeds(self.peak) {
            self.flat_answers -= 1;
            self.peak = self.predict(case, config, engine, options, None);
        }
        let (shape, patch) = (self.network_shape, config.patch_size);
        let labels = || engine.label_bytes(shape, patch, crop::box_shape(&self.bounds));
        let labels = if self.keeps_probabilities { None } else { labels() };
        let ways = [(Returns::Labels, labels), (Returns::Means, engine.image_bytes(shape, patch))];
        for (returns, bytes) in ways {
            let Some(bytes) = bytes else { continue };
            let peak = self.predict(case, config, engine, options, Some(bytes));
            if !exceeds(peak) {
                (self.whole_image, self.peak) = (Some(returns), peak);
                break;
            }
        }
        if let Some(limit_bytes) = options.memory_limit_bytes
            && self.peak.bytes > limit_bytes
        {
            return Err(Error::Memory {
                what: format!("a network grid of {shape:?} voxels ({})", self.peak.during),
                need_bytes: self.peak.bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// The part of an image that is worked on, in the network's axes.
    pub(super) fn part<'a>(&self, image: &'a Image<'_>) -> VoxelView<'a> {
        self.axes.voxels(image.view()).cropped(&self.bounds)
    }

    /// Whether labels are written as bytes: below 255, as in the reference, which takes two
    /// bytes for label 255 already.
    pub(super) fn has_small_labels(&self, classes: usize) -> bool {
        self.decision.largest_label(classes) < u16::from(u8::MAX)
    }

    /// Bytes held at the largest moment. `whole_image` is what the engine holds to run the
    /// image as a whole; without it, tiles are stitched here.
    fn predict(
        &self,
        case: &Input<'_>,
        config: &ModelConfig,
        engine: &dyn Engine,
        options: &Settings,
        whole_image: Option<u64>,
    ) -> Memory {
        let float = size_of::<f32>() as u64;
        let (stored, network) = (voxels(case.grid.shape), voxels(self.network_shape));
        let scans = case.image_bytes();
        let previous = case.previous.as_ref().map_or(0, |_| stored * 2);
        let image = network * engine.input_channels() as u64 * float;
        let threads = rayon::current_num_threads();
        let engine_bytes = engine.memory_bytes(threads);

        let cropped = crop::box_shape(&self.bounds);
        let middle = resample::intermediate_voxels(
            cropped,
            self.network_shape,
            self.separate_in,
            &config.resampling,
        );
        // One image is resampled at a time, and copied first where its slices lie across,
        // or normalized on its own where a mask says which voxels.
        let across =
            case.channels.iter().any(|c| resample::is_copied(self.part(c), self.separate_in));
        let stored_bytes = case.channels.iter().map(|c| c.bytes().div_ceil(stored)).max();
        let copy = if across { voxels(cropped) * stored_bytes.unwrap_or(float) } else { 0 };
        let masked = config.channels.iter().any(normalize::is_masked);
        let masked = if masked { voxels(cropped) } else { 0 };
        // The first channel's image moves; further ones are copied into place.
        let extra = if engine.input_channels() > 1 { network } else { 0 };
        let mask = if config.channels.iter().any(|c| c.use_mask) { voxels(cropped) } else { 0 };
        let preparing = scans + previous + image + mask + copy + (middle + masked + extra) * float;

        let walked = |shape: [usize; 3]| self.walk.map(|axis| shape[axis]);
        let outputs = engine.output_channels();
        let sums = Stitcher::floats(walked(self.network_shape), walked(config.patch_size), outputs)
            * float;
        // Slices that are stitched as they are made take one for each thread.
        let slice = config.patch_size[1] * config.patch_size[2] * outputs * threads;
        let output = if is_direct(engine, self.mirrors.len()) {
            slice as u64
        } else {
            voxels(config.patch_size) * outputs as u64
        };
        let input = voxels(config.patch_size) * engine.input_channels() as u64;
        let tile = (input + output) * if self.mirrors.len() > 1 { 2 } else { 1 } * float;
        let weights = voxels(config.patch_size) * float;
        let label = if self.has_small_labels(engine.classes()) { 1 } else { 2 };
        let kept = if self.keeps_probabilities { network * outputs as u64 * float } else { 0 };
        let tiles = tile_count(self.network_shape, config.patch_size, self.step);
        let origins = tiles.saturating_mul(size_of::<[isize; 3]>() as u64);
        let answers = voxels(config.patch_size) * (outputs * self.flat_answers) as u64 * float;
        let running = whole_image.unwrap_or(sums + tile + answers).saturating_add(origins);
        // Images that are lent stay where they are while the network runs.
        let lent = |c: &&Image<'_>| matches!(c, Image::Lent(_));
        let lent: u64 = case.channels.iter().filter(lent).map(Image::bytes).sum();
        let inferring = (lent + image + weights + stored * label + kept).saturating_add(running);
        // While probabilities are written: largest logit, sum, and two of one class.
        let writing =
            if self.keeps_probabilities { lent + kept + stored * (label + 4 * float) } else { 0 };

        let drawing = if options.picture { lent + stored * label + DRAWING_BYTES } else { 0 };

        let moments = [
            (inferring, "inference"),
            (preparing, "resampling"),
            (writing, "probabilities"),
            (drawing, "drawing"),
        ];
        let (bytes, during) = moments.into_iter().max().unwrap_or_default();
        let others = (engine_bytes + base_bytes(scans)).saturating_add(options.held_bytes);
        Memory { bytes: bytes.saturating_add(others), during }
    }
}

/// The axes to flip. A 2-D network's first axis has one voxel: flipping it changes nothing.
fn mirror_axes(asked: Option<[bool; 3]>, config: &ModelConfig) -> Vec<usize> {
    match asked {
        Some(axes) => (0..3).filter(|&k| axes[k] && !(config.two_d && k == 0)).collect(),
        None => config.mirror_axes.clone(),
    }
}

/// Checks that case, configuration and network belong together and says how the network's
/// output becomes labels.
fn check_fit(case: &Input<'_>, config: &ModelConfig, engine: &dyn Engine) -> Result<Decision> {
    let (images, grid) = (&case.channels, &case.grid);
    let expected = config.channels.len();
    if images.len() != expected {
        return Err(Error::Volume {
            found: format!("{} images", images.len()),
            expected: format!("{expected}, one per channel of the model"),
        });
    }
    let model = || config.model_path.clone().unwrap_or_else(|| "network".to_owned());
    if engine.input_channels() != config.input_channels() {
        return Err(Error::Model {
            model: model(),
            found: format!("{} input channels of the network", engine.input_channels()),
            expected: format!("{} as the configuration says", config.input_channels()),
        });
    }
    let whole = |shape: [usize; 3]| shape == grid.shape && !shape.contains(&0);
    let previous = case.previous.as_deref().map(|labels| labels.dim().into());
    let shapes = images.iter().map(Image::shape).chain(previous);
    if let Some(shape) = shapes.into_iter().find(|&shape| !whole(shape)) {
        return Err(Error::Volume {
            found: format!("{shape:?} voxels"),
            expected: format!("{:?} voxels as the first image", grid.shape),
        });
    }
    if config.previous_stage.is_some() != case.previous.is_some() {
        return Err(Error::Volume {
            found: if case.previous.is_some() { "labels" } else { "no labels" }.to_owned()
                + " of a previous stage",
            expected: if config.previous_stage.is_some() { "them" } else { "none" }.to_owned(),
        });
    }
    let classes = engine.classes();
    if classes > usize::from(u16::MAX) {
        return Err(Error::Model {
            model: model(),
            found: format!("{classes} network outputs"),
            expected: format!("at most {}: labels are 16-bit", u16::MAX),
        });
    }
    if config.output_channels().is_some_and(|n| n != classes) {
        return Err(Error::Model {
            model: model(),
            found: format!("{classes} network outputs"),
            expected: format!("{:?} as the labels say", config.output_channels().unwrap_or(0)),
        });
    }
    Ok(match &config.regions_class_order {
        Some(order) => Decision::Regions(order.clone()),
        None => Decision::Argmax,
    })
}

#[cfg(test)]
mod tests {
    use super::mirror_axes;
    use crate::registry;

    #[test]
    fn slices_are_not_mirrored_along_their_one_voxel() {
        let axes = |model: &str, asked| {
            mirror_axes(Some(asked), registry::find(model).expect("embedded").config())
        };
        assert_eq!(axes("selftest_2d", [true; 3]), [1, 2]);
        assert_eq!(axes("selftest_2d", [true, false, false]), [0; 0]);
        assert_eq!(axes("selftest", [true; 3]), [0, 1, 2]);
    }
}
