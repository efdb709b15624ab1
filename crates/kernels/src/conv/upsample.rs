//! Transposed convolution whose stride is its kernel: every input voxel becomes a box of
//! output voxels by a matrix of its own channels, and boxes do not overlap.

use super::{Arithmetic, Conv, Shape, Source};
use crate::Layout;
use crate::buffer::{ScratchPool, Shared};
use crate::isa::Isa;
use crate::row;

/// A transposed convolution ready to run.
#[derive(Clone, Debug)]
pub struct Upsample {
    /// Computes all voxels of the box as channels.
    conv: Conv,
    factor: [usize; 3],
    outputs: usize,
}

impl Upsample {
    /// Packs weights (`[inputs, outputs, z, y, x]`) for `isa`; `input` is in voxels.
    ///
    /// # Panics
    ///
    /// If lengths do not fit, a factor is zero, or `isa` cannot multiply in `arithmetic`.
    #[must_use]
    pub fn new(
        isa: Isa,
        arithmetic: Arithmetic,
        input: [usize; 3],
        factor: [usize; 3],
        weights: &[f32],
        bias: &[f32],
    ) -> Self {
        let (outputs, boxed) = (bias.len(), factor.iter().product::<usize>());
        let columns = outputs * boxed;
        assert!(columns > 0 && weights.len().is_multiple_of(columns));
        let inputs = weights.len() / columns;
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|column| (0..inputs).map(move |i| weights[i * columns + column]))
            .collect();
        let biases: Vec<f32> = bias.iter().flat_map(|&b| std::iter::repeat_n(b, boxed)).collect();
        let shape = Shape::plain(inputs, columns, input, [1; 3]);
        let conv = Conv::with_tile(isa, arithmetic, shape, &transposed, &biases, 1, columns);
        Self { conv, factor, outputs }
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
    /// # Panics
    ///
    /// If a layout does not fit the shape or a slice its layout, or scratch is too small.
    pub fn run(
        &self,
        sources: &[Source<'_>],
        out: &mut [f32],
        layout: Layout,
        scratch: &ScratchPool,
    ) {
        self.conv.check_sources(sources);
        assert!(scratch.piece_len() >= self.scratch_len());
        assert_eq!((layout.channels, layout.dims), (self.outputs, self.output()));
        assert!(layout.len() <= out.len() && layout.is_disjoint());
        let out = Shared::new(out);
        let (isa, geometry) = (self.conv.isa, &self.conv.geometry);
        let [depth, height, width] = self.factor;
        let pitch = geometry.pitch;
        self.conv.for_each_piece(sources, scratch, |worker, z, strip| {
            let rows = geometry.rows(strip);
            let len = geometry.positions(rows.len());
            let start = worker.extra.as_mut_ptr();
            assert!(self.conv.shape.outputs * len <= worker.extra.len());
            for block in &self.conv.blocks {
                // SAFETY: column `c` occupies `c * len .. (c + 1) * len` of the worker's own
                // memory, which the assertion found long enough.
                unsafe { worker.block(block, 0, start.add(block.output * len), len, len) };
            }
            let columns = worker.extra.chunks_exact(len).collect::<Vec<_>>();
            for (group, columns) in
                columns.chunks_exact(width).take(self.outputs * depth * height).enumerate()
            {
                let (channel, inside) = (group / (depth * height), group % (depth * height));
                for (row, y) in rows.clone().enumerate() {
                    let (z, y) = (z * depth + inside / height, y * height + inside % height);
                    // SAFETY: output row (channel, z, y) belongs to this input row alone, and
                    // rows of the layout do not overlap.
                    let target = unsafe { out.part(layout.at(channel, z, y), layout.dims[2]) };
                    let part = |column: usize| &columns[column][row * pitch..][..pitch];
                    match width {
                        1 => target.copy_from_slice(part(0)),
                        2 => row::interleave(isa, target, part(0), part(1)),
                        _ => {
                            for column in 0..width {
                                let places = target[column..].iter_mut().step_by(width);
                                places.zip(part(column)).for_each(|(t, &v)| *t = v);
                            }
                        }
                    }
                }
            }
        });
    }
}
