//! Stages 2 to 11: a scan in Hounsfield units becomes a label map on the same grid.
//!
//! [`segment`] is the only place that spells the order. Each step is a plain function in a
//! module of its own; a step that changes geometry is undone by writing labels through the
//! same view.

pub mod crop;
pub mod label;
pub mod normalize;
pub mod postprocess;
pub mod resample;
pub mod stitch;
pub mod tile;

mod infer_tiles;
mod progress;

pub use infer_tiles::mirror_passes;
pub use progress::{Progress, Stage, Timings};

use crate::infer::Engine;
use crate::model::ModelConfig;
use crate::volume::{AxisMap, Grid, LabelMap, Volume};
use crate::{Error, Result};
use label::Decision;
use ndarray::{Array3, Array4, Axis};
use progress::Clock;

/// Choices made per run; `None` leaves a choice to the model's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Axes flipped for test-time averaging, of the network's `[z, y, x]`; empty for none.
    pub mirror_axes: Option<Vec<usize>>,
    /// Distance between tile origins as a fraction of the patch, in `(0, 1]`.
    pub step_size: Option<f64>,
    /// Refuse a case that would hold more than this many bytes at once.
    pub memory_limit_bytes: Option<u64>,
}

/// A finished case.
#[derive(Debug)]
pub struct Segmentation {
    /// The labels, on the input's grid.
    pub labels: LabelMap,
    /// Grid the network ran on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Tiles per pass and passes per tile (mirrored ones included).
    pub tiles: (usize, usize),
    /// Wall time per stage.
    pub timings: Timings,
}

/// Segments one case: every stage between loading and postprocessing.
///
/// `channels` are the input images in the model's channel order, all on `grid`; they are
/// normalized in place and freed as soon as the network's input is made. `progress` is
/// called from this thread; returning [`ControlFlow::Break`](std::ops::ControlFlow) stops
/// the run.
///
/// The method is nnU-Net v2's inference (Isensee et al. 2021, `nnunetv2` 2.8).
///
/// # Errors
///
/// [`Error::Volume`] if the case does not fit the model, [`Error::Memory`] before any work
/// if it would not fit `options.memory_limit_bytes`, [`Error::Interrupted`] if `progress`
/// said so, and whatever the engine reports.
pub fn segment(
    mut channels: Vec<Array3<f32>>,
    grid: &Grid,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> std::ops::ControlFlow<()>,
) -> Result<Segmentation> {
    let decision = check_fit(&channels, grid, config, engine)?;
    let mut clock = Clock::new(progress);

    clock.start(Stage::Crop, 1)?;
    let axes = network_axes(grid, config);
    let spacing = axes.permute(grid.spacing);
    let bounds = {
        let views: Vec<_> = channels.iter().map(|c| axes.view(c.view())).collect();
        if config.crop_to_nonzero {
            crop::nonzero_box(&views)
        } else {
            axes.permute(grid.shape).map(|n| 0..n)
        }
    };
    let plan = Plan::new(&bounds, spacing, config)?;
    plan.check_memory(engine, grid, options)?;

    clock.start(Stage::Normalize, channels.len())?;
    for (image, channel) in channels.iter_mut().zip(&config.channels) {
        let part = crop::crop(axes.view_mut(image.view_mut()), &bounds);
        normalize::normalize(part, channel)?;
        clock.advance()?;
    }

    clock.start(Stage::Resample, channels.len())?;
    let [z, y, x] = plan.shape;
    let mut image = Array4::zeros([channels.len(), z, y, x]);
    for (c, channel) in std::mem::take(&mut channels).into_iter().enumerate() {
        let part = crop::crop(axes.view(channel.view()), &bounds);
        let resampled =
            resample::resample_image(part, plan.shape, plan.separate_in, &config.resampling);
        image.index_axis_mut(Axis(0), c).assign(&resampled);
        clock.advance()?;
    }

    let (logits, tiles) = infer_tiles::infer(image, config, engine, options, &mut clock)?;

    clock.start(Stage::Label, 1)?;
    let largest = decision.largest_label(logits.len_of(Axis(0)));
    let labels = if u8::try_from(largest).is_ok() {
        LabelMap::U8(paint(&logits, &plan, &decision, config, grid, &axes, &bounds))
    } else {
        LabelMap::U16(paint(&logits, &plan, &decision, config, grid, &axes, &bounds))
    };
    Ok(Segmentation { labels, network_shape: plan.shape, tiles, timings: clock.finish() })
}

/// As [`segment`] for a single-channel scan.
///
/// # Errors
///
/// As [`segment`].
pub fn segment_volume(
    volume: Volume<f32>,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> std::ops::ControlFlow<()>,
) -> Result<Segmentation> {
    segment(vec![volume.data], &volume.grid, config, engine, options, progress)
}

