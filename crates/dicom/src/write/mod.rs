//! Objects about a series: segmentations, structure sets, reports and pictures.
//!
//! What every object has in common: patient and study are those of the source, to the byte; its
//! own identifiers are made of its content, so that one result has one identifier; dates are the
//! source's. Objects are made of parts that fit each other, or not at all, and then written to whatever
//! the caller opened: that a file is whole under its name is the caller's to see to.

mod color;
mod contour;
mod elements;
mod file;
mod modules;
mod places;
pub mod rtstruct;
pub mod sc;
pub mod seg;
mod segment;
pub mod sr;

pub use segment::{Algorithm, Code, Model, Segment};

use crate::error::{Error, Result};
use ndarray::ArrayView3;
use std::io::{Seek, Write};

/// What stands in the description of every object.
pub const RESEARCH_ONLY: &str = "Research use only";

/// Choices that all objects share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Series number; each kind of object has one of its own by default.
    pub series_number: Option<u32>,
    /// Identifiers and date of this very run, instead of those that the content gives.
    pub fresh: Option<Fresh>,
}

/// What makes an object one of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Random bytes.
    pub salt: [u8; 16],
    /// Today, `YYYYMMDD`.
    pub date: String,
    /// Now, `HHMMSS`.
    pub time: String,
}

/// An object that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its SOP class UID.
    pub class_uid: String,
    /// Its SOP instance UID.
    pub instance_uid: String,
    /// UID of the series it is alone in.
    pub series_uid: String,
}

/// A label map on the grid of the volume, `[z, y, x]`.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// Labels up to 255.
    U8(ArrayView3<'a, u8>),
    /// Labels up to 65535.
    U16(ArrayView3<'a, u16>),
}

impl<'a> From<ArrayView3<'a, u8>> for Labels<'a> {
    fn from(labels: ArrayView3<'a, u8>) -> Self {
        Self::U8(labels)
    }
}

impl<'a> From<ArrayView3<'a, u16>> for Labels<'a> {
    fn from(labels: ArrayView3<'a, u16>) -> Self {
        Self::U16(labels)
    }
}

impl Labels<'_> {
    fn shape(&self) -> [usize; 3] {
        let (z, y, x) = match self {
            Self::U8(labels) => labels.dim(),
            Self::U16(labels) => labels.dim(),
        };
        [z, y, x]
    }
}

/// A label as it is stored.
pub(crate) trait Label: Copy + Default + Eq + Send + Sync + Into<u16> {
    /// Sets bit `k` of `out` where value `k` is `id`; `out` has a bit for each value, zero before.
    fn pack(values: &[Self], id: u16, out: &mut [u8]) {
        for (byte, values) in out.iter_mut().zip(values.chunks(8)) {
            for (k, value) in values.iter().enumerate() {
                *byte |= u8::from((*value).into() == id) << k;
            }
        }
    }
}

impl Label for u16 {}

impl Label for u8 {
    fn pack(values: &[Self], id: u16, out: &mut [u8]) {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        let Ok(id) = Self::try_from(id) else { return };
        let all = u64::from(id) * 0x0101_0101_0101_0101;
        let (eights, rest) = values.as_chunks::<8>();
        for (byte, eight) in out.iter_mut().zip(eights) {
            let differing = u64::from_le_bytes(*eight) ^ all;
            // The top bit of each byte that is zero, and of no other.
            let equal = !(((differing & LOW) + LOW) | differing | LOW);
            *byte = ((equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
        }
        if let Some(last) = out.get_mut(eights.len()) {
            for (k, value) in rest.iter().enumerate() {
                *last |= u8::from(*value == id) << k;
            }
        }
    }
}

/// Checks what the caller must have right: shapes, and a segment for each label in the map. Returns
/// the segments in ascending order of ids.
fn check<'a>(
    source: &crate::Source,
    labels: Labels<'_>,
    segments: &'a [Segment],
) -> Result<Vec<&'a Segment>> {
    let mistake = |found: String, expected: &str| Error::Usage {
        what: "label map".into(),
        found,
        expected: expected.into(),
    };
    if labels.shape() != source.grid.shape {
        return Err(mistake(format!("shape {:?}", labels.shape()), "that of the volume"));
    }
    let mut segments: Vec<&Segment> = segments.iter().collect();
    segments.sort_by_key(|segment| segment.id);
    let alike = segments.windows(2).any(|pair| pair[0].id == pair[1].id);
    if alike || segments.first().is_none_or(|first| first.id == 0) {
        return Err(mistake("segments with ids not their own".into(), "different ids above 0"));
    }
    let mut known = vec![false; 1 << 16];
    known[0] = true;
    for segment in &segments {
        known[usize::from(segment.id)] = true;
    }
    let stranger = match labels {
        Labels::U8(labels) => {
            labels.iter().copied().map(u16::from).find(|&l| !known[usize::from(l)])
        }
        Labels::U16(labels) => labels.iter().copied().find(|&l| !known[usize::from(l)]),
    };
    match stranger {
        None => Ok(segments),
        Some(label) => Err(mistake(format!("label {label}"), "labels of the segments given")),
    }
}

/// What an object is written to: identifiers made of its content are put in their places at the end.
pub trait Out: Write + Seek {}

impl<T: Write + Seek> Out for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_eight_at_once_is_packing_one_by_one() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * i / 7 % 5) as u8 * 51).collect();
        let words: Vec<u16> = bytes.iter().map(|&b| u16::from(b)).collect();
        for id in [0, 51, 204, 255, 300] {
            for len in [0, 1, 7, 8, 9, 64, 1000] {
                let (mut fast, mut plain) = (vec![0; len / 8 + 1], vec![0; len / 8 + 1]);
                u8::pack(&bytes[..len], id, &mut fast);
                u16::pack(&words[..len], id, &mut plain);
                assert_eq!(fast, plain, "id {id}, {len} values");
            }
        }
    }
}
