//! What lies below a path: series, each with a verdict.

mod group;
mod json;
mod scan;
pub(crate) mod stack;

pub use scan::{ScanOptions, holds_dicom, scan};

use crate::error::{Error, Result};
pub use crate::read::image::Texts;
use crate::read::place::Places;
use fastnnunet_model::Mismatch;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether a series is read as a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it is.
    Suitable,
    /// With these corrections, a sentence each.
    Corrected(Vec<String>),
    /// Not at all, and why.
    Refused {
        /// What the series is like.
        found: String,
        /// What would have been usable.
        expected: String,
    },
}

/// One series, or one part of a series that holds several stacks.
#[derive(Clone, Debug)]
pub struct Series {
    /// Study instance UID; empty if the files have none.
    pub study_uid: String,
    /// Series instance UID; empty if the files have none.
    pub series_uid: String,
    /// Number of this part, from 1, where one UID stands for several stacks.
    pub part: Option<usize>,
    /// Digest of what identifies the series: a name that tells nothing about a patient.
    pub name: String,
    /// As that of [`name`](Self::name), for the study.
    pub study_name: String,
    /// Code of the modality; empty if the files have none, or anything else in its place.
    pub modality: String,
    /// SOP class UID.
    pub class_uid: String,
    /// Slices, as many as there are files or frames of it.
    pub slices: usize,
    /// Voxels per axis of the volume, `[z, y, x]`, if there is one.
    pub shape: Option<[usize; 3]>,
    /// Millimetres per voxel, `[z, y, x]`, if there is a volume.
    pub spacing: Option<[f64; 3]>,
    /// Plane of the slices: axial, coronal, sagittal or oblique.
    pub plane: Option<&'static str>,
    /// Convolution kernel, as far as it is a plain name.
    pub kernel: Option<String>,
    /// Whether a contrast agent is named.
    pub contrast: bool,
    /// Whether it can be read.
    pub verdict: Verdict,
    pub(crate) texts: Texts,
    pub(crate) stack: Option<stack::Stack>,
    pub(crate) places: Arc<Places>,
}

impl Series {
    /// What picks this series: its UID, and the number of the part if there are several.
    #[must_use]
    pub fn id(&self) -> String {
        match self.part {
            Some(part) => format!("{}:{part}", self.series_uid),
            None => self.series_uid.clone(),
        }
    }

    /// Whether it is read as a volume, as it is or corrected.
    #[must_use]
    pub fn is_suitable(&self) -> bool {
        !matches!(self.verdict, Verdict::Refused { .. })
    }

    /// Descriptions, which are free text and may name a patient.
    #[must_use]
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// The files that [`load`](Self::load) reads, each once: of a zip the archive. Empty if the series
    /// is refused.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let slices = self.stack.iter().flat_map(|stack| &stack.slices);
        let files: BTreeSet<&Path> =
            slices.map(|slice| self.places.path(slice.image.place)).collect();
        files.into_iter().collect()
    }

    /// The path that was scanned.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.places.root
    }

    pub(crate) fn refusal(&self) -> Option<Error> {
        let Verdict::Refused { found, expected } = &self.verdict else { return None };
        Some(Error::input(&self.places.root, Mismatch::new(found, expected)))
    }

    /// A line that tells it from others.
    fn summary(&self) -> String {
        let id =
            if self.series_uid.is_empty() { format!("(no UID) {}", self.name) } else { self.id() };
        let size = self.shape.map_or_else(String::new, |[z, y, x]| format!(", {x}x{y}x{z}"));
        let spacing = self.spacing.map_or_else(String::new, |mm| format!(" at {:.2} mm", mm[0]));
        let kernel = self.kernel.as_ref().map_or_else(String::new, |k| format!(", kernel {k}"));
        format!("{id}{size}{spacing}{kernel}")
    }
}

/// All series below a path, in order of study and series UID.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The path.
    pub path: PathBuf,
    /// The series.
    pub series: Vec<Series>,
    /// Files and zip entries that are not DICOM, or hold no series (a DICOMDIR).
    pub others: usize,
    /// Files that are DICOM and could not be followed to a series, and why.
    pub damaged: Vec<(PathBuf, String)>,
}

/// The series of one study.
#[derive(Clone, Debug)]
pub struct Study<'a> {
    /// Digest that names the study.
    pub name: &'a str,
    /// Its series.
    pub series: Vec<&'a Series>,
    path: &'a Path,
}

impl Study<'_> {
    /// The one suitable series of this study.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are several, and [`Error::Input`] if there is none.
    pub fn pick(&self) -> Result<&Series> {
        pick_of(&self.series, self.path)
    }
}

impl Catalog {
    /// The studies, in order.
    #[must_use]
    pub fn studies(&self) -> Vec<Study<'_>> {
        let mut studies: Vec<Study<'_>> = Vec::new();
        for series in &self.series {
            match studies.last_mut().filter(|study| study.name == series.study_name) {
                Some(study) => study.series.push(series),
                None => studies.push(Study {
                    name: &series.study_name,
                    series: vec![series],
                    path: &self.path,
                }),
            }
        }
        studies
    }

    /// The one suitable series, or the one that `id` names: a series UID, or a UID and the number
    /// of a part.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are several or no such one, and [`Error::Input`] with the reason
    /// if the one named, or all of them, cannot be read.
    pub fn pick(&self, id: Option<&str>) -> Result<&Series> {
        if let (true, Some((path, reason))) = (self.series.is_empty(), self.damaged.first()) {
            let found = format!("a damaged DICOM file ({reason})");
            return Err(Error::input(path, Mismatch::new(found, "a CT series")));
        }
        let Some(id) = id else {
            return pick_of(&self.series.iter().collect::<Vec<_>>(), &self.path);
        };
        let named: Vec<&Series> = self
            .series
            .iter()
            .filter(|series| series.id() == id || series.series_uid == id || series.name == id)
            .collect();
        if named.is_empty() {
            let found = format!("none named {}", plain(id));
            return Err(Error::usage("series", found, self.expected()));
        }
        pick_of(&named, &self.path)
    }

    fn expected(&self) -> String {
        let suitable: Vec<String> =
            self.series.iter().filter(|s| s.is_suitable()).map(Series::summary).collect();
        match suitable.len() {
            0 => "a suitable series, of which there is none".into(),
            _ => format!("one of: {}", suitable.join("; ")),
        }
    }
}

/// What a user typed, short and without control characters.
fn plain(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn pick_of<'a>(series: &[&'a Series], path: &Path) -> Result<&'a Series> {
    let suitable: Vec<&&Series> = series.iter().filter(|series| series.is_suitable()).collect();
    match suitable[..] {
        [one] => Ok(one),
        [] => Err(none_of(series, path)),
        _ => {
            let list: Vec<String> = suitable.iter().map(|series| series.summary()).collect();
            let found = format!("{} suitable series: {}", list.len(), list.join("; "));
            Err(Error::usage("series", found, "one, or the UID of the one to use"))
        }
    }
}

/// Why there is none: the reason of the only one, or of the largest that is a CT.
fn none_of(series: &[&Series], path: &Path) -> Error {
    let ct = series.iter().filter(|series| series.modality == "CT");
    let likely = ct.max_by_key(|series| series.slices).or(series.first());
    likely.and_then(|series| series.refusal()).unwrap_or_else(|| {
        let what = if path.is_dir() { "a folder" } else { "a file" };
        Error::input(path, Mismatch::new(format!("{what} without DICOM images"), "a CT series"))
    })
}
