//! The samples of a scan, each from its neighbours and a coded difference (T.87 annex A).

use super::bits::Bits;

/// What a file may set; zeros stand for the defaults.
#[derive(Clone, Copy, Default)]
pub(super) struct Preset {
    pub(super) max_value: i32,
    pub(super) thresholds: [i32; 3],
    pub(super) reset: i32,
}

/// Logarithm of the length of a run at each index (A.7.1.1).
const RUN_BITS: [u8; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];

/// Contexts of regular samples, then the two of samples that end a run.
const CONTEXTS: usize = 365 + 2;

/// Statistics of one context.
#[derive(Clone, Copy)]
struct Context {
    /// Sum of magnitudes.
    a: i32,
    /// Sum of errors; of samples that end a run, how many errors were negative.
    b: i32,
    /// Correction of the prediction.
    c: i32,
    n: i32,
}

/// Parameters of a scan, and what it has learnt so far.
pub(super) struct Coding {
    near: i32,
    max_value: i32,
    thresholds: [i32; 3],
    reset: i32,
    range: i32,
    /// Bits of a difference that is written as it is, and most bits of a coded one.
    difference_bits: u32,
    limit: u32,
    contexts: Box<[Context; CONTEXTS]>,
    run_index: usize,
}

impl Coding {
    /// `None` if the parameters contradict each other.
    pub(super) fn new(precision: u32, near: i32, preset: Preset) -> Option<Self> {
        let max_value = if preset.max_value > 0 { preset.max_value } else { (1 << precision) - 1 };
        if max_value >= 1 << precision || near > 255.min(max_value / 2) {
            return None;
        }
        let defaults = default_thresholds(max_value, near);
        let thresholds: [i32; 3] = std::array::from_fn(|i| {
            if preset.thresholds[i] > 0 { preset.thresholds[i] } else { defaults[i] }
        });
        let reset = if preset.reset > 0 { preset.reset } else { 64 };
        let ordered = near < thresholds[0] && thresholds.is_sorted() && thresholds[2] <= max_value;
        if !ordered || reset < 3 {
            return None;
        }
        let range = (max_value + 2 * near) / (2 * near + 1) + 1;
        let bits_of = |values: i32| u32::BITS - (values as u32 - 1).leading_zeros();
        let sample_bits = bits_of(max_value + 1).max(2);
        let begin = Context { a: ((range + 32) / 64).max(2), b: 0, c: 0, n: 1 };
        Some(Self {
            near,
            max_value,
            thresholds,
            reset,
            range,
            difference_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            contexts: Box::new([begin; CONTEXTS]),
            run_index: 0,
        })
    }

    /// The samples of `[rows, columns]`; `None` if the scan is damaged.
    pub(super) fn decode(mut self, bits: &mut Bits<'_>, size: [usize; 2]) -> Option<Vec<u16>> {
        let [rows, columns] = size;
        let mut samples = Vec::with_capacity(rows * columns);
        // Each line with one sample more on either side.
        let (mut above, mut line) = (vec![0_i32; columns + 2], vec![0_i32; columns + 2]);
        for _ in 0..rows {
            above[columns + 1] = above[columns];
            line[0] = above[1];
            self.line(bits, &above, &mut line)?;
            if bits.ran_out() {
                return None;
            }
            samples.extend(line[1..=columns].iter().map(|&sample| sample as u16));
            std::mem::swap(&mut above, &mut line);
        }
        Some(samples)
    }

    fn line(&mut self, bits: &mut Bits<'_>, above: &[i32], line: &mut [i32]) -> Option<()> {
        let end = line.len() - 1;
        let mut x = 1;
        while x < end {
            let (a, b, c, d) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
            let gradients = [d - b, b - c, c - a].map(|gradient| self.quantized(gradient));
            if gradients == [0; 3] {
                let run = self.run(bits, end - x)?;
                line[x..x + run].fill(a);
                x += run;
                if x == end {
                    break;
                }
                line[x] = self.after_run(bits, a, above[x])?;
            } else {
                line[x] = self.regular(bits, gradients, [a, b, c])?;
            }
            x += 1;
        }
        Some(())
    }

    #[inline]
    fn quantized(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = gradient.abs();
        let level = if size <= self.near {
            0
        } else {
            1 + i32::from(size >= t1) + i32::from(size >= t2) + i32::from(size >= t3)
        };
        if gradient < 0 { -level } else { level }
    }

    fn regular(
        &mut self,
        bits: &mut Bits<'_>,
        [g1, g2, g3]: [i32; 3],
        [a, b, c]: [i32; 3],
    ) -> Option<i32> {
        let number = (g1 * 9 + g2) * 9 + g3;
        let sign = if number < 0 { -1 } else { 1 };
        let number = number.unsigned_abs() as usize;
        let context = self.contexts[number];
        let edge = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let predicted = (edge + sign * context.c).clamp(0, self.max_value);
        let k = golomb_parameter(context.n, context.a)?;
        let mapped = self.coded(bits, k, self.limit)?;
        let turned = self.near == 0 && k == 0 && 2 * context.b <= -context.n;
        let half = mapped >> 1;
        let error = match (turned, mapped & 1 == 0) {
            (false, true) | (true, false) => half,
            (false, false) | (true, true) => -half - 1,
        };
        self.learn(number, error);
        Some(self.reconstructed(predicted, sign * error))
    }

