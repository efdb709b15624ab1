//! The inner step of every convolution, as a table of functions.
//!
//! A micro-kernel computes some output channels of a few vectors of consecutive positions:
//! for each input channel and tap it loads the vectors at the tap's offset, broadcasts one
//! weight per output channel, and multiplies all pairs in registers.

use super::Arithmetic;
use crate::isa::{Isa, Level};

/// What one call computes.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// First position of the first input channel, before any tap's offset.
    pub ring: *const f32,
    /// From input channel to input channel.
    pub channel_stride: usize,
    /// Input channels (pairs of them in bf16).
    pub channels: usize,
    /// Offset of each tap.
    pub taps: *const usize,
    /// Number of taps.
    pub tap_count: usize,
    /// For each input channel (AMX: part of them) and tap one weight per output channel.
    pub weights: *const f32,
    /// From input channel, or part, to the next.
    pub weight_stride: usize,
    /// One per output channel; for AMX a row of 16 equal ones.
    pub bias: *const f32,
    /// First position of the first output channel.
    pub out: *mut f32,
    /// From output channel to output channel.
    pub out_stride: usize,
    /// Output channels stored; the rest is padding.
    pub stored: usize,
}

/// Computes a tile.
///
/// # Safety
///
/// The CPU has the features of the level the function was asked for; with `C` output
/// channels and `P` positions, reads at `ring + channel * channel_stride + tap .. + P`, reads
/// of weights and `C` biases, and writes at `out + channel * out_stride .. + P` for the
/// stored channels are all inside their allocations, and nothing else uses the output.
pub(super) type Micro = unsafe fn(&Tile);

/// Output channels a vector kernel can have on `isa`, widest first.
pub(super) fn widths(isa: Isa) -> &'static [usize] {
    match isa.0 {
        Level::Scalar => &[4, 2, 1],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &[4, 2, 1],
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => &[8, 6, 4, 2, 1],
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::NeonBf16 => &[8, 6, 4, 2, 1],
    }
}

/// Whether tiles of AMX compute a convolution, instead of vectors.
#[cfg(target_arch = "x86_64")]
pub(super) fn uses_tiles(isa: Isa, arithmetic: Arithmetic) -> bool {
    isa.0 == Level::Amx && arithmetic == Arithmetic::Bf16
}

/// Positions per vector on `isa`.
pub(super) fn lanes(isa: Isa) -> usize {
    match isa.0 {
        Level::Scalar => super::scalar::LANES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 8,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => 16,
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::NeonBf16 => 4,
    }
}

/// Instances for 1, 2 and 3 vectors, of the known width that is `$width`.
macro_rules! instances {
    ($module:ident, $width:expr, [$($known:literal),*]) => {
        match $width {
            $($known => {
                use super::$module::micro;
                const { &[micro::<$known, 1> as Micro, micro::<$known, 2>, micro::<$known, 3>] }
            })*
            width => panic!("no {} kernel for {width} channels", stringify!($module)),
        }
    };
}

/// Kernels of `width` output channels for 1, 2 and 3 vectors.
///
/// # Panics
///
/// If `width` is not one of [`widths`] (on AMX any number up to 32 is one), or `isa` has no such arithmetic.
pub(super) fn kernels(isa: Isa, arithmetic: Arithmetic, width: usize) -> &'static [Micro] {
    match (isa.0, arithmetic) {
        (Level::Scalar, Arithmetic::F32) => instances!(scalar, width, [1, 2, 4]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, Arithmetic::F32) => instances!(avx2, width, [1, 2, 4]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Avx512Bf16 | Level::Amx, Arithmetic::F32) => {
            instances!(avx512, width, [1, 2, 4, 6, 8])
        }
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512Bf16, Arithmetic::Bf16) => instances!(avx512_bf16, width, [1, 2, 4, 6, 8]),
        #[cfg(target_arch = "x86_64")]
        (Level::Amx, Arithmetic::Bf16) => super::amx::kernels(width),
        #[cfg(target_arch = "aarch64")]
        (Level::Neon | Level::NeonBf16, Arithmetic::F32) => {
            instances!(neon, width, [1, 2, 4, 6, 8])
        }
        #[cfg(target_arch = "aarch64")]
        (Level::NeonBf16, Arithmetic::Bf16) => instances!(neon_bf16, width, [1, 2, 4, 6, 8]),
        (_, Arithmetic::Bf16) => panic!("{isa} has no bf16"),
    }
}

/// Defines `micro` from a level's vector operations.
macro_rules! micro {
    (
        [$(#[$attribute:meta])*]
        $lanes:expr, $zero:expr, $input:expr, $bias:expr, $broadcast:expr, $load:expr, $multiply:expr, $store:expr
    ) => {
        /// Computes a tile of `CO` channels and `NV` vectors.
        ///
        /// # Safety
        ///
        /// As [`Micro`](super::micro::Micro).
        $(#[$attribute])*
        pub(super) unsafe fn micro<const CO: usize, const NV: usize>(tile: &super::micro::Tile) {
            let mut sums = [[$zero; NV]; CO];
            for (co, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller vouches for `CO` biases.
                let bias = unsafe { $bias(tile.bias.add(co)) };
                *sums = [bias; NV];
            }
            for channel in 0..tile.channels {
                // SAFETY: the caller vouches for each channel's part of ring and weights.
                let (ring, weights) = unsafe {
                    (
                        tile.ring.add(channel * tile.channel_stride),
                        tile.weights.add(channel * tile.weight_stride),
                    )
                };
                for tap in 0..tile.tap_count {
                    let mut inputs = [$input; NV];
                    // SAFETY: `tap < tap_count`; the caller vouches for `NV` vectors there.
                    unsafe {
                        let row = ring.add(*tile.taps.add(tap));
                        for (v, input) in inputs.iter_mut().enumerate() {
                            *input = $load(row.add(v * $lanes));
                        }
                    }
                    for (co, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller vouches for `CO` weights per tap.
                        let weight = unsafe { $broadcast(weights.add(tap * CO + co)) };
                        for (sum, &input) in sums.iter_mut().zip(&inputs) {
                            *sum = $multiply(weight, input, *sum);
                        }
                    }
                }
            }
            for (co, sums) in sums.iter().enumerate() {
                if co < tile.stored {
                    for (v, &sum) in sums.iter().enumerate() {
                        // SAFETY: the caller vouches for `NV` vectors of each stored channel.
                        unsafe { $store(tile.out.add(co * tile.out_stride + v * $lanes), sum) };
                    }
                }
            }
        }
    };
}
pub(super) use micro;
