//! Modules that every object has: patient, study, series, equipment, and what it refers to.

use super::elements::{
    self, Item, coded, integer, item, keyword, long, sequence, text, uid, unsigned_list,
};
use super::file::BLANK;
use super::segment::{Algorithm, Code, Segment};
use super::{About, RESEARCH_ONLY, color};
use crate::volume::{Source, SourceSlice};
use base16ct::lower;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// What tells one kind of object from another.
pub(super) struct Kind {
    pub(super) class_uid: &'static str,
    pub(super) modality: &'static str,
    pub(super) description: &'static str,
    pub(super) series_number: u32,
}

/// Date and time of an object's making.
pub(super) fn made(&About { source, options, .. }: &About<'_>) -> (String, String) {
    if let Some(fresh) = &options.fresh {
        return (fresh.date.clone(), fresh.time.clone());
    }
    // Where a source has no date at all, one that is plainly none.
    let or = |value: &str, none: &str| if value.is_empty() { none } else { value }.to_owned();
    (or(&source.date, "19000101"), or(&source.time, "000000"))
}

/// The elements that all objects have.
pub(super) fn common(about: &About<'_>, kind: &Kind) -> Item {
    let &About { source, algorithm, options } = about;
    let (date, time) = made(about);
    // Attributes that must be there, if only empty, in case the source has not got them.
    let mut set = item([
        text(tags::STUDY_DATE, VR::DA, ""),
        text(tags::STUDY_TIME, VR::TM, ""),
        text(tags::ACCESSION_NUMBER, VR::SH, ""),
        text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
        text(tags::PATIENT_NAME, VR::PN, ""),
        text(tags::PATIENT_ID, VR::LO, ""),
        text(tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        text(tags::PATIENT_SEX, VR::CS, ""),
        text(tags::STUDY_ID, VR::SH, ""),
    ]);
    for raw in source.patient.0.iter().filter(|raw| raw.tag != tags::POSITION_REFERENCE_INDICATOR) {
        set.put(elements::copied(raw));
    }
    let models: Vec<&str> = algorithm.models.iter().map(|model| model.sha256.as_str()).collect();
    let device = lower::encode_string(&Sha256::digest(models.join("\n"))[..8]);
    let number = options.series_number.unwrap_or(kind.series_number);
    for element in [
        uid(tags::SOP_CLASS_UID, kind.class_uid),
        uid(tags::SOP_INSTANCE_UID, BLANK),
        text(tags::INSTANCE_CREATION_DATE, VR::DA, &date),
        text(tags::INSTANCE_CREATION_TIME, VR::TM, &time),
        uid(tags::STUDY_INSTANCE_UID, &source.study_uid),
        uid(tags::SERIES_INSTANCE_UID, BLANK),
        elements::integer(tags::SERIES_NUMBER, number),
        elements::integer(tags::INSTANCE_NUMBER, 1),
        text(tags::SERIES_DATE, VR::DA, &date),
        text(tags::SERIES_TIME, VR::TM, &time),
        keyword(tags::MODALITY, kind.modality),
        long(tags::SERIES_DESCRIPTION, &series_description(kind.description, &algorithm.task)),
        long(tags::MANUFACTURER, &algorithm.name),
        long(tags::MANUFACTURER_MODEL_NAME, &algorithm.name),
        // The models are the device: another set of them is another one.
        long(tags::DEVICE_SERIAL_NUMBER, &device),
        long(tags::SOFTWARE_VERSIONS, &algorithm.version),
    ] {
        set.put(element);
    }
    set
}

/// What lists of series show: kind of object and task, of which there is as much as fits.
fn series_description(kind: &str, task: &str) -> String {
    const MOST: usize = 64;
    let end = format!(" - {RESEARCH_ONLY}");
    let task = if task.is_empty() { String::new() } else { format!(" {task}") };
    let begin = format!("{kind}{task}");
    begin.chars().take(MOST - end.len()).collect::<String>() + &end
}

/// The frame of reference of the source.
pub(super) fn frame_of_reference(source: &Source, set: &mut Item) {
    set.put(uid(tags::FRAME_OF_REFERENCE_UID, &source.frame_of_reference_uid));
    let indicator = source.patient.get(tags::POSITION_REFERENCE_INDICATOR);
    set.put(match indicator {
        Some(raw) => elements::copied(raw),
        None => text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
    });
}

/// A reference to an instance.
pub(super) fn instance(class_uid: &str, instance_uid: &str) -> Item {
    item([
        uid(tags::REFERENCED_SOP_CLASS_UID, class_uid),
        uid(tags::REFERENCED_SOP_INSTANCE_UID, instance_uid),
    ])
}

/// The files of the source: class and instance, each once, in the order of slices.
pub(super) fn source_files(source: &Source) -> Vec<(&str, &str)> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for slice in &source.slices {
        if seen.insert(&slice.instance_uid) {
            files.push((slice.class_uid.as_str(), slice.instance_uid.as_str()));
        }
    }
    files
}

