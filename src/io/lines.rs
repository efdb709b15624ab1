//! Headers of lines, as NRRD and `MetaImage` have them.

use super::failure::Failure;
use super::stream::Stream;
use std::io::Read;
use std::str::FromStr;

/// Longest header that is read. Slicer writes some hundred bytes for each of a few hundred segments.
const MOST_BYTES: usize = 1 << 20;

/// The lines of a header, one after the other.
pub(super) struct Lines<'a> {
    stream: &'a mut Stream,
    /// Bytes of the file that were read.
    read: usize,
}

impl<'a> Lines<'a> {
    /// `read` bytes of the stream have been taken before.
    pub(super) fn new(stream: &'a mut Stream, read: usize) -> Self {
        Self { stream, read }
    }

    /// The next line without its end; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<String>, Failure> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            if self.stream.read(&mut byte)? == 0 {
                break;
            }
            self.read += 1;
            if self.read > MOST_BYTES {
                let found = format!("a header of more than {} KiB", MOST_BYTES >> 10);
                return Err(Failure::unusable(found, "the voxels before that"));
            }
            if byte[0] == b'\n' {
                return Ok(Some(text(line)));
            }
            line.push(byte[0]);
        }
        Ok((!line.is_empty()).then(|| text(line)))
    }

    /// Bytes of the file up to here.
    pub(super) fn bytes(&self) -> u64 {
        self.read as u64
    }
}

fn text(mut line: Vec<u8>) -> String {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// Numbers between spaces.
pub(super) fn numbers<T: FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}
