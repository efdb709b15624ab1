//! The cubic B-spline prefilter: samples to coefficients, many lines at once.
//!
//! M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal
//! Processing Magazine 16(6), 1999; the boundary is the half-sample symmetric one SciPy
//! uses for `mode="nearest"`.

/// Voxels a line is extended by on both sides, repeating its ends, before filtering: the
/// reference does so because its boundary condition is not the one it samples with.
pub(super) const PAD: usize = 12;

/// Lines filtered side by side: a row of the scratch block holds one voxel of each.
pub(super) const LANES: usize = 32;

/// One voxel of [`LANES`] lines.
pub(super) type Row = [f32; LANES];

/// Pole of the cubic B-spline, `sqrt(3) - 2`.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Powers of the pole below this do not change an `f32` sum of numbers of similar size.
const NEGLIGIBLE: f64 = 1e-10;

/// Replaces padded lines by their B-spline coefficients divided by the gain of six.
pub(super) fn prefilter(rows: &mut [Row]) {
    let Some(last) = rows.len().checked_sub(1) else { return };
    let pole = POLE as f32;
    rows[0] = causal_start(rows);
    let mut previous = rows[0];
    for row in &mut rows[1..] {
        for (value, before) in row.iter_mut().zip(&mut previous) {
            *before = *value + pole * *before;
            *value = *before;
        }
    }
    let end = (POLE / (POLE - 1.0)) as f32;
    let mut next = rows[last].map(|value| value * end);
    rows[last] = next;
    for row in rows[..last].iter_mut().rev() {
        for (value, after) in row.iter_mut().zip(&mut next) {
            *after = pole * (*after - *value);
            *value = *after;
        }
    }
}

/// First value of the causal recursion: the line, mirrored without end, summed with the
/// weights `pole^i`. A padded line has at least 25 voxels, so the mirrored part weighs less
/// than `pole^25`, 5e-15, and is left out with the other negligible terms.
fn causal_start(rows: &[Row]) -> Row {
    let mut start = rows[0];
    let mut power = POLE;
    for row in rows {
        if power.abs() < NEGLIGIBLE {
            break;
        }
        for (sum, value) in start.iter_mut().zip(row) {
            *sum += power as f32 * value;
        }
        power *= POLE;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The coefficients must give the samples back at the voxels: (c- + 4c + c+) / 6.
    #[test]
    fn coefficients_interpolate_the_samples() {
        for n in [25, 26, 40, 131] {
            let sample = |i: usize| ((i * i * 7 + 3 * i) % 23) as f32 - 11.0;
            let mut rows: Vec<Row> = (0..n).map(|i| [sample(i); LANES]).collect();
            prefilter(&mut rows);
            for i in 0..n {
                let (low, high) = (i.saturating_sub(1), (i + 1).min(n - 1));
                let back = rows[low][3] + 4.0 * rows[i][3] + rows[high][3];
                assert!((back - sample(i)).abs() < 4e-5, "n={n} i={i}: {back}");
            }
        }
    }
}
