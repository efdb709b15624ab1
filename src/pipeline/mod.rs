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

mod cascade;
mod infer_tiles;
pub(crate) mod plan;
mod probabilities;
mod progress;

pub use infer_tiles::mirror_passes;
pub use plan::{Memory, Plan, plan};
pub use probabilities::Evidence;
pub use progress::{Progress, Stage, Timings};

use crate::Result;
use crate::infer::Engine;
use crate::model::ModelConfig;
use crate::volume::{Grid, LabelMap, Volume};
use fastnnunet_kernels::Isa;
use label::{Label, Labeler, Resize};
use ndarray::{Array3, Array4, Axis, s};
use progress::Clock;
use std::ops::ControlFlow;
use tile::Tiling;

/// One case: the images of one patient, all on one grid.
#[derive(Clone, Debug)]
pub struct Case {
    /// The images, `[z, y, x]`, in the model's channel order.
    pub channels: Vec<Array3<f32>>,
    /// Where they lie.
    pub grid: Grid,
    /// For the second stage of a cascade: the first stage's labels, on the same grid.
    pub previous: Option<LabelMap>,
}

impl Case {
    /// Bytes of the images.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.channels.iter().map(|c| c.len() as u64 * size_of::<f32>() as u64).sum()
    }
}

impl From<Volume<f32>> for Case {
    fn from(volume: Volume<f32>) -> Self {
        Self { channels: vec![volume.data], grid: volume.grid, previous: None }
    }
}

/// Choices made per run; `None` leaves a choice to the model's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Axes flipped for test-time averaging, of the network's `[z, y, x]`; empty for none.
    pub mirror_axes: Option<Vec<usize>>,
    /// Distance between tile origins as a fraction of the patch, in `(0, 1]`.
    pub step_size: Option<f64>,
    /// Weight overlapping tiles by a Gaussian.
    pub use_gaussian: Option<bool>,
    /// Keep what the network gave, for [`Evidence::save_npz`].
    pub keep_evidence: bool,
    /// Refuse a case that would hold more than this many bytes at once.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes the caller holds beside the case while it runs: they count towards the limit.
    pub held_bytes: u64,
    /// Instruction set of the steps around the network; `None` for the best there is.
    pub isa: Option<Isa>,
}

/// A finished case.
#[derive(Debug)]
pub struct Segmentation {
    /// The labels, on the input's grid.
    pub labels: LabelMap,
    /// What the network gave, if [`Options::keep_evidence`] asked for it.
    pub evidence: Option<Evidence>,
    /// Grid the network ran on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Tiles per pass and passes per tile (mirrored ones included).
    pub tiles: (usize, usize),
    /// Memory expected before the run.
    pub predicted: Memory,
    /// Wall time per stage.
    pub timings: Timings,
}

