//! Bytes of one frame to values.
//!
//! A frame is found in its file ([`extents`]), decoded to cells as an uncompressed file would hold
//! them, and turned to Hounsfield units ([`decode`]). Nothing is allocated that the size of the
//! image, which the caller has bounded, does not call for.

mod jpeg;
mod jpeg2000;
mod jpegls;
mod rle;

use crate::read::image::Layout;
use crate::read::parse::PixelData;
use crate::read::syntax::Coding;
use fastnnunet_model::Mismatch;
use flate2::read::DeflateDecoder;
use std::io::Read;

/// Where the bytes of frame `frame` of `frames` lie in the file, in order.
pub(crate) fn extents(
    layout: &Layout,
    frame: usize,
    frames: usize,
) -> Result<Vec<(u64, u64)>, Mismatch> {
    let missing = || Mismatch::new(format!("no pixels of frame {}", frame + 1), "those of each");
    match layout.pixels.as_deref().ok_or_else(missing)? {
        PixelData::Native { start, .. } => {
            let bytes = layout.frame_bytes() as u64;
            Ok(vec![(start + frame as u64 * bytes, bytes)])
        }
        PixelData::Encapsulated { fragments, offsets, .. } => {
            let wide = |&(start, len): &(u64, u32)| (start, u64::from(len));
            if frames == 1 {
                return Ok(fragments.iter().map(wide).collect());
            }
            if fragments.len() == frames {
                return Ok(vec![wide(&fragments[frame])]);
            }
            // Frames of several fragments: the table of offsets says where each begins.
            let starts: Vec<u64> = if layout.frame_offsets.len() == frames {
                layout.frame_offsets.clone()
            } else {
                offsets.iter().map(|&offset| u64::from(offset)).collect()
            };
            if starts.len() != frames {
                let found = format!("{} fragments for {frames} frames", fragments.len());
                return Err(Mismatch::new(found, "a table of where frames start"));
            }
            let Some(&(first, _)) = fragments.first() else { return Err(missing()) };
            // An offset leads to the item's header, eight bytes before what it holds.
            let begin = starts[frame].saturating_add(first);
            let end = starts.get(frame + 1).map_or(u64::MAX, |next| next.saturating_add(first));
            let own: Vec<_> =
                fragments.iter().filter(|f| (begin..end).contains(&f.0)).map(wide).collect();
            if own.is_empty() { Err(missing()) } else { Ok(own) }
        }
    }
}

/// A number that pixels are decoded to: what is stored, or what it stands for.
pub(crate) trait Value: Copy + Default + PartialEq + Send {
    /// Of a cell.
    fn of(cells: &Cells, cell: u32) -> Self;
}

/// `stored * slope + intercept`, computed in `f64`.
impl Value for f32 {
    #[inline]
    fn of(cells: &Cells, cell: u32) -> Self {
        let top = cells.top(cell);
        let stored = if cells.signed {
            f64::from(top.cast_signed() >> cells.rest())
        } else {
            f64::from(top >> cells.rest())
        };
        (stored * cells.slope + cells.intercept) as Self
    }
}

/// What is stored, if [`Layout::fits_i16`] says that it fits.
impl Value for i16 {
    #[inline]
    fn of(cells: &Cells, cell: u32) -> Self {
        let top = cells.top(cell);
        if cells.signed {
            (top.cast_signed() >> cells.rest()) as Self
        } else {
            (top >> cells.rest()) as Self
        }
    }
}

/// Decodes one frame into `out`.
pub(crate) fn decode<T: Value>(
    layout: &Layout,
    (slope, intercept): (f64, f64),
    bytes: &[u8],
    out: &mut [T],
) -> Result<(), Mismatch> {
    let pixels = layout.rows * layout.columns;
    assert_eq!(out.len(), pixels, "one value for each pixel");
    let Some(coding) = layout.syntax.coding else {
        return Err(Mismatch::new(
            format!("pixels coded as {}", layout.syntax.name),
            "another coding",
        ));
    };
    let cells = Cells::new(layout, slope, intercept);
    let size = [layout.rows, layout.columns];
    match coding {
        Coding::Native { big_endian } => cells.fill_bytes(bytes, big_endian, out),
        Coding::Rle => {
            let bytes = rle::decode(bytes, pixels, layout.bits_allocated as usize / 8)?;
            cells.fill_bytes(&bytes, false, out)
        }
        Coding::DeflatedFrames => {
            let mut whole = Vec::with_capacity(layout.frame_bytes());
            DeflateDecoder::new(bytes)
                .take(layout.frame_bytes() as u64)
                .read_to_end(&mut whole)
                .map_err(|_| Mismatch::new("a damaged deflated frame", "a whole one"))?;
            cells.fill_bytes(&whole, false, out)
        }
        Coding::JpegDct | Coding::JpegLossless => {
            cells.fill(jpeg::decode(bytes, size)?.into_iter().map(u32::from), out);
            Ok(())
        }
        Coding::JpegLs { .. } => {
            cells.fill(jpegls::decode(bytes, size)?.into_iter().map(u32::from), out);
            Ok(())
        }
        Coding::Jpeg2000 { .. } => {
            jpeg2000::decode(bytes, size, out, |sample| T::of(&cells, sample.cast_unsigned()))
        }
    }
}

