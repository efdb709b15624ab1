//! Convolution with the previous layer's normalization fused in front and this layer's
//! statistics behind.
//!
//! The output is cut into pieces, a strip of rows of one slice each. A task takes the same
//! strip of consecutive slices, keeps the input it needs in a ring in its own scratch memory
//! (see `shape::Geometry`), and runs micro-kernels over the strip, one block of output
//! channels after the other. Pieces do not depend on the number of threads, so neither does
//! any result.

mod format;
pub(crate) mod multiplier;
mod pack;
mod peak;
mod reading;
mod ring;
mod shape;
pub(crate) mod tile;
mod upsample;
mod upsampled;
mod worker;

pub use format::{ByteCode, Coding, Format, Row, RowMut};
pub use peak::multiply_in_cache;
pub use shape::Shape;
pub use upsample::Upsample;
pub use upsampled::{Enlarged, UpsampledConv};

pub(crate) use multiplier::{Bytes, Multiplier, Vectors};
pub(crate) use tile::{Micro, Tile};

use super::Layout;
use super::buffer::{Buffer, ScratchPool, Shared};
use super::isa::Isa;
use super::row::{Affine, Fixed, Moments};
use multiplier::Block;
use ring::Filler;
use shape::Geometry;
use std::ops::Range;
use worker::Pieces;

/// Fewest channels on either side for which minimal filtering pays for its transforms.
const MIN_CHANNELS: usize = 4;

/// Transformed weights are twice as many. Beyond a cache, each slice reads them from memory, and
/// a slice of few positions waits for them: 320 channels at 6x6 ran at half the speed.
const CACHED_WEIGHTS: usize = 1 << 19;

/// Positions of a slice that are few in that sense.
const FEW_POSITIONS: usize = 128;

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floats.
    F32,
    /// Inputs and weights rounded to bf16; sums are `f32`.
    Bf16,
    /// Inputs and weights rounded to bytes; sums are exact.
    Int8,
}

impl Arithmetic {
    /// Channels in an element of the ring.
    fn channels(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// What a convolution multiplies with, in what, and how it stores what comes out.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// Sizes.
    pub shape: Shape,
    /// `[outputs, inputs / groups, z, y, x]`.
    pub weights: &'a [f32],
    /// One per output channel.
    pub bias: &'a [f32],
    /// What is multiplied. Grouped convolutions run in `f32` only.
    pub arithmetic: Arithmetic,
    /// For int8, how each input channel becomes bytes, up to one factor for all steps that each run
    /// chooses; its sources hold 16-bit integers, and are read through rectifiers with slopes from
    /// 0 to 1.
    pub bytes: &'a [ByteCode],
    /// How the output is stored.
    pub format: Format,
    /// For 16-bit integers, how each output channel becomes those.
    pub codings: &'a [Coding],
}

impl<'a> Layer<'a> {
    /// Whether int8 can read a channel whose negative values are multiplied by `slope`.
    #[must_use]
    pub fn takes_slope(slope: f32) -> bool {
        Fixed::takes(slope)
    }

    /// A layer that stores floats; `arithmetic` is not int8.
    #[must_use]
    pub fn new(arithmetic: Arithmetic, shape: Shape, weights: &'a [f32], bias: &'a [f32]) -> Self {
        let format = Format::F32;
        Self { shape, weights, bias, arithmetic, bytes: &[], format, codings: &[] }
    }

    /// Whether minimal filtering can compute it: three neighboring rows at a time.
    fn can_tile(&self) -> bool {
        let Shape { groups, kernel, stride, dilation, .. } = self.shape;
        self.arithmetic == Arithmetic::F32
            && self.format == Format::F32
            && groups == 1
            && kernel[1] == 3
            && stride[1..] == [1, 1]
            && dilation[1] == 1
    }

    /// Rows that minimal filtering should make together, 1 for direct convolution.
    fn best_tile(&self) -> usize {
        let shape = &self.shape;
        let enough = shape.inputs.min(shape.outputs) >= MIN_CHANNELS;
        let [_, rows, columns] = shape.output().unwrap_or_default();
        let streamed = shape.weights() > CACHED_WEIGHTS && rows * columns < FEW_POSITIONS;
        if !enough || streamed || !self.can_tile() {
            return 1;
        }
        // Whole tiles where that can be had; half a tile of four is a tile of two.
        match rows {
            3 | 4 | 7.. => 4,
            2.. => 2,
            _ => 1,
        }
    }
}

/// Input channels as stored, and how to read them.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Memory that holds the values.
    pub data: &'a [f32],
    /// How.
    pub format: Format,
    /// Where they are. Where fewer rows are held than a slice has, row `y` takes the place of any other that
    /// is as many rows, or a multiple of it, away.
    pub layout: Layout,
    /// One per channel.
    pub affines: &'a [Affine],
}

