//! Winograd's minimal filtering along one axis: rows in and out of the domain where a 3-tap
//! convolution of several rows is one multiplication per transformed row.
//!
//! F(2, 3) and F(4, 3) of Lavin and Gray (2016), with interpolation points 0, 1, -1 (2, -2) and
//! infinity. `TILE` output rows come from `TILE + 2` input rows.

#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

/// Values worked on at once.
const LANES: usize = 16;

type Rows<const N: usize> = [[f32; LANES]; N];

/// What the weights of three taps become, for tiles of 2 or 4 rows.
pub(crate) fn transform_weights(tile: usize, [a, b, c]: [f64; 3]) -> Vec<f64> {
    if tile == 2 {
        return vec![a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    }
    let (even, odd) = (a + c, a / 4.0 + c);
    let [e, o] = [-even / 6.0, odd / 6.0];
    vec![a / 4.0, e - b / 6.0, e + b / 6.0, o + b / 12.0, o - b / 12.0, c]
}

#[inline(always)]
fn input_2([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a - c, b + c, c - b, b - d]
}

#[inline(always)]
fn output_2([a, b, c, d]: [f32; 4]) -> [f32; 2] {
    [a + b + c, b - c - d]
}

#[inline(always)]
fn input_4([a, b, c, d, e, f]: [f32; 6]) -> [f32; 6] {
    let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
    let (near, far) = (e - c, 2.0 * (d - b));
    [4.0 * a - 5.0 * c + e, even + odd, even - odd, near + far, near - far, 4.0 * b - 5.0 * d + f]
}

#[inline(always)]
fn output_4([a, b, c, d, e, f]: [f32; 6]) -> [f32; 4] {
    let (near, far) = (b + c, d + e);
    let (step, leap) = (b - c, d - e);
    [a + near + far, step + 2.0 * leap, near + 4.0 * far, step + 8.0 * leap + f]
}

/// Applies `f` to columns of `IN` source rows, giving columns of the target rows.
#[inline(always)]
fn columns<const IN: usize, const OUT: usize>(
    (target, target_stride, rows): (&mut [f32], usize, usize),
    (source, source_stride): (&[f32], usize),
    width: usize,
    f: impl Fn([f32; IN]) -> [f32; OUT],
) {
    let mut at = 0;
    while at < width {
        // The last step overlaps the one before, unless there is only one.
        if at + LANES > width && width >= LANES {
            at = width - LANES;
        }
        let lanes = LANES.min(width - at);
        let mut inputs: Rows<IN> = [[0.0; LANES]; IN];
        for (k, input) in inputs.iter_mut().enumerate() {
            let from = &source[k * source_stride + at..];
            if lanes == LANES {
                input.copy_from_slice(&from[..LANES]);
            } else {
                input[..lanes].copy_from_slice(&from[..lanes]);
            }
        }
        let mut outputs: Rows<OUT> = [[0.0; LANES]; OUT];
        for lane in 0..LANES {
            let column = f(std::array::from_fn(|k| inputs[k][lane]));
            for (output, v) in outputs.iter_mut().zip(column) {
                output[lane] = v;
            }
        }
        for (k, output) in outputs.iter().enumerate().take(rows) {
            let to = &mut target[k * target_stride + at..];
            if lanes == LANES {
                to[..LANES].copy_from_slice(output);
            } else {
                to[..lanes].copy_from_slice(&output[..lanes]);
            }
        }
        at += lanes;
    }
}

#[inline(always)]
pub(crate) fn input(
    tile: usize,
    (target, target_stride): (&mut [f32], usize),
    source: (&[f32], usize),
    width: usize,
) {
    if tile == 2 {
        columns((target, target_stride, 4), source, width, input_2);
    } else {
        columns((target, target_stride, 6), source, width, input_4);
    }
}

#[inline(always)]
pub(crate) fn output(
    tile: usize,
    target: (&mut [f32], usize, usize),
    source: (&[f32], usize),
    width: usize,
    bias: f32,
) {
    if tile == 2 {
        columns(target, source, width, |m| output_2(m).map(|v| v + bias));
    } else {
        columns(target, source, width, |m| output_4(m).map(|v| v + bias));
    }
}
