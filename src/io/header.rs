//! Headers of images as one type: those of NIfTI-1 and NIfTI-2, and what NRRD and
//! `MetaImage` say.
//!
//! NIfTI-1 fields are decoded by the `nifti` crate; it knows no NIfTI-2, whose 540 bytes
//! are decoded here. Only what this program needs is kept: no free text of the source
//! file survives, because it may name the patient.

use super::failure::Failure;
use super::stream::{Stream, fill};
use super::voxels::{Encoding, Sample};
use super::{meta_image, nrrd};
use crate::volume::Grid;
use nifti::{Endianness, NiftiHeader};

/// Bytes of a NIfTI-1 header.
pub(super) const NIFTI1_BYTES: usize = 348;
/// Bytes of a NIfTI-2 header.
pub(super) const NIFTI2_BYTES: usize = 540;
/// Opens a single-file NIfTI-2; the line ends reveal text-mode transfers.
pub(super) const NIFTI2_MAGIC: [u8; 8] = *b"n+2\0\r\n\x1a\n";

/// What every complaint about the kind of file expects.
const SINGLE_FILE: &str = "one file of NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha)";

/// Which NIfTI format a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NiftiVersion {
    /// The usual format: 16-bit sizes, 32-bit geometry.
    One,
    /// The wide format: 64-bit sizes and geometry.
    Two,
}

/// What a label map copies from the image it belongs to.
///
/// Fields are as stored, in the file's `x, y, z` order and units, so that the label map
/// carries the very same numbers; only axes that mean nothing are tidied. Free text is left out: it may name the patient.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceHeader {
    /// Format of the source; label maps are written in the same one.
    pub version: NiftiVersion,
    /// Number of dimensions, then voxels per axis.
    pub dim: [i64; 8],
    /// Sign of the qform's third axis, then spacing per axis.
    pub pixdim: [f64; 8],
    /// Units of space and time.
    pub xyzt_units: i32,
    /// What the qform leads to; 0 if there is none.
    pub qform_code: i32,
    /// What the sform leads to; 0 if there is none.
    pub sform_code: i32,
    /// Rotation of the qform: quaternion b, c, d.
    pub quaternion: [f64; 3],
    /// Origin of the qform.
    pub offset: [f64; 3],
    /// Rows of the sform.
    pub srow: [[f64; 4]; 3],
}

impl SourceHeader {
    /// The header for a volume that did not come from a file.
    ///
    /// Its sform, with the code for scanner coordinates, is the grid's affine in
    /// millimetres; there is no qform.
    #[must_use]
    pub fn for_grid(grid: &Grid) -> Self {
        let ([z, y, x], [dz, dy, dx]) = (grid.shape, grid.spacing);
        Self::placed([x, y, z].map(|n| n as i64), [dx, dy, dz], grid.affine.0)
    }

    /// The same of voxels and millimetres along the file's axes, and rows of the affine.
    fn placed([x, y, z]: [i64; 3], [dx, dy, dz]: [f64; 3], rows: [[f64; 4]; 3]) -> Self {
        let small = [x, y, z].iter().all(|&n| i16::try_from(n).is_ok());
        Self {
            version: if small { NiftiVersion::One } else { NiftiVersion::Two },
            dim: [3, x, y, z, 1, 1, 1, 1],
            pixdim: [1.0, dx, dy, dz, 1.0, 1.0, 1.0, 1.0],
            xyzt_units: 2,
            qform_code: 0,
            sform_code: 1,
            quaternion: [0.0; 3],
            offset: [0.0; 3],
            srow: rows,
        }
    }

    /// Clears what lies beyond the image's own axes: it means nothing.
    fn tidy(mut self) -> Self {
        let own = usize::try_from(self.dim[0]).unwrap_or(0);
        for i in (0..8).filter(|&i| i > own) {
            (self.dim[i], self.pixdim[i]) = (1, 1.0);
        }
        self
    }

