//! Which frames a segmentation has, and their pixels.

use super::SegEncoding;
use crate::volume::{Planes, Source};
use crate::write::elements::{coded, item, keyword, sequence, text};
use crate::write::file::{Encoding, Sink, encoded};
use crate::write::places::places;
use crate::write::segment::{Code, Segment};
use crate::write::{Label, modules};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use rayon::prelude::*;
use std::io;
use std::ops::Range;

/// A frame: of one segment on one slice, or of all segments on one slice.
pub(super) struct Frame {
    pub(super) slice: usize,
    /// The segment's number; 0 for all of them.
    pub(super) number: u16,
    id: u16,
    /// Rows that hold any of it.
    rows: Range<usize>,
}

/// The number of a segment, the `k`-th in ascending order of ids.
pub(in crate::write) fn number(encoding: SegEncoding, k: usize, segment: &Segment) -> u16 {
    match encoding {
        SegEncoding::Binary => k as u16 + 1,
        SegEncoding::Labelmap => segment.id,
    }
}

pub(super) fn labelmap(source: &Source) -> Vec<Frame> {
    let rows = 0..source.size[0];
    (0..source.slices.len())
        .map(|slice| Frame { slice, number: 0, id: 0, rows: rows.clone() })
        .collect()
}

/// The frames that are not empty, by segment and then by slice. An object has one frame at least:
/// of an empty map, the first segment's on the first slice.
pub(super) fn binary<T: Label>(
    planes: &Planes<'_, T>,
    source: &Source,
    segments: &[&Segment],
) -> Vec<Frame> {
    let places = places(planes, source, segments);
    let mut frames = Vec::new();
    for (k, segment) in segments.iter().enumerate() {
        let number = number(SegEncoding::Binary, k, segment);
        for (slice, places) in places.iter().enumerate().filter(|(_, p)| !p[k].is_empty()) {
            frames.push(Frame { slice, number, id: segment.id, rows: places[k].rows.clone() });
        }
    }
    if frames.is_empty() {
        frames.push(Frame { slice: 0, number: 1, id: segments[0].id, rows: 0..0 });
    }
    frames
}

/// Writes the pixels of all frames, a bit each, one frame right after the other.
pub(super) fn write_bits<T: Label>(
    sink: &mut Sink<'_>,
    planes: &Planes<'_, T>,
    source: &Source,
    frames: &[Frame],
) -> io::Result<()> {
    let [rows, columns] = source.size;
    let pixels = rows * columns;
    let total = (frames.len() as u64 * pixels as u64).div_ceil(8);
    sink.begin_pixels(*b"OB", total)?;
    let mut joint = Joint::default();
    // As many frames at once as keep every thread busy, and no more in memory.
    for frames in frames.chunks(16 * rayon::current_num_threads()) {
        let packed: Vec<Vec<u8>> = frames
            .par_iter()
            .map(|frame| {
                let mut bits = vec![0; pixels.div_ceil(8)];
                // From a whole byte on.
                let start = frame.rows.start.min(frame.rows.end) * columns / 8;
                let values = &planes.slice(frame.slice)[8 * start..frame.rows.end * columns];
                T::pack(values, frame.id, &mut bits[start..]);
                bits
            })
            .collect();
        for bits in packed {
            joint.push(sink, &bits, pixels)?;
        }
    }
    joint.finish(sink, total)
}

/// Joins frames whose bits are no whole number of bytes.
#[derive(Default)]
struct Joint {
    /// The bits that are no byte yet, and how many they are.
    rest: u8,
    held: usize,
}

impl Joint {
    fn push(&mut self, sink: &mut Sink<'_>, bits: &[u8], count: usize) -> io::Result<()> {
        if self.held == 0 && count.is_multiple_of(8) {
            return sink.bytes(bits);
        }
        let (whole, part) = (count / 8, count % 8);
        let mut out = Vec::with_capacity(whole + 1);
        for &byte in &bits[..whole] {
            out.push(self.rest | byte << self.held);
            self.rest = (u16::from(byte) >> (8 - self.held)) as u8;
        }
        if part > 0 {
            let last = u16::from(bits[whole]) << self.held | u16::from(self.rest);
            self.rest = last as u8;
            self.held += part;
            if self.held >= 8 {
                out.push(last as u8);
                self.rest = (last >> 8) as u8;
                self.held -= 8;
            }
        }
        sink.bytes(&out)
    }

    /// The last bits, and a byte more if the bytes would be an odd number.
    fn finish(self, sink: &mut Sink<'_>, total: u64) -> io::Result<()> {
        if self.held > 0 {
            sink.bytes(&[self.rest])?;
        }
        sink.end_pixels(total)
    }
}

/// Writes the labels of all slices, in one byte or two.
pub(super) fn write_labels<T: Label>(
    sink: &mut Sink<'_>,
    planes: &Planes<'_, T>,
    source: &Source,
    wide: bool,
) -> io::Result<()> {
    let pixels = source.size[0] * source.size[1] * source.slices.len();
    let total = pixels as u64 * if wide { 2 } else { 1 };
    sink.begin_pixels(if wide { *b"OW" } else { *b"OB" }, total)?;
    for slice in 0..source.slices.len() {
        let labels = planes.slice(slice).iter().map(|&label| Into::<u16>::into(label));
        let bytes: Vec<u8> = if wide {
            labels.flat_map(u16::to_le_bytes).collect()
        } else {
            labels.map(|label| label as u8).collect()
        };
        sink.bytes(&bytes)?;
    }
    sink.end_pixels(total)
}

/// What the frames of one slice share, encoded.
pub(super) struct SliceGroups {
    /// Which image it was derived from.
    pub(super) image: Vec<u8>,
    pub(super) position: Vec<u8>,
}

pub(super) fn derivations(source: &Source) -> io::Result<Vec<SliceGroups>> {
    let purpose = modules::source_purpose();
    source
        .slices
        .iter()
        .map(|slice| {
            let mut image = modules::image(slice);
            image.put(coded(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &purpose));
            image.put(keyword(tags::SPATIAL_LOCATIONS_PRESERVED, "YES"));
            let derivation = item([
                sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![image]),
                coded(tags::DERIVATION_CODE_SEQUENCE, &Code::dcm("113076", "Segmentation")),
            ]);
            let position = item([text(tags::IMAGE_POSITION_PATIENT, VR::DS, &slice.position_text)]);
            let encoded = |group| encoded(&item([group]), Encoding::Explicit);
            Ok(SliceGroups {
                image: encoded(sequence(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation]))?,
                position: encoded(sequence(tags::PLANE_POSITION_SEQUENCE, vec![position]))?,
            })
        })
        .collect()
}

/// Where the encoded sequence that a frame's own groups begin with ends.
pub(super) fn end_of_content(groups: &[u8]) -> usize {
    // Frame content holds numbers of fixed size in one item, and its delimiter ends it.
    let delimiter = [0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];
    let found = groups.windows(8).position(|window| window == delimiter);
    found.map_or(groups.len(), |at| at + 8)
}