/// From the array as stored to the network's axes: stage 2 and nnU-Net's transposition.
fn network_axes(grid: &Grid, config: &ModelConfig) -> AxisMap {
    config.orientation.axis_map(&grid.affine).then(&AxisMap::transpose(config.transpose_forward))
}

/// Grids and resampling decisions of one case.
struct Plan {
    /// Cropped image, before resampling.
    cropped: [usize; 3],
    /// What the network sees.
    shape: [usize; 3],
    /// Separately treated axis on the way in.
    separate_in: Option<usize>,
    /// Separately treated axis on the way back.
    separate_back: Option<usize>,
}

impl Plan {
    fn new(bounds: &crop::Box3, spacing: [f64; 3], config: &ModelConfig) -> Result<Self> {
        let cropped = crop::box_shape(bounds);
        let target: [f64; 3] =
            std::array::from_fn(|k| config.target_spacing[k].unwrap_or(spacing[k]));
        let shape = resample::resampled_shape(cropped, spacing, target);
        if shape.contains(&0) {
            return Err(Error::Volume {
                found: format!("{cropped:?} voxels of {spacing:?} mm, thinner than half a voxel"),
                expected: format!("at least half of the model's {target:?} mm voxel"),
            });
        }
        let force = config.resampling.force_separate_z;
        Ok(Self {
            cropped,
            shape,
            separate_in: resample::separate_axis(force, spacing, target),
            separate_back: resample::separate_axis(force, target, spacing),
        })
    }

    /// Refuses the case if its largest moments would not fit the limit.
    fn check_memory(&self, engine: &dyn Engine, grid: &Grid, options: &Options) -> Result<()> {
        let Some(limit_bytes) = options.memory_limit_bytes else { return Ok(()) };
        let voxels = |shape: [usize; 3]| shape.iter().map(|&n| n as u64).product::<u64>();
        let (stored, network) = (voxels(grid.shape), voxels(self.shape));
        let (inputs, outputs) = (engine.input_channels() as u64, engine.output_channels() as u64);
        let float = size_of::<f32>() as u64;
        // The scan, one resampling intermediate no larger than either grid, and the input.
        let resampling = (stored * inputs + network.max(voxels(self.cropped))) * float
            + network * inputs * float;
        // Input, logits and weights; the label map is allocated when tiles are done.
        let inferring = network.saturating_mul(inputs + outputs + 1) * float + stored;
        let need_bytes = resampling.max(inferring);
        if need_bytes > limit_bytes {
            return Err(Error::Memory {
                what: format!("a network grid of {:?} voxels", self.shape),
                need_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }
}

/// Checks that case, configuration and network belong together and says how the network's
/// output becomes labels.
fn check_fit(
    channels: &[Array3<f32>],
    grid: &Grid,
    config: &ModelConfig,
    engine: &dyn Engine,
) -> Result<Decision> {
    let expected = config.input_channels();
    if channels.len() != expected || engine.input_channels() != expected {
        return Err(Error::Volume {
            found: format!(
                "{} images for a network of {} channels",
                channels.len(),
                engine.input_channels()
            ),
            expected: format!("{expected}, one per channel of the configuration"),
        });
    }
    let fits = |c: &Array3<f32>| c.dim() == grid.shape.into() && !c.is_empty();
    if !channels.iter().all(fits) {
        return Err(Error::Volume {
            found: format!("{:?} voxels", channels[0].shape()),
            expected: format!("{:?} voxels as the grid says", grid.shape),
        });
    }
    let outputs = engine.output_channels();
    if config.output_channels().is_some_and(|n| n != outputs) {
        return Err(Error::Model {
            model: config.model_path.clone().unwrap_or_default(),
            found: format!("{outputs} network outputs"),
            expected: format!("{:?} as the labels say", config.output_channels().unwrap_or(0)),
        });
    }
    Ok(match &config.regions_class_order {
        Some(order) => Decision::Regions(order.clone()),
        None => Decision::Argmax,
    })
}

/// Stages 9 to 11: resamples logits to the cropped grid, decides, and writes each label to
/// its voxel of the file; voxels outside the crop are background.
fn paint<T: label::Label>(
    logits: &Array4<f32>,
    plan: &Plan,
    decision: &Decision,
    config: &ModelConfig,
    grid: &Grid,
    axes: &AxisMap,
    bounds: &crop::Box3,
) -> Array3<T> {
    let mut labels = Array3::from_elem(grid.shape, T::default());
    let part = crop::crop(axes.view_mut(labels.view_mut()), bounds);
    let order = config.resampling.order_logits;
    label::label_resampled_with(logits.view(), plan.separate_back, order, decision, part, &|| true);
    labels
}
