//! Ctrl-C and SIGTERM: the first asks the run to stop between tiles and waits a moment for it, whatever
//! it is doing; a second does not wait.

use super::report;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);

/// What is said on standard output if the run ends before it could say so itself.
static SAID_LAST: Mutex<Option<Last>> = Mutex::new(None);

/// Puts a text together, once somebody wants it.
type Last = Box<dyn Fn() -> String + Send>;

/// How long a tile, a file being opened or one being written may take to notice.
const GRACE: Duration = Duration::from_millis(300);

/// The code that shells know for it.
const CODE: i32 = 130;

/// Listens from now on. Where the system refuses a handler, its default stays in force.
pub(crate) fn listen() {
    // The handler runs in a thread of its own, where waiting and locking are no matter.
    let _ = ctrlc::set_handler(|| {
        if !ASKED.swap(true, Ordering::Relaxed) {
            thread::sleep(GRACE);
        }
        fastnnunet::discard_unfinished();
        if let Ok(last) = SAID_LAST.try_lock()
            && let Some(text) = &*last
        {
            let _ = report::say(&text());
        }
        report::tell("error: interrupted");
        process::exit(CODE);
    });
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What is to be said should the run end at any moment from now on.
pub(crate) fn say_last(text: Option<Last>) {
    if let Ok(mut last) = SAID_LAST.lock() {
        *last = text;
    }
}
