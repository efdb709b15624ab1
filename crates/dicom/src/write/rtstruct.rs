//! Structure sets: each structure as closed outlines in the source's planes.

use super::contour::{self, Corner};
use super::elements::{Item, decimal, integer, item, keyword, long, sequence, short, text, uid};
use super::file::{Encoding, Sink, encoded};
use super::modules::{self, Kind};
use super::places::{Place, places};
use super::segment::{Algorithm, Segment};
use super::{About, Label, Labeling, Out, RESEARCH_ONLY, Written};
use crate::volume::{Planes, Source, SourceSlice};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use rayon::prelude::*;
use std::io;

/// Class of the study as older readers expect it to be referred to.
const STUDY_CLASS: &str = "1.2.840.10008.3.1.2.3.1";

impl<T: Label> Labeling<'_, T> {
    /// Writes a structure set of the segments that are in the map. A structure's number is its id.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_rtstruct(&self, mut out: impl Out) -> io::Result<Written> {
        let Self { about, labels, segments, .. } = self;
        let source = about.source;
        let planes = Planes::new(*labels, source);
        let places = places(&planes, source, segments);
        let present: Vec<(usize, &Segment)> = segments
            .iter()
            .enumerate()
            .filter(|(k, _)| places.iter().any(|slice| !slice[*k].is_empty()))
            .map(|(k, segment)| (k, *segment))
            .collect();
        let mut sink = Sink::begin(&mut out, uids::RT_STRUCTURE_SET_STORAGE, Encoding::Implicit)?;
        sink.elements(header(about, &present))?;
        sink.begin_sequence(tags::ROI_CONTOUR_SEQUENCE)?;
        // As many structures at once as keep every thread busy.
        for some in present.chunks(rayon::current_num_threads()) {
            let encoded: Vec<Vec<u8>> = some
                .par_iter()
                .map(|(k, segment)| {
                    let region = contours(source, &planes, &places, *k, segment);
                    encoded(&region, Encoding::Implicit)
                })
                .collect::<io::Result<_>>()?;
            encoded.iter().try_for_each(|bytes| sink.item(bytes))?;
        }
        sink.end_sequence()?;
        sink.elements(observations(&present))?;
        sink.finish(about.options.fresh.as_ref())
    }
}

fn header(about: &About<'_>, present: &[(usize, &Segment)]) -> Item {
    let kind = Kind {
        class_uid: uids::RT_STRUCTURE_SET_STORAGE,
        modality: "RTSTRUCT",
        description: "Structure set",
        series_number: 9002,
    };
    let mut set = modules::common(about, &kind);
    modules::frame_of_reference(about.source, &mut set);
    let (date, time) = modules::made(about);
    let Algorithm { name, task, .. } = about.algorithm;
    for element in [
        text(tags::OPERATORS_NAME, VR::PN, ""),
        // What planning systems list.
        short(tags::STRUCTURE_SET_LABEL, if task.is_empty() { name } else { task }),
        long(tags::STRUCTURE_SET_NAME, format!("{name} {task}").trim()),
        text(tags::STRUCTURE_SET_DESCRIPTION, VR::ST, RESEARCH_ONLY),
        text(tags::STRUCTURE_SET_DATE, VR::DA, &date),
        text(tags::STRUCTURE_SET_TIME, VR::TM, &time),
        sequence(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, vec![references(about.source)]),
        sequence(
            tags::STRUCTURE_SET_ROI_SEQUENCE,
            present.iter().map(|(_, segment)| region(about, segment)).collect(),
        ),
    ] {
        set.put(element);
    }
    set
}

/// Frame of reference, study, series and images.
fn references(source: &Source) -> Item {
    let files = modules::source_files(source);
    let images = files.into_iter().map(|(class, uid)| modules::instance(class, uid)).collect();
    let series = item([
        uid(tags::SERIES_INSTANCE_UID, &source.series_uid),
        sequence(tags::CONTOUR_IMAGE_SEQUENCE, images),
    ]);
    let mut study = modules::instance(STUDY_CLASS, &source.study_uid);
    study.put(sequence(tags::RT_REFERENCED_SERIES_SEQUENCE, vec![series]));
    item([
        uid(tags::FRAME_OF_REFERENCE_UID, &source.frame_of_reference_uid),
        sequence(tags::RT_REFERENCED_STUDY_SEQUENCE, vec![study]),
    ])
}

