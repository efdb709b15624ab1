//! The cubic B-spline prefilter: samples to coefficients, many lines at once.
//!
//! M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal
//! Processing Magazine 16(6), 1999; the boundary is the half-sample symmetric one SciPy
//! uses for `mode="nearest"`.

use super::taps::Real;

/// Voxels a line is extended by on both sides, repeating its ends, before filtering: the
/// reference does so because its boundary condition is not the one it samples with.
pub(super) const PAD: usize = 12;

/// Lines filtered side by side: a row of the scratch block holds one voxel of each.
pub(super) const LANES: usize = 32;

/// One voxel of [`LANES`] lines.
pub(super) type Row = [Real; LANES];

/// Pole of the cubic B-spline, `sqrt(3) - 2`.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Powers of the pole below this do not change a sum of numbers of similar size.
const NEGLIGIBLE: f64 = 1e-17;

/// Replaces padded lines by their B-spline coefficients divided by the gain of six.
pub(super) fn prefilter(rows: &mut [Row]) {
    let Some(last) = rows.len().checked_sub(1) else { return };
    let pole = POLE as Real;
    rows[0] = causal_start(rows);
    let mut previous = rows[0];
    for row in &mut rows[1..] {
        for (value, before) in row.iter_mut().zip(&mut previous) {
            *before = *value + pole * *before;
            *value = *before;
        }
    }
    let end = (POLE / (POLE - 1.0)) as Real;
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
/// weights `pole^i`. The periodic sum is written out until its terms vanish.
fn causal_start(rows: &[Row]) -> Row {
    let n = rows.len();
    let wrap = POLE.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let scale = POLE / (1.0 - wrap * wrap);
    let mut sum = [0.0_f64; LANES];
    let mut power = 1.0_f64;
    for i in 0..n {
        if power.abs() < NEGLIGIBLE {
            break;
        }
        for ((sum, &near), &far) in sum.iter_mut().zip(&rows[i]).zip(&rows[n - 1 - i]) {
            *sum += power * (Wide::from(near) + wrap * Wide::from(far));
        }
        power *= POLE;
    }
    let mut start = rows[0];
    for (value, sum) in start.iter_mut().zip(sum) {
        *value = (Wide::from(*value) + scale * sum) as Real;
    }
    start
}

/// `f64`, by another name where converting from [`Real`] must read the same for either.
type Wide = f64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The coefficients must give the samples back at the voxels: (c- + 4c + c+) / 6.
    #[test]
    fn coefficients_interpolate_the_samples() {
        for n in [25, 26, 40, 131] {
            let sample = |i: usize| ((i * i * 7 + 3 * i) % 23) as Real - 11.0;
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
