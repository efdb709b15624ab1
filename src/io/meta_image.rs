//! `MetaImage`: images in, label maps out, as ITK and SimpleITK read and write them.
//!
//! A header of lines, of which the last is `ElementDataFile = LOCAL`, and the voxels behind it, plain
//! or zlib-compressed. Voxels in another file are refused: names from files are never paths.

use super::failure::Failure;
use super::geometry::length;
use super::gzip;
use super::header::{Header, Packing, Placement};
use super::lines::{Lines, numbers};
use super::nrrd::lps;
use super::save::{LEVEL, LabelArray};
use super::stream::Stream;
use super::voxels::{Encoding, Sample};
use crate::Result;
use crate::files::Target;
use crate::volume::Affine;
use flate2::Compression;
use std::collections::HashMap;
use std::io::{self, Write};

/// What a `MetaImage` begins with.
pub(super) const STARTS: [&[u8]; 2] = [b"ObjectT", b"NDims"];

/// Reads the header of an image; `start` is the first of its bytes, which the stream is behind.
pub(super) fn read(stream: &mut Stream, start: &[u8]) -> Result<Header, Failure> {
    let mut lines = Lines::new(stream, start.len());
    let mut fields = HashMap::new();
    let mut before = String::from_utf8_lossy(start).into_owned();
    loop {
        let line = lines.next()?.ok_or_else(|| {
            Failure::unusable("a MetaImage header without an end", "a line with ElementDataFile")
        })?;
        let line = std::mem::take(&mut before) + &line;
        let Some((name, value)) = line.split_once('=') else {
            let found = "a line of a MetaImage header without a sign";
            return Err(Failure::unusable(found, "`Name = value`"));
        };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        let is_last = name == "ElementDataFile";
        fields.insert(name, value);
        if is_last {
            break;
        }
    }
    let header_bytes = lines.bytes();
    let fields = Fields(fields);
    fields.check_layout()?;
    let sample = fields.sample()?;
    let packing = if fields.is_true(&["CompressedData"])? { Packing::Zlib } else { Packing::Plain };
    let big_endian = fields.is_true(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])?;
    let placement = fields.placement()?;
    let encoding = Encoding { sample, big_endian, slope: 1.0, intercept: 0.0 };
    Ok(placement.header(encoding, packing, header_bytes))
}

struct Fields(HashMap<String, String>);

