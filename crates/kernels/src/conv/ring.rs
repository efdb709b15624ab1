//! Fills the ring: where normalization, activation, padding and concatenation happen.

use super::shape::{Geometry, Shape};
use super::{Arithmetic, Conv, Row, Source};
use crate::isa::Isa;
use crate::row::{self, Affine, Fixed};

/// Copies input slices into a thread's ring.
pub(super) struct Filler<'a> {
    isa: Isa,
    arithmetic: Arithmetic,
    pub(super) shape: &'a Shape,
    geometry: &'a Geometry,
    sources: &'a [Source<'a>],
    /// How channels become bytes.
    fixed: &'a [Fixed],
    /// Bits of bytes that are inverted.
    flip: u32,
}

impl<'a> Filler<'a> {
    pub(super) fn new(conv: &'a Conv, sources: &'a [Source<'a>], fixed: &'a [Fixed]) -> Self {
        let Conv { isa, arithmetic, ref shape, ref geometry, .. } = *conv;
        let flip = conv.multiplier.bytes().flip();
        Self { isa, arithmetic, shape, geometry, sources, fixed, flip }
    }

    /// Elements of the rows of scratch that `fill` needs.
    pub(super) fn scratch_len(shape: &Shape, geometry: &Geometry) -> usize {
        Self::row_len(shape, geometry) * (geometry.tile + 2) + 2 * shape.input[2]
    }

    /// A padded input row, before it is sorted into phases.
    fn row_len(shape: &Shape, geometry: &Geometry) -> usize {
        (shape.stride[2] * geometry.pitch).max(shape.pad_begin[2] + shape.input[2])
    }

    /// Row `y` of slice `z` of channel `c` of the joined sources.
    pub(super) fn source_row(&self, mut c: usize, z: usize, y: usize) -> Option<(Row<'a>, Affine)> {
        for source in self.sources {
            if c < source.layout.channels {
                return Some((source.row(c, z, y), source.affines[c]));
            }
            c -= source.layout.channels;
        }
        None
    }

    /// Writes one row as the kernels read it, in one pass over its voxels.
    fn read_row(
        &self,
        channel: usize,
        z: usize,
        y: usize,
        scratch: &mut [f32],
        target: &mut [f32],
    ) {
        let width = target.len();
        match self.arithmetic {
            Arithmetic::F32 => match self.source_row(channel, z, y) {
                Some((row, affine)) => row::activate(self.isa, target, row, affine),
                None => target.fill(0.0),
            },
            Arithmetic::Bf16 => {
                let (a, b) = scratch.split_at_mut(width);
                let first = self.source_row(2 * channel, z, y);
                let second = self.source_row(2 * channel + 1, z, y);
                let (first, second) = match (first, second) {
                    (Some(first), Some(second)) if first.0.is_like(second.0) => (first, second),
                    // The last of an odd number, or rows in two formats.
                    (first, second) => {
                        (self.as_floats(first, a), self.as_floats(second, &mut b[..width]))
                    }
                };
                row::activate_pairs(self.isa, target, first, second);
            }
            Arithmetic::Int8 => {
                let first = 4 * channel;
                let quad = std::array::from_fn(|k| match self.source_row(first + k, z, y) {
                    Some((Row::I16(row), _)) => (row, self.fixed[first + k]),
                    // Nothing is multiplied with it.
                    _ => match self.source_row(first, z, y) {
                        Some((Row::I16(row), _)) => (row, Fixed::default()),
                        _ => unreachable!("`check_sources` saw integers"),
                    },
                });
                row::quantize(self.isa, target, quad, self.flip);
            }
        }
    }

    /// A row as it is read, in `scratch`; zeros for none.
    fn as_floats<'s>(
        &self,
        row: Option<(Row<'_>, Affine)>,
        scratch: &'s mut [f32],
    ) -> (Row<'s>, Affine) {
        match row {
            Some((row, affine)) => row::activate(self.isa, scratch, row, affine),
            None => scratch.fill(0.0),
        }
        (Row::F32(scratch), Affine::IDENTITY)
    }

    /// What padding is in the ring.
    fn blank(&self, channel: usize) -> f32 {
        if self.arithmetic != Arithmetic::Int8 {
            return 0.0;
        }
        let zero = |k: usize| self.fixed.get(4 * channel + k).map_or(0, |fixed| fixed.zero as u8);
        f32::from_bits(u32::from_le_bytes(std::array::from_fn(zero)) ^ self.flip)
    }

    /// Fills `slot` with padding.
    pub(super) fn fill_blank(&self, slot: &mut [f32]) {
        let channels = slot.chunks_exact_mut(self.geometry.channel_stride());
        for (channel, target) in channels.enumerate() {
            target.fill(self.blank(channel));
        }
    }

    /// Fills `slot` with the rows of input slice `z` that the output rows from `first_row` on
    /// read.
    pub(super) fn fill(
        &self,
        slot: &mut [f32],
        scratch: &mut [f32],
        z: usize,
        first_row: usize,
        rows: usize,
    ) {
        let (shape, geometry) = (self.shape, self.geometry);
        let [height, width] = [shape.input[1], shape.input[2]];
        let (pitch, before) = (geometry.pitch, shape.pad_begin[2]);
        let [row_phases, column_phases] = geometry.phases;
        if geometry.tile > 1 {
            self.fill_transformed(slot, scratch, z, first_row, rows);
            return;
        }
        let (padded, scratch) = scratch.split_at_mut(Self::row_len(shape, geometry));
        for (channel, target) in
            slot.chunks_exact_mut(geometry.channel_stride()).take(geometry.channels).enumerate()
        {
            let blank = self.blank(channel);
            for row_phase in 0..row_phases {
                let first_phase = row_phase * column_phases * geometry.phase_len();
                let end = first_phase + (rows + geometry.extra_rows) * pitch;
                target[end..][..geometry.after].fill(blank);
                for row in 0..rows + geometry.extra_rows {
                    let y = ((first_row + row) * shape.stride[1] + row_phase)
                        .checked_sub(shape.pad_begin[1])
                        .filter(|&y| y < height);
                    let start = first_phase + row * pitch;
                    let phase = |p: usize| start + p * geometry.phase_len();
                    let Some(y) = y else {
                        (0..column_phases).for_each(|p| target[phase(p)..][..pitch].fill(blank));
                        continue;
                    };
                    if shape.stride[2] == 1 && before + width <= pitch {
                        let out = &mut target[start..][..pitch];
                        out[..before].fill(blank);
                        self.read_row(channel, z, y, scratch, &mut out[before..before + width]);
                        out[before + width..].fill(blank);
                        continue;
                    }
                    padded[..before].fill(blank);
                    self.read_row(channel, z, y, scratch, &mut padded[before..before + width]);
                    padded[before + width..].fill(blank);
                    if shape.stride[2] == 2 && column_phases == 2 {
                        let (even, odd) = target[start..].split_at_mut(geometry.phase_len());
                        row::split(self.isa, &mut even[..pitch], &mut odd[..pitch], padded);
                        continue;
                    }
                    for p in 0..column_phases {
                        let columns = padded[p..].iter().step_by(shape.stride[2]);
                        target[phase(p)..][..pitch]
                            .iter_mut()
                            .zip(columns)
                            .for_each(|(t, &v)| *t = v);
                    }
                }
            }
        }
    }

    /// As `fill` for minimal filtering: rows are groups of `tile`, and what the ring gets are
    /// transformed rows.
    fn fill_transformed(
        &self,
        slot: &mut [f32],
        scratch: &mut [f32],
        z: usize,
        first_row: usize,
        rows: usize,
    ) {
        let (shape, geometry) = (self.shape, self.geometry);
        let (tile, pitch, width) = (geometry.tile, geometry.pitch, shape.input[2]);
        let columns = shape.pad_begin[2]..shape.pad_begin[2] + width;
        let (padded, scratch) = scratch.split_at_mut(pitch * (tile + 2));
        let channels = slot.chunks_exact_mut(geometry.channel_stride());
        for (channel, target) in channels.take(geometry.channels).enumerate() {
            for phase in 0..tile + 2 {
                let end = phase * geometry.phase_len() + rows * pitch;
                target[end..][..geometry.after].fill(0.0);
            }
            padded.fill(0.0);
            for row in 0..rows {
                // Two rows of the group before are the first of this one.
                let known = if row == 0 { 0 } else { 2 };
                padded.copy_within(tile * pitch..(tile + known) * pitch, 0);
                for (k, padded) in padded.chunks_exact_mut(pitch).enumerate().skip(known) {
                    let y = ((first_row + row) * tile + k).checked_sub(shape.pad_begin[1]);
                    match y.filter(|&y| y < shape.input[1]) {
                        Some(y) => {
                            self.read_row(channel, z, y, scratch, &mut padded[columns.clone()]);
                        }
                        None => padded.fill(0.0),
                    }
                }
                let target = (&mut target[row * pitch..], geometry.phase_len());
                row::tile_in(self.isa, tile, target, (padded, pitch), pitch);
            }
        }
    }
}
