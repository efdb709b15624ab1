//! Parallel gzip with the same bytes at any thread count.
//!
//! The data is cut at fixed places, each piece is deflated on its own and ended by a
//! sync flush, which stops at a byte border, so the pieces join into one deflate stream:
//! one ordinary gzip member. Concatenated members would be simpler and ITK and nibabel
//! read them, but several browser viewers stop after the first.

use flate2::{Compress, Compression, Crc, FlushCompress};
use rayon::prelude::*;
use std::io::{self, Write};

/// Uncompressed bytes per piece.
const PIECE_BYTES: usize = 1024 * 1024;

/// Deflate, no name, no time, unknown system: nothing that varies between runs.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A last, empty block of a deflate stream.
const FINAL_BLOCK: [u8; 2] = [3, 0];

/// Writes `parts`, one after the other, as one gzip member.
pub(super) fn write(out: &mut impl Write, parts: &[&[u8]], level: Compression) -> io::Result<()> {
    let pieces: Vec<&[u8]> = parts.iter().flat_map(|p| p.chunks(PIECE_BYTES)).collect();
    let deflated: Vec<_> = pieces.into_par_iter().map(|p| deflate(p, level)).collect();

    out.write_all(&MEMBER_HEADER)?;
    let mut crc = Crc::new();
    for piece in deflated {
        let (bytes, piece_crc) = piece?;
        out.write_all(&bytes)?;
        crc.combine(&piece_crc);
    }
    out.write_all(&FINAL_BLOCK)?;
    out.write_all(&crc.sum().to_le_bytes())?;
    // The format stores the length modulo 2^32.
    let length = parts.iter().fold(0_u32, |n, part| n.wrapping_add(part.len() as u32));
    out.write_all(&length.to_le_bytes())
}

fn deflate(piece: &[u8], level: Compression) -> io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(piece);
    let mut encoder = Compress::new(level, false);
    let mut out = Vec::with_capacity(piece.len() / 16 + 1024);
    loop {
        let done = encoder.total_in() as usize;
        encoder.compress_vec(&piece[done..], &mut out, FlushCompress::Sync)?;
        // The flush is complete once the encoder leaves room behind.
        if encoder.total_in() as usize == piece.len() && out.len() < out.capacity() {
            return Ok((out, crc));
        }
        out.reserve(out.len().max(1024));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pack(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, parts, Compression::new(6)).expect("memory does not fail");
        out
    }

    /// Bytes that do not compress, so that output buffers fill up.
    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let step = |s: &mut u64| {
            *s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (*s >> 56) as u8
        };
        (0..n).map(|_| step(&mut state)).collect()
    }

    #[test]
    fn one_member_holds_everything() {
        for n in [0, 1, 1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7] {
            for body in [vec![3_u8; n], noise(n)] {
                let packed = pack(&[b"head", &body]);
                let mut back = Vec::new();
                let mut decoder = flate2::bufread::GzDecoder::new(packed.as_slice());
                decoder.read_to_end(&mut back).expect("valid gzip");
                assert!(back.starts_with(b"head") && back[4..] == body, "{n}");
                assert!(decoder.into_inner().is_empty(), "{n}: nothing follows the member");
            }
        }
    }

    #[test]
    fn bytes_do_not_depend_on_the_thread_count() {
        let body = noise(2 * PIECE_BYTES + 5);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads").install(|| pack(&[&body]))
        };
        assert_eq!(with(1), with(3));
    }
}
