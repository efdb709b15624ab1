//! Transposed convolution whose stride is its kernel: every input voxel becomes a box of
//! output voxels by a matrix of its own channels, and boxes do not overlap.

use super::{Conv, Format, Layer, Pieces, Shape, Source};
use crate::Layout;
use crate::buffer::{ScratchPool, Shared};
use crate::isa::Isa;
use crate::row::{self, Moments};
use std::iter::repeat_n;
use std::ops::Range;

/// A transposed convolution ready to run.
#[derive(Clone, Debug)]
pub struct Upsample {
    /// Computes all voxels of the box as channels.
    pub(super) conv: Conv,
    pub(super) factor: [usize; 3],
    pub(super) outputs: usize,
}

impl Upsample {
    /// Packs the weights of `layer` for `isa`. They are `[inputs, outputs, z, y, x]` as many voxels
    /// as `factor` says; the shape's input and channels count, and the rest of it does not.
    ///
    /// # Panics
    ///
    /// If lengths do not fit, a factor is zero, or `isa` cannot multiply in that arithmetic.
    #[must_use]
    pub fn new(isa: Isa, layer: &Layer<'_>, factor: [usize; 3]) -> Self {
        let Shape { inputs, outputs, input, .. } = layer.shape;
        let boxed = factor.iter().product::<usize>();
        let columns = outputs * boxed;
        assert!(columns > 0 && layer.weights.len() == inputs * columns);
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|column| (0..inputs).map(move |i| layer.weights[i * columns + column]))
            .collect();
        let bias: Vec<f32> = layer.bias.iter().flat_map(|&b| repeat_n(b, boxed)).collect();
        let codings: Vec<_> = layer.codings.iter().flat_map(|&c| repeat_n(c, boxed)).collect();
        let layer = Layer {
            shape: Shape::plain(inputs, columns, input, [1; 3]),
            weights: &transposed,
            bias: &bias,
            codings: &codings,
            ..*layer
        };
        Self { conv: Conv::with_tile(isa, &layer, 1, columns), factor, outputs }
    }

    /// Floats of scratch each running thread needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.conv.scratch_len() + self.columns_len()
    }

    /// The boxes of one strip.
    fn columns_len(&self) -> usize {
        let geometry = &self.conv.geometry;
        self.conv.shape.outputs * geometry.strip_rows * geometry.pitch
    }

    /// Moments that [`run`](Self::run) computes: one per piece and output channel.
    #[must_use]
    pub fn moments_len(&self) -> usize {
        self.conv.moments_len() / self.boxed()
    }

    /// Voxels of a box.
    fn boxed(&self) -> usize {
        self.factor.iter().product()
    }

    /// How the output is stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.conv.format
    }

    /// Multiplications and additions of one run.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.conv.shape.flops()
    }

    /// Floats the packed weights take.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.conv.packed_len()
    }

    /// Name for logs.
    #[must_use]
    pub fn name(&self) -> String {
        let [z, y, x] = self.factor;
        self.conv.name().replace("conv1x1x1-s1x1x1", &format!("upsample{z}x{y}x{x}"))
    }

    /// Output voxels.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|k| self.conv.shape.input[k] * self.factor[k])
    }

    /// Enlarges the channels of all `sources`, in order, in the current rayon pool.
    ///
    /// `out` is memory for numbers of the layer's format; `moments` are those of
    /// [`Conv::run`].
    ///
    /// # Panics
    ///
    /// If a layout does not fit the shape or a slice its layout, or scratch is too small.
    pub fn run(
        &self,
        sources: &[Source<'_>],
        out: &mut [f32],
        layout: Layout,
        moments: Option<&mut [Moments]>,
        scratch: &ScratchPool,
    ) {
        assert_eq!(layout.dims, self.output());
        let rows = 0..self.conv.shape.input[1];
        self.run_rows(sources, (out, layout), moments, scratch, rows);
    }

    /// As [`run`](Self::run) of those input rows alone. Where `layout` has fewer rows than the output, each
    /// takes the place of any other that is as many rows, or a multiple of it, away. Moments are those of
    /// all rows.
    pub(super) fn run_rows(
        &self,
        sources: &[Source<'_>],
        (out, layout): (&mut [f32], Layout),
        moments: Option<&mut [Moments]>,
        scratch: &ScratchPool,
        rows: Range<usize>,
    ) {
        self.conv.check_sources(sources);
        assert!(scratch.piece_len() >= self.scratch_len());
        let (output, held) = (self.output(), layout.dims[1]);
        assert_eq!((layout.channels, layout.dims), (self.outputs, [output[0], held, output[2]]));
        // No two of these rows take the same place.
        assert!(rows.end <= self.conv.shape.input[1] && rows.len() * self.factor[1] <= held);
        let is_whole = rows.len() == self.conv.shape.input[1];
        assert!(moments.is_none() || is_whole);
        if rows.is_empty() {
            return;
        }
        assert!(self.conv.format.floats(layout.len()) <= out.len() && layout.is_disjoint());
        let moments = moments.map(|moments| {
            assert_eq!(moments.len(), self.moments_len());
            Shared::new(moments)
        });
        let out = Shared::bytes(out);
        let geometry = &self.conv.geometry;
        let (format, boxed) = (self.conv.format, self.boxed());
        let strips = rows.len().div_ceil(geometry.strip_rows);
        // Few rows are shared out evenly; moments are those of strips.
        let height = if is_whole { geometry.strip_rows } else { rows.len().div_ceil(strips) };
        let pieces = Pieces { rows, height, tasks_per_thread: 6 };
        self.conv.for_each_piece(sources, scratch, &pieces, |worker, z, rows| {
            let len = geometry.positions(rows.len());
            let start = worker.extra.as_mut_ptr().cast::<u8>();
            assert!(self.conv.shape.outputs * len <= worker.extra.len());
            let mut columns = vec![Moments::default(); self.conv.shape.outputs];
            for block in &self.conv.blocks {
                let counted = &mut columns[block.output..][..block.stored];
                // SAFETY: column `c` occupies `c * len .. (c + 1) * len` of the worker's own
                // memory, which the assertion found long enough for floats.
                unsafe {
                    let target = start.add(block.output * len * format.bytes());
                    worker.block(block, target, len, moments.is_some().then_some(counted));
                }
            }
            if let Some(moments) = moments {
                let piece = (z * geometry.strips + rows.start / height) * self.outputs;
                // SAFETY: each piece has its own moments.
                let moments = unsafe { moments.part(piece, self.outputs) };
                for (moments, columns) in moments.iter_mut().zip(columns.chunks_exact(boxed)) {
                    *moments = columns.iter().fold(Moments::default(), |sum, &m| sum.join(m));
                }
            }
            for (row, y) in rows.clone().enumerate() {
                let place = |column: usize| column * len + row * geometry.pitch;
                // SAFETY: rows of the output belong to their input row alone, even where rows share
                // places: these are no more than there are places. Rows of the layout do not
                // overlap; all columns were just computed.
                unsafe {
                    match format {
                        Format::F32 => self.scatter::<f32>(start, place, out, layout, [z, y]),
                        Format::Bf16 | Format::I16 => {
                            self.scatter::<u16>(start, place, out, layout, [z, y]);
                        }
                    }
                }
            }
        });
    }

    /// Puts the columns of input row `[z, y]` where they belong in the output.
    ///
    /// # Safety
    ///
    /// Column `c` holds a row of numbers at `place(c)`; nothing else uses the row's part of the
    /// output.
    unsafe fn scatter<T: row::Interleave>(
        &self,
        columns: *const u8,
        place: impl Fn(usize) -> usize,
        out: Shared<'_, u8>,
        layout: Layout,
        [z, y]: [usize; 2],
    ) {
        let [depth, height, width] = self.factor;
        let input = self.conv.shape.input[2];
        let part = |column: usize| {
            // SAFETY: the caller vouches for the row.
            unsafe { std::slice::from_raw_parts(columns.cast::<T>().add(place(column)), input) }
        };
        for group in 0..self.outputs * depth * height {
            let (channel, inside) = (group / (depth * height), group % (depth * height));
            let (z, y) = (z * depth + inside / height, y * height + inside % height);
            let y = if y < layout.dims[1] { y } else { y % layout.dims[1] };
            let bytes = size_of::<T>();
            let target = out.pointer(layout.at(channel, z, y) * bytes, layout.dims[2] * bytes);
            // SAFETY: the row is inside; `out` is memory of floats, so numbers are aligned.
            let target =
                unsafe { std::slice::from_raw_parts_mut(target.cast::<T>(), layout.dims[2]) };
            let first = group * width;
            if width == 2 {
                T::interleave(self.conv.isa, target, part(first), part(first + 1));
                continue;
            }
            for column in 0..width {
                let places = target[column..].iter_mut().step_by(width);
                places.zip(part(first + column)).for_each(|(t, &v)| *t = v);
            }
        }
    }
}
