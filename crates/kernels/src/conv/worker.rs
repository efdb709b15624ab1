//! One thread's view of a convolution: its ring, and the strip it is working on.

use std::cell::Cell;

use super::ring::Filler;
use super::shape::SLACK;
use super::{Block, Conv, Source, Tile};
use crate::buffer::ScratchPool;
use crate::row;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Most sums a micro-kernel stores: channels times positions.
const TILE: usize = 1024;

/// Biases of sums that are not outputs yet.
static ZEROS: [f32; 8] = [0.0; 8];

/// Taps per axis that a micro-kernel sums over: minimal filtering has one row, and slices that
/// count as channels have no taps.
fn conv_taps(conv: &Conv) -> [usize; 3] {
    let [depth, rows, columns] = conv.shape.kernel;
    [if conv.folded { 1 } else { depth }, if conv.geometry.tile > 1 { 1 } else { rows }, columns]
}

/// A task's state.
pub(super) struct Worker<'a> {
    conv: &'a Conv,
    filler: Filler<'a>,
    ring: &'a mut [f32],
    rows: &'a mut [f32],
    /// What the caller reserved beyond the ring.
    pub(super) extra: &'a mut [f32],
    /// First output row and number of output rows of the strip.
    strip: (usize, usize),
    /// Input slice in each slot of the ring.
    held: Vec<Option<usize>>,
    /// Offsets in the ring of the taps that lie inside the input.
    taps: Vec<usize>,
    /// Number of taps before the first of those.
    skipped: usize,
    /// Slot of the first slice, where slices count as channels.
    order: usize,
    ahead: Ahead,
}

/// What the next output slice will read from memory, asked for while this one is computed:
/// strips are too short for the hardware to see them coming.
#[derive(Default)]
struct Ahead {
    /// Input rows of the strip.
    rows: std::ops::Range<usize>,
    /// Next input slice.
    slice: Option<usize>,
    /// Micro-kernel calls of this slice, so far and in all.
    calls: Cell<usize>,
    calls_in_all: usize,
    /// Rows asked for so far, of all channels.
    asked: Cell<usize>,
}

