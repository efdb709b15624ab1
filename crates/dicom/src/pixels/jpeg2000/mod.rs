//! JPEG 2000 and HTJ2K: headers are checked here; `hayro-jpeg2000` decodes what is usual, `openjp2` the rest.

mod headers;

use fastnnunet_model::Mismatch;
use hayro_jpeg2000::{DecodeSettings, DecoderContext};
use headers::Headers;
use jpeg2k::DecodeParameters;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Decodes a frame of `[rows, columns]` into `out`, row by row, each sample turned by `of`; samples are
/// negative where the codestream is of signed ones.
pub(super) fn decode<T>(
    bytes: &[u8],
    size: [usize; 2],
    out: &mut [T],
    of: impl Fn(i32) -> T,
) -> Result<(), Mismatch> {
    let headers = Headers::read(bytes, size)?;
    // What a decoder trips over is not ours to fall on.
    let caught = |decoder: &mut dyn FnMut() -> Option<()>| {
        catch_unwind(AssertUnwindSafe(decoder)).is_ok_and(|decoded| decoded.is_some())
    };
    // What one decoder refuses may be whole for the other: the end marker is missing, say.
    let decoded = headers.are_usual() && caught(&mut || usual(&headers, out, &of))
        || caught(&mut || any(bytes, size, out, &of));
    if decoded { Ok(()) } else { Err(Mismatch::new("a damaged JPEG 2000 frame", "a whole one")) }
}

/// The faster decoder, which knows no HTJ2K and computes in `f32`: exact for reversible transforms of 16 bits.
fn usual<T>(headers: &Headers<'_>, out: &mut [T], of: impl Fn(i32) -> T) -> Option<()> {
    // Strict: part of a codestream is not an image.
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = hayro_jpeg2000::Image::new(headers.codestream, &settings).ok()?;
    let mut context = DecoderContext::default();
    let image = image.decode(&mut context).ok()?;
    let [component] = image.components() else { return None };
    let samples = component.samples();
    if samples.len() != out.len() {
        return None;
    }
    // It adds half the range to signed samples too.
    let range = 1_i32 << headers.precision;
    let shift = if headers.signed { range / 2 } else { 0 };
    for (out, &sample) in out.iter_mut().zip(samples) {
        // A whole number, as the transform is reversible. Cut off at a quality it may leave the range.
        *out = of((sample as i32).clamp(0, range - 1) - shift);
    }
    Some(())
}

/// The decoder of everything else, a translation of `OpenJPEG` by machine.
fn any<T>(bytes: &[u8], size: [usize; 2], out: &mut [T], of: impl Fn(i32) -> T) -> Option<()> {
    let parameters = DecodeParameters::new().strict(true);
    let image = jpeg2k::Image::from_bytes_with(bytes, parameters).ok()?;
    let [component] = image.components() else { return None };
    let samples = component.data();
    if [component.height() as usize, component.width() as usize] != size
        || samples.len() != out.len()
    {
        return None;
    }
    for (out, &sample) in out.iter_mut().zip(samples) {
        *out = of(sample);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_decoders_read_the_same() {
        let mut usual_ones = 0;
        for (name, whole) in crate::fuzzing::tests::files() {
            let Some(seed) = crate::fuzzing::frame_of(&whole).filter(|seed| seed[0] == 5) else {
                continue;
            };
            let (size, code) = ([seed[1], seed[2]].map(|n| usize::from(n) + 1), &seed[4..]);
            let [mut ours, mut theirs, mut either] = [(); 3].map(|()| vec![0; size[0] * size[1]]);
            let Ok(headers) = Headers::read(code, size) else { continue };
            // A damaged one among the odd.
            if any(code, size, &mut theirs, |sample| sample).is_none() {
                assert!(decode(code, size, &mut either, |sample| sample).is_err(), "{name}");
                continue;
            }
            decode(code, size, &mut either, |sample| sample).expect(&name);
            let is_odd = name.contains("htj2k") || name.contains("lossy");
            assert_eq!(headers.are_usual(), !is_odd, "{name}");
            if headers.are_usual() {
                usual(&headers, &mut ours, |sample| sample).expect(&name);
                assert_eq!(either, ours, "{name}");
                usual_ones += 1;
            }
            assert_eq!(either, theirs, "{name}");
        }
        assert_eq!(usual_ones, 4, "of the regular kinds");
    }
}
