//! Measurement reports (TID 1500): volume, mean and standard deviation of each structure.

use super::elements::{Element, Item, code, coded, decimals, item, keyword, sequence, text, uid};
use super::file::{Encoding, Sink};
use super::modules::{self, Kind};
use super::seg::SegEncoding;
use super::segment::{Algorithm, Code, Segment};
use super::shared::Shared;
use super::{About, Label, Labeling, Out, RESEARCH_ONLY, Written, elements};
use crate::volume::Grid;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;
use std::io::{self, Read, Seek};

/// A segmentation that was written of the same labels, which a report refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegReference {
    /// What was written.
    pub written: Written,
    /// How.
    pub encoding: SegEncoding,
}

impl SegReference {
    /// Whether a file is this very segmentation, as the meta header tells: identifiers are made of what
    /// an object holds. Errors of reading are none of an object.
    #[must_use]
    pub fn is_in(&self, file: &mut (impl Read + Seek)) -> bool {
        let meta = crate::read::file::meta_of_object(file);
        let has = |tag, uid: &str| meta.text(tag).as_deref() == Some(uid);
        has(tags::MEDIA_STORAGE_SOP_CLASS_UID, &self.written.class_uid)
            && has(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, &self.written.instance_uid)
    }
}

impl<T: Label> Labeling<'_, T> {
    /// Writes a report of each segment that is in the map; `slice` gives the values, in Hounsfield
    /// units, of a slice of the volume by its number. The same map gives the same numbers at any number
    /// of threads.
    ///
    /// With a segmentation to refer to, each group of measurements is of one of its segments (TID
    /// 1411); without, of the source series (TID 1501).
    ///
    /// # Errors
    ///
    /// Those of `out`.
    ///
    /// # Panics
    ///
    /// If values and labels differ in shape.
    pub fn write_sr(
        &self,
        slice: impl Fn(usize) -> Array2<f32> + Sync,
        segmentation: Option<&SegReference>,
        mut out: impl Out,
    ) -> io::Result<Written> {
        let Self { about, labels, segments, shared } = self;
        let measurements = measure(slice, *labels, segments, &about.source.grid);
        let report = Report { about, measurements, segments, shared, segmentation };
        let class = uids::COMPREHENSIVE3_DSR_STORAGE;
        let mut sink = Sink::begin(&mut out, class, Encoding::Explicit)?;
        sink.elements(report.elements())?;
        sink.finish(about.options.fresh.as_ref())
    }
}

/// What was measured of one structure.
struct Measurement<'a> {
    segment: &'a Segment,
    volume_mm3: f64,
    mean_hu: f64,
    /// Standard deviation of all voxels.
    deviation_hu: f64,
}

/// Measures each segment that is in the map.
fn measure<'a, T: Label>(
    slice: impl Fn(usize) -> Array2<f32> + Sync,
    labels: ArrayView3<'_, T>,
    segments: &[&'a Segment],
    grid: &Grid,
) -> Vec<Measurement<'a>> {
    let sums = sums(slice, labels);
    segments
        .iter()
        .filter_map(|&segment| {
            let [count, sum, squares] = *sums.get(usize::from(segment.id))?;
            let mean = sum / count;
            (count > 0.0).then(|| Measurement {
                segment,
                volume_mm3: count * grid.voxel_mm3(),
                mean_hu: mean,
                deviation_hu: (squares / count - mean * mean).max(0.0).sqrt(),
            })
        })
        .collect()
}

