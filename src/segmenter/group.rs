//! Networks whose labels are merged on one grid, and what a task does around them.
//!
//! A case enters; where the task has a grid of its own, a rough model finds the part that matters,
//! that part comes to the grid once, every network runs there, their labels are merged and cleaned up
//! there, and go back in one step. The labels leave on the image's own grid.

use super::answer::Answer;
use super::network::Network;
use super::run::{add_labels, add_time};
use super::segmentation::NetworkRun;
use crate::model::{Label, TaskGrid};
use crate::pipeline::crop::{self, Box3};
use crate::pipeline::postprocess::{Map, Recipe, Report, bodies};
use crate::pipeline::{Input, OnProgress, Probabilities, Settings, Stage, Timings, grid};
use crate::registry::LabelSubset;
use crate::volume::{Affine, AxisMap, Grid, Image, LabelMap, Orientation, Spacing, Voxels};
use crate::{Error, Result};
use ndarray::{Array3, Axis, Zip};
use std::time::Instant;

/// Networks that run one after the other on the same images.
pub(super) struct Group {
    pub(super) parts: Vec<Part>,
    /// What is done around them; without it each brings its labels back by itself.
    pub(super) around: Option<Around>,
}

/// A network, and what becomes of its labels.
pub(super) struct Part {
    pub(super) network: Network,
    pub(super) subset: Option<LabelSubset>,
}

/// What a task does around its networks.
pub(super) struct Around {
    pub(super) grid: TaskGrid,
    pub(super) rough: Option<Rough>,
    pub(super) refine: Option<Refiner>,
    /// How labels are cleaned up on the grid.
    pub(super) recipe: Recipe,
    /// The structures that the recipe sees there.
    pub(super) seen: Vec<Label>,
}

/// What finds the part of the image that matters.
pub(super) struct Rough {
    pub(super) answer: Box<Answer>,
    /// Labels of its answer that the image is cut around.
    pub(super) ids: Vec<u16>,
    pub(super) margin_mm: f64,
    /// Labels of its answer in and about which labels may be, and how far about.
    pub(super) keep_within: Option<(Vec<u16>, f64)>,
}

/// What draws the border of the labels in the end.
pub(super) struct Refiner {
    pub(super) answer: Box<Answer>,
    pub(super) id: u16,
    pub(super) grow_mm: f64,
}

/// What is told about a case while it runs.
pub(super) struct Log<'a, 'b> {
    pub(super) runs: Vec<NetworkRun>,
    pub(super) report: Report,
    /// Besides those of the runs.
    pub(super) timings: Timings,
    /// What the last network gave, if that is kept.
    pub(super) probabilities: Option<Probabilities>,
    pub(super) progress: &'a mut OnProgress<'b>,
}

impl<'a, 'b> Log<'a, 'b> {
    pub(super) fn new(progress: &'a mut OnProgress<'b>) -> Self {
        Self {
            runs: Vec::new(),
            report: Report::default(),
            timings: Timings::new(),
            probabilities: None,
            progress,
        }
    }
}

impl Group {
    /// Runs each network once on nothing, those around them first.
    pub(super) fn warm(&mut self) -> Result<()> {
        if let Some(around) = &mut self.around {
            let rough = around.rough.as_mut().map(|rough| &mut rough.answer);
            let refine = around.refine.as_mut().map(|refine| &mut refine.answer);
            rough.into_iter().chain(refine).try_for_each(|answer| answer.warm())?;
        }
        self.parts.iter_mut().try_for_each(|part| part.network.warm())
    }

