//! A progress bar on standard error, only when that is a terminal.

use super::report;
use fastnnunet::pipeline::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One line that names the running stage; a bar with time left while tiles run.
pub(crate) struct Bar {
    bar: ProgressBar,
    stage: Option<Stage>,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        // indicatif draws nothing unless standard error is a terminal.
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        Self { bar, stage: None }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        if self.stage != Some(progress.stage) {
            self.stage = Some(progress.stage);
            let template = if progress.total > 1 {
                "{msg:>10} [{wide_bar}] {pos}/{len} tiles, {eta} left"
            } else {
                "{msg:>10} {spinner} {elapsed}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.reset();
            self.bar.set_message(progress.stage.name());
        }
        self.bar.set_length(progress.total as u64);
        self.bar.set_position(progress.done as u64);
        self.bar.tick();
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, line: &str) {
        self.bar.suspend(|| report::tell(line));
    }

    pub(crate) fn note_if(&self, wanted: bool, line: &str) {
        if wanted {
            self.note(line);
        }
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