/// Count, sum and sum of squares of each label, up to the largest there is.
fn sums<T: Label>(
    slice: impl Fn(usize) -> Array2<f32> + Sync,
    labels: ArrayView3<'_, T>,
) -> Vec<[f64; 3]> {
    let of_slice = |values: Array2<f32>, labels: ArrayView2<'_, T>| {
        assert_eq!(values.dim(), labels.dim(), "values and labels have one shape");
        let mut sums: Vec<[f64; 3]> = Vec::new();
        for (&value, &label) in values.iter().zip(&labels) {
            let label: u16 = label.into();
            if usize::from(label) >= sums.len() {
                sums.resize(usize::from(label) + 1, [0.0; 3]);
            }
            let value = f64::from(value);
            let sum = &mut sums[usize::from(label)];
            *sum = [sum[0] + 1.0, sum[1] + value, sum[2] + value * value];
        }
        sums
    };
    let slices: Vec<Vec<[f64; 3]>> = (0..labels.dim().0)
        .into_par_iter()
        .map(|k| of_slice(slice(k), labels.index_axis(Axis(0), k)))
        .collect();
    // In the order of slices, whichever was done first.
    slices.into_iter().fold(Vec::new(), |mut all, slice| {
        all.resize(all.len().max(slice.len()), [0.0; 3]);
        for (all, sum) in all.iter_mut().zip(slice) {
            *all = [all[0] + sum[0], all[1] + sum[1], all[2] + sum[2]];
        }
        all
    })
}

fn template(identifier: &str) -> Element {
    let template = item([
        keyword(tags::MAPPING_RESOURCE, "DCMR"),
        keyword(tags::TEMPLATE_IDENTIFIER, identifier),
    ]);
    sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![template])
}

/// A content item: its relation to the one above it, its kind, its name and its value.
fn content(relation: &str, kind: &str, name: &Code, value: Element) -> Item {
    item([
        keyword(tags::RELATIONSHIP_TYPE, relation),
        keyword(tags::VALUE_TYPE, kind),
        coded(tags::CONCEPT_NAME_CODE_SEQUENCE, name),
        value,
    ])
}

fn concept(relation: &str, name: &Code, value: &Code) -> Item {
    content(relation, "CODE", name, coded(tags::CONCEPT_CODE_SEQUENCE, value))
}

fn words(relation: &str, name: &Code, value: &str) -> Item {
    content(relation, "TEXT", name, text(tags::TEXT_VALUE, VR::UT, value))
}

fn identifier(relation: &str, name: &Code, value: &str) -> Item {
    content(relation, "UIDREF", name, uid(tags::UID, value))
}

fn container(name: &Code, number: Option<&str>, items: Vec<Item>) -> Item {
    let mut container =
        content("CONTAINS", "CONTAINER", name, keyword(tags::CONTINUITY_OF_CONTENT, "SEPARATE"));
    if let Some(number) = number {
        container.put(template(number));
    }
    container.put(sequence(tags::CONTENT_SEQUENCE, items));
    container
}

fn number(name: &Code, value: f64, unit: &Code, modifiers: Vec<Item>) -> Item {
    let measured = item([
        decimals(tags::NUMERIC_VALUE, &[value]),
        sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code(unit)]),
    ]);
    let measured = sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    let mut number = content("CONTAINS", "NUM", name, measured);
    if !modifiers.is_empty() {
        number.put(sequence(tags::CONTENT_SEQUENCE, modifiers));
    }
    number
}

const HAS_CONTEXT: &str = "HAS OBS CONTEXT";
const HAS_MODIFIER: &str = "HAS CONCEPT MOD";
const CONTAINS: &str = "CONTAINS";

struct Report<'a> {
    about: &'a About<'a>,
    measurements: Vec<Measurement<'a>>,
    /// Of which the segmentation was made, in ascending order of ids.
    segments: &'a [&'a Segment],
    shared: &'a Shared,
    segmentation: Option<&'a SegReference>,
}

