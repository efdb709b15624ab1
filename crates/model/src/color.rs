//! Colors of structures.

use crate::Label;

/// Red, green and blue.
pub type Rgb = [u8; 3];

impl Label {
    /// Its color, or one of its own by its id.
    #[must_use]
    pub fn rgb(&self) -> Rgb {
        let own = self.color.as_deref().and_then(parse);
        own.unwrap_or_else(|| spread(usize::from(self.id)))
    }
}

/// Reads `#rrggbb`.
#[must_use]
pub fn parse(text: &str) -> Option<Rgb> {
    let hex = text.strip_prefix('#').filter(|hex| hex.len() == 6)?;
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(hex, 16).ok()?;
    Some([(number >> 16) as u8, (number >> 8) as u8, number as u8])
}

/// The color of something that has none. Hues that advance by the golden ratio never come close to
/// one another soon.
#[must_use]
pub fn spread(k: usize) -> Rgb {
    let hue = (k as f64 * 0.618_034).fract();
    let level = |shift: f64| {
        let distance = (((hue + shift).fract() - 0.5).abs() * 6.0 - 1.0).clamp(0.0, 1.0);
        (70.0 + 175.0 * distance) as u8
    };
    [level(0.0), level(2.0 / 3.0), level(1.0 / 3.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_those_written_or_different_ones() {
        let label = |id, color: Option<&str>| Label {
            id,
            color: color.map(str::to_owned),
            ..Label::default()
        };
        assert_eq!(label(3, Some("#0a10ff")).rgb(), [10, 16, 255]);
        assert_eq!(label(3, None).rgb(), spread(3));
        assert_ne!(spread(3), spread(4));
        for wrong in ["0a10ff", "#0a10f", "#+a10ff", "#0a10f\u{e4}"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
