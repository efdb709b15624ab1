//! One thread's view of a convolution: its ring, and the strip it is working on.

use super::multiplier::Block;
use super::reading::Reading;
use super::ring::Filler;
use super::shape::SLACK;
use super::tile::{COUNTED, Finish, Sums};
use super::{Arithmetic, Conv, Format, Row, Source, Tile};
use crate::buffer::ScratchPool;
use crate::row::{self, Moments};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use std::cell::Cell;
use std::ops::Range;

/// Most sums a micro-kernel stores: channels times positions.
const TILE: usize = 1024;

/// Starts of sums that are not outputs yet.
static ZEROS: [u32; 8] = [0; 8];

/// Taps per axis that a micro-kernel sums over: minimal filtering has one row, and slices that
/// count as channels have no taps.
fn conv_taps(conv: &Conv) -> [usize; 3] {
    let [depth, rows, columns] = conv.shape.kernel;
    [if conv.folded { 1 } else { depth }, if conv.geometry.tile > 1 { 1 } else { rows }, columns]
}

/// Words of bits after the last position, for what a kernel computes beyond it.
const MORE_BITS: usize = SLACK / COUNTED;

/// A task's state.
pub(super) struct Worker<'a> {
    conv: &'a Conv,
    reading: &'a Reading,
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
    /// Bits of what the sums of each output channel start from.
    starts: Vec<u32>,
    /// Which positions of the strip are voxels: a bit each.
    voxels: Vec<u16>,
    /// One per output channel of a block.
    sums: Vec<Sums>,
    ahead: Ahead,
}