fn region(about: &About<'_>, segment: &Segment) -> Item {
    let models = about.algorithm.parameters();
    let description = format!("{RESEARCH_ONLY}. {models}");
    let description: String = description.chars().take(1024).collect();
    item([
        integer(tags::ROI_NUMBER, segment.id),
        uid(tags::REFERENCED_FRAME_OF_REFERENCE_UID, &about.source.frame_of_reference_uid),
        long(tags::ROI_NAME, &segment.name),
        text(tags::ROI_DESCRIPTION, VR::ST, &description),
        keyword(tags::ROI_GENERATION_ALGORITHM, "AUTOMATIC"),
        sequence(
            tags::ROI_DERIVATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
            vec![modules::algorithm_identification(about.algorithm)],
        ),
    ])
}

/// The outlines of one structure in all slices.
fn contours<T: Label>(
    source: &Source,
    planes: &Planes<'_, T>,
    places: &[Vec<Place>],
    number: usize,
    segment: &Segment,
) -> Item {
    let columns = source.size[1];
    let mut contours = Vec::new();
    for (k, slice) in source.slices.iter().enumerate() {
        let labels = planes.slice(k);
        let has = |y: usize, x: usize| labels[y * columns + x].into() == segment.id;
        for outline in contour::outlines(has, &places[k][number]) {
            contours.push(contour_item(slice, &outline, source.spacing));
        }
    }
    let mut region = item([
        integer(tags::REFERENCED_ROI_NUMBER, segment.id),
        sequence(tags::CONTOUR_SEQUENCE, contours),
    ]);
    if let Some([r, g, b]) = segment.color {
        region.put(text(tags::ROI_DISPLAY_COLOR, VR::IS, &format!("{r}\\{g}\\{b}")));
        region.put(modules::recommended_color([r, g, b]));
    }
    region
}

/// What each structure is.
fn observations(present: &[(usize, &Segment)]) -> Item {
    let observations = present.iter().map(|(_, segment)| {
        let mut one = item([
            integer(tags::OBSERVATION_NUMBER, segment.id),
            integer(tags::REFERENCED_ROI_NUMBER, segment.id),
            keyword(tags::RTROI_INTERPRETED_TYPE, "ORGAN"),
            text(tags::ROI_INTERPRETER, VR::PN, ""),
        ]);
        modules::property(segment, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, &mut one);
        one
    });
    item([
        sequence(tags::RTROI_OBSERVATIONS_SEQUENCE, observations.collect()),
        keyword(tags::APPROVAL_STATUS, "UNAPPROVED"),
    ])
}

fn contour_item(slice: &SourceSlice, outline: &[Corner], spacing: [f64; 2]) -> Item {
    let [across, down] = slice.orientation;
    let mut data = String::with_capacity(outline.len() * 24);
    for &[x, y] in outline {
        let (x, y) = (f64::from(x) / 2.0 * spacing[1], f64::from(y) / 2.0 * spacing[0]);
        for axis in 0..3 {
            let mm = slice.position[axis] + x * across[axis] + y * down[axis];
            if !data.is_empty() {
                data.push('\\');
            }
            // A tenth of a micrometre.
            data += &decimal((mm * 1e4).round() / 1e4);
        }
    }
    item([
        sequence(tags::CONTOUR_IMAGE_SEQUENCE, vec![modules::image(slice)]),
        keyword(tags::CONTOUR_GEOMETRIC_TYPE, "CLOSED_PLANAR"),
        integer(tags::NUMBER_OF_CONTOUR_POINTS, outline.len()),
        text(tags::CONTOUR_DATA, VR::DS, &data),
    ])
}
