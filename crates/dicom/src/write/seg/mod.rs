//! Segmentations: a frame for each slice with all labels in it (LABELMAP), or for each label and
//! slice that has any of it, with one bit a pixel (BINARY).
//!
//! Frames lie on the source's own slices, whose positions are written as the source writes them.
//! BINARY is what archives and viewers of today take; LABELMAP is younger, faster and smaller.

mod frames;

pub(super) use frames::number;

use super::elements::{Item, item, keyword, long, sequence, text, uid, unsigned};
use super::file::{Encoding, Sink};
use super::modules::{self, Kind};
use super::segment::{Code, Segment};
use super::shared::Shared;
use super::{About, Label, Labeling, Out, RESEARCH_ONLY, Written, elements};
use crate::volume::Planes;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use ndarray::ArrayView3;
use std::io;

/// How labels are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegEncoding {
    /// A frame of single bits for each label and slice that has any of it.
    #[default]
    Binary,
    /// A frame for each slice, with the labels as they are (Supplement 243, of 2024).
    Labelmap,
}

const LABELMAP_CLASS: &str = "1.2.840.10008.5.1.4.1.1.66.7";

impl<T: Label> Labeling<'_, T> {
    /// Writes a segmentation.
    ///
    /// In a LABELMAP a segment's number is its id; in BINARY numbers must go from 1 without a gap: ids
    /// that do are kept, others are replaced by their place in ascending order, and the id is named
    /// in the segment's description.
    ///
    /// # Errors
    ///
    /// Those of `out`, and if it has 4 GiB of pixels, which a file cannot hold.
    pub fn write_seg(&self, encoding: SegEncoding, mut out: impl Out) -> io::Result<Written> {
        let Self { about, labels, segments, shared } = self;
        Segmentation { about, segments, shared, encoding }.write(*labels, &mut out)
    }
}

struct Segmentation<'a> {
    about: &'a About<'a>,
    segments: &'a [&'a Segment],
    shared: &'a Shared,
    encoding: SegEncoding,
}

