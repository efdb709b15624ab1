//! Segmenters: opened once, then case after case.

use crate::image::{self, Image};
use crate::labels::SegmentationResult;
use crate::options::{self, Options};
use crate::progress::{Callback, Progress, is_in_callback, stage_name};
use crate::sized::{self, Sized_};
use crate::status::{Status, guard, shielded, usage};
use crate::text;
use fastnnunet::pipeline::Progress as Step;
use fastnnunet::{Case, Error, Scan, Segmentation, Source, model};
use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Networks ready to segment case after case. Any thread may use it; calls that segment with the same
/// one take turns. Several may work at a time, each with threads of its own.
pub struct Segmenter {
    open: Mutex<fastnnunet::Segmenter>,
    channels: usize,
    choice: CString,
    grade: CString,
    labels: Vec<LabelTexts>,
}

/// One structure that a segmenter can find. Texts live as long as the segmenter.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Label {
    /// `sizeof(fnn_label)`.
    pub size: usize,
    /// Its value in label maps; 0 is the background and not listed.
    pub id: u32,
    /// For the fields of versions to come; 0.
    pub reserved: u32,
    /// Its name: TotalSegmentator's where it has one.
    pub name: *const c_char,
    /// `#rrggbb`, or NULL.
    pub color: *const c_char,
    /// SNOMED CT code of what it is, or NULL.
    pub snomed: *const c_char,
    /// What the code means, in the words of DICOM's context groups, or NULL.
    pub meaning: *const c_char,
    /// `left` or `right` where the code does not say it, or NULL.
    pub side: *const c_char,
}

// SAFETY: numbers and pointers, which any bytes are; the first is the size.
unsafe impl Sized_ for Label {
    const NAME: &'static str = "fnn_label";
    const FIRST: usize = size_of::<Self>();
}

/// The texts of a label.
struct LabelTexts {
    id: u16,
    name: CString,
    color: Option<CString>,
    snomed: Option<CString>,
    meaning: Option<CString>,
    side: Option<CString>,
}

impl LabelTexts {
    fn new(label: &model::Label) -> Self {
        Self {
            id: label.id,
            name: text::of(&label.name),
            color: text::of_some(label.color.as_deref()),
            snomed: text::of_some(label.snomed.as_deref()),
            meaning: text::of_some(label.meaning.as_deref()),
            side: label.side.map(|side| match side {
                model::Side::Left => c"left".to_owned(),
                model::Side::Right => c"right".to_owned(),
            }),
        }
    }
}

/// Opens a mode such as `bone` with the best of its models.
///
/// # Safety
///
/// Texts end in a zero byte, `options` is NULL or a struct with its size, and `segmenter` points to a
/// place for a pointer. On success it holds a segmenter that `fnn_segmenter_free` frees, else NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_open_mode(
    mode: *const c_char,
    options: *const Options,
    segmenter: *mut *mut Segmenter,
) -> Status {
    // SAFETY: the caller's promise is the same.
    unsafe {
        open(options, segmenter, || Ok(Source::Mode(text::required(mode, "mode")?.to_owned())))
    }
}

/// Opens a model by its name, as `fastnnunet models` lists it.
///
/// # Safety
///
/// As `fnn_open_mode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_open_model(
    name: *const c_char,
    options: *const Options,
    segmenter: *mut *mut Segmenter,
) -> Status {
    // SAFETY: the caller's promise is the same.
    unsafe {
        open(options, segmenter, || {
            Ok(Source::Model { name: text::required(name, "model")?.to_owned(), config: None })
        })
    }
}

/// Opens a folder that nnU-Net v2 trained: the one with `plans.json`, `dataset.json` and folds.
///
/// # Safety
///
/// As `fnn_open_mode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_open_folder(
    path: *const c_char,
    options: *const Options,
    segmenter: *mut *mut Segmenter,
) -> Status {
    // SAFETY: the caller's promise is the same.
    unsafe {
        open(options, segmenter, || {
            Ok(Source::Folder { path: text::required(path, "folder")?.into(), config: None })
        })
    }
}

/// Opens an ONNX file with its configuration, a JSON file.
///
/// # Safety
///
/// As `fnn_open_mode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_open_onnx(
    onnx: *const c_char,
    config: *const c_char,
    options: *const Options,
    segmenter: *mut *mut Segmenter,
) -> Status {
    // SAFETY: the caller's promise is the same.
    unsafe {
        open(options, segmenter, || {
            Ok(Source::Onnx {
                onnx: text::required(onnx, "onnx")?.into(),
                config: text::required(config, "config")?.into(),
            })
        })
    }
}

