//! What the headers of a codestream say, before anything is allocated by them.

use fastnnunet_model::Mismatch;

/// Start of a codestream, and of the segment of its size.
const BEGIN: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];

// Markers of segments.
const CODING: u8 = 0x52;
const LENGTHS: u8 = 0x55;
const PACKET_LENGTHS: u8 = 0x58;
const QUANTIZATION: u8 = 0x5C;
const COMMENT: u8 = 0x64;
const TILE_PART: u8 = 0x90;
/// Ends the header of a tile-part.
const DATA: [u8; 2] = [0xFF, 0x93];

/// A codestream of one component whose size is that of the frame.
pub(super) struct Headers<'a> {
    pub(super) codestream: &'a [u8],
    /// Bits of a sample.
    pub(super) precision: u32,
    pub(super) signed: bool,
    /// Rows and columns of the frame.
    size: [usize; 2],
    /// Those of a tile.
    tile: [usize; 2],
}

impl<'a> Headers<'a> {
    /// Checks the size that the codestream announces.
    pub(super) fn read(bytes: &'a [u8], [rows, columns]: [usize; 2]) -> Result<Self, Mismatch> {
        let damaged = || Mismatch::new("a JPEG 2000 frame without a header", "one");
        // A codestream, or one in the boxes of a file.
        let at = bytes.windows(4).take(4096).position(|w| w == BEGIN).ok_or_else(damaged)?;
        let codestream = &bytes[at..];
        let header = codestream.get(6..6 + 37).ok_or_else(damaged)?;
        let word = |at: usize| -> usize {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let [right, bottom, left, top] = [word(2), word(6), word(10), word(14)];
        let [tile_width, tile_height] = [word(18), word(22)];
        let components = u16::from_be_bytes([header[34], header[35]]);
        let found = [bottom.checked_sub(top), right.checked_sub(left)];
        if found != [Some(rows), Some(columns)] || components != 1 {
            let [bottom, right] = found.map(Option::unwrap_or_default);
            return Err(Mismatch::new(
                format!(
                    "a JPEG 2000 frame of {bottom} x {right} pixels in {components} components"
                ),
                format!("{rows} x {columns} in one"),
            ));
        }
        // A tile may be larger than the image, but no codestream needs more tiles than pixels.
        if tile_width == 0 || tile_height == 0 {
            return Err(damaged());
        }
        Ok(Self {
            codestream,
            precision: u32::from(header[36] & 0x7F) + 1,
            signed: header[36] & 0x80 != 0,
            size: [rows, columns],
            tile: [tile_height.min(rows), tile_width.min(columns)],
        })
    }

    /// Whether this is reversible JPEG 2000 of up to 16 bits, in tiles, blocks and layers as encoders write
    /// them.
    ///
    /// Irreversible transforms are left to the decoder with the rounded factors of `OpenJPEG`, whose values
    /// other programs show: up to 3 of 65,536 lie between the two. And the faster decoder
    /// allocates an entry for each tile, and each layer of each block, before it reads them: a header
    /// of a hundred bytes could ask for gigabytes.
    pub(super) fn are_usual(&self) -> bool {
        let [pixels, of_tile] = [self.size, self.tile].map(|[rows, columns]| rows * columns);
        let along = |axis: usize| self.size[axis] / self.tile[axis] + 2;
        self.precision <= 16
            && along(0) * along(1) <= (pixels / 512).max(1024)
            && self
                .coding()
                .and_then(|coding| self.entries(coding))
                .is_some_and(|entries| entries <= (of_tile / 32).max(4096))
    }

    /// How the codestream is coded, if its headers hold nothing but what they must, lengths and comments;
    /// in these any two readers see the same segments.
    fn coding(&self) -> Option<&'a [u8]> {
        let (_, size, mut rest) = segment(&self.codestream[2..])?;
        if size.len() != 39 {
            return None;
        }
        let mut coding = None;
        loop {
            let (marker, body, after) = segment(rest)?;
            match marker {
                CODING if coding.is_none() => coding = Some(body),
                // Exponents of 32 levels at most, without quantization.
                QUANTIZATION if body.len() <= 98 && body.first()? % 32 == 0 => {}
                LENGTHS | COMMENT => {}
                TILE_PART => break,
                _ => return None,
            }
            rest = after;
        }
        while let Some((TILE_PART, body, mut header)) = segment(rest) {
            let &[_, _, a, b, c, d, _, _] = body else { return None };
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            while !header.starts_with(&DATA) {
                let (PACKET_LENGTHS | COMMENT, _, after) = segment(header)? else { return None };
                header = after;
            }
            // Only ever onward, and each header is gone through once.
            rest = match len {
                0 => &[],
                _ if len < rest.len() - header.len() => return None,
                _ => rest.get(len..)?,
            };
        }
        coding
    }

