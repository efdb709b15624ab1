//! Shapes that no network of a person has but a file may: everything that `Shape::output` accepts.

use super::*;

/// Shapes compared.
const SHAPES: usize = if cfg!(miri) { 20 } else { 300 };

/// What there must be among them, by axis.
const KINDS: [fn(&Shape, usize) -> bool; 5] = [
    // More padding than taps reach: outputs of padding alone.
    |shape, k| shape.pad_begin[k].min(shape.pad_end[k]) > shape.reach(k),
    // Inputs that no tap sees.
    |shape, k| shape.stride[k] > shape.reach(k) + 1,
    |shape, k| shape.dilation[k] > 1 && shape.kernel[k] > 1 && shape.pad_begin[k] > 0,
    |shape, k| shape.stride[k] > 1 && shape.kernel[k] == 1 && shape.pad_begin[k] > 0,
    |shape, k| shape.input[k] == 1 && shape.kernel[k] > 1,
];

/// The same numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number from `low` to `high`.
    pub(super) fn within(&mut self, low: usize, high: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        low + (self.0 >> 33) as usize % (high - low + 1)
    }

    /// One for each axis, half of them `usual`.
    fn axes(&mut self, usual: usize, low: usize, high: usize) -> [usize; 3] {
        std::array::from_fn(|_| match self.within(0, 1) {
            0 => usual,
            _ => self.within(low, high),
        })
    }

    /// Whatever the kernel fits.
    fn shape(&mut self) -> Shape {
        loop {
            let groups = self.within(1, 4).saturating_sub(1).max(1);
            let shape = Shape {
                inputs: groups * self.within(1, 5),
                outputs: groups * self.within(1, 9),
                groups,
                input: [self.within(1, 4), self.within(1, 9), self.within(1, 19)],
                kernel: self.axes(3, 1, 4),
                stride: self.axes(1, 1, 4),
                pad_begin: self.axes(1, 0, 6),
                pad_end: self.axes(1, 0, 6),
                dilation: self.axes(1, 1, 3),
            };
            if shape.output().is_some() {
                return shape;
            }
        }
    }
}

#[test]
fn whatever_fits_is_convolved_as_it_is_defined() {
    let mut random = Random(20);
    let mut seen = [0; KINDS.len()];
    for k in 0..SHAPES {
        let shape = random.shape();
        for (kind, seen) in KINDS.iter().zip(&mut seen) {
            *seen += usize::from((0..3).any(|axis| kind(&shape, axis)));
        }
        let case = format!("{k}, {shape:?},");
        check(&case, &shape, random.within(0, shape.inputs));
        if shape.groups == 1 {
            check_int8(&case, &shape);
        }
    }
    assert!(seen.iter().all(|&count| count > SHAPES / 20), "of each kind: {seen:?}");
}

#[test]
fn whatever_grows_grows_as_it_is_defined() {
    let mut random = Random(21);
    for k in 0..SHAPES {
        let channels = (random.within(1, 9), random.within(1, 9));
        let input = [random.within(1, 3), random.within(1, 5), random.within(1, 19)];
        check_upsample(&format!("{k},"), channels, input, random.axes(2, 1, 5));
    }
}
