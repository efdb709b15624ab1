//! One case through open networks: in order, merged, cleaned up.

use super::answer::{Answer, Sides};
use super::group::{Log, merged};
use super::segmentation::NetworkRun;
use crate::model::Label;
use crate::pipeline::postprocess::{Map, PatientAxes, Recipe, Report, StepReport, cortical, sides};
use crate::pipeline::{Input, OnProgress, Probabilities, Settings, Stage, Timings, base_bytes};
use crate::registry::{LabelSubset, merge_labels};
use crate::volume::{Grid, LabelMap, VoxelView};
use crate::{Error, Result};
use std::time::Instant;

/// A finished case, before it is said who answered.
pub(super) struct Done {
    pub(super) labels: LabelMap,
    pub(super) runs: Vec<NetworkRun>,
    pub(super) report: Report,
    pub(super) probabilities: Option<Probabilities>,
    pub(super) timings: Timings,
}

impl Answer {
    /// Bytes that the networks hold, all of which stay open, once they have run.
    pub(super) fn memory_bytes(&self, threads: usize) -> u64 {
        self.networks().map(|network| network.memory_bytes(threads)).sum()
    }

    /// Runs the networks on a case, whose images the last one takes, and finishes its labels.
    ///
    /// The images are still there if the case does not fit.
    pub(super) fn segment(
        &mut self,
        input: &mut Option<Input<'_>>,
        settings: &Settings,
        progress: &mut OnProgress<'_>,
    ) -> Result<Done> {
        let mut log = Log::new(progress);
        let labels = self.finished(input, settings, &mut log)?;
        let Log { runs, report, timings: besides, probabilities, .. } = log;
        let mut timings = Timings::new();
        let of_runs = runs.iter().flat_map(|run| &run.timings);
        of_runs.chain(&besides).for_each(|(stage, time)| add_time(&mut timings, *stage, *time));
        Ok(Done { labels, runs, report, probabilities, timings })
    }

    /// The labels of a case that others need, too.
    pub(super) fn labels_of(
        &mut self,
        input: &Input<'_>,
        settings: &Settings,
        log: &mut Log<'_, '_>,
    ) -> Result<LabelMap> {
        self.finished(&mut Some(input.borrowed()), settings, log)
    }

    fn finished(
        &mut self,
        input: &mut Option<Input<'_>>,
        settings: &Settings,
        log: &mut Log<'_, '_>,
    ) -> Result<LabelMap> {
        let Some(images) = input.as_ref() else { unreachable!("taken by the last network only") };
        let grid = images.grid.clone();
        let threads = rayon::current_num_threads();
        let networks = self.memory_bytes(threads);
        self.check_finish(images, settings, networks)?;
        let last = self.groups.len() - 1;
        let mut labels = None::<LabelMap>;
        for (k, group) in self.groups.iter_mut().enumerate() {
            let own = group.memory_bytes(threads);
            let held = labels.as_ref().map_or(0, LabelMap::bytes) + networks - own;
            let settings = settings.holding(held);
            // The division of bone looks at the image once more.
            let gives_up = k == last && self.divided.is_none();
            let found = match (&group.around, input.as_ref()) {
                (Some(_), Some(images)) => group.segment_around(images, &settings, log)?,
                (None, _) if gives_up => merged(&mut group.parts, input, &settings, log)?,
                (_, images) => {
                    let mut lent = images.map(Input::borrowed);
                    merged(&mut group.parts, &mut lent, &settings, log)?
                }
            };
            add_labels(&mut labels, found);
        }
        let Some(mut labels) = labels else { unreachable!("an answer has at least one network") };

        let started = Instant::now();
        log.report.steps.extend(self.tell_sides(&mut labels, &grid));
        let report = self.finish(&mut labels, &grid)?;
        log.report.steps.extend(report.steps);
        if let (Some(parts), Some(images)) = (&self.divided, input.as_ref()) {
            divide_bone(images.channels[0].view(), &mut labels, &grid, &self.labels, parts);
        }
        add_time(&mut log.timings, Stage::Postprocess, started.elapsed());
        Ok(labels)
    }