impl Report<'_> {
    fn elements(&self) -> Item {
        let kind = Kind {
            class_uid: uids::COMPREHENSIVE3_DSR_STORAGE,
            modality: "SR",
            description: "Measurements",
            series_number: 9003,
        };
        let mut set = modules::common(self.about, &kind);
        let (date, time) = modules::made(self.about);
        let evidence = tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE;
        let title = Code::dcm("126000", "Imaging Measurement Report");
        for element in [
            sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new()),
            text(tags::CONTENT_DATE, VR::DA, &date),
            text(tags::CONTENT_TIME, VR::TM, &time),
            keyword(tags::COMPLETION_FLAG, "COMPLETE"),
            elements::long(tags::COMPLETION_FLAG_DESCRIPTION, RESEARCH_ONLY),
            keyword(tags::VERIFICATION_FLAG, "UNVERIFIED"),
            sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new()),
            sequence(evidence, vec![self.evidence()]),
            keyword(tags::VALUE_TYPE, "CONTAINER"),
            coded(tags::CONCEPT_NAME_CODE_SEQUENCE, &title),
            keyword(tags::CONTINUITY_OF_CONTENT, "SEPARATE"),
            template("1500"),
            sequence(tags::CONTENT_SEQUENCE, self.content()),
        ] {
            set.put(element);
        }
        set
    }

    /// All instances that the report refers to.
    fn evidence(&self) -> Item {
        let series = |uid_value: &str, instances: Vec<Item>| {
            item([
                uid(tags::SERIES_INSTANCE_UID, uid_value),
                sequence(tags::REFERENCED_SOP_SEQUENCE, instances),
            ])
        };
        let files = modules::source_files(self.about.source);
        let images = files.into_iter().map(|(class, uid)| modules::instance(class, uid)).collect();
        let mut list = vec![series(&self.about.source.series_uid, images)];
        if let Some(SegReference { written, .. }) = self.segmentation {
            let instance = modules::instance(&written.class_uid, &written.instance_uid);
            list.push(series(&written.series_uid, vec![instance]));
        }
        item([
            uid(tags::STUDY_INSTANCE_UID, &self.about.source.study_uid),
            sequence(tags::REFERENCED_SERIES_SEQUENCE, list),
        ])
    }

    fn content(&self) -> Vec<Item> {
        let language = Code::dcm("121049", "Language of Content Item and Descendants");
        let mut items = vec![concept(
            HAS_MODIFIER,
            &language,
            &Code::new("en-US", "RFC5646", "English (United States)"),
        )];
        items.extend(self.observer());
        let procedure = Code::new("25045-6", "LN", "CT unspecified body region");
        items.push(concept(HAS_MODIFIER, &Code::dcm("121058", "Procedure reported"), &procedure));
        let groups = self.measurements.iter().map(|measurement| self.group(measurement)).collect();
        items.push(container(&Code::dcm("126010", "Imaging Measurements"), None, groups));
        items
    }

    /// The program is the observer (TID 1002, 1004).
    fn observer(&self) -> Vec<Item> {
        let Algorithm { name, version, .. } = self.about.algorithm;
        let models = self.about.algorithm.parameters();
        let device = crate::uid::of(&[name.as_bytes(), version.as_bytes(), models.as_bytes()]);
        vec![
            concept(
                HAS_CONTEXT,
                &Code::dcm("121005", "Observer Type"),
                &Code::dcm("121007", "Device"),
            ),
            identifier(HAS_CONTEXT, &Code::dcm("121012", "Device Observer UID"), &device),
            words(HAS_CONTEXT, &Code::dcm("121013", "Device Observer Name"), name),
            words(HAS_CONTEXT, &Code::dcm("121014", "Device Observer Manufacturer"), name),
            words(
                HAS_CONTEXT,
                &Code::dcm("121015", "Device Observer Model Name"),
                &format!("{name} {version}"),
            ),
        ]
    }

    /// The measurements of one structure.
    fn group(&self, measurement: &Measurement<'_>) -> Item {
        let segment = measurement.segment;
        let tracking = self.shared.tracking(segment);
        let mut items = vec![
            words(HAS_CONTEXT, &Code::dcm("112039", "Tracking Identifier"), &segment.name),
            identifier(HAS_CONTEXT, &Code::dcm("112040", "Tracking Unique Identifier"), &tracking),
            concept(CONTAINS, &Code::sct("276214006", "Finding category"), &segment.category),
            concept(CONTAINS, &Code::dcm("121071", "Finding"), &segment.kind),
        ];
        if let Some(seg) = self.segmentation {
            items.extend(self.segment(seg, segment));
        }
        items.push(site(segment));
        items.extend(self.made_by());
        let unit = Code::new("mm3", "UCUM", "cubic millimeter");
        items.push(number(
            &Code::sct("118565006", "Volume"),
            measurement.volume_mm3,
            &unit,
            Vec::new(),
        ));
        let unit = Code::new("[hnsf'U]", "UCUM", "Hounsfield unit");
        let derivation = Code::dcm("121401", "Derivation");
        for (value, kind) in [
            (measurement.mean_hu, Code::sct("373098007", "Mean")),
            (measurement.deviation_hu, Code::sct("386136009", "Standard Deviation")),
        ] {
            let kind = concept(HAS_MODIFIER, &derivation, &kind);
            let name = Code::dcm("112031", "Attenuation Coefficient");
            items.push(number(&name, value, &unit, vec![kind]));
        }
        let template = if self.segmentation.is_some() { "1411" } else { "1501" };
        container(&Code::dcm("125007", "Measurement Group"), Some(template), items)
    }

    /// The segment, and the series it was found in.
    fn segment(&self, seg: &SegReference, segment: &Segment) -> [Item; 2] {
        let SegReference { written, encoding } = seg;
        let place = self.segments.partition_point(|before| before.id < segment.id);
        let number = super::seg::number(*encoding, place, segment);
        let mut instance = modules::instance(&written.class_uid, &written.instance_uid);
        instance.put(elements::unsigned(tags::REFERENCED_SEGMENT_NUMBER, number));
        let instance = sequence(tags::REFERENCED_SOP_SEQUENCE, vec![instance]);
        [
            content(CONTAINS, "IMAGE", &Code::dcm("121191", "Referenced Segment"), instance),
            identifier(
                CONTAINS,
                &Code::dcm("121232", "Source series for segmentation"),
                &self.about.source.series_uid,
            ),
        ]
    }

    /// Name, version and models (TID 4019).
    fn made_by(&self) -> Vec<Item> {
        let Algorithm { name, version, .. } = self.about.algorithm;
        let mut items = vec![
            words(HAS_MODIFIER, &Code::dcm("111001", "Algorithm Name"), name),
            words(HAS_MODIFIER, &Code::dcm("111003", "Algorithm Version"), version),
        ];
        let models = self.about.algorithm.parameters();
        if !models.is_empty() {
            items.push(words(HAS_MODIFIER, &Code::dcm("111002", "Algorithm Parameters"), &models));
        }
        items
    }
}