    /// Gives axes after the third that announce no voxels one voxel, as ITK does, and says so.
    pub(super) fn fill_empty_axes(&mut self) -> Option<String> {
        let axes = usize::try_from(self.dim[0]).unwrap_or(0).min(7);
        let empty: Vec<usize> = (4..=axes).filter(|&i| self.dim[i] < 1).collect();
        let first = *empty.first()?;
        let warning =
            format!("a size of {} along axis {first} is taken as 1, as in ITK", self.dim[first]);
        for i in empty {
            self.dim[i] = 1;
        }
        Some(warning)
    }

    /// Of a series of volumes, leaves the first, and says so.
    pub(super) fn first_volume(&mut self) -> Option<String> {
        let axes = usize::try_from(self.dim[0]).unwrap_or(0).min(7);
        let volumes =
            self.dim[1..=axes].iter().skip(3).fold(1_i64, |n, &more| n.saturating_mul(more));
        if volumes < 2 {
            return None;
        }
        self.dim[0] = 3;
        *self = self.clone().tidy();
        Some(format!("of {volumes} volumes only the first is segmented, as in TotalSegmentator"))
    }

    /// Voxels per axis, `[z, y, x]`, of a three-dimensional image.
    ///
    /// Trailing axes of one voxel are ignored, as in ITK.
    pub(super) fn shape(&self) -> Result<[usize; 3], Failure> {
        let axes = self.dim[0];
        if !(1..=7).contains(&axes) {
            let found = format!("a header with {axes} dimensions");
            return Err(Failure::unusable(found, "a 3-D volume"));
        }
        let sizes = &self.dim[1..=axes as usize];
        if let Some(axis) = sizes.iter().position(|&n| n < 1) {
            return Err(Failure::unusable(
                format!("a size of {} along axis {}", sizes[axis], axis + 1),
                "at least 1 voxel along each axis",
            ));
        }
        match *sizes {
            [x] => Err(Failure::unusable(format!("a 1-D line of {x} voxels"), "a 3-D volume")),
            [x, y] => {
                Err(Failure::unusable(format!("a 2-D image of {x} x {y} pixels"), "a 3-D volume"))
            }
            [x, y, z, ref more @ ..] => {
                let volumes = more.iter().fold(1_i64, |n, &m| n.saturating_mul(m));
                if volumes > 1 {
                    let found = format!("a {axes}-D image of {volumes} volumes");
                    return Err(Failure::unusable(found, "one 3-D volume"));
                }
                Ok([z as usize, y as usize, x as usize])
            }
            [] => Err(Failure::unusable("a header without sizes", "a 3-D volume")),
        }
    }
}

/// A header with what is needed to read the voxels behind it.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) source: SourceHeader,
    pub(super) encoding: Encoding,
    /// Where the voxels begin, counted from the start of the header.
    pub(super) data_offset: u64,
    /// Whether the slope is stored as zero or as no number.
    pub(super) slope_is_void: bool,
    /// How much of the stream the header took.
    pub(super) bytes_read: u64,
    /// How the voxels are stored behind it.
    pub(super) packing: Packing,
    pub(super) warnings: Vec<String>,
}

/// How voxels are stored behind a header that is plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zlib,
}

/// What headers of lines say of an image's place.
#[derive(Debug)]
pub(super) struct Placement {
    /// Voxels along the file's axes.
    pub(super) sizes: [i64; 3],
    /// Millimetres along them.
    pub(super) spacing: [f64; 3],
    /// To right, anterior and superior.
    pub(super) rows: [[f64; 4]; 3],
    pub(super) warnings: Vec<String>,
}

impl Placement {
    /// The header that a NIfTI of this image would have.
    pub(super) fn header(self, encoding: Encoding, packing: Packing, bytes: u64) -> Header {
        let Self { sizes, spacing, rows, warnings } = self;
        Header {
            source: SourceHeader::placed(sizes, spacing, rows),
            encoding,
            data_offset: bytes,
            slope_is_void: false,
            bytes_read: bytes,
            packing,
            warnings,
        }
    }
}

