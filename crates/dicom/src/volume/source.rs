//! What an object about a series refers to and copies.

use super::{Grid, regrid};
use crate::error::{Error, Result};
use crate::read::dataset::{DataSet, Element};
use crate::read::image::Image;
use crate::read::parse::PixelData;
use crate::read::place::Places;
use crate::read::syntax::Coding;
use crate::series::stack::{Regrid, Stack};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use ndarray::{Array3, ArrayView3, Axis, CowArray, Ix3};
use rayon::prelude::*;
use std::fmt;

/// A series as objects about it refer to it: its slices as they are, not the grid they may have
/// been resampled to.
#[derive(Clone)]
pub struct Source {
    /// Study instance UID.
    pub study_uid: String,
    /// Series instance UID.
    pub series_uid: String,
    /// Frame of reference UID.
    pub frame_of_reference_uid: String,
    /// The slices, in the order of positions along their normal.
    pub slices: Vec<SourceSlice>,
    /// Pixels of a slice, rows first.
    pub size: [usize; 2],
    /// Millimetres between rows, then columns.
    pub spacing: [f64; 2],
    /// Grid of the volume, which a label map has.
    pub grid: Grid,
    /// Patient and study, as written.
    pub(crate) patient: DataSet,
    pub(crate) date: String,
    pub(crate) time: String,
    pub(crate) lossy: Option<Lossy>,
    pub(crate) regrid: Option<Regrid>,
}

/// Without what it copies: the patient is named in no message.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("series_uid", &self.series_uid)
            .field("slices", &self.slices.len())
            .field("grid", &self.grid)
            .finish_non_exhaustive()
    }
}

/// One slice.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSlice {
    /// SOP class UID of its file.
    pub class_uid: String,
    /// SOP instance UID of its file.
    pub instance_uid: String,
    /// Number of the frame, from 1, in a multi-frame file.
    pub frame: Option<u32>,
    /// Centre of the first voxel in patient millimetres (left, posterior, superior).
    pub position: [f64; 3],
    /// Directions in which columns, then rows, are counted.
    pub orientation: [[f64; 3]; 2],
    /// Millimetres.
    pub thickness: Option<f64>,
    pub(crate) position_text: String,
    pub(crate) orientation_text: String,
    pub(crate) spacing_text: String,
}

/// What was lost before it came here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lossy {
    /// How much smaller it was made, as written.
    pub(crate) ratio: String,
    /// Code of the method.
    pub(crate) method: String,
}

impl Lossy {
    /// As the file says, or as its coding shows.
    fn of(image: &Image, set: &DataSet) -> Self {
        let ratio = set.text(tags::LOSSY_IMAGE_COMPRESSION_RATIO).unwrap_or_else(|| {
            let layout = &image.layout;
            let coded: u64 = match layout.pixels.as_deref() {
                Some(PixelData::Encapsulated { fragments, .. }) => {
                    fragments.iter().map(|(_, len)| u64::from(*len)).sum()
                }
                Some(PixelData::Native { present, .. }) => *present,
                None => 0,
            };
            let whole = layout.frame_bytes() * image.frames.len();
            format!("{:.1}", whole as f64 / coded.max(1) as f64)
        });
        let method = set.text(tags::LOSSY_IMAGE_COMPRESSION_METHOD).unwrap_or_else(|| {
            match image.layout.syntax.coding {
                Some(Coding::JpegLs { .. }) => "ISO_14495_1",
                Some(Coding::Jpeg2000 { .. }) => "ISO_15444_1",
                _ => "ISO_10918_1",
            }
            .into()
        });
        Self { ratio, method }
    }
}

/// Attributes of the patient and study modules, in ascending order.
pub(crate) const COPIED: [Tag; 39] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::REFERRING_PHYSICIAN_IDENTIFICATION_SEQUENCE,
    tags::CONSULTING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::STUDY_DESCRIPTION,
    tags::PROCEDURE_CODE_SEQUENCE,
    tags::PHYSICIANS_OF_RECORD,
    tags::NAME_OF_PHYSICIANS_READING_STUDY,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::ADMITTING_DIAGNOSES_CODE_SEQUENCE,
    tags::REFERENCED_STUDY_SEQUENCE,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::TYPE_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_SEX,
    tags::OTHER_PATIENT_NAMES,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::OCCUPATION,
    tags::ADDITIONAL_PATIENT_HISTORY,
    tags::PREGNANCY_STATUS,
    tags::PATIENT_COMMENTS,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
    tags::POSITION_REFERENCE_INDICATOR,
];