/// What the next output slice will read from memory, asked for while this one is computed:
/// strips are too short for the hardware to see them coming.
#[derive(Default)]
struct Ahead {
    /// Input rows of the strip.
    rows: Range<usize>,
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
        reading: &'a Reading,
        scratch: &'a mut [f32],
        rows: Range<usize>,
    ) -> Self {
        let Conv { shape, geometry, .. } = conv;
        assert!(rows.len() <= geometry.strip_rows);
        let (ring, scratch) = scratch.split_at_mut(geometry.ring_len());
        let (rows_scratch, extra) = scratch.split_at_mut(Filler::scratch_len(shape, geometry));
        let positions = geometry.positions(rows.len());
        let mut voxels = vec![0; positions.div_ceil(COUNTED) + MORE_BITS];
        for at in (0..positions).filter(|at| at % geometry.pitch < geometry.output[2]) {
            voxels[at / COUNTED] |= 1 << (at % COUNTED);
        }
        let widest = conv.blocks.iter().map(|block| block.stored).max().unwrap_or(0);
        Self {
            conv,
            reading,
            filler: Filler::new(conv, sources, &reading.fixed),
            ring,
            rows: rows_scratch,
            extra,
            strip: (rows.start, rows.len()),
            held: vec![None; geometry.slots],
            taps: Vec::with_capacity(shape.kernel.iter().product()),
            skipped: 0,
            order: 0,
            starts: conv.starts.clone(),
            voxels,
            sums: vec![Sums::default(); widest],
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
        let mut inside_slices = 0..0;
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
                self.filler.fill_blank(target);
                self.held[slot] = None;
            } else {
                // Taps before the first slice or after the last read only zeros.
                if self.taps.is_empty() {
                    self.skipped += row_taps * column_taps;
                }
                continue;
            }
            // Slices inside follow each other.
            inside_slices = if inside_slices.is_empty() { kz } else { inside_slices.start }..kz + 1;
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
        if self.conv.arithmetic == Arithmetic::Int8 {
            self.starts.clear();
            let slices = self.conv.starts.chunks_exact(shape.kernel[0]);
            let sum = |slices: &[u32]| {
                slices[inside_slices.clone()].iter().fold(0_u32, |sum, s| sum.wrapping_add(*s))
            };
            self.starts.extend(slices.map(sum));
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

    /// Computes `block`'s channels at the strip's positions, and their moments if asked.
    ///
    /// # Safety
    ///
    /// `target` plus `channel * stride` numbers of the output's format is followed by as many as
    /// the strip has positions, for each stored channel of the block, inside one allocation, and
    /// nothing else uses them meanwhile.
    pub(super) unsafe fn block(
        &mut self,
        block: &Block,
        target: *mut u8,
        stride: usize,
        moments: Option<&mut [Moments]>,
    ) {
        let conv = self.conv;
        self.sums[..block.stored].fill(Sums::default());
        let coding = self.reading.codings.get(block.output..);
        let finish = Finish {
            out: target,
            out_stride: stride,
            format: conv.format,
            coding: coding.filter(|c| !c.is_empty()).map_or(std::ptr::null(), <[_]>::as_ptr),
            sums: if moments.is_some() { self.sums.as_mut_ptr() } else { std::ptr::null_mut() },
            place: 0,
            voxels: self.voxels.as_ptr(),
        };
        let starts = &self.starts[block.output..][..block.width];
        let len = conv.geometry.positions(self.strip.1);
        // SAFETY: the caller vouches for the target; there is a coding for each output channel
        // or for none, and as many sums as the block stores.
        unsafe { self.kernels(block, 0, starts.as_ptr(), finish, len) };
        let count = (self.strip.1 * conv.geometry.output[2]) as f64;
        for (moments, sums) in moments.into_iter().flatten().zip(&self.sums) {
            *moments = sums.moments(count);
        }
    }

    /// Runs `block`'s kernels over `len` positions; with minimal filtering, for transformed row
    /// `phase`.
    ///
    /// # Panics
    ///
    /// If the strip has fewer positions.
    ///
    /// # Safety
    ///
    /// There are as many `starts` as the block is wide; `finish` holds for its stored channels
    /// and all positions, as a [`Micro`](super::Micro) needs it.
    unsafe fn kernels(
        &self,
        block: &Block,
        phase: usize,
        starts: *const u32,
        finish: Finish,
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
        let channel_stride = conv.geometry.channel_stride();
        let first = block.first_channel * channel_stride + phase * conv.geometry.phase_len();
        let ring = &self.ring[first..];
        let skipped = (self.skipped * block.tap_weights).min(weights.len());
        let mut tile = Tile {
            ring: ring.as_ptr().cast(),
            channel_stride,
            channels: block.channels,
            taps: self.taps.as_ptr(),
            tap_count: self.taps.len(),
            weights: weights[skipped..].as_ptr().cast(),
            weight_stride,
            start: starts,
            finish,
            stored: block.stored,
        };
        let bytes = finish.format.bytes();
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
            tile.finish.place = at;
            // SAFETY: `at < len` positions of ring and target.
            unsafe {
                tile.ring = ring.as_ptr().add(at).cast();
                tile.finish.out = finish.out.add(at * bytes);
            }
            if at + positions <= len {
                tile.finish.out_stride = finish.out_stride;
                // SAFETY: the kernels are the multiplier's, which came from an `Isa`; `advance`
                // checked that every tap plus `len` and slack for the last vector is inside the
                // ring; weights were sliced above, `voxels` has bits for the slack too; the
                // caller vouches for the rest.
                unsafe { micro(&tile) };
            } else {
                let mut partial = [0_u32; TILE];
                assert!(block.width * positions <= TILE);
                (tile.finish.out, tile.finish.out_stride) =
                    (partial.as_mut_ptr().cast(), positions);
                // SAFETY: as above; the target is `partial`, large enough by the assertion.
                unsafe { micro(&tile) };
                for channel in 0..block.stored {
                    // SAFETY: `len - at` positions of a stored channel are left, and that many
                    // were written.
                    unsafe {
                        let from = tile.finish.out.add(channel * positions * bytes);
                        let to = finish.out.add((channel * finish.out_stride + at) * bytes);
                        to.copy_from_nonoverlapping(from, (len - at) * bytes);
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
        assert!(block.width <= ZEROS.len());
        let start = self.extra.as_mut_ptr();
        for phase in 0..phases {
            // SAFETY: channel `c` of this phase occupies `len` floats from
            // `(phase + c * phases) * stride`, inside the worker's own scratch as asserted.
            unsafe {
                let finish = Finish {
                    out: start.add(phase * stride).cast(),
                    out_stride: phases * stride,
                    format: Format::F32,
                    coding: std::ptr::null(),
                    sums: std::ptr::null_mut(),
                    place: 0,
                    voxels: self.voxels.as_ptr(),
                };
                self.kernels(block, phase, ZEROS.as_ptr(), finish, len);
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
        let Conv { isa, geometry, starts, .. } = self.conv;
        let (tile, pitch, stride) = (geometry.tile, geometry.pitch, geometry.phase_len());
        let sums = &self.extra[channel * geometry.phases[0] * stride..];
        let rows = target.len().div_ceil(pitch);
        let bias = f32::from_bits(starts[block.output + channel]);
        for (group, target) in target.chunks_mut(tile * pitch).enumerate() {
            let target = (target, pitch, tile.min(rows - group * tile));
            row::tile_out(*isa, tile, target, (&sums[group * pitch..], stride), width, bias);
        }
    }
}

impl Ahead {
    fn new(conv: &Conv, rows: &Range<usize>) -> Self {
        let geometry = &conv.geometry;
        let tile = geometry.tile;
        let phases = if tile > 1 { tile + 2 } else { 1 };
        let vectors = geometry.positions(rows.len()).div_ceil(conv.multiplier.lanes());
        let calls: usize =
            conv.blocks.iter().map(|block| phases * vectors.div_ceil(block.kernels.len())).sum();
        Self { rows: conv.input_rows(rows), calls_in_all: calls.max(1), ..Self::default() }
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
                prefetch(row);
            }
        }
        self.asked.set(due);
    }
}

/// Asks for the cache lines of `row`.
fn prefetch(row: Row<'_>) {
    /// Bytes of a cache line.
    const LINE: usize = 64;
    let (start, bytes) = (row.start(), row.bytes());
    for place in (0..bytes).step_by(LINE).map(|at| start.wrapping_add(at)) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, without effect on memory; every x86-64 machine has it.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(place.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!(
                "prfm pldl2keep, [{place}]",
                place = in(reg) place,
                options(readonly, nostack, preserves_flags),
            );
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = place;
    }
}

/// What is computed in one go of all slices.
pub(super) struct Pieces {
    /// Output rows, or groups of them with minimal filtering.
    pub(super) rows: Range<usize>,
    /// Rows of a piece; the last one may be lower.
    pub(super) height: usize,
    /// Tasks that a thread gets at least where there are slices for them. Each fills a ring of its own, so
    /// that few are best, but one that ends last keeps the others waiting.
    pub(super) tasks_per_thread: usize,
}

impl Conv {
    /// The input rows that output `rows` (groups of them with minimal filtering) are made of.
    pub(super) fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let (shape, tile) = (&self.shape, self.geometry.tile);
        let first = rows.start * tile * shape.stride[1];
        let end = (rows.end * tile - 1) * shape.stride[1] + shape.reach(1) + 1;
        let inside = |y: usize| y.saturating_sub(shape.pad_begin[1]).min(shape.input[1]);
        inside(first)..inside(end)
    }

    /// Calls `work` with every slice and the rows of every piece, once the worker's ring holds the input
    /// they need.
    pub(super) fn for_each_piece<F>(
        &self,
        sources: &[Source<'_>],
        scratch: &ScratchPool,
        pieces: &Pieces,
        work: F,
    ) where
        F: Fn(&mut Worker<'_>, usize, Range<usize>) + Sync,
    {
        let Pieces { ref rows, height, tasks_per_thread } = *pieces;
        let (slices, strips) = (self.geometry.output[0], rows.len().div_ceil(height));
        let wanted = (rayon::current_num_threads() * tasks_per_thread).div_ceil(strips);
        let length = slices.div_ceil(wanted).max(1);
        let tasks = strips * slices.div_ceil(length);
        let reading = Reading::new(self, sources);
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let (strip, part) = (task % strips, task / strips);
            let first = rows.start + strip * height;
            let rows = first..(first + height).min(rows.end);
            scratch.with(|scratch| {
                let mut worker = Worker::new(self, sources, &reading, scratch, rows.clone());
                for z in part * length..((part + 1) * length).min(slices) {
                    worker.advance(z);
                    work(&mut worker, z, rows.clone());
                }
            });
        });
    }
}