fn is_void(slope: f64) -> bool {
    slope == 0.0 || !slope.is_finite()
}

/// Reads the header at the start of a stream.
pub(super) fn read(stream: &mut Stream) -> Result<Header, Failure> {
    let mut bytes = [0_u8; NIFTI2_BYTES];
    let got = fill(stream, &mut bytes[..nrrd::MAGIC.len()])?;
    if &bytes[..got] == nrrd::MAGIC {
        return nrrd::read(stream);
    }
    if meta_image::STARTS.iter().any(|start| bytes[..got].starts_with(start)) {
        return meta_image::read(stream, &bytes[..got]);
    }
    let got = got + fill(stream, &mut bytes[got..NIFTI1_BYTES])?;
    let start = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let (size, big_endian) = match (u32::from_le_bytes(start), u32::from_be_bytes(start)) {
        (348, _) => (NIFTI1_BYTES, false),
        (_, 348) => (NIFTI1_BYTES, true),
        (540, _) => (NIFTI2_BYTES, false),
        (_, 540) => (NIFTI2_BYTES, true),
        _ => return Err(Failure::unusable(foreign(&bytes[..got], got), SINGLE_FILE)),
    };
    let got = got + fill(stream, &mut bytes[got.min(size)..size])?;
    if got < size {
        let found = format!("{got} bytes of a header");
        return Err(Failure::unusable(found, format!("{size} bytes")));
    }
    if size == NIFTI1_BYTES {
        parse_nifti1(&bytes[..NIFTI1_BYTES], big_endian)
    } else {
        parse_nifti2(&Fields { bytes: &bytes, big_endian })
    }
}

/// Says what a file is that does not begin like NIfTI.
fn foreign(bytes: &[u8], got: usize) -> String {
    let text = bytes.iter().all(|&b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e));
    if bytes.get(128..132) == Some(b"DICM") {
        "a DICOM file".to_owned()
    } else if text {
        "a text file".to_owned()
    } else if got < NIFTI1_BYTES {
        format!("{got} bytes that are no NIfTI header")
    } else {
        "a file without a NIfTI header".to_owned()
    }
}

