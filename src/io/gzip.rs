//! Parallel gzip and zlib with the same bytes at any thread count.
//!
//! The data is cut at fixed places, each piece is deflated on its own and ended by a
//! sync flush, which stops at a byte border, so the pieces join into one deflate stream:
//! one ordinary gzip member. Concatenated members would be simpler and ITK and nibabel
//! read them, but several browser viewers stop after the first.

use flate2::{Compress, Compression, Crc, FlushCompress};
use rayon::prelude::*;
use std::io::{self, Write};

/// Uncompressed bytes per piece.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;

/// Deflate, no name, no time, unknown system: nothing that varies between runs.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A last, empty block of a deflate stream.
const FINAL_BLOCK: [u8; 2] = [3, 0];

/// A piece of a member, deflated.
pub(super) struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
    /// Bytes before.
    length: usize,
}

/// Writes `parts`, one after the other, as one gzip member.
pub(super) fn write(out: &mut impl Write, parts: &[&[u8]], level: Compression) -> io::Result<()> {
    join(out, &deflate_all(parts, level)?)
}

/// Writes pieces, one after the other, as one gzip member.
pub(super) fn join<'a>(
    out: &mut impl Write,
    pieces: impl IntoIterator<Item = &'a Deflated>,
) -> io::Result<()> {
    out.write_all(&MEMBER_HEADER)?;
    let mut crc = Crc::new();
    let mut length = 0_u32;
    for piece in pieces {
        out.write_all(&piece.bytes)?;
        crc.combine(&piece.crc);
        // The format stores it modulo 2^32.
        length = length.wrapping_add(piece.length as u32);
    }
    out.write_all(&FINAL_BLOCK)?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&length.to_le_bytes())
}

/// `body` as zlib (RFC 1950).
pub(super) fn zlib(body: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let mut out = vec![0x78, 0x9c];
    for piece in &deflate_all(&[body], level)? {
        out.extend(&piece.bytes);
    }
    out.extend(FINAL_BLOCK);
    out.extend(adler32(body).to_be_bytes());
    Ok(out)
}

/// The checksum of zlib.
fn adler32(bytes: &[u8]) -> u32 {
    /// Largest prime below 2^16, and how many bytes can be added up before 32 bits overflow.
    const MODULUS: u32 = 65521;
    const CHUNK: usize = 5552;
    let (mut a, mut b) = (1_u32, 0_u32);
    for chunk in bytes.chunks(CHUNK) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

/// Deflates `parts` on all threads, piece by piece.
fn deflate_all(parts: &[&[u8]], level: Compression) -> io::Result<Vec<Deflated>> {
    let pieces: Vec<&[u8]> = parts.iter().flat_map(|p| p.chunks(PIECE_BYTES)).collect();
    pieces.into_par_iter().map(|p| deflate(p, level)).collect()
}

/// Deflates a piece, which ends at a byte border.
pub(super) fn deflate(piece: &[u8], level: Compression) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(piece);
    let mut encoder = Compress::new(level, false);
    let mut bytes = Vec::with_capacity(piece.len() / 16 + 1024);
    loop {
        let done = encoder.total_in() as usize;
        encoder.compress_vec(&piece[done..], &mut bytes, FlushCompress::Sync)?;
        // The flush is complete once the encoder leaves room behind.
        if encoder.total_in() as usize == piece.len() && bytes.len() < bytes.capacity() {
            return Ok(Deflated { bytes, crc, length: piece.len() });
        }
        bytes.reserve(bytes.len().max(1024));
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
    fn zlib_comes_back() {
        for body in [vec![], vec![255; 3 * PIECE_BYTES + 7], noise(2 * PIECE_BYTES)] {
            let packed = zlib(&body, Compression::new(6)).expect("memory does not fail");
            let mut back = Vec::new();
            let mut decoder = flate2::bufread::ZlibDecoder::new(packed.as_slice());
            // Reading to the end checks the sum.
            decoder.read_to_end(&mut back).expect("valid zlib");
            assert!(back == body && decoder.into_inner().is_empty(), "{}", body.len());
        }
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
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
