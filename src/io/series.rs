//! Stage 1 for DICOM: series to images.
//!
//! `fastnnunet_dicom` finds and reads series; what leaves here is a [`Scan`] like that of a file:
//! Hounsfield units on the grid the slices lie on, right, anterior and superior counted as in NIfTI.

use super::voxels::Stats;
use super::{Outline, ReadOptions, Rules, Scan, SourceHeader, meta_image, nrrd, plausibility};
use crate::files::{self, Access};
use crate::volume::{Affine, Grid, Scale, Voxels};
use crate::{Error, Result};
use fastnnunet_dicom::{self as dicom, LoadOptions, ScanOptions, Series};
use rayon::prelude::*;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Whether `path` is to be read as DICOM: a folder, a zip, or a file that does not begin as NIfTI does
/// and holds an object.
///
/// # Errors
///
/// [`Error::Read`] if it cannot be opened.
pub fn is_dicom(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(true);
    }
    // What cannot be opened is told by whoever reads it.
    let Ok(mut opened) = files::open(path) else { return Ok(false) };
    let mut head = Vec::with_capacity(132);
    let read = opened.file.by_ref().take(132).read_to_end(&mut head);
    read.map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let begins = |magic: &[u8]| head.starts_with(magic);
    if head.ends_with(b"DICM") || begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        return Ok(true);
    }
    let sizes = [348_i32, 540];
    let nifti = sizes.iter().any(|n| begins(&n.to_le_bytes()) || begins(&n.to_be_bytes()));
    let lines = begins(&nrrd::MAGIC[..4]) || meta_image::STARTS.iter().any(|start| begins(start));
    if nifti || lines || begins(&[0x1f, 0x8b]) {
        return Ok(false);
    }
    // Files without preamble are told by their elements.
    Ok(!dicom::scan(path, &ScanOptions::default())?.series.is_empty())
}

/// Reads the one suitable series below `path`.
pub(super) fn open(path: &Path, options: &ReadOptions) -> Result<Scan> {
    let catalog = dicom::scan(path, &ScanOptions::default())?;
    Scan::open_series(catalog.pick(None)?, options)
}

/// What the headers of the one suitable series below `path` say.
pub(super) fn outline(path: &Path) -> Result<Outline> {
    let catalog = dicom::scan(path, &ScanOptions::default())?;
    let series = catalog.pick(None)?;
    let (Some(shape), Some(spacing)) = (series.shape, series.spacing) else {
        let found = "a series without a volume".to_owned();
        return Err(Error::Input { path: path.to_path_buf(), found, expected: "one".to_owned() });
    };
    let [z, y, x] = spacing;
    let affine = Affine([[-x, 0.0, 0.0, 0.0], [0.0, -y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
    let count: u64 = shape.iter().map(|&n| n as u64).product();
    // Slices have integers of 16 bits, as a rule.
    Ok(Outline { grid: Grid { shape, spacing, affine }, bytes: 2 * count })
}

impl Scan {
    /// Reads a series of a [`Catalog`](dicom::Catalog) as a volume, within the memory that `options`
    /// allow for reading it.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the series is refused, its pixels are damaged or its values are not finite,
    /// [`Error::Read`] if a file cannot be read, and [`Error::Memory`] if it would take too much.
    pub fn open_series(series: &Series, options: &ReadOptions) -> Result<Self> {
        let max_bytes = options.max_bytes;
        let loaded = series.load(&LoadOptions { max_bytes })?;
        let voxels = match loaded.voxels {
            dicom::Voxels::I16 { stored, slope, intercept } => {
                Voxels::I16(stored, Scale { slope, intercept })
            }
            dicom::Voxels::F32(values) => Voxels::F32(values),
        };
        let stats = stats(&voxels);
        if stats.not_finite > 0 {
            return Err(Error::Input {
                path: series.path().to_path_buf(),
                found: format!("{} voxels that are not finite", stats.not_finite),
                expected: "finite Hounsfield units".into(),
            });
        }
        let mut warnings = loaded.notes;
        warnings.extend(plausibility::doubt(&stats));
        let fastnnunet_dicom::Grid { shape, spacing, affine } = loaded.grid;
        let grid = Grid { shape, spacing, affine: Affine(affine.0) };
        grid.check().map_err(|what| Error::input(series.path(), what))?;
        let access = series.files().into_iter().map(Access::of_path).reduce(Access::and);
        Ok(Self {
            read_bytes: series.bytes().unwrap_or(0),
            voxels,
            affine: grid.affine,
            header: SourceHeader::for_grid(&grid),
            grid,
            warnings,
            sha256: Some(loaded.sha256),
            access: access.unwrap_or_default(),
            source: Some(Arc::new(loaded.source)),
            rules: Rules::Itk,
            is_ambiguous: false,
        })
    }
}

fn stats(voxels: &Voxels) -> Stats {
    let planes = (0..voxels.shape()[0]).into_par_iter().map(|number| {
        let mut stats = Stats::new();
        let plane = voxels.view().slice(number);
        // An array of its own is contiguous.
        if let Some(values) = plane.as_slice() {
            stats.add(values);
        }
        stats
    });
    planes.reduce(Stats::new, Stats::and)
}

impl From<dicom::Error> for Error {
    fn from(error: dicom::Error) -> Self {
        match error {
            dicom::Error::Usage { what, found, expected } => Self::Usage { what, found, expected },
            dicom::Error::Read { path, source } => Self::Read { path, source },
            dicom::Error::Input { path, found, expected } => Self::Input { path, found, expected },
            dicom::Error::Memory { what, need_bytes, limit_bytes } => {
                Self::Memory { what: what.to_owned(), need_bytes, limit_bytes }
            }
            // The enum grows with its crate.
            other => Self::volume(other.to_string(), "a readable series"),
        }
    }
}
