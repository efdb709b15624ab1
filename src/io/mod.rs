//! Stages 1 and 13: files and DICOM series to volumes, and label maps to files.
//!
//! [`Scan::open`] reads a NIfTI-1 or NIfTI-2 file, plain or gzip-compressed, a NRRD or a `MetaImage` into Hounsfield
//! units with the geometry that ITK's reader, and therefore nnU-Net, would take from it; or the one
//! CT series of a DICOM file, folder or zip.
//! [`save_labels`] writes a label map that lies exactly on that image: same shape, affine, codes
//! and units. Arrays are `[z, y, x]`; the file's `x, y, z` order appears nowhere outside this
//! module.
//!
//! A file is never trusted: its sizes are checked against its length before memory is
//! allocated, and whatever it holds ends in a [`Scan`] or an
//! [`Error`].

mod failure;
mod geometry;
mod gzip;
mod header;
mod label_table;
mod limits;
mod lines;
mod masks;
mod meta_image;
mod nibabel;
mod nrrd;
mod plausibility;
mod save;
#[cfg(feature = "dicom")]
mod series;
mod stream;
mod svd;
mod voxels;

pub use header::{NiftiVersion, SourceHeader};
pub use limits::ReadOptions;
pub(crate) use masks::{MASK, check_folder, save_masks, structure_files};
pub(crate) use meta_image::save_meta_image;
pub(crate) use nrrd::save_nrrd;
pub use save::{LabelArray, save_labels};
pub(crate) use save::{NIFTI_ENDINGS, save_labels_to};
#[cfg(feature = "dicom")]
pub use series::is_dicom;

use crate::files::Access;
use crate::model::Reader;
use crate::volume::{Affine, Grid, VoxelView, Voxels};
use crate::{Error, Result};
use failure::Failure;
use ndarray::Array3;
use nibabel::Turned;
use std::path::Path;
#[cfg(feature = "dicom")]
use std::sync::Arc;
use stream::Stream;

/// An image with the place it has in the patient: what is segmented.
///
/// It keeps the voxels in the file's own number type and nothing of the file's free text.
#[derive(Clone, Debug)]
pub struct Scan {
    voxels: Voxels,
    grid: Grid,
    affine: Affine,
    header: SourceHeader,
    warnings: Vec<String>,
    sha256: Option<String>,
    access: Access,
    /// What objects about the series refer to, if it is one.
    #[cfg(feature = "dicom")]
    source: Option<Arc<fastnnunet_dicom::Source>>,
    /// Bytes that reading it held at most.
    read_bytes: u64,
    /// Whose rules the geometry was read by.
    rules: Rules,
    /// Whether the file gives no factor, which readers take differently, and an intercept.
    is_ambiguous: bool,
}

/// Whose reader takes what from a NIfTI header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Itk,
    Nibabel(Turned),
}

impl Rules {
    fn of(reader: Option<Reader>) -> Self {
        match reader {
            Some(Reader::Nibabel) => Self::Nibabel(Turned::No),
            Some(Reader::NibabelReorient) => Self::Nibabel(Turned::Closest),
            Some(Reader::TotalSegmentator) => Self::Nibabel(Turned::ByAffine),
            None | Some(Reader::SimpleItk | Reader::SimpleItkReorient) => Self::Itk,
        }
    }
}

/// What the header of an image says: where it lies, and what its voxels will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The grid; of a DICOM series with the axes of a patient who lies on the back, wherever that is.
    pub grid: Grid,
    /// Bytes of the voxels once they are read.
    pub bytes: u64,
}

impl Outline {
    /// Reads as little of an image as tells it: the header of a file, those of the slices of a series.
    ///
    /// # Errors
    ///
    /// As [`Scan::open_with`], as far as headers show it.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        #[cfg(feature = "dicom")]
        if is_dicom(path)? {
            return series::outline(path);
        }
        let begun = begin(path, options).map_err(|failure| failure.at(path))?;
        let count: u64 = begun.shape.iter().map(|&n| n as u64).product();
        let bytes = count * begun.header.encoding.held_bytes() as u64;
        Ok(Self { grid: begun.geometry.grid, bytes })
    }
}