impl<'a> Worker<'a> {
    fn new(
        conv: &'a Conv,
        sources: &'a [Source<'a>],
        scratch: &'a mut [f32],
        strip: usize,
    ) -> Self {
        let Conv { shape, geometry, .. } = conv;
        let rows = geometry.rows(strip);
        let (ring, scratch) = scratch.split_at_mut(geometry.ring_len());
        let (rows_scratch, extra) = scratch.split_at_mut(Filler::scratch_len(shape, geometry));
        let arithmetic = conv.arithmetic;
        Self {
            conv,
            filler: Filler { isa: conv.isa, arithmetic, shape, geometry, sources },
            ring,
            rows: rows_scratch,
            extra,
            strip: (rows.start, rows.len()),
            held: vec![None; geometry.slots],
            taps: Vec::with_capacity(shape.kernel.iter().product()),
            skipped: 0,
            order: 0,
            ahead: Ahead::new(conv, &rows),
        }
    }

    /// Makes the ring hold what output slice `z` needs.
    fn advance(&mut self, z: usize) {
        let Conv { shape, geometry, .. } = self.conv;
        let [_, row_taps, column_taps] = conv_taps(self.conv);
        let mut newest = None;
        let slot_stride = geometry.slot_stride();
        self.taps.clear();
        self.skipped = 0;
        let folded = self.conv.folded;
        let first = z * shape.stride[0];
        self.order = if folded { first % geometry.slots } else { 0 };
        for kz in 0..shape.kernel[0] {
            let place = first + kz * shape.dilation[0];
            let inside = place.checked_sub(shape.pad_begin[0]).filter(|&z| z < shape.input[0]);
            let slot = place % geometry.slots;
            let target = &mut self.ring[slot * slot_stride..][..slot_stride];
            if let Some(slice) = inside {
                newest = Some(slice);
                if self.held[slot] != Some(slice) {
                    self.filler.fill(target, self.rows, slice, self.strip.0, self.strip.1);
                    self.held[slot] = Some(slice);
                }
            } else if folded {
                target.fill(0.0);
                self.held[slot] = None;
            } else {
                // Taps before the first slice or after the last read only zeros.
                if self.taps.is_empty() {
                    self.skipped += row_taps * column_taps;
                }
                continue;
            }
            if folded && kz > 0 {
                continue;
            }
            let start = if folded { 0 } else { slot * slot_stride };
            for ky in 0..row_taps {
                for kx in 0..column_taps {
                    self.taps.push(start + geometry.tap(shape, ky, kx));
                }
            }
        }
        self.ahead.start(newest.map(|z| z + shape.stride[0]).filter(|&z| z < shape.input[0]));
        // The last channel, and with minimal filtering its last transformed row.
        let channels = geometry.channels * if folded { geometry.slots } else { 1 };
        let mut last_row = (channels - 1) * geometry.channel_stride();
        if geometry.tile > 1 {
            last_row += (geometry.tile + 1) * geometry.phase_len();
        }
        let positions = geometry.positions(self.strip.1);
        let furthest = self.taps.iter().max().map_or(0, |tap| tap + last_row + positions + SLACK);
        assert!(furthest <= self.ring.len(), "{furthest} of {}", self.ring.len());
    }

    /// Computes `block`'s channels at the strip's `len` positions; with minimal filtering, the
    /// sums of transformed row `phase`.
    ///
    /// # Panics
    ///
    /// If the strip has fewer positions.
    ///
    /// # Safety
    ///
    /// `target + channel * stride .. + len` is inside one allocation for each stored channel
    /// of the block, and nothing else uses it meanwhile.
    pub(super) unsafe fn block(
        &self,
        block: &Block,
        phase: usize,
        target: *mut f32,
        stride: usize,
        len: usize,
    ) {
        let conv = self.conv;
        // `advance` checked the ring for these.
        assert!(len <= conv.geometry.positions(self.strip.1), "{len} positions");
        let weight_stride = conv_taps(conv).iter().product::<usize>() * block.tap_weights;
        let weights_len = block.parts * weight_stride;
        // Only one of the two is not 0.
        let variant = phase + self.order;
        let weights = &conv.weights[block.weights + variant * weights_len..][..weights_len];
        let bias = &conv.bias[block.bias..][..block.biases];
        let channel_stride = conv.geometry.channel_stride();
        let first = block.first_channel * channel_stride + phase * conv.geometry.phase_len();
        let ring = &self.ring[first..];
        let mut tile = Tile {
            ring: ring.as_ptr(),
            channel_stride,
            channels: block.channels,
            taps: self.taps.as_ptr(),
            tap_count: self.taps.len(),
            weights: weights[(self.skipped * block.tap_weights).min(weights.len())..].as_ptr(),
            weight_stride,
            bias: if conv.geometry.tile > 1 { ZEROS.as_ptr() } else { bias.as_ptr() },
            out: target,
            out_stride: stride,
            stored: block.stored,
        };
        // SAFETY: the multiplier came from an `Isa`, and made the block.
        let _configured = unsafe { conv.multiplier.configure(block) };
        let (lanes, most) = (conv.multiplier.lanes(), block.kernels.len());
        let mut at = 0;
        while at < len {
            let left = (len - at).div_ceil(lanes);
            // Two pairs rather than three and a lonely one.
            let vectors = if left == most + 1 { left.div_ceil(2) } else { left.min(most) };
            let positions = vectors * lanes;
            let micro = block.kernels[vectors - 1];
            // SAFETY: `at < len` positions of ring and target.
            (tile.ring, tile.out) = unsafe { (ring.as_ptr().add(at), target.add(at)) };
            if at + positions <= len {
                tile.out_stride = stride;
                // SAFETY: the kernels are the multiplier's, which came from an `Isa`; `advance` checked that every tap plus `len` and slack for the last vector is
                // inside the ring; weights and biases were sliced above; the caller vouches
                // for the target.
                unsafe { micro(&tile) };
            } else {
                let mut partial = [0.0_f32; TILE];
                assert!(block.width * positions <= TILE);
                (tile.out, tile.out_stride) = (partial.as_mut_ptr(), positions);
                // SAFETY: as above; the target is `partial`, large enough by the assertion.
                unsafe { micro(&tile) };
                for (channel, values) in
                    partial.chunks_exact(positions).take(block.stored).enumerate()
                {
                    // SAFETY: `len - at` positions of a stored channel are left.
                    unsafe {
                        let end = target.add(channel * stride + at);
                        end.copy_from_nonoverlapping(values.as_ptr(), len - at);
                    }
                }
            }
            at += positions;
            self.ahead.ask(&self.filler);
        }
    }

    /// Minimal filtering: sums of all transformed rows of `block`, into the worker's scratch.
    pub(super) fn sum_rows(&mut self, block: &Block, groups: usize) {
        let geometry = &self.conv.geometry;
        let (phases, len) = (geometry.phases[0], geometry.positions(groups));
        let stride = geometry.phase_len();
        assert!(phases * block.width * stride <= self.extra.len() && len <= stride);
        let start = self.extra.as_mut_ptr();
        for phase in 0..phases {
            // SAFETY: channel `c` of this phase occupies `len` floats from
            // `(phase + c * phases) * stride`, inside the worker's own scratch as asserted.
            unsafe {
                self.block(block, phase, start.add(phase * stride), phases * stride, len);
            }
        }
    }

    /// Minimal filtering: turns the sums of one of `block`'s channels into output rows.
    pub(super) fn store_rows(
        &self,
        block: &Block,
        channel: usize,
        target: &mut [f32],
        width: usize,
    ) {
        let Conv { isa, geometry, bias, .. } = self.conv;
        let (tile, pitch, stride) = (geometry.tile, geometry.pitch, geometry.phase_len());
        let sums = &self.extra[channel * geometry.phases[0] * stride..];
        let rows = target.len().div_ceil(pitch);
        let bias = bias[block.bias + channel];
        for (group, target) in target.chunks_mut(tile * pitch).enumerate() {
            let target = (target, pitch, tile.min(rows - group * tile));
            row::tile_out(*isa, tile, target, (&sums[group * pitch..], stride), width, bias);
        }
    }
}

