//! Fills the ring: where normalization, activation, padding and concatenation happen.

use super::shape::{Geometry, Shape};
use super::{Arithmetic, Source};
use crate::isa::Isa;
use crate::row::{self, Affine};

/// Copies input slices into a thread's ring.
pub(super) struct Filler<'a> {
    pub isa: Isa,
    pub arithmetic: Arithmetic,
    pub shape: &'a Shape,
    pub geometry: &'a Geometry,
    pub sources: &'a [Source<'a>],
}

impl<'a> Filler<'a> {
    /// Elements of the two rows of scratch that `fill` needs.
    pub(super) fn scratch_len(shape: &Shape, geometry: &Geometry) -> usize {
        Self::row_len(shape, geometry) * (geometry.tile + 2) + shape.input[2]
    }

    /// A padded input row, before it is sorted into phases.
    fn row_len(shape: &Shape, geometry: &Geometry) -> usize {
        (shape.stride[2] * geometry.pitch).max(shape.pad_begin[2] + shape.input[2])
    }

    /// Row `y` of slice `z` of channel `c` of the joined sources.
    pub(super) fn source_row(
        &self,
        mut c: usize,
        z: usize,
        y: usize,
    ) -> Option<(&'a [f32], Affine)> {
        for source in self.sources {
            if c < source.layout.channels {
                let start = source.layout.at(c, z, y);
                return Some((&source.data[start..][..self.shape.input[2]], source.affines[c]));
            }
            c -= source.layout.channels;
        }
        None
    }

    /// Writes one row as the kernels read it, in one pass over its voxels.
    fn read_row(&self, channel: usize, z: usize, y: usize, zeros: &[f32], target: &mut [f32]) {
        let absent = (zeros, Affine::IDENTITY);
        match self.arithmetic {
            Arithmetic::F32 => {
                let (row, affine) = self.source_row(channel, z, y).unwrap_or(absent);
                row::activate(self.isa, target, row, affine);
            }
            Arithmetic::Bf16 => {
                let first = self.source_row(2 * channel, z, y).unwrap_or(absent);
                let second = self.source_row(2 * channel + 1, z, y).unwrap_or(absent);
                row::activate_pairs(self.isa, target, first, second);
            }
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
        let (padded, rest) = scratch.split_at_mut(Self::row_len(shape, geometry));
        let zeros = &mut rest[..width];
        zeros.fill(0.0);
        for (channel, target) in
            slot.chunks_exact_mut(geometry.channel_stride()).take(geometry.channels).enumerate()
        {
            for row_phase in 0..row_phases {
                let first_phase = row_phase * column_phases * geometry.phase_len();
                for row in 0..rows + geometry.extra_rows {
                    let y = ((first_row + row) * shape.stride[1] + row_phase)
                        .checked_sub(shape.pad_begin[1])
                        .filter(|&y| y < height);
                    let start = first_phase + row * pitch;
                    let phase = |p: usize| start + p * geometry.phase_len();
                    let Some(y) = y else {
                        (0..column_phases).for_each(|p| target[phase(p)..][..pitch].fill(0.0));
                        continue;
                    };
                    if shape.stride[2] == 1 && before + width <= pitch {
                        let out = &mut target[start..][..pitch];
                        out[..before].fill(0.0);
                        self.read_row(channel, z, y, zeros, &mut out[before..before + width]);
                        out[before + width..].fill(0.0);
                        continue;
                    }
                    padded[..before].fill(0.0);
                    self.read_row(channel, z, y, zeros, &mut padded[before..before + width]);
                    padded[before + width..].fill(0.0);
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
        let (padded, zeros) = scratch.split_at_mut(pitch * (tile + 2));
        let zeros = &mut zeros[..width];
        zeros.fill(0.0);
        let channels = slot.chunks_exact_mut(geometry.channel_stride());
        for (channel, target) in channels.take(geometry.channels).enumerate() {
            padded.fill(0.0);
            for row in 0..rows {
                // Two rows of the group before are the first of this one.
                let known = if row == 0 { 0 } else { 2 };
                padded.copy_within(tile * pitch..(tile + known) * pitch, 0);
                for (k, padded) in padded.chunks_exact_mut(pitch).enumerate().skip(known) {
                    let y = ((first_row + row) * tile + k).checked_sub(shape.pad_begin[1]);
                    match y.filter(|&y| y < shape.input[1]) {
                        Some(y) => {
                            self.read_row(channel, z, y, zeros, &mut padded[columns.clone()]);
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
