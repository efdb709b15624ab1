//! A convolution that reads a transposed convolution's output, band by band: the enlarged rows that the
//! next strips need are made right before those, in a ring of rows, and never all held.
//!
//! Where a U-Net is widest, that output is as large as the encoder's and as the convolution's own.

use super::{Arithmetic, Conv, Format, Source, Upsample};
use crate::Layout;
use crate::buffer::ScratchPool;
use crate::row::{Affine, Moments};
use std::ops::Range;

/// Bands that a slice is cut into, and strips there are at least: fewer spare little memory.
const BANDS: usize = 7;

/// Both, ready to run.
#[derive(Clone, Debug)]
pub struct UpsampledConv {
    up: Upsample,
    conv: Conv,
    ring: Layout,
}

/// What is enlarged, and where that goes.
#[derive(Debug)]
pub struct Enlarged<'a> {
    /// What the transposed convolution reads.
    pub sources: &'a [Source<'a>],
    /// Sources of the convolution that come before its output.
    pub place: usize,
    /// How the convolution reads it, one per channel.
    pub affines: &'a [Affine],
    /// Memory for [`UpsampledConv::ring`].
    pub ring: &'a mut [f32],
}

impl UpsampledConv {
    /// Where the ring of rows lies in memory, if `conv` can read what `up` makes in one.
    #[must_use]
    pub fn ring_of(up: &Upsample, conv: &Conv) -> Option<Layout> {
        let [slices, rows, width] = up.output();
        let fits = up.output() == conv.shape.input
            && up.outputs <= conv.shape.inputs
            && conv.shape.stride[1] == 1
            // Their bytes follow from the least and greatest value there is.
            && conv.arithmetic != Arithmetic::Int8;
        if !fits || conv.geometry.strips <= BANDS {
            return None;
        }
        let held = bands(up, conv).map(|band| band.made.end * up.factor[1] - band.oldest).max()?;
        (held < rows).then(|| Layout::sliced(up.outputs, [slices, held, width], width))
    }

    /// Joins the two.
    ///
    /// # Panics
    ///
    /// If [`ring_of`](Self::ring_of) has none for them.
    #[must_use]
    pub fn new(up: Upsample, conv: Conv) -> Self {
        let Some(ring) = Self::ring_of(&up, &conv) else { panic!("{up:?} does not fit {conv:?}") };
        Self { up, conv, ring }
    }

    /// Where the ring of enlarged rows lies in memory.
    #[must_use]
    pub fn ring(&self) -> Layout {
        self.ring
    }

    /// How the ring's numbers are stored.
    #[must_use]
    pub fn ring_format(&self) -> Format {
        self.up.format()
    }

    /// Floats of scratch each running thread needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.up.scratch_len().max(self.conv.scratch_len())
    }

    /// Moments that [`run`](Self::run) computes.
    #[must_use]
    pub fn moments_len(&self) -> usize {
        self.conv.moments_len()
    }

    /// Floats the packed weights take.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.up.packed_len() + self.conv.packed_len()
    }

    /// Multiplications and additions of one run.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.up.flops() + self.conv.shape.flops()
    }

    /// Name for logs.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.up.name(), self.conv.name())
    }

    /// Enlarges, and convolves the result with the channels of all `sources` around it, as
    /// [`Upsample::run`] and [`Conv::run`] do one after the other, to the byte.
    ///
    /// # Panics
    ///
    /// As those.
    pub fn run(
        &self,
        sources: &[Source<'_>],
        enlarged: Enlarged<'_>,
        (out, layout): (&mut [f32], Layout),
        mut moments: Option<&mut [Moments]>,
        scratch: &ScratchPool,
    ) {
        let Self { up, conv, ring } = self;
        let Enlarged { sources: small, place, affines, ring: memory } = enlarged;
        let (before, after) = sources.split_at(place);
        let whole = |source: &Source<'_>| source.layout.dims == conv.shape.input;
        assert!(sources.iter().all(whole) && affines.len() == ring.channels);
        for band in bands(up, conv) {
            up.run_rows(small, (memory, *ring), None, scratch, band.made);
            let rows = Source { data: memory, format: up.format(), layout: *ring, affines };
            let sources: Vec<_> =
                before.iter().copied().chain([rows]).chain(after.iter().copied()).collect();
            conv.check_channels(&sources);
            let moments = moments.as_deref_mut();
            conv.run_strips(&sources, (&mut *out, layout), moments, scratch, band.strips);
        }
    }
}

/// Strips that are computed together.
struct Band {
    strips: Range<usize>,
    /// Rows of what is enlarged that have to be, for this band and not before.
    made: Range<usize>,
    /// First enlarged row that is still needed.
    oldest: usize,
}

fn bands(up: &Upsample, conv: &Conv) -> impl Iterator<Item = Band> {
    let (strips, factor) = (conv.geometry.strips, up.factor[1]);
    let mut done = 0;
    (0..strips).step_by(strips.div_ceil(BANDS)).map(move |first| {
        let strips = first..(first + strips.div_ceil(BANDS)).min(strips);
        let rows = conv.geometry.rows(strips.start).start..conv.geometry.rows(strips.end - 1).end;
        let needed = conv.input_rows(&rows);
        let made = done..needed.end.div_ceil(factor).max(done);
        done = made.end;
        Band { strips, oldest: needed.start.min(made.start * factor), made }
    })
}