impl Fields {
    /// A field by the first of its names that is there.
    fn get(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.0.get(*name)).map(String::as_str)
    }

    fn is_true(&self, names: &[&str]) -> Result<bool, Failure> {
        match self.get(names).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => {
                let found = format!("{} = {other:?} in a MetaImage", names[0]);
                Err(Failure::unusable(found, "True or False"))
            }
        }
    }

    fn check_layout(&self) -> Result<(), Failure> {
        let of = |names: &[&str]| self.get(names).unwrap_or_default();
        if of(&["ElementDataFile"]) != "LOCAL" {
            return Err(Failure::unusable(
                "a MetaImage header whose voxels are in another file",
                "header and voxels in one file (.mha)",
            ));
        }
        if !matches!(of(&["ObjectType"]), "Image" | "") {
            return Err(Failure::unusable("a MetaImage that is no image", "ObjectType = Image"));
        }
        if self.get(&["BinaryData"]).is_some() && !self.is_true(&["BinaryData"])? {
            return Err(Failure::unusable("a MetaImage of text", "BinaryData = True"));
        }
        let neutral = [
            ("ElementNumberOfChannels", 1.0),
            ("ElementToIntensityFunctionSlope", 1.0),
            ("ElementToIntensityFunctionOffset", 0.0),
            ("HeaderSize", 0.0),
        ];
        for (name, expected) in neutral {
            let found = self.get(&[name]).map_or(Some(expected), |value| value.parse().ok());
            if found != Some(expected) {
                let found = format!("{name} = {} in a MetaImage", of(&[name]));
                return Err(Failure::unusable(found, format!("{expected}")));
            }
        }
        Ok(())
    }

    fn sample(&self) -> Result<Sample, Failure> {
        Ok(match self.get(&["ElementType"]).unwrap_or_default() {
            "MET_CHAR" => Sample::I8,
            "MET_UCHAR" => Sample::U8,
            "MET_SHORT" => Sample::I16,
            "MET_USHORT" => Sample::U16,
            "MET_INT" => Sample::I32,
            "MET_UINT" => Sample::U32,
            "MET_LONG_LONG" => Sample::I64,
            "MET_ULONG_LONG" => Sample::U64,
            "MET_FLOAT" => Sample::F32,
            "MET_DOUBLE" => Sample::F64,
            other => {
                let found = format!("a MetaImage of {other:?}");
                let expected = "integers of 8 to 64 bits, MET_FLOAT or MET_DOUBLE";
                return Err(Failure::unusable(found, expected));
            }
        })
    }

    fn numbers<const N: usize>(&self, names: &[&str]) -> Result<Option<[f64; N]>, Failure> {
        let wrong = || {
            let found = format!("{} of a MetaImage that is not {N} numbers", names[0]);
            Failure::unusable(found, format!("{N} numbers"))
        };
        let values = self.get(names).map(|text| numbers(text).ok_or_else(wrong)).transpose()?;
        values.map(|values: Vec<f64>| values.try_into().map_err(|_| wrong())).transpose()
    }

    /// Axes and origin. Each three numbers of the matrix are where an axis goes: to left, posterior
    /// and superior.
    fn placement(&self) -> Result<Placement, Failure> {
        let sizes: Option<Vec<i64>> = self.get(&["DimSize"]).and_then(numbers);
        let axes = self.get(&["NDims"]).unwrap_or_default();
        let (Some("3"), Some([x, y, z])) = (Some(axes), sizes.as_deref()) else {
            let count = sizes.map_or(0, |sizes| sizes.len());
            let found = format!("a MetaImage of NDims {axes:?} with {count} sizes");
            return Err(Failure::unusable(found, "one 3-D volume"));
        };
        let spacing = self.numbers(&["ElementSpacing", "ElementSize"])?.unwrap_or([1.0; 3]);
        let matrix = self.numbers::<9>(&["TransformMatrix", "Rotation", "Orientation"])?;
        let origin = self.numbers(&["Offset", "Position", "Origin"])?.unwrap_or([0.0; 3]);
        let mut warnings = Vec::new();
        if matrix.is_none() {
            let warning = "the MetaImage has no directions: its axes are taken as left, posterior, \
                           superior, as in ITK";
            warnings.push(warning.to_owned());
        }
        let matrix = matrix.unwrap_or([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let signs = [-1.0, -1.0, 1.0];
        let rows = std::array::from_fn(|r| {
            let along = |c: usize| signs[r] * matrix[3 * c + r] * spacing[c];
            [along(0), along(1), along(2), signs[r] * origin[r]]
        });
        Ok(Placement { sizes: [*x, *y, *z], spacing, rows, warnings })
    }
}

/// Writes a label map that lies where `affine` says.
pub(crate) fn save_meta_image(
    target: Target<'_>,
    labels: LabelArray<'_>,
    affine: &Affine,
) -> Result<()> {
    target.write(|file| {
        let body = gzip::zlib(&labels.bytes(), Compression::new(LEVEL))?;
        let mut out = io::BufWriter::new(file);
        out.write_all(encode(labels, affine, body.len()).as_bytes())?;
        out.write_all(&body)?;
        out.flush()
    })
}

fn encode(labels: LabelArray<'_>, affine: &Affine, bytes: usize) -> String {
    let [z, y, x] = labels.shape();
    let kind = match labels {
        LabelArray::U8(_) => "MET_UCHAR",
        LabelArray::U16(_) => "MET_USHORT",
    };
    let columns = [0, 1, 2].map(|c| lps(affine, c));
    let spacing = columns.map(length);
    let text = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    let directions: Vec<f64> = (0..9).map(|k| columns[k / 3][k % 3] / spacing[k / 3]).collect();
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = True\nCompressedDataSize = {bytes}\nTransformMatrix = {}\nOffset = {}\n\
         CenterOfRotation = 0 0 0\nElementSpacing = {}\nDimSize = {x} {y} {z}\n\
         ElementType = {kind}\nElementDataFile = LOCAL\n",
        text(&directions),
        text(&lps(affine, 3)),
        text(&spacing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Existing;
    use crate::io::{ReadOptions, Scan};
    use crate::{Error, ErrorKind};
    use ndarray::Array3;

    fn opened(bytes: &[u8]) -> Result<Scan> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.mha");
        std::fs::write(&path, bytes).expect("writes");
        Scan::open_with(&path, &ReadOptions { expects_ct: false, ..Default::default() })
    }

    const HEADER: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\n\
        BinaryDataByteOrderMSB = False\nCompressedData = False\n\
        TransformMatrix = 1 0 0 0 0 -1 0 1 0\nOffset = 10 20 -30\nCenterOfRotation = 0 0 0\n\
        AnatomicalOrientation = RAI\nElementSpacing = 0.5 2 3\nDimSize = 3 2 1\n\
        ElementType = MET_SHORT\nElementDataFile = LOCAL\n";

    #[test]
    fn an_image_lies_where_its_header_says() {
        let voxels: Vec<u8> = (-2_i16..4).flat_map(i16::to_le_bytes).collect();
        let scan = opened(&[HEADER.as_bytes(), &voxels].concat()).expect("reads");
        assert_eq!(scan.grid().spacing, [3.0, 2.0, 0.5]);
        let expected = [[-0.5, 0.0, 0.0, -10.0], [0.0, 0.0, -3.0, -20.0], [0.0, -2.0, 0.0, -30.0]];
        assert_eq!(scan.affine().0, expected);
        assert_eq!(scan.voxels().to_f32().into_raw_vec_and_offset().0, [-2., -1., 0., 1., 2., 3.]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let cases = [
            ("LOCAL", "/etc/passwd", "another file"),
            ("NDims = 3", "NDims = 4", "NDims"),
            ("DimSize = 3 2 1", "DimSize = 3 2", "2 sizes"),
            ("DimSize = 3 2 1", "DimSize = 3 0 1", "size of 0"),
            ("DimSize = 3 2 1", "DimSize = 3 2 100", "bytes"),
            ("MET_SHORT", "MET_LONG", "MET_LONG"),
            ("BinaryData = True", "BinaryData = False", "text"),
            ("CompressedData = False", "CompressedData = maybe", "CompressedData"),
            ("CenterOfRotation = 0 0 0", "ElementNumberOfChannels = 3", "ElementNumberOfChannels"),
            ("Offset = 10 20 -30", "Offset = 10 20", "Offset"),
            ("ElementSpacing = 0.5", "ElementSpacing = -0.5", "spacing of -0.5"),
            ("TransformMatrix = 1 0 0 0", "TransformMatrix = 1 0 0 1", "sheared"),
            ("ObjectType = Image", "ObjectType = Tube", "no image"),
        ];
        for (from, to, expected) in cases {
            assert!(HEADER.contains(from), "{from}");
            let bytes = [HEADER.replace(from, to).as_bytes(), &[0; 12]].concat();
            let error = opened(&bytes).expect_err(to);
            assert_eq!(error.kind(), ErrorKind::Input, "{to}");
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
        assert!(matches!(opened(&HEADER.as_bytes()[..80]), Err(Error::Input { .. })));
        let damaged = HEADER.replace("CompressedData = False", "CompressedData = True");
        let damaged = [damaged.as_bytes(), &[7; 12]].concat();
        assert!(opened(&damaged).is_err());
    }

    #[test]
    fn a_label_map_comes_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("labels.mha");
        let affine =
            Affine([[-0.7, 0.0, 0.0, 100.25], [0.0, 0.6, -0.8, -7.0], [0.0, 0.8, 0.6, 1.0 / 3.0]]);
        let labels = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (100 * z + 10 * y + x) as u16);
        let target = Target::new(&path, Existing::Keep);
        save_meta_image(target, labels.view().into(), &affine).expect("writes");
        let scan = Scan::open(&path).expect("reads");
        assert_eq!(scan.voxels().to_f32(), labels.mapv(f32::from));
        for (own, expected) in scan.affine().0.iter().flatten().zip(affine.0.iter().flatten()) {
            assert!((own - expected).abs() < 1e-12, "{own} is {expected}");
        }
    }
}
