//! What one file says about the image it holds: kind, pixels, and where each frame lies.

use super::dataset::DataSet;
use super::file::{self, FileLimits, Opened};
use super::frame::{Frame, Groups};
use super::parse::{PixelData, ReadSeek};
use super::syntax::{Coding, Syntax};
use super::text;
use crate::limits::Limits;
use dicom_dictionary_std::{tags, uids};
use fastnnunet_model::Mismatch;
use std::sync::Arc;

/// An image file, or another object of which no more than that is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    /// Number of the file among the places.
    pub(crate) place: usize,
    pub(crate) class_uid: String,
    pub(crate) instance_uid: String,
    pub(crate) study_uid: String,
    pub(crate) series_uid: String,
    /// Empty if there is none.
    pub(crate) frame_of_reference: String,
    pub(crate) modality: String,
    pub(crate) contrast: bool,
    pub(crate) texts: Texts,
    pub(crate) layout: Layout,
    /// Frames have functional groups, even a single one.
    pub(crate) enhanced: bool,
    pub(crate) frames: Vec<Frame>,
    /// Gantry tilt as the header has it.
    pub(crate) tilt_degrees: f64,
    pub(crate) standing: Standing,
    /// Oddities of the file that were put right.
    pub(crate) notes: Vec<&'static str>,
}

/// Whether an image can be a slice of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    Good,
    /// It is none, and a series is whole without it.
    Apart(String),
    /// It would be one, but for this.
    Unusable(Mismatch),
}

/// Free text, which may name a patient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Series description.
    pub series: Option<String>,
    /// Study description.
    pub study: Option<String>,
    /// Protocol name.
    pub protocol: Option<String>,
    /// Contrast agent.
    pub contrast: Option<String>,
}

/// How pixels are stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) syntax: Syntax,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) bits_allocated: u32,
    pub(crate) bits_stored: u32,
    pub(crate) high_bit: u32,
    pub(crate) signed: bool,
    pub(crate) pixels: Option<Arc<PixelData>>,
    /// Where frames start from the first fragment's item, if the file says so.
    pub(crate) frame_offsets: Vec<u64>,
    /// Compressed with loss at some time.
    pub(crate) lossy: bool,
}

impl Layout {
    /// Whether every number that can be stored is one of 16 bits with a sign.
    pub(crate) fn fits_i16(&self) -> bool {
        self.bits_stored <= if self.signed { 16 } else { 15 }
    }
}

/// Said of a file that is not what it was when its series was looked for.
pub(crate) fn changed() -> Mismatch {
    Mismatch::new("a file that changed while it was read", "the same file")
}

/// Classes whose images can be slices.
const CT_CLASSES: [&str; 3] = [
    uids::CT_IMAGE_STORAGE,
    uids::ENHANCED_CT_IMAGE_STORAGE,
    uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
];

/// Image types of pictures made of slices.
const PICTURES: [&str; 6] =
    ["LOCALIZER", "PROJECTION IMAGE", "MIP", "MAX_IP", "MIN_IP", "SCREEN SAVE"];

