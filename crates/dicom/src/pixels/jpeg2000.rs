//! JPEG 2000 and HTJ2K: the codestream's own header is checked here, `openjp2` decodes.

use fastnnunet_model::Mismatch;
use jpeg2k::{DecodeParameters, Image};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Decodes a frame of `[rows, columns]` and hands its samples over, row by row; negative where the
/// codestream is of signed ones.
pub(super) fn decode(
    bytes: &[u8],
    size: [usize; 2],
    take: impl FnOnce(&[i32]),
) -> Result<(), Mismatch> {
    check(bytes, size)?;
    let damaged = || Mismatch::new("a damaged JPEG 2000 frame", "a whole one");
    // The decoder is a translation of C by machine; what it may trip over is not ours to fall on.
    let image = catch_unwind(AssertUnwindSafe(|| {
        // Strict: part of a codestream is not an image.
        Image::from_bytes_with(bytes, DecodeParameters::new().strict(true))
    }))
    .map_err(|_| damaged())?
    .map_err(|_| damaged())?;
    let [component] = image.components() else { return Err(damaged()) };
    let [rows, columns] = size;
    if [component.height() as usize, component.width() as usize] != size
        || component.data().len() != rows * columns
    {
        return Err(damaged());
    }
    take(component.data());
    Ok(())
}

/// Checks the size that the codestream announces, before anything is allocated by it.
fn check(bytes: &[u8], [rows, columns]: [usize; 2]) -> Result<(), Mismatch> {
    let damaged = || Mismatch::new("a JPEG 2000 frame without a header", "one");
    // A codestream, or one in the boxes of a file.
    let begin = [0xFF, 0x4F, 0xFF, 0x51];
    let at = bytes.windows(4).take(4096).position(|w| w == begin).ok_or_else(damaged)?;
    let header = bytes.get(at + 6..at + 6 + 36).ok_or_else(damaged)?;
    let word = |at: usize| -> usize {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
    };
    let [right, bottom, left, top] = [word(2), word(6), word(10), word(14)];
    let [tile_width, tile_height] = [word(18), word(22)];
    let components = u16::from_be_bytes([header[34], header[35]]);
    let found = [bottom.checked_sub(top), right.checked_sub(left)];
    if found != [Some(rows), Some(columns)] || components != 1 {
        let [bottom, right] = found.map(Option::unwrap_or_default);
        return Err(Mismatch::new(
            format!("a JPEG 2000 frame of {bottom} x {right} pixels in {components} components"),
            format!("{rows} x {columns} in one"),
        ));
    }
    // A tile may be larger than the image, but no codestream needs more tiles than pixels.
    if tile_width == 0 || tile_height == 0 {
        return Err(damaged());
    }
    Ok(())
}
