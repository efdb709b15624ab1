//! Entropy-coded bytes to bits and Huffman symbols.

/// Bits of one scan. Past its end come zeros, and [`Bits::ran_out`] tells.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bits, from the top.
    buffer: u64,
    held: u32,
    /// Bits that were made up behind the end.
    invented: u32,
    restart_interval: usize,
    until_restart: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], restart_interval: usize) -> Self {
        let until_restart = restart_interval;
        Self { bytes, buffer: 0, held: 0, invented: 0, restart_interval, until_restart }
    }

    /// Holds at least 32 bits.
    #[inline]
    fn fill(&mut self) {
        while self.held <= 56 {
            let byte = match *self.bytes {
                // A byte of all ones is followed by a zero that is none of the data.
                [0xFF, 0, ..] => {
                    self.bytes = &self.bytes[2..];
                    0xFF
                }
                // A marker: the data ends here.
                [] | [0xFF, ..] => {
                    self.invented += 8;
                    0
                }
                [byte, ..] => {
                    self.bytes = &self.bytes[1..];
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
    }

    #[inline]
    fn drop_bits(&mut self, count: u32) {
        self.buffer <<= count;
        self.held -= count;
    }

    /// Whether more bits were taken than there are.
    pub(super) fn ran_out(&self) -> bool {
        self.invented > self.held
    }

    /// The next symbol; `None` if no code begins like this.
    #[inline]
    pub(super) fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        if self.held < 32 {
            self.fill();
        }
        let (length, symbol) = table.fast[(self.buffer >> (64 - FAST_BITS)) as usize];
        if length > 0 {
            self.drop_bits(u32::from(length));
            return Some(symbol);
        }
        let code = (self.buffer >> 48) as u32;
        for length in FAST_BITS + 1..=16 {
            let (first_above, offset) = table.slow[length as usize - 1];
            if code < first_above {
                self.drop_bits(length);
                let index = (code >> (16 - length)).wrapping_add(offset);
                return table.symbols.get(index as usize).copied();
            }
        }
        None
    }

    /// A signed number of `size` bits (at most 16) as differences are written (F.2.2.1).
    #[inline]
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        if self.held < 32 {
            self.fill();
        }
        let value = (self.buffer >> (64 - size)) as i32;
        self.drop_bits(size);
        if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
    }

    /// To be asked before each block or sample: whether a new restart interval begins. `None` if
    /// one should, and does not.
    #[inline]
    pub(super) fn restarts(&mut self) -> Option<bool> {
        if self.restart_interval == 0 {
            return Some(false);
        }
        if self.until_restart > 0 {
            self.until_restart -= 1;
            return Some(false);
        }
        self.until_restart = self.restart_interval - 1;
        let at = self.bytes.windows(2).position(|w| w[0] == 0xFF && w[1] != 0)?;
        if self.ran_out() || !(0xD0..=0xD7).contains(&self.bytes[at + 1]) {
            return None;
        }
        self.bytes = &self.bytes[at + 2..];
        (self.buffer, self.held, self.invented) = (0, 0, 0);
        Some(true)
    }
}

/// Codes up to this length are looked up at once.
const FAST_BITS: u32 = 9;

/// A Huffman table.
pub(super) struct Huffman {
    /// Length (0 if longer than [`FAST_BITS`]) and symbol for each beginning.
    fast: Vec<(u8, u8)>,
    /// For each length: the first code above it, shifted to 16 bits, and what turns a code of that
    /// length into the number of its symbol.
    slow: [(u32, u32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    /// `counts` codes of each length from 1; `None` if they do not fit.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut fast = vec![(0, 0); 1 << FAST_BITS];
        let mut slow = [(0, 0); 16];
        let (mut code, mut index) = (0_u32, 0_u32);
        for (k, &count) in counts.iter().enumerate() {
            let length = k as u32 + 1;
            let offset = index.wrapping_sub(code);
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= FAST_BITS {
                    let begin = (code << (FAST_BITS - length)) as usize;
                    let entry = (length as u8, *symbols.get(index as usize)?);
                    fast[begin..begin + (1 << (FAST_BITS - length))].fill(entry);
                }
                code += 1;
                index += 1;
            }
            slow[k] = (code << (16 - length), offset);
            code <<= 1;
        }
        Some(Self { fast, slow, symbols: symbols.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_length_are_found() {
        // One code of each length 1..=16: 0, 10, 110, ...
        let symbols: Vec<u8> = (0..16).collect();
        let table = Huffman::new(&[1; 16], &symbols).expect("a prefix code");
        let mut text = String::new();
        for k in 0..16 {
            text += &("1".repeat(k) + "0");
        }
        while !text.len().is_multiple_of(8) {
            text.push('0');
        }
        let mut bytes = Vec::new();
        for chunk in text.as_bytes().chunks(8) {
            let byte = chunk.iter().fold(0, |byte, &bit| byte << 1 | (bit - b'0'));
            bytes.push(byte);
            if byte == 0xFF {
                bytes.push(0);
            }
        }
        let mut bits = Bits::new(&bytes, 0);
        for symbol in symbols {
            assert_eq!(bits.symbol(&table), Some(symbol));
        }
        assert!(!bits.ran_out());
    }

    #[test]
    fn signed_numbers_are_the_negative_half_first() {
        let mut bits = Bits::new(&[0b0001_1011, 0xFF, 0xD9], 0);
        assert_eq!(
            [bits.signed(2), bits.signed(2), bits.signed(2), bits.signed(2)],
            [-3, -2, 2, 3]
        );
        assert!(!bits.ran_out());
        bits.signed(1);
        assert!(bits.ran_out());
    }

    #[test]
    fn too_many_codes_are_no_table() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none());
    }
}
