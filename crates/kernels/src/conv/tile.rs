//! The inner step of every convolution, for any instruction set and arithmetic.
//!
//! A micro-kernel computes some output channels of a few vectors of consecutive positions:
//! for each input channel and tap it loads the vectors at the tap's offset, broadcasts one
//! weight per output channel, and multiplies all pairs in registers. Complete sums are scaled,
//! counted into the channel's moments, and stored, all while they are in registers.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

use super::Format;
use crate::row::Moments;

/// What one call computes. Elements of ring and weights are 32 bits: a float, a pair of bf16
/// numbers, or four bytes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// First position of the first input channel, before any tap's offset.
    pub ring: *const u32,
    /// From input channel to input channel.
    pub channel_stride: usize,
    /// Input channels, or pairs or quads of them.
    pub channels: usize,
    /// Offset of each tap.
    pub taps: *const usize,
    /// Number of taps.
    pub tap_count: usize,
    /// For each input channel (AMX: part of them) and tap one weight per output channel.
    pub weights: *const u32,
    /// From input channel, or part, to the next.
    pub weight_stride: usize,
    /// What the sums of each output channel start from.
    pub start: *const u32,
    /// What becomes of the sums.
    pub finish: Finish,
    /// Output channels wanted; the rest is padding.
    pub stored: usize,
}

/// What becomes of complete sums.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    /// First position of the first output channel.
    pub out: *mut u8,
    /// Numbers from output channel to output channel.
    pub out_stride: usize,
    /// How numbers are stored.
    pub format: Format,
    /// Factor and summand per output channel; null if sums are stored as they are.
    pub coding: *const [f32; 2],
    /// One per output channel; null if nobody asks.
    pub sums: *mut Sums,
    /// First position of the call within its strip, a multiple of the vector.
    pub place: usize,
    /// Which positions of the strip are voxels: a bit each.
    pub voxels: *const u16,
}

/// Positions counted side by side: vectors of fewer lanes take turns, so that every instruction
/// set adds the same numbers in the same order.
pub(crate) const COUNTED: usize = 16;

/// Sums of deviations of some channel's values from its first one, and of their squares.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Sums {
    pub shift: f32,
    pub deviations: [f32; COUNTED],
    pub squares: [f32; COUNTED],
}

impl Sums {
    /// Moments of the `count` values.
    pub(super) fn moments(&self, count: f64) -> Moments {
        let total = |lanes: &[f32; COUNTED]| lanes.iter().map(|&v| f64::from(v)).sum::<f64>();
        let (sum, squares) = (total(&self.deviations), total(&self.squares));
        Moments {
            count,
            mean: f64::from(self.shift) + sum / count,
            squares: (squares - sum * sum / count).max(0.0),
        }
    }
}

/// Computes a tile.
///
/// # Safety
///
/// The CPU has the features of the set that lists the function; with `C` output
/// channels and `P` positions, reads at `ring + channel * channel_stride + tap .. + P`, reads
/// of weights, `C` starts and `C` codings (where there are any), and writes at
/// `out + channel * out_stride .. + P` and of sums for the stored channels are all inside their
/// allocations, `voxels` has a bit for each of `place .. place + P`, and nothing else uses the
/// output.
pub(crate) type Micro = unsafe fn(&Tile);

/// What an instruction set does with vectors of complete sums.
pub(crate) trait Lanes {
    /// Numbers per vector: 4, 8 or 16.
    const LANES: usize;
    /// A vector of floats.
    type Floats: Copy;

