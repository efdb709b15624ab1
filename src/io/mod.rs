//! Stages 1 and 13: NIfTI files to volumes, and label maps to NIfTI files.
//!
//! [`load`] reads a NIfTI-1 or NIfTI-2 file, plain or gzip-compressed, into `f32`
//! Hounsfield units with the geometry that ITK's reader, and therefore nnU-Net, would
//! take from it. [`save_labels`] writes a label map that lies exactly on the loaded
//! image: same shape, affine, codes and units. Arrays are `[z, y, x]`; the file's
//! `x, y, z` order appears nowhere outside this module.
//!
//! A file is never trusted: its sizes are checked against its length before memory is
//! allocated, and whatever it holds ends in a [`Scan`] or an
//! [`Error`](crate::Error).

mod failure;
mod geometry;
mod gzip;
mod header;
mod limits;
mod nibabel;
mod plausibility;
mod save;
mod stream;
mod svd;
mod voxels;

pub use header::{NiftiVersion, SourceHeader};
pub use limits::Limits;
pub use save::{LabelArray, check_writable, save_labels};
pub(crate) use save::{check_place, write_whole};

use crate::Result;
use crate::model::Reader;
use crate::volume::{Affine, Volume};
use failure::Failure;
use ndarray::Array3;
use std::path::Path;
use stream::Stream;

/// An image as read from a file.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Voxels in the file's units, Hounsfield units for a CT, on the file's own grid.
    pub volume: Volume<f32>,
    /// Voxel index to patient millimetres, as the file has it. That of the volume's grid is the
    /// same, but for a reader that turns the image to right, anterior, superior axes: then its
    /// axes are the ones nearest to these.
    pub affine: Affine,
    /// What a label map of this image copies.
    pub header: SourceHeader,
    /// Sentences about what is odd but usable; empty for an ordinary CT.
    pub warnings: Vec<String>,
}

/// Reads a CT volume from a `.nii` or `.nii.gz` file.
///
/// Compression is recognized by content. Values are `raw * slope + intercept`, computed
/// in `f64` and then rounded to `f32`. As in ITK, a slope that is zero or not finite
/// counts as one (the intercept still applies), and an intercept that is not finite as
/// zero. The grid follows ITK's reader: spacing from `pixdim` in millimetres, directions
/// and origin from the sform or the qform; nibabel may choose the other one.
///
/// # Errors
///
/// [`Error::Read`](crate::Error::Read) if the file cannot be opened or read,
/// [`Error::Input`](crate::Error::Input) if it is not a
/// single-file three-dimensional NIfTI volume of finite real numbers on an orthogonal
/// grid, or is damaged, and [`Error::Memory`](crate::Error::Memory) if its voxels would exceed
/// `limits`.
pub fn load(path: &Path, limits: Limits) -> Result<Scan> {
    load_as(path, None, limits)
}

/// As [`load`], with the geometry that one of nnU-Net's readers takes from the file.
///
/// Readers built on nibabel take spacing from `pixdim` without units, directions from the sform
/// or else the qform, orthogonal or not, and apply no scaling where the slope is zero. `None`
/// and the readers built on ITK are [`load`].
///
/// # Errors
///
/// As [`load`].
pub fn load_as(path: &Path, reader: Option<Reader>, limits: Limits) -> Result<Scan> {
    let nibabel = matches!(reader, Some(Reader::Nibabel | Reader::NibabelReorient));
    let turned = reader == Some(Reader::NibabelReorient);
    read(path, nibabel.then_some(turned), limits).map_err(|failure| failure.at(path))
}

/// `nibabel` says whether its rules apply, and then whether the image will be turned to RAS.
fn read(path: &Path, nibabel: Option<bool>, limits: Limits) -> Result<Scan, Failure> {
    let mut stream = Stream::open(path)?;
    let mut header = header::read(&mut stream)?;
    let mut warnings = Vec::new();
    if nibabel.is_none() {
        warnings.extend(header.source.fill_empty_axes());
    }
    let shape = header.source.shape()?;
    let geometry = match nibabel {
        None => geometry::resolve(&header.source, shape)?,
        Some(turned) => {
            nibabel::unscaled(&mut header);
            nibabel::resolve(&header.source, shape, turned)?
        }
    };
    let count = limits::voxel_count(&header, shape, &stream, limits)?;

    stream::skip(&mut stream, header.data_offset - header.bytes_read)?;
    let (values, stats) = voxels::decode(&mut stream, count, header.encoding)?;
    if stats.not_finite > 0 {
        return Err(Failure::unusable(
            format!("{} of {count} voxels that are not finite", stats.not_finite),
            "finite Hounsfield units",
        ));
    }

    warnings.extend(geometry.warnings);
    warnings.extend(plausibility::doubt(&stats));
    if stream::ends_late(&mut stream)? {
        warnings.push("the file goes on after the last voxel; the rest is ignored".to_owned());
    }
    let data = Array3::from_shape_vec(shape, values)
        .map_err(|_| Failure::unusable("fewer voxels than announced", "a complete file"))?;
    let volume = Volume { data, grid: geometry.grid };
    Ok(Scan { volume, affine: geometry.affine, header: header.source, warnings })
}
