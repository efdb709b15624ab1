//! JPEG (ITU-T T.81) of one component: baseline and extended sequential with 8 or 12 bits
//! (processes 1, 2, 4) and lossless with up to 16 (process 14, any predictor).
//!
//! `jpeg-decoder` reads neither 12-bit images nor lossless ones with restarts, so this is ours. A
//! frame is decoded by its markers, not by what the transfer syntax promises.

mod bits;
mod dct;
mod lossless;

use bits::{Bits, Huffman};
use fastnnunet_model::Mismatch;

/// Decodes a frame of `[rows, columns]`, row by row.
pub(super) fn decode(bytes: &[u8], size: [usize; 2]) -> Result<Vec<u16>, Mismatch> {
    let mut decoder = Decoder::default();
    let mut at = 0;
    loop {
        let (marker, segment, next) = next_segment(bytes, at)?;
        at = next;
        match marker {
            0xC0 | 0xC1 | 0xC3 => decoder.frame = Some(Frame::read(marker, segment, size)?),
            0xC4 => decoder.huffman_tables(segment)?,
            0xDB => decoder.quantization_tables(segment)?,
            0xDD => {
                let interval = segment.first_chunk().ok_or_else(damaged)?;
                decoder.restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            0xDA => return decoder.scan(segment, bytes.get(at..).ok_or_else(damaged)?),
            0xC2 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Err(Mismatch::new(
                    format!("a JPEG frame of process SOF{}", marker - 0xC0),
                    "baseline, extended sequential or lossless, Huffman coded",
                ));
            }
            _ => {}
        }
    }
}

fn damaged() -> Mismatch {
    Mismatch::new("a damaged JPEG frame", "a whole one")
}

/// The marker at or after `at`, what its segment holds, and where the next one begins.
pub(super) fn next_segment(bytes: &[u8], mut at: usize) -> Result<(u8, &[u8], usize), Mismatch> {
    loop {
        let found = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF));
        at += found.ok_or_else(damaged)? + 1;
        match *bytes.get(at).ok_or_else(damaged)? {
            // Fill bytes, and markers that stand alone.
            0xFF => {}
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            marker => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(damaged)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let end = at + 1 + length;
                let segment = bytes.get(at + 3..end).ok_or_else(damaged)?;
                return Ok((marker, segment, end));
            }
        }
    }
}

#[derive(Default)]
struct Decoder {
    frame: Option<Frame>,
    /// For differences of DC or of lossless samples, then for AC coefficients.
    huffman: [[Option<Huffman>; 4]; 2],
    /// In zigzag order.
    quantization: [Option<[u16; 64]>; 4],
    /// Blocks or samples; 0 for none.
    restart_interval: usize,
}

#[derive(Clone, Copy)]
struct Frame {
    lossless: bool,
    precision: u32,
    rows: usize,
    columns: usize,
    quantization: usize,
}

impl Frame {
    fn read(marker: u8, segment: &[u8], [rows, columns]: [usize; 2]) -> Result<Self, Mismatch> {
        let [precision, r1, r0, c1, c0, components, rest @ ..] = segment else {
            return Err(damaged());
        };
        let found = [[*r1, *r0], [*c1, *c0]].map(|b| usize::from(u16::from_be_bytes(b)));
        if found != [rows, columns] || *components != 1 {
            let [r, c] = found;
            return Err(Mismatch::new(
                format!("a JPEG frame of {r} x {c} pixels in {components} components"),
                format!("{rows} x {columns} in one"),
            ));
        }
        let lossless = marker == 0xC3;
        let precise =
            if lossless { (2..=16).contains(precision) } else { [8, 12].contains(precision) };
        if !precise {
            return Err(Mismatch::new(
                format!("a JPEG frame of {precision} bits"),
                "8 or 12, lossless 2 to 16",
            ));
        }
        let quantization = usize::from(*rest.get(2).ok_or_else(damaged)?);
        Ok(Self { lossless, precision: u32::from(*precision), rows, columns, quantization })
    }
}

impl Decoder {
    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), Mismatch> {
        while let [place, rest @ ..] = segment {
            let counts: &[u8; 16] = rest.first_chunk().ok_or_else(damaged)?;
            let total = counts.iter().map(|&n| usize::from(n)).sum::<usize>();
            let symbols = rest.get(16..16 + total).ok_or_else(damaged)?;
            let table = self.huffman.get_mut(usize::from(place >> 4));
            let slot = table.and_then(|class| class.get_mut(usize::from(place & 15)));
            *slot.ok_or_else(damaged)? = Some(Huffman::new(counts, symbols).ok_or_else(damaged)?);
            segment = &rest[16 + total..];
        }
        Ok(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<(), Mismatch> {
        while let [place, rest @ ..] = segment {
            let slot = self.quantization.get_mut(usize::from(place & 15)).ok_or_else(damaged)?;
            let (table, used): ([u16; 64], usize) = if place >> 4 == 0 {
                (rest.first_chunk::<64>().ok_or_else(damaged)?.map(u16::from), 64)
            } else {
                let words = rest.first_chunk::<128>().ok_or_else(damaged)?;
                let words = words.as_chunks().0;
                (std::array::from_fn(|i| u16::from_be_bytes(words[i])), 128)
            };
            *slot = Some(table);
            segment = &rest[used..];
        }
        Ok(())
    }

    fn scan(&self, header: &[u8], coded: &[u8]) -> Result<Vec<u16>, Mismatch> {
        let frame = self.frame.ok_or_else(damaged)?;
        let [1, _, tables, start, _, low] = *header else { return Err(damaged()) };
        let table = |class: usize, place: u8| {
            self.huffman[class].get(usize::from(place)).and_then(Option::as_ref).ok_or_else(damaged)
        };
        let mut bits = Bits::new(coded, self.restart_interval);
        let samples = if frame.lossless {
            lossless::decode(&mut bits, table(0, tables >> 4)?, frame, start, low & 15)
        } else {
            let steps = self.quantization.get(frame.quantization).copied().flatten();
            let tables = [table(0, tables >> 4)?, table(1, tables & 15)?];
            dct::decode(&mut bits, tables, &steps.ok_or_else(damaged)?, frame)
        };
        samples.filter(|_| !bits.ran_out()).ok_or_else(damaged)
    }
}