    /// Gives what models label without a side the side it lies on.
    fn tell_sides(&self, labels: &mut LabelMap, grid: &Grid) -> Option<StepReport> {
        let Sides { halves, known } = &self.sides;
        if halves.is_empty() {
            return None;
        }
        let axes = PatientAxes::new(grid);
        let told = match labels {
            LabelMap::U8(labels) => {
                let mut map = Map::new(labels.view_mut(), grid.spacing);
                sides::tell_apart(&mut map, halves, known, &axes)
            }
            LabelMap::U16(labels) => {
                let mut map = Map::new(labels.view_mut(), grid.spacing);
                sides::tell_apart(&mut map, halves, known, &axes)
            }
        };
        let skipped = told.is_none().then(|| "nothing in the image tells sides apart".to_owned());
        Some(StepReport { step: "sides".into(), voxels_changed: told.unwrap_or(0), skipped })
    }

    /// The recipe, and then only the structures that were asked for.
    fn finish(&self, labels: &mut LabelMap, grid: &Grid) -> Result<Report> {
        let report = if self.recipe == Recipe::default() {
            Report::default()
        } else {
            self.recipe.apply(labels, grid, &self.seen())?
        };
        if !self.context.is_empty() {
            let all = self.labels.iter().chain(&self.context).map(|label| label.id).max();
            LabelSubset::by_ids(1..=all.unwrap_or(0)).keeping(&self.labels).apply(labels);
        }
        Ok(report)
    }

    /// Fails if the division of bone would hold more than allowed: the networks, the image, its
    /// labels, and what it works with.
    fn check_finish(&self, images: &Input<'_>, settings: &Settings, networks: u64) -> Result<()> {
        let (Some(limit_bytes), Some(_)) = (settings.memory_limit_bytes, &self.divided) else {
            return Ok(());
        };
        let (shape, spacing) = (images.grid.shape, images.grid.spacing);
        let voxels: u64 = shape.iter().map(|&n| n as u64).product();
        let is_wide = self.labels.iter().any(|label| label.id >= u16::from(u8::MAX));
        let labels = voxels * if is_wide { 2 } else { 1 };
        let split = cortical::split_bytes(shape, spacing, rayon::current_num_threads());
        let images = images.image_bytes();
        let need_bytes =
            base_bytes(images) + networks + settings.held_bytes + images + labels + split;
        if need_bytes > limit_bytes {
            let what = "the division of bone".to_owned();
            return Err(Error::Memory { what, need_bytes, limit_bytes });
        }
        Ok(())
    }
}

/// Puts labels over those that are there.
pub(super) fn add_labels(labels: &mut Option<LabelMap>, found: LabelMap) {
    match labels {
        None => *labels = Some(found),
        Some(labels) => merge_labels(labels, &found),
    }
}

pub(super) fn add_time(timings: &mut Timings, stage: Stage, time: std::time::Duration) {
    match timings.iter_mut().find(|(known, _)| *known == stage) {
        Some((_, sum)) => *sum += time,
        None => timings.push((stage, time)),
    }
}

/// Gives every bone the labels of its cortical and trabecular parts.
fn divide_bone(
    ct: VoxelView<'_>,
    labels: &mut LabelMap,
    grid: &Grid,
    whole: &[Label],
    parts: &[Label],
) {
    let id = |word: &str| parts.iter().find(|label| label.name.starts_with(word)).map(|l| l.id);
    let (Some(cortical), Some(trabecular)) = (id("cortical"), id("trabecular")) else { return };
    if let LabelMap::U8(narrow) = labels
        && cortical.max(trabecular) > u16::from(u8::MAX)
    {
        *labels = LabelMap::U16(narrow.mapv(u16::from));
    }
    let bones: Vec<cortical::Bone> = whole
        .iter()
        .map(|label| cortical::Bone { label: label.id, cortical, trabecular })
        .collect();
    match labels {
        LabelMap::U8(labels) => {
            let mut map = Map::new(labels.view_mut(), grid.spacing);
            cortical::split(ct, &mut map, &bones);
        }
        LabelMap::U16(labels) => {
            let mut map = Map::new(labels.view_mut(), grid.spacing);
            cortical::split(ct, &mut map, &bones);
        }
    }
}
