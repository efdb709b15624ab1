//! How far a run is, and how long each stage took.

use super::{Memory, OnProgress};
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A step of the run that takes noticeable time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Read the file.
    Load,
    /// Bring to the network's axes and find the nonzero box.
    Crop,
    /// Intensities to the network's range.
    Normalize,
    /// Image to the network's spacing.
    Resample,
    /// Run the network on every tile and stitch.
    Infer,
    /// Logits back to the image's grid, decided voxel by voxel.
    Label,
    /// Clean the label map up.
    Postprocess,
    /// Write the file.
    Save,
}

impl Stage {
    /// Short name for people and for JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Crop => "crop",
            Self::Normalize => "normalize",
            Self::Resample => "resample",
            Self::Infer => "infer",
            Self::Label => "label",
            Self::Postprocess => "postprocess",
            Self::Save => "save",
        }
    }
}

/// One report to the caller: `done` of `total` units of `stage` are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage at work.
    pub stage: Stage,
    /// Units finished: tiles while inferring.
    pub done: usize,
    /// Units in all.
    pub total: usize,
    /// What the run is expected to hold, once that is known.
    pub memory: Option<Memory>,
}

/// Wall time per stage, in the order the stages ran.
pub type Timings = Vec<(Stage, Duration)>;

/// Reports progress and measures stages.
pub(crate) struct Clock<'a> {
    report: &'a mut OnProgress<'a>,
    now: Option<(Progress, Instant)>,
    /// Part of the running stage's time that belongs to another stage.
    aside: Vec<(Stage, Duration)>,
    timings: Timings,
    memory: Memory,
}

impl<'a> Clock<'a> {
    /// Starts with the stages that are `past`.
    pub(crate) fn new(
        report: &'a mut OnProgress<'a>,
        past: (Stage, Duration),
        memory: Memory,
    ) -> Self {
        Self { report, now: None, aside: Vec::new(), timings: vec![past], memory }
    }

    /// Ends the running stage and begins `stage` of `total` units.
    pub(crate) fn start(&mut self, stage: Stage, total: usize) -> Result<()> {
        self.stop();
        self.now =
            Some((Progress { stage, done: 0, total, memory: Some(self.memory) }, Instant::now()));
        self.tell()
    }

    /// One more unit of the running stage is done.
    pub(crate) fn advance(&mut self) -> Result<()> {
        if let Some((progress, _)) = &mut self.now {
            progress.done += 1;
        }
        self.tell()
    }

    /// Does a piece of another stage's work while the running one waits.
    pub(crate) fn aside<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let result = work();
        match self.aside.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, time)) => *time += since.elapsed(),
            None => self.aside.push((stage, since.elapsed())),
        }
        result
    }

    pub(crate) fn finish(mut self) -> Timings {
        self.stop();
        self.timings
    }

    fn stop(&mut self) {
        if let Some((progress, since)) = self.now.take() {
            let elsewhere: Duration = self.aside.iter().map(|(_, time)| *time).sum();
            self.timings.push((progress.stage, since.elapsed().saturating_sub(elsewhere)));
            self.timings.append(&mut self.aside);
        }
    }

    fn tell(&mut self) -> Result<()> {
        let Some((progress, _)) = self.now else { return Ok(()) };
        match (self.report)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}
