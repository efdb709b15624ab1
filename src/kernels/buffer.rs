//! Memory for activations, packed weights and scratch.

use std::sync::{Mutex, PoisonError};

/// A cache line of floats; the unit that makes [`Buffer`] aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Floats per cache line.
const LINE: usize = 16;

/// Floats aligned to a cache line, zero at first.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    /// A copy of `values`.
    #[must_use]
    pub fn from_slice(values: &[f32]) -> Self {
        let mut buffer = Self::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` around `[f32; 16]` without padding (64 bytes), so the
        // vector holds `lines.len() * 16 >= len` initialized floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

/// Scratch memory handed to whichever thread asks; grows to one piece per running thread.
#[derive(Debug, Default)]
pub struct ScratchPool {
    free: Mutex<Vec<Buffer>>,
    len: usize,
}

impl ScratchPool {
    /// A pool of pieces of `len` floats.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { free: Mutex::default(), len }
    }

    /// Floats per piece.
    #[must_use]
    pub fn piece_len(&self) -> usize {
        self.len
    }

    /// Lends a piece to `work`. What an earlier borrower left in it is still there.
    pub fn with<T>(&self, work: impl FnOnce(&mut [f32]) -> T) -> T {
        let lock = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = lock().pop();
        let mut piece = piece.unwrap_or_else(|| Buffer::zeros(self.len));
        let result = work(&mut piece);
        lock().push(piece);
        result
    }
}

/// A slice that several threads write at once, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives the value; `T: Send` data
// may be written from another thread, and `Shared::part` makes its caller promise that parts
// in use at the same time do not overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        let (start, len) = (slice.as_mut_ptr(), slice.len());
        Self { start, len, _borrow: std::marker::PhantomData }
    }

    /// Pointer to element `at`, from which `len` elements lie inside the slice.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub(super) fn pointer(self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "{at} + {len} of {}", self.len);
        // SAFETY: `at <= len` was checked, so the result stays inside or at the end.
        unsafe { self.start.add(at) }
    }

    /// The elements `at .. at + len`.
    ///
    /// # Safety
    ///
    /// While the part lives, nothing else reads or writes those elements.
    ///
    /// # Panics
    ///
    /// If they are not inside the slice.
    pub(super) unsafe fn part(self, at: usize, len: usize) -> &'a mut [T] {
        let start = self.pointer(at, len);
        // SAFETY: `pointer` checked the range; the caller promises exclusive use.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}
