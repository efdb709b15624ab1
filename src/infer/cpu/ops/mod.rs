//! Operators that U-Nets use rarely, as plain loops over whole tensors.

mod pool;
mod resize;
mod transposed;

pub(super) use pool::Pool;
pub(super) use resize::Resize;
pub(super) use transposed::TransposedConv;

use fastnnunet_kernels::conv::{Coding, Format, Row, RowMut, Source};
use fastnnunet_kernels::row::{self, Affine, Moments};
use fastnnunet_kernels::{Isa, Layout};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

/// One channel of some operand.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a> {
    source: Source<'a>,
    index: usize,
    pub affine: Affine,
}

impl<'a> Channel<'a> {
    /// Channel `c` of all `sources` together.
    pub(super) fn of(sources: &[Source<'a>], mut c: usize) -> Self {
        for source in sources {
            if c < source.layout.channels {
                return Self { source: *source, index: c, affine: source.affines[c] };
            }
            c -= source.layout.channels;
        }
        panic!("{c} channels too far")
    }

    /// A row as stored.
    pub(super) fn row(&self, z: usize, y: usize) -> Row<'a> {
        self.source.row(self.index, z, y)
    }

    /// A voxel as read.
    pub(super) fn at(&self, z: usize, y: usize, x: usize) -> f32 {
        self.affine.apply(match self.row(z, y) {
            Row::F32(row) => row[x],
            Row::Bf16(row) => f32::from_bits(u32::from(row[x]) << 16),
            Row::I16(row) => f32::from(row[x]),
        })
    }

    pub(super) fn dims(&self) -> [usize; 3] {
        self.source.layout.dims
    }
}

/// Where a step writes.
pub(super) struct Target<'a> {
    pub isa: Isa,
    pub data: &'a mut [f32],
    pub layout: Layout,
    pub format: Format,
    /// For 16-bit integers, how each channel becomes those.
    pub codings: &'a [Coding],
    /// One per slice and channel, channels fastest, if anybody asks.
    pub moments: Option<&'a mut [Moments]>,
}

