//! The loops themselves, for any instruction set, and the macro that compiles them for one.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Affine, Fixed};
use crate::conv::{Coding, Row};

/// Independent sums that hide the latency of additions.
const LANES: usize = 64;

/// Compiles the loops as functions of one instruction set and lists them in `ROWS`; `$attribute`
/// enables its CPU features.
macro_rules! compile_rows {
    ($(#[$attribute:meta])*) => {
        use $crate::conv::{Coding, Row};
        use $crate::row::{Affine, Fixed, body, head, winograd};

        /// The loops, compiled for this instruction set.
        pub(crate) const ROWS: $crate::row::Rows = $crate::row::Rows {
            activate,
            activate_pairs,
            quantize,
            encode,
            split,
            interleave,
            interleave_halves,
            deviations,
            tile_in,
            tile_out,
            best_class,
            last_above,
        };

        $(#[$attribute])*
        fn activate(target: &mut [f32], source: Row<'_>, affine: Affine) {
            body::activate(target, source, affine);
        }

        $(#[$attribute])*
        fn activate_pairs(
            target: &mut [f32],
            first: (Row<'_>, Affine),
            second: (Row<'_>, Affine),
        ) {
            body::activate_pairs(target, first, second);
        }

        $(#[$attribute])*
        fn quantize(target: &mut [f32], sources: [(&[i16], Fixed); 4], flip: u32) {
            body::quantize(target, sources, flip);
        }

        $(#[$attribute])*
        fn encode(target: &mut [i16], source: &[f32], coding: Coding) {
            body::encode(target, source, coding);
        }

        $(#[$attribute])*
        fn split(even: &mut [f32], odd: &mut [f32], source: &[f32]) {
            body::split(even, odd, source);
        }

        $(#[$attribute])*
        fn interleave(target: &mut [f32], even: &[f32], odd: &[f32]) {
            body::interleave(target, even, odd);
        }

        $(#[$attribute])*
        fn interleave_halves(target: &mut [u16], even: &[u16], odd: &[u16]) {
            body::interleave(target, even, odd);
        }

        $(#[$attribute])*
        fn deviations(values: &[f32], rows: (usize, usize, usize), shift: f32) -> [f64; 2] {
            body::deviations(values, rows, shift)
        }

        $(#[$attribute])*
        fn tile_in(
            tile: usize,
            target: (&mut [f32], usize),
            source: (&[f32], usize),
            width: usize,
        ) {
            winograd::input(tile, target, source, width);
        }

        $(#[$attribute])*
        fn tile_out(
            tile: usize,
            target: (&mut [f32], usize, usize),
            source: (&[f32], usize),
            width: usize,
            bias: f32,
        ) {
            winograd::output(tile, target, source, width, bias);
        }

        $(#[$attribute])*
        fn best_class(choice: &mut [u32], features: &[f32], head: (&[f32], &[f32])) {
            head::best_class(choice, features, head);
        }

        $(#[$attribute])*
        fn last_above(
            choice: &mut [u32],
            features: &[f32],
            head: (&[f32], &[f32]),
            threshold: f32,
        ) {
            head::last_above(choice, features, head, threshold);
        }
    };
}
pub(crate) use compile_rows;

/// A stored number.
pub(crate) trait Number: Copy {
    fn float(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }
}

/// Bits of a bf16 number.
impl Number for u16 {
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

impl Number for i16 {
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from(self)
    }
}

#[inline(always)]
fn activated(target: &mut [f32], source: &[impl Number], affine: Affine) {
    for (t, &s) in target.iter_mut().zip(source) {
        *t = affine.apply(s.float());
    }
}

#[inline(always)]
pub(crate) fn activate(target: &mut [f32], source: Row<'_>, affine: Affine) {
    match source {
        Row::F32(row) => activated(target, row, affine),
        Row::Bf16(row) => activated(target, row, affine),
        Row::I16(row) => activated(target, row, affine),
    }
}

#[inline(always)]
pub(crate) fn encode(target: &mut [i16], source: &[f32], coding: Coding) {
    let [scale, shift] = coding.affine();
    for (t, &s) in target.iter_mut().zip(source) {
        *t = integer(s * scale + shift);
    }
}

/// The nearest integer of 16 bits, ties to even; the least one for NaN.
#[inline(always)]
pub(crate) fn integer(v: f32) -> i16 {
    if v.is_nan() { i16::MIN } else { v.round_ties_even() as i16 }
}

#[inline(always)]
pub(crate) fn quantize(target: &mut [f32], sources: [(&[i16], Fixed); 4], flip: u32) {
    for (i, t) in target.iter_mut().enumerate() {
        let bytes = sources.map(|(row, fixed)| fixed.apply(row[i]));
        *t = f32::from_bits(u32::from_le_bytes(bytes) ^ flip);
    }
}

/// The bf16 number nearest to `v` in the upper half, ties to even; a NaN stays one.
#[inline(always)]
pub(crate) fn round_bf16(v: f32) -> u32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if v.is_nan() { bits & 0xffff_0000 | 0x0040_0000 } else { rounded }
}

#[inline(always)]
pub(crate) fn activate_pairs(
    target: &mut [f32],
    first: (Row<'_>, Affine),
    second: (Row<'_>, Affine),
) {
    match (first, second) {
        ((Row::F32(a), f), (Row::F32(b), g)) => pairs_of(target, (a, f), (b, g)),
        ((Row::Bf16(a), f), (Row::Bf16(b), g)) => pairs_of(target, (a, f), (b, g)),
        _ => panic!("pairs of rows in two formats"),
    }
}

#[inline(always)]
pub(crate) fn pairs_of<T: Number>(
    target: &mut [f32],
    (first, first_affine): (&[T], Affine),
    (second, second_affine): (&[T], Affine),
) {
    for ((t, &a), &b) in target.iter_mut().zip(first).zip(second) {
        let low = round_bf16(first_affine.apply(a.float())) >> 16;
        *t = f32::from_bits(round_bf16(second_affine.apply(b.float())) | low);
    }
}

#[inline(always)]
pub(crate) fn split(even: &mut [f32], odd: &mut [f32], source: &[f32]) {
    for ((e, o), pair) in even.iter_mut().zip(odd).zip(source.as_chunks::<2>().0) {
        [*e, *o] = *pair;
    }
}

#[inline(always)]
pub(crate) fn interleave<T: Copy>(target: &mut [T], even: &[T], odd: &[T]) {
    for ((pair, &e), &o) in target.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
        *pair = [e, o];
    }
}

#[inline(always)]
pub(crate) fn deviations(
    values: &[f32],
    (rows, width, pitch): (usize, usize, usize),
    shift: f32,
) -> [f64; 2] {
    let (mut sums, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for row in 0..rows {
        let row = &values[row * pitch..][..width];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let d = chunk[lane] - shift;
                sums[lane] += d;
                squares[lane] += d * d;
            }
        }
        let (chunks, rest) = rest.as_chunks::<{ LANES / 4 }>();
        for chunk in chunks {
            for lane in 0..LANES / 4 {
                let d = chunk[lane] - shift;
                sums[lane] += d;
                squares[lane] += d * d;
            }
        }
        for (lane, v) in rest.iter().enumerate() {
            let d = v - shift;
            sums[lane] += d;
            squares[lane] += d * d;
        }
    }
    let total = |lanes: [f32; LANES]| lanes.iter().map(|&v| f64::from(v)).sum();
    [total(sums), total(squares)]
}
