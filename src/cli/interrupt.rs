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
static SAID_LAST: Mutex<String> = Mutex::new(String::new());

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
        if let Ok(text) = SAID_LAST.try_lock() {
            let _ = report::say(&text);
        }
        report::tell("error: interrupted");
        process::exit(CODE);
    });
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What is known so far, should the run end now.
pub(crate) fn say_last(text: String) {
    if let Ok(mut last) = SAID_LAST.lock() {
        *last = text;
    }
}
