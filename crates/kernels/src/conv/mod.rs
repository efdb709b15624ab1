//! Direct convolution with the previous layer's normalization fused in front and this layer's
//! statistics behind.
//!
//! The output is cut into pieces, a strip of rows of one slice each. A task takes the same
//! strip of consecutive slices, keeps the input it needs in a ring in its own scratch memory
//! (see `shape::Geometry`), and runs micro-kernels over the strip, one block of output
//! channels after the other. Pieces do not depend on the number of threads, so neither does
//! any result.

pub(crate) mod multiplier;
mod ring;
mod shape;
mod tile;
mod upsample;
mod worker;

pub use shape::Shape;
pub use upsample::Upsample;

use super::Layout;
use super::buffer::{Buffer, ScratchPool, Shared};
use super::isa::Isa;
use super::row::{Affine, Moments, round_bf16, transform_weights};
use ring::Filler;
use shape::Geometry;

use multiplier::{Block, Unpacked};
pub(crate) use multiplier::{Multiplier, Vectors};
pub(crate) use tile::{Micro, Tile, instances, micro};

/// Fewest channels on either side for which minimal filtering pays for its transforms.
const MIN_CHANNELS: usize = 4;

/// Transformed weights are twice as many. Beyond a cache, each slice reads them from memory, and
/// a slice of few positions waits for them: 320 channels at 6x6 ran at half the speed.
const CACHED_WEIGHTS: usize = 1 << 19;

/// Positions of a slice that are few in that sense.
const FEW_POSITIONS: usize = 128;

/// What is multiplied; sums are `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floats.
    F32,
    /// Inputs and weights rounded to bf16.
    Bf16,
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Input channels as stored, and how to read them.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Where they are.
    pub layout: Layout,
    /// One per channel.
    pub affines: &'a [Affine],
}

/// A convolution ready to run.
#[derive(Clone)]
pub struct Conv {
    isa: Isa,
    multiplier: &'static dyn Multiplier,
    arithmetic: Arithmetic,
    shape: Shape,
    /// Output voxels.
    output: [usize; 3],
    geometry: Geometry,
    blocks: Vec<Block>,
    /// Whether the kernel's slices count as channels, see [`Multiplier::folds`].
    folded: bool,
    weights: Buffer,
    bias: Buffer,
}

impl Conv {
    /// Packs weights (`[outputs, inputs / groups, z, y, x]`) for `isa`.
    ///
    /// # Panics
    ///
    /// If lengths do not fit the shape, the kernel does not fit the input, or `isa` cannot
    /// multiply in `arithmetic`. Grouped convolutions run in f32 only.
    #[must_use]
    pub fn new(
        isa: Isa,
        arithmetic: Arithmetic,
        shape: Shape,
        weights: &[f32],
        bias: &[f32],
    ) -> Self {
        let tile = Self::best_tile(arithmetic, &shape);
        Self::with_tile(isa, arithmetic, shape, weights, bias, tile, 0)
    }

    /// Rows that minimal filtering should make together, 1 for direct convolution.
    fn best_tile(arithmetic: Arithmetic, shape: &Shape) -> usize {
        let enough = shape.inputs.min(shape.outputs) >= MIN_CHANNELS;
        let [_, rows, columns] = shape.output().unwrap_or_default();
        let streamed = shape.weights() > CACHED_WEIGHTS && rows * columns < FEW_POSITIONS;
        if !enough || streamed || !Self::can_tile(arithmetic, shape) {
            return 1;
        }
        // Whole tiles where that can be had; half a tile of four is a tile of two.
        match shape.output().unwrap_or_default()[1] {
            3 | 4 | 7.. => 4,
            2.. => 2,
            _ => 1,
        }
    }

    /// Whether minimal filtering can compute `shape`: three neighboring rows at a time.
    fn can_tile(arithmetic: Arithmetic, shape: &Shape) -> bool {
        arithmetic == Arithmetic::F32
            && shape.groups == 1
            && shape.kernel[1] == 3
            && shape.stride[1..] == [1, 1]
            && shape.dilation[1] == 1
    }