/// The source series and its instances.
pub(super) fn referenced_series(source: &Source) -> elements::Element {
    let files = source_files(source).into_iter().map(|(class, uid)| instance(class, uid));
    let series = item([
        uid(tags::SERIES_INSTANCE_UID, &source.series_uid),
        sequence(tags::REFERENCED_INSTANCE_SEQUENCE, files.collect()),
    ]);
    sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![series])
}

/// Whether and how the source lost something.
pub(super) fn lossy(source: &Source, set: &mut Item) {
    set.put(keyword(
        tags::LOSSY_IMAGE_COMPRESSION,
        if source.lossy.is_some() { "01" } else { "00" },
    ));
    if let Some(lossy) = &source.lossy {
        set.put(text(tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, &lossy.ratio));
        set.put(text(tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, &lossy.method));
    }
}

/// What made the labels.
pub(super) fn algorithm_identification(algorithm: &Algorithm) -> Item {
    let family = Code::dcm("123110", "Artificial Intelligence");
    let parameters = algorithm.parameters();
    let mut set = item([
        coded(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, &family),
        long(tags::ALGORITHM_NAME, &algorithm.name),
        long(tags::ALGORITHM_VERSION, &algorithm.version),
    ]);
    if !parameters.is_empty() {
        set.put(text(tags::ALGORITHM_PARAMETERS, VR::LT, &parameters));
    }
    set
}

/// Category, kind and place of a structure, as segments and regions of interest have them; the kind is
/// called otherwise in each.
pub(super) fn property(segment: &Segment, kind_sequence: Tag, set: &mut Item) {
    set.put(coded(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &segment.category));
    set.put(sequence(kind_sequence, vec![kind(segment)]));
    if let Some(region) = &segment.region {
        let mut region = elements::code(region);
        if let Some(modifier) = &segment.region_modifier {
            region.put(coded(tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, modifier));
        }
        set.put(sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![region]));
    }
}

/// What a structure is, with its side.
fn kind(segment: &Segment) -> Item {
    let mut kind = elements::code(&segment.kind);
    if let Some(modifier) = &segment.modifier {
        kind.put(coded(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, modifier));
    }
    kind
}

/// What an image that was read is to an object that was made of it.
pub(super) fn source_purpose() -> Code {
    Code::dcm("121322", "Source image for image processing operation")
}

/// The image of a slice, by its frame where it has several.
pub(super) fn image(slice: &SourceSlice) -> Item {
    let mut image = instance(&slice.class_uid, &slice.instance_uid);
    if let Some(frame) = slice.frame {
        image.put(integer(tags::REFERENCED_FRAME_NUMBER, frame));
    }
    image
}

pub(super) fn recommended_color(rgb: [u8; 3]) -> elements::Element {
    unsigned_list(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, color::lab(rgb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_of_series_fit_and_end_as_they_must() {
        let cases = [
            ("bone", "Segmentation bone - Research use only"),
            ("", "Segmentation - Research use only"),
            (&"x".repeat(64), &format!("Segmentation {} - Research use only", "x".repeat(31))),
        ];
        for (task, expected) in cases {
            assert_eq!(series_description("Segmentation", task), expected);
            assert!(expected.len() <= 64);
        }
    }
}