/// Opens what `source` says.
///
/// # Safety
///
/// As [`fnn_open_mode`].
unsafe fn open(
    options: *const Options,
    segmenter: *mut *mut Segmenter,
    source: impl FnOnce() -> Result<Source, Error>,
) -> Status {
    guard(|| {
        // SAFETY: a place for a pointer by the caller's promise.
        let place = unsafe { emptied(segmenter, "segmenter") }?;
        check_process()?;
        // SAFETY: the caller's promise is the same.
        let options = unsafe { options::read(options) }?;
        let open = fastnnunet::Segmenter::open_with(source()?, options)?;
        let labels = open.structures().iter().map(LabelTexts::new).collect();
        *place = Box::into_raw(Box::new(Segmenter {
            channels: open.images(),
            choice: text::of(&open.about().choice),
            grade: text::of(&open.about().grade.to_string()),
            labels,
            open: Mutex::new(open),
        }));
        Ok(())
    })
}

/// The place where a handle will be, with NULL in it until there is one.
///
/// # Safety
///
/// `place` is NULL or can be written.
unsafe fn emptied<'a, T>(place: *mut *mut T, what: &str) -> Result<&'a mut *mut T, Error> {
    if place.is_null() {
        return Err(usage(what, "NULL", "a place for a pointer"));
    }
    // SAFETY: not NULL, and can be written by the caller's promise; what is there, it may not read.
    unsafe {
        place.write(std::ptr::null_mut());
        Ok(&mut *place)
    }
}

/// Frees a segmenter that no call uses any more. Results stay. NULL is allowed.
///
/// # Safety
///
/// `segmenter` is NULL or came from a function that opens, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_free(segmenter: *mut Segmenter) {
    shielded((), || {
        if !segmenter.is_null() {
            // SAFETY: made by `Box::into_raw` in `open`, and given back once by the caller's promise.
            drop(unsafe { Box::from_raw(segmenter) });
        }
    });
}

/// Images per case; 0 for NULL.
///
/// # Safety
///
/// `segmenter` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_channels(segmenter: *const Segmenter) -> usize {
    // SAFETY: NULL or open by the caller's promise.
    shielded(0, || unsafe { segmenter.as_ref() }.map_or(0, |open| open.channels))
}

/// One sentence: which models answer, and why these; empty where they were asked for by name.
///
/// # Safety
///
/// `segmenter` is NULL or open; the text lives as long as it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_choice(segmenter: *const Segmenter) -> *const c_char {
    // SAFETY: NULL or open by the caller's promise.
    let open = unsafe { segmenter.as_ref() };
    shielded(c"".as_ptr(), || open.map_or(c"".as_ptr(), |open| open.choice.as_ptr()))
}

/// How much the least trusted of the models may be trusted: `demo`, `starter`, `external`, ... as
/// docs/models.md explains.
///
/// # Safety
///
/// As `fnn_segmenter_choice`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_grade(segmenter: *const Segmenter) -> *const c_char {
    // SAFETY: NULL or open by the caller's promise.
    let open = unsafe { segmenter.as_ref() };
    shielded(c"".as_ptr(), || open.map_or(c"".as_ptr(), |open| open.grade.as_ptr()))
}

/// How many structures the segmenter can find; 0 for NULL.
///
/// # Safety
///
/// `segmenter` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_label_count(segmenter: *const Segmenter) -> usize {
    // SAFETY: NULL or open by the caller's promise.
    shielded(0, || unsafe { segmenter.as_ref() }.map_or(0, |open| open.labels.len()))
}

/// Fills `label` with the structure of that index, in ascending id.
///
/// # Safety
///
/// `segmenter` is NULL or open, and `label` a struct with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segmenter_label(
    segmenter: *const Segmenter,
    index: usize,
    label: *mut Label,
) -> Status {
    guard(|| {
        // SAFETY: NULL or open by the caller's promise.
        let open = unsafe { opened(segmenter) }?;
        let found = open.labels.get(index).ok_or_else(|| no_such(index, open.labels.len()))?;
        let value = Label {
            size: size_of::<Label>(),
            id: found.id.into(),
            reserved: 0,
            name: found.name.as_ptr(),
            color: text::pointer(found.color.as_ref()),
            snomed: text::pointer(found.snomed.as_ref()),
            meaning: text::pointer(found.meaning.as_ref()),
            side: text::pointer(found.side.as_ref()),
        };
        // SAFETY: a struct with its size by the caller's promise.
        unsafe { sized::write(label, &value) }
    })
}

/// An index past the end of a list.
pub(crate) fn no_such(index: usize, count: usize) -> Error {
    usage("index", index.to_string(), format!("less than {count}"))
}

/// The segmenter behind a handle.
///
/// # Safety
///
/// `segmenter` is NULL or open while the result is used.
unsafe fn opened<'a>(segmenter: *const Segmenter) -> Result<&'a Segmenter, Error> {
    // SAFETY: the caller's promise is the same.
    unsafe { segmenter.as_ref() }.ok_or_else(|| usage("segmenter", "NULL", "an open one"))
}

