//! The inner step of every convolution.
//!
//! A micro-kernel computes some output channels of a few vectors of consecutive positions:
//! for each input channel and tap it loads the vectors at the tap's offset, broadcasts one
//! weight per output channel, and multiplies all pairs in registers.

/// What one call computes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
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
/// The CPU has the features of the set that lists the function; with `C` output
/// channels and `P` positions, reads at `ring + channel * channel_stride + tap .. + P`, reads
/// of weights and `C` biases, and writes at `out + channel * out_stride .. + P` for the
/// stored channels are all inside their allocations, and nothing else uses the output.
pub(crate) type Micro = unsafe fn(&Tile);

/// Kernels for 1, 2 and 3 vectors, of each number of output channels.
macro_rules! instances {
    ($micro:ident, [$($width:literal),*]) => {
        &[$(($width, [$micro::<$width, 1> as $crate::conv::Micro, $micro::<$width, 2>, $micro::<$width, 3>])),*]
    };
}
pub(crate) use instances;

/// Defines `micro` from an instruction set's vector operations.
macro_rules! micro {
    (
        [$(#[$attribute:meta])*]
        $lanes:expr, $zero:expr, $input:expr, $bias:expr, $broadcast:expr, $load:expr, $multiply:expr, $store:expr
    ) => {
        /// Computes a tile of `CO` channels and `NV` vectors.
        ///
        /// # Safety
        ///
        /// As [`Micro`]($crate::conv::Micro).
        $(#[$attribute])*
        unsafe fn micro<const CO: usize, const NV: usize>(tile: &$crate::conv::Tile) {
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
pub(crate) use micro;