    /// The networks, those around them first.
    pub(super) fn networks(&self) -> Box<dyn Iterator<Item = &Network> + '_> {
        let around = self.around.iter().flat_map(|around| {
            let rough = around.rough.iter().map(|rough| &rough.answer);
            rough.chain(around.refine.iter().map(|refine| &refine.answer))
        });
        let own = self.parts.iter().map(|part| &part.network);
        Box::new(around.flat_map(|answer| answer.networks()).chain(own))
    }

    /// Bytes that they hold once they have run.
    pub(super) fn memory_bytes(&self, threads: usize) -> u64 {
        self.networks().map(|network| network.memory_bytes(threads)).sum()
    }

    /// Runs the networks on the task's grid and gives their labels on the image's own.
    ///
    /// # Panics
    ///
    /// If nothing is to be done around the networks.
    pub(super) fn segment_around(
        &mut self,
        input: &Input<'_>,
        settings: &Settings,
        log: &mut Log<'_, '_>,
    ) -> Result<LabelMap> {
        let threads = rayon::current_num_threads();
        let networks = self.memory_bytes(threads);
        let Self { parts, around } = self;
        let around = around.as_mut().expect("a task with a grid");
        let own = &input.grid;
        // The image and the labels on its grid, and the networks that wait meanwhile.
        let held = input.image_bytes() + own.shape.iter().map(|&n| n as u64).product::<u64>();
        let all = held + networks;

        let mut bounds = own.shape.map(|n| 0..n);
        let mut allowed = None;
        if let Some(rough) = &mut around.rough {
            let settings = settings.holding(all - rough.answer.memory_bytes(threads));
            let found = rough.answer.labels_of(input, &settings, log)?;
            let Some(part) = rough.bounds(&found, own.spacing) else {
                return Ok(zeros(own.shape, &found));
            };
            bounds = part;
            allowed = rough.keep_within.as_ref().map(|(ids, distance_mm)| {
                let mean = own.spacing.iter().sum::<f64>() / 3.0;
                near(&is_any(&found, ids), (distance_mm / mean) as usize)
            });
        }

        let axes = AxisMap::to(Orientation::Ras, &own.affine);
        let started = Instant::now();
        let low = around.bring(input, &axes, &bounds)?;
        add_time(&mut log.timings, Stage::Resample, started.elapsed());
        let low_grid = low.grid.clone();
        let running: u64 = parts.iter().map(|part| part.network.memory_bytes(threads)).sum();
        let mut labels = merged(parts, &mut Some(low), &settings.holding(all - running), log)?;

        let started = Instant::now();
        if !around.recipe.is_empty() {
            let report = around.recipe.apply(&mut labels, &low_grid, &around.seen)?;
            log.report.steps.extend(report.steps);
        }
        add_time(&mut log.timings, Stage::Postprocess, started.elapsed());

        let started = Instant::now();
        let mut whole = zeros(own.shape, &labels);
        match (&labels, &mut whole) {
            (LabelMap::U8(from), LabelMap::U8(to)) => put_back(from, to, &axes, &bounds),
            (LabelMap::U16(from), LabelMap::U16(to)) => put_back(from, to, &axes, &bounds),
            _ => unreachable!("made in the type of the other"),
        }
        if let Some(refine) = &mut around.refine {
            let settings = settings.holding(all - refine.answer.memory_bytes(threads));
            let body = refine.answer.labels_of(input, &settings, log)?;
            refine.apply(&mut whole, &body, own.spacing, &around.seen);
        }
        if let Some(allowed) = allowed {
            keep_where(&mut whole, &allowed);
        }
        add_time(&mut log.timings, Stage::Label, started.elapsed());
        Ok(whole)
    }
}

impl Around {
    /// The part of the case inside `bounds`, seen along `axes`, on the task's grid.
    fn bring(&self, input: &Input<'_>, axes: &AxisMap, bounds: &Box3) -> Result<Input<'static>> {
        let own = &input.grid;
        let shape = axes.permute(crop::box_shape(bounds));
        let placed = grid::place(&self.grid, shape, axes.permute(own.spacing))?;
        let bring = |channel: &Image<'_>| {
            let part = channel.view().cropped(bounds);
            // What is cut out loses what is behind the point before it is interpolated.
            let cut = self.rough.as_ref().and_then(|_| grid::truncated(part));
            let part = cut.as_ref().map_or(part, Voxels::view);
            Image::Own(grid::to_grid(axes.voxels(part), &self.grid, &placed))
        };
        let [z, y, x] = placed.spacing;
        let affine = Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
        Ok(Input {
            channels: input.channels.iter().map(bring).collect(),
            grid: Grid { shape: placed.shape, spacing: placed.spacing, affine },
            previous: None,
        })
    }
}

/// The labels of all parts on the grid of the case, later ones over earlier ones. The last part
/// takes the images.
pub(super) fn merged(
    parts: &mut [Part],
    input: &mut Option<Input<'_>>,
    settings: &Settings,
    log: &mut Log<'_, '_>,
) -> Result<LabelMap> {
    let last = parts.len() - 1;
    let threads = rayon::current_num_threads();
    let networks: u64 = parts.iter().map(|part| part.network.memory_bytes(threads)).sum();
    let mut labels = None::<LabelMap>;
    for (k, part) in parts.iter_mut().enumerate() {
        let others = networks - part.network.memory_bytes(threads);
        let held = labels.as_ref().map_or(0, LabelMap::bytes) + others;
        let settings = settings.holding(held);
        let network = &mut part.network;
        let found = if k == last {
            network.segment(input, &settings, &mut log.runs, log.progress)?
        } else {
            let mut lent = input.as_ref().map(Input::borrowed);
            network.segment(&mut lent, &settings, &mut log.runs, log.progress)?
        };
        log.probabilities = found.probabilities;
        let mut found = found.labels;
        if let Some(subset) = &part.subset {
            subset.apply(&mut found);
        }
        add_labels(&mut labels, found);
    }
    labels.ok_or_else(|| Error::volume("no network", "at least one"))
}

