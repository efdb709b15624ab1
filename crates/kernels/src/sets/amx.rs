//! Tiles of bf16 pairs or quads of bytes on AMX: up to 32 output channels by up to 64 positions per
//! call.
//!
//! The ring already lies as the instruction wants its second operand: a tile of 16 rows, one
//! per pair of input channels, of 16 consecutive positions. The first operand is a tile of
//! packed weights, one row per output channel; sums are stored as they are. Subnormal numbers
//! count as zero, as in `avx512_bf16`.
//!
//! With fewer than 16 pairs the kernel's slices count as pairs too (`Multiplier::folds`). Up to 16
//! output channels use four tiles of sums side by side; more use two by two, which reads each
//! input tile once for both halves of the channels.

#![allow(clippy::inline_always, reason = "one instruction each, also in debug builds")]

use super::avx512::Zmm;
use super::{Set, avx512_bf16};
use crate::conv::Shape;
use crate::conv::multiplier::{Block, Bytes, Configured, Multiplier, Unpacked};
use crate::conv::tile::{Micro, Tile, finish};
use std::arch::asm;
use std::arch::x86_64::{
    _mm512_add_epi32, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_set1_ps,
};

/// AMX with bf16 and int8: Sapphire Rapids and later. What is no such convolution runs on AVX-512.
pub(crate) static SET: Set = Set {
    name: "amx",
    includes: &[&avx512_bf16::SET],
    detect: is_allowed,
    // Pairs on Sapphire Rapids: 1.8 times as fast as floats on AVX-512.
    pays: |_| true,
    rows: None,
    f32: None,
    bf16: Some(&Tiles::<false>),
    int8: Some(&Tiles::<true>),
};

