//! How far the logits of two networks, or of two engines, are apart.

use ndarray::{Array4, ArrayView1, Axis, Zip};

/// Two answers to one patch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference between two logits.
    pub largest: f32,
    /// Largest absolute logit of the first answer.
    pub scale: f32,
    /// Fraction of voxels whose best channel is the same.
    pub same_labels: f64,
}

impl Difference {
    /// Compares `[c, z, y, x]` logits with those expected; `None` if their shapes differ.
    #[must_use]
    pub fn between(expected: &Array4<f32>, found: &Array4<f32>) -> Option<Self> {
        if expected.dim() != found.dim() {
            return None;
        }
        // Where something is not a number nothing can be trusted: it must not vanish in a maximum.
        let distance =
            |a: f32, b: f32| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
        let pairs = expected.iter().zip(found);
        let largest = pairs.fold(0.0_f32, |most, (&a, &b)| most.max(distance(a, b)));
        let scale = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let (mut same, mut voxels) = (0_u64, 0_u64);
        Zip::from(expected.lanes(Axis(0))).and(found.lanes(Axis(0))).for_each(|a, b| {
            same += u64::from(best(a) == best(b));
            voxels += 1;
        });
        Some(Self { largest, scale, same_labels: same as f64 / voxels as f64 })
    }

    /// The largest difference as a fraction of the largest logit.
    #[must_use]
    pub fn relative(&self) -> f32 {
        if self.largest == 0.0 { 0.0 } else { self.largest / self.scale }
    }
}

fn best(logits: ArrayView1<'_, f32>) -> usize {
    let first = (0, f32::MIN);
    logits.iter().enumerate().fold(first, |m, (c, &v)| if v > m.1 { (c, v) } else { m }).0
}

/// A patch with structure at several scales, of values as a normalized image has them.
#[must_use]
pub fn sample_patch(channels: usize, patch: [usize; 3]) -> Array4<f32> {
    let [z, y, x] = patch;
    Array4::from_shape_fn((channels, z, y, x), |(c, z, y, x)| {
        let wave = |n: usize, step: f32| (n as f32 * step + c as f32).sin();
        wave(z, 0.31) + wave(y, 0.17) * wave(x, 0.43) + 0.5 * wave(z * 7 + y * 5 + x * 3, 1.9)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_and_what_is_no_number_is_infinitely_far() {
        let expected = Array4::from_shape_fn((2, 1, 1, 4), |(c, _, _, x)| (c * x) as f32);
        let mut found = expected.clone();
        let same = Difference::between(&expected, &found).expect("one shape");
        assert_eq!((same.largest, same.scale, same.same_labels), (0.0, 3.0, 1.0));
        found[[0, 0, 0, 3]] = 3.5;
        let other = Difference::between(&expected, &found).expect("one shape");
        assert_eq!((other.largest, other.same_labels), (3.5, 0.75));
        found[[1, 0, 0, 0]] = f32::NAN;
        let wild = Difference::between(&expected, &found).expect("one shape");
        assert_eq!(wild.largest, f32::INFINITY);
        assert_eq!(Difference::between(&expected, &Array4::zeros((1, 1, 1, 4))), None);
    }
}