impl Scan {
    /// Reads a CT volume from a `.nii`, `.nii.gz`, `.nrrd` or `.mha` file, or from a DICOM file, folder or zip with one
    /// CT series in it (feature `dicom`; docs/dicom.md says what becomes of odd ones).
    ///
    /// Compression is recognized by content. Values are `stored * slope + intercept`, computed in
    /// `f64` and then rounded to `f32`. As in ITK, a slope that is zero or not finite counts as one
    /// (the intercept still applies), and an intercept that is not finite as zero. The grid
    /// follows ITK's reader: spacing from `pixdim` in millimetres, directions and origin from the
    /// sform or the qform; nibabel may choose the other one.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file cannot be opened or read, [`Error::Input`] if it is not a
    /// three-dimensional volume in one NIfTI, NRRD or `MetaImage` file of finite real numbers on an orthogonal grid, or
    /// is damaged, [`Error::Memory`] if its voxels would exceed 16 GiB, and [`Error::Usage`] if there
    /// are several series that could be meant: [`open_series`](Self::open_series) takes one of them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::default())
    }

    /// As [`open`](Self::open), with the geometry that one of nnU-Net's readers takes from the file
    /// and another bound on memory.
    ///
    /// Readers built on nibabel take spacing from `pixdim` without units, directions from the sform
    /// or else the qform, orthogonal or not, and apply no scaling where the slope is zero.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        #[cfg(feature = "dicom")]
        if is_dicom(path)? {
            return series::open(path, options);
        }
        read(path, options).map_err(|failure| failure.at(path))
    }

    /// An image that a caller has in memory, in Hounsfield units for a CT. What stays the caller's
    /// is a [`Case::lent`](crate::Case::lent).
    ///
    /// # Errors
    ///
    /// [`Error::Volume`] if the voxels do not have the grid's shape or there are none, if one is not
    /// finite, or if spacing or affine are not finite or span no volume.
    pub fn new(voxels: impl Into<Voxels>, grid: Grid) -> Result<Self> {
        let voxels = voxels.into();
        let place = Self::of_place(voxels.view(), grid)?;
        Ok(Self { read_bytes: voxels.bytes(), voxels, ..place })
    }

    /// All of a scan but its voxels, of which it has none: those are the caller's.
    pub(crate) fn of_place(voxels: VoxelView<'_>, grid: Grid) -> Result<Self> {
        if voxels.shape() != grid.shape || grid.shape.contains(&0) {
            return Err(Error::volume(
                format!("{:?} voxels", voxels.shape()),
                format!("{:?}, as the grid says, and at least one", grid.shape),
            ));
        }
        grid.check().map_err(|what| Error::volume(what.found, what.expected))?;
        if grid.affine.determinant() == 0.0 {
            return Err(Error::volume(
                format!("an affine of {:?}", grid.affine.0),
                "one that spans a volume",
            ));
        }
        let not_finite = voxels.not_finite();
        if not_finite > 0 {
            let count: usize = grid.shape.iter().product();
            return Err(Error::volume(
                format!("{not_finite} of {count} voxels that are not finite"),
                "finite values",
            ));
        }
        Ok(Self {
            affine: grid.affine,
            header: SourceHeader::for_grid(&grid),
            read_bytes: 0,
            voxels: Voxels::F32(Array3::zeros([0; 3])),
            grid,
            warnings: Vec::new(),
            sha256: None,
            access: Access::ANYONE,
            #[cfg(feature = "dicom")]
            source: None,
            rules: Rules::Itk,
            is_ambiguous: false,
        })
    }

    /// The values, `[z, y, x]` as stored.
    #[must_use]
    pub fn voxels(&self) -> &Voxels {
        &self.voxels
    }

    /// Where they lie.
    #[must_use]
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Voxel index to patient millimetres, as the file has it. That of the grid is the same, but
    /// for a reader that turns the image to right, anterior, superior axes: then its axes are the
    /// ones nearest to these.
    #[must_use]
    pub fn affine(&self) -> Affine {
        self.affine
    }

    /// What a label map of this image copies.
    #[must_use]
    pub fn header(&self) -> &SourceHeader {
        &self.header
    }

    /// Sentences about what is odd but usable; empty for an ordinary CT.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// SHA-256 of the file it was read from, lowercase hexadecimal; of a series, that of its files'
    /// digests in the order of slices.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// Bytes that reading it held at most: more than its voxels where slices had to be resampled.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Who may read the file: results are no easier to read.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The series it was read from, if it was one: what DICOM objects about it refer to.
    #[cfg(feature = "dicom")]
    #[must_use]
    pub fn series(&self) -> Option<&Arc<fastnnunet_dicom::Source>> {
        self.source.as_ref()
    }

    /// The grid as nnU-Net's `reader` takes it from the same file.
    pub(crate) fn grid_for(&self, reader: Option<Reader>) -> Result<Grid> {
        let rules = Rules::of(reader);
        if rules == self.rules || self.sha256.is_none() {
            return Ok(self.grid.clone());
        }
        if self.is_ambiguous {
            return Err(Error::volume(
                "an image without a slope that was read by another reader's rules",
                "one opened with ReadOptions of the model's reader",
            ));
        }
        let geometry = resolve(&self.header, self.grid.shape, rules);
        geometry.map(|geometry| geometry.grid).map_err(|failure| match failure {
            Failure::Unusable(what) => Error::volume(what.found, what.expected),
            other => other.at(Path::new("image")),
        })
    }

    /// The voxels, without the rest.
    pub(crate) fn into_voxels(self) -> Voxels {
        self.voxels
    }
}