    fn learn(&mut self, number: usize, error: i32) {
        let Context { mut a, mut b, mut c, mut n } = self.contexts[number];
        b += error * (2 * self.near + 1);
        a = a.saturating_add(error.abs());
        if n == self.reset {
            a >>= 1;
            b >>= 1;
            n >>= 1;
        }
        n += 1;
        if b <= -n {
            b = (b + n).max(1 - n);
            c = (c - 1).max(-128);
        } else if b > 0 {
            b = (b - n).min(0);
            c = (c + 1).min(127);
        }
        self.contexts[number] = Context { a, b, c, n };
    }

    /// Length of the run that begins here, `left` at most.
    fn run(&mut self, bits: &mut Bits<'_>, left: usize) -> Option<usize> {
        let mut run = 0;
        while bits.take(1) == 1 {
            let whole = 1_usize << RUN_BITS[self.run_index];
            let part = whole.min(left - run);
            run += part;
            if part == whole {
                self.run_index = (self.run_index + 1).min(31);
            }
            if run == left {
                return Some(run);
            }
        }
        run += bits.take(u32::from(RUN_BITS[self.run_index])) as usize;
        // A run that is written as broken ends before the line does.
        (run < left).then_some(run)
    }

    /// The sample that ends a run.
    fn after_run(&mut self, bits: &mut Bits<'_>, a: i32, b: i32) -> Option<i32> {
        let alike = (a - b).abs() <= self.near;
        let number = CONTEXTS - 2 + usize::from(alike);
        let kind = i32::from(alike);
        let Context { a: sum, b: negative, c, n } = self.contexts[number];
        let k = golomb_parameter(n, if alike { sum.saturating_add(n >> 1) } else { sum })?;
        let run_bits = u32::from(RUN_BITS[self.run_index]);
        self.run_index = self.run_index.saturating_sub(1);
        let mapped = self.coded(bits, k, self.limit.checked_sub(run_bits + 1)?)?;
        let odd = (mapped + kind) & 1 == 1;
        let size = (mapped + kind + 1) >> 1;
        let error = if (k != 0 || 2 * negative >= n) == odd { -size } else { size };

        let mut context = Context {
            a: sum.saturating_add((mapped + 1 - kind) >> 1),
            b: negative + i32::from(error < 0),
            c,
            n,
        };
        if n == self.reset {
            context = Context { a: context.a >> 1, b: context.b >> 1, c, n: n >> 1 };
        }
        context.n += 1;
        self.contexts[number] = context;

        let sign = if !alike && a > b { -1 } else { 1 };
        Some(self.reconstructed(if alike { a } else { b }, sign * error))
    }

    /// A Golomb code of at most `limit` bits (A.5.3).
    #[inline]
    fn coded(&self, bits: &mut Bits<'_>, k: u32, limit: u32) -> Option<i32> {
        let escape = limit.checked_sub(self.difference_bits + 1)?;
        let zeros = bits.zeros(escape)?;
        let value = if zeros < escape {
            i64::from(zeros) << k | i64::from(bits.take(k))
        } else {
            i64::from(bits.take(self.difference_bits)) + 1
        };
        // No difference is written that the range of values does not call for.
        i32::try_from(value).ok().filter(|&value| value <= 2 * self.range)
    }

    #[inline]
    fn reconstructed(&self, predicted: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut value = predicted.wrapping_add(error.wrapping_mul(step));
        if value < -self.near {
            value = value.wrapping_add(self.range * step);
        } else if value > self.max_value + self.near {
            value = value.wrapping_sub(self.range * step);
        }
        value.clamp(0, self.max_value)
    }
}

/// The least `k` with `n * 2^k >= a`; `None` if a sum has grown beyond any sample.
#[inline]
fn golomb_parameter(n: i32, a: i32) -> Option<u32> {
    (0..24).find(|k| i64::from(n) << k >= i64::from(a))
}

/// Thresholds of gradients for a range of values (C.2.4.1.1.1).
fn default_thresholds(max_value: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, low: i32| if value > max_value || value < low { low } else { value };
    let basic = [3, 7, 21];
    let values: [i32; 3] = if max_value >= 128 {
        let factor = (max_value.min(4095) + 128) / 256;
        std::array::from_fn(|i| {
            let low = 2 + i as i32;
            factor * (basic[i] - low) + low + (3 + 2 * i as i32) * near
        })
    } else {
        let factor = 256 / (max_value + 1);
        std::array::from_fn(|i| {
            let i32_i = i as i32;
            (2 + i32_i).max(basic[i] / factor + (3 + 2 * i32_i) * near)
        })
    };
    let t1 = clamp(values[0], near + 1);
    let t2 = clamp(values[1], t1);
    [t1, t2, clamp(values[2], t2)]
}
