//! Stages 2 to 11: a scan in Hounsfield units becomes a label map on the same grid.
//!
//! [`segment`] is the only place that spells the order. Each step is a plain function in a
//! module of its own; a step that changes geometry is undone by writing labels through the
//! same view.

pub mod crop;
pub mod grid;
pub mod label;
pub mod normalize;
pub mod postprocess;
pub mod resample;
pub mod stitch;
pub mod tile;

mod cascade;
mod flat;
mod infer_tiles;
pub(crate) mod plan;
mod probabilities;
mod progress;

pub use infer_tiles::mirror_passes;
pub(crate) use plan::{BASE_BYTES, base_bytes, runs_over};
pub use plan::{Memory, Plan, Returns, plan};
pub use probabilities::Probabilities;
pub use progress::{Progress, Stage, Timings};

use crate::infer::Engine;
use crate::io::Scan;
use crate::model::{ModelConfig, Normalize, TileWeights};
use crate::volume::{Grid, Image, LabelMap};
use crate::{Error, Result};
use fastnnunet_kernels::Isa;
use label::{LabelValue, Labeler, Resize};
use ndarray::{Array3, Array4, Axis, s};
use normalize::Scheme;
use progress::Clock;
use resample::resample_image;
use std::borrow::Cow;
use std::ops::ControlFlow;
use tile::Tiling;

/// One case: the images of one patient, all on one grid.
///
/// Images may be lent; those that are not are freed as soon as the network's input is made.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The images, `[z, y, x]`, in the model's channel order.
    pub channels: Vec<Image<'a>>,
    /// Where they lie.
    pub grid: Grid,
    /// For the second stage of a cascade: the first stage's labels, on the same grid.
    pub previous: Option<Cow<'a, LabelMap>>,
}

impl Input<'_> {
    /// Bytes of the images.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.channels.iter().map(Image::bytes).sum()
    }

    /// The same case, which stays where it is.
    #[must_use]
    pub fn borrowed(&self) -> Input<'_> {
        Input {
            channels: self.channels.iter().map(|image| image.view().into()).collect(),
            grid: self.grid.clone(),
            previous: self.previous.as_deref().map(Cow::Borrowed),
        }
    }
}

impl<'a> From<&'a Scan> for Input<'a> {
    fn from(scan: &'a Scan) -> Self {
        let (channels, grid) = (vec![scan.voxels().into()], scan.grid().clone());
        Self { channels, grid, previous: None }
    }
}

/// Choices made per run; `None` leaves a choice to the model's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Axes flipped for test-time averaging, of the network's `[z, y, x]`.
    pub mirror: Option<[bool; 3]>,
    /// Distance between tile origins as a fraction of the patch, in `(0, 1]`.
    pub step_size: Option<f64>,
    /// Weight overlapping tiles by a Gaussian.
    pub use_gaussian: Option<bool>,
    /// Treat tiles of a CT that hold nothing denser than -400 HU as air, whose answer is computed
    /// once.
    pub skip_air: bool,
    /// Keep what the network gave, for [`Probabilities::save_npz`].
    pub keep_probabilities: bool,
    /// A picture of the labels over an image that is lent will be drawn, which counts towards the limit.
    pub picture: bool,
    /// Refuse a case that would hold more than this many bytes at once.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes held beside the case while it runs, which count towards the limit.
    pub held_bytes: u64,
    /// Instruction set of the steps around the network; `None` for the best there is.
    pub isa: Option<Isa>,
}

impl Settings {
    /// The same where so many bytes more are held beside the case.
    pub(crate) fn holding(&self, bytes: u64) -> Self {
        Self { held_bytes: self.held_bytes + bytes, ..self.clone() }
    }
}

