//! What became of the cases of a run, told at its end.

use crate::cli::args::PredictArgs;
use crate::cli::{interrupt, report};
use fastnnunet::{Error, Result};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What became of the cases of a batch.
#[derive(Default)]
pub(crate) struct Tally {
    todo: usize,
    begun: usize,
    well: usize,
    /// Cases that could not be done, with their exit codes.
    failed: Vec<(String, u8)>,
    interrupted: bool,
    /// Shared with whoever ends an interrupted run.
    told: Arc<Mutex<Told>>,
}

/// What is told of the cases in JSON.
#[derive(Default)]
struct Told {
    cases: Vec<Value>,
    failed: Vec<Value>,
    skipped: Vec<Value>,
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(told: &Mutex<Told>) -> String {
    let Told { cases, failed, skipped } = &*lock(told);
    format!("{}\n", json!({"cases": cases, "failed": failed, "skipped": skipped}))
}

impl Tally {
    /// Of so many cases. Where they are told in JSON, those that are over are told even if the run ends
    /// at any moment.
    pub(crate) fn new(todo: usize, args: &PredictArgs) -> Self {
        let tally = Self { todo, ..Self::default() };
        if args.json {
            let told = Arc::clone(&tally.told);
            interrupt::say_last(Some(Box::new(move || line(&told))));
        }
        tally
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// One more case is begun; says which of how many.
    pub(crate) fn begin(&mut self) -> String {
        self.begun += 1;
        format!("[{}/{}]", self.begun, self.todo)
    }

    /// A case that is done, with its summary in JSON where that is told.
    pub(crate) fn succeed(&mut self, summary: Option<Value>) {
        self.well += 1;
        self.told().cases.extend(summary);
    }

    pub(crate) fn fail(&mut self, name: &str, error: &Error) {
        let (why, exit_code) = (report::chain(error), report::exit_code(error));
        self.failed.push((name.to_owned(), exit_code));
        let failure = json!({"case": name, "error": why, "exit_code": exit_code});
        self.told().failed.push(failure);
    }

    /// The user stopped the run.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// A case that is done already, and not among those to do.
    pub(crate) fn skip(&mut self, name: &str) {
        self.told().skipped.push(name.into());
    }

    /// A case that was among those to do, and that another run finished.
    pub(crate) fn skip_late(&mut self, name: &str) {
        self.todo -= 1;
        self.begun = self.begun.saturating_sub(1);
        self.skip(name);
    }

    /// Reports, and returns the highest exit code of the cases.
    pub(crate) fn tell(self, args: &PredictArgs) -> Result<u8> {
        if args.json {
            interrupt::say_last(None);
            report::say(&line(&self.told))?;
        }
        let skipped = self.told().skipped.len();
        let Self { todo, well, failed, interrupted, .. } = self;
        if !args.json && !args.quiet {
            let left = todo - well - failed.len();
            let left = if left > 0 { format!(", {left} not begun") } else { String::new() };
            let badly = failed.len();
            report::say(&format!("{well} done, {badly} failed, {skipped} skipped{left}\n"))?;
        }
        if interrupted {
            return Err(Error::Interrupted);
        }
        if !failed.is_empty() {
            let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(", ");
            report::tell(&format!("error: {} of {todo} cases failed: {names}", failed.len()));
        }
        Ok(failed.iter().map(|(_, exit_code)| *exit_code).max().unwrap_or(0))
    }
}
