//! What an image may cost, checked before memory is allocated for it.

use super::failure::Failure;
use super::header::Header;
use super::stream::Stream;

/// No deflate stream expands a byte to more than this many.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Bounds on what [`load`](super::load) may allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest size of the voxels in bytes, held as `f32`.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 16 GiB: a 2048 x 2048 x 1024 volume.
    fn default() -> Self {
        Self { max_bytes: 16 << 30 }
    }
}

/// Number of voxels to decode, once the file is known to be able to hold them and the
/// limit to allow them.
pub(super) fn voxel_count(
    header: &Header,
    shape: [usize; 3],
    stream: &Stream,
    limits: Limits,
) -> Result<usize, Failure> {
    let [z, y, x] = shape;
    let sample_bytes = header.encoding.sample.bytes();
    let count = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d as u64));
    let sizes = count.and_then(|n| {
        let held = n.checked_mul(size_of::<f32>() as u64)?;
        let stored = n.checked_mul(sample_bytes as u64)?.checked_add(header.data_offset)?;
        Some((n, held, stored))
    });
    let Some((count, held, stored)) = sizes else {
        return Err(Failure::unusable(
            format!("a header that announces {x} x {y} x {z} voxels"),
            "a size that can be stored",
        ));
    };

    let stream_bytes = stream.file_bytes;
    if stream.is_gzip() {
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
    if held > limits.max_bytes {
        return Err(Failure::Memory { need_bytes: held, limit_bytes: limits.max_bytes });
    }
    usize::try_from(count)
        .map_err(|_| Failure::Memory { need_bytes: held, limit_bytes: usize::MAX as u64 })
}