/// A finished case.
#[derive(Debug)]
pub struct Labeled {
    /// The labels, on the input's grid.
    pub labels: LabelMap,
    /// What the network gave, if [`Settings::keep_probabilities`] asked for it.
    pub probabilities: Option<Probabilities>,
    /// Grid the network ran on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Tiles per pass and passes per tile (mirrored ones included).
    pub tiles: (usize, usize),
    /// Of these tiles, those whose answer was known: they held one value, as one before them.
    pub known_tiles: usize,
    /// Memory expected before the run.
    pub predicted: Memory,
    /// Wall time per stage.
    pub timings: Timings,
}

/// What is called while a case runs; `Break` stops it.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + Send + 'a;

/// Segments one case: every stage between loading and postprocessing.
///
/// The case is taken once it is known to fit; after an error before that it is still there.
/// `progress` is called from this thread; returning
/// [`ControlFlow::Break`](std::ops::ControlFlow) stops the run.
///
/// The method is nnU-Net v2's inference (Isensee et al. 2021, `nnunetv2` 2.8).
///
/// # Errors
///
/// Those of [`plan`], before any work; [`Error::Interrupted`] if
/// `progress` said so, and whatever the engine reports.
pub fn segment(
    input: &mut Option<Input<'_>>,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    settings: &Settings,
    progress: &mut OnProgress<'_>,
) -> Result<Labeled> {
    let lacking = || Error::volume("no case", "one");
    let plan = plan(input.as_ref().ok_or_else(lacking)?, config, engine, settings)?;
    let case = input.take().ok_or_else(lacking)?;
    let grid = case.grid.clone();
    let mut clock = Clock::new(progress, (Stage::Crop, plan.crop_time), plan.peak);
    let image = network_input(case, &plan, config, engine.input_channels(), &mut clock)?;

    let [z, y, x] = plan.network_shape;
    let mut kept =
        plan.keeps_probabilities.then(|| Array4::zeros([engine.output_channels(), z, y, x]));
    let small = plan.has_small_labels(engine.classes());
    let mut run = Run { plan: &plan, config, engine, kept: kept.as_mut() };
    let (labels, (tiles, known_tiles)) = if small {
        let (labels, tiles) = run.label_tiles(&image, &grid, &mut clock)?;
        (LabelMap::U8(labels), tiles)
    } else {
        let (labels, tiles) = run.label_tiles(&image, &grid, &mut clock)?;
        (LabelMap::U16(labels), tiles)
    };
    let head = engine.head().cloned();
    let timings = clock.finish();
    let probabilities =
        kept.map(|planes| Probabilities::new(planes, head, &plan, config, grid.shape));
    Ok(Labeled {
        labels,
        probabilities,
        network_shape: plan.network_shape,
        tiles: (tiles, plan.mirrors.len()),
        known_tiles,
        predicted: plan.peak,
        timings,
    })
}

