//! Finished cases: labels, what they mean, and how they came about.

use crate::image::{Steps, Type};
use crate::progress::stage_name;
use crate::segmenter::no_such;
use crate::sized::{self, Sized_};
use crate::status::{Status, guard, shielded, usage};
use crate::text;
use fastnnunet::volume::LabelMap;
use fastnnunet::{Error, Existing, Segmentation};
use ndarray::Array3;
use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr;

/// The labels of a case with all that is known of them. It never changes: any number of threads may
/// read it. It does not need its segmenter any more.
pub struct SegmentationResult {
    segmentation: Segmentation,
    structures: Vec<Found>,
    warnings: Vec<CString>,
}

/// A structure as C sees it.
struct Found {
    id: u16,
    name: CString,
    voxels: u64,
    ml: f64,
}

/// Where labels lie: on the grid of the case's first image.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Geometry {
    /// `sizeof(fnn_geometry)`.
    pub size: usize,
    /// Voxels along x, y and z.
    pub shape: [usize; 3],
    /// Millimetres per voxel along x, y and z.
    pub spacing: [f64; 3],
    /// As `fnn_image.affine`.
    pub affine: [f64; 12],
}

/// How much of a structure was found. The name lives as long as the result.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Structure {
    /// `sizeof(fnn_structure)`.
    pub size: usize,
    /// Its value in the label map.
    pub id: u32,
    /// For the fields of versions to come; 0.
    pub reserved: u32,
    /// Its name.
    pub name: *const c_char,
    /// Voxels that have it.
    pub voxels: u64,
    /// Their volume in millilitres.
    pub ml: f64,
}

/// How long a stage took.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Timing {
    /// `sizeof(fnn_timing)`.
    pub size: usize,
    /// Its name, as a progress callback is told it. It lives as long as the process.
    pub stage: *const c_char,
    /// Wall time, all networks together.
    pub seconds: f64,
}

// SAFETY: numbers, which any bytes are; the first is the size.
unsafe impl Sized_ for Geometry {
    const NAME: &'static str = "fnn_geometry";
    const FIRST: usize = size_of::<Self>();
}

// SAFETY: numbers and a pointer, which any bytes are; the first is the size.
unsafe impl Sized_ for Structure {
    const NAME: &'static str = "fnn_structure";
    const FIRST: usize = size_of::<Self>();
}

// SAFETY: numbers and a pointer, which any bytes are; the first is the size.
unsafe impl Sized_ for Timing {
    const NAME: &'static str = "fnn_timing";
    const FIRST: usize = size_of::<Self>();
}

impl SegmentationResult {
    /// A handle that `fnn_result_free` frees.
    pub(crate) fn handle(segmentation: Segmentation, warnings: &[String]) -> *mut Self {
        Box::into_raw(Box::new(Self::new(segmentation, warnings)))
    }

    fn new(segmentation: Segmentation, warnings: &[String]) -> Self {
        let found = segmentation.found().into_iter().map(|structure| Found {
            id: structure.id,
            name: text::of(&structure.name),
            voxels: structure.voxels,
            ml: structure.ml,
        });
        Self {
            structures: found.collect(),
            warnings: warnings.iter().map(|text| text::of(text)).collect(),
            segmentation,
        }
    }
}

/// The result behind a handle.
///
/// # Safety
///
/// `result` is NULL or one that is not freed while it is used.
unsafe fn finished<'a>(result: *const SegmentationResult) -> Result<&'a SegmentationResult, Error> {
    // SAFETY: the caller's promise is the same.
    unsafe { result.as_ref() }.ok_or_else(|| usage("result", "NULL", "one of a case"))
}

/// Frees a result that no call uses any more. NULL is allowed.
///
/// # Safety
///
/// `result` is NULL or came from a function that segments, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_free(result: *mut SegmentationResult) {
    shielded((), || {
        if !result.is_null() {
            // SAFETY: made by `Box::into_raw` once, and given back once by the caller's promise.
            drop(unsafe { Box::from_raw(result) });
        }
    });
}

/// Fills `geometry` with shape and place of the labels.
///
/// # Safety
///
/// `result` is NULL or not freed, and `geometry` a struct with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_geometry(
    result: *const SegmentationResult,
    geometry: *mut Geometry,
) -> Status {
    guard(|| {
        // SAFETY: not freed by the caller's promise.
        let grid = unsafe { &finished(result)?.segmentation.grid };
        let ([z, y, x], [sz, sy, sx]) = (grid.shape, grid.spacing);
        let mut affine = [0.0; 12];
        affine.copy_from_slice(grid.affine.0.as_flattened());
        let size = size_of::<Geometry>();
        let value = Geometry { size, shape: [x, y, z], spacing: [sx, sy, sz], affine };
        // SAFETY: a struct with its size by the caller's promise.
        unsafe { sized::write(geometry, &value) }
    })
}

