//! 8 numbers per vector: 4 channels by 3 vectors fill the 16 registers.
#![allow(clippy::inline_always, reason = "inlined into functions with these CPU features")]

use super::{Set, scalar};
use crate::conv::tile::{Dot, Lanes, instances, micro};
use crate::conv::{Bytes, Tile, Vectors};
use crate::row::{Fixed, Rows, quantize_short};
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_UNORD_Q, _mm_storeu_si128, _mm256_add_epi32, _mm256_add_ps,
    _mm256_adds_epi16, _mm256_and_ps, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castps_si256,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpeq_epi32,
    _mm256_cvtps_epi32, _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_max_epi16, _mm256_min_ps, _mm256_mul_ps, _mm256_mulhrs_epi16, _mm256_or_si256,
    _mm256_packs_epi32, _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permute2x128_si256,
    _mm256_permute4x64_epi64, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps,
    _mm256_unpackhi_epi8, _mm256_unpacklo_epi8, _mm256_xor_si256,
};

/// AVX2 with fused multiplication and addition: Haswell, Zen, and later.
pub(crate) static SET: Set = Set {
    name: "avx2",
    includes: &[&scalar::SET],
    detect: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    pays: |_| false,
    rows: Some(&ROWS),
    f32: Some(&Vectors { lanes: 8, kernels: instances!(floats, [4, 2, 1]), bytes: Bytes::None }),
    bf16: None,
    int8: None,
};

/// 8 floats.
pub(super) struct Ymm;

impl Lanes for Ymm {
    const LANES: usize = 8;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the caller vouches for the CPU, here and below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller vouches for a vector, here and below.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn first(v: __m256) -> f32 {
        // SAFETY: as above.
        unsafe { _mm256_cvtss_f32(v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn deviation(v: __m256, shift: __m256, bits: u32) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let d = _mm256_sub_ps(v, shift);
            if bits & 0xff == 0xff {
                return d;
            }
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(bits.cast_signed()), lanes);
            _mm256_and_ps(d, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lanes)))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: __m256) {
        // SAFETY: as above.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_add_epi32(bits, half);
            // A NaN stays one.
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let rounded = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let halves = _mm256_packus_epi32(rounded, rounded);
            _mm_storeu_si128(to.cast(), low_quarters(halves));
        }
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, v: __m256) {
        // SAFETY: as above.
        unsafe {
            // A NaN stays one, and becomes the least integer as everything out of range does.
            let v = _mm256_min_ps(_mm256_set1_ps(f32::from(i16::MAX)), v);
            let integers = _mm256_cvtps_epi32(v);
            let packed = _mm256_packs_epi32(integers, integers);
            _mm_storeu_si128(to.cast(), low_quarters(packed));
        }
    }
}

/// The lower 64 bits of both halves.
#[inline(always)]
unsafe fn low_quarters(v: __m256i) -> __m128i {
    // SAFETY: the caller vouches for the CPU.
    unsafe { _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(v)) }
}

/// Floats times floats.
struct Floats;

impl Dot for Floats {
    type Lanes = Ymm;
    type Sums = __m256;
    type Inputs = __m256;
    type Weight = __m256;

