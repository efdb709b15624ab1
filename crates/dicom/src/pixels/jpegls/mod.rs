//! JPEG-LS (ITU-T T.87) of one component, lossless and near-lossless.
//!
//! Here because no crate in pure Rust reads what `CharLS` and dcmtk write.

mod bits;
mod scan;

use bits::Bits;
use fastnnunet_model::Mismatch;
use scan::{Coding, Preset};

/// Decodes a frame of `[rows, columns]`, row by row.
pub(super) fn decode(bytes: &[u8], size: [usize; 2]) -> Result<Vec<u16>, Mismatch> {
    let mut precision = None;
    let mut preset = Preset::default();
    let mut at = 0;
    loop {
        let (marker, segment, next) =
            super::jpeg::next_segment(bytes, at).map_err(|_| damaged())?;
        at = next;
        match marker {
            0xF7 => precision = Some(frame_header(segment, size)?),
            0xF8 => match segment {
                [1, words @ ..] if words.len() >= 10 => {
                    let word =
                        |i: usize| i32::from(u16::from_be_bytes([words[2 * i], words[2 * i + 1]]));
                    preset = Preset {
                        max_value: word(0),
                        thresholds: [word(1), word(2), word(3)],
                        reset: word(4),
                    };
                }
                _ => return Err(unsupported("mapping tables or oversize images")),
            },
            0xDD if segment.iter().any(|&b| b != 0) => {
                return Err(unsupported("restart intervals"));
            }
            0xDA => {
                let precision = precision.ok_or_else(damaged)?;
                let [1, _, table, near, _, transform] = *segment else { return Err(damaged()) };
                if table != 0 {
                    return Err(unsupported("mapping tables"));
                }
                let coding = Coding::new(precision, i32::from(near), preset).ok_or_else(damaged)?;
                let mut samples =
                    coding.decode(&mut Bits::new(&bytes[at..]), size).ok_or_else(damaged)?;
                let shift = u32::from(transform & 15);
                if shift > 0 {
                    for sample in &mut samples {
                        *sample <<= shift;
                    }
                }
                return Ok(samples);
            }
            0xC0..=0xCF => return Err(unsupported("another process than JPEG-LS")),
            _ => {}
        }
    }
}

fn damaged() -> Mismatch {
    Mismatch::new("a damaged JPEG-LS frame", "a whole one")
}

fn unsupported(what: &str) -> Mismatch {
    Mismatch::new(format!("a JPEG-LS frame with {what}"), "samples of one component")
}

/// Checks the size and returns the bits of a sample.
fn frame_header(segment: &[u8], [rows, columns]: [usize; 2]) -> Result<u32, Mismatch> {
    let [precision, r1, r0, c1, c0, components, ..] = *segment else { return Err(damaged()) };
    let [r, c] = [[r1, r0], [c1, c0]].map(|b| usize::from(u16::from_be_bytes(b)));
    if [r, c] != [rows, columns] || components != 1 || !(2..=16).contains(&precision) {
        return Err(Mismatch::new(
            format!(
                "a JPEG-LS frame of {r} x {c} pixels, {precision} bits, {components} components"
            ),
            format!("{rows} x {columns}, 2 to 16 bits, one component"),
        ));
    }
    Ok(u32::from(precision))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of T.87 annex H.3: a 4x4 image of 8 bits.
    #[test]
    fn the_example_of_the_standard_is_decoded() {
        let bytes = [
            0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11,
            0x00, 0xFF, 0xDA, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00,
            0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6,
            0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91, 0x60, 0xFF,
            0xD9,
        ];
        let image = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        assert_eq!(decode(&bytes, [4, 4]), Ok(image.to_vec()));
        assert!(decode(&bytes, [4, 5]).is_err(), "another size");
        assert!(decode(&bytes[..40], [4, 4]).is_err(), "cut off");
    }
}