impl Image {
    /// Reads what a file's headers say. `place` is the file's number.
    pub(crate) fn of(opened: &Opened, place: usize) -> Self {
        let set = &opened.parsed.set;
        let text = |tag| set.text(tag).unwrap_or_default();
        let mut notes: Vec<&'static str> = opened.note.into_iter().collect();
        let mut or_meta = |tag, meta, note| {
            set.text(tag).or_else(|| {
                notes.push(note);
                opened.meta.text(meta)
            })
        };
        let class_uid = or_meta(
            tags::SOP_CLASS_UID,
            tags::MEDIA_STORAGE_SOP_CLASS_UID,
            "no SOP class in the data set: taken from the meta header",
        );
        let instance_uid = or_meta(
            tags::SOP_INSTANCE_UID,
            tags::MEDIA_STORAGE_SOP_INSTANCE_UID,
            "no SOP instance in the data set: taken from the meta header",
        );
        let mut modality = text(tags::MODALITY);
        let class_uid = class_uid.unwrap_or_default();
        if modality.is_empty() && CT_CLASSES.contains(&class_uid.as_str()) {
            modality = "CT".into();
            notes.push("no modality: CT by its class");
        }
        let contrast = set.text(tags::CONTRAST_BOLUS_AGENT);
        let mut image = Self {
            place,
            class_uid,
            instance_uid: instance_uid.unwrap_or_default(),
            study_uid: text(tags::STUDY_INSTANCE_UID),
            series_uid: text(tags::SERIES_INSTANCE_UID),
            frame_of_reference: text(tags::FRAME_OF_REFERENCE_UID),
            modality,
            contrast: contrast.is_some()
                || !set.items(tags::CONTRAST_BOLUS_AGENT_SEQUENCE).is_empty(),
            texts: Texts {
                series: text::decoded(set, tags::SERIES_DESCRIPTION),
                study: text::decoded(set, tags::STUDY_DESCRIPTION),
                protocol: text::decoded(set, tags::PROTOCOL_NAME),
                contrast: text::decoded(set, tags::CONTRAST_BOLUS_AGENT),
            },
            layout: Layout::of(opened),
            enhanced: !set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).is_empty(),
            frames: Vec::new(),
            tilt_degrees: 0.0,
            standing: Standing::Good,
            notes,
        };
        let judged = match &opened.parsed.fault {
            Some(fault) => Err(fault.clone()),
            None => image.judge(set),
        };
        image.standing = judged.unwrap_or_else(Standing::Unusable);
        image
    }

    /// Reads the headers of the file once more, when its pixels or its patient are wanted: hours may lie
    /// between.
    pub(crate) fn again(&self, source: &mut dyn ReadSeek, len: u64) -> Result<Opened, Mismatch> {
        let opened = file::open(source, len, FileLimits::of(&Limits::default()))?;
        opened.filter(|opened| Self::of(opened, self.place) == *self).ok_or_else(changed)
    }

    fn judge(&mut self, set: &DataSet) -> Result<Standing, Mismatch> {
        if self.layout.pixels.is_none() || self.layout.rows == 0 || self.layout.columns == 0 {
            if CT_CLASSES.contains(&self.class_uid.as_str()) {
                return Err(Mismatch::new("a CT image without pixel data", "pixel data"));
            }
            let document = set.get(tags::ENCAPSULATED_DOCUMENT).is_some();
            let what =
                if document { "an encapsulated document" } else { "an object without pixels" };
            return Ok(Standing::Apart(what.into()));
        }
        if self.modality != "CT" {
            let modality = code(&self.modality).unwrap_or("none");
            return Err(Mismatch::new(format!("modality {modality}"), "CT"));
        }
        let samples = set.number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        let photometric = set.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        if samples != 1 || !(photometric.starts_with("MONOCHROME") || photometric.is_empty()) {
            return Ok(Standing::Apart("a color picture".into()));
        }
        let types = set.text(tags::IMAGE_TYPE).unwrap_or_default();
        if let Some(picture) = picture(&types) {
            return Ok(Standing::Apart(picture));
        }
        self.layout.check()?;
        let count = set.number(tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1) as usize;
        let per_frame = set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let shared = set.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        if count > 1 && per_frame.len() != count {
            return Err(Mismatch::new(
                format!("{count} frames and the positions of {}", per_frame.len()),
                "the position of each",
            ));
        }
        self.layout.check_length(count)?;
        for k in 0..count {
            let groups = Groups { root: set, shared, frame: per_frame.get(k) };
            self.frames.push(Frame::of(&groups, &self.layout, &mut self.notes)?);
        }
        if self.layout.high_bit + 1 != self.layout.bits_stored {
            self.notes.push("stored bits do not begin at bit 0: shifted down to it");
        }
        let tilt = set.decimal(tags::GANTRY_DETECTOR_TILT).unwrap_or(0.0);
        self.tilt_degrees = tilt.abs();
        if photometric == "MONOCHROME1" {
            self.notes.push("MONOCHROME1: how values are shown, they are not inverted");
        }
        self.notes.dedup();
        // Of an enhanced image, the kind may be that of its frames.
        let kinds = self.frames.iter().map(|frame| picture(&frame.keys.image_type));
        if let Some(Some(kind)) = kinds.reduce(Option::and) {
            return Ok(Standing::Apart(kind));
        }
        Ok(Standing::Good)
    }
}