/// Whether the CPU has AMX with both and the kernel lets this process use it.
#[cfg(target_os = "linux")]
fn is_allowed() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` for `XFEATURE_XTILEDATA`: tile registers are 8 KiB of state per
    /// thread, which Linux (5.16 and later) saves only for processes that asked.
    const REQUEST: (libc::c_long, libc::c_long) = (0x1023, 18);
    /// Tiles, their bf16 and their int8 products.
    const WANTED: u32 = 1 << 24 | 1 << 22 | 1 << 25;
    if std::arch::x86_64::__cpuid(0).eax < 7 {
        return false;
    }
    let found = std::arch::x86_64::__cpuid_count(7, 0).edx;
    // SAFETY: the call takes two numbers and touches no memory.
    found & WANTED == WANTED
        && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) } == 0
}

/// Nobody tried how other systems want to be asked.
#[cfg(not(target_os = "linux"))]
fn is_allowed() -> bool {
    false
}

/// Rows of a tile; also pairs of channels, and positions, in a row of 64 bytes.
const ROWS: usize = 16;

/// Bytes of a row.
const ROW_BYTES: usize = 64;

/// Most output channels a call computes.
const MOST_OUTPUTS: usize = 2 * ROWS;

/// How `channels` pairs are cut into parts of equal height; the last may overlap the one
/// before, with weights of zero for what both have.
#[derive(Clone, Copy)]
struct Parts {
    count: usize,
    height: usize,
    channels: usize,
}

impl Parts {
    fn of(channels: usize) -> Self {
        let count = channels.div_ceil(ROWS);
        Self { count, height: channels.div_ceil(count), channels }
    }

    /// First pair of `part`.
    fn first(self, part: usize) -> usize {
        (part * self.height).min(self.channels - self.height)
    }
}

/// Output channels of each half of `stored`.
fn halves(stored: usize) -> [usize; 2] {
    if stored <= ROWS { [stored, 0] } else { [stored.div_ceil(2), stored / 2] }
}

/// Tiles instead of vectors; of bytes or of pairs.
struct Tiles<const BYTES: bool>;

impl<const BYTES: bool> Multiplier for Tiles<BYTES> {
    fn bytes(&self) -> Bytes {
        if BYTES { Bytes::Unsigned } else { Bytes::None }
    }

    fn lanes(&self) -> usize {
        ROWS
    }

    fn widest(&self) -> usize {
        MOST_OUTPUTS
    }

    /// AMX multiplies up to 16 pairs at the price of one, and few channels leave room.
    fn folds(&self, shape: &Shape, channels: usize) -> bool {
        channels < ROWS && shape.kernel[0] > 1 && shape.dilation[0] == 1
    }

    fn block(&self, left: usize, channels: usize) -> Block {
        let stored = left.min(MOST_OUTPUTS);
        let parts = Parts::of(channels);
        let kernels: &[Micro] = if stored <= ROWS {
            &[
                micro::<BYTES, 1, 1>,
                micro::<BYTES, 1, 2>,
                micro::<BYTES, 1, 3>,
                micro::<BYTES, 1, 4>,
            ]
        } else {
            &[micro::<BYTES, 2, 1>, micro::<BYTES, 2, 2>]
        };
        Block {
            output: 0,
            stored,
            first_channel: 0,
            channels,
            weights: 0,
            width: stored,
            tap_weights: stored * parts.height,
            parts: parts.count,
            kernels,
        }
    }

    fn pack(&self, block: &Block, unpacked: &Unpacked<'_>, packed: &mut Vec<u32>) {
        let Unpacked { slots, slot_channels, .. } = *unpacked;
        let (parts, slice_taps) = (Parts::of(block.channels), unpacked.taps / slots);
        for order in 0..slots {
            for part in 0..parts.count {
                let rows = parts.first(part)..parts.first(part) + parts.height;
                for tap in 0..slice_taps {
                    for k in 0..block.stored {
                        packed.extend(rows.clone().map(|row| {
                            // What the part before had already counts once.
                            if row < part * parts.height {
                                return 0;
                            }
                            let (slot, channel) = (row / slot_channels, row % slot_channels);
                            let slice = (slot + slots - order) % slots;
                            let tap = slice * slice_taps + tap;
                            (unpacked.element)(block.output + k, channel, tap)
                        }));
                    }
                }
            }
        }
    }

    unsafe fn configure(&self, block: &Block) -> Configured {
        // SAFETY: the caller vouches for the CPU, and `detect` asked for the process; `block`
        // made a block of at least one channel and one to `MOST_OUTPUTS` outputs.
        unsafe {
            configure(block.channels, block.stored);
            Configured::until(release)
        }
    }
}

/// Assembly that may write tile registers, which the compiler never uses itself.
macro_rules! tiles {
    ($($operand:tt)*) => {
        asm!(
            $($operand)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        )
    };
}

/// Configures the tile registers of this thread for one block.
///
/// # Safety
///
/// The CPU has AMX and the process may use it; `channels` and `stored` are at least 1, and
/// `stored` at most [`MOST_OUTPUTS`].
unsafe fn configure(channels: usize, stored: usize) {
    /// Palette 1, then bytes per row of each tile from byte 16 and rows from byte 48.
    #[repr(align(64))]
    struct Palette([u8; 64]);
    let mut palette = Palette([0; 64]);
    palette.0[0] = 1;
    let height = Parts::of(channels).height;
    let [first, second] = halves(stored);
    let mut tile = |index: usize, rows: usize, bytes: usize| {
        // A tile nobody uses still needs a shape.
        palette.0[16 + 2 * index] = bytes as u8;
        palette.0[48 + index] = rows.max(1) as u8;
    };
    for sums in 0..4 {
        let below = second > 0 && sums >= 2;
        tile(sums, if below { second } else { first }, ROW_BYTES);
    }
    tile(4, first, 4 * height);
    tile(5, second, 4 * height);
    tile(6, height, ROW_BYTES);
    tile(7, height, ROW_BYTES);
    // SAFETY: the palette is 64 bytes and valid: no tile exceeds 16 rows of 64 bytes.
    unsafe {
        tiles!("ldtilecfg [{}]", in(reg) &raw const palette,
            options(nostack, readonly, preserves_flags));
    }
}

/// Gives the tile registers back.
///
/// # Safety
///
/// The CPU has AMX.
unsafe fn release() {
    // SAFETY: as the caller says.
    unsafe {
        tiles!("tilerelease", options(nostack, nomem, preserves_flags));
    }
}

/// Fills tile `T` with rows `stride` floats apart.
#[inline(always)]
unsafe fn load<const T: usize>(from: *const u32, stride: usize) {
    // SAFETY: the caller vouches for the rows that the tile is configured for.
    unsafe {
        tiles!("tileloadd tmm{t}, [{p} + {s}*1]", t = const T, p = in(reg) from, s = in(reg) 4 * stride,
            options(nostack, readonly, preserves_flags));
    }
}

/// Stores tile `T` into rows `stride` floats apart.
#[inline(always)]
unsafe fn store<const T: usize>(to: *mut u32, stride: usize) {
    // SAFETY: as in `load`.
    unsafe {
        asm!("tilestored [{p} + {s}*1], tmm{t}", t = const T, p = in(reg) to, s = in(reg) 4 * stride,
            options(nostack, preserves_flags));
    }
}

/// Clears tile `T`.
#[inline(always)]
unsafe fn clear<const T: usize>() {
    // SAFETY: registers only.
    unsafe {
        tiles!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags));
    }
}

/// Adds the products of weights `W` and inputs `I` to sums `S`.
#[inline(always)]
unsafe fn multiply<const BYTES: bool, const S: usize, const W: usize, const I: usize>() {
    // SAFETY: registers only.
    unsafe {
        if BYTES {
            tiles!("tdpbsud tmm{s}, tmm{w}, tmm{i}", s = const S, w = const W, i = const I,
                options(nostack, nomem, preserves_flags));
            return;
        }
        tiles!("tdpbf16ps tmm{s}, tmm{w}, tmm{i}", s = const S, w = const W, i = const I,
            options(nostack, nomem, preserves_flags));
    }
}

/// Runs the body for each vector `V` of a call that has `$count`.
macro_rules! each_vector {
    ($count:expr, $body:block) => {
        each_vector!($count, $body, 0 1 2 3)
    };
    ($count:expr, $body:block, $($index:literal)*) => {
        $({
            const V: usize = $index;
            if V < $count $body
        })*
    };
}

/// Computes a tile of all stored channels and `NV` vectors.
///
/// Sums of vector `V` are in tile `V`, those of the second half of the channels, which leaves
/// room for two vectors, in tile `V + 2`.
///
/// # Safety
///
/// As [`Micro`], and this thread's tiles are [`Configured`] for the block.
unsafe fn micro<const BYTES: bool, const HALVES: usize, const NV: usize>(tile: &Tile) {
    let parts = Parts::of(tile.channels);
    let first = halves(tile.stored)[0];
    let mut sums = Sums([0; MOST_SUMS]);
    // SAFETY: the caller vouches per part and tap for `stored * height` weights, and for
    // `16 * NV` positions of every channel of the ring; `sums` has room for all tiles.
    unsafe {
        each_vector!(NV, {
            clear::<V>();
            if HALVES == 2 {
                clear::<{ (V + 2) % 4 }>();
            }
        });
        for part in 0..parts.count {
            let ring = tile.ring.add(parts.first(part) * tile.channel_stride);
            let mut weights = tile.weights.add(part * tile.weight_stride);
            for tap in 0..tile.tap_count {
                let inputs = ring.add(*tile.taps.add(tap));
                load::<4>(weights, parts.height);
                if HALVES == 2 {
                    load::<5>(weights.add(first * parts.height), parts.height);
                }
                each_vector!(NV, {
                    load::<{ 6 + V % 2 }>(inputs.add(V * ROWS), tile.channel_stride);
                    multiply::<BYTES, V, 4, { 6 + V % 2 }>();
                    if HALVES == 2 {
                        multiply::<BYTES, { (V + 2) % 4 }, 5, { 6 + V % 2 }>();
                    }
                });
                weights = weights.add(tile.stored * parts.height);
            }
        }
        each_vector!(NV, {
            let out = sums.0.as_mut_ptr().add(V * ROWS);
            store::<V>(out, NV * ROWS);
            if HALVES == 2 {
                store::<{ (V + 2) % 4 }>(out.add(first * NV * ROWS), NV * ROWS);
            }
        });
        finish_sums::<BYTES, NV>(tile, &sums);
    }
}

/// Most sums of a call: 16 channels by four vectors, or 32 by two.
const MOST_SUMS: usize = 4 * ROWS * ROWS;

/// Bits of the sums of each channel in turn.
#[repr(align(64))]
struct Sums([u32; MOST_SUMS]);

/// What becomes of complete sums.
///
/// # Safety
///
/// As [`Micro`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn finish_sums<const BYTES: bool, const NV: usize>(tile: &Tile, sums: &Sums) {
    let then = &tile.finish;
    for (co, sums) in sums.0.chunks_exact(NV * ROWS).take(tile.stored).enumerate() {
        // SAFETY: each channel has `NV` vectors of 16 sums; the caller vouches for the rest.
        unsafe {
            let start = *tile.start.add(co);
            let values = std::array::from_fn(|v| {
                let sums = _mm512_loadu_si512(sums.as_ptr().add(v * ROWS).cast());
                if BYTES {
                    let start = _mm512_set1_epi32(start.cast_signed());
                    _mm512_cvtepi32_ps(_mm512_add_epi32(sums, start))
                } else {
                    _mm512_add_ps(_mm512_castsi512_ps(sums), _mm512_set1_ps(f32::from_bits(start)))
                }
            });
            finish::<Zmm, NV>(then, co, values);
        }
    }
}