fn parse_nifti1(bytes: &[u8], big_endian: bool) -> Result<Header, Failure> {
    match &bytes[344..] {
        b"n+1\0" => {}
        b"ni1\0" => return Err(Failure::unusable("a NIfTI .hdr/.img pair", SINGLE_FILE)),
        b"\0\0\0\0" => return Err(Failure::unusable("an Analyze 7.5 header", SINGLE_FILE)),
        _ => return Err(Failure::unusable("a header without NIfTI's magic bytes", SINGLE_FILE)),
    }
    // The crate finds the byte order by the number of dimensions; where that contradicts
    // the header size, the number is the one that is wrong.
    let raw = [bytes[40], bytes[41]];
    let axes = if big_endian { i16::from_be_bytes(raw) } else { i16::from_le_bytes(raw) };
    let unlikely = || Failure::unusable(format!("a header with {axes} dimensions"), "3 dimensions");
    if !(1..=7).contains(&axes) {
        return Err(unlikely());
    }
    let h = NiftiHeader::from_reader(bytes).map_err(|_| unlikely())?;
    if (h.endianness == Endianness::Big) != big_endian {
        return Err(unlikely());
    }
    let data_offset = data_offset(f64::from(h.vox_offset), NIFTI1_BYTES)?;
    let source = SourceHeader {
        version: NiftiVersion::One,
        // The standard has signed sizes, the crate does not.
        dim: h.dim.map(|n| i64::from(n as i16)),
        pixdim: h.pixdim.map(f64::from),
        xyzt_units: i32::from(h.xyzt_units),
        qform_code: i32::from(h.qform_code),
        sform_code: i32::from(h.sform_code),
        quaternion: [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from),
        offset: [h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
        srow: [h.srow_x, h.srow_y, h.srow_z].map(|row| row.map(f64::from)),
    };
    let scaling = [f64::from(h.scl_slope), f64::from(h.scl_inter)];
    let encoding = encoding(h.datatype, big_endian, scaling)?;
    let slope_is_void = is_void(scaling[0]);
    let (source, bytes_read) = (source.tidy(), NIFTI1_BYTES as u64);
    let (packing, warnings) = (Packing::Plain, Vec::new());
    Ok(Header { source, encoding, data_offset, slope_is_void, bytes_read, packing, warnings })
}

fn parse_nifti2(fields: &Fields<'_>) -> Result<Header, Failure> {
    match fields.bytes[4..12] {
        [b'n', b'i', b'2', 0, ..] => {
            return Err(Failure::unusable("a NIfTI .hdr/.img pair", SINGLE_FILE));
        }
        ref magic if *magic == NIFTI2_MAGIC => {}
        _ => return Err(Failure::unusable("a header without NIfTI's magic bytes", SINGLE_FILE)),
    }
    let data_offset = data_offset(fields.i64(168) as f64, NIFTI2_BYTES)?;
    let source = SourceHeader {
        version: NiftiVersion::Two,
        dim: std::array::from_fn(|i| fields.i64(16 + 8 * i)),
        pixdim: std::array::from_fn(|i| fields.f64(104 + 8 * i)),
        xyzt_units: fields.i32(500),
        qform_code: fields.i32(344),
        sform_code: fields.i32(348),
        quaternion: std::array::from_fn(|i| fields.f64(352 + 8 * i)),
        offset: std::array::from_fn(|i| fields.f64(376 + 8 * i)),
        srow: std::array::from_fn(|r| std::array::from_fn(|c| fields.f64(400 + 32 * r + 8 * c))),
    };
    let scaling = [fields.f64(176), fields.f64(184)];
    let encoding = encoding(fields.i16(12), fields.big_endian, scaling)?;
    let slope_is_void = is_void(scaling[0]);
    let (source, bytes_read) = (source.tidy(), NIFTI2_BYTES as u64);
    let (packing, warnings) = (Packing::Plain, Vec::new());
    Ok(Header { source, encoding, data_offset, slope_is_void, bytes_read, packing, warnings })
}

/// Applies ITK's rule for scalings that mean none.
fn encoding(datatype: i16, big_endian: bool, scaling: [f64; 2]) -> Result<Encoding, Failure> {
    let [slope, intercept] = scaling;
    Ok(Encoding {
        sample: Sample::from_code(datatype)?,
        big_endian,
        slope: if is_void(slope) { 1.0 } else { slope },
        intercept: if intercept.is_finite() { intercept } else { 0.0 },
    })
}

/// Checks where the voxels are said to begin; whether the file is that long is checked
/// with its size.
fn data_offset(offset: f64, header_bytes: usize) -> Result<u64, Failure> {
    // Above this an f64 is no longer every integer; no file is that long.
    let largest = (1_u64 << 53) as f64;
    if offset >= header_bytes as f64 && offset <= largest && offset.fract() == 0.0 {
        return Ok(offset as u64);
    }
    Err(Failure::unusable(
        format!("voxels that begin at byte {offset}"),
        format!("a whole number of at least {header_bytes}"),
    ))
}

/// Typed access to the bytes of a NIfTI-2 header.
struct Fields<'a> {
    bytes: &'a [u8; NIFTI2_BYTES],
    big_endian: bool,
}

impl Fields<'_> {
    /// `N` bytes from `at`, least significant first.
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        if self.big_endian {
            field.reverse();
        }
        field
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.get(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.get(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.get(at))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.get(at))
    }
}
