//! Objects about a series: segmentations, structure sets, reports and pictures.
//!
//! What every object has in common: patient and study are those of the source, to the byte; its
//! own identifiers are made of its content, so that one result has one identifier; dates are the
//! source's. What objects are made of is checked once, as a [`Labeling`], and then written to whatever
//! the caller opened: that a file is whole under its name is the caller's to see to.

mod color;
mod contour;
mod elements;
mod file;
mod modules;
mod places;
mod rtstruct;
mod sc;
mod seg;
mod segment;
mod sr;

pub use sc::Picture;
pub use seg::SegEncoding;
pub use segment::{Algorithm, Code, Model, Segment};
pub use sr::SegReference;

use crate::error::{Error, Result};
use crate::volume::Source;
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

/// What every object is about, and what made it.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The series.
    pub source: &'a Source,
    /// What made the result.
    pub algorithm: &'a Algorithm,
    /// Choices that all objects share.
    pub options: &'a ObjectOptions,
}

/// A label map of a series, with what its labels mean: what segmentations, structure sets and reports
/// are made of. The parts fit each other, as [`new`](Self::new) checks.
#[derive(Clone, Debug)]
pub struct Labeling<'a, T> {
    about: About<'a>,
    /// On the grid of the source's volume.
    labels: ArrayView3<'a, T>,
    /// In ascending order of ids, a segment for each label in the map.
    segments: Vec<&'a Segment>,
}

impl<'a, T: Label> Labeling<'a, T> {
    /// Of labels on the grid of the source's volume, `[z, y, x]`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the labels have another shape, there is one that is no segment's, or ids of
    /// segments are not different ones above 0.
    pub fn new(
        about: About<'a>,
        labels: ArrayView3<'a, T>,
        segments: &'a [Segment],
    ) -> Result<Self> {
        let mistake = |found: String, expected: &str| Error::usage("label map", found, expected);
        let shape: [usize; 3] = labels.dim().into();
        if shape != about.source.grid.shape {
            return Err(mistake(format!("shape {shape:?}"), "that of the volume"));
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
        let mut ids = labels.iter().map(|&label| label.into());
        match ids.find(|&label| !known[usize::from(label)]) {
            None => Ok(Self { about, labels, segments }),
            Some(label) => Err(mistake(format!("label {label}"), "labels of the segments given")),
        }
    }
}

/// A label as it is stored.
pub trait Label: Copy + Default + Eq + Send + Sync + Into<u16> {
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
