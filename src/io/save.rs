//! Stage 13: label maps on the grid of the image they came from.

use super::gzip;
use super::header::{NIFTI1_BYTES, NIFTI2_BYTES, NIFTI2_MAGIC, NiftiVersion, SourceHeader};
use super::label_table;
use crate::Result;
use crate::files::{self, Existing, Target};
use crate::model::Label;
use crate::volume::LabelMap;
use flate2::Compression;
use ndarray::ArrayView3;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

/// What names of label maps may end in.
pub(crate) const NIFTI_ENDINGS: &[&str] = &[".nii.gz", ".nii"];

/// Label maps are long runs of equal bytes; higher levels gain little.
pub(super) const LEVEL: u32 = 6;

/// NIfTI's code for values that are indices into a list of labels.
const INTENT_LABEL: i16 = 1002;

/// A label map, `[z, y, x]`, in the type it is written in.
#[derive(Clone, Copy, Debug)]
pub enum LabelArray<'a> {
    /// Labels up to 255.
    U8(ArrayView3<'a, u8>),
    /// Labels up to 65535.
    U16(ArrayView3<'a, u16>),
}

impl<'a> From<ArrayView3<'a, u8>> for LabelArray<'a> {
    fn from(labels: ArrayView3<'a, u8>) -> Self {
        Self::U8(labels)
    }
}

impl<'a> From<ArrayView3<'a, u16>> for LabelArray<'a> {
    fn from(labels: ArrayView3<'a, u16>) -> Self {
        Self::U16(labels)
    }
}

impl<'a> From<&'a LabelMap> for LabelArray<'a> {
    fn from(labels: &'a LabelMap) -> Self {
        match labels {
            LabelMap::U8(labels) => Self::U8(labels.view()),
            LabelMap::U16(labels) => Self::U16(labels.view()),
        }
    }
}

impl LabelArray<'_> {
    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        let (z, y, x) = match self {
            Self::U8(labels) => labels.dim(),
            Self::U16(labels) => labels.dim(),
        };
        [z, y, x]
    }

    /// NIfTI's code and bit count of the type.
    fn datatype(&self) -> (i16, i16) {
        match self {
            Self::U8(_) => (2, 8),
            Self::U16(_) => (512, 16),
        }
    }

    /// Little-endian bytes in file order.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::U8(labels) => match labels.as_slice() {
                Some(slice) => Cow::Borrowed(slice),
                None => Cow::Owned(labels.iter().copied().collect()),
            },
            Self::U16(labels) => {
                Cow::Owned(labels.iter().flat_map(|label| label.to_le_bytes()).collect())
            }
        }
    }
}

/// Writes a label map with the geometry of `header`, compressed if `path` ends in `.gz`.
///
/// The file appears under its name complete or not at all: it is written beside it and
/// renamed. Missing folders are created. The same labels give the same bytes.
///
/// # Errors
///
/// [`Error::Usage`](crate::Error::Usage) if the name ends in neither `.nii` nor `.nii.gz`, and
/// [`Error::Write`](crate::Error::Write) if a file exists that is to be kept or if writing fails.
///
/// # Panics
///
/// If the shape of `labels` is not the one in `header`.
pub fn save_labels(
    path: &Path,
    labels: LabelArray<'_>,
    header: &SourceHeader,
    existing: Existing,
) -> Result<()> {
    save_labels_to(Target::new(path, existing), labels, header, &[])
}

/// As [`save_labels`], with all terms, and with names and colors of the structures.
pub(crate) fn save_labels_to(
    target: Target<'_>,
    labels: LabelArray<'_>,
    header: &SourceHeader,
    structures: &[Label],
) -> Result<()> {
    let shape = labels.shape();
    assert_eq!(header.shape().ok(), Some(shape), "labels have the shape of their image");
    let compress = files::known_ending("output", target.path, NIFTI_ENDINGS)? == ".nii.gz";
    target.write(|file| {
        let table = label_table::extension(structures);
        let head = encode(header, labels.datatype(), &table);
        let body = labels.bytes();
        if compress {
            let mut out = io::BufWriter::new(file);
            gzip::write(&mut out, &[&head, &body], Compression::new(LEVEL))?;
            out.flush()
        } else {
            file.write_all(&head)?;
            file.write_all(&body)
        }
    })
}

