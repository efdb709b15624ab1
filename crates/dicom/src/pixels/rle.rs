//! RLE Lossless (PS3.5 annex G): byte planes, most significant first, each packed by runs.

use fastnnunet_model::Mismatch;

const HEADER_BYTES: usize = 64;

/// Unpacks a frame of `pixels` cells of `width` bytes into little-endian cells.
pub(super) fn decode(bytes: &[u8], pixels: usize, width: usize) -> Result<Vec<u8>, Mismatch> {
    let damaged = || Mismatch::new("a damaged RLE frame", "a run for each byte plane");
    let header = bytes.get(..HEADER_BYTES).ok_or_else(damaged)?;
    let words: Vec<usize> =
        header.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
    if words[0] != width || width > 15 {
        return Err(Mismatch::new(
            format!("an RLE frame of {} planes", words[0]),
            format!("{width}"),
        ));
    }
    let mut out = vec![0; pixels * width];
    for plane in 0..width {
        let start = words[1 + plane];
        let end = if plane + 1 < width { words[2 + plane] } else { bytes.len() };
        let packed = bytes.get(start.max(HEADER_BYTES)..end).ok_or_else(damaged)?;
        // The first plane holds the most significant byte, the last in a little-endian cell.
        let at = width - 1 - plane;
        unpack(packed, out[at..].iter_mut().step_by(width), pixels).ok_or_else(damaged)?;
    }
    Ok(out)
}

/// Fills `out` with `count` bytes; `None` if the runs end early.
fn unpack<'a>(
    mut packed: &[u8],
    mut out: impl Iterator<Item = &'a mut u8>,
    mut count: usize,
) -> Option<()> {
    while count > 0 {
        let (&control, rest) = packed.split_first()?;
        packed = rest;
        match control {
            0..=127 => {
                let literal = packed.get(..=usize::from(control))?;
                packed = &packed[literal.len()..];
                // The literal first: the iterator that ends must not have cost the other an item.
                for (byte, out) in literal.iter().zip(out.by_ref()) {
                    *out = *byte;
                }
                count = count.saturating_sub(literal.len());
            }
            128 => {}
            _ => {
                let (&byte, rest) = packed.split_first()?;
                packed = rest;
                let run = 257 - usize::from(control);
                out.by_ref().take(run).for_each(|out| *out = byte);
                count = count.saturating_sub(run);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(planes: &[&[u8]]) -> Vec<u8> {
        let mut header = vec![planes.len() as u32];
        let mut at = HEADER_BYTES as u32;
        for plane in planes {
            header.push(at);
            at += plane.len() as u32;
        }
        header.resize(16, 0);
        let header = header.iter().flat_map(|word| word.to_le_bytes());
        header.chain(planes.concat()).collect()
    }

    #[test]
    fn runs_and_literals_fill_the_planes() {
        // High bytes: a run of three; low bytes: two and one as they are, with a pause before.
        let bytes = frame(&[&[254, 1], &[128, 1, 7, 8, 0, 9]]);
        assert_eq!(decode(&bytes, 3, 2), Ok(vec![7, 1, 8, 1, 9, 1]));
    }

    #[test]
    fn a_frame_that_ends_early_is_a_fault() {
        let bytes = frame(&[&[254, 1], &[2, 7, 8]]);
        assert!(decode(&bytes, 3, 2).is_err());
        assert!(decode(&bytes, 3, 1).is_err(), "another number of planes");
        assert!(decode(&bytes[..40], 3, 2).is_err());
    }
}
