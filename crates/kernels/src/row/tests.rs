use super::*;
use crate::conv::ByteCode;

/// Uniform in [-1, 1), reproducible.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

const LENGTHS: [usize; 9] = [0, 1, 7, 8, 15, 16, 17, 64, 257];

#[test]
fn activate_matches_definition_on_every_isa() {
    let affine = Affine { scale: 1.7, shift: -0.2, slope: 0.01 };
    for isa in Isa::available() {
        for n in LENGTHS {
            let source = noise(n, 1);
            let mut target = vec![9.0; n];
            activate(isa, &mut target, Row::F32(&source), affine);
            for (t, &s) in target.iter().zip(&source) {
                let v = f64::from(s) * f64::from(1.7_f32) - f64::from(0.2_f32);
                let exact = if v > 0.0 { v } else { v * f64::from(0.01_f32) };
                // Three roundings of numbers below 2.
                assert!((f64::from(*t) - exact).abs() < 4e-7, "{isa} n={n}: {t} for {exact}");
            }
        }
    }
}

#[test]
fn pairs_round_to_nearest_even_on_every_isa() {
    let affine = Affine { scale: 1.0, shift: 0.0, slope: 0.5 };
    for isa in Isa::available() {
        for n in LENGTHS {
            let (a, mut b) = (noise(n, 2), noise(n, 3));
            if n > 1 {
                // Exactly between two bf16 numbers.
                b[0] = f32::from_bits(0x3f80_8000);
                b[1] = f32::from_bits(0x3f81_8000);
            }
            let mut target = vec![9.0; n];
            activate_pairs(
                isa,
                &mut target,
                (Row::F32(&a), affine),
                (Row::F32(&b), Affine::IDENTITY),
            );
            for i in 0..n {
                let bits = target[i].to_bits();
                let low = half::bf16::from_bits(bits as u16);
                let high = half::bf16::from_bits((bits >> 16) as u16);
                assert_eq!(low, half::bf16::from_f32(affine.apply(a[i])), "{isa} n={n} i={i}");
                assert_eq!(high, half::bf16::from_f32(b[i]), "{isa} n={n} i={i}");
            }
        }
    }
}

#[test]
fn interleave_undoes_split_on_every_isa() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let source = noise(2 * n, 4);
            let (mut even, mut odd) = (vec![0.0; n], vec![0.0; n]);
            split(isa, &mut even, &mut odd, &source);
            assert!(even.iter().eq(source.iter().step_by(2)), "{isa} n={n}");
            let mut back = vec![0.0; 2 * n];
            interleave(isa, &mut back, &even, &odd);
            assert_eq!(back, source, "{isa} n={n}");
        }
    }
}

#[test]
fn moments_hold_far_from_zero_on_every_isa() {
    for isa in Isa::available() {
        for (rows, width, pitch, offset) in
            [(1, 1, 1, 0.0), (3, 5, 7, 1.0), (48, 96, 98, 300.0), (24, 130, 130, -1000.0)]
        {
            let mut values = noise(rows * pitch, 5);
            for v in &mut values {
                *v = *v * 0.5 + offset;
            }
            let kept: Vec<f64> = (0..rows)
                .flat_map(|r| values[r * pitch..][..width].iter().map(|&v| f64::from(v)))
                .collect();
            let mean = kept.iter().sum::<f64>() / kept.len() as f64;
            let variance =
                kept.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / kept.len() as f64;
            let half = rows / 2;
            let found = Moments::of_rows(isa, &values, (half, width, pitch))
                .join(Moments::of_rows(isa, &values[half * pitch..], (rows - half, width, pitch)));
            assert!((found.mean - mean).abs() <= 1e-6 * (1.0 + mean.abs()), "{isa} {rows}x{width}");
            let off = (found.variance() - variance).abs();
            assert!(off <= 1e-5 * variance, "{isa} {rows}x{width}: {off:e} of {variance:e}");
        }
    }
}