impl Rough {
    /// The box of the structures and the margin around them; none if there is no voxel of them.
    fn bounds(&self, found: &LabelMap, spacing: Spacing) -> Option<Box3> {
        let (shape, ids): ([usize; 3], &[u16]) = (found.dim().into(), &self.ids);
        let tight = match found {
            LabelMap::U8(labels) => crop::box_where(labels.view(), |l| ids.contains(&l.into())),
            LabelMap::U16(labels) => crop::box_where(labels.view(), |l| ids.contains(&l)),
        }?;
        let margin = spacing.map(|mm| (self.margin_mm / mm) as usize);
        Some(crop::grown(&tight, margin, shape))
    }
}

impl Refiner {
    /// Grows each label into background, and keeps it where the other model's structure is.
    fn apply(&self, labels: &mut LabelMap, body: &LabelMap, spacing: Spacing, seen: &[Label]) {
        let mut ids: Vec<u16> = seen.iter().map(|label| label.id).collect();
        ids.sort_unstable();
        match labels {
            LabelMap::U8(labels) => {
                let mut map = Map::new(labels.view_mut(), spacing);
                bodies::grow(&mut map, &ids, self.grow_mm, spacing);
            }
            LabelMap::U16(labels) => {
                let mut map = Map::new(labels.view_mut(), spacing);
                bodies::grow(&mut map, &ids, self.grow_mm, spacing);
            }
        }
        keep_where(labels, &is_any(body, &[self.id]));
    }
}

/// No label, in the type of `like`.
fn zeros(shape: [usize; 3], like: &LabelMap) -> LabelMap {
    match like {
        LabelMap::U8(_) => LabelMap::U8(Array3::zeros(shape)),
        LabelMap::U16(_) => LabelMap::U16(Array3::zeros(shape)),
    }
}

fn put_back<T: Copy + Send + Sync>(
    from: &Array3<T>,
    to: &mut Array3<T>,
    axes: &AxisMap,
    bounds: &Box3,
) {
    let part = crop::crop(to.view_mut(), bounds);
    grid::labels_back(from.view(), axes.view_mut(part));
}

/// Which voxels have one of the labels.
fn is_any(labels: &LabelMap, ids: &[u16]) -> Array3<bool> {
    match labels {
        LabelMap::U8(labels) => Zip::from(labels).par_map_collect(|&l| ids.contains(&l.into())),
        LabelMap::U16(labels) => Zip::from(labels).par_map_collect(|l| ids.contains(l)),
    }
}

fn keep_where(labels: &mut LabelMap, mask: &Array3<bool>) {
    match labels {
        LabelMap::U8(labels) => {
            Zip::from(labels).and(mask).par_for_each(|l, &kept| *l *= u8::from(kept));
        }
        LabelMap::U16(labels) => {
            Zip::from(labels).and(mask).par_for_each(|l, &kept| *l *= u16::from(kept));
        }
    }
}

/// The mask grown by so many steps between voxels that share a face: along each axis the distance is
/// passed on forward and backward, which sums the steps of all axes.
fn near(mask: &Array3<bool>, steps: usize) -> Array3<bool> {
    let far = u16::MAX / 2;
    let mut distance = mask.mapv(|inside| if inside { 0 } else { far });
    for axis in 0..3 {
        distance.lanes_mut(Axis(axis)).into_iter().for_each(|mut lane| {
            for k in 1..lane.len() {
                lane[k] = lane[k].min(lane[k - 1] + 1);
            }
            for k in (1..lane.len()).rev() {
                lane[k - 1] = lane[k - 1].min(lane[k] + 1);
            }
        });
    }
    distance.mapv(|distance| usize::from(distance) <= steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_between_faces_are_summed() {
        let mut mask = Array3::from_elem((5, 5, 5), false);
        mask[[2, 2, 2]] = true;
        let grown = near(&mask, 2);
        for (at, &inside) in grown.indexed_iter() {
            let steps = at.0.abs_diff(2) + at.1.abs_diff(2) + at.2.abs_diff(2);
            assert_eq!(inside, steps <= 2, "{at:?}");
        }
    }

    #[test]
    fn the_box_is_half_open_and_clipped() {
        let mut labels = Array3::<u8>::zeros((4, 5, 6));
        labels[[1, 2, 3]] = 7;
        labels[[2, 4, 0]] = 9;
        labels[[0, 0, 0]] = 1;
        let bounds = |ids: &[u8]| crop::box_where(labels.view(), |l| ids.contains(&l));
        assert_eq!(bounds(&[7, 9]), Some([1..3, 2..5, 0..4]));
        assert_eq!(bounds(&[5]), None);
    }
}
