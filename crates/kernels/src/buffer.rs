//! Memory for activations, packed weights and scratch.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// Alignment of every buffer: a cache line.
const LINE: usize = 64;

/// Size and alignment of a huge page on the machines that have them.
const HUGE: usize = 2 << 20;

/// Buffers from here on are made of huge pages.
const FEW_PAGES: usize = HUGE / 4;

/// Floats aligned to a cache line, zero at first.
///
/// Large ones ask for huge pages: kernels walk many rows at once, and with 4 KiB pages the
/// misses in the address translation took half of the time of the largest layers.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: the buffer owns its floats exclusively, like a vector.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    ///
    /// # Panics
    ///
    /// If that is more than the address space.
    #[must_use]
    #[allow(clippy::cast_ptr_alignment, reason = "`layout` aligns to a cache line or more")]
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc(layout) };
        // The layout is aligned for more than floats.
        #[allow(clippy::cast_ptr_alignment)]
        let Some(start) = NonNull::new(start.cast::<f32>()) else {
            std::alloc::handle_alloc_error(layout)
        };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE {
            // A refusal costs speed only, so the answer does not matter.
            // SAFETY: the range is this allocation; the advice changes no content.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation holds at least `len` floats, and zero bytes are one.
        unsafe { start.as_ptr().write_bytes(0, len) };
        Self { start, len }
    }

    /// A copy of `values`.
    #[must_use]
    pub fn from_slice(values: &[f32]) -> Self {
        let mut buffer = Self::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Floats of these bits, part after part.
    #[must_use]
    pub(crate) fn from_bits(parts: &[Vec<u32>]) -> Self {
        let mut buffer = Self::zeros(parts.iter().map(Vec::len).sum());
        let bits = parts.iter().flatten();
        buffer.iter_mut().zip(bits).for_each(|(v, &bits)| *v = f32::from_bits(bits));
        buffer
    }

    /// How `len` floats are allocated.
    fn layout(len: usize) -> Layout {
        let size =
            len.checked_mul(size_of::<f32>()).filter(|&size| size < isize::MAX as usize - HUGE);
        let Some(size) = size else { panic!("{len} floats do not fit any memory") };
        let align = if size >= FEW_PAGES { HUGE } else { LINE };
        match Layout::from_size_align(size.next_multiple_of(align), align) {
            Ok(layout) => layout,
            Err(_) => unreachable!("checked above"),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `zeros` allocated it with the layout of the same length.
            unsafe { std::alloc::dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is aligned (dangling only for no floats at all) and `len` floats
        // from there were initialized by `zeros`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
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

impl<'a> Shared<'a, u8> {
    /// The memory of floats.
    pub(super) fn bytes(floats: &'a mut [f32]) -> Self {
        let len = size_of_val(floats);
        Self { start: floats.as_mut_ptr().cast(), len, _borrow: std::marker::PhantomData }
    }
}

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