impl<'a> Source<'a> {
    /// A row of a channel.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn row(&self, channel: usize, z: usize, y: usize) -> Row<'a> {
        let held = self.layout.dims[1];
        let y = if y < held { y } else { y % held };
        Row::of(self.format, self.data, self.layout.at(channel, z, y), self.layout.dims[2])
    }
}

/// A convolution ready to run.
#[derive(Clone)]
pub struct Conv {
    isa: Isa,
    multiplier: &'static dyn Multiplier,
    arithmetic: Arithmetic,
    shape: Shape,
    format: Format,
    /// Output voxels.
    output: [usize; 3],
    geometry: Geometry,
    blocks: Vec<Block>,
    /// Whether the kernel's slices count as channels, see [`Multiplier::folds`].
    folded: bool,
    /// Bits of what is multiplied.
    weights: Buffer,
    /// Bits of what the sums of each output channel start from, and some more; in int8, for each
    /// slice of the kernel what it adds if it lies inside the input.
    starts: Vec<u32>,
    /// Factor and summand of each output channel's sums, if they have any; in int8 for the ranges
    /// as they were measured.
    codings: Vec<[f32; 2]>,
    /// How each input channel becomes bytes.
    bytes: Vec<ByteCode>,
}

impl Conv {
    /// Packs the weights of `layer` for `isa`.
    ///
    /// # Panics
    ///
    /// If lengths do not fit the shape, the kernel does not fit the input, or `isa` cannot
    /// multiply in that arithmetic.
    #[must_use]
    pub fn new(isa: Isa, layer: &Layer<'_>) -> Self {
        Self::with_tile(isa, layer, layer.best_tile(), 0)
    }

    /// As [`new`](Self::new) with a choice of `tile`, for a caller that keeps `more_floats` per
    /// position in scratch.
    fn with_tile(isa: Isa, layer: &Layer<'_>, tile: usize, mut more_floats: usize) -> Self {
        let Layer { ref shape, arithmetic, format, .. } = *layer;
        let Some(output) = shape.output() else { panic!("the kernel does not fit: {shape:?}") };
        assert!(shape.groups > 0 && shape.inputs.is_multiple_of(shape.groups));
        assert!(shape.outputs.is_multiple_of(shape.groups) && !output.contains(&0));
        assert_eq!(layer.weights.len(), shape.weights());
        assert_eq!(layer.bias.len(), shape.outputs);
        assert!(arithmetic == Arithmetic::F32 || shape.groups == 1);
        assert!(arithmetic != Arithmetic::Int8 || layer.bytes.len() == shape.inputs);
        assert!(format != Format::I16 || layer.codings.len() == shape.outputs);
        assert!(tile == 1 || layer.can_tile());
        let multiplier = isa.multiplier(arithmetic);
        let Some(multiplier) = multiplier else { panic!("{isa} has no {arithmetic}") };
        let channels = shape.inputs.div_ceil(arithmetic.channels());
        if tile > 1 {
            more_floats += (tile + 2) * multiplier.widest();
        }
        let geometry = Geometry::new(shape, output, channels, tile, more_floats);
        let mut conv = Self {
            isa,
            multiplier,
            arithmetic,
            folded: multiplier.folds(shape, channels),
            shape: shape.clone(),
            format,
            output,
            geometry,
            blocks: Vec::new(),
            weights: Buffer::default(),
            starts: Vec::new(),
            codings: Vec::new(),
            bytes: layer.bytes.to_vec(),
        };
        conv.pack(layer);
        conv
    }

