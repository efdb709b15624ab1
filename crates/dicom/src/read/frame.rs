//! One frame of an image: where it lies, and what tells it from others.

use super::dataset::{DataSet, decimals};
use super::image::{Layout, code};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use fastnnunet_model::Mismatch;

/// One frame: a slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    /// First voxel's centre in patient millimetres (left, posterior, superior), and as written.
    pub(crate) position: [f64; 3],
    pub(crate) position_text: String,
    /// Directions in which columns, then rows, are counted; unit vectors, at right angles.
    pub(crate) orientation: [[f64; 3]; 2],
    pub(crate) orientation_text: String,
    /// Millimetres between rows, then columns, and as written.
    pub(crate) spacing: [f64; 2],
    pub(crate) spacing_text: String,
    pub(crate) thickness: Option<f64>,
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    pub(crate) keys: Keys,
}

/// What may tell one reconstruction or acquisition from another, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) image_type: String,
    pub(crate) kernel: String,
    pub(crate) acquisition: String,
    pub(crate) acquisition_time: String,
    pub(crate) temporal_position: String,
    pub(crate) content_time: String,
    pub(crate) voltage: String,
    pub(crate) contrast: String,
    pub(crate) thickness: String,
}

/// Attributes of a frame: its own, those all frames share, or the root's in a single-frame file.
pub(super) struct Groups<'a> {
    pub(super) root: &'a DataSet,
    pub(super) shared: Option<&'a DataSet>,
    pub(super) frame: Option<&'a DataSet>,
}

impl<'a> Groups<'a> {
    /// The item of a functional group, or the root where there are no groups.
    fn group(&self, group: Tag) -> Option<&'a DataSet> {
        if self.frame.is_none() && self.shared.is_none() {
            return Some(self.root);
        }
        let of = |set: Option<&'a DataSet>| set.and_then(|set| set.item(group));
        of(self.frame).or_else(|| of(self.shared))
    }

    fn text(&self, group: Tag, tag: Tag) -> Option<String> {
        self.group(group)
            .and_then(|item| item.text(tag))
            .or_else(|| self.converted(tag))
            .or_else(|| self.root.text(tag))
    }

    /// What a conversion from single frames had no group for.
    fn converted(&self, tag: Tag) -> Option<String> {
        let of = |set: Option<&'a DataSet>, group| set?.item(group)?.text(tag);
        of(self.frame, tags::UNASSIGNED_PER_FRAME_CONVERTED_ATTRIBUTES_SEQUENCE)
            .or_else(|| of(self.shared, tags::UNASSIGNED_SHARED_CONVERTED_ATTRIBUTES_SEQUENCE))
    }
}

impl Frame {
    pub(super) fn of(
        groups: &Groups<'_>,
        layout: &Layout,
        notes: &mut Vec<&'static str>,
    ) -> Result<Self, Mismatch> {
        let required = |group, tag, name: &str| {
            groups
                .text(group, tag)
                .ok_or_else(|| Mismatch::new(format!("a slice without {name}"), "one for each"))
        };
        let position_text = required(
            tags::PLANE_POSITION_SEQUENCE,
            tags::IMAGE_POSITION_PATIENT,
            "ImagePositionPatient",
        )?;
        let orientation_text = required(
            tags::PLANE_ORIENTATION_SEQUENCE,
            tags::IMAGE_ORIENTATION_PATIENT,
            "ImageOrientationPatient",
        )?;
        let spacing_text =
            required(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING, "PixelSpacing")?;
        let (slope, intercept) = rescale(groups, layout, notes)?;
        let thickness = groups
            .text(tags::PIXEL_MEASURES_SEQUENCE, tags::SLICE_THICKNESS)
            .and_then(|text| decimals(&text)?.first().copied())
            .filter(|thickness| *thickness > 0.0);
        Ok(Self {
            position: numbers(&position_text, "ImagePositionPatient")?,
            orientation: directions(numbers(&orientation_text, "ImageOrientationPatient")?)?,
            spacing: spacing(numbers(&spacing_text, "PixelSpacing")?)?,
            thickness,
            slope,
            intercept,
            keys: Keys::of(groups, thickness.map_or_else(String::new, |mm| format!("{mm:.2}"))),
            position_text,
            orientation_text,
            spacing_text,
        })
    }
}

