//! Bytes of a plain or compressed file, in order.

use super::failure::Failure;
use super::header::Packing;
use crate::files::{self, Access, Digesting, Opened, Steady};
use flate2::bufread::{GzDecoder, ZlibDecoder};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Compressed or plain bytes read from the file at once.
const READ_BYTES: usize = 256 * 1024;

/// How far behind the last voxel we read to reach, and verify, the end of a gzip member.
const TAIL_BYTES: u64 = 1024 * 1024;

/// The uncompressed content of a file.
pub(super) struct Stream {
    source: Source,
    /// Length of the file as stored.
    pub(super) file_bytes: u64,
    /// Who may read it.
    pub(super) access: Access,
}

/// What the file holds, as stored, with its digest.
type Bytes = BufReader<Digesting<Steady>>;

enum Source {
    Plain(Bytes),
    Gzip(Members),
    Zlib(Box<ZlibDecoder<Bytes>>),
}

/// The members of a gzip file one after the other.
///
/// Unlike flate2's `MultiGzDecoder` it tells bytes that follow the last member, which
/// are harmless, from damage, which is not.
struct Members {
    decoder: Option<Box<GzDecoder<Bytes>>>,
    /// The file behind the last member.
    rest: Option<Bytes>,
    garbage: bool,
}

impl Stream {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let Opened { file, bytes, access } = files::open(path)?;
        let mut reader = BufReader::with_capacity(READ_BYTES, Digesting::new(file));
        let start = reader.fill_buf()?;
        if start.is_empty() {
            return Err(Failure::unusable("an empty file", "an image"));
        }
        let source = if start.starts_with(&[0x1f, 0x8b]) {
            Source::Gzip(Members::new(reader))
        } else {
            Source::Plain(reader)
        };
        Ok(Self { source, file_bytes: bytes, access })
    }

    /// What follows is packed, behind a header that is not.
    pub(super) fn unpacked(self, packing: Packing) -> Result<Self, Failure> {
        let source = match (self.source, packing) {
            (source, Packing::Plain) => source,
            (Source::Plain(reader), Packing::Gzip) => Source::Gzip(Members::new(reader)),
            (Source::Plain(reader), Packing::Zlib) => {
                Source::Zlib(Box::new(ZlibDecoder::new(reader)))
            }
            _ => return Err(Failure::unusable("voxels compressed twice", "compressed once")),
        };
        Ok(Self { source, ..self })
    }

    pub(super) fn is_packed(&self) -> bool {
        !matches!(self.source, Source::Plain(_))
    }

    /// SHA-256 of the file as stored; reads what is left of it.
    pub(super) fn sha256(self) -> Result<String, Failure> {
        let file = match self.source {
            Source::Plain(file) => Some(file),
            Source::Gzip(Members { decoder: Some(decoder), .. }) => Some(decoder.into_inner()),
            Source::Gzip(members) => members.rest,
            Source::Zlib(decoder) => Some(decoder.into_inner()),
        };
        Ok(file.map(|file| file.into_inner().finish()).transpose()?.unwrap_or_default())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Plain(reader) => reader.read(buffer),
            Source::Gzip(members) => members.read(buffer),
            Source::Zlib(decoder) => decoder.read(buffer),
        }
    }
}

impl Members {
    fn new(reader: Bytes) -> Self {
        Self { decoder: Some(Box::new(GzDecoder::new(reader))), rest: None, garbage: false }
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            // The member is complete and its checksum was right.
            let Some(decoder) = self.decoder.take() else { break };
            let mut rest = decoder.into_inner();
            match rest.fill_buf()?.first() {
                Some(0x1f) => self.decoder = Some(Box::new(GzDecoder::new(rest))),
                next => (self.garbage, self.rest) = (next.is_some(), Some(rest)),
            }
        }
        Ok(0)
    }
}

/// Reads until `buffer` is full or the stream ends; returns the bytes read.
pub(super) fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Passes over `count` bytes, such as header extensions.
pub(super) fn skip(stream: &mut impl Read, count: u64) -> Result<(), Failure> {
    if io::copy(&mut stream.take(count), &mut io::sink())? < count {
        return Err(Failure::unusable("a file that ends before its voxels", "a complete file"));
    }
    Ok(())
}

/// Whether anything follows. Reaching the end also verifies the last gzip checksum.
pub(super) fn ends_late(stream: &mut Stream) -> Result<bool, Failure> {
    let more = io::copy(&mut stream.take(TAIL_BYTES), &mut io::sink())?;
    let garbage = matches!(&stream.source, Source::Gzip(members) if members.garbage);
    Ok(more > 0 || garbage)
}