    /// `value` in all lanes.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// Reads a vector.
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// Writes a vector.
    unsafe fn store(to: *mut f32, v: Self::Floats);
    /// The first lane.
    unsafe fn first(v: Self::Floats) -> f32;
    /// `a + b`.
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`, rounded.
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `v - shift` in lanes whose bit is set, 0 elsewhere.
    unsafe fn deviation(v: Self::Floats, shift: Self::Floats, bits: u32) -> Self::Floats;
    /// Rounds to the nearest bf16 numbers, ties to even, and writes those.
    unsafe fn store_bf16(to: *mut u16, v: Self::Floats);
    /// Rounds to the nearest integers, ties to even, and writes those that fit 16 bits, the
    /// nearest of those otherwise; -32768 for NaN.
    unsafe fn store_i16(to: *mut i16, v: Self::Floats);
}

/// How an instruction set multiplies and adds.
pub(crate) trait Dot {
    /// What happens to the sums then.
    type Lanes: Lanes;
    /// A vector of sums.
    type Sums: Copy;
    /// A vector of elements of the ring.
    type Inputs: Copy;
    /// A weight in all lanes.
    type Weight: Copy;

    /// A start in all lanes.
    unsafe fn start(from: *const u32) -> Self::Sums;
    /// Reads a vector of the ring.
    unsafe fn inputs(from: *const u32) -> Self::Inputs;
    /// A weight in all lanes.
    unsafe fn weight(from: *const u32) -> Self::Weight;
    /// Adds products to `sums`.
    unsafe fn dot(sums: Self::Sums, weight: Self::Weight, inputs: Self::Inputs) -> Self::Sums;
    /// Sums as floats.
    unsafe fn floats(sums: Self::Sums) -> <Self::Lanes as Lanes>::Floats;

    /// Adds the products of all channels and taps.
    ///
    /// # Safety
    ///
    /// As [`Micro`].
    #[inline(always)]
    unsafe fn sum<const CO: usize, const NV: usize>(
        tile: &Tile,
        sums: &mut [[Self::Sums; NV]; CO],
    ) {
        for channel in 0..tile.channels {
            // SAFETY: the caller vouches for each channel's part of ring and weights, for `NV`
            // vectors at each tap, and for `CO` weights per tap.
            unsafe {
                let ring = tile.ring.add(channel * tile.channel_stride);
                let weights = tile.weights.add(channel * tile.weight_stride);
                for tap in 0..tile.tap_count {
                    let row = ring.add(*tile.taps.add(tap));
                    let inputs: [_; NV] =
                        std::array::from_fn(|v| Self::inputs(row.add(v * Self::Lanes::LANES)));
                    for (co, sums) in sums.iter_mut().enumerate() {
                        let weight = Self::weight(weights.add(tap * CO + co));
                        for (sum, &input) in sums.iter_mut().zip(&inputs) {
                            *sum = Self::dot(*sum, weight, input);
                        }
                    }
                }
            }
        }
    }
}

/// Computes a tile of `CO` channels and `NV` vectors.
///
/// # Safety
///
/// As [`Micro`].
#[inline(always)]
pub(crate) unsafe fn run<D: Dot, const CO: usize, const NV: usize>(tile: &Tile) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let mut sums: [[D::Sums; NV]; CO] =
            std::array::from_fn(|co| [D::start(tile.start.add(co)); NV]);
        D::sum(tile, &mut sums);
        for (co, sums) in sums.iter().enumerate() {
            if co < tile.stored {
                finish::<D::Lanes, NV>(&tile.finish, co, sums.map(|sums| D::floats(sums)));
            }
        }
    }
}

/// Scales, counts and stores `values` of output channel `co`.
///
/// # Safety
///
/// As [`Micro`].
#[inline(always)]
pub(crate) unsafe fn finish<L: Lanes, const NV: usize>(
    finish: &Finish,
    co: usize,
    mut values: [L::Floats; NV],
) {
    // SAFETY: the caller vouches for the channel's coding, sums and output.
    unsafe {
        if !finish.coding.is_null() {
            let [scale, shift] = *finish.coding.add(co);
            let (scale, shift) = (L::splat(scale), L::splat(shift));
            for v in &mut values {
                *v = L::add(L::multiply(*v, scale), shift);
            }
        }
        if !finish.sums.is_null() {
            count::<L, NV>(finish, &mut *finish.sums.add(co), &values);
        }
        let start = co * finish.out_stride;
        for (v, &values) in values.iter().enumerate() {
            let place = start + v * L::LANES;
            #[allow(clippy::cast_ptr_alignment, reason = "numbers of that format are there")]
            match finish.format {
                Format::F32 => L::store(finish.out.cast::<f32>().add(place), values),
                Format::Bf16 => L::store_bf16(finish.out.cast::<u16>().add(place), values),
                Format::I16 => L::store_i16(finish.out.cast::<i16>().add(place), values),
            }
        }
    }
}

/// Adds deviations and squares to `sums`.
///
/// # Safety
///
/// As [`Micro`].
#[inline(always)]
unsafe fn count<L: Lanes, const NV: usize>(
    finish: &Finish,
    sums: &mut Sums,
    values: &[L::Floats; NV],
) {
    /// Vectors of the fewest lanes.
    const MOST: usize = COUNTED / 4;
    let turns = COUNTED / L::LANES;
    // SAFETY: the caller vouches for the bits; turns times lanes are all that is counted.
    unsafe {
        if finish.place == 0 {
            sums.shift = L::first(values[0]);
        }
        let shift = L::splat(sums.shift);
        // Vector `v` of this call takes this turn.
        let turn = |v: usize| (finish.place / L::LANES + v) % turns * L::LANES;
        let (deviations, squares) = (sums.deviations.as_mut_ptr(), sums.squares.as_mut_ptr());
        let mut added = [[shift; 2]; MOST];
        for (v, added) in added.iter_mut().enumerate().take(turns.min(NV)) {
            *added = [L::load(deviations.add(turn(v))), L::load(squares.add(turn(v)))];
        }
        for (v, &values) in values.iter().enumerate() {
            let at = finish.place + v * L::LANES;
            let bits = u32::from(*finish.voxels.add(at / COUNTED)) >> (at % COUNTED);
            let d = L::deviation(values, shift, bits);
            let [sum, square] = &mut added[v % turns];
            (*sum, *square) = (L::add(*sum, d), L::add(*square, L::multiply(d, d)));
        }
        for (v, &[sum, square]) in added.iter().enumerate().take(turns.min(NV)) {
            L::store(deviations.add(turn(v)), sum);
            L::store(squares.add(turn(v)), square);
        }
    }
}

/// Defines `micro`, the kernel of an arithmetic `$dot`, with the CPU features that `$attribute`
/// enables.
macro_rules! micro {
    ($micro:ident, $dot:ty $(, #[$attribute:meta])*) => {
        /// Computes a tile of `CO` channels and `NV` vectors.
        ///
        /// # Safety
        ///
        /// As [`Micro`]($crate::conv::Micro).
        $(#[$attribute])*
        unsafe fn $micro<const CO: usize, const NV: usize>(tile: &$crate::conv::Tile) {
            // SAFETY: the same promises.
            unsafe { $crate::conv::tile::run::<$dot, CO, NV>(tile) }
        }
    };
}
pub(crate) use micro;

/// Kernels for 1, 2 and 3 vectors, of each number of output channels.
macro_rules! instances {
    ($micro:ident, [$($width:literal),*]) => {
        &[$(($width, [$micro::<$width, 1> as $crate::conv::Micro, $micro::<$width, 2>, $micro::<$width, 3>])),*]
    };
}
pub(crate) use instances;
