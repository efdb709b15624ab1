//! Every other layer: one thread makes one number, in plain loops. Right for all sizes, and quick
//! enough for what is rare in networks.

use super::geometry::BLOCK;
use cubecl::prelude::*;
use fastnnunet_model::network::Pool as PoolKind;

/// Threads of a cube.
pub(crate) const THREADS: usize = 256;

/// A tensor and how it is read. Blocks have `lanes` channels; `entry` is where scale, shift and slope
/// of its first block lie, in numbers, and `stride` how far those of the next image are.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Source {
    pub lanes: usize,
    pub channels: usize,
    pub z: usize,
    pub y: usize,
    pub x: usize,
    pub entry: usize,
    pub stride: usize,
}

/// What a kernel makes: numbers of the output, in the order they lie in.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Target {
    pub lanes: usize,
    pub channels: usize,
    pub z: usize,
    pub y: usize,
    pub x: usize,
    pub images: usize,
    /// Channels of the output before these, where a step makes only some.
    pub first: usize,
    /// Channels of the whole output.
    pub all: usize,
}

/// A place of the output.
#[derive(CubeType, Clone, Copy)]
struct Spot {
    image: usize,
    channel: usize,
    z: usize,
    y: usize,
    x: usize,
}

/// The thread's place.
#[cube]
fn spot(target: &Target) -> Spot {
    let lane = ABSOLUTE_POS % target.lanes;
    let rest = ABSOLUTE_POS / target.lanes;
    let x = rest % target.x;
    let rest = rest / target.x;
    let y = rest % target.y;
    let rest = rest / target.y;
    let z = rest % target.z;
    let rest = rest / target.z;
    let blocks = (target.channels + target.lanes - 1) / target.lanes;
    Spot { image: rest / blocks, channel: rest % blocks * target.lanes + lane, z, y, x }
}

/// A number as it is read.
#[cube]
fn read<S: Float>(
    values: &[S],
    params: &[f32],
    source: &Source,
    image: usize,
    channel: usize,
    z: usize,
    y: usize,
    x: usize,
) -> f32 {
    let blocks = (source.channels + source.lanes - 1) / source.lanes;
    let voxel = (z * source.y + y) * source.x + x;
    let map = image * blocks + channel / source.lanes;
    let at = (map * source.z * source.y * source.x + voxel) * source.lanes + channel % source.lanes;
    let entry = source.entry + image * source.stride + channel / BLOCK * 24 + channel % BLOCK;
    let v = f32::cast_from(values[at]) * params[entry] + params[entry + 8];
    select(v < 0.0, v * params[entry + 16], v)
}

/// Writes a number to its place among all channels; those that fill up a block are zero.
#[cube]
fn write<O: Float>(output: &mut [O], target: &Target, spot: &Spot, value: f32) {
    let blocks = (target.all + target.lanes - 1) / target.lanes;
    let channel = target.first + spot.channel;
    if channel < blocks * target.lanes {
        let voxel = (spot.z * target.y + spot.y) * target.x + spot.x;
        let map = spot.image * blocks + channel / target.lanes;
        let at =
            (map * target.z * target.y * target.x + voxel) * target.lanes + channel % target.lanes;
        output[at] = O::cast_from(value);
    }
}

/// What [`combine`] does with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pointwise {
    /// The first as it is read.
    Copy,
    Sigmoid,
    Add,
    Multiply,
}

/// Numbers one by one; an operand with a single voxel along an axis, or a single channel, is
/// repeated.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn combine<S: Float, O: Float>(
    a: &[S],
    b: &[S],
    params: &[f32],
    output: &mut [O],
    left: Source,
    right: Source,
    target: Target,
    #[comptime] operation: Pointwise,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        value = repeated::<S>(a, params, &left, &here);
        if comptime!(operation == Pointwise::Sigmoid) {
            value = 1.0 / (1.0 + (-value).exp());
        }
        if comptime!(operation == Pointwise::Add) {
            value += repeated::<S>(b, params, &right, &here);
        }
        if comptime!(operation == Pointwise::Multiply) {
            value *= repeated::<S>(b, params, &right, &here);
        }
        write::<O>(output, &target, &here, value);
    } else if target.first + target.channels == target.all {
        write::<O>(output, &target, &here, value);
    }
}

