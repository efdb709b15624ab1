//! The loops themselves, for any instruction set.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::Affine;

/// Independent sums that hide the latency of additions.
const LANES: usize = 64;

/// Compiles the loops as functions; `$attribute` enables CPU features.
macro_rules! compile {
    ($(#[$attribute:meta])*) => {
        $(#[$attribute])*
        pub(super) fn activate(target: &mut [f32], source: &[f32], affine: Affine) {
            super::scalar::activate_body(target, source, affine);
        }

        $(#[$attribute])*
        pub(super) fn activate_pairs(
            target: &mut [f32],
            first: (&[f32], Affine),
            second: (&[f32], Affine),
        ) {
            super::scalar::activate_pairs_body(target, first, second);
        }

        $(#[$attribute])*
        pub(super) fn split(even: &mut [f32], odd: &mut [f32], source: &[f32]) {
            super::scalar::split_body(even, odd, source);
        }

        $(#[$attribute])*
        pub(super) fn interleave(target: &mut [f32], even: &[f32], odd: &[f32]) {
            super::scalar::interleave_body(target, even, odd);
        }

        $(#[$attribute])*
        pub(super) fn deviations(
            values: &[f32],
            rows: (usize, usize, usize),
            shift: f32,
        ) -> [f64; 2] {
            super::scalar::deviations_body(values, rows, shift)
        }

        $(#[$attribute])*
        pub(super) fn tile_in(
            tile: usize,
            target: (&mut [f32], usize),
            source: (&[f32], usize),
            width: usize,
        ) {
            super::winograd::input_body(tile, target, source, width);
        }

        $(#[$attribute])*
        pub(super) fn tile_out(
            tile: usize,
            target: (&mut [f32], usize, usize),
            source: (&[f32], usize),
            width: usize,
            bias: f32,
        ) {
            super::winograd::output_body(tile, target, source, width, bias);
        }

        $(#[$attribute])*
        pub(super) fn best_class(choice: &mut [u32], features: &[f32], head: (&[f32], &[f32])) {
            super::head::best_class_body(choice, features, head);
        }

        $(#[$attribute])*
        pub(super) fn last_above(
            choice: &mut [u32],
            features: &[f32],
            head: (&[f32], &[f32]),
            threshold: f32,
        ) {
            super::head::last_above_body(choice, features, head, threshold);
        }
    };
}

compile!();
#[cfg(target_arch = "x86_64")]
pub(super) use compile;

#[inline(always)]
pub(super) fn activate_body(target: &mut [f32], source: &[f32], affine: Affine) {
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
pub(super) fn activate_pairs_body(
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
pub(super) fn split_body(even: &mut [f32], odd: &mut [f32], source: &[f32]) {
    for ((e, o), pair) in even.iter_mut().zip(odd).zip(source.as_chunks::<2>().0) {
        [*e, *o] = *pair;
    }
}

#[inline(always)]
pub(super) fn interleave_body(target: &mut [f32], even: &[f32], odd: &[f32]) {
    for ((pair, &e), &o) in target.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
        *pair = [e, o];
    }
}

#[inline(always)]
pub(super) fn deviations_body(
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