impl Segmentation<'_> {
    fn write<T: Label>(&self, labels: ArrayView3<'_, T>, out: &mut dyn Out) -> io::Result<Written> {
        let source = self.about.source;
        let planes = Planes::new(labels, source);
        let frames = match self.encoding {
            SegEncoding::Binary => frames::binary(&planes, source, self.segments),
            SegEncoding::Labelmap => frames::labelmap(source),
        };
        let mut sink = Sink::begin(out, self.class_uid(), Encoding::Explicit)?;
        sink.elements(self.header(frames.len()))?;
        sink.begin_sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
        self.frame_groups(&mut sink, &frames)?;
        sink.end_sequence()?;
        match self.encoding {
            SegEncoding::Binary => {
                frames::write_bits(&mut sink, &planes, source, &frames)?;
            }
            SegEncoding::Labelmap => {
                frames::write_labels(&mut sink, &planes, source, self.wide())?;
            }
        }
        sink.finish(self.about.options.fresh.as_ref())
    }

    fn class_uid(&self) -> &'static str {
        match self.encoding {
            SegEncoding::Binary => uids::SEGMENTATION_STORAGE,
            SegEncoding::Labelmap => LABELMAP_CLASS,
        }
    }

    /// Whether labels need two bytes.
    fn wide(&self) -> bool {
        self.segments.last().is_some_and(|segment| segment.id > 255)
    }

    /// Everything before the frames' own groups.
    fn header(&self, frames: usize) -> Item {
        let source = self.about.source;
        let kind = Kind {
            class_uid: self.class_uid(),
            modality: "SEG",
            description: "Segmentation",
            series_number: 9001,
        };
        let mut set = modules::common(self.about, &kind);
        modules::frame_of_reference(source, &mut set);
        modules::lossy(source, &mut set);
        let (date, time) = modules::made(self.about);
        let (bits, name) = match self.encoding {
            SegEncoding::Binary => (1, "BINARY"),
            SegEncoding::Labelmap => (if self.wide() { 16 } else { 8 }, "LABELMAP"),
        };
        let [rows, columns] = source.size.map(|n| n as u16);
        for element in [
            keyword(tags::IMAGE_TYPE, "DERIVED\\PRIMARY"),
            text(tags::CONTENT_DATE, VR::DA, &date),
            text(tags::CONTENT_TIME, VR::TM, &time),
            keyword(tags::CONTENT_LABEL, "SEGMENTATION"),
            long(tags::CONTENT_DESCRIPTION, RESEARCH_ONLY),
            text(tags::CONTENT_CREATOR_NAME, VR::PN, ""),
            modules::referenced_series(source),
            unsigned(tags::SAMPLES_PER_PIXEL, 1),
            keyword(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2"),
            elements::integer(tags::NUMBER_OF_FRAMES, frames),
            unsigned(tags::ROWS, rows),
            unsigned(tags::COLUMNS, columns),
            unsigned(tags::BITS_ALLOCATED, bits),
            unsigned(tags::BITS_STORED, bits),
            unsigned(tags::HIGH_BIT, bits - 1),
            unsigned(tags::PIXEL_REPRESENTATION, 0),
            keyword(tags::SEGMENTATION_TYPE, name),
            keyword(tags::SEGMENTS_OVERLAP, "NO"),
            sequence(tags::SEGMENT_SEQUENCE, self.segment_items()),
            sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![self.shared_groups()]),
        ] {
            set.put(element);
        }
        if self.encoding == SegEncoding::Labelmap {
            set.put(unsigned(tags::PIXEL_PADDING_VALUE, 0));
        }
        self.dimensions(&mut set);
        set
    }

    /// Frames are told apart by segment and position.
    fn dimensions(&self, set: &mut Item) {
        let own = self.shared.dimensions(self.encoding, self.segments);
        let index = |pointer: Tag, group: Tag, label: &str| {
            let at = |tag: Tag, pointed: Tag| {
                let value = dicom_core::PrimitiveValue::Tags([pointed].as_slice().into());
                dicom_core::DataElement::new(tag, VR::AT, value)
            };
            item([
                uid(tags::DIMENSION_ORGANIZATION_UID, &own),
                at(tags::DIMENSION_INDEX_POINTER, pointer),
                at(tags::FUNCTIONAL_GROUP_POINTER, group),
                long(tags::DIMENSION_DESCRIPTION_LABEL, label),
            ])
        };
        let mut indices = Vec::new();
        if self.encoding == SegEncoding::Binary {
            let group = tags::SEGMENT_IDENTIFICATION_SEQUENCE;
            indices.push(index(tags::REFERENCED_SEGMENT_NUMBER, group, "Segment"));
        }
        let group = tags::PLANE_POSITION_SEQUENCE;
        indices.push(index(tags::IMAGE_POSITION_PATIENT, group, "Position"));
        let organization = item([uid(tags::DIMENSION_ORGANIZATION_UID, &own)]);
        set.put(sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![organization]));
        set.put(sequence(tags::DIMENSION_INDEX_SEQUENCE, indices));
    }

    fn segment_items(&self) -> Vec<Item> {
        let identification = modules::algorithm_identification(self.about.algorithm);
        let mut items = Vec::new();
        if self.encoding == SegEncoding::Labelmap {
            let concept = Code::dcm("125040", "Background");
            items.push(item([
                unsigned(tags::SEGMENT_NUMBER, 0),
                long(tags::SEGMENT_LABEL, "Background"),
                keyword(tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC"),
                long(tags::SEGMENT_ALGORITHM_NAME, &self.about.algorithm.name),
                modules::recommended_color([0; 3]),
                elements::coded(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &concept),
                elements::coded(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &concept),
            ]));
        }
        for (k, segment) in self.segments.iter().enumerate() {
            let number = frames::number(self.encoding, k, segment);
            let description = if number == segment.id {
                RESEARCH_ONLY.to_owned()
            } else {
                format!("Label {}. {RESEARCH_ONLY}", segment.id)
            };
            let mut one = item([
                unsigned(tags::SEGMENT_NUMBER, number),
                long(tags::SEGMENT_LABEL, &segment.name),
                text(tags::SEGMENT_DESCRIPTION, VR::ST, &description),
                keyword(tags::SEGMENT_ALGORITHM_TYPE, "AUTOMATIC"),
                long(tags::SEGMENT_ALGORITHM_NAME, &self.about.algorithm.name),
                sequence(
                    tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
                    vec![identification.clone()],
                ),
                text(tags::TRACKING_ID, VR::UT, &segment.name),
                uid(tags::TRACKING_UID, &self.shared.tracking(segment)),
            ]);
            modules::property(segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &mut one);
            if let Some(rgb) = segment.color {
                one.put(modules::recommended_color(rgb));
            }
            items.push(one);
        }
        items
    }

    /// Orientation and size of pixels: those of the first slice, which all have.
    fn shared_groups(&self) -> Item {
        let first = &self.about.source.slices[0];
        let thickness = first.thickness.unwrap_or(self.about.source.grid.spacing[0]);
        let mut measures = item([
            text(tags::PIXEL_SPACING, VR::DS, &first.spacing_text),
            elements::decimals(tags::SLICE_THICKNESS, &[thickness]),
        ]);
        if self.about.source.regrid.is_none() {
            let between = self.about.source.grid.spacing[0];
            measures.put(elements::decimals(tags::SPACING_BETWEEN_SLICES, &[between]));
        }
        let orientation =
            item([text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &first.orientation_text)]);
        item([
            sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![measures]),
            sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]),
        ])
    }

    fn frame_groups(&self, sink: &mut Sink<'_>, frames: &[frames::Frame]) -> io::Result<()> {
        let derivation = frames::derivations(self.about.source)?;
        for frame in frames {
            let mut index = vec![frame.slice as u32 + 1];
            let mut group = item([]);
            if self.encoding == SegEncoding::Binary {
                index.insert(0, u32::from(frame.number));
                let segment = unsigned(tags::REFERENCED_SEGMENT_NUMBER, frame.number);
                group.put(sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![item([segment])]));
            }
            let content = elements::unsigned_long_list(tags::DIMENSION_INDEX_VALUES, &index);
            group.put(sequence(tags::FRAME_CONTENT_SEQUENCE, vec![item([content])]));
            // The same for every frame of a slice, and encoded once: derivation comes first in the
            // order of tags, position after the content.
            let own = super::file::encoded(&group, Encoding::Explicit)?;
            let slice = &derivation[frame.slice];
            let content_end = frames::end_of_content(&own);
            let bytes =
                [&slice.image[..], &own[..content_end], &slice.position, &own[content_end..]];
            sink.item(&bytes.concat())?;
        }
        Ok(())
    }
}
