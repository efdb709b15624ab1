//! One pass of a separable interpolation: lines along one axis of a plane.
//!
//! Lines are filtered in blocks of [`LANES`], so that the recursions, which cannot be
//! vectorized along a line, are vectorized across lines. Loading and storing a block
//! follows whichever axis is contiguous; nothing depends on the layout but the time.

use super::spline::{LANES, Row, prefilter};
use super::taps::Taps;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};

/// Smallest and largest value a pass may store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Range {
    /// No limits.
    pub(super) const ALL: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
    /// The range of no values at all.
    const NONE: Self = Self { low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// The range of values in a plane, NaN apart.
    pub(super) fn of<T: Copy>(mut plane: ArrayView2<'_, T>, value: impl Fn(T) -> f32) -> Self {
        if plane.strides()[1] < 0 {
            plane.invert_axis(Axis(1));
        }
        let (mut low, mut high) = ([Self::NONE.low; 16], [Self::NONE.high; 16]);
        for row in plane.rows() {
            let (blocks, rest) = row.as_slice().unwrap_or_default().as_chunks::<16>();
            for block in blocks {
                let values = block.map(&value);
                for lane in 0..16 {
                    low[lane] = if values[lane] < low[lane] { values[lane] } else { low[lane] };
                    high[lane] = if values[lane] > high[lane] { values[lane] } else { high[lane] };
                }
            }
            let others = row.as_slice().map_or(row, |_| ArrayView1::from(rest));
            for &stored in others {
                low[0] = low[0].min(value(stored));
                high[0] = high[0].max(value(stored));
            }
        }
        Self {
            low: low.into_iter().fold(Self::NONE.low, f32::min),
            high: high.into_iter().fold(Self::NONE.high, f32::max),
        }
    }

    /// The range of both.
    pub(super) fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// The nearest value within the range; NaN stays.
    fn clip(self, value: f32) -> f32 {
        let value = if value < self.low { self.low } else { value };
        if value > self.high { self.high } else { value }
    }

    /// A range that leaves everything alone if the source had no number in it.
    pub(super) fn or_all(self) -> Self {
        if self.low <= self.high { self } else { Self::ALL }
    }
}

/// Rows of a block: the padded input lines, then the output lines.
#[derive(Default)]
pub(super) struct Scratch {
    input: Vec<Row>,
    output: Vec<Row>,
}

