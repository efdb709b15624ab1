//! Operators that U-Nets use rarely, as plain loops over whole tensors.

mod pool;
mod resize;
mod transposed;

pub(super) use pool::Pool;
pub(super) use resize::Resize;
pub(super) use transposed::TransposedConv;

use fastnnunet_kernels::conv::Source;
use fastnnunet_kernels::row::{self, Affine, Moments};
use fastnnunet_kernels::{Isa, Layout};
use rayon::prelude::*;

/// One channel of some operand.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a> {
    data: &'a [f32],
    layout: Layout,
    index: usize,
    pub affine: Affine,
}

impl<'a> Channel<'a> {
    /// Channel `c` of all `sources` together.
    pub(super) fn of(sources: &[Source<'a>], mut c: usize) -> Self {
        for source in sources {
            if c < source.layout.channels {
                let Source { data, layout, affines } = *source;
                return Self { data, layout, index: c, affine: affines[c] };
            }
            c -= source.layout.channels;
        }
        panic!("{c} channels too far")
    }

    /// A row as stored.
    pub(super) fn row(&self, z: usize, y: usize) -> &'a [f32] {
        &self.data[self.layout.at(self.index, z, y)..][..self.layout.dims[2]]
    }

    /// A voxel as read.
    pub(super) fn at(&self, z: usize, y: usize, x: usize) -> f32 {
        self.affine.apply(self.data[self.layout.at(self.index, z, y) + x])
    }

    pub(super) fn dims(&self) -> [usize; 3] {
        self.layout.dims
    }
}

/// Calls `fill` for every row of `out`, slices or channels in parallel, with its channel, its
/// slice and its place there.
pub(super) fn for_each_row<F>(out: &mut [f32], layout: Layout, fill: F)
where
    F: Fn(usize, usize, usize, &mut [f32]) + Sync,
{
    let sliced = layout.z_stride >= layout.channel_stride * layout.channels;
    let (outer, inner) = if sliced {
        (layout.z_stride, layout.channel_stride)
    } else {
        (layout.channel_stride, layout.z_stride)
    };
    let (outers, inners) =
        if sliced { (layout.dims[0], layout.channels) } else { (layout.channels, layout.dims[0]) };
    out.par_chunks_mut(outer).take(outers).enumerate().for_each(|(i, part)| {
        for (j, plane) in part.chunks_mut(inner).take(inners).enumerate() {
            let (z, c) = if sliced { (i, j) } else { (j, i) };
            for (y, row) in plane.chunks_mut(layout.pitch).take(layout.dims[1]).enumerate() {
                fill(c, z, y, &mut row[..layout.dims[2]]);
            }
        }
    });
}

/// The channels as read.
pub(super) fn copy(isa: Isa, sources: &[Source<'_>], out: &mut [f32], layout: Layout) {
    for_each_row(out, layout, |c, z, y, row| {
        let channel = Channel::of(sources, c);
        row::activate(isa, row, channel.row(z, y), channel.affine);
    });
}

/// `f` of every voxel.
pub(super) fn map(
    sources: &[Source<'_>],
    out: &mut [f32],
    layout: Layout,
    f: impl Fn(f32) -> f32 + Sync,
) {
    for_each_row(out, layout, |c, z, y, row| {
        let channel = Channel::of(sources, c);
        for (t, &v) in row.iter_mut().zip(channel.row(z, y)) {
            *t = f(channel.affine.apply(v));
        }
    });
}

/// `f` of both operands; one with a single voxel along an axis, or a single channel, is
/// repeated.
pub(super) fn combine(
    left: &[Source<'_>],
    right: &[Source<'_>],
    out: &mut [f32],
    layout: Layout,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    for_each_row(out, layout, |c, z, y, row| {
        let pick = |sources: &[Source<'_>]| {
            let count: usize = sources.iter().map(|source| source.layout.channels).sum();
            if count == 1 { 0 } else { c }
        };
        let (a, b) = (Channel::of(left, pick(left)), Channel::of(right, pick(right)));
        let full = layout.dims;
        if a.dims() == full && b.dims() == full {
            for ((t, &v), &w) in row.iter_mut().zip(a.row(z, y)).zip(b.row(z, y)) {
                *t = f(a.affine.apply(v), b.affine.apply(w));
            }
            return;
        }
        let at = |operand: &Channel<'_>, x: usize| {
            let [z, y, x] =
                std::array::from_fn(|k| if operand.dims()[k] == 1 { 0 } else { [z, y, x][k] });
            operand.at(z, y, x)
        };
        for (x, t) in row.iter_mut().enumerate() {
            *t = f(at(&a, x), at(&b, x));
        }
    });
}

/// Exponentials that sum to 1 over channels. `out` holds all channels of a slice together.
pub(super) fn softmax(sources: &[Source<'_>], out: &mut [f32], layout: Layout) {
    let channels: Vec<_> = (0..layout.channels).map(|c| Channel::of(sources, c)).collect();
    out.par_chunks_mut(layout.z_stride).take(layout.dims[0]).enumerate().for_each(|(z, slab)| {
        for y in 0..layout.dims[1] {
            for x in 0..layout.dims[2] {
                let place = |c: usize| c * layout.channel_stride + y * layout.pitch + x;
                let largest = channels.iter().map(|c| c.at(z, y, x)).fold(f32::MIN, f32::max);
                let mut sum = 0.0;
                for (c, channel) in channels.iter().enumerate() {
                    slab[place(c)] = (channel.at(z, y, x) - largest).exp();
                    sum += slab[place(c)];
                }
                (0..channels.len()).for_each(|c| slab[place(c)] /= sum);
            }
        }
    });
}

/// The mean of each channel as its only voxel.
pub(super) fn global_average(sources: &[Source<'_>], out: &mut [f32], layout: Layout) {
    for_each_row(out, layout, |c, _, _, row| {
        let channel = Channel::of(sources, c);
        let [depth, height, width] = channel.dims();
        let mut sum = 0.0_f64;
        for z in 0..depth {
            for y in 0..height {
                let values = channel.row(z, y).iter().map(|&v| f64::from(channel.affine.apply(v)));
                sum += values.sum::<f64>();
            }
        }
        row[0] = (sum / (depth * height * width) as f64) as f32;
    });
}

/// Moments of every slice and channel, channels fastest; returns how many.
pub(super) fn moments(isa: Isa, out: &[f32], layout: Layout, moments: &mut [Moments]) -> usize {
    let count = layout.dims[0] * layout.channels;
    moments[..count].par_iter_mut().enumerate().for_each(|(at, m)| {
        let (z, c) = (at / layout.channels, at % layout.channels);
        let rows = (layout.dims[1], layout.dims[2], layout.pitch);
        *m = Moments::of_rows(isa, &out[layout.at(c, z, 0)..], rows);
    });
    count
}