impl Ahead {
    fn new(conv: &Conv, rows: &std::ops::Range<usize>) -> Self {
        let Conv { shape, geometry, .. } = conv;
        let tile = geometry.tile;
        let phases = if tile > 1 { tile + 2 } else { 1 };
        let vectors = geometry.positions(rows.len()).div_ceil(conv.multiplier.lanes());
        let calls: usize =
            conv.blocks.iter().map(|block| phases * vectors.div_ceil(block.kernels.len())).sum();
        let (first, last) = (rows.start * tile, rows.end * tile - 1);
        let first = first * shape.stride[1];
        let end = last * shape.stride[1] + shape.reach(1) + 1;
        let inside = |y: usize| y.saturating_sub(shape.pad_begin[1]).min(shape.input[1]);
        Self { rows: inside(first)..inside(end), calls_in_all: calls.max(1), ..Self::default() }
    }

    fn start(&mut self, slice: Option<usize>) {
        self.slice = slice;
        self.calls.set(0);
        self.asked.set(0);
    }

    /// Asks for this call's share of the rows.
    fn ask(&self, filler: &Filler<'_>) {
        let Some(slice) = self.slice else { return };
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        let all = self.rows.len() * filler.shape.inputs;
        let due = (all * calls).div_ceil(self.calls_in_all).min(all);
        for row in self.asked.get()..due {
            let (channel, y) = (row / self.rows.len(), self.rows.start + row % self.rows.len());
            if let Some((row, _)) = filler.source_row(channel, slice, y) {
                row.iter().step_by(16).for_each(prefetch);
            }
        }
        self.asked.set(due);
    }
}

/// Asks for the cache line of `value`.
fn prefetch(value: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, without effect on memory; every x86-64 machine has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        let place = std::ptr::from_ref(value);
        std::arch::asm!(
            "prfm pldl2keep, [{place}]",
            place = in(reg) place,
            options(readonly, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = value;
}

impl Conv {
    /// Calls `work` with every slice and strip of the output, once the worker's ring holds the
    /// input they need.
    pub(super) fn for_each_piece<F>(&self, sources: &[Source<'_>], scratch: &ScratchPool, work: F)
    where
        F: Fn(&mut Worker<'_>, usize, usize) + Sync,
    {
        let (slices, strips) = (self.geometry.output[0], self.geometry.strips);
        // A few tasks per thread; each fills a ring of its own, so not more than that.
        let wanted = (rayon::current_num_threads() * 6).div_ceil(strips);
        let length = slices.div_ceil(wanted).max(1);
        let tasks = strips * slices.div_ceil(length);
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let (strip, part) = (task % strips, task / strips);
            scratch.with(|scratch| {
                let mut worker = Worker::new(self, sources, scratch, strip);
                for z in part * length..((part + 1) * length).min(slices) {
                    worker.advance(z);
                    work(&mut worker, z, strip);
                }
            });
        });
    }
}
