//! Stored samples to voxels, streamed through a small buffer.

use super::failure::Failure;
use super::stream::fill;
use crate::volume::{Scale, Stored, Voxels};
use ndarray::Array3;
use std::io::Read;

/// Bytes decoded at once; a multiple of every sample size that stays in the cache.
const CHUNK_BYTES: usize = 128 * 1024;

/// Sample types that hold one real number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Sample {
    /// The type with this NIfTI `datatype` code.
    pub(super) fn from_code(code: i16) -> Result<Self, Failure> {
        let other = match code {
            2 => return Ok(Self::U8),
            4 => return Ok(Self::I16),
            8 => return Ok(Self::I32),
            16 => return Ok(Self::F32),
            64 => return Ok(Self::F64),
            256 => return Ok(Self::I8),
            512 => return Ok(Self::U16),
            768 => return Ok(Self::U32),
            1024 => return Ok(Self::I64),
            1280 => return Ok(Self::U64),
            1 => "1-bit",
            32 => "complex64",
            128 => "RGB color",
            1536 => "float128",
            1792 => "complex128",
            2048 => "complex256",
            2304 => "RGBA color",
            _ => "unknown",
        };
        Err(Failure::unusable(
            format!("{other} voxels (datatype {code})"),
            "integers of 8 to 64 bits, float32 or float64",
        ))
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// How stored samples become values: `raw * slope + intercept`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Encoding {
    pub(super) sample: Sample,
    pub(super) big_endian: bool,
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

/// What is learned about the values while they are decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stats {
    /// Smallest and largest value, ignoring NaN.
    pub(super) min: f32,
    pub(super) max: f32,
    /// Voxels that are NaN or infinite.
    pub(super) not_finite: usize,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, not_finite: 0 }
    }

    /// What is learned from both.
    #[cfg(feature = "dicom")]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            not_finite: self.not_finite + other.not_finite,
        }
    }

    pub(super) fn add(&mut self, values: &[f32]) {
        // Separate lanes let the compiler use vector minimum and maximum.
        const LANES: usize = 16;
        let (mut min, mut max) = ([self.min; LANES], [self.max; LANES]);
        let mut not_finite = [0_u32; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for (lane, &v) in group.iter().enumerate() {
                min[lane] = if v < min[lane] { v } else { min[lane] };
                max[lane] = if v > max[lane] { v } else { max[lane] };
                not_finite[lane] += u32::from(!v.is_finite());
            }
        }
        for &v in rest {
            min[0] = min[0].min(v);
            max[0] = max[0].max(v);
            not_finite[0] += u32::from(!v.is_finite());
        }
        self.min = min.into_iter().fold(f32::INFINITY, f32::min);
        self.max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
        self.not_finite += not_finite.iter().map(|&n| n as usize).sum::<usize>();
    }
}

impl Encoding {
    /// Bytes per voxel once it is read: [`Voxels`] keeps what fits 16 bits in them.
    pub(super) fn held_bytes(self) -> usize {
        if self.fits_i16() { size_of::<i16>() } else { size_of::<f32>() }
    }

    fn fits_i16(self) -> bool {
        matches!(self.sample, Sample::U8 | Sample::I8 | Sample::I16)
    }

    fn scale(self) -> Scale {
        Scale { slope: self.slope, intercept: self.intercept }
    }
}

/// Reads the voxels of `shape`, `[z, y, x]`. The caller has checked that the file can hold them.
pub(super) fn decode(
    stream: &mut impl Read,
    shape: [usize; 3],
    encoding: Encoding,
) -> Result<(Voxels, Stats), Failure> {
    let scale = encoding.scale();
    let mut stats = Stats::new();
    let whole = |_| Failure::unusable("fewer voxels than announced", "a complete file");
    let voxels = if encoding.fits_i16() {
        let mut values = Vec::new();
        let stored = collect(stream, shape, encoding, |stored: &mut Vec<i16>, bytes| {
            let start = stored.len();
            append_i16(stored, bytes, encoding);
            values.clear();
            values.extend(stored[start..].iter().map(|s| s.value(scale)));
            stats.add(&values);
        })?;
        Voxels::I16(Array3::from_shape_vec(shape, stored).map_err(whole)?, scale)
    } else {
        let values = collect(stream, shape, encoding, |values: &mut Vec<f32>, bytes| {
            let start = values.len();
            append(values, bytes, encoding);
            stats.add(&values[start..]);
        })?;
        Voxels::F32(Array3::from_shape_vec(shape, values).map_err(whole)?)
    };
    Ok((voxels, stats))
}

/// Hands whole samples on, chunk by chunk, to be appended.
fn collect<T>(
    stream: &mut impl Read,
    shape: [usize; 3],
    encoding: Encoding,
    mut append: impl FnMut(&mut Vec<T>, &[u8]),
) -> Result<Vec<T>, Failure> {
    let (count, sample_bytes) = (shape.iter().product::<usize>(), encoding.sample.bytes());
    let mut values = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        let need_bytes = (count * size_of::<T>()) as u64;
        // The allocator does not say how much it would have given.
        return Err(Failure::Memory { need_bytes, limit_bytes: need_bytes - 1 });
    }
    let mut buffer = vec![0_u8; CHUNK_BYTES.min(count * sample_bytes)];
    while values.len() < count {
        let start = values.len();
        let want = buffer.len().min((count - start) * sample_bytes);
        let got = fill(stream, &mut buffer[..want])?;
        if got < want {
            return Err(Failure::unusable(
                format!("{} of {count} voxels", start + got / sample_bytes),
                "a complete file",
            ));
        }
        append(&mut values, &buffer[..want]);
    }
    Ok(values)
}