/// Interpolates every column of `input` (lines run along axis 0), read through `value`, into
/// `output`.
pub(super) fn along_columns<T: Copy>(
    taps: &Taps,
    (input, value): (ArrayView2<'_, T>, impl Fn(T) -> f32 + Copy),
    mut output: ArrayViewMut2<'_, f32>,
    range: Range,
    scratch: &mut Scratch,
) {
    let (n, pad) = (input.nrows(), taps.pad());
    scratch.input.resize(n + 2 * pad, [0.0; LANES]);
    scratch.output.resize(output.nrows(), [0.0; LANES]);
    let blocks = input.axis_chunks_iter(Axis(1), LANES);
    for (input, output) in blocks.zip(output.axis_chunks_iter_mut(Axis(1), LANES)) {
        load(input, value, &mut scratch.input[pad..pad + n]);
        interpolate(taps, &mut scratch.input, &mut scratch.output);
        store(&scratch.output, output, range);
    }
}

/// Interpolates the lines of one block; `rows` holds them between `taps.pad()` free rows.
fn interpolate(taps: &Taps, rows: &mut [Row], out: &mut [Row]) {
    match taps {
        Taps::Nearest(taps) => {
            for (out, &i) in out.iter_mut().zip(taps) {
                *out = rows[i];
            }
        }
        Taps::Linear(taps) => {
            for (out, pair) in out.iter_mut().zip(taps) {
                let t = pair.t as f32;
                for ((out, low), high) in out.iter_mut().zip(&rows[pair.low]).zip(&rows[pair.high])
                {
                    *out = low + t * (high - low);
                }
            }
        }
        Taps::Cubic(taps) => {
            let pad = super::spline::PAD;
            let end = rows.len() - pad;
            let (first, last) = (rows[pad], rows[end - 1]);
            rows[..pad].fill(first);
            rows[end..].fill(last);
            prefilter(rows);
            for (out, quad) in out.iter_mut().zip(taps) {
                let [a, b, c, d] = quad.weights;
                let taps: &[Row; 4] = rows[quad.start..].first_chunk().expect("four rows");
                for lane in 0..LANES {
                    out[lane] = a * taps[0][lane]
                        + b * taps[1][lane]
                        + c * taps[2][lane]
                        + d * taps[3][lane];
                }
            }
        }
    }
}

/// Copies lines (the columns of `view`) into the block, at most [`LANES`] of them.
fn load<T: Copy>(view: ArrayView2<'_, T>, value: impl Fn(T) -> f32 + Copy, rows: &mut [Row]) {
    if steps_along_lines(view.strides()) {
        for (start, rows) in rows.chunks_mut(TILE).enumerate() {
            let start = start * TILE;
            let tile = view.slice(s![start..start + rows.len(), ..]);
            for (lane, line) in tile.columns().into_iter().enumerate() {
                copy(line, value, rows.iter_mut().map(|row| &mut row[lane]));
            }
        }
    } else {
        let mut view = view;
        let reversed = view.strides()[1] < 0;
        if reversed {
            view.invert_axis(Axis(1));
        }
        for (row, values) in rows.iter_mut().zip(view.rows()) {
            let row = &mut row[..values.len()];
            copy(values, value, row.iter_mut());
            if reversed {
                row.reverse();
            }
        }
    }
}

/// Copies the block into the lines (the columns) of `view`, limited to `range`.
fn store(rows: &[Row], mut view: ArrayViewMut2<'_, f32>, range: Range) {
    if steps_along_lines(view.strides()) {
        for (start, rows) in rows.chunks(TILE).enumerate() {
            let start = start * TILE;
            let mut tile = view.slice_mut(s![start..start + rows.len(), ..]);
            for (lane, line) in tile.columns_mut().into_iter().enumerate() {
                write(line, rows.iter().map(|row| row[lane]), range);
            }
        }
    } else {
        for (row, values) in rows.iter().zip(view.rows_mut()) {
            write(values, row.iter().copied(), range);
        }
    }
}

/// Rows transposed together, so that their cache lines stay close.
const TILE: usize = 16;

/// Whether walking along a line touches nearer memory than walking across lines.
fn steps_along_lines(strides: &[isize]) -> bool {
    strides[0].unsigned_abs() < strides[1].unsigned_abs()
}

/// Copies what `stored` stands for to `to`, with a tight loop where it is contiguous either way
/// round.
fn copy<'a, T: Copy>(
    stored: ArrayView1<'_, T>,
    value: impl Fn(T) -> f32,
    to: impl Iterator<Item = &'a mut f32>,
) {
    if let Some(stored) = stored.as_slice() {
        for (to, &stored) in to.zip(stored) {
            *to = value(stored);
        }
    } else if let Some(stored) = stored.slice(s![..;-1]).as_slice() {
        for (to, &stored) in to.zip(stored.iter().rev()) {
            *to = value(stored);
        }
    } else {
        for (to, &stored) in to.zip(stored) {
            *to = value(stored);
        }
    }
}

fn write(mut to: ArrayViewMut1<'_, f32>, values: impl Iterator<Item = f32>, range: Range) {
    if let Some(to) = to.as_slice_mut() {
        for (to, value) in to.iter_mut().zip(values) {
            *to = range.clip(value);
        }
    } else {
        for (to, value) in to.iter_mut().zip(values) {
            *to = range.clip(value);
        }
    }
}
