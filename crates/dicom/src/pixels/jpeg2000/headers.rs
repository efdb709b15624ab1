//! What the headers of a codestream say, before anything is allocated by them.

use fastnnunet_model::Mismatch;

/// Start of a codestream, and of the segment of its size.
const BEGIN: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];

const CODING: u8 = 0x52;
const CODING_OF_COMPONENT: u8 = 0x53;
const TILE_PART: u8 = 0x90;
const DATA: u8 = 0x93;

/// A codestream of one component whose size is that of the frame.
pub(super) struct Headers<'a> {
    pub(super) codestream: &'a [u8],
    /// Bits of a sample.
    pub(super) precision: u32,
    pub(super) signed: bool,
    /// Rows and columns of a tile.
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
            tile: [tile_height.min(rows), tile_width.min(columns)],
        })
    }

    /// Whether this is reversible JPEG 2000 of up to 16 bits, in blocks and layers as encoders write them.
    ///
    /// Irreversible transforms are left to the decoder with the rounded factors of `OpenJPEG`, whose values
    /// other programs show: up to 3 of 65,536 lie between the two. And the faster decoder
    /// allocates an entry for each layer of each block before it reads them: a header of a hundred
    /// bytes could ask for gigabytes.
    pub(super) fn are_usual(&self) -> bool {
        let is_coding = |marker: u8| [CODING, CODING_OF_COMPONENT].contains(&marker);
        let mut codings = Segments::of(self.codestream).filter(|&(marker, _)| is_coding(marker));
        let Some((CODING, coding)) = codings.next() else { return false };
        // Tiles with a coding of their own are none of the usual.
        if self.precision > 16 || codings.next().is_some() {
            return false;
        }
        let pixels = self.tile[0] * self.tile[1];
        self.entries(coding).is_some_and(|entries| entries <= (pixels / 32).max(4096))
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
        if style >= 64 || transform != 1 || levels > 32 {
            return None;
        }
        let mut blocks = 0_usize;
        for resolution in 0..=levels {
            // Sides of blocks and precincts are powers of two. Above the lowest resolution a precinct is
            // shared by three bands of half the side, and no block is larger than its part.
            let precinct = if flags & 1 == 0 { 0xFF } else { *precincts.get(resolution)? };
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

/// Marker segments of all headers of a codestream, data skipped; ends at anything unknown.
struct Segments<'a> {
    codestream: &'a [u8],
    at: usize,
    /// Where the tile-part ends whose header is being read.
    end: usize,
}

impl<'a> Segments<'a> {
    fn of(codestream: &'a [u8]) -> Self {
        Self { codestream, at: 2, end: 0 }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.codestream.get(self.at..)?;
        if rest.starts_with(&[0xFF, DATA]) {
            // Only ever onward.
            rest = self.codestream.get(self.end.max(self.at + 2)..)?;
            self.at = self.codestream.len() - rest.len();
        }
        let &[0xFF, marker, high, low, ..] = rest else { return None };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(4..2 + len)?;
        if marker == TILE_PART {
            let &[_, _, a, b, c, d, ..] = body else { return None };
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            self.end = if len == 0 { self.codestream.len() } else { self.at + len };
        }
        self.at += 2 + len;
        Some((marker, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers in blocks of 64 x 64 over five levels, reversible.
    const USUAL: [u8; 10] = [0, 0, 0, 2, 0, 5, 4, 4, 0, 1];

    /// A codestream of 512 x 512 unsigned samples, with `segments` in its header and `own` in that of its
    /// only tile, and no data.
    fn codestream(bits: u8, segments: &[(u8, &[u8])], own: &[(u8, &[u8])]) -> Vec<u8> {
        let segment = |&(marker, body): &(u8, &[u8])| {
            [&[0xFF, marker, 0, body.len() as u8 + 2][..], body].concat()
        };
        let mut size = vec![0, 0];
        for number in [512_u32, 512, 0, 0, 512, 512, 0, 0] {
            size.extend(number.to_be_bytes());
        }
        size.extend([0, 1, bits - 1, 1, 1]);
        let mut bytes = vec![0xFF, 0x4F];
        bytes.extend(segment(&(0x51, &size)));
        bytes.extend(segments.iter().flat_map(segment));
        let own: Vec<u8> = own.iter().flat_map(segment).collect();
        bytes.extend(segment(&(TILE_PART, &[0, 0, 0, 0, 0, 14 + own.len() as u8, 0, 1])));
        bytes.extend(own);
        bytes.extend([0xFF, DATA, 0xFF, 0xD9]);
        bytes
    }

    #[test]
    fn what_could_ask_for_much_memory_is_none_of_the_usual() {
        let layers = |n: u16| {
            let [high, low] = n.to_be_bytes();
            [0, 0, high, low, 0, 5, 4, 4, 0, 1]
        };
        let blocks = |width: u8, height: u8| [0, 0, 0, 1, 0, 5, width, height, 0, 1];
        let precincts = |side: u8| [&[1, 0, 0, 1, 0, 1, 4, 4, 0, 1][..], &[side, side]].concat();
        let comment = (0x64, &b"a comment"[..]);
        let usual = (CODING, &USUAL[..]);
        let cases: [(&str, bool, Vec<u8>); 16] = [
            ("usual", true, codestream(12, &[usual], &[])),
            ("with comments", true, codestream(16, &[comment, usual], &[comment])),
            ("17 bits", false, codestream(17, &[usual], &[])),
            ("no coding", false, codestream(12, &[], &[])),
            ("a tile's coding", false, codestream(12, &[usual], &[comment, usual])),
            ("of a component", false, codestream(12, &[usual, (CODING_OF_COMPONENT, &[])], &[])),
            ("HTJ2K", false, codestream(12, &[(CODING, &[0, 0, 0, 1, 0, 5, 4, 4, 64, 1])], &[])),
            (
                "irreversible",
                false,
                codestream(12, &[(CODING, &[0, 0, 0, 1, 0, 5, 4, 4, 0, 0])], &[]),
            ),
            ("20 layers", true, codestream(12, &[(CODING, &layers(20))], &[])),
            ("255 layers", false, codestream(12, &[(CODING, &layers(255))], &[])),
            ("blocks of 16", true, codestream(12, &[(CODING, &blocks(2, 2))], &[])),
            ("blocks of 4", false, codestream(12, &[(CODING, &blocks(0, 0))], &[])),
            ("blocks of 1024 x 4", true, codestream(12, &[(CODING, &blocks(8, 0))], &[])),
            ("precincts of 128", true, codestream(12, &[(CODING, &precincts(0x77))], &[])),
            ("precincts of 2", false, codestream(12, &[(CODING, &precincts(0x11))], &[])),
            ("precincts of 1", false, codestream(12, &[(CODING, &precincts(0x00))], &[])),
        ];
        for (case, is_usual, bytes) in cases {
            let headers = Headers::read(&bytes, [512, 512]).expect(case);
            assert_eq!(headers.are_usual(), is_usual, "{case}");
        }
    }

    #[test]
    fn headers_cut_off_anywhere_are_no_panic() {
        let bytes = codestream(12, &[(CODING, &USUAL)], &[(0x64, b"a comment")]);
        for end in 0..bytes.len() {
            if let Ok(headers) = Headers::read(&bytes[..end], [512, 512]) {
                headers.are_usual();
            }
        }
    }
}
