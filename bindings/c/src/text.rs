//! Texts across the border: UTF-8 that ends in a zero byte.

use crate::status::usage;
use fastnnunet::Error;
use std::ffi::{CStr, CString, c_char};

/// A text for C. Zero bytes, which would end it, become the sign for what cannot be shown.
pub(crate) fn of(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// As [`of`], for what may be missing.
pub(crate) fn of_some(text: Option<&str>) -> Option<CString> {
    text.map(of)
}

/// The pointer to a text that may be missing.
pub(crate) fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

/// The text at `pointer`, or none for NULL.
///
/// # Safety
///
/// `pointer` is NULL or points to a text that ends in a zero byte and stays as it is while the
/// result is used.
pub(crate) unsafe fn some<'a>(
    pointer: *const c_char,
    what: &str,
) -> Result<Option<&'a str>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|_| usage(what, "bytes that are not UTF-8", "UTF-8"))
}

/// As [`some`], where there must be a text.
///
/// # Safety
///
/// As [`some`].
pub(crate) unsafe fn required<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise is the same.
    unsafe { some(pointer, what) }?.ok_or_else(|| usage(what, "NULL", "a text"))
}

/// The `count` texts at `pointer`.
///
/// # Safety
///
/// `pointer` points to `count` texts as [`some`] takes them, or `count` is 0.
pub(crate) unsafe fn list<'a>(
    pointer: *const *const c_char,
    count: usize,
    what: &str,
) -> Result<Vec<&'a str>, Error> {
    if pointer.is_null() && count > 0 {
        return Err(usage(what, format!("NULL for {count} texts"), "as many texts"));
    }
    // SAFETY: there are `count` of them by the caller's promise.
    (0..count).map(|at| unsafe { required(pointer.add(at).read(), what) }).collect()
}
