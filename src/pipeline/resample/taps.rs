//! Where each output voxel of an axis reads from, and with which weights.
//!
//! Voxel `o` of `m` lies at `x = (o + 0.5) * n / m - 0.5` on an axis of `n` voxels: both
//! grids cover the same extent, as in `skimage.transform.resize`. The expression is kept
//! as the reference evaluates it because rounding decides ties between neighbors.

use super::spline::PAD;

/// Interpolation along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Nearest,
    Linear,
    Cubic,
}

impl Order {
    /// The spline order of a checked configuration.
    pub(super) fn new(order: u8) -> Self {
        match order {
            0 => Self::Nearest,
            1 => Self::Linear,
            3 => Self::Cubic,
            _ => panic!("spline order {order}, expected 0, 1 or 3"),
        }
    }
}

/// Position of output voxel `o` on the input axis, in voxels.
fn position(o: usize, n: usize, m: usize) -> f64 {
    (o as f64 + 0.5) * (n as f64 / m as f64) - 0.5
}

/// The input voxel nearest to each output voxel; halves go to the higher one.
pub(super) fn nearest(n: usize, m: usize) -> Vec<usize> {
    let last = n.saturating_sub(1) as f64;
    (0..m).map(|o| (position(o, n, m).clamp(0.0, last) + 0.5).floor() as usize).collect()
}

/// Two neighbors on an axis and the weight of the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) t: f64,
}

/// The neighbors of each output voxel; beyond the border both are the border voxel, with
/// the weights they would have had, because the reference adds the two up.
pub(crate) fn pairs(n: usize, m: usize) -> Vec<Pair> {
    let last = n.saturating_sub(1) as f64;
    let pair = |o| {
        let x = position(o, n, m);
        let [low, high] = [x.floor(), x.floor() + 1.0].map(|i| i.clamp(0.0, last) as usize);
        Pair { low, high, t: x - x.floor() }
    };
    (0..m).map(pair).collect()
}

/// As [`pairs`], taking the nearest voxel only.
pub(crate) fn nearest_pairs(n: usize, m: usize) -> Vec<Pair> {
    nearest(n, m).into_iter().map(|i| Pair { low: i, high: i, t: 0.0 }).collect()
}

/// Four neighbouring coefficients of a padded line, from `start`, and their weights.
pub(super) struct Quad {
    pub(super) start: usize,
    pub(super) weights: [f32; 4],
}

/// The cubic B-spline taps of each output voxel, on a line padded by [`PAD`] on both
/// sides. Positions are not clamped: beyond the border the spline continues into the
/// padding. The weights are six times the B-spline, which is the gain the prefilter omits.
pub(super) fn quads(n: usize, m: usize) -> Vec<Quad> {
    let quad = |o| {
        let x = position(o, n, m) + PAD as f64;
        let floor = x.floor();
        let t = x - floor;
        let u = 1.0 - t;
        let weights =
            [u * u * u, 3.0 * t * t * (t - 2.0) + 4.0, 3.0 * u * u * (u - 2.0) + 4.0, t * t * t];
        Quad { start: floor as usize - 1, weights: weights.map(|w| w as f32) }
    };
    (0..m).map(quad).collect()
}

/// How one axis of `n` voxels becomes `m`.
pub(super) enum Taps {
    Nearest(Vec<usize>),
    Linear(Vec<Pair>),
    Cubic(Vec<Quad>),
}

impl Taps {
    pub(super) fn new(order: Order, n: usize, m: usize) -> Self {
        match order {
            Order::Nearest => Self::Nearest(nearest(n, m)),
            Order::Linear => Self::Linear(pairs(n, m)),
            Order::Cubic => Self::Cubic(quads(n, m)),
        }
    }

    /// Rows to leave free on both sides of a line.
    pub(super) fn pad(&self) -> usize {
        if matches!(self, Self::Cubic(_)) { PAD } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rounds_halves_up() {
        assert_eq!(nearest(8, 4), [1, 3, 5, 7]);
        assert_eq!(nearest(3, 3), [0, 1, 2]);
        assert_eq!(nearest(1, 4), [0; 4]);
    }

    #[test]
    fn quads_sum_to_six_and_stay_inside_the_padding() {
        for (n, m) in [(1, 9), (512, 119), (119, 512), (2, 1), (7, 7)] {
            for quad in quads(n, m) {
                assert!((quad.weights.iter().sum::<f32>() - 6.0).abs() < 1e-5);
                assert!(quad.start + 4 <= n + 2 * PAD);
            }
        }
    }
}
