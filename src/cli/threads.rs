//! The threads that all commands work with: as many as were asked for, as are of use and as can be
//! started.

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;

/// Most threads per core: more take memory and give nothing.
const PER_CORE: usize = 2;

/// Whether everything happens in the thread that the program began with.
static ALONE: OnceLock<()> = OnceLock::new();

/// Starts them. A limit on processes or memory makes them fewer; where none can be started, this one
/// does everything.
pub(crate) fn start(asked: Option<u16>) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let wanted = asked.map_or(cores, |asked| usize::from(asked).min(PER_CORE * cores));
    // Started before they belong to a pool: one that lacks a thread cannot be made again.
    let mut started: Vec<_> = (0..wanted).map_while(|_| waiting()).collect();
    let pool = ThreadPoolBuilder::new();
    let made = if started.is_empty() {
        let _ = ALONE.set(());
        pool.num_threads(1).use_current_thread().build_global()
    } else {
        let count = started.len();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let hand_over = |work: ThreadBuilder| {
            started.pop().and_then(|thread| thread.send(work).ok()).ok_or_else(gone)
        };
        pool.num_threads(count).spawn_handler(hand_over).build_global()
    };
    // There is a pool already only where this is called twice.
    let _ = made;
}

/// A thread that waits for its work; `None` where no more can be started.
fn waiting() -> Option<Sender<ThreadBuilder>> {
    let (send, receive) = mpsc::channel::<ThreadBuilder>();
    let run = move || {
        if let Ok(work) = receive.recv() {
            work.run();
        }
    };
    thread::Builder::new().spawn(run).ok().map(|_| send)
}

/// Whether everything happens in one thread.
pub(crate) fn is_alone() -> bool {
    ALONE.get().is_some()
}