/// What a picture that shows slices, and is none, is called.
fn picture(types: &str) -> Option<String> {
    types
        .split('\\')
        .map(str::trim)
        .find(|part| PICTURES.contains(part))
        .map(|part| format!("a picture ({part})"))
}

/// A code string as it may appear in a message: codes never name anybody.
pub(crate) fn code(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b' ';
    (!text.is_empty() && text.len() <= 16 && text.bytes().all(plain)).then_some(text)
}

impl Layout {
    fn of(opened: &Opened) -> Self {
        let set = &opened.parsed.set;
        let number = |tag| set.number(tag);
        let bits_allocated = number(tags::BITS_ALLOCATED).unwrap_or(16);
        let bits_stored = number(tags::BITS_STORED).unwrap_or(bits_allocated);
        let coding = opened.syntax.coding;
        let lossy_coding = matches!(
            coding,
            Some(
                Coding::JpegDct | Coding::JpegLs { near: true } | Coding::Jpeg2000 { lossy: true }
            )
        );
        let flagged = set.text(tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01");
        let extended = set.bytes(tags::EXTENDED_OFFSET_TABLE).unwrap_or_default();
        Self {
            syntax: opened.syntax,
            rows: number(tags::ROWS).unwrap_or(0) as usize,
            columns: number(tags::COLUMNS).unwrap_or(0) as usize,
            bits_allocated,
            bits_stored,
            high_bit: number(tags::HIGH_BIT).unwrap_or(bits_stored.saturating_sub(1)),
            signed: number(tags::PIXEL_REPRESENTATION) == Some(1),
            pixels: opened.parsed.pixels.clone().map(Arc::new),
            frame_offsets: extended.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
            lossy: lossy_coding || flagged,
        }
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.rows * self.columns * (self.bits_allocated as usize / 8)
    }

    fn check(&self) -> Result<(), Mismatch> {
        let Self { bits_allocated, bits_stored, high_bit, rows, columns, .. } = *self;
        if !matches!(bits_allocated, 8 | 16 | 32) {
            return Err(Mismatch::new(format!("{bits_allocated} bits a pixel"), "8, 16 or 32"));
        }
        if bits_stored == 0 || bits_stored > bits_allocated || high_bit >= bits_allocated {
            return Err(Mismatch::new(
                format!("{bits_stored} bits up to bit {high_bit} in {bits_allocated}"),
                "bits within their pixel",
            ));
        }
        if high_bit + 1 < bits_stored {
            let found = format!("{bits_stored} bits that end at bit {high_bit}");
            return Err(Mismatch::new(found, "room for them"));
        }
        if rows > 1 << 15 || columns > 1 << 15 {
            return Err(Mismatch::new(format!("{rows} x {columns} pixels"), "32768 at most"));
        }
        if self.syntax.coding.is_none() {
            let name = self.syntax.name;
            return Err(Mismatch::new(
                format!("pixels coded as {name}"),
                "one that docs/dicom.md lists",
            ));
        }
        Ok(())
    }

    /// Checks that the pixels are all there, as far as lengths say.
    fn check_length(&self, frames: usize) -> Result<(), Mismatch> {
        match self.pixels.as_deref() {
            Some(&PixelData::Native { present, .. }) => {
                let need = self.frame_bytes() as u64 * frames as u64;
                if present < need {
                    return Err(Mismatch::new(
                        format!("truncated pixel data, {present} bytes"),
                        format!("{need}"),
                    ));
                }
            }
            Some(PixelData::Encapsulated { fragments, whole, .. })
                if !whole || fragments.len() < frames =>
            {
                return Err(Mismatch::new("truncated pixel data", "all fragments"));
            }
            _ => {}
        }
        Ok(())
    }
}
