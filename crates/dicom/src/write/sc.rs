//! A picture as secondary capture: what any viewer shows.

use super::elements::{Item, coded, keyword, sequence, text, unsigned};
use super::file::{Encoding, Sink};
use super::modules::{self, Kind};
use super::{About, Out, RESEARCH_ONLY, Written};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use std::io;

/// An image of three bytes a pixel, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
    /// Red, green, blue of each pixel.
    pub rgb: &'a [u8],
}

impl About<'_> {
    /// Writes a picture that was drawn of the series as secondary capture.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    ///
    /// # Panics
    ///
    /// If the picture has no pixels, or not the bytes its size calls for.
    pub fn write_sc(&self, picture: Picture<'_>, mut out: impl Out) -> io::Result<Written> {
        let Picture { width, height, rgb } = picture;
        let need = 3 * usize::from(width) * usize::from(height);
        assert!(need > 0 && rgb.len() == need, "three bytes for each pixel");
        let class = uids::SECONDARY_CAPTURE_IMAGE_STORAGE;
        let mut sink = Sink::begin(&mut out, class, Encoding::Explicit)?;
        sink.elements(header(self, width, height))?;
        sink.begin_pixels(*b"OB", rgb.len() as u64)?;
        sink.bytes(rgb)?;
        sink.end_pixels(rgb.len() as u64)?;
        sink.finish(self.options.fresh.as_ref())
    }
}

/// Everything before the pixels.
fn header(about: &About<'_>, width: u16, height: u16) -> Item {
    let kind = Kind {
        class_uid: uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
        modality: "OT",
        description: "Preview",
        series_number: 9004,
    };
    let mut set = modules::common(about, &kind);
    let (date, time) = modules::made(about);
    let purpose = modules::source_purpose();
    let images = modules::source_files(about.source).into_iter().map(|(class, uid)| {
        let mut image = modules::instance(class, uid);
        image.put(coded(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &purpose));
        image
    });
    for element in [
        keyword(tags::CONVERSION_TYPE, "WSD"),
        keyword(tags::IMAGE_TYPE, "DERIVED\\SECONDARY"),
        text(tags::CONTENT_DATE, VR::DA, &date),
        text(tags::CONTENT_TIME, VR::TM, &time),
        text(tags::PATIENT_ORIENTATION, VR::CS, ""),
        text(tags::LATERALITY, VR::CS, ""),
        text(tags::DERIVATION_DESCRIPTION, VR::ST, RESEARCH_ONLY),
        text(tags::IMAGE_COMMENTS, VR::LT, RESEARCH_ONLY),
        // Nothing on it tells who the patient is.
        keyword(tags::BURNED_IN_ANNOTATION, "NO"),
        sequence(tags::SOURCE_IMAGE_SEQUENCE, images.collect()),
        unsigned(tags::SAMPLES_PER_PIXEL, 3),
        keyword(tags::PHOTOMETRIC_INTERPRETATION, "RGB"),
        unsigned(tags::PLANAR_CONFIGURATION, 0),
        unsigned(tags::ROWS, height),
        unsigned(tags::COLUMNS, width),
        unsigned(tags::BITS_ALLOCATED, 8),
        unsigned(tags::BITS_STORED, 8),
        unsigned(tags::HIGH_BIT, 7),
        unsigned(tags::PIXEL_REPRESENTATION, 0),
    ] {
        set.put(element);
    }
    set
}
