//! What an image may cost, checked before memory is allocated for it.

use super::failure::Failure;
use super::header::Header;
use super::stream::Stream;
use crate::model::Reader;

/// No deflate stream expands a byte to more than this many.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The reader of nnU-Net whose geometry is wanted; `None` for ITK's.
    pub reader: Option<Reader>,
    /// Largest size of the voxels in bytes: two for each integer of 8 or 16 bits with a sign (or
    /// of 8 without), four for everything else. Of a DICOM series, all that reading it takes.
    pub max_bytes: u64,
    /// Whether values that no CT has are worth a warning.
    pub expects_ct: bool,
}

impl Default for ReadOptions {
    /// 16 GiB: a 2048 x 2048 x 1024 volume of `f32`.
    fn default() -> Self {
        Self { reader: None, max_bytes: 16 << 30, expects_ct: true }
    }
}

/// Whether the file can hold the voxels it announces, and whether they may be held in memory.
pub(super) fn check(
    header: &Header,
    shape: [usize; 3],
    stream: &Stream,
    limit_bytes: u64,
) -> Result<(), Failure> {
    let [z, y, x] = shape;
    let sample_bytes = header.encoding.sample.bytes();
    let count = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d as u64));
    let sizes = count.and_then(|n| {
        let held = n.checked_mul(header.encoding.held_bytes() as u64)?;
        let stored = n.checked_mul(sample_bytes as u64)?.checked_add(header.data_offset)?;
        Some((held, stored))
    });
    let Some((held, stored)) = sizes else {
        return Err(Failure::unusable(
            format!("a header that announces {x} x {y} x {z} voxels"),
            "a size that can be stored",
        ));
    };

    let stream_bytes = stream.file_bytes;
    if stream.is_packed() {
        let most = stream_bytes.saturating_mul(DEFLATE_MAX_RATIO);
        if stored > most {
            return Err(Failure::unusable(
                format!("{stream_bytes} compressed bytes for {stored} announced by the header"),
                format!("at least {}", stored.div_ceil(DEFLATE_MAX_RATIO)),
            ));
        }
    } else if stored > stream_bytes {
        return Err(Failure::unusable(
            format!("a file of {stream_bytes} bytes"),
            format!("the {stored} bytes its header announces"),
        ));
    }
    // An array has at most half the address space.
    let limit_bytes = limit_bytes.min(isize::MAX as u64);
    if held > limit_bytes {
        return Err(Failure::Memory { need_bytes: held, limit_bytes });
    }
    Ok(())
}