/// Segments one case: every stage between loading and postprocessing.
///
/// Images are normalized in place and freed as soon as the network's input is made.
/// `progress` is called from this thread; returning
/// [`ControlFlow::Break`](std::ops::ControlFlow) stops the run.
///
/// The method is nnU-Net v2's inference (Isensee et al. 2021, `nnunetv2` 2.8).
///
/// # Errors
///
/// Those of [`plan`], before any work; [`Error::Interrupted`](crate::Error::Interrupted) if
/// `progress` said so, and whatever the engine reports.
pub fn segment(
    case: Case,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Segmentation> {
    let plan = plan(&case, config, engine, options)?;
    segment_as_planned(case, plan, config, engine, options, progress)
}

/// As [`segment`], with a plan from [`plan`] for the same case, model and options.
///
/// # Errors
///
/// As [`segment`].
pub fn segment_as_planned(
    case: Case,
    plan: Plan,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Segmentation> {
    let Case { mut channels, grid, previous } = case;
    let mut clock = Clock::new(progress, (Stage::Crop, plan.crop_time), plan.peak);
    let classes = engine.classes();

    clock.start(Stage::Normalize, channels.len())?;
    let masked = |c: &crate::model::Channel| c.use_mask;
    let mask = (previous.is_some() || config.channels.iter().any(masked)).then(|| {
        let views: Vec<_> =
            channels.iter().map(|c| crop::crop(plan.axes.view(c.view()), &plan.bounds)).collect();
        crop::patient_mask(&views)
    });
    for (image, channel) in channels.iter_mut().zip(&config.channels) {
        let part = crop::crop(plan.axes.view_mut(image.view_mut()), &plan.bounds);
        let mask = mask.as_ref().filter(|_| channel.use_mask).map(|mask| mask.view());
        normalize::normalize(part, channel, mask)?;
        clock.advance()?;
    }

    clock.start(Stage::Resample, channels.len())?;
    let image = network_input(channels, previous, mask, &plan, config, engine, &mut clock)?;

    let [z, y, x] = plan.network_shape;
    let mut kept =
        options.keep_evidence.then(|| Array4::zeros([engine.output_channels(), z, y, x]));
    let mut run = Run { plan: &plan, config, engine, options, kept: kept.as_mut() };
    let (labels, tiles) = if plan.has_small_labels(classes) {
        let (labels, tiles) = run.label_tiles(&image, &grid, &mut clock)?;
        (LabelMap::U8(labels), tiles)
    } else {
        let (labels, tiles) = run.label_tiles(&image, &grid, &mut clock)?;
        (LabelMap::U16(labels), tiles)
    };
    let evidence = kept.map(|planes| Evidence {
        planes,
        head: engine.head().cloned(),
        decision: plan.decision.clone(),
        order: config.resampling.order_logits,
        separate: plan.separate_back,
        axes: plan.axes,
        bounds: plan.bounds.clone(),
        shape: grid.shape,
    });
    Ok(Segmentation {
        labels,
        evidence,
        network_shape: plan.network_shape,
        tiles: (tiles, plan.mirrors.len()),
        predicted: plan.peak,
        timings: clock.finish(),
    })
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
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Segmentation> {
    segment(volume.into(), config, engine, options, progress)
}

/// Stage 5: what the network sees, `[c, z, y, x]` on its own grid. Images are freed one by
/// one.
fn network_input(
    mut channels: Vec<Array3<f32>>,
    previous: Option<LabelMap>,
    mask: Option<Array3<bool>>,
    plan: &Plan,
    config: &ModelConfig,
    engine: &dyn Engine,
    clock: &mut Clock<'_>,
) -> Result<Array4<f32>> {
    let resample = |channel: Array3<f32>| {
        let part = crop::crop(plan.axes.view(channel.view()), &plan.bounds);
        let (shape, separate) = (plan.network_shape, plan.separate_in);
        resample::resample_image(part, shape, separate, &config.resampling)
    };
    let images = channels.len();
    if engine.input_channels() == 1
        && let Some(only) = channels.pop()
    {
        let image = resample(only).insert_axis(Axis(0));
        clock.advance()?;
        return Ok(image);
    }
    let [z, y, x] = plan.network_shape;
    let mut image = Array4::zeros([engine.input_channels(), z, y, x]);
    for (mut target, channel) in image.outer_iter_mut().zip(channels) {
        target.assign(&resample(channel));
        clock.advance()?;
    }
    if let (Some(labels), Some(mask)) = (&previous, &mask) {
        let rest = image.slice_mut(s![images.., .., .., ..]);
        let place = (&plan.axes, &plan.bounds);
        cascade::fill_channels(
            rest,
            labels,
            place,
            mask.view(),
            plan.separate_in,
            &config.previous_stage_labels,
        );
    }
    Ok(image)
}

/// A case whose network input is ready.
struct Run<'a> {
    plan: &'a Plan,
    config: &'a ModelConfig,
    engine: &'a mut dyn Engine,
    options: &'a Options,
    /// Where everything the network gives is kept, `[c, z, y, x]`.
    kept: Option<&'a mut Array4<f32>>,
}

impl Run<'_> {
    /// Stages 6 to 11: runs the tiles and labels each slice of the case as soon as the tiles
    /// it depends on are done. Voxels outside the box are background. Returns the number of
    /// tiles.
    fn label_tiles<T: Label>(
        &mut self,
        image: &Array4<f32>,
        grid: &Grid,
        clock: &mut Clock<'_>,
    ) -> Result<(Array3<T>, usize)> {
        let Self { plan, config, engine, options, kept } = self;
        let (walk, patch) = (plan.walk, config.patch_size);
        let walked = |shape: [usize; 3]| walk.map(|axis| shape[axis]);
        let tiling = Tiling::new(walked(plan.network_shape), walked(patch), plan.step);
        let tiles = tiling.origins.len();
        let gaussian = options.use_gaussian.unwrap_or(config.use_gaussian);
        let weights = if gaussian { tile::gaussian(patch) } else { tile::uniform(patch) };
        clock.start(Stage::Infer, tiles * plan.mirrors.len())?;

        let mut labels = Array3::from_elem(grid.shape, T::default());
        let target = crop::crop(plan.axes.view_mut(labels.view_mut()), &plan.bounds);
        let mut target = target.permuted_axes(walk);
        let head = engine.head().cloned();
        let resize = Resize {
            source: tiling.image,
            target: target.dim().into(),
            order: config.resampling.order_logits,
            separate: plan.separate_back.and_then(|axis| walk.iter().position(|&w| w == axis)),
            head: head.as_ref(),
        };
        let isa = options.isa.unwrap_or_else(Isa::best);
        let labeler = Labeler::new(engine.output_channels(), &resize, &plan.decision, isa);
        let mut done = 0;
        let pass = infer_tiles::Pass {
            tiling: &tiling,
            weights,
            walk,
            mirrors: &plan.mirrors,
            whole_image: plan.whole_image,
        };
        infer_tiles::infer(image, *engine, pass, clock, &mut |planes, first, clock| {
            let known = first + planes.len_of(Axis(1));
            let slices = done..labeler.ready(known);
            done = slices.end;
            clock.aside(Stage::Label, || {
                let part = target.slice_mut(s![slices.clone(), .., ..]);
                labeler.label(planes, first, slices, part);
                if let Some(kept) = kept {
                    let kept = infer_tiles::walked_mut(kept.view_mut(), walk);
                    kept.slice_move(s![.., first..known, .., ..]).assign(&planes);
                }
            });
            // A coarse scan's next slice may begin above what is known.
            Ok(labeler.needed(done).map_or(known, |plane| plane.min(known)))
        })?;
        Ok((labels, tiles))
    }
}