#[cube]
fn repeated<S: Float>(values: &[S], params: &[f32], source: &Source, here: &Spot) -> f32 {
    let channel = min(here.channel, source.channels - 1);
    let z = min(here.z, source.z - 1);
    let y = min(here.y, source.y - 1);
    let x = min(here.x, source.x - 1);
    read::<S>(values, params, source, here.image, channel, z, y, x)
}

/// Exponentials that sum to 1 over channels.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn softmax<S: Float, O: Float>(
    a: &[S],
    params: &[f32],
    output: &mut [O],
    source: Source,
    target: Target,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        let mut largest = read::<S>(a, params, &source, here.image, 0usize, here.z, here.y, here.x);
        for c in 1..target.channels {
            largest =
                max(largest, read::<S>(a, params, &source, here.image, c, here.z, here.y, here.x));
        }
        let mut sum = 0.0f32.runtime();
        for c in 0..target.channels {
            sum += (read::<S>(a, params, &source, here.image, c, here.z, here.y, here.x) - largest)
                .exp();
        }
        let own = read::<S>(a, params, &source, here.image, here.channel, here.z, here.y, here.x);
        value = (own - largest).exp() / sum;
    }
    write::<O>(output, &target, &here, value);
}

/// A window that slides over a tensor.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Window {
    pub kz: usize,
    pub ky: usize,
    pub kx: usize,
    pub sz: usize,
    pub sy: usize,
    pub sx: usize,
    pub dz: usize,
    pub dy: usize,
    pub dx: usize,
    pub pz: usize,
    pub py: usize,
    pub px: usize,
    /// Zeros after the input; only pooling asks.
    pub ez: usize,
    pub ey: usize,
    pub ex: usize,
}

#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn pool<S: Float, O: Float>(
    a: &[S],
    params: &[f32],
    output: &mut [O],
    source: Source,
    target: Target,
    window: Window,
    #[comptime] kind: PoolKind,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        let mut sum = 0.0f32.runtime();
        let mut largest = f32::min_value();
        let mut inside = 0.0f32.runtime();
        let mut padded = 0.0f32.runtime();
        for k in 0..window.kz {
            for i in 0..window.ky {
                for l in 0..window.kx {
                    let z = here.z * window.sz + k * window.dz;
                    let y = here.y * window.sy + i * window.dy;
                    let x = here.x * window.sx + l * window.dx;
                    if z < window.pz + source.z + window.ez
                        && y < window.py + source.y + window.ey
                        && x < window.px + source.x + window.ex
                    {
                        padded += 1.0;
                    }
                    let (z, y, x) = (z - window.pz, y - window.py, x - window.px);
                    if z < source.z && y < source.y && x < source.x {
                        let v = read::<S>(a, params, &source, here.image, here.channel, z, y, x);
                        sum += v;
                        largest = max(largest, v);
                        inside += 1.0;
                    }
                }
            }
        }
        value = match kind {
            PoolKind::Max => largest,
            PoolKind::Average => sum / inside,
            PoolKind::AveragePadded => sum / padded,
        };
    }
    write::<O>(output, &target, &here, value);
}

/// Linear, or nearest where all weights are zero: `table` has, for each axis and voxel along it, the
/// two voxels of the input and the weight of the second, as numbers, from `first` on in `params`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn resize<S: Float, O: Float>(
    a: &[S],
    params: &[f32],
    output: &mut [O],
    source: Source,
    target: Target,
    first: usize,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        let tz = first + here.z * 3;
        let ty = first + (target.z + here.y) * 3;
        let tx = first + (target.z + target.y + here.x) * 3;
        let mut planes = Array::<f32>::new(2usize);
        #[unroll]
        for k in 0..2usize {
            let mut rows = Array::<f32>::new(2usize);
            #[unroll]
            for i in 0..2usize {
                let z = usize::cast_from(params[tz + k]);
                let y = usize::cast_from(params[ty + i]);
                let low = read::<S>(
                    a,
                    params,
                    &source,
                    here.image,
                    here.channel,
                    z,
                    y,
                    usize::cast_from(params[tx]),
                );
                let high = read::<S>(
                    a,
                    params,
                    &source,
                    here.image,
                    here.channel,
                    z,
                    y,
                    usize::cast_from(params[tx + 1]),
                );
                rows[i] = mix(low, high, params[tx + 2]);
            }
            planes[k] = mix(rows[0], rows[1], params[ty + 2]);
        }
        value = mix(planes[0], planes[1], params[tz + 2]);
    }
    write::<O>(output, &target, &here, value);
}