/// The labels where they are: x fastest, then y, without gaps, one byte each (`FNN_TYPE_UINT8`) or two
/// (`FNN_TYPE_UINT16`), as `type` then says. NULL for NULL.
///
/// # Safety
///
/// `result` is NULL or not freed, which the labels live as long as; `type` points to a place for a
/// number or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_labels(
    result: *const SegmentationResult,
    r#type: *mut i32,
) -> *const c_void {
    shielded(ptr::null(), || {
        // SAFETY: not freed by the caller's promise.
        let Some(finished) = (unsafe { result.as_ref() }) else { return ptr::null() };
        let (labels, kind) = match &finished.segmentation.labels {
            LabelMap::U8(labels) => (packed(labels).cast(), Type::Uint8),
            LabelMap::U16(labels) => (packed(labels).cast(), Type::Uint16),
        };
        if !r#type.is_null() {
            // SAFETY: a place for a number by the caller's promise.
            unsafe { r#type.write(kind as i32) };
        }
        labels
    })
}

/// The first label of an array that lies as documented.
fn packed<T>(labels: &Array3<T>) -> *const T {
    assert!(labels.is_standard_layout(), "the pipeline makes label maps [z, y, x]");
    labels.as_ptr()
}

/// Copies the labels to an array of the caller's, whose first voxel is `first`. `type` is
/// `FNN_TYPE_UINT8`, if no structure has an id above 255, or `FNN_TYPE_UINT16`; `strides` are the bytes
/// from a voxel to the next along x, y and z, or NULL for x fastest without gaps.
///
/// # Safety
///
/// `result` is NULL or not freed; `strides` is NULL or points to 3 numbers; all that shape and strides
/// reach from `first` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_copy_labels(
    result: *const SegmentationResult,
    r#type: i32,
    first: *mut c_void,
    strides: *const isize,
) -> Status {
    guard(|| {
        // SAFETY: not freed by the caller's promise.
        let labels = unsafe { &finished(result)?.segmentation.labels };
        let strides = if strides.is_null() {
            [0; 3]
        } else {
            // SAFETY: 3 numbers by the caller's promise.
            unsafe { *strides.cast::<[isize; 3]>() }
        };
        // SAFETY: what they reach can be written by the caller's promise.
        unsafe {
            match (labels, r#type) {
                (LabelMap::U8(from), kind) if kind == Type::Uint8 as i32 => {
                    copy::<u8, u8>(from, first, strides)
                }
                (LabelMap::U8(from), kind) if kind == Type::Uint16 as i32 => {
                    copy::<u8, u16>(from, first, strides)
                }
                (LabelMap::U16(from), kind) if kind == Type::Uint16 as i32 => {
                    copy::<u16, u16>(from, first, strides)
                }
                (LabelMap::U16(_), kind) if kind == Type::Uint8 as i32 => {
                    Err(usage("type", "FNN_TYPE_UINT8 for labels above 255", "FNN_TYPE_UINT16"))
                }
                (_, other) => {
                    Err(usage("type", other.to_string(), "FNN_TYPE_UINT8 or FNN_TYPE_UINT16"))
                }
            }
        }
    })
}

/// Writes labels as numbers of type `U`.
///
/// # Safety
///
/// All that the labels' shape and `strides` reach from `first` can be written.
unsafe fn copy<T: Copy, U: From<T> + Copy>(
    from: &Array3<T>,
    first: *mut c_void,
    strides: [isize; 3],
) -> Result<(), Error> {
    let first = first.cast::<U>();
    if first.is_null() || !first.is_aligned() {
        let found = if first.is_null() { "NULL" } else { "an address that is not aligned" };
        return Err(usage("labels", found, "the first voxel, aligned like its type"));
    }
    let (z, y, x) = from.dim();
    let [sx, sy, sz] = Steps::new([x, y, z], strides, size_of::<U>())?.steps;
    for (z, plane) in from.outer_iter().enumerate() {
        for (y, row) in plane.outer_iter().enumerate() {
            for (x, &label) in row.iter().enumerate() {
                let offset = x as isize * sx + y as isize * sy + z as isize * sz;
                // SAFETY: within reach by the caller's promise; `Steps` has checked that no offset
                // overflows.
                unsafe { first.offset(offset).write(label.into()) };
            }
        }
    }
    Ok(())
}

