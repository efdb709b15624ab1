//! The loops themselves, for any instruction set, and the macro that compiles them for one.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::Affine;

/// Independent sums that hide the latency of additions.
const LANES: usize = 64;

/// Compiles the loops as functions of one instruction set and lists them in `ROWS`; `$attribute`
/// enables its CPU features.
macro_rules! compile_rows {
    ($(#[$attribute:meta])*) => {
        use $crate::row::{Affine, body, head, winograd};

        /// The loops, compiled for this instruction set.
        pub(crate) const ROWS: $crate::row::Rows = $crate::row::Rows {
            activate,
            activate_pairs,
            split,
            interleave,
            deviations,
            tile_in,
            tile_out,
            best_class,
            last_above,
        };

        $(#[$attribute])*
        fn activate(target: &mut [f32], source: &[f32], affine: Affine) {
            body::activate(target, source, affine);
        }

        $(#[$attribute])*
        fn activate_pairs(
            target: &mut [f32],
            first: (&[f32], Affine),
            second: (&[f32], Affine),
        ) {
            body::activate_pairs(target, first, second);
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

#[inline(always)]
pub(crate) fn activate(target: &mut [f32], source: &[f32], affine: Affine) {
    for (t, &s) in target.iter_mut().zip(source) {
        *t = affine.apply(s);
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
    (first, first_affine): (&[f32], Affine),
    (second, second_affine): (&[f32], Affine),
) {
    for ((t, &a), &b) in target.iter_mut().zip(first).zip(second) {
        let low = round_bf16(first_affine.apply(a)) >> 16;
        *t = f32::from_bits(round_bf16(second_affine.apply(b)) | low);
    }
}

#[inline(always)]
pub(crate) fn split(even: &mut [f32], odd: &mut [f32], source: &[f32]) {
    for ((e, o), pair) in even.iter_mut().zip(odd).zip(source.as_chunks::<2>().0) {
        [*e, *o] = *pair;
    }
}

#[inline(always)]
pub(crate) fn interleave(target: &mut [f32], even: &[f32], odd: &[f32]) {
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