/// Where, and on which side.
fn site(segment: &Segment) -> Item {
    let site = segment.region.as_ref().unwrap_or(&segment.kind);
    let side = if segment.region.is_some() { &segment.region_modifier } else { &segment.modifier };
    let mut item = concept(HAS_MODIFIER, &Code::sct("363698007", "Finding Site"), site);
    if let Some(side) = side {
        let side = concept(HAS_MODIFIER, &Code::sct("272741003", "Laterality"), side);
        item.put(sequence(tags::CONTENT_SEQUENCE, vec![side]));
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn measures_are_those_of_the_voxels() {
        let voxels = Array3::from_shape_vec([2, 1, 3], vec![1.0, 2.0, 3.0, 5.0, 7.0, 100.0]);
        let labels = Array3::from_shape_vec([2, 1, 3], vec![1_u8, 1, 0, 1, 3, 0]);
        let (voxels, labels) = (voxels.expect("six"), labels.expect("six"));
        let grid = Grid {
            shape: [2, 1, 3],
            spacing: [2.0, 1.0, 0.5],
            affine: crate::Affine([[0.0; 4]; 3]),
        };
        let segments = [1, 2, 3, 9].map(|id| Segment::named(id, "x"));
        let segments: Vec<&Segment> = segments.iter().collect();
        let slice = |k| voxels.index_axis(Axis(0), k).to_owned();
        let measured = measure(slice, labels.view(), &segments, &grid);
        let ids: Vec<u16> = measured.iter().map(|m| m.segment.id).collect();
        assert_eq!(ids, [1, 3], "absent ones are not measured");
        assert_eq!(measured[0].volume_mm3, 3.0);
        assert!((measured[0].mean_hu - 8.0 / 3.0).abs() < 1e-12);
        assert!((measured[0].deviation_hu - (26.0_f64 / 9.0).sqrt()).abs() < 1e-12);
        assert_eq!(measured[1].deviation_hu, 0.0);
    }
}