    /// As [`new`](Self::new) with a choice of `tile`, for a caller that keeps `more_floats` per
    /// position in scratch.
    fn with_tile(
        isa: Isa,
        arithmetic: Arithmetic,
        shape: Shape,
        weights: &[f32],
        bias: &[f32],
        tile: usize,
        mut more_floats: usize,
    ) -> Self {
        let Some(output) = shape.output() else { panic!("the kernel does not fit: {shape:?}") };
        assert!(shape.groups > 0 && shape.inputs.is_multiple_of(shape.groups));
        assert!(shape.outputs.is_multiple_of(shape.groups) && !output.contains(&0));
        assert_eq!(weights.len(), shape.weights());
        assert_eq!(bias.len(), shape.outputs);
        let paired = arithmetic == Arithmetic::Bf16;
        assert!(!paired || shape.groups == 1);
        let multiplier = isa.multiplier(arithmetic);
        let Some(multiplier) = multiplier else { panic!("{isa} has no {arithmetic}") };
        let channels = if paired { shape.inputs.div_ceil(2) } else { shape.inputs };
        if tile > 1 {
            more_floats += (tile + 2) * multiplier.widest();
        }
        let geometry = Geometry::new(&shape, output, channels, tile, more_floats);
        let mut conv = Self {
            isa,
            multiplier,
            arithmetic,
            folded: multiplier.folds(&shape, channels),
            shape,
            output,
            geometry,
            blocks: Vec::new(),
            weights: Buffer::default(),
            bias: Buffer::default(),
        };
        conv.pack(weights, bias);
        conv
    }

    fn pack(&mut self, weights: &[f32], bias: &[f32]) {
        let (mut packed, mut packed_bias) = (Vec::new(), Vec::new());
        let Shape { inputs, outputs, groups, .. } = self.shape;
        let (group_inputs, group_outputs) = (inputs / groups, outputs / groups);
        let taps: usize = self.shape.kernel.iter().product();
        let weight = |output: usize, input: usize, tap: usize| {
            if input < group_inputs {
                weights[(output * group_inputs + input) * taps + tap]
            } else {
                0.0
            }
        };
        // What is multiplied at once: a channel, or a pair of them in bf16.
        let element = |output: usize, channel: usize, tap: usize| match self.arithmetic {
            Arithmetic::F32 => weight(output, channel, tap),
            Arithmetic::Bf16 => f32::from_bits(
                round_bf16(weight(output, 2 * channel, tap)) >> 16
                    | round_bf16(weight(output, 2 * channel + 1, tap)),
            ),
        };
        let slots = if self.folded { self.geometry.slots } else { 1 };
        let slot_channels = self.geometry.channels / groups;
        let unpacked = Unpacked { taps, slots, slot_channels, element: &element };
        for group in 0..groups {
            let (mut output, end) = (group * group_outputs, (group + 1) * group_outputs);
            while output < end {
                let mut block = self.multiplier.block(end - output, slot_channels * slots);
                (block.output, block.first_channel) = (output, group * slot_channels);
                (block.weights, block.bias) = (packed.len(), packed_bias.len());
                if self.geometry.tile > 1 {
                    self.pack_transformed(&mut packed, &block, weights);
                } else {
                    self.multiplier.pack(&block, &unpacked, &mut packed);
                }
                let each = block.biases / block.width;
                for k in 0..block.width {
                    let value = if k < block.stored { bias[output + k] } else { 0.0 };
                    packed_bias.extend(std::iter::repeat_n(value, each));
                }
                output += block.stored;
                self.blocks.push(block);
            }
        }
        self.weights = Buffer::from_slice(&packed);
        self.bias = Buffer::from_slice(&packed_bias);
    }

    /// Weights of one block for minimal filtering: for each transformed row those of all inputs.
    fn pack_transformed(&self, packed: &mut Vec<f32>, block: &Block, weights: &[f32]) {
        let Block { output, stored, width, .. } = *block;
        let (inputs, tile) = (self.shape.inputs, self.geometry.tile);
        let [depth, rows, columns] = self.shape.kernel;
        let taps = depth * columns;
        let start = packed.len();
        let phase_len = inputs * taps * width;
        packed.resize(start + (tile + 2) * phase_len, 0.0);
        for k in 0..stored {
            for input in 0..inputs {
                for tap in 0..taps {
                    let [z, x] = [tap / columns, tap % columns];
                    let row = |y: usize| {
                        let place = ((output + k) * inputs + input) * depth + z;
                        f64::from(weights[(place * rows + y) * columns + x])
                    };
                    let transformed = transform_weights(tile, [row(0), row(1), row(2)]);
                    let at = start + (input * taps + tap) * width + k;
                    for (phase, w) in transformed.into_iter().enumerate() {
                        packed[at + phase * phase_len] = w as f32;
                    }
                }
            }
        }
    }

