//! What int8 makes of its inputs in one run: bytes whose range fits the values that are there.
//!
//! Instance normalization sets a patch's spread to one, whatever is in it, so that a little bone in a
//! patch of air lies far outside the range that patches full of bone need. All channels of a layer
//! share the factor, hence weights, which hold the steps of their channels, stay as they are.

use super::{ByteCode, Conv, Row, Source};
use crate::row::{Affine, Fixed};
use rayon::prelude::*;

/// Ranges do not become narrower than this part of what they were: a patch of one value has none.
const LEAST: f32 = 1.0 / 1024.0;

/// How inputs become bytes, and sums what is stored.
pub(super) struct Reading {
    pub(super) fixed: Vec<Fixed>,
    /// Factor and summand of each output channel's sums, if they have any.
    pub(super) codings: Vec<[f32; 2]>,
}

impl Reading {
    pub(super) fn new(conv: &Conv, sources: &[Source<'_>]) -> Self {
        let mut codings = conv.codings.clone();
        if conv.bytes.is_empty() {
            return Self { fixed: Vec::new(), codings };
        }
        let factor = factor(sources, &conv.bytes);
        for [scale, _] in &mut codings {
            *scale *= factor;
        }
        let affines = sources.iter().flat_map(|source| source.affines);
        let fixed = affines
            .zip(&conv.bytes)
            .map(|(&affine, &code)| Fixed::new(affine, code.widened(factor)))
            .collect();
        Self { fixed, codings }
    }
}

/// What the steps of all channels are multiplied with, so that the farthest value just fits.
fn factor(sources: &[Source<'_>], codes: &[ByteCode]) -> f32 {
    let channels = sources.iter().flat_map(|source| {
        source.affines.iter().enumerate().map(move |(c, &affine)| (source, c, affine))
    });
    let channels: Vec<_> = channels.zip(codes).collect();
    let reach = |&((source, c, affine), code): &((&Source<'_>, usize, Affine), &ByteCode)| {
        let [a, b] = extremes(source, c).map(|v| affine.apply(f32::from(v)));
        code.factor(a.min(b), a.max(b))
    };
    channels.par_iter().map(reach).reduce(|| LEAST, f32::max)
}

/// Least and greatest integer of a channel.
fn extremes(source: &Source<'_>, channel: usize) -> [i16; 2] {
    let [depth, height, _] = source.layout.dims;
    let (mut low, mut high) = (i16::MAX, i16::MIN);
    for z in 0..depth {
        for y in 0..height {
            let Row::I16(row) = source.row(channel, z, y) else {
                unreachable!("`check_sources` saw integers")
            };
            low = row.iter().fold(low, |low, &v| low.min(v));
            high = row.iter().fold(high, |high, &v| high.max(v));
        }
    }
    [low, high]
}
