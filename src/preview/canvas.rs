//! Pixels, text and scaling.

use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use std::convert::Infallible;

/// Red, green and blue, each 0 to 255.
pub(super) type Rgb = [u8; 3];

/// An RGB picture, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Picture {
    pub(super) fn new(width: usize, height: usize, color: Rgb) -> Self {
        Self { width, height, pixels: vec![color; width * height] }
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, three per pixel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.pixels.as_flattened()
    }

    /// The pixel in column `x` and row `y`.
    #[must_use]
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        (x < self.width).then(|| self.pixels.get(y * self.width + x).copied()).flatten()
    }

    /// Sets a pixel; outside the picture nothing happens.
    pub(super) fn set(&mut self, x: usize, y: usize, color: Rgb) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = color;
        }
    }

    pub(super) fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, color: Rgb) {
        for row in y..y + height {
            for column in x..x + width {
                self.set(column, row, color);
            }
        }
    }

    /// Copies `other` to column `x` and row `y`.
    pub(super) fn paste(&mut self, x: usize, y: usize, other: &Self) {
        for (row, line) in other.pixels.chunks(other.width.max(1)).enumerate() {
            for (column, color) in line.iter().enumerate() {
                self.set(x + column, y + row, *color);
            }
        }
    }

    /// Writes text whose top left corner is at column `x` and row `y`.
    pub(super) fn text(&mut self, x: usize, y: usize, text: &str, font: &MonoFont<'_>, color: Rgb) {
        let style = MonoTextStyle::new(font, Rgb888::new(color[0], color[1], color[2]));
        let at = Point::new(x as i32, y as i32);
        let Ok(_) = Text::with_baseline(text, at, style, Baseline::Top).draw(&mut Target(self));
    }
}

/// Columns that `text` takes.
pub(super) fn text_width(text: &str, font: &MonoFont<'_>) -> usize {
    text.chars().count() * (font.character_size.width + font.character_spacing) as usize
}

/// A picture as the font's crate draws on it.
struct Target<'a>(&'a mut Picture);

impl OriginDimensions for Target<'_> {
    fn size(&self) -> Size {
        Size::new(self.0.width as u32, self.0.height as u32)
    }
}

impl DrawTarget for Target<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) {
                self.0.set(x, y, [color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

/// Several numbers per pixel, row by row.
#[derive(Clone, Debug)]
pub(super) struct Raster<const N: usize> {
    pub(super) width: usize,
    pub(super) values: Vec<[f32; N]>,
}

impl<const N: usize> Raster<N> {
    fn height(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Resized with a triangle filter as wide as a pixel of the coarser side.
    pub(super) fn resized(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (taps(self.width, width), taps(self.height(), height));
        let mut narrow = Vec::with_capacity(width * self.height());
        for row in self.values.chunks(self.width.max(1)) {
            narrow.extend(columns.iter().map(|taps| mix(taps, |k| row[k])));
        }
        let mut values = Vec::with_capacity(width * height);
        for taps in &rows {
            values.extend((0..width).map(|x| mix(taps, |k| narrow[k * width + x])));
        }
        Self { width, values }
    }
}

fn mix<const N: usize>(taps: &[(usize, f32)], at: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut sum = [0.0; N];
    for &(k, weight) in taps {
        for (sum, value) in sum.iter_mut().zip(at(k)) {
            *sum += weight * value;
        }
    }
    sum
}

/// For each of `m` pixels: which of `n` pixels it is made of, and by which parts.
fn taps(n: usize, m: usize) -> Vec<Vec<(usize, f32)>> {
    let step = n as f64 / m.max(1) as f64;
    let reach = step.max(1.0);
    (0..m)
        .map(|k| {
            let center = (k as f64 + 0.5) * step - 0.5;
            let first = (center - reach).floor().max(0.0) as usize;
            let last = ((center + reach).ceil() as usize).min(n.saturating_sub(1));
            let mut taps: Vec<(usize, f32)> = (first..=last)
                .map(|i| (i, (1.0 - (i as f64 - center).abs() / reach).max(0.0) as f32))
                .filter(|&(_, weight)| weight > 0.0)
                .collect();
            let sum: f32 = taps.iter().map(|&(_, weight)| weight).sum();
            for (_, weight) in &mut taps {
                *weight /= sum;
            }
            taps
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_keeps_constants_and_ramps() {
        let values = (0..12).map(|k| [(k % 4) as f32, 7.0]).collect();
        let plane = Raster { width: 4, values };
        for (width, height) in [(4, 3), (8, 9), (2, 1), (3, 5)] {
            let resized = plane.resized(width, height);
            assert_eq!(resized.values.len(), width * height);
            assert!(resized.values.iter().all(|v| (v[1] - 7.0).abs() < 1e-5));
            let row = &resized.values[..width];
            assert!(row.is_sorted_by(|a, b| a[0] < b[0]), "{row:?}");
            let mean = row.iter().map(|v| v[0]).sum::<f32>() / width as f32;
            assert!((mean - 1.5).abs() < 1e-5, "{width}: {mean}");
        }
    }

    #[test]
    fn text_lands_where_it_should_and_may_leave_the_picture() {
        let font = &embedded_graphics::mono_font::ascii::FONT_6X10;
        let mut picture = Picture::new(20, 12, [0; 3]);
        picture.text(2, 1, "I", font, [9, 8, 7]);
        let lit: Vec<(usize, usize)> = (0..12)
            .flat_map(|y| (0..20).map(move |x| (x, y)))
            .filter(|&(x, y)| picture.pixel(x, y) == Some([9, 8, 7]))
            .collect();
        assert!(!lit.is_empty() && lit.iter().all(|&(x, y)| (2..8).contains(&x) && y >= 1));
        picture.text(15, 8, "overlong", font, [1; 3]);
        assert_eq!(text_width("four", font), 24);
    }
}