    /// The convolution's sizes.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What is multiplied.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// How its output is stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Floats the packed weights take.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.weights.len() + self.starts.len() + 2 * (self.codings.len() + self.bytes.len())
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
    /// `out` is memory for numbers of the layer's format. Those between the end of a row and the
    /// next (up to the pitch) are overwritten. `moments`, if asked for, get each piece's moments,
    /// channels fastest: those of the values before they are rounded to 16 bits, and of 16-bit
    /// integers in their own unit.
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
        self.run_strips(sources, (out, layout), moments, scratch, 0..self.geometry.strips);
    }

    /// As [`run`](Self::run), the strips of that number alone. Sources may hold no more than the rows
    /// that those read, which the caller has checked.
    fn run_strips(
        &self,
        sources: &[Source<'_>],
        (out, layout): (&mut [f32], Layout),
        moments: Option<&mut [Moments]>,
        scratch: &ScratchPool,
        strips: Range<usize>,
    ) {
        assert!(scratch.piece_len() >= self.scratch_len());
        assert_eq!((layout.channels, layout.dims), (self.shape.outputs, self.output));
        assert_eq!(layout.pitch, self.geometry.pitch);
        assert!(self.format.floats(layout.len()) <= out.len() && layout.is_disjoint());
        let moments = moments.map(|moments| {
            assert_eq!(moments.len(), self.moments_len());
            Shared::new(moments)
        });
        let (format, tile, height) = (self.format, self.geometry.tile, self.geometry.strip_rows);
        // Where strips go one after the other, all threads wait for the last task of each.
        let tasks_per_thread = if strips.len() == self.geometry.strips { 6 } else { 2 };
        let rows = self.geometry.rows(strips.start).start..self.geometry.rows(strips.end - 1).end;
        let pieces = Pieces { rows, height, tasks_per_thread };
        // The numbers' own memory; a row's end may share its last float with the next row.
        let out = Shared::bytes(out);
        self.for_each_piece(sources, scratch, &pieces, |worker, z, strip_rows| {
            let rows = strip_rows.start * tile..(strip_rows.end * tile).min(self.output[1]);
            let len = (rows.len() - 1) * layout.pitch + layout.dims[2];
            let first = layout.at(0, z, rows.start);
            let mut piece = moments.map(|moments| {
                let strip = strip_rows.start / height;
                let piece = (z * self.geometry.strips + strip) * self.shape.outputs;
                // SAFETY: each piece has its own moments.
                unsafe { moments.part(piece, self.shape.outputs) }
            });
            for block in &self.blocks {
                let start = first + block.output * layout.channel_stride;
                let span = (block.stored - 1) * layout.channel_stride + len;
                let target = out.pointer(start * format.bytes(), span * format.bytes());
                let moments =
                    piece.as_mut().map(|piece| &mut piece[block.output..][..block.stored]);
                if tile == 1 {
                    // SAFETY: `pointer` checked the span of all stored channels; the layout's
                    // rows are disjoint and this piece of the output is this call's alone.
                    unsafe { worker.block(block, target, layout.channel_stride, moments) };
                    continue;
                }
                worker.sum_rows(block, strip_rows.len());
                let mut moments = moments;
                for channel in 0..block.stored {
                    let rows = (rows.len(), layout.dims[2], layout.pitch);
                    // SAFETY: as above; minimal filtering stores floats, aligned as `out` is.
                    #[allow(clippy::cast_ptr_alignment, reason = "floats are there")]
                    let target = unsafe {
                        let start = target.cast::<f32>().add(channel * layout.channel_stride);
                        std::slice::from_raw_parts_mut(start, len)
                    };
                    worker.store_rows(block, channel, target, layout.dims[2]);
                    if let Some(moments) = &mut moments {
                        moments[channel] = Moments::of_rows(self.isa, target, rows);
                    }
                }
            }
        });
    }

    fn check_sources(&self, sources: &[Source<'_>]) {
        assert!(sources.iter().all(|source| source.layout.dims == self.shape.input));
        self.check_channels(sources);
    }

    /// As [`check_sources`](Self::check_sources), but for how many rows the sources hold.
    fn check_channels(&self, sources: &[Source<'_>]) {
        let channels: usize = sources.iter().map(|source| source.layout.channels).sum();
        assert_eq!(channels, self.shape.inputs);
        for source in sources {
            let [slices, _, width] = source.layout.dims;
            assert_eq!([slices, width], [self.shape.input[0], self.shape.input[2]]);
            assert_eq!(source.affines.len(), source.layout.channels);
            assert!(source.format.floats(source.layout.len()) <= source.data.len());
            assert!(self.arithmetic != Arithmetic::Int8 || source.format == Format::I16);
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