fn resolve(
    header: &SourceHeader,
    shape: [usize; 3],
    rules: Rules,
) -> Result<geometry::Geometry, Failure> {
    let geometry = match rules {
        Rules::Itk => geometry::resolve(header, shape),
        Rules::Nibabel(turned) => nibabel::resolve(header, shape, turned),
    }?;
    let placed = Grid { affine: geometry.affine, ..geometry.grid.clone() };
    placed.check().and_then(|()| geometry.grid.check()).map_err(Failure::Unusable)?;
    Ok(geometry)
}

/// A file whose header has been read.
struct Begun {
    stream: Stream,
    header: header::Header,
    shape: [usize; 3],
    geometry: geometry::Geometry,
    warnings: Vec<String>,
    /// Whether there is more than the volume that is read.
    goes_on: bool,
    is_ambiguous: bool,
    rules: Rules,
}

fn begin(path: &Path, options: &ReadOptions) -> Result<Begun, Failure> {
    let rules = Rules::of(options.reader);
    let mut stream = Stream::open(path)?;
    let mut header = header::read(&mut stream)?;
    let stream = stream.unpacked(header.packing)?;
    let mut warnings = std::mem::take(&mut header.warnings);
    if rules == Rules::Itk {
        warnings.extend(header.source.fill_empty_axes());
    }
    let first_of_many = rules == Rules::Nibabel(Turned::ByAffine);
    let first_of_many = if first_of_many { header.source.first_volume() } else { None };
    let goes_on = first_of_many.is_some();
    warnings.extend(first_of_many);
    let shape = header.source.shape()?;
    let geometry = resolve(&header.source, shape, rules)?;
    let is_ambiguous = header.slope_is_void && header.encoding.intercept != 0.0;
    if rules != Rules::Itk {
        nibabel::unscaled(&mut header);
    }
    limits::check(&header, shape, &stream, options.max_bytes)?;
    Ok(Begun { stream, header, shape, geometry, warnings, goes_on, is_ambiguous, rules })
}

fn read(path: &Path, options: &ReadOptions) -> Result<Scan, Failure> {
    let Begun { mut stream, header, shape, geometry, mut warnings, goes_on, is_ambiguous, rules } =
        begin(path, options)?;
    stream::skip(&mut stream, header.data_offset - header.bytes_read)?;
    let (voxels, stats) = voxels::decode(&mut stream, shape, header.encoding)?;
    if stats.not_finite > 0 {
        let count: usize = shape.iter().product();
        return Err(Failure::unusable(
            format!("{} of {count} voxels that are not finite", stats.not_finite),
            "finite Hounsfield units",
        ));
    }

    warnings.extend(geometry.warnings);
    if options.expects_ct {
        warnings.extend(plausibility::doubt(&stats));
    }
    if stream::ends_late(&mut stream)? && !goes_on {
        warnings.push("the file goes on after the last voxel; the rest is ignored".to_owned());
    }
    let access = stream.access;
    Ok(Scan {
        read_bytes: voxels.bytes(),
        voxels,
        grid: geometry.grid,
        affine: geometry.affine,
        header: header.source,
        warnings,
        sha256: Some(stream.sha256()?),
        access,
        #[cfg(feature = "dicom")]
        source: None,
        rules,
        is_ambiguous,
    })
}
