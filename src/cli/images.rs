//! One image of a case: a NIfTI file or a DICOM series. Whether the program reads DICOM is known here
//! and in `series.rs`, nowhere else.

use fastnnunet::io::ReadOptions;
use fastnnunet::{Result, Scan};
use std::path::{Path, PathBuf};

#[cfg(feature = "dicom")]
use fastnnunet::dicom::Series;

/// What a [`Scan`] is read from.
#[derive(Clone, Debug)]
pub(crate) enum Image {
    /// A NIfTI file.
    File(PathBuf),
    /// A series below a path.
    #[cfg(feature = "dicom")]
    Series(Box<Series>),
}

impl Image {
    pub(crate) fn open(&self, options: &ReadOptions) -> Result<Scan> {
        match self {
            Self::File(path) => Scan::open_with(path, options),
            #[cfg(feature = "dicom")]
            Self::Series(series) => Scan::open_series(series, options),
        }
    }

    /// What the user named, or found in a folder that the user named.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            #[cfg(feature = "dicom")]
            Self::Series(series) => series.path(),
        }
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Self::File(path) => vec![path],
            #[cfg(feature = "dicom")]
            Self::Series(series) => series.files(),
        }
    }

    /// What picks the series, if it is one.
    pub(crate) fn series_id(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            #[cfg(feature = "dicom")]
            Self::Series(series) => Some(series.id()),
        }
    }

    /// A name for the series that tells nothing about a patient, if it is one.
    pub(crate) fn series_name(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            #[cfg(feature = "dicom")]
            Self::Series(series) => Some(series.name.clone()),
        }
    }

    /// A line that names it.
    pub(crate) fn display(&self) -> String {
        match self.series_id().filter(|id| !id.is_empty()) {
            Some(id) => format!("{} (series {id})", self.path().display()),
            None => self.path().display().to_string(),
        }
    }
}

impl From<PathBuf> for Image {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// What a path of the user's holds.
#[cfg_attr(
    not(feature = "dicom"),
    expect(dead_code, reason = "without DICOM there are files only")
)]
pub(crate) enum Found {
    /// Something that is read as NIfTI.
    File,
    /// One series.
    Series(Image),
    /// Studies: the name and the series of each, or why it has none to use.
    Studies(Vec<(String, Result<Image>)>),
}

/// Looks into a path. `series` names one of several; `doubts` are what the user should know.
#[cfg(feature = "dicom")]
pub(crate) fn look(path: &Path, series: Option<&str>, doubts: &mut Vec<String>) -> Result<Found> {
    let Some(found) = super::series::Below::find(path)? else { return Ok(Found::File) };
    doubts.extend(found.doubt());
    match (series, found.studies()) {
        (None, Some(studies)) => Ok(Found::Studies(studies)),
        _ => found.pick(series).map(Found::Series),
    }
}

/// Without DICOM, every path is one of NIfTI.
#[cfg(not(feature = "dicom"))]
#[expect(clippy::unnecessary_wraps, reason = "looking for series may fail")]
pub(crate) fn look(_: &Path, _: Option<&str>, _: &mut Vec<String>) -> Result<Found> {
    Ok(Found::File)
}

/// Whether there is DICOM in a folder of NIfTI or below it, as far as it can be read.
pub(crate) fn has_dicom(folder: &Path) -> bool {
    #[cfg(feature = "dicom")]
    return fastnnunet::dicom::holds_dicom(folder, &fastnnunet::dicom::Limits::default())
        .unwrap_or(false);
    #[cfg(not(feature = "dicom"))]
    {
        let _ = folder;
        false
    }
}
