//! Colors as DICOM recommends them: `CIELab` under D50, in 16 bits each (PS3.3 C.10.7.1.1).

/// sRGB's primaries, adapted from D65 to D50 by Bradford's method.
const TO_XYZ: [[f64; 3]; 3] = [
    [0.436_065_7, 0.385_151_5, 0.143_078_4],
    [0.222_493_1, 0.716_887_0, 0.060_616_9],
    [0.013_923_9, 0.097_081_3, 0.714_099_3],
];

/// Their sum.
const WHITE: [f64; 3] = [0.964_295_6, 0.999_997_0, 0.825_104_5];

/// L, a and b of an sRGB color.
pub(super) fn lab(rgb: [u8; 3]) -> [u16; 3] {
    let linear = rgb.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    let f = |k: usize| {
        let t = TO_XYZ[k].iter().zip(linear).map(|(m, c)| m * c).sum::<f64>() / WHITE[k];
        if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 }
    };
    let (x, y, z) = (f(0), f(1), f(2));
    let [l, a, b] = [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)];
    let scaled = |part: f64| (part * 65535.0).round().clamp(0.0, 65535.0) as u16;
    [scaled(l / 100.0), scaled((a + 128.0) / 255.0), scaled((b + 128.0) / 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grays_have_no_hue_and_red_is_red() {
        assert_eq!(lab([0, 0, 0]), [0, 32896, 32896]);
        let white = lab([255, 255, 255]);
        assert!(white[0] > 65500 && white[1].abs_diff(32896) < 10 && white[2].abs_diff(32896) < 10);
        // L 54.29, a 80.81, b 69.89 under D50.
        let red = lab([255, 0, 0]);
        let close = |value: u16, part: f64| (f64::from(value) - part * 65535.0).abs() < 30.0;
        assert!(close(red[0], 0.5429) && close(red[1], (80.81 + 128.0) / 255.0), "{red:?}");
        assert!(close(red[2], (69.89 + 128.0) / 255.0), "{red:?}");
    }
}