impl Keys {
    fn of(groups: &Groups<'_>, thickness: String) -> Self {
        let text = |group, tag| groups.text(group, tag).unwrap_or_default();
        let frame_type = groups.group(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE);
        let image_type = frame_type
            .and_then(|item| item.text(tags::FRAME_TYPE))
            .or_else(|| groups.root.text(tags::IMAGE_TYPE));
        let content = tags::FRAME_CONTENT_SEQUENCE;
        let either = |framed, single| {
            groups
                .group(content)
                .and_then(|item| item.shown(framed))
                .unwrap_or_else(|| text(content, single))
        };
        Self {
            image_type: image_type.unwrap_or_default(),
            kernel: text(tags::CT_RECONSTRUCTION_SEQUENCE, tags::CONVOLUTION_KERNEL),
            acquisition: either(tags::FRAME_ACQUISITION_NUMBER, tags::ACQUISITION_NUMBER),
            acquisition_time: either(tags::FRAME_ACQUISITION_DATE_TIME, tags::ACQUISITION_TIME),
            temporal_position: either(
                tags::TEMPORAL_POSITION_INDEX,
                tags::TEMPORAL_POSITION_IDENTIFIER,
            ),
            content_time: text(content, tags::CONTENT_TIME),
            voltage: text(tags::CTX_RAY_DETAILS_SEQUENCE, tags::KVP),
            contrast: text(content, tags::CONTRAST_BOLUS_AGENT),
            thickness,
        }
    }
}

/// `N` numbers.
fn numbers<const N: usize>(text: &str, name: &str) -> Result<[f64; N], Mismatch> {
    decimals(text)
        .and_then(|values| values.try_into().ok())
        .ok_or_else(|| Mismatch::new(format!("a malformed {name}"), format!("{N} numbers")))
}

fn spacing(spacing: [f64; 2]) -> Result<[f64; 2], Mismatch> {
    if spacing.iter().all(|mm| (1e-4..1e4).contains(mm)) {
        return Ok(spacing);
    }
    let [rows, columns] = spacing;
    Err(Mismatch::new(format!("pixels {rows} x {columns} mm apart"), "positive distances"))
}

/// Unit vectors at right angles, exactly so.
fn directions(written: [f64; 6]) -> Result<[[f64; 3]; 2], Mismatch> {
    let [a, b, c, d, e, f] = written;
    let (row, column) = ([a, b, c], [d, e, f]);
    let length = |v: [f64; 3]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let dot = row.iter().zip(column).map(|(x, y)| x * y).sum::<f64>();
    let unit = |v| (length(v) - 1.0).abs() < 0.01;
    if !unit(row) || !unit(column) || dot.abs() > 0.01 {
        return Err(Mismatch::new(
            "an ImageOrientationPatient that is no pair of directions",
            "unit vectors at right angles",
        ));
    }
    Ok([row.map(|x| x / length(row)), column.map(|x| x / length(column))])
}

/// Slope and intercept to Hounsfield units.
fn rescale(
    groups: &Groups<'_>,
    layout: &Layout,
    notes: &mut Vec<&'static str>,
) -> Result<(f64, f64), Mismatch> {
    let group = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
    let number = |tag| groups.text(group, tag).and_then(|text| decimals(&text)?.first().copied());
    let kind = groups.text(group, tags::RESCALE_TYPE);
    if let Some(kind) = kind.as_deref().filter(|kind| !matches!(*kind, "HU" | "US" | "HU_MOD")) {
        let kind = code(kind).unwrap_or("of no code");
        return Err(Mismatch::new(format!("values of type {kind}"), "Hounsfield units"));
    }
    let (slope, intercept) = (number(tags::RESCALE_SLOPE), number(tags::RESCALE_INTERCEPT));
    if slope == Some(0.0) {
        return Err(Mismatch::new("a rescale slope of zero", "another one"));
    }
    if intercept.is_none() && !layout.signed {
        return Err(Mismatch::new(
            "no rescale and values that cannot be negative",
            "rescale slope and intercept to Hounsfield units",
        ));
    }
    if slope.is_none() || intercept.is_none() {
        notes.push(match (slope, intercept) {
            (None, None) => "no rescale: signed values taken as Hounsfield units",
            _ => "no complete rescale: slope 1, intercept 0 where missing",
        });
    }
    Ok((slope.unwrap_or(1.0), intercept.unwrap_or(0.0)))
}