#[cube]
fn mix(a: f32, b: f32, weight: f32) -> f32 {
    select(weight == 0.0, a, a * (1.0 - weight) + b * weight)
}

/// The mean of each channel.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn average<S: Float, O: Float>(
    a: &[S],
    params: &[f32],
    output: &mut [O],
    source: Source,
    target: Target,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        // Sums of rows, of planes, of the whole: none of them long.
        let mut all = 0.0f32.runtime();
        for z in 0..source.z {
            let mut plane = 0.0f32.runtime();
            for y in 0..source.y {
                let mut row = 0.0f32.runtime();
                for x in 0..source.x {
                    row += read::<S>(a, params, &source, here.image, here.channel, z, y, x);
                }
                plane += row;
            }
            all += plane;
        }
        value = all / f32::cast_from(source.z * source.y * source.x);
    }
    write::<O>(output, &target, &here, value);
}

/// The voxel of the input, along one axis, that a tap reads for the output's at `here`; one that is not
/// there if there is none.
#[cube]
fn tapped(
    here: usize,
    tap: usize,
    stride: usize,
    pad: usize,
    size: usize,
    #[comptime] transposed: bool,
) -> usize {
    if comptime!(transposed) {
        // The voxel that reaches here with this tap.
        let from = here + pad - tap;
        select(here + pad >= tap && from % stride == 0, from / stride, size)
    } else {
        // Before the first it wraps around.
        here * stride + tap - pad
    }
}

/// Any convolution, or any transposed one; weights are the graph's own, from `first` on, biases in
/// `params` from `bias` on.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn convolution<S: Float, O: Float>(
    a: &[S],
    params: &[f32],
    weights: &[f32],
    output: &mut [O],
    source: Source,
    target: Target,
    window: Window,
    groups: usize,
    first: usize,
    bias: usize,
    #[comptime] transposed: bool,
    #[define(S)] _source: ElemType,
    #[define(O)] _made: ElemType,
) {
    let here = spot(&target);
    if here.image >= target.images {
        terminate!();
    }
    let mut value = 0.0f32.runtime();
    if here.channel < target.channels {
        let inputs = source.channels / groups;
        let outputs = target.channels / groups;
        let group = here.channel / outputs;
        let (taps, plane) = (window.kz * window.ky * window.kx, window.ky * window.kx);
        let blocks = (source.channels + source.lanes - 1) / source.lanes;
        value = params[bias + here.channel];
        for c in 0..inputs {
            // As `read`, with what is the same for all taps found once.
            let channel = group * inputs + c;
            let map = here.image * blocks + channel / source.lanes;
            let entry = source.entry + here.image * source.stride;
            let entry = entry + channel / BLOCK * 24 + channel % BLOCK;
            let (scale, shift, slope) = (params[entry], params[entry + 8], params[entry + 16]);
            let row = if comptime!(transposed) {
                channel * outputs + here.channel % outputs
            } else {
                here.channel * inputs + c
            };
            for k in 0..window.kz {
                let z = tapped(here.z, k * window.dz, window.sz, window.pz, source.z, transposed);
                if z < source.z {
                    let z = map * source.z + z;
                    let tap = first + row * taps + k * plane;
                    for i in 0..window.ky {
                        let y = i * window.dy;
                        let y = tapped(here.y, y, window.sy, window.py, source.y, transposed);
                        if y < source.y {
                            let y = (z * source.y + y) * source.x;
                            let tap = tap + i * window.kx;
                            for l in 0..window.kx {
                                let x = l * window.dx;
                                let x =
                                    tapped(here.x, x, window.sx, window.px, source.x, transposed);
                                if x < source.x {
                                    let at = (y + x) * source.lanes + channel % source.lanes;
                                    let v = f32::cast_from(a[at]) * scale + shift;
                                    value += select(v < 0.0, v * slope, v) * weights[tap + l];
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    write::<O>(output, &target, &here, value);
}
