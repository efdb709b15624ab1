//! Sequential DCT: blocks of 8x8 coefficients to samples.

use super::Frame;
use super::bits::{Bits, Huffman};
use std::f64::consts::PI;

/// Row-major position of each coefficient in zigzag order.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Decodes a scan; `None` if it is damaged. `tables` are those for DC and AC.
pub(super) fn decode(
    bits: &mut Bits<'_>,
    tables: [&Huffman; 2],
    steps: &[u16; 64],
    frame: Frame,
) -> Option<Vec<u16>> {
    let Frame { rows, columns, precision, .. } = frame;
    let mut samples = vec![0; rows * columns];
    let basis = basis();
    let (middle, top) = (f64::from(1 << (precision - 1)), f64::from((1 << precision) - 1));
    let mut dc = 0;
    for y in (0..rows).step_by(8) {
        for x in (0..columns).step_by(8) {
            if bits.restarts()? {
                dc = 0;
            }
            let block = inverse(&coefficients(bits, tables, steps, &mut dc)?, &basis);
            // The last blocks may reach beyond the image.
            for (j, line) in block.iter().enumerate().take(rows - y) {
                let begin = (y + j) * columns + x;
                let width = 8.min(columns - x);
                for (sample, value) in samples[begin..begin + width].iter_mut().zip(line) {
                    *sample = (value + middle).round().clamp(0.0, top) as u16;
                }
            }
        }
        if bits.ran_out() {
            return None;
        }
    }
    Some(samples)
}

/// The next block's coefficients, dequantized, row by row.
fn coefficients(
    bits: &mut Bits<'_>,
    [dc_table, ac_table]: [&Huffman; 2],
    steps: &[u16; 64],
    dc: &mut i32,
) -> Option<[f64; 64]> {
    let mut block = [0.0; 64];
    let size = u32::from(bits.symbol(dc_table)?);
    if size > 15 {
        return None;
    }
    *dc = dc.wrapping_add(bits.signed(size));
    block[0] = f64::from(*dc) * f64::from(steps[0]);
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac_table)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            // Sixteen zeros, or nothing but zeros to the end.
            if run < 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let place = usize::from(*ZIGZAG.get(k)?);
        block[place] = f64::from(bits.signed(size)) * f64::from(steps[k]);
        k += 1;
    }
    Some(block)
}

/// `basis[u][x]`: the DCT's function `u` at sample `x`, scaled so that the inverse is a sum.
fn basis() -> [[f64; 8]; 8] {
    std::array::from_fn(|u| {
        let scale = if u == 0 { 0.125_f64.sqrt() } else { 0.5 };
        std::array::from_fn(|x| scale * ((2 * x + 1) as f64 * u as f64 * PI / 16.0).cos())
    })
}

/// The inverse DCT, exact but for `f64` rounding.
fn inverse(block: &[f64; 64], basis: &[[f64; 8]; 8]) -> [[f64; 8]; 8] {
    let mut lines = [[0.0; 8]; 8];
    for (line, coefficients) in lines.iter_mut().zip(block.as_chunks::<8>().0) {
        // Most coefficients of most blocks are zero.
        for (c, function) in coefficients.iter().zip(basis).filter(|(c, _)| **c != 0.0) {
            for x in 0..8 {
                line[x] += c * function[x];
            }
        }
    }
    let mut out = [[0.0; 8]; 8];
    for (line, function) in lines.iter().zip(basis) {
        for (out, weight) in out.iter_mut().zip(function) {
            for x in 0..8 {
                out[x] += weight * line[x];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_one_coefficient_is_its_function() {
        let basis = basis();
        let mut block = [0.0; 64];
        block[0] = 80.0;
        let flat = inverse(&block, &basis);
        assert!(flat.iter().flatten().all(|v| (v - 10.0).abs() < 1e-12));
        block = [0.0; 64];
        // Row 1, column 2: one period down half the block, two across.
        block[10] = 4.0;
        let out = inverse(&block, &basis);
        for (y, line) in out.iter().enumerate() {
            for (x, value) in line.iter().enumerate() {
                assert!((value - 4.0 * basis[1][y] * basis[2][x]).abs() < 1e-12);
            }
        }
    }
}
