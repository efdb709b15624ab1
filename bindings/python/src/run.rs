//! A long piece of work beside the interpreter, which stays free and listens for signals.

use crate::errors::{fault, raised, usage};
use fastnnunet::Error;
use fastnnunet::pipeline::{OnProgress, Progress};
use pyo3::prelude::*;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a signal may wait: nobody who pressed Ctrl-C notices, and nothing else is slowed down.
const LISTEN: Duration = Duration::from_millis(50);

thread_local! {
    static IS_IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` in a thread of its own, without the interpreter's lock. The calling thread waits for it,
/// and lets Python handle its signals meanwhile, which only the main thread can: an exception of a
/// handler, such as `KeyboardInterrupt`, stops the work at its next step and is raised. So does one of
/// `progress`, or `False` from it. A panic is raised as an error.
pub(crate) fn beside<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut OnProgress<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    if IS_IN_CALLBACK.get() {
        // It would wait for the case that waits for it.
        let error = usage("segmenter", "a call from a progress callback", "one outside of it");
        return Err(raised(py, &error));
    }
    let (stops, exception) = (AtomicBool::new(false), Mutex::new(None));
    let stop_for = |error: PyErr| {
        exception.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        stops.store(true, Ordering::Relaxed);
    };
    let mut tell = |step: Progress| {
        if let Some(progress) = &progress {
            match Python::attach(|py| called(progress.bind(py), step)) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Break(()),
                Err(error) => stop_for(error),
            }
        }
        if stops.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let result = py.detach(|| {
        thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            let worker = scope.spawn(move || {
                // Dropped at the end of the work, also at that of a panic.
                let _done = done;
                work(&mut tell)
            });
            while waiting.recv_timeout(LISTEN) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = signals() {
                    stop_for(error);
                }
            }
            worker.join()
        })
    });
    let exception = exception.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (result, exception) {
        (_, Some(exception)) => Err(exception),
        (Ok(result), None) => result.map_err(|error| raised(py, &error)),
        (Err(panic), None) => Err(fault(py, &*panic)),
    }
}

/// Lets Python handle the signals that came, if this is its main thread.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method has one lifetime only")]
fn signals() -> PyResult<()> {
    Python::attach(|py| py.check_signals())
}

/// What the caller's function says to a step; `None`, which functions without a `return` give, goes on.
fn called(progress: &Bound<'_, PyAny>, step: Progress) -> PyResult<bool> {
    IS_IN_CALLBACK.set(true);
    let answer = progress.call1((step.stage.name(), step.done, step.total));
    IS_IN_CALLBACK.set(false);
    let answer = answer?;
    Ok(answer.is_none() || answer.is_truthy()?)
}