/// Segments a case whose `count` images, one for each channel of the model, are in the caller's memory.
/// `progress` may be NULL; `user` is handed to it. On success `result` holds what `fnn_result_free`
/// frees, else NULL.
///
/// # Safety
///
/// `segmenter` is NULL or open; `images` points to `count` structs as their fields say, whose voxels
/// stay as they are until the call ends; `result` points to a place for a pointer; and `progress` may
/// be called with `user` from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segment_images(
    segmenter: *mut Segmenter,
    images: *const Image,
    count: usize,
    progress: Progress,
    user: *mut c_void,
    result: *mut *mut SegmentationResult,
) -> Status {
    let callback = Callback { progress, user };
    guard(|| {
        // SAFETY: a place for a pointer by the caller's promise.
        let place = unsafe { emptied(result, "result") }?;
        // SAFETY: NULL or open by the caller's promise.
        let open = unsafe { opened(segmenter) }?;
        let mut turn = open.turn()?;
        // SAFETY: the images are as their fields say by the caller's promise.
        let case = Case::lent(unsafe { image::lent(images, count) }?)?;
        let done = run(&mut turn, case, &callback)?;
        // Others need not wait while what was found is counted.
        drop(turn);
        *place = SegmentationResult::handle(done, &[]);
        Ok(())
    })
}

/// As `fnn_segment_images`, of images in files: NIfTI, or DICOM files, folders or zips with one CT
/// series in them.
///
/// # Safety
///
/// As `fnn_segment_images`, with `paths` pointing to `count` texts that end in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_segment_files(
    segmenter: *mut Segmenter,
    paths: *const *const c_char,
    count: usize,
    progress: Progress,
    user: *mut c_void,
    result: *mut *mut SegmentationResult,
) -> Status {
    let callback = Callback { progress, user };
    guard(|| {
        // SAFETY: a place for a pointer by the caller's promise.
        let place = unsafe { emptied(result, "result") }?;
        // SAFETY: NULL or open by the caller's promise.
        let open = unsafe { opened(segmenter) }?;
        // SAFETY: as many texts by the caller's promise.
        let names = unsafe { text::list(paths, count, "paths") }?;
        let mut turn = open.turn()?;
        let mut scans = Vec::with_capacity(names.len());
        for (channel, name) in names.iter().enumerate() {
            if callback.tell(c"load", channel as u64, names.len() as u64).is_break() {
                return Err(Error::Interrupted);
            }
            let mut rules = turn.read_options();
            rules.expects_ct = turn.expects_ct(channel);
            scans.push(Scan::open_with(Path::new(name), &rules)?);
        }
        let case = Case::from(scans);
        let names: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        let warnings = case.warnings(&names);
        let done = run(&mut turn, case, &callback)?;
        drop(turn);
        *place = SegmentationResult::handle(done, &warnings);
        Ok(())
    })
}

/// Runs a case.
fn run(
    segmenter: &mut fastnnunet::Segmenter,
    case: Case<'_>,
    callback: &Callback,
) -> Result<Segmentation, Error> {
    let tell = &mut |step: Step| {
        callback.tell(stage_name(step.stage), step.done as u64, step.total as u64)
    };
    segmenter.segment_with(case, 0, tell)
}

impl Segmenter {
    /// The segmenter for one case, once those before it are done.
    fn turn(&self) -> Result<MutexGuard<'_, fastnnunet::Segmenter>, Error> {
        check_process()?;
        if is_in_callback() {
            return Err(usage("segmenter", "a call from a progress callback", "one outside of it"));
        }
        // What a panic left half done is not used again.
        self.open.lock().map_err(|_| {
            usage("segmenter", "one that ended in an internal fault", "a newly opened one")
        })
    }
}

/// Fails in a copy of a process that had segmented.
fn check_process() -> Result<(), Error> {
    if !fastnnunet::segmenter::is_forked() {
        return Ok(());
    }
    Err(usage(
        "process",
        "a fork of one that had opened a segmenter",
        "one that was started anew, or forked before",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared<T: Send + Sync>() {}

    #[test]
    fn handles_may_go_from_thread_to_thread() {
        shared::<Segmenter>();
        shared::<SegmentationResult>();
    }

    #[test]
    fn a_segmenter_that_failed_inside_is_not_used_again() {
        let open = fastnnunet::Segmenter::open_with(
            Source::Model { name: "selftest".to_owned(), config: None },
            fastnnunet::Options::default(),
        );
        let segmenter = Segmenter {
            open: Mutex::new(open.expect("built in")),
            channels: 1,
            choice: CString::default(),
            grade: CString::default(),
            labels: Vec::new(),
        };
        let fails = || {
            let _turn = segmenter.turn().expect("the first");
            panic!("in the middle of a case");
        };
        std::thread::scope(|scope| scope.spawn(fails).join().expect_err("a panic"));
        let error = segmenter.turn().err().expect("half done").to_string();
        assert!(error.contains("a newly opened one"), "{error}");
    }
}
