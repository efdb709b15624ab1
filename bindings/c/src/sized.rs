//! Structs that begin with their size: the caller's may be of an older header or of a newer one.

use crate::status::usage;
use fastnnunet::Error;
use std::mem::MaybeUninit;
use std::ptr;

/// A struct of the header whose first field is `size: usize`.
///
/// # Safety
///
/// Any bytes are a value of it, and its first field is a `usize`, its size.
pub(crate) unsafe trait Sized_: Copy {
    /// What it is called in messages.
    const NAME: &'static str;
    /// Its size in the first version of the header.
    const FIRST: usize;
}

/// Reads a caller's struct. What an older header lacks is zero; what a newer one has beyond ours must
/// be zero, which always means the default.
///
/// # Safety
///
/// `from` is NULL or points to as many readable bytes as the `usize` there says, aligned like `T`.
pub(crate) unsafe fn read<T: Sized_>(from: *const T) -> Result<T, Error> {
    // SAFETY: the caller's promise is the same.
    let size = unsafe { checked_size(from) }?;
    let mut value = MaybeUninit::<T>::zeroed();
    let own = size_of::<T>();
    // SAFETY: `from` has `size` bytes by the caller's promise, `value` has `own`.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), value.as_mut_ptr().cast(), size.min(own));
    };
    // SAFETY: bytes beyond our struct and within the caller's.
    let beyond = (own..size).map(|at| unsafe { from.cast::<u8>().add(at).read() });
    if beyond.into_iter().any(|byte| byte != 0) {
        return Err(usage(
            T::NAME,
            format!(
                "fields beyond the {own} bytes that version {} knows",
                env!("CARGO_PKG_VERSION")
            ),
            "zeros there, or a library as new as the header",
        ));
    }
    // SAFETY: all of its bytes are written, and any bytes are a value by `Sized_`.
    Ok(unsafe { value.assume_init() })
}

/// Fills a caller's struct as far as its header knows it; its size stays.
///
/// # Safety
///
/// `to` is NULL or points to as many writable bytes as the `usize` there says, aligned like `T`.
pub(crate) unsafe fn write<T: Sized_>(to: *mut T, value: &T) -> Result<(), Error> {
    // SAFETY: the caller's promise is the same.
    let size = unsafe { checked_size(to) }?;
    let (first, end) = (size_of::<usize>(), size.min(size_of::<T>()));
    // SAFETY: both have `end` bytes, which is at least `T::FIRST` and so more than `first`.
    unsafe {
        let from = ptr::from_ref(value).cast::<u8>().add(first);
        ptr::copy_nonoverlapping(from, to.cast::<u8>().add(first), end - first);
    }
    Ok(())
}

/// The size that the struct says it has, if that can be.
///
/// # Safety
///
/// `at` is NULL or points to a `usize`, aligned like `T`.
unsafe fn checked_size<T: Sized_>(at: *const T) -> Result<usize, Error> {
    if at.is_null() {
        return Err(usage(T::NAME, "NULL", "a struct"));
    }
    // SAFETY: not NULL, and a `usize` by the caller's promise.
    let size = unsafe { at.cast::<usize>().read() };
    // The bound keeps a size that was never set from being read as one.
    if (T::FIRST..=MOST).contains(&size) && size.is_multiple_of(align_of::<usize>()) {
        return Ok(size);
    }
    Err(usage(
        T::NAME,
        format!("a size of {size}"),
        format!("sizeof({}), which is {}", T::NAME, size_of::<T>()),
    ))
}

/// Larger than any struct will ever be.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// The struct as it is now; in the first version `second` was the last field.
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Now {
        size: usize,
        second: u64,
        third: u64,
    }

    // SAFETY: numbers only, the first of them the size.
    unsafe impl Sized_ for Now {
        const NAME: &'static str = "fnn_now";
        const FIRST: usize = 16;
    }

    /// As a header to come may have it.
    #[repr(C)]
    struct Later {
        now: Now,
        fourth: u64,
    }

    fn read_at<T>(value: &T) -> Result<Now, String> {
        // SAFETY: each test gives a struct that is at least as large as it says.
        unsafe { read(ptr::from_ref(value).cast::<Now>()) }.map_err(|error| error.to_string())
    }

    #[test]
    fn older_and_newer_headers_are_understood() {
        let now = Now { size: 24, second: 2, third: 3 };
        assert_eq!(read_at(&now), Ok(now));
        let older = Now { size: 16, ..now };
        assert_eq!(read_at(&older), Ok(Now { size: 16, second: 2, third: 0 }));
        let newer = Later { now: Now { size: 32, ..now }, fourth: 0 };
        assert_eq!(read_at(&newer).map(|read| read.third), Ok(3));
        let asks = read_at(&Later { fourth: 4, ..newer }).expect_err("an option we lack");
        assert!(asks.starts_with("fnn_now: found fields beyond the 24 bytes"), "{asks}");
        for size in [0, 15, 17, 1 << 40] {
            let error = read_at(&Now { size, ..now }).expect_err("no such size");
            assert!(error.contains("expected sizeof(fnn_now), which is 24"), "{error}");
        }
    }

    #[test]
    fn what_an_older_header_lacks_is_not_written() {
        let mut kept = [Now { size: 16, second: 0, third: 7 }];
        let value = Now { size: 24, second: 2, third: 3 };
        // SAFETY: larger than it says.
        unsafe { write(kept.as_mut_ptr(), &value) }.expect("a size of ours");
        assert_eq!(kept, [Now { size: 16, second: 2, third: 7 }]);
        // SAFETY: NULL is allowed.
        unsafe { write(ptr::null_mut(), &value) }.expect_err("no struct");
    }
}
