//! Objects about a series: segmentations, structure sets, reports and pictures.
//!
//! What every object has in common: patient and study are those of the source, to the byte; its
//! own identifiers are made of its content, so that one result has one identifier; a structure is
//! tracked by one identifier in all of them; dates are the source's. What objects are made of is checked once, as a [`Labeling`], and then written to whatever
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
mod shared;
mod sr;

pub use sc::Picture;
pub use seg::SegEncoding;
pub use segment::{Algorithm, Code, Model, Segment};
pub use sr::SegReference;

use crate::error::{Error, Result};
use crate::volume::Source;
use ndarray::ArrayView3;
use shared::Shared;
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
    /// What all objects of it call a structure.
    shared: Shared,
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
            None => Ok(Self { about, labels, segments, shared: Shared::of(&about) }),
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
    use crate::read::dataset::{DataSet, Element, Value};
    use crate::read::file::{self as files, FileLimits};
    use crate::volume::{COPIED, Grid};
    use crate::{Affine, SourceSlice};
    use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
    use dicom_core::{Tag, VR};
    use dicom_dictionary_std::{StandardDataDictionary, tags};
    use ndarray::{Array2, Array3};
    use std::io::Cursor;

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

    /// An element of the kind that its tag asks for; sequences get an item with a text.
    fn element(tag: Tag, text: &str) -> Element {
        let entry = StandardDataDictionary.by_tag(tag).expect("a standard attribute");
        let vr = entry.vr().relaxed();
        let meaning = (tags::CODE_MEANING, VR::LO);
        let bytes = |(tag, vr)| Element { tag, vr, value: Value::Bytes(text.as_bytes().into()) };
        match vr {
            VR::SQ => Element { tag, vr, value: Value::Items(vec![DataSet(vec![bytes(meaning)])]) },
            _ => bytes((tag, vr)),
        }
    }

    /// A series of two slices that says one thing wherever it can.
    fn source_saying(text: &str) -> Source {
        let slice = |k: u8| SourceSlice {
            class_uid: "1.2".into(),
            instance_uid: if k == 0 { text.into() } else { "1.2.3".into() },
            frame: None,
            position: [0.0, 0.0, f64::from(k)],
            orientation: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
            thickness: None,
            position_text: format!("0\\0\\{k}"),
            orientation_text: "1\\0\\0\\0\\1\\0".into(),
            spacing_text: "1\\1".into(),
        };
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        Source {
            study_uid: text.into(),
            series_uid: text.into(),
            frame_of_reference_uid: text.into(),
            slices: vec![slice(0), slice(1)],
            size: [2, 2],
            spacing: [1.0; 2],
            grid: Grid { shape: [2; 3], spacing: [1.0; 3], affine },
            patient: DataSet(COPIED.iter().map(|&tag| element(tag, text)).collect()),
            date: text.into(),
            time: text.into(),
            lossy: None,
            regrid: None,
        }
    }

    /// Every object of a series, labels and models that say one thing wherever they can.
    fn objects_saying(text: &str) -> Vec<(Written, Vec<u8>)> {
        let source = source_saying(text);
        let model = Model {
            name: text.into(),
            sha256: text.into(),
            license: text.into(),
            source: text.into(),
        };
        let algorithm = Algorithm {
            name: text.into(),
            version: text.into(),
            task: text.into(),
            models: vec![model],
        };
        let options = ObjectOptions::default();
        let about = About { source: &source, algorithm: &algorithm, options: &options };
        let code = Code::new(text, text, text);
        let segment = Segment {
            category: code.clone(),
            kind: code.clone(),
            region: Some(code.clone()),
            region_modifier: Some(code),
            ..Segment::named(1, text)
        };
        let (labels, segments) = (Array3::<u8>::ones([2; 3]), [segment]);
        let labeling = Labeling::new(about, labels.view(), &segments).expect("parts that fit");
        let values = |_| Array2::ones([2, 2]);
        let rgb = [0; 3];
        let picture = Picture { width: 1, height: 1, rgb: &rgb };
        let written = |write: &dyn Fn(&mut Cursor<Vec<u8>>) -> std::io::Result<Written>| {
            let mut out = Cursor::new(Vec::new());
            (write(&mut out).expect("writes to memory"), out.into_inner())
        };
        vec![
            written(&|out| labeling.write_seg(SegEncoding::Binary, out)),
            written(&|out| labeling.write_seg(SegEncoding::Labelmap, out)),
            written(&|out| labeling.write_rtstruct(out)),
            written(&|out| labeling.write_sr(values, None, out)),
            written(&|out| about.write_sc(picture, out)),
        ]
    }

    #[test]
    fn the_conformance_statement_lists_what_is_copied() {
        let statement = include_str!("../../../../docs/dicom.md");
        for tag in COPIED {
            let entry = StandardDataDictionary.by_tag(tag).expect("a standard attribute");
            let keyword = format!("`{}`", entry.alias());
            assert!(statement.contains(&keyword), "docs/dicom.md lacks {keyword}");
        }
    }

    #[test]
    fn text_like_an_identifier_left_blank_stays_what_it_is() {
        let blank = file::BLANK;
        let other = blank.replace('0', "1");
        let count = |bytes: &[u8], text: &str| {
            bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
        };
        let like = objects_saying(blank);
        for ((written, bytes), (_, unlike)) in like.iter().zip(&objects_saying(&other)) {
            let kind = &written.class_uid;
            assert_eq!(bytes.len(), unlike.len(), "{kind}");
            assert_eq!(count(bytes, blank), count(unlike, &other), "{kind}");
            let limits = FileLimits { max_elements: 10_000, max_bytes: 1 << 20 };
            let opened = files::open(&mut Cursor::new(&bytes[..]), bytes.len() as u64, limits);
            let opened = opened.expect("no fault").expect("an object");
            assert_eq!(opened.parsed.fault, None, "{kind}");
            let set = &opened.parsed.set;
            let instance = Some(written.instance_uid.as_str());
            assert_eq!(set.text(tags::SOP_INSTANCE_UID).as_deref(), instance, "{kind}");
            let meta = opened.meta.text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID);
            assert_eq!(meta.as_deref(), instance, "{kind}");
            let series = Some(written.series_uid.as_str());
            assert_eq!(set.text(tags::SERIES_INSTANCE_UID).as_deref(), series, "{kind}");
            for tag in [tags::PATIENT_ID, tags::PATIENT_SIZE, tags::STUDY_INSTANCE_UID] {
                assert_eq!(set.text(tag).as_deref(), Some(blank), "{kind} {tag}");
            }
        }
    }
}