/// Cells of pixel data to numbers.
pub(crate) struct Cells {
    /// How far up the stored bits begin, and how many they are.
    shift: u32,
    bits: u32,
    allocated: u32,
    signed: bool,
    slope: f64,
    intercept: f64,
}

impl Cells {
    fn new(layout: &Layout, slope: f64, intercept: f64) -> Self {
        Self {
            shift: layout.high_bit + 1 - layout.bits_stored,
            bits: layout.bits_stored,
            allocated: layout.bits_allocated,
            signed: layout.signed,
            slope,
            intercept,
        }
    }

    /// The stored bits of a cell as its upper ones: those beside them may be an overlay's.
    #[inline]
    fn top(&self, cell: u32) -> u32 {
        cell << (32 - self.bits - self.shift)
    }

    /// How many bits are no stored ones.
    #[inline]
    fn rest(&self) -> u32 {
        32 - self.bits
    }

    fn fill<T: Value>(&self, cells: impl Iterator<Item = u32>, out: &mut [T]) {
        for (out, cell) in out.iter_mut().zip(cells) {
            *out = T::of(self, cell);
        }
    }

    fn fill_bytes<T: Value>(
        &self,
        bytes: &[u8],
        big_endian: bool,
        out: &mut [T],
    ) -> Result<(), Mismatch> {
        let need = out.len() * (self.allocated as usize / 8);
        let Some(bytes) = bytes.get(..need) else {
            return Err(Mismatch::new(
                format!("truncated pixel data, {} bytes", bytes.len()),
                format!("{need}"),
            ));
        };
        match (self.allocated, big_endian) {
            (8, _) => self.fill(bytes.iter().map(|&b| u32::from(b)), out),
            (16, false) => {
                let cells = bytes.as_chunks().0.iter();
                self.fill(cells.map(|b| u32::from(u16::from_le_bytes(*b))), out);
            }
            (16, true) => {
                let cells = bytes.as_chunks().0.iter();
                self.fill(cells.map(|b| u32::from(u16::from_be_bytes(*b))), out);
            }
            (_, false) => {
                let cells = bytes.as_chunks().0.iter();
                self.fill(cells.map(|b| u32::from_le_bytes(*b)), out);
            }
            (_, true) => {
                let cells = bytes.as_chunks().0.iter();
                self.fill(cells.map(|b| u32::from_be_bytes(*b)), out);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(allocated: u32, bits: u32, high: u32, signed: bool) -> Cells {
        Cells { shift: high + 1 - bits, bits, allocated, signed, slope: 2.0, intercept: -1.0 }
    }

    #[test]
    fn stored_bits_are_cut_out_of_their_cell_and_signed() {
        // (case, cells, cell, value)
        let cases = [
            ("unsigned", cells(16, 16, 15, false), 0xFFFF, 131_069.0),
            ("signed", cells(16, 16, 15, true), 0xFFFF, -3.0),
            ("12 bits under an overlay", cells(16, 12, 11, false), 0xF001, 1.0),
            ("12 bits signed", cells(16, 12, 11, true), 0x0FFF, -3.0),
            ("12 bits at the top", cells(16, 12, 15, false), 0x0010, 1.0),
            ("8 bits", cells(8, 8, 7, true), 0x80, -257.0),
            ("32 bits", cells(32, 32, 31, true), 0xFFFF_FFFE, -5.0),
        ];
        for (case, cells, cell, value) in cases {
            assert_eq!(f32::of(&cells, cell), value, "{case}");
            // Slope and intercept of these cells.
            let is_stored = f32::from(i16::of(&cells, cell)) * 2.0 - 1.0 == value;
            assert_eq!(is_stored, value.abs() < 65536.0, "{case}");
        }
    }

    #[test]
    fn both_byte_orders_give_the_same_values() {
        let (mut little, mut big) = ([0.0_f32; 2], [0.0; 2]);
        let cells = cells(16, 16, 15, false);
        cells.fill_bytes(&[1, 0, 0, 2], false, &mut little).expect("enough bytes");
        cells.fill_bytes(&[0, 1, 2, 0], true, &mut big).expect("enough bytes");
        assert_eq!(little, [1.0, 1023.0]);
        assert_eq!(big, little);
        assert!(cells.fill_bytes(&[1, 0, 0], false, &mut little).is_err());
    }
}
