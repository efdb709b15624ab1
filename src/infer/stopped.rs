//! What becomes of a device that stops: an error, for a host process must survive us.

use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Turns a panic inside burn or cubecl into an error.
pub(super) fn guard<T>(device: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        failed(device, text.unwrap_or("no reason given"))
    })
}

/// The error for what was said: its first line that says something. cubecl adds a backtrace.
pub(super) fn failed(device: &str, said: &str) -> Error {
    const HEADINGS: [&str; 4] =
        ["", "Caused by:", "Several failures at once", "An error caused the compilation to fail"];
    let telling = |line: &&str| {
        let opens = line.starts_with('A') && line.contains(" error happened");
        !opens && !HEADINGS.contains(line)
    };
    let said = said.lines().map(str::trim).find(telling);
    Error::Device {
        device: device.to_owned(),
        reason: format!("it stopped: {}", said.unwrap_or("no reason given")),
    }
}

#[cfg(test)]
mod tests {
    use super::failed;

    #[test]
    fn the_reason_is_the_first_line_that_gives_one() {
        for (said, reason) in [
            ("out of memory\n   0: backtrace", "out of memory"),
            ("An error happened during execution\nCaused by:\n  too large\n", "too large"),
            ("An error happened during execution\n", "no reason given"),
            (
                "Several failures at once\nCaused by:\n  A launch error happened\n  refused",
                "refused",
            ),
            ("A validation error happened during execution\nCaused by:\n too many", "too many"),
            ("", "no reason given"),
        ] {
            let text = failed("vulkan:0", said).to_string();
            assert!(text.ends_with(&format!("it stopped: {reason}")), "{text}");
        }
    }
}