    /// How many blocks a tile has at most, times layers; none of HTJ2K or an irreversible transform.
    fn entries(&self, coding: &[u8]) -> Option<usize> {
        let &[
            flags,
            _,
            layers,
            layers_low,
            _,
            levels,
            width,
            height,
            style,
            transform,
            ref precincts @ ..,
        ] = coding
        else {
            return None;
        };
        let layers = usize::from(u16::from_be_bytes([layers, layers_low]));
        let levels = usize::from(levels);
        let of_precincts = if flags & 1 == 0 { 0 } else { levels + 1 };
        if style >= 64 || transform != 1 || levels > 32 || precincts.len() != of_precincts {
            return None;
        }
        let mut blocks = 0_usize;
        for resolution in 0..=levels {
            // Sides of blocks and precincts are powers of two. Above the lowest resolution a precinct is
            // shared by three bands of half the side, and no block is larger than its part.
            let precinct = precincts.get(resolution).copied().unwrap_or(0xFF);
            let (halved, bands) = if resolution == 0 { (0, 1) } else { (1, 3) };
            let side = |block: u8, precinct: u8| -> Option<u32> {
                Some(u32::from((block & 15).checked_add(2)?.min(precinct.checked_sub(halved)?)))
            };
            let [height, width] = [side(height, precinct >> 4)?, side(width, precinct & 15)?];
            let down = (levels + usize::from(halved)).checked_sub(resolution)?;
            let across = |side: usize, block: u32| (side >> down >> block) + 2;
            blocks += bands * across(self.tile[0], height) * across(self.tile[1], width);
        }
        blocks.checked_mul(layers)
    }
}