/// How many structures can occur in the labels, found or not; 0 for NULL.
///
/// # Safety
///
/// `result` is NULL or not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_structure_count(result: *const SegmentationResult) -> usize {
    // SAFETY: not freed by the caller's promise.
    shielded(0, || unsafe { result.as_ref() }.map_or(0, |done| done.structures.len()))
}

/// Fills `structure` with the one of that index, in ascending id.
///
/// # Safety
///
/// `result` is NULL or not freed, and `structure` a struct with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_structure(
    result: *const SegmentationResult,
    index: usize,
    structure: *mut Structure,
) -> Status {
    guard(|| {
        // SAFETY: not freed by the caller's promise.
        let all = unsafe { &finished(result)?.structures };
        let found = all.get(index).ok_or_else(|| no_such(index, all.len()))?;
        let value = Structure {
            size: size_of::<Structure>(),
            id: found.id.into(),
            reserved: 0,
            name: found.name.as_ptr(),
            voxels: found.voxels,
            ml: found.ml,
        };
        // SAFETY: a struct with its size by the caller's promise.
        unsafe { sized::write(structure, &value) }
    })
}

/// How many stages were timed; 0 for NULL.
///
/// # Safety
///
/// `result` is NULL or not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_timing_count(result: *const SegmentationResult) -> usize {
    // SAFETY: not freed by the caller's promise.
    shielded(0, || unsafe { result.as_ref() }.map_or(0, |done| done.segmentation.timings.len()))
}

/// Fills `timing` with the stage of that index, in the order in which they ran.
///
/// # Safety
///
/// `result` is NULL or not freed, and `timing` a struct with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_timing(
    result: *const SegmentationResult,
    index: usize,
    timing: *mut Timing,
) -> Status {
    guard(|| {
        // SAFETY: not freed by the caller's promise.
        let all = unsafe { &finished(result)?.segmentation.timings };
        let (stage, time) = all.get(index).ok_or_else(|| no_such(index, all.len()))?;
        let stage = stage_name(*stage).as_ptr();
        let value = Timing { size: size_of::<Timing>(), stage, seconds: time.as_secs_f64() };
        // SAFETY: a struct with its size by the caller's promise.
        unsafe { sized::write(timing, &value) }
    })
}

/// How many things were odd but usable about the files; 0 for NULL.
///
/// # Safety
///
/// `result` is NULL or not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_warning_count(result: *const SegmentationResult) -> usize {
    // SAFETY: not freed by the caller's promise.
    shielded(0, || unsafe { result.as_ref() }.map_or(0, |done| done.warnings.len()))
}

/// One of them as a sentence; NULL if there is none of that index.
///
/// # Safety
///
/// `result` is NULL or not freed, which the text lives as long as.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_warning(
    result: *const SegmentationResult,
    index: usize,
) -> *const c_char {
    // SAFETY: not freed by the caller's promise.
    let done = unsafe { result.as_ref() };
    shielded(ptr::null(), || text::pointer(done.and_then(|done| done.warnings.get(index))))
}

/// Bytes that the case was expected to hold at its largest moment; 0 for NULL.
///
/// # Safety
///
/// `result` is NULL or not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_predicted_bytes(result: *const SegmentationResult) -> u64 {
    // SAFETY: not freed by the caller's promise.
    shielded(0, || unsafe { result.as_ref() }.map_or(0, |d| d.segmentation.predicted_bytes))
}

/// Writes the labels as NIfTI, `.nii` or `.nii.gz`, whole or not at all: of a file the bytes that the
/// program writes. A file that is there is replaced if `replace` is not 0, else it is an error.
///
/// # Safety
///
/// `result` is NULL or not freed, and `path` a text that ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_result_save(
    result: *const SegmentationResult,
    path: *const c_char,
    replace: i32,
) -> Status {
    guard(|| {
        // SAFETY: not freed by the caller's promise.
        let done = unsafe { finished(result) }?;
        // SAFETY: a text by the caller's promise.
        let path = unsafe { text::required(path, "path") }?;
        let existing = if replace == 0 { Existing::Keep } else { Existing::Replace };
        done.segmentation.save_as(Path::new(path), existing)
    })
}
