//! How far a run is, told to a function of the caller's.

use fastnnunet::pipeline::Stage;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::ops::ControlFlow;

/// What is called while a case runs: `done` of `total` units of a stage (`load`, `crop`, `normalize`,
/// `resample`, `infer`, `label`, `postprocess`) are finished. Returning anything but 0 stops the run,
/// which then ends with `FNN_STATUS_INTERRUPTED`.
///
/// It is called by one thread at a time, often not by the one that waits for the result. It must not
/// throw or jump out, free the segmenter, or segment: that is refused with `FNN_STATUS_USAGE`.
pub type Progress = Option<
    unsafe extern "C" fn(user: *mut c_void, stage: *const c_char, done: u64, total: u64) -> i32,
>;

/// Whether this thread is in a callback: a call that segments would wait for itself.
pub(crate) fn is_in_callback() -> bool {
    IS_IN_CALLBACK.get()
}

thread_local! {
    static IS_IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// A caller's function and what it is called with.
pub(crate) struct Callback {
    pub(crate) progress: Progress,
    pub(crate) user: *mut c_void,
}

// SAFETY: that the function may be called with `user` from any thread, one at a time, is part of the
// contract of those who take one, and nothing else is done with `user`.
unsafe impl Sync for Callback {}

impl Callback {
    /// Calls it; none goes on.
    pub(crate) fn tell(&self, stage: &CStr, done: u64, total: u64) -> ControlFlow<()> {
        let Some(progress) = self.progress else { return ControlFlow::Continue(()) };
        IS_IN_CALLBACK.set(true);
        // SAFETY: the caller's function, with what it wants to be called with.
        let answer = unsafe { progress(self.user, stage.as_ptr(), done, total) };
        IS_IN_CALLBACK.set(false);
        if answer == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The name of a stage for C.
pub(crate) fn stage_name(stage: Stage) -> &'static CStr {
    match stage {
        Stage::Load => c"load",
        Stage::Crop => c"crop",
        Stage::Normalize => c"normalize",
        Stage::Resample => c"resample",
        Stage::Infer => c"infer",
        Stage::Label => c"label",
        Stage::Postprocess => c"postprocess",
        Stage::Save => c"save",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_the_library_s_names() {
        let all = [
            Stage::Load,
            Stage::Crop,
            Stage::Normalize,
            Stage::Resample,
            Stage::Infer,
            Stage::Label,
            Stage::Postprocess,
            Stage::Save,
        ];
        for stage in all {
            assert_eq!(stage_name(stage).to_str(), Ok(stage.name()));
        }
    }
}