/// The header and what stands between it and the voxels.
pub(super) fn encode(header: &SourceHeader, datatype: (i16, i16), extension: &[u8]) -> Vec<u8> {
    // A caller's own header may exceed what NIfTI-1 can store.
    let wide = header.dim.iter().any(|&n| n > i64::from(i16::MAX));
    match header.version {
        NiftiVersion::One if !wide => encode_nifti1(header, datatype, extension),
        _ => encode_nifti2(header, datatype, extension),
    }
}

fn description() -> &'static [u8] {
    concat!("fastnnunet ", env!("CARGO_PKG_VERSION")).as_bytes()
}

/// Four bytes say whether an extension follows.
fn extended(mut out: Vec<u8>, header_bytes: usize, extension: &[u8]) -> Vec<u8> {
    out[header_bytes] = u8::from(!extension.is_empty());
    out.extend(extension);
    out
}

fn encode_nifti1(header: &SourceHeader, (datatype, bits): (i16, i16), extension: &[u8]) -> Vec<u8> {
    let mut out = vec![0; NIFTI1_BYTES + 4];
    let f32s = |out: &mut [u8], at: usize, values: &[f64]| {
        for (i, v) in values.iter().enumerate() {
            put(out, at + 4 * i, &(*v as f32).to_le_bytes());
        }
    };
    put(&mut out, 0, &(NIFTI1_BYTES as i32).to_le_bytes());
    put(&mut out, 38, b"r");
    for (i, n) in header.dim.iter().enumerate() {
        put(&mut out, 40 + 2 * i, &(*n as i16).to_le_bytes());
    }
    put(&mut out, 68, &INTENT_LABEL.to_le_bytes());
    put(&mut out, 70, &datatype.to_le_bytes());
    put(&mut out, 72, &bits.to_le_bytes());
    f32s(&mut out, 76, &header.pixdim);
    f32s(&mut out, 108, &[(NIFTI1_BYTES + 4 + extension.len()) as f64, 1.0, 0.0]);
    put(&mut out, 123, &[header.xyzt_units as u8]);
    put(&mut out, 148, description());
    put(&mut out, 252, &(header.qform_code as i16).to_le_bytes());
    put(&mut out, 254, &(header.sform_code as i16).to_le_bytes());
    f32s(&mut out, 256, &header.quaternion);
    f32s(&mut out, 268, &header.offset);
    f32s(&mut out, 280, header.srow.as_flattened());
    put(&mut out, 344, b"n+1\0");
    extended(out, NIFTI1_BYTES, extension)
}

fn encode_nifti2(header: &SourceHeader, (datatype, bits): (i16, i16), extension: &[u8]) -> Vec<u8> {
    let mut out = vec![0; NIFTI2_BYTES + 4];
    let f64s = |out: &mut [u8], at: usize, values: &[f64]| {
        for (i, v) in values.iter().enumerate() {
            put(out, at + 8 * i, &v.to_le_bytes());
        }
    };
    put(&mut out, 0, &(NIFTI2_BYTES as i32).to_le_bytes());
    put(&mut out, 4, &NIFTI2_MAGIC);
    put(&mut out, 12, &datatype.to_le_bytes());
    put(&mut out, 14, &bits.to_le_bytes());
    for (i, n) in header.dim.iter().enumerate() {
        put(&mut out, 16 + 8 * i, &n.to_le_bytes());
    }
    f64s(&mut out, 104, &header.pixdim);
    put(&mut out, 168, &((NIFTI2_BYTES + 4 + extension.len()) as i64).to_le_bytes());
    f64s(&mut out, 176, &[1.0, 0.0]);
    put(&mut out, 240, description());
    put(&mut out, 344, &header.qform_code.to_le_bytes());
    put(&mut out, 348, &header.sform_code.to_le_bytes());
    f64s(&mut out, 352, &header.quaternion);
    f64s(&mut out, 376, &header.offset);
    f64s(&mut out, 400, header.srow.as_flattened());
    put(&mut out, 500, &header.xyzt_units.to_le_bytes());
    put(&mut out, 504, &i32::from(INTENT_LABEL).to_le_bytes());
    extended(out, NIFTI2_BYTES, extension)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}
