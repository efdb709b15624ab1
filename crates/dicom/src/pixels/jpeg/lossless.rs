//! Lossless JPEG (T.81 annex H): differences from a prediction by neighbours.

use super::Frame;
use super::bits::{Bits, Huffman};

/// Decodes a scan; `None` if it is damaged. Samples were shifted down by `low` bits.
pub(super) fn decode(
    bits: &mut Bits<'_>,
    table: &Huffman,
    frame: Frame,
    predictor: u8,
    low: u8,
) -> Option<Vec<u16>> {
    let Frame { rows, columns, precision, .. } = frame;
    if !(1..=7).contains(&predictor) || u32::from(low) >= precision {
        return None;
    }
    let first = 1_i32 << (precision - u32::from(low) - 1);
    let mut samples = vec![0_u16; rows * columns];
    for y in 0..rows {
        let (above, rest) = samples.split_at_mut(y * columns);
        let (above, line) =
            (above.get(above.len().saturating_sub(columns)..)?, &mut rest[..columns]);
        // A line at the start of a restart interval is predicted like the first one.
        let restarted = bits.restarts()?;
        let alone = y == 0 || restarted;
        let start = if alone { first } else { i32::from(above[0]) };
        line[0] = (start + difference(bits, table)?) as u16;
        for x in 1..columns {
            // Intervals are whole lines (H.1.1), so none begins here.
            if bits.restarts()? {
                return None;
            }
            let a = i32::from(line[x - 1]);
            let prediction = if alone || predictor == 1 {
                a
            } else {
                let (b, c) = (i32::from(above[x]), i32::from(above[x - 1]));
                match predictor {
                    2 => b,
                    3 => c,
                    4 => a + b - c,
                    5 => a + ((b - c) >> 1),
                    6 => b + ((a - c) >> 1),
                    _ => (a + b) >> 1,
                }
            };
            line[x] = (prediction + difference(bits, table)?) as u16;
        }
        if bits.ran_out() {
            return None;
        }
    }
    if low > 0 {
        for sample in &mut samples {
            *sample <<= low;
        }
    }
    Some(samples)
}

/// A difference modulo 2^16.
#[inline]
fn difference(bits: &mut Bits<'_>, table: &Huffman) -> Option<i32> {
    match bits.symbol(table)? {
        size @ 0..=15 => Some(bits.signed(u32::from(size))),
        // No bits follow.
        16 => Some(1 << 15),
        _ => None,
    }
}