#[test]
fn heads_decide_as_f64_does_on_every_isa() {
    for isa in Isa::available() {
        for (features, classes, width) in [(1, 1, 16), (8, 61, 128), (3, 4, 32), (32, 7, 48)] {
            let values = noise(features * width, 4);
            let (weights, bias) = (noise(classes * features, 5), noise(classes, 6));
            let logit = |class: usize, i: usize| -> f64 {
                let terms = (0..features).map(|f| {
                    f64::from(weights[class * features + f]) * f64::from(values[f * width + i])
                });
                f64::from(bias[class]) + terms.sum::<f64>()
            };
            let mut choice = vec![9; width];
            best_class(isa, &mut choice, &values, (&weights, &bias));
            for (i, &chosen) in choice.iter().enumerate() {
                let best = (0..classes).map(|c| logit(c, i)).fold(f64::MIN, f64::max);
                // Rounding of up to 33 sums below 33.
                assert!(best - logit(chosen as usize, i) < 1e-4, "{isa} {features} {classes}");
            }
            last_above(isa, &mut choice, &values, (&weights, &bias), 0.1);
            for (i, &chosen) in choice.iter().enumerate() {
                let above = |c: usize, by: f64| logit(c, i) > 0.1 + by;
                let chosen = chosen as usize;
                assert!((chosen..classes).all(|c| !above(c, 1e-4)), "{isa} {features} {classes}");
                assert!(chosen == 0 || above(chosen - 1, -1e-4), "{isa} {features} {classes}");
            }
        }
    }
}

#[test]
fn the_first_of_equal_classes_wins() {
    for isa in Isa::available() {
        let mut choice = vec![9; 16];
        best_class(isa, &mut choice, &[1.0; 16], (&[0.5, 1.0, 1.0, 1.0, 1.0, 1.0], &[0.0; 6]));
        assert_eq!(choice, [1; 16]);
    }
}

#[test]
fn bytes_are_those_of_the_definition_on_every_isa() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let rows: [Vec<i16>; 4] = std::array::from_fn(|k| {
                let mut row: Vec<i16> =
                    noise(n, 40 + k as u32).iter().map(|v| (v * 32768.0) as i16).collect();
                // Both ends of the range.
                row.iter_mut().take(2).zip([i16::MIN, i16::MAX]).for_each(|(v, end)| *v = end);
                row
            });
            for (scale, shift, slope) in
                [(0.001, 0.3, 0.01), (2e-5, -0.1, 0.0), (0.4, 5.0, 1.0), (-0.002, 1e6, 0.2)]
            {
                let fixed: [Fixed; 4] = std::array::from_fn(|k| {
                    let affine = Affine { scale: scale * (k + 1) as f32, shift, slope };
                    Fixed::new(affine, ByteCode { step: 0.02, zero: 7 * k as u8 })
                });
                let mut target = vec![9.0; n];
                let quad = std::array::from_fn(|k| (&rows[k][..], fixed[k]));
                quantize(isa, &mut target, quad, 0x8080_8080);
                for (i, v) in target.iter().enumerate() {
                    let bytes = std::array::from_fn(|k| fixed[k].apply(rows[k][i]) ^ 0x80);
                    assert_eq!(v.to_bits().to_le_bytes(), bytes, "{isa} n={n} i={i}");
                }
            }
        }
    }
}

/// What the integers amount to is the rounded value, give or take what 16 bits lose.
#[test]
fn fixed_steps_follow_the_floats() {
    for (scale, shift, slope, zero) in
        [(4e-4, 0.2, 0.01, 3), (2e-3, -1.0, 0.0, 0), (3e-5, 0.0, 1.0, 128), (0.5, 1.0, 0.01, 1)]
    {
        let (affine, code) = (Affine { scale, shift, slope }, ByteCode { step: 0.02, zero });
        let fixed = Fixed::new(affine, code);
        for v in (i16::MIN..=i16::MAX).step_by(7) {
            let exact = affine.apply(f32::from(v)) / code.step + f32::from(zero);
            let found = f32::from(fixed.apply(v));
            // Half a step of rounding; factors have 13 digits at least, and digits behind the
            // point are few where a stored integer is worth more than half a step.
            let lost = 0.5 + 0.1 + if scale > 0.01 { 26.0 } else { 0.0 };
            assert!((exact.clamp(0.0, 255.0) - found).abs() <= lost, "{v}: {found} for {exact}");
        }
    }
}
