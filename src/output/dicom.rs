//! Objects about the series that a result was made of; docs/dicom.md says what is in them.

use super::{OutputType, Writer};
use crate::files::{self, Target};
use crate::io::Scan;
use crate::model::{Label, Side};
use crate::segmenter::Segmentation;
use crate::volume::LabelMap;
use crate::{Error, Mismatch, Result};
use fastnnunet_dicom::Source;
use fastnnunet_dicom::write::{
    self as dicom, About, Algorithm, Code, Fresh, Labeling, Model, ObjectOptions, Picture,
    SegEncoding, SegReference, Segment,
};
use std::io;
use std::path::{Path, PathBuf};

/// What is chosen for objects, and what was written that others refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    encoding: SegEncoding,
    options: ObjectOptions,
    segmentation: Option<SegReference>,
    /// A segmentation that is there instead of one to be written.
    present: Option<PathBuf>,
}

impl<'a> Writer<'a> {
    /// How a DICOM segmentation stores labels; [`SegEncoding::Binary`] by default.
    #[must_use]
    pub fn seg_encoding(mut self, encoding: SegEncoding) -> Self {
        self.dicom.encoding = encoding;
        self
    }

    /// Identifiers and date of this very run in DICOM objects. By default identifiers are those of
    /// the content, and dates the series', so that the same result gives the same bytes.
    #[must_use]
    pub fn fresh(mut self, fresh: Fresh) -> Self {
        self.dicom.options.fresh = Some(fresh);
        self
    }

    /// A segmentation of this very result that is there already: a report refers to it as to one that
    /// this writer wrote. Whether it is of this result is seen before a report is written.
    #[must_use]
    pub fn present_seg(mut self, path: impl Into<PathBuf>) -> Self {
        self.dicom.present = Some(path.into());
        self
    }

    pub(super) fn write_object(&mut self, kind: OutputType, target: Target<'_>) -> Result<()> {
        let result = self.result;
        let source = self.source(kind)?;
        let (algorithm, options) = (self.algorithm(kind)?, self.dicom.options.clone());
        let about = About { source, algorithm: &algorithm, options: &options };
        if kind == OutputType::Sc {
            let drawn = result.preview(self.drawn(kind)?, &self.title);
            let [width, height] = [drawn.width(), drawn.height()].map(|n| n as u16);
            let picture = Picture { width, height, rgb: drawn.as_bytes() };
            return target.write(|file| about.write_sc(picture, file)).map(drop);
        }
        let segments = segments(result);
        match &result.labels {
            LabelMap::U8(labels) => {
                self.write_labels(kind, &Labeling::new(about, labels.view(), &segments)?, target)
            }
            LabelMap::U16(labels) => {
                self.write_labels(kind, &Labeling::new(about, labels.view(), &segments)?, target)
            }
        }
    }

    /// Writes one of the objects that are made of labels.
    fn write_labels<T: dicom::Label>(
        &mut self,
        kind: OutputType,
        labeling: &Labeling<'_, T>,
        target: Target<'_>,
    ) -> Result<()> {
        match kind {
            OutputType::RtStruct => target.write(|file| labeling.write_rtstruct(file)).map(drop),
            OutputType::Sr => {
                let voxels = self.drawn(kind)?.voxels().view();
                let (slice, seg) = (|k| voxels.slice(k), self.referred(labeling)?);
                target.write(|file| labeling.write_sr(slice, seg.as_ref(), file)).map(drop)
            }
            _ => {
                let encoding = self.dicom.encoding;
                let written = target.write(|file| labeling.write_seg(encoding, file))?;
                self.dicom.segmentation = Some(SegReference { written, encoding });
                Ok(())
            }
        }
    }

    /// The segmentation that a report refers to: the one that was written, or the one that is there.
    fn referred<T: dicom::Label>(
        &self,
        labeling: &Labeling<'_, T>,
    ) -> Result<Option<SegReference>> {
        let Some(path) = &self.dicom.present else { return Ok(self.dicom.segmentation.clone()) };
        // Written to nowhere it says which identifiers it has.
        let encoding = self.dicom.encoding;
        let written = labeling.write_seg(encoding, io::empty());
        let written = written.map_err(|source| Error::Write { path: path.clone(), source })?;
        let seg = SegReference { written, encoding };
        let expected = "the segmentation of this result, which the report refers to";
        match files::open(path).map(|mut opened| seg.is_in(&mut opened.file)) {
            Ok(true) => Ok(Some(seg)),
            Ok(false) => Err(Error::input(path, Mismatch::new("another object", expected))),
            Err(found) => Err(Error::input(path, found.instead_of(expected))),
        }
    }

    fn source(&self, kind: OutputType) -> Result<&'a Source> {
        self.result.series().ok_or_else(|| {
            let found = format!("{kind} of an image that is no DICOM series");
            Error::usage("output type", found, "a type that needs no series")
        })
    }

    /// What made the result.
    fn algorithm(&self, kind: OutputType) -> Result<Algorithm> {
        let mut models = Vec::new();
        for network in &self.result.about.networks {
            if network.sha256.is_empty() {
                let found = format!("{kind} of models without digests");
                return Err(Error::usage("output type", found, "Options::digests"));
            }
            // Where a trained folder lies is nobody's business but its owner's.
            let name = Path::new(&network.name).file_name().unwrap_or_default().to_string_lossy();
            let model = |sha256: &String| Model {
                name: name.to_string(),
                sha256: sha256.clone(),
                license: network.license.clone(),
                source: network.source.clone(),
            };
            models.extend(network.sha256.iter().map(model));
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let task = self.result.about.name.to_string();
        Ok(Algorithm { name: "fastnnunet".to_owned(), version, task, models })
    }

    fn drawn(&self, kind: OutputType) -> Result<&'a Scan> {
        let found = || format!("{kind} without the image that the result was made of");
        self.image.ok_or_else(|| Error::usage("output type", found(), "Writer::image"))
    }
}

/// The structures that can occur, and any other label that does, by its number.
fn segments(result: &Segmentation) -> Vec<Segment> {
    let mut segments: Vec<Segment> = result.structures.iter().map(segment).collect();
    for found in result.found() {
        if segments.iter().all(|segment| segment.id != found.id) {
            segments.push(Segment::named(found.id, &found.name));
        }
    }
    segments
}

/// A label with its codes. Of one without, no more than its name is known.
fn segment(label: &Label) -> Segment {
    let color = label.color.as_deref().and_then(crate::model::color::parse);
    let named = Segment { color, ..Segment::named(label.id, &label.name) };
    let (Some(snomed), Some(meaning)) = (&label.snomed, &label.meaning) else { return named };
    let side = label.side.map(|side| match side {
        Side::Left => Code::left(),
        Side::Right => Code::right(),
    });
    let category = match &label.category {
        Some(category) => Code::sct(&category.snomed, &category.meaning),
        None => Code::anatomical_structure(),
    };
    let region = label.region.as_ref().map(|region| Code::sct(&region.snomed, &region.meaning));
    let (modifier, region_modifier) = if region.is_some() { (None, side) } else { (side, None) };
    Segment {
        category,
        kind: Code::sct(snomed, meaning),
        modifier,
        region,
        region_modifier,
        ..named
    }
}
