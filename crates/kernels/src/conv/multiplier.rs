//! How an instruction set multiplies: all that a convolution has to know about it.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "some serves AMX alone"))]

use super::Shape;
use super::tile::Micro;

/// Output channels that one micro-kernel computes together.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// First output channel and how many.
    pub output: usize,
    pub stored: usize,
    /// First of the ring's channels that it reads, and how many; of all slices at once if
    /// those are [folded](Multiplier::folds).
    pub first_channel: usize,
    pub channels: usize,
    /// Where its weights start.
    pub weights: usize,
    /// Output channels the kernel computes, of which `stored` are wanted.
    pub width: usize,
    /// Elements of weights per tap, and how many times those of all taps follow each other: once
    /// per channel, or per part of them.
    pub tap_weights: usize,
    pub parts: usize,
    /// For one, two, ... vectors of positions.
    pub kernels: &'static [Micro],
}

/// What the weights of a block are packed from.
pub(crate) struct Unpacked<'a> {
    /// Taps of the whole kernel.
    pub taps: usize,
    /// Slices that count as channels, 1 if they do not; and channels in each.
    pub slots: usize,
    pub slot_channels: usize,
    /// What is multiplied at once, by output channel, channel of the ring and tap.
    pub element: &'a (dyn Fn(usize, usize, usize) -> u32 + Sync),
}

/// How an arithmetic takes bytes of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// It takes none.
    None,
    /// As they are.
    Unsigned,
    /// Less 128, that is with the upper bit inverted.
    Signed,
}

impl Bytes {
    /// What is less in the ring than the byte.
    pub(crate) fn offset(self) -> i32 {
        if self == Self::Signed { 128 } else { 0 }
    }

    /// Bits of an element that are inverted.
    pub(crate) fn flip(self) -> u32 {
        if self == Self::Signed { 0x8080_8080 } else { 0 }
    }
}

/// How an instruction set multiplies.
pub(crate) trait Multiplier: Sync {
    /// Positions per vector.
    fn lanes(&self) -> usize;

    /// Most output channels that a kernel computes.
    fn widest(&self) -> usize;

    /// Whether the kernel's slices count as channels of the ring. Then those follow each other
    /// like channels, in an order that depends on the slice, and weights are packed for each.
    fn folds(&self, shape: &Shape, channels: usize) -> bool {
        let _ = (shape, channels);
        false
    }

    /// The next block of at most `left` output channels that read `channels` channels of the
    /// ring, without the places of what it reads and writes.
    fn block(&self, left: usize, channels: usize) -> Block;

    /// Appends the weights of one block, tap by tap.
    fn pack(&self, block: &Block, unpacked: &Unpacked<'_>, packed: &mut Vec<u32>);

    /// How it takes bytes of the ring.
    fn bytes(&self) -> Bytes {
        Bytes::None
    }

    /// Gets this thread ready for the kernels of a block, until the result is dropped.
    ///
    /// # Safety
    ///
    /// The CPU has the set that the multiplier belongs to, and the block is its own.
    unsafe fn configure(&self, block: &Block) -> Configured {
        let _ = block;
        Configured(None)
    }
}

/// A thread that is ready for a block's kernels.
pub(crate) struct Configured(Option<unsafe fn()>);

impl Configured {
    /// # Safety
    ///
    /// `release` may be called on this thread.
    pub(crate) unsafe fn until(release: unsafe fn()) -> Self {
        Self(Some(release))
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        if let Some(release) = self.0 {
            // SAFETY: `until` had its caller promise this.
            unsafe { release() };
        }
    }
}

/// Vectors of positions times broadcast weights.
pub(crate) struct Vectors {
    /// Positions per vector.
    pub lanes: usize,
    /// Output channels and the kernels for one, two, three vectors, most channels first.
    pub kernels: &'static [(usize, [Micro; 3])],
    /// How they take bytes.
    pub bytes: Bytes,
}

impl Multiplier for Vectors {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn widest(&self) -> usize {
        self.kernels[0].0
    }

    fn bytes(&self) -> Bytes {
        self.bytes
    }

    fn block(&self, left: usize, channels: usize) -> Block {
        // The narrowest kernel that takes all that is left, or the widest there is.
        let fitting = self.kernels.iter().rev().find(|(width, _)| *width >= left);
        let (width, kernels) = fitting.unwrap_or(&self.kernels[0]);
        Block {
            output: 0,
            stored: left.min(*width),
            first_channel: 0,
            channels,
            weights: 0,
            width: *width,
            tap_weights: *width,
            parts: channels,
            kernels,
        }
    }

    fn pack(&self, block: &Block, unpacked: &Unpacked<'_>, packed: &mut Vec<u32>) {
        for channel in 0..block.channels {
            for tap in 0..unpacked.taps {
                packed.extend((0..block.width).map(|k| {
                    if k < block.stored {
                        (unpacked.element)(block.output + k, channel, tap)
                    } else {
                        0
                    }
                }));
            }
        }
    }
}
