//! What an object about a series refers to and copies.

use super::{Grid, regrid};
use crate::error::Result;
use crate::limits::Limits;
use crate::read::dataset::{DataSet, Element};
use crate::read::file::{self, FileLimits};
use crate::read::place::Places;
use crate::series::stack::{Regrid, Stack};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use std::borrow::Cow;

/// A series as objects about it refer to it: its slices as they are, not the grid they may have
/// been resampled to.
#[derive(Clone, Debug)]
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
    pub(crate) lossy: bool,
    pub(crate) regrid: Option<Regrid>,
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

/// Attributes of the patient and study modules, in ascending order.
const COPIED: [Tag; 39] = [
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
        let limits = FileLimits {
            max_elements: Limits::default().max_elements,
            max_bytes: Limits::default().max_file_bytes,
        };
        let mut content = places.open(first.place)?;
        let (source, len) = content.source();
        let opened = file::open(source, len, limits)
            .map_err(|fault| fault.at(places.path(first.place)))?;
        let set = opened.map(|opened| opened.parsed.set).unwrap_or_default();
        let copied: Vec<Element> =
            COPIED.iter().filter_map(|tag| set.get(*tag)).cloned().collect();
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
            if uid.is_empty() { crate::uid::of(&[sha256.as_bytes(), what.as_bytes()]) } else { uid.to_owned() }
        };
        let frame_of_reference = first.frame_of_reference.as_deref().unwrap_or_default();
        let slices = stack.slices.iter().enumerate().map(|(k, slice)| {
            let (image, frame) = (&slice.image, slice.of());
            let class = if image.class_uid.is_empty() { uids::CT_IMAGE_STORAGE } else { &image.class_uid };
            let several = image.frames.len() > 1 || image.class_uid != uids::CT_IMAGE_STORAGE && image.enhanced;
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
            lossy: stack.slices.iter().any(|slice| slice.image.layout.lossy),
            regrid: stack.regrid.clone(),
        })
    }
}

/// A label map seen from the source's slices.
pub(crate) struct Planes<'a, T> {
    labels: ArrayView3<'a, T>,
    source: &'a Source,
}

impl<'a, T: Copy + Default> Planes<'a, T> {
    /// # Panics
    ///
    /// If `labels` have not the shape of the source's grid.
    pub(crate) fn new(labels: ArrayView3<'a, T>, source: &'a Source) -> Self {
        let (z, y, x) = labels.dim();
        assert_eq!([z, y, x], source.grid.shape, "labels have the shape of their volume");
        Self { labels, source }
    }

    /// The labels of one slice.
    pub(crate) fn slice(&self, number: usize) -> Slab<'_, T> {
        let [rows, columns] = self.source.size;
        match &self.source.regrid {
            None => Slab::View(self.labels.index_axis(Axis(0), number)),
            Some(regrid) => {
                let labels = self.labels.view();
                Slab::Own(regrid::carry_back(labels, regrid, number, (rows, columns)))
            }
        }
    }
}

/// Labels of a slice, of the map itself or carried back.
pub(crate) enum Slab<'a, T> {
    View(ArrayView2<'a, T>),
    Own(Array2<T>),
}

impl<T: Copy> Slab<'_, T> {
    pub(crate) fn view(&self) -> ArrayView2<'_, T> {
        match self {
            Self::View(view) => view.view(),
            Self::Own(array) => array.view(),
        }
    }

    /// Row by row.
    pub(crate) fn values(&self) -> Cow<'_, [T]> {
        match self {
            Self::Own(array) => array.as_slice().map(Cow::Borrowed),
            Self::View(view) => view.to_slice().map(Cow::Borrowed),
        }
        .unwrap_or_else(|| Cow::Owned(self.view().iter().copied().collect()))
    }
}
