//! How the numbers of an activation are stored.

/// How the numbers of an activation are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// Floats rounded to bf16, ties to even.
    Bf16,
    /// 16-bit integers, by a [`Coding`] per channel.
    I16,
}

/// How a channel's values become integers: `(value - center) / step`, rounded to the nearest one,
/// ties to even; those out of range become the nearest in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// What becomes 0.
    pub center: f32,
    /// What becomes 1 more.
    pub step: f32,
}

/// How a channel's activations become bytes: `value / step + zero`, rounded to the nearest one,
/// halves up; those out of range become 0 or 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteCode {
    /// What becomes 1 more.
    pub step: f32,
    /// What 0 becomes.
    pub zero: u8,
}

impl ByteCode {
    /// What the step has to be multiplied with for values from `low` to `high`; half a step beyond
    /// the ends is rounded to them.
    pub(super) fn factor(self, low: f32, high: f32) -> f32 {
        let (below, above) = (f32::from(self.zero) + 0.5, 255.5 - f32::from(self.zero));
        (high / (above * self.step)).max(-low / (below * self.step))
    }

    /// The same code with steps `factor` times as wide.
    pub(super) fn widened(self, factor: f32) -> Self {
        Self { step: self.step * factor, ..self }
    }
}

impl Coding {
    /// Values as they are.
    pub const IDENTITY: Self = Self { center: 0.0, step: 1.0 };

    /// Factor and summand that do it.
    #[must_use]
    pub fn affine(self) -> [f32; 2] {
        [1.0 / self.step, -self.center / self.step]
    }
}

impl Format {
    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::I16 => 2,
        }
    }

    /// Floats that take the memory of `len` numbers.
    #[must_use]
    pub fn floats(self, len: usize) -> usize {
        (len * self.bytes()).div_ceil(size_of::<f32>())
    }
}

/// Neighboring numbers of some format.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Bits of bf16 numbers.
    Bf16(&'a [u16]),
    /// Integers.
    I16(&'a [i16]),
}

impl<'a> Row<'a> {
    /// Numbers `at .. at + len` of those of `format` in `memory`.
    ///
    /// # Panics
    ///
    /// If they are not inside.
    #[must_use]
    pub fn of(format: Format, memory: &'a [f32], at: usize, len: usize) -> Self {
        assert!(format.floats(at + len) <= memory.len(), "{at} + {len} of {}", memory.len());
        let start = memory.as_ptr();
        // SAFETY: the range was checked; all bit patterns are numbers of each format, and floats
        // are aligned for them.
        unsafe {
            match format {
                Format::F32 => Self::F32(std::slice::from_raw_parts(start.add(at), len)),
                Format::Bf16 => {
                    Self::Bf16(std::slice::from_raw_parts(start.cast::<u16>().add(at), len))
                }
                Format::I16 => {
                    Self::I16(std::slice::from_raw_parts(start.cast::<i16>().add(at), len))
                }
            }
        }
    }

    /// Numbers `at .. at + len` of these.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn part(self, at: usize, len: usize) -> Self {
        match self {
            Self::F32(row) => Self::F32(&row[at..][..len]),
            Self::Bf16(row) => Self::Bf16(&row[at..][..len]),
            Self::I16(row) => Self::I16(&row[at..][..len]),
        }
    }

    /// How many numbers.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::F32(row) => row.len(),
            Self::Bf16(row) => row.len(),
            Self::I16(row) => row.len(),
        }
    }

    /// Whether `other` has the same format.
    pub(super) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Memory it takes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32(row) => size_of_val(row),
            Self::Bf16(row) => size_of_val(row),
            Self::I16(row) => size_of_val(row),
        }
    }

    /// Place of the first number.
    pub(super) fn start(self) -> *const u8 {
        match self {
            Self::F32(row) => row.as_ptr().cast(),
            Self::Bf16(row) => row.as_ptr().cast(),
            Self::I16(row) => row.as_ptr().cast(),
        }
    }
}

/// Neighboring numbers of some format, to be written.
#[derive(Debug)]
pub enum RowMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// Bits of bf16 numbers.
    Bf16(&'a mut [u16]),
    /// Integers.
    I16(&'a mut [i16]),
}

impl<'a> RowMut<'a> {
    /// Numbers `at .. at + len` of those of `format` in `memory`.
    ///
    /// # Panics
    ///
    /// If they are not inside.
    #[must_use]
    pub fn of(format: Format, memory: &'a mut [f32], at: usize, len: usize) -> Self {
        assert!(format.floats(at + len) <= memory.len(), "{at} + {len} of {}", memory.len());
        let start = memory.as_mut_ptr();
        // SAFETY: as in `Row::of`; the borrow is exclusive.
        unsafe {
            match format {
                Format::F32 => Self::F32(std::slice::from_raw_parts_mut(start.add(at), len)),
                Format::Bf16 => {
                    Self::Bf16(std::slice::from_raw_parts_mut(start.cast::<u16>().add(at), len))
                }
                Format::I16 => {
                    Self::I16(std::slice::from_raw_parts_mut(start.cast::<i16>().add(at), len))
                }
            }
        }
    }
}
