//! As `avx512`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::{Set, avx512, avx512_vnni};
use crate::conv::Row;
use crate::conv::tile::{Dot, instances, micro};
use crate::conv::{Bytes, Vectors};
use crate::row::{Affine, Rows, body};
use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, _mm256_loadu_si256, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutexvar_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_si512,
};

/// AVX-512 with bf16: Cooper Lake, Sapphire Rapids, Zen 4, and later. All of them have VNNI.
pub(crate) static SET: Set = Set {
    name: "avx512-bf16",
    includes: &[&avx512::SET, &avx512_vnni::SET],
    detect: || is_x86_feature_detected!("avx512bf16"),
    pays: |_| is_amd(),
    rows: Some(&ROWS),
    f32: None,
    bf16: Some(&Vectors {
        lanes: 16,
        kernels: instances!(pairs, [8, 6, 4, 2, 1]),
        bytes: Bytes::None,
    }),
    int8: None,
};

/// Zen 4 and 5 multiply pairs 1.4 to 1.6 times as fast as floats; Sapphire Rapids is slower at it than
/// in floats, unless it has AMX.
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    vendor.as_flattened() == b"AuthenticAMD"
}

/// As `avx512`, but for the conversion to bf16.
static ROWS: Rows = Rows { activate_pairs, ..avx512::ROWS };

/// The same bits as 32 bf16 numbers.
#[inline(always)]
fn halves(v: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid patterns.
    unsafe { std::mem::transmute(v) }
}

/// Two bf16 numbers times two others.
struct Pairs;

impl Dot for Pairs {
    type Lanes = avx512::Zmm;
    type Sums = __m512;
    type Inputs = __m512i;
    type Weight = __m512i;

    #[inline(always)]
    unsafe fn start(from: *const u32) -> __m512 {
        // SAFETY: the caller vouches for CPU and element, here and below.
        unsafe { _mm512_set1_ps(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> __m512i {
        // SAFETY: the caller vouches for a vector; the load is unaligned.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512, weight: __m512i, inputs: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_dpbf16_ps(sums, halves(weight), halves(inputs)) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512) -> __m512 {
        sums
    }
}

micro!(pairs, Pairs, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]);

/// Where the 16-bit halves of the interleaved vector come from.
static INTERLEAVE: [u16; 32] = {
    let mut order = [0; 32];
    let mut k = 0;
    while k < 32 {
        order[k] = (k / 2 + k % 2 * 16) as u16;
        k += 1;
    }
    order
};

#[target_feature(enable = "avx512f")]
fn apply(affine: Affine, v: __m512) -> __m512 {
    let scaled = _mm512_mul_ps(v, _mm512_set1_ps(affine.scale));
    let t = _mm512_add_ps(scaled, _mm512_set1_ps(affine.shift));
    let negative =
        _mm512_mul_ps(_mm512_set1_ps(affine.slope), _mm512_min_ps(t, _mm512_setzero_ps()));
    _mm512_add_ps(_mm512_max_ps(t, _mm512_setzero_ps()), negative)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn activate_pairs(target: &mut [f32], first: (Row<'_>, Affine), second: (Row<'_>, Affine)) {
    match (first, second) {
        ((Row::F32(a), f), (Row::F32(b), g)) => {
            // SAFETY: the chunks are 16 floats, one 64-byte vector; loads are unaligned.
            let load = |chunk: &[f32; 16]| unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
            convert_pairs(target, (a, f), (b, g), load);
        }
        ((Row::Bf16(a), f), (Row::Bf16(b), g)) => {
            let load = |chunk: &[u16; 16]| {
                // SAFETY: the chunks are 16 halves, one 32-byte vector; loads are unaligned.
                let halves: __m256i = unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) };
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            };
            convert_pairs(target, (a, f), (b, g), load);
        }
        _ => body::activate_pairs(target, first, second),
    }
}

/// [`activate_pairs`] of numbers that `load` reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn convert_pairs<T: body::Number>(
    target: &mut [f32],
    (first, first_affine): (&[T], Affine),
    (second, second_affine): (&[T], Affine),
    load: impl Fn(&[T; 16]) -> __m512,
) {
    // SAFETY: the table has 32 two-byte entries, one 64-byte vector.
    let order = unsafe { _mm512_loadu_si512(INTERLEAVE.as_ptr().cast()) };
    let (targets, rest) = target.as_chunks_mut::<16>();
    let ((firsts, first_rest), (seconds, second_rest)) =
        (first.as_chunks::<16>(), second.as_chunks::<16>());
    for ((t, a), b) in targets.iter_mut().zip(firsts).zip(seconds) {
        let halves =
            _mm512_cvtne2ps_pbh(apply(second_affine, load(b)), apply(first_affine, load(a)));
        // SAFETY: both types are 64 bytes without invalid patterns.
        let halves: __m512i = unsafe { std::mem::transmute(halves) };
        let pairs = _mm512_permutexvar_epi16(order, halves);
        // SAFETY: `t` is 16 floats, one 64-byte vector; the store is unaligned.
        unsafe { _mm512_storeu_si512(t.as_mut_ptr().cast(), pairs) };
    }
    body::pairs_of(rest, (first_rest, first_affine), (second_rest, second_affine));
}