/// Calls `fill` for every row of the target, slices or channels in parallel, with its channel,
/// its slice and its place there. Returns how many moments it computed.
pub(super) fn for_each_row<F>(target: Target<'_>, fill: F) -> usize
where
    F: Fn(usize, usize, usize, &mut [f32]) + Sync,
{
    let Target { isa, data, layout, format, codings, moments } = target;
    let sliced = layout.z_stride >= layout.channel_stride * layout.channels;
    let (outer, inner) = if sliced {
        (layout.z_stride, layout.channel_stride)
    } else {
        (layout.channel_stride, layout.z_stride)
    };
    let (outers, inners) =
        if sliced { (layout.dims[0], layout.channels) } else { (layout.channels, layout.dims[0]) };
    let (asked, mut none) = (moments.is_some(), Vec::new());
    let counted = moments.unwrap_or_else(|| {
        none.resize(outers * inners, Moments::default());
        &mut none
    });
    // Only sliced tensors, whose slices are whole cache lines, have other formats or moments.
    assert!(sliced || (format == Format::F32 && !asked));
    let parts = data.par_chunks_mut(format.floats(outer)).take(outers);
    parts.zip(counted.par_chunks_mut(inners)).enumerate().for_each(|(i, (part, counted))| {
        let mut scratch = vec![0.0; layout.dims[2]];
        let planes = part.chunks_mut(format.floats(inner)).take(inners);
        for (j, (plane, counted)) in planes.zip(counted).enumerate() {
            let (z, c) = if sliced { (i, j) } else { (j, i) };
            let coding = codings.get(c).copied().unwrap_or(Coding::IDENTITY);
            let rows = (layout.dims[1], layout.dims[2], layout.pitch);
            // What an earlier step counted is still there.
            *counted = Moments::default();
            for y in 0..rows.0 {
                if let RowMut::F32(row) = RowMut::of(format, plane, y * layout.pitch, rows.1) {
                    fill(c, z, y, row);
                    continue;
                }
                fill(c, z, y, &mut scratch);
                if asked {
                    let [scale, shift] =
                        if format == Format::I16 { coding.affine() } else { [1.0, 0.0] };
                    let stored: Vec<f32> = scratch.iter().map(|v| v * scale + shift).collect();
                    *counted = counted.join(Moments::of_rows(isa, &stored, (1, rows.1, rows.1)));
                }
                let row = RowMut::of(format, plane, y * layout.pitch, rows.1);
                row::store(isa, row, &scratch, coding);
            }
            if asked && format == Format::F32 {
                *counted = Moments::of_rows(isa, plane, rows);
            }
        }
    });
    if asked { outers * inners } else { 0 }
}

/// The channels as read.
pub(super) fn copy(sources: &[Source<'_>], out: Target<'_>) -> usize {
    let isa = out.isa;
    for_each_row(out, |c, z, y, row| {
        let channel = Channel::of(sources, c);
        row::activate(isa, row, channel.row(z, y), channel.affine);
    })
}

/// The channels as read, slice by slice (`[c, y, x]`), to who takes them.
pub(super) fn give(
    isa: Isa,
    sources: &[Source<'_>],
    layout: Layout,
    take: impl Fn(usize, ArrayView3<'_, f32>) + Sync,
) {
    let [slices, rows, _] = layout.dims;
    let empty = || Array3::zeros((layout.channels, rows, layout.dims[2]));
    (0..slices).into_par_iter().for_each_init(empty, |slice, z| {
        for (c, mut plane) in slice.outer_iter_mut().enumerate() {
            let channel = Channel::of(sources, c);
            for (y, mut row) in plane.outer_iter_mut().enumerate() {
                let Some(row) = row.as_slice_mut() else { unreachable!("allocated whole") };
                row::activate(isa, row, channel.row(z, y), channel.affine);
            }
        }
        take(z, slice.view());
    });
}

/// `f` of every voxel.
pub(super) fn map(sources: &[Source<'_>], out: Target<'_>, f: impl Fn(f32) -> f32 + Sync) -> usize {
    let isa = out.isa;
    for_each_row(out, |c, z, y, row| {
        let channel = Channel::of(sources, c);
        row::activate(isa, row, channel.row(z, y), channel.affine);
        for v in row {
            *v = f(*v);
        }
    })
}

/// `f` of both operands; one with a single voxel along an axis, or a single channel, is
/// repeated.
pub(super) fn combine(
    left: &[Source<'_>],
    right: &[Source<'_>],
    out: Target<'_>,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> usize {
    let (isa, full) = (out.isa, out.layout.dims);
    for_each_row(out, |c, z, y, row| {
        let pick = |sources: &[Source<'_>]| {
            let count: usize = sources.iter().map(|source| source.layout.channels).sum();
            if count == 1 { 0 } else { c }
        };
        let (a, b) = (Channel::of(left, pick(left)), Channel::of(right, pick(right)));
        if a.dims() == full && b.dims() == full {
            let mut other = [0.0; STEP];
            row::activate(isa, row, a.row(z, y), a.affine);
            for (k, row) in row.chunks_mut(STEP).enumerate() {
                let other = &mut other[..row.len()];
                row::activate(isa, other, b.row(z, y).part(k * STEP, row.len()), b.affine);
                for (t, &v) in row.iter_mut().zip(&*other) {
                    *t = f(*t, v);
                }
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
    })
}

/// Voxels of the second operand worked on at once.
const STEP: usize = 128;

/// Exponentials that sum to 1 over channels. The target holds all channels of a slice together,
/// as floats.
pub(super) fn softmax(sources: &[Source<'_>], target: Target<'_>) -> usize {
    let Target { isa, data: out, layout, format, moments, .. } = target;
    assert_eq!(format, Format::F32);
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
    moments.map_or(0, |moments| count(isa, out, layout, moments))
}

/// The mean of each channel as its only voxel.
pub(super) fn global_average(sources: &[Source<'_>], out: Target<'_>) -> usize {
    for_each_row(out, |c, _, _, row| {
        let channel = Channel::of(sources, c);
        let [depth, height, width] = channel.dims();
        let mut sum = 0.0_f64;
        for z in 0..depth {
            for y in 0..height {
                sum += (0..width).map(|x| f64::from(channel.at(z, y, x))).sum::<f64>();
            }
        }
        row[0] = (sum / (depth * height * width) as f64) as f32;
    })
}

/// Moments of every slice and channel, channels fastest; returns how many.
fn count(isa: Isa, out: &[f32], layout: Layout, moments: &mut [Moments]) -> usize {
    let count = layout.dims[0] * layout.channels;
    moments[..count].par_iter_mut().enumerate().for_each(|(at, m)| {
        let (z, c) = (at / layout.channels, at % layout.channels);
        let rows = (layout.dims[1], layout.dims[2], layout.pitch);
        *m = Moments::of_rows(isa, &out[layout.at(c, z, 0)..], rows);
    });
    count
}