    /// The convolution's sizes.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Floats the packed weights take.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.weights.len() + self.bias.len()
    }

    /// Name for logs, for instance `avx512-f32-conv3x3x3-s1`.
    #[must_use]
    pub fn name(&self) -> String {
        let list = |axes: [usize; 3]| axes.map(|n| n.to_string()).join("x");
        let Shape { kernel, stride, .. } = self.shape;
        let method = match self.geometry.tile {
            1 => String::new(),
            tile => format!("-winograd{tile}"),
        };
        let Self { isa, arithmetic, .. } = self;
        format!("{isa}-{arithmetic}-conv{}-s{}{method}", list(kernel), list(stride))
    }

    /// Distance from row to row that the output must have; at least its width.
    #[must_use]
    pub fn pitch(&self) -> usize {
        self.geometry.pitch
    }

    /// Floats of scratch each running thread needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let geometry = &self.geometry;
        let sums = if geometry.tile > 1 {
            geometry.phases[0] * self.multiplier.widest() * geometry.phase_len()
        } else {
            0
        };
        geometry.ring_len() + Filler::scratch_len(&self.shape, geometry) + sums
    }

    /// Moments that [`run`](Self::run) computes: one per piece and output channel.
    #[must_use]
    pub fn moments_len(&self) -> usize {
        self.geometry.output[0] * self.geometry.strips * self.shape.outputs
    }

    /// Convolves the channels of all `sources`, in order, in the current rayon pool.
    ///
    /// Voxels between the end of a row and the next (up to the pitch) are overwritten.
    /// `moments`, if asked for, get each piece's moments, channels fastest.
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
        self.check_sources(sources);
        assert!(scratch.piece_len() >= self.scratch_len());
        assert_eq!((layout.channels, layout.dims), (self.shape.outputs, self.output));
        assert_eq!(layout.pitch, self.geometry.pitch);
        assert!(layout.len() <= out.len() && layout.is_disjoint());
        let moments = moments.map(|moments| {
            assert_eq!(moments.len(), self.moments_len());
            Shared::new(moments)
        });
        let out = Shared::new(out);
        let tile = self.geometry.tile;
        self.for_each_piece(sources, scratch, |worker, z, strip| {
            let strip_rows = self.geometry.rows(strip);
            let rows = strip_rows.start * tile..(strip_rows.end * tile).min(self.output[1]);
            let len = (rows.len() - 1) * layout.pitch + layout.dims[2];
            let first = layout.at(0, z, rows.start);
            for block in &self.blocks {
                let start = first + block.output * layout.channel_stride;
                let span = (block.stored - 1) * layout.channel_stride + len;
                let target = out.pointer(start, span);
                if tile == 1 {
                    // SAFETY: `pointer` checked the span of all stored channels; the layout's
                    // rows are disjoint and this piece of the output is this call's alone.
                    unsafe { worker.block(block, 0, target, layout.channel_stride, len) };
                    continue;
                }
                worker.sum_rows(block, strip_rows.len());
                for channel in 0..block.stored {
                    // SAFETY: as above.
                    let target = unsafe { out.part(start + channel * layout.channel_stride, len) };
                    worker.store_rows(block, channel, target, layout.dims[2]);
                }
            }
            let Some(moments) = moments else { return };
            let piece = (z * self.geometry.strips + strip) * self.shape.outputs;
            // SAFETY: each piece has its own moments.
            let moments = unsafe { moments.part(piece, self.shape.outputs) };
            for (channel, moments) in moments.iter_mut().enumerate() {
                // SAFETY: these are the positions just written by this call.
                let values = unsafe { out.part(first + channel * layout.channel_stride, len) };
                let rows = (rows.len(), layout.dims[2], layout.pitch);
                *moments = Moments::of_rows(self.isa, values, rows);
            }
        });
    }

    fn check_sources(&self, sources: &[Source<'_>]) {
        let channels: usize = sources.iter().map(|source| source.layout.channels).sum();
        assert_eq!(channels, self.shape.inputs);
        for source in sources {
            assert_eq!(source.layout.dims, self.shape.input);
            assert_eq!(source.affines.len(), source.layout.channels);
            assert!(source.layout.len() <= source.data.len());
        }
    }
}

impl std::fmt::Debug for Conv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conv({}, {:?})", self.name(), self.shape)
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod amx_emulator;
#[cfg(test)]
mod tests;