/// A segment's marker and body, and what follows it.
fn segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let &[0xFF, marker, high, low, ref rest @ ..] = bytes else { return None };
    let len = usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?;
    let (body, after) = rest.split_at_checked(len)?;
    Some((marker, body, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Segment<'a> = (u8, &'a [u8]);

    /// Name, whether it is usual, bits, side of tiles, segments, those of the tile-part.
    type Case<'a> = (&'a str, bool, u8, u32, Vec<Segment<'a>>, Vec<Segment<'a>>);

    /// Two layers in blocks of 64 x 64 over five levels, reversible.
    const USUAL: [u8; 10] = [0, 0, 0, 2, 0, 5, 4, 4, 0, 1];

    /// A codestream of 512 x 512 unsigned samples in tiles of `side`, with `segments` in its header and `own`
    /// in that of its only tile-part, and no data.
    fn codestream(bits: u8, side: u32, segments: &[Segment<'_>], own: &[Segment<'_>]) -> Vec<u8> {
        let segment = |&(marker, body): &Segment<'_>| {
            [&[0xFF, marker, 0, body.len() as u8 + 2][..], body].concat()
        };
        let mut size = vec![0, 0];
        for number in [512, 512, 0, 0, side, side, 0, 0] {
            size.extend(number.to_be_bytes());
        }
        size.extend([0, 1, bits - 1, 1, 1]);
        let mut bytes = vec![0xFF, 0x4F];
        bytes.extend(segment(&(0x51, &size)));
        bytes.extend(segments.iter().flat_map(segment));
        let own: Vec<u8> = own.iter().flat_map(segment).collect();
        bytes.extend(segment(&(TILE_PART, &[0, 0, 0, 0, 0, 14 + own.len() as u8, 0, 1])));
        bytes.extend(own);
        bytes.extend(DATA);
        bytes.extend([0xFF, 0xD9]);
        bytes
    }

    #[test]
    fn what_could_ask_for_much_memory_is_none_of_the_usual() {
        let comment = (COMMENT, &b"a comment"[..]);
        let usual = (CODING, &USUAL[..]);
        let steps = (QUANTIZATION, &[0x40; 98][..]);
        let cases: [Case<'_>; 11] = [
            ("usual", true, 12, 512, vec![usual, steps], vec![]),
            ("comments", true, 16, 512, vec![comment, usual], vec![comment]),
            ("17 bits", false, 17, 512, vec![usual], vec![]),
            ("tiles of 32", true, 12, 32, vec![usual], vec![]),
            ("tiles of 8", false, 12, 8, vec![usual], vec![]),
            ("no coding", false, 12, 512, vec![], vec![]),
            ("two codings", false, 12, 512, vec![usual, usual], vec![]),
            ("a tile's coding", false, 12, 512, vec![usual], vec![comment, usual]),
            ("many steps", false, 12, 512, vec![usual, (QUANTIZATION, &[0x40; 99])], vec![]),
            ("quantized", false, 12, 512, vec![usual, (QUANTIZATION, &[0x42; 3])], vec![]),
            ("unknown", false, 12, 512, vec![usual, (0x30, &[])], vec![]),
        ];
        for (case, is_usual, bits, side, segments, own) in cases {
            let bytes = codestream(bits, side, &segments, &own);
            let headers = Headers::read(&bytes, [512, 512]).expect(case);
            assert_eq!(headers.are_usual(), is_usual, "{case}");
        }
        // Flags, order, layers, components, levels, sides of blocks, style, transform, precincts.
        let cases: [(&str, bool, &[u8]); 13] = [
            ("HTJ2K", false, &[0, 0, 0, 1, 0, 5, 4, 4, 64, 1]),
            ("irreversible", false, &[0, 0, 0, 1, 0, 5, 4, 4, 0, 0]),
            ("20 layers", true, &[0, 0, 0, 20, 0, 5, 4, 4, 0, 1]),
            ("255 layers", false, &[0, 0, 0, 255, 0, 5, 4, 4, 0, 1]),
            ("blocks of 16", true, &[0, 0, 0, 1, 0, 5, 2, 2, 0, 1]),
            ("blocks of 4", false, &[0, 0, 0, 1, 0, 5, 0, 0, 0, 1]),
            ("blocks of 1024 x 4", true, &[0, 0, 0, 1, 0, 5, 8, 0, 0, 1]),
            ("precincts of 128", true, &[1, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0x77, 0x77]),
            ("precincts of 2", false, &[1, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0x11, 0x11]),
            ("precincts of 1", false, &[1, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0, 0]),
            ("a precinct too few", false, &[1, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0x77]),
            ("one too many", false, &[0, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0x77]),
            ("cut off", false, &[0, 0, 0, 1]),
        ];
        for (case, is_usual, coding) in cases {
            let bytes = codestream(12, 512, &[(CODING, coding)], &[]);
            let headers = Headers::read(&bytes, [512, 512]).expect(case);
            assert_eq!(headers.are_usual(), is_usual, "{case}");
        }
    }

    /// Thousands of them within one comment, each with all comments behind it as its header.
    #[test]
    fn a_tile_part_shorter_than_its_header_is_none_of_the_usual() {
        let mut bytes = codestream(12, 512, &[(CODING, &USUAL)], &[(COMMENT, b"a comment")]);
        let usual = |bytes: &[u8]| Headers::read(bytes, [512, 512]).expect("a header").are_usual();
        assert!(usual(&bytes));
        let at = bytes.windows(2).position(|pair| pair == [0xFF, TILE_PART]).expect("one");
        bytes[at + 9] = 12;
        assert!(!usual(&bytes));
    }

    #[test]
    fn headers_cut_off_anywhere_are_no_panic() {
        let bytes = codestream(12, 512, &[(CODING, &USUAL)], &[(COMMENT, b"a comment")]);
        for end in 0..bytes.len() {
            if let Ok(headers) = Headers::read(&bytes[..end], [512, 512]) {
                assert!(!headers.are_usual() || end + 2 >= bytes.len(), "{end}");
            }
        }
    }
}