/// Appends whole samples as they are stored.
fn append_i16(stored: &mut Vec<i16>, bytes: &[u8], encoding: Encoding) {
    match encoding.sample {
        Sample::U8 => stored.extend(bytes.iter().map(|&b| i16::from(b))),
        Sample::I8 => stored.extend(bytes.iter().map(|&b| i16::from(b as i8))),
        _ => {
            let (samples, _) = bytes.as_chunks::<2>();
            if encoding.big_endian {
                stored.extend(samples.iter().map(|&s| i16::from_be_bytes(s)));
            } else {
                stored.extend(samples.iter().map(|&s| i16::from_le_bytes(s)));
            }
        }
    }
}

/// Appends the values of whole samples.
fn append(values: &mut Vec<f32>, bytes: &[u8], encoding: Encoding) {
    let (v, b, e) = (values, bytes, encoding);
    match encoding.sample {
        // Kept as they are stored.
        Sample::U8 | Sample::I8 | Sample::I16 => unreachable!("see `append_i16`"),
        Sample::U16 => append_as(v, b, e, |s| f64::from(u16::from_le_bytes(s))),
        Sample::U32 => append_as(v, b, e, |s| f64::from(u32::from_le_bytes(s))),
        Sample::I32 => append_as(v, b, e, |s| f64::from(i32::from_le_bytes(s))),
        Sample::U64 => append_as(v, b, e, |s| u64::from_le_bytes(s) as f64),
        Sample::I64 => append_as(v, b, e, |s| i64::from_le_bytes(s) as f64),
        Sample::F32 => append_as(v, b, e, |s| f64::from(f32::from_le_bytes(s))),
        Sample::F64 => append_as(v, b, e, f64::from_le_bytes),
    }
}

fn append_as<const N: usize>(
    values: &mut Vec<f32>,
    bytes: &[u8],
    encoding: Encoding,
    raw: impl Fn([u8; N]) -> f64,
) {
    let Encoding { big_endian, slope, intercept, .. } = encoding;
    let (samples, _) = bytes.as_chunks::<N>();
    let reversed = |sample: &[u8; N]| {
        let mut sample = *sample;
        sample.reverse();
        sample
    };
    // One loop per case keeps the branch out of the loop and skips an idle scaling.
    #[allow(clippy::float_cmp)] // exactly the neutral values
    let plain = slope == 1.0 && intercept == 0.0;
    match (big_endian, plain) {
        (false, true) => values.extend(samples.iter().map(|s| raw(*s) as f32)),
        (true, true) => values.extend(samples.iter().map(|s| raw(reversed(s)) as f32)),
        (false, false) => {
            values.extend(samples.iter().map(|s| (raw(*s) * slope + intercept) as f32));
        }
        (true, false) => {
            values.extend(samples.iter().map(|s| (raw(reversed(s)) * slope + intercept) as f32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(sample: Sample) -> Encoding {
        Encoding { sample, big_endian: false, slope: 1.0, intercept: 0.0 }
    }

    #[test]
    fn decode_crosses_chunk_borders_and_ends_mid_group() {
        for count in [1, 15, 16, 17, CHUNK_BYTES / 2 - 1, CHUNK_BYTES / 2 + 1, CHUNK_BYTES] {
            let raw: Vec<i16> = (0..count).map(|i| (i as i16).wrapping_mul(257)).collect();
            let bytes: Vec<u8> = raw.iter().flat_map(|v| v.to_le_bytes()).collect();
            let shape = [1, 1, count];
            let (voxels, stats) =
                decode(&mut bytes.as_slice(), shape, encoding(Sample::I16)).expect("enough bytes");
            let expected: Vec<f32> = raw.iter().map(|&v| f32::from(v)).collect();
            assert_eq!(voxels.to_f32().into_raw_vec_and_offset().0, expected, "{count}");
            let range = [raw.iter().min(), raw.iter().max()].map(|v| v.map(|&v| f32::from(v)));
            assert_eq!([Some(stats.min), Some(stats.max)], range, "{count}");
        }
    }

    #[test]
    fn not_finite_values_are_counted_wherever_they_are() {
        for at in [0, 15, 16, 40] {
            let mut raw = vec![1.0_f64; 41];
            raw[at] = f64::NAN;
            raw[(at + 5) % 41] = 1e300; // infinite once it is an f32
            let bytes: Vec<u8> = raw.iter().flat_map(|v| v.to_le_bytes()).collect();
            let (_, stats) = decode(&mut bytes.as_slice(), [1, 1, 41], encoding(Sample::F64))
                .expect("enough bytes");
            assert_eq!(stats.not_finite, 2, "{at}");
        }
    }

    #[test]
    fn scaling_is_done_in_f64() {
        let e = Encoding { slope: 0.1, intercept: -1024.0, ..encoding(Sample::I32) };
        let raw = 16_777_217_i32; // not an f32
        let mut values = Vec::new();
        append(&mut values, &raw.to_le_bytes(), e);
        assert_eq!(values, [(f64::from(raw) * 0.1 - 1024.0) as f32]);
    }
}