    #[inline(always)]
    unsafe fn start(from: *const u32) -> __m256 {
        // SAFETY: the caller vouches for CPU and element, here and below.
        unsafe { _mm256_set1_ps(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weight(from: *const u32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256, weight: __m256, inputs: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(weight, inputs, sums) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256) -> __m256 {
        sums
    }

    #[inline(always)]
    unsafe fn sum<const CO: usize, const NV: usize>(tile: &Tile, sums: &mut [[__m256; NV]; CO]) {
        // SAFETY: as above.
        unsafe { super::avx2::sum::<Self, CO, NV>(tile, sums, sum_floats) }
    }
}

/// As the default [`Dot::sum`], but what fills all registers in assembly (`sum_4x3`): the
/// compiler would keep one of the sums in memory and wait for it at every tap.
#[inline(always)]
pub(super) unsafe fn sum<D: Dot, const CO: usize, const NV: usize>(
    tile: &Tile,
    sums: &mut [[D::Sums; NV]; CO],
    sum_4x3: unsafe fn(&Tile, &mut [[D::Sums; 3]; 4]),
) {
    // SAFETY: the caller vouches for the tile; an array of as many rows and columns is of the
    // same type.
    unsafe {
        if CO == 4 && NV == 3 {
            sum_4x3(tile, &mut *std::ptr::from_mut(sums).cast());
            return;
        }
        for channel in 0..tile.channels {
            let ring = tile.ring.add(channel * tile.channel_stride);
            let weights = tile.weights.add(channel * tile.weight_stride);
            for tap in 0..tile.tap_count {
                let row = ring.add(*tile.taps.add(tap));
                let inputs: [_; NV] = std::array::from_fn(|v| D::inputs(row.add(v * 8)));
                for (co, sums) in sums.iter_mut().enumerate() {
                    let weight = D::weight(weights.add(tap * CO + co));
                    for (sum, &input) in sums.iter_mut().zip(&inputs) {
                        *sum = D::dot(*sum, weight, input);
                    }
                }
            }
        }
    }
}

/// Defines `$name`, the loop over all channels and taps for 4 output channels and 3 vectors, in
/// all 16 registers. `$multiply` is the instruction with its operands `{s}`, `{i}` and `{w}`.
macro_rules! sum_4x3 {
    ($name:ident, $sums:ty, $multiply:literal, [$s:literal, $i:literal, $w:literal]) => {
        /// Adds the products of all channels and taps.
        ///
        /// # Safety
        ///
        /// As [`Micro`](crate::conv::Micro), and the CPU has the instructions.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name(tile: &$crate::conv::Tile, sums: &mut [[$sums; 3]; 4]) {
            let [[s0, s1, s2], [s3, s4, s5], [s6, s7, s8], [s9, s10, s11]] = sums;
            for channel in 0..tile.channels {
                if tile.tap_count == 0 {
                    return;
                }
                // SAFETY: the caller vouches for the channel's ring and weights, and for three
                // vectors at each tap.
                unsafe {
                    std::arch::asm!(
                        "2:",
                        "mov {at}, [{taps}]",
                        "lea {at}, [{ring} + 4*{at}]",
                        "vmovups {i0}, [{at}]",
                        "vmovups {i1}, [{at} + 32]",
                        "vmovups {i2}, [{at} + 64]",
                        "vbroadcastss {w}, [{weights}]",
                        concat!($multiply, " ", $s, "0}, ", $i, "0}, ", $w),
                        concat!($multiply, " ", $s, "1}, ", $i, "1}, ", $w),
                        concat!($multiply, " ", $s, "2}, ", $i, "2}, ", $w),
                        "vbroadcastss {w}, [{weights} + 4]",
                        concat!($multiply, " ", $s, "3}, ", $i, "0}, ", $w),
                        concat!($multiply, " ", $s, "4}, ", $i, "1}, ", $w),
                        concat!($multiply, " ", $s, "5}, ", $i, "2}, ", $w),
                        "vbroadcastss {w}, [{weights} + 8]",
                        concat!($multiply, " ", $s, "6}, ", $i, "0}, ", $w),
                        concat!($multiply, " ", $s, "7}, ", $i, "1}, ", $w),
                        concat!($multiply, " ", $s, "8}, ", $i, "2}, ", $w),
                        "vbroadcastss {w}, [{weights} + 12]",
                        concat!($multiply, " ", $s, "9}, ", $i, "0}, ", $w),
                        concat!($multiply, " ", $s, "10}, ", $i, "1}, ", $w),
                        concat!($multiply, " ", $s, "11}, ", $i, "2}, ", $w),
                        "add {taps}, 8",
                        "add {weights}, 16",
                        "dec {left}",
                        "jnz 2b",
                        at = out(reg) _,
                        ring = in(reg) tile.ring.add(channel * tile.channel_stride),
                        taps = inout(reg) tile.taps => _,
                        weights = inout(reg) tile.weights.add(channel * tile.weight_stride) => _,
                        left = inout(reg) tile.tap_count => _,
                        i0 = out(ymm_reg) _, i1 = out(ymm_reg) _, i2 = out(ymm_reg) _,
                        w = out(ymm_reg) _,
                        s0 = inout(ymm_reg) *s0, s1 = inout(ymm_reg) *s1,
                        s2 = inout(ymm_reg) *s2, s3 = inout(ymm_reg) *s3,
                        s4 = inout(ymm_reg) *s4, s5 = inout(ymm_reg) *s5,
                        s6 = inout(ymm_reg) *s6, s7 = inout(ymm_reg) *s7,
                        s8 = inout(ymm_reg) *s8, s9 = inout(ymm_reg) *s9,
                        s10 = inout(ymm_reg) *s10, s11 = inout(ymm_reg) *s11,
                        options(nostack, readonly),
                    );
                }
            }
        }
    };
}
pub(super) use sum_4x3;

sum_4x3!(sum_floats, __m256, "vfmadd231ps", ["{s", "{i", "{w}"]);
micro!(floats, Floats, #[target_feature(enable = "avx2,fma")]);

mod rows {
    crate::row::compile_rows!(#[target_feature(enable = "avx2,fma")]);
}

/// As compiled, but for what has no good loop.
static ROWS: Rows = Rows { quantize, ..rows::ROWS };

/// Positions that [`quantize`] computes at once.
const QUANTIZED: usize = 16;

#[target_feature(enable = "avx2,fma")]
fn quantize(target: &mut [f32], sources: [(&[i16], Fixed); 4], flip: u32) {
    let n = target.len();
    if n < QUANTIZED {
        quantize_short::<QUANTIZED>(target, sources, |target, sources| {
            quantize(target, sources, flip);
        });
        return;
    }
    let flip = _mm256_set1_epi32(flip.cast_signed());
    let mut at = 0;
    while at < n {
        // The last step overlaps the one before.
        at = at.min(n - QUANTIZED);
        let [a, b, c, d] = sources.map(|(row, fixed)| {
            let row = &row[at..at + QUANTIZED];
            // SAFETY: the slice has 16 numbers, one 32-byte vector; the load is unaligned.
            apply(unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }, fixed)
        });
        let (ab, cd) = (_mm256_packus_epi16(a, b), _mm256_packus_epi16(c, d));
        let (ac, bd) = (_mm256_unpacklo_epi8(ab, cd), _mm256_unpackhi_epi8(ab, cd));
        let (low, high) = (_mm256_unpacklo_epi8(ac, bd), _mm256_unpackhi_epi8(ac, bd));
        let first = _mm256_permute2x128_si256::<0x20>(low, high);
        let second = _mm256_permute2x128_si256::<0x31>(low, high);
        let target = &mut target[at..at + QUANTIZED];
        // SAFETY: the slice has 16 elements, two 32-byte vectors; stores are unaligned.
        unsafe {
            let places = target.as_mut_ptr();
            _mm256_storeu_si256(places.cast(), _mm256_xor_si256(first, flip));
            _mm256_storeu_si256(places.add(8).cast(), _mm256_xor_si256(second, flip));
        }
        at += QUANTIZED;
    }
}

/// [`Fixed::apply`], before numbers out of range become the nearest byte.
#[target_feature(enable = "avx2,fma")]
fn apply(mut v: __m256i, fixed: Fixed) -> __m256i {
    for _ in 0..fixed.doublings {
        v = _mm256_adds_epi16(v, v);
    }
    let scaled = _mm256_mulhrs_epi16(v, _mm256_set1_epi16(fixed.scale));
    let v = _mm256_adds_epi16(scaled, _mm256_set1_epi16(fixed.shift));
    let v = _mm256_max_epi16(v, _mm256_mulhrs_epi16(v, _mm256_set1_epi16(fixed.slope)));
    let rounded = _mm256_mulhrs_epi16(v, _mm256_set1_epi16(fixed.unit));
    _mm256_adds_epi16(rounded, _mm256_set1_epi16(fixed.zero))
}
