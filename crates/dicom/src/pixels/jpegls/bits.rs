//! Bits of a scan: a byte of all ones is followed by one of seven bits (T.87 A.1).

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bits, from the top.
    buffer: u64,
    held: u32,
    after_ones: bool,
    /// Bits made up behind the end.
    invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, buffer: 0, held: 0, after_ones: false, invented: 0 }
    }

    #[inline]
    fn fill(&mut self) {
        while self.held <= 56 {
            let marker = matches!(self.bytes, [0xFF, next, ..] if next & 0x80 != 0);
            let width = if self.after_ones { 7 } else { 8 };
            let byte = match self.bytes {
                [byte, rest @ ..] if !marker => {
                    self.bytes = rest;
                    *byte
                }
                _ => {
                    self.invented += width;
                    0
                }
            };
            self.after_ones = byte == 0xFF;
            self.buffer |= u64::from(byte) << (64 - width - self.held);
            self.held += width;
        }
    }

    /// Whether more bits were taken than there are.
    pub(super) fn ran_out(&self) -> bool {
        self.invented > self.held
    }

    /// The next `count` bits, at most 24.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        if self.held < 32 {
            self.fill();
        }
        let value = (self.buffer >> (64 - count)) as u32;
        self.buffer <<= count;
        self.held -= count;
        value
    }

    /// Takes zeros up to a one, and the one. `None` if they are more than `most`.
    #[inline]
    pub(super) fn zeros(&mut self, most: u32) -> Option<u32> {
        let mut zeros = 0;
        loop {
            if self.held < 32 {
                self.fill();
            }
            let found = self.buffer.leading_zeros();
            if found < self.held {
                // Two steps, as one of 64 places is none.
                self.buffer = self.buffer << found << 1;
                self.held -= found + 1;
                zeros += found;
                return (zeros <= most).then_some(zeros);
            }
            zeros += self.held;
            (self.buffer, self.held) = (0, 0);
            if zeros > most {
                return None;
            }
        }
    }
}
