//! Ctrl-C, SIGTERM and SIGHUP: the first asks the run to stop between tiles and waits a moment for it,
//! whatever it is doing.

use super::report;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);

/// The code that shells know for what asked: 128 and the number of the signal.
static CODE: AtomicU8 = AtomicU8::new(INTERRUPTED);

/// That of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What is said on standard output if the run ends before it could say so itself.
static SAID_LAST: Mutex<Option<Last>> = Mutex::new(None);

/// Puts a text together, once somebody wants it.
type Last = Box<dyn Fn() -> String + Send>;

/// How long a tile, a file being opened or one being written may take to notice.
const GRACE: Duration = Duration::from_millis(300);

/// Listens from now on, in a thread of its own, where waiting and locking are no matter. Called before
/// any other thread is started. Where the system refuses, its defaults stay in force.
#[cfg(unix)]
pub(crate) fn listen() {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    // Who has it ignored wants the run to outlive the terminal. Of SIGINT that says nothing: shells have
    // all jobs ignore it that a script starts with `&`, and `kill -INT` still has to end those.
    if !is_in(ignored(), Signal::SIGHUP as u32) {
        signals.add(Signal::SIGHUP);
    }
    // Blocked in this thread and those it starts, they wait for the one that asks for them.
    if signals.thread_block().is_err() {
        return;
    }
    let wait = move || {
        loop {
            // Anything else than a signal of the set is an interrupted call.
            if let Ok(signal) = signals.wait() {
                end(128 + signal as u8);
            }
        }
    };
    if thread::Builder::new().spawn(wait).is_err() {
        let _ = signals.thread_unblock();
    }
}

/// The signals that whoever started the program has it ignore, as `nohup` does with SIGHUP: a bit each,
/// where the system tells.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether the signal of that number has its bit in a mask.
#[cfg(unix)]
fn is_in(mask: u64, signal: u32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

/// Listens from now on. Where the system refuses a handler, its default stays in force.
#[cfg(not(unix))]
pub(crate) fn listen() {
    // The handler runs in a thread of its own.
    let _ = ctrlc::set_handler(|| end(INTERRUPTED));
}

/// Asks the run to stop, waits for it, and ends the program if it is still there.
fn end(code: u8) {
    CODE.store(code, Ordering::Relaxed);
    if !ASKED.swap(true, Ordering::Release) {
        thread::sleep(GRACE);
    }
    fastnnunet::discard_unfinished();
    if let Ok(last) = SAID_LAST.try_lock()
        && let Some(text) = &*last
    {
        let _ = report::say(&text());
    }
    report::tell("error: interrupted");
    process::exit(i32::from(code));
}

/// Whether the user or the system asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Acquire)
}

/// The exit code of a run that was asked to stop.
pub(crate) fn code() -> u8 {
    CODE.load(Ordering::Relaxed)
}

/// What is to be said should the run end at any moment from now on.
pub(crate) fn say_last(text: Option<Last>) {
    if let Ok(mut last) = SAID_LAST.lock() {
        *last = text;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::is_in;

    #[test]
    fn a_mask_has_a_bit_for_each_signal() {
        // As `nohup` leaves it: SIGHUP, which is the first.
        assert!(is_in(0x1, 1) && !is_in(0x1, 2) && !is_in(0x1, 15));
        assert!(is_in(0x4000, 15) && !is_in(0x4000, 1));
    }
}