/// Stages 4 and 5: what the network sees, `[c, z, y, x]` on its own grid.
fn network_input(
    case: Input<'_>,
    plan: &Plan,
    config: &ModelConfig,
    inputs: usize,
    clock: &mut Clock<'_>,
) -> Result<Array4<f32>> {
    let Input { channels, previous, .. } = case;
    let images = channels.len();
    clock.start(Stage::Normalize, images)?;
    let needs_mask = previous.is_some() || config.channels.iter().any(|c| c.use_mask);
    let mask = needs_mask.then(|| {
        let views: Vec<_> = channels.iter().map(|c| plan.part(c)).collect();
        crop::patient_mask(&views)
    });
    let mut schemes = Vec::with_capacity(images);
    for (image, channel) in channels.iter().zip(&config.channels) {
        let mask = mask.as_ref().filter(|_| channel.use_mask).map(|mask| mask.view());
        schemes.push(Scheme::new(plan.part(image), channel, mask)?);
        clock.advance()?;
    }

    clock.start(Stage::Resample, images)?;
    let (shape, separate) = (plan.network_shape, plan.separate_in);
    let [z, y, x] = shape;
    let mut input = Array4::zeros([if inputs > 1 { inputs } else { 0 }, z, y, x]);
    for (k, image) in channels.into_iter().enumerate() {
        let (scheme, channel) = (schemes[k], &config.channels[k]);
        let resampled = match mask.as_ref().filter(|_| normalize::is_masked(channel)) {
            None if config.normalize == Normalize::AfterResampling => {
                let part = plan.part(&image);
                let mut values =
                    resample_image(part, |value| value, shape, separate, &config.resampling);
                normalize::normalize(values.view_mut(), channel, None)?;
                values
            }
            None => {
                let map = |value| scheme.apply(value);
                resample_image(plan.part(&image), map, shape, separate, &config.resampling)
            }
            // What becomes of a voxel depends on where it lies.
            Some(mask) => {
                let mut values = plan.part(&image).to_f32();
                normalize::normalize(values.view_mut(), channel, Some(mask.view()))?;
                resample_image(values.view(), |value| value, shape, separate, &config.resampling)
            }
        };
        drop(image);
        clock.advance()?;
        if inputs == 1 {
            return Ok(resampled.insert_axis(Axis(0)));
        }
        input.index_axis_mut(Axis(0), k).assign(&resampled);
    }
    if let (Some(labels), Some(mask)) = (&previous, &mask) {
        let rest = input.slice_mut(s![images.., .., .., ..]);
        let place = (&plan.axes, &plan.bounds);
        let wanted = &config.previous_stage_labels;
        cascade::fill_channels(rest, labels, place, mask.view(), plan.separate_in, wanted);
    }
    Ok(input)
}

/// A case whose network input is ready.
struct Run<'a> {
    plan: &'a Plan,
    config: &'a ModelConfig,
    engine: &'a mut dyn Engine,
    /// Where everything the network gives is kept, `[c, z, y, x]`.
    kept: Option<&'a mut Array4<f32>>,
}

impl Run<'_> {
    /// Stages 6 to 11: runs the tiles and labels each slice of the case as soon as the tiles
    /// it depends on are done. Voxels outside the box are background. Returns the number of
    /// tiles, and how many of them had a known answer.
    fn label_tiles<T: LabelValue>(
        &mut self,
        image: &Array4<f32>,
        grid: &Grid,
        clock: &mut Clock<'_>,
    ) -> Result<(Array3<T>, (usize, usize))> {
        let Self { plan, config, engine, kept } = self;
        let (walk, patch) = (plan.walk, config.patch_size);
        let walked = |shape: [usize; 3]| walk.map(|axis| shape[axis]);
        let tiling = Tiling::new(walked(plan.network_shape), walked(patch), plan.step);
        let tiles = tiling.origins.len();
        let weights = match (plan.gaussian, config.tile_weights) {
            (false, _) => tile::uniform(patch),
            (true, TileWeights::Half) => tile::gaussian(patch),
            (true, TileWeights::Single) => tile::gaussian_single(patch),
        };
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
        let pass = infer_tiles::Pass {
            tiling: &tiling,
            weights,
            walk,
            mirrors: &plan.mirrors,
            whole_image: plan.whole_image,
            air: plan.air.as_ref(),
            answers: plan.flat_answers,
        };
        let ways = (&resize, &plan.decision);
        if let Some(found) = infer_tiles::label(image, *engine, &pass, ways, clock)? {
            let table: Vec<T> = plan.decision.table(engine.classes());
            let lacking = || Error::Device {
                device: engine.device().to_owned(),
                reason: "it gave a class that is none".to_owned(),
            };
            for (label, &class) in target.iter_mut().zip(&found) {
                *label = *table.get(usize::from(class)).ok_or_else(lacking)?;
            }
            return Ok((labels, (tiles, 0)));
        }
        let labeler = Labeler::new(engine.output_channels(), &resize, &plan.decision, plan.isa);
        let mut done = 0;
        let known =
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
        Ok((labels, (tiles, known)))
    }
}
