//! What the inner loop reaches when all it reads is in the first-level cache: the limit that layers
//! are measured against.

use super::multiplier::Unpacked;
use super::tile::{Finish, Tile};
use super::{Arithmetic, Format};
use crate::isa::Isa;

/// Elements of the ring per channel.
const ROW: usize = 128;

/// Channels of the ring.
const CHANNELS: usize = 16;

/// Taps, as many as a kernel of 3x3x3 has.
const TAPS: usize = 27;

/// Computes the widest block of output channels `calls` times and returns how many multiplications
/// and additions that were; `None` if `isa` has no such arithmetic.
///
/// # Panics
///
/// If a kernel computes more positions than this module reserves.
#[must_use]
pub fn multiply_in_cache(isa: Isa, arithmetic: Arithmetic, calls: usize) -> Option<u64> {
    let multiplier = isa.multiplier(arithmetic)?;
    let block = multiplier.block(multiplier.widest(), CHANNELS);
    let element = |_: usize, _: usize, _: usize| 0_u32;
    let unpacked = Unpacked { taps: TAPS, slots: 1, slot_channels: CHANNELS, element: &element };
    let mut weights = Vec::new();
    multiplier.pack(&block, &unpacked, &mut weights);
    let (ring, taps) = (vec![0_u32; (CHANNELS + 1) * ROW], (0..TAPS).collect::<Vec<_>>());
    let positions = block.kernels.len() * multiplier.lanes();
    assert!(positions + TAPS <= ROW && weights.len() == block.parts * TAPS * block.tap_weights);
    let mut out = vec![0.0_f32; block.width * positions];
    let (starts, voxels) = (vec![0_u32; block.width], [u16::MAX; ROW / 16]);
    let tile = Tile {
        ring: ring.as_ptr(),
        channel_stride: ROW,
        channels: CHANNELS,
        taps: taps.as_ptr(),
        tap_count: TAPS,
        weights: weights.as_ptr(),
        weight_stride: TAPS * block.tap_weights,
        start: starts.as_ptr(),
        finish: Finish {
            out: out.as_mut_ptr().cast(),
            out_stride: positions,
            format: Format::F32,
            coding: std::ptr::null(),
            sums: std::ptr::null_mut(),
            place: 0,
            voxels: voxels.as_ptr(),
        },
        stored: block.stored,
    };
    let micro = block.kernels[block.kernels.len() - 1];
    // SAFETY: the multiplier came from an `Isa` and made the block; the ring has a row more than
    // channels for the taps, and everything else is as long as the block says.
    unsafe {
        let _configured = multiplier.configure(&block);
        for _ in 0..calls {
            micro(&tile);
        }
    }
    std::hint::black_box(&out);
    let products = CHANNELS * arithmetic.channels() * TAPS * positions * block.stored;
    Some((2 * products * calls) as u64)
}
