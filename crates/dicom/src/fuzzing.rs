//! Doors for fuzz targets: parts of reading that a path to one small file does not reach.

use crate::pixels;
use crate::read::file::{self, FileLimits};
use crate::read::image::{Image, Layout};
use crate::read::parse::PixelData;
use crate::read::syntax::{Coding, Syntax};
use std::io::Cursor;
use std::sync::Arc;

/// A fuzzed image is no larger.
const MAX_PIXELS: usize = 1 << 16;

/// Reads a file's headers and decodes its frames, as far as they are small.
pub fn file(bytes: &[u8]) {
    let limits = FileLimits { max_elements: 10_000, max_bytes: 1 << 22 };
    let opened = file::open(&mut Cursor::new(bytes), bytes.len() as u64, limits);
    let Ok(Some(opened)) = opened else { return };
    let image = Image::of(&opened, 0);
    let data = opened.inflated.as_deref().unwrap_or(bytes);
    let size = image.layout.rows * image.layout.columns;
    if size > MAX_PIXELS {
        return;
    }
    let mut out = vec![0.0_f32; size];
    for (k, frame) in image.frames.iter().enumerate().take(16) {
        let Ok(parts) = pixels::extents(&image.layout, k, image.frames.len()) else { continue };
        let whole: Option<Vec<&[u8]>> = parts
            .iter()
            .map(|&(start, len)| data.get(start as usize..start.saturating_add(len) as usize))
            .collect();
        if let Some(whole) = whole {
            let scale = (frame.slope, frame.intercept);
            let _ = pixels::decode(&image.layout, scale, &whole.concat(), &mut out);
        }
    }
}

/// Codings that a frame is decoded in.
const SYNTAXES: [&str; 6] = [
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
];

/// Decodes a frame: coding, rows, columns and layout in the first four bytes, then its code.
pub fn frame(bytes: &[u8]) {
    let [coding, rows, columns, bits, code @ ..] = bytes else { return };
    let syntax = SYNTAXES.get(usize::from(*coding)).and_then(|uid| Syntax::find(uid));
    let Some(syntax) = syntax else { return };
    let (rows, columns) = (usize::from(*rows) + 1, usize::from(*columns) + 1);
    let bits_allocated = if bits & 0x80 == 0 { 16 } else { 8 };
    let bits_stored = u32::from(bits & 15).min(bits_allocated - 1) + 1;
    let fragments = vec![(0, code.len() as u32)];
    let pixels = PixelData::Encapsulated { fragments, offsets: Vec::new(), whole: true };
    let layout = Layout {
        syntax,
        rows,
        columns,
        bits_allocated,
        bits_stored,
        high_bit: bits_stored - 1,
        signed: bits & 0x40 != 0,
        pixels: Some(Arc::new(pixels)),
        frame_offsets: Vec::new(),
        lossy: false,
    };
    let mut out = vec![0.0_f32; rows * columns];
    let _ = pixels::decode(&layout, (1.0, 0.0), code, &mut out);
}

/// What [`frame`] takes to decode the first frame of a file, if that is compressed and small.
#[must_use]
pub fn frame_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let limits = FileLimits { max_elements: 10_000, max_bytes: 1 << 22 };
    let opened = file::open(&mut Cursor::new(bytes), bytes.len() as u64, limits).ok()??;
    let image = Image::of(&opened, 0);
    let layout = &image.layout;
    let coding = match layout.syntax.coding? {
        Coding::Native { .. } => return None,
        Coding::Rle => 0,
        Coding::DeflatedFrames => 1,
        Coding::JpegDct => 2,
        Coding::JpegLossless => 3,
        Coding::JpegLs { .. } => 4,
        Coding::Jpeg2000 { .. } => 5,
    };
    let less = |n: usize| u8::try_from(n.checked_sub(1)?).ok();
    let signed = if layout.signed { 0x40 } else { 0 };
    let narrow = if layout.bits_allocated == 8 { 0x80 } else { 0 };
    let bits = less(layout.bits_stored as usize).filter(|bits| *bits < 16)? | signed | narrow;
    let mut seed = vec![coding, less(layout.rows)?, less(layout.columns)?, bits];
    for (start, len) in pixels::extents(layout, 0, image.frames.len()).ok()? {
        let end = usize::try_from(start.checked_add(len)?).ok()?;
        seed.extend(bytes.get(usize::try_from(start).ok()?..end)?);
    }
    Some(seed)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;
    use std::path::Path;

    /// The first file of each fixture.
    pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut files = Vec::new();
        for group in ["regular", "odd"] {
            for entry in std::fs::read_dir(fixtures.join(group)).expect("a folder") {
                let path = entry.expect("an entry").path();
                let packed = std::fs::File::open(&path).expect("a fixture");
                let mut zip = Vec::new();
                flate2::read::ZlibDecoder::new(packed).read_to_end(&mut zip).expect("whole");
                let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zip)).expect("a zip");
                let mut bytes = Vec::new();
                zip.by_index(0).expect("an entry").read_to_end(&mut bytes).expect("whole");
                files.push((path.display().to_string(), bytes));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn every_coding_has_a_seed() {
        let seeds: Vec<Vec<u8>> =
            files().iter().filter_map(|(_, whole)| super::frame_of(whole)).collect();
        for coding in 0..super::SYNTAXES.len() {
            let of = seeds.iter().filter(|seed| usize::from(seed[0]) == coding);
            assert!(coding == 1 || of.clone().count() > 1, "{}", super::SYNTAXES[coding]);
            of.for_each(|seed| super::frame(seed));
        }
    }

    /// Cut off anywhere, with bytes that are not what they were: an error or an image, and no panic.
    #[test]
    fn damaged_files_are_read_without_a_panic() {
        let files = files();
        assert!(files.len() > 100);
        let mut state = 12345_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize
        };
        for (_, whole) in &files {
            super::file(whole);
            for _ in 0..25 {
                let mut bytes = whole[..next() % (whole.len() + 1)].to_vec();
                super::file(&bytes);
                bytes = whole.clone();
                for _ in 0..=next() % 6 {
                    if !bytes.is_empty() {
                        let at = next() % bytes.len();
                        bytes[at] = next() as u8;
                    }
                }
                super::file(&bytes);
            }
        }
    }
}