impl Source {
    /// Reads what is copied from the first slice's file. Identifiers that are missing are made of
    /// the digest of what was read, so that the same series always gets the same ones.
    pub(super) fn read(places: &Places, stack: &Stack, sha256: &str) -> Result<Self> {
        let first = &stack.slices[0].image;
        let mut content = places.open(first.place)?;
        let (source, len) = content.source();
        let opened = first.again(source, len);
        let set = opened.map_err(|fault| Error::input(places.path(first.place), fault))?.parsed.set;
        let copied: Vec<Element> = COPIED.iter().filter_map(|tag| set.get(*tag)).cloned().collect();
        let lossy = stack.slices.iter().any(|slice| slice.image.layout.lossy);
        let first_of = |tags: [Tag; 4]| tags.iter().find_map(|tag| set.text(*tag));
        let date = first_of([
            tags::SERIES_DATE,
            tags::ACQUISITION_DATE,
            tags::CONTENT_DATE,
            tags::STUDY_DATE,
        ]);
        let time = first_of([
            tags::SERIES_TIME,
            tags::ACQUISITION_TIME,
            tags::CONTENT_TIME,
            tags::STUDY_TIME,
        ]);
        let or_made = |uid: &str, what: &str| {
            if uid.is_empty() {
                crate::uid::of(&[sha256.as_bytes(), what.as_bytes()])
            } else {
                uid.to_owned()
            }
        };
        let references = stack.slices.iter().map(|slice| &slice.image.frame_of_reference);
        let frame_of_reference = references.max_by_key(|uid| uid.len()).map_or("", String::as_str);
        let slices = stack.slices.iter().enumerate().map(|(k, slice)| {
            let (image, frame) = (&slice.image, slice.of());
            let class =
                if image.class_uid.is_empty() { uids::CT_IMAGE_STORAGE } else { &image.class_uid };
            let several = image.frames.len() > 1
                || image.class_uid != uids::CT_IMAGE_STORAGE && image.enhanced;
            SourceSlice {
                class_uid: class.to_owned(),
                instance_uid: or_made(&image.instance_uid, &format!("instance {k}")),
                frame: several.then_some(slice.frame as u32 + 1),
                position: frame.position,
                orientation: frame.orientation,
                thickness: frame.thickness,
                position_text: frame.position_text.clone(),
                orientation_text: frame.orientation_text.clone(),
                spacing_text: frame.spacing_text.clone(),
            }
        });
        Ok(Self {
            study_uid: or_made(&first.study_uid, "study"),
            series_uid: or_made(&first.series_uid, "series"),
            frame_of_reference_uid: or_made(frame_of_reference, "frame of reference"),
            slices: slices.collect(),
            size: [first.layout.rows, first.layout.columns],
            spacing: stack.slices[0].of().spacing,
            grid: stack.grid.clone(),
            patient: DataSet(copied),
            date: date.unwrap_or_default(),
            time: time.unwrap_or_default(),
            lossy: lossy.then(|| Lossy::of(first, &set)),
            regrid: stack.regrid.clone(),
        })
    }
}

/// A label map seen from the source's slices: itself, or carried back to them.
pub(crate) struct Planes<'a, T> {
    labels: CowArray<'a, T, Ix3>,
}

impl<'a, T: Copy + Default + Send + Sync> Planes<'a, T> {
    /// # Panics
    ///
    /// If `labels` have not the shape of the source's grid.
    pub(crate) fn new(labels: ArrayView3<'a, T>, source: &Source) -> Self {
        let (z, y, x) = labels.dim();
        assert_eq!([z, y, x], source.grid.shape, "labels have the shape of their volume");
        let Some(regrid) = &source.regrid else {
            let labels = if labels.is_standard_layout() {
                labels.into()
            } else {
                labels.as_standard_layout().into_owned().into()
            };
            return Self { labels };
        };
        let [rows, columns] = source.size;
        let mut own = Array3::default([source.slices.len(), rows, columns]);
        own.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(number, mut slice)| {
            slice.assign(&regrid::carry_back(labels, regrid, number, (rows, columns)));
        });
        Self { labels: own.into() }
    }

    /// The labels of one slice, row by row.
    pub(crate) fn slice(&self, number: usize) -> &[T] {
        let pixels = self.labels.len() / self.labels.dim().0;
        let labels = self.labels.as_slice().expect("of standard layout since `new`");
        &labels[number * pixels..][..pixels]
    }
}
