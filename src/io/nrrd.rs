//! NRRD: images in, label maps out, as ITK and 3D Slicer read and write them.
//!
//! A header of lines, an empty line, and the voxels behind it, plain or gzip-compressed. Voxels in
//! another file are refused: names from files are never paths.

use super::failure::Failure;
use super::geometry::length;
use super::gzip;
use super::header::{Header, Packing, Placement};
use super::lines::{Lines, numbers};
use super::save::{LEVEL, LabelArray};
use super::stream::Stream;
use super::voxels::{Encoding, Sample};
use crate::Result;
use crate::files::Target;
use crate::volume::Affine;
use flate2::Compression;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// What every NRRD begins with; a digit for the version follows.
pub(super) const MAGIC: &[u8; 7] = b"NRRD000";

/// Reads the header of an image; the stream is behind its magic.
pub(super) fn read(stream: &mut Stream) -> Result<Header, Failure> {
    let mut lines = Lines::new(stream, MAGIC.len());
    // The version.
    lines.next()?;
    let mut fields = HashMap::new();
    loop {
        let line = lines.next()?.ok_or_else(|| {
            Failure::unusable("a NRRD header without an end", "an empty line before the voxels")
        })?;
        if line.is_empty() {
            break;
        }
        // Comments, and keys of other programs, which may name the patient.
        if line.starts_with('#') || line.contains(":=") {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Failure::unusable("a line of a NRRD header without a colon", "`field: value`")
        })?;
        // What is given twice counts as given last, as in ITK.
        fields.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let header_bytes = lines.bytes();
    let fields = Fields(fields);
    fields.check_layout()?;
    let sizes = fields.sizes()?;
    let sample = fields.sample()?;
    let packing = match fields.required("encoding")?.to_ascii_lowercase().as_str() {
        "raw" => Packing::Plain,
        "gz" | "gzip" => Packing::Gzip,
        other => {
            let found = format!("a NRRD in encoding {other:?}");
            return Err(Failure::unusable(found, "encoding raw or gzip"));
        }
    };
    let big_endian = match fields.get("endian") {
        Some("big") => true,
        None if sample.bytes() > 1 && packing == Packing::Plain => {
            return Err(Failure::unusable("a NRRD without `endian`", "little or big"));
        }
        _ => false,
    };
    let placement = fields.placement(sizes)?;
    let encoding = Encoding { sample, big_endian, slope: 1.0, intercept: 0.0 };
    Ok(placement.header(encoding, packing, header_bytes))
}

struct Fields(HashMap<String, String>);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| {
            Failure::unusable(format!("a NRRD without `{name}`"), "a complete header")
        })
    }

    /// Refuses voxels elsewhere, and voxels that do not follow at once.
    fn check_layout(&self) -> Result<(), Failure> {
        if ["data file", "datafile"].iter().any(|name| self.get(name).is_some()) {
            return Err(Failure::unusable(
                "a NRRD header whose voxels are in another file",
                "header and voxels in one file (.nrrd)",
            ));
        }
        for name in ["line skip", "lineskip", "byte skip", "byteskip"] {
            if self.get(name).is_some_and(|n| n != "0") {
                let found = format!("a NRRD with a {name}");
                return Err(Failure::unusable(found, "voxels right behind the header"));
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Result<[i64; 3], Failure> {
        let sizes: Vec<i64> = numbers(self.required("sizes")?)
            .ok_or_else(|| Failure::unusable("sizes of a NRRD that are no numbers", "three"))?;
        let axes = self.required("dimension")?;
        match sizes[..] {
            [x, y, z] if axes == "3" => Ok([x, y, z]),
            _ => {
                let found = format!("a NRRD of dimension {axes:?} with {} sizes", sizes.len());
                Err(Failure::unusable(found, "one 3-D volume"))
            }
        }
    }

    fn sample(&self) -> Result<Sample, Failure> {
        let name = self.required("type")?;
        let sample = match name {
            "signed char" | "int8" | "int8_t" => Sample::I8,
            "uchar" | "unsigned char" | "uint8" | "uint8_t" => Sample::U8,
            "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
                Sample::I16
            }
            "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => {
                Sample::U16
            }
            "int" | "signed int" | "int32" | "int32_t" => Sample::I32,
            "uint" | "unsigned int" | "uint32" | "uint32_t" => Sample::U32,
            "longlong"
            | "long long"
            | "long long int"
            | "signed long long"
            | "signed long long int"
            | "int64"
            | "int64_t" => Sample::I64,
            "ulonglong"
            | "unsigned long long"
            | "unsigned long long int"
            | "uint64"
            | "uint64_t" => Sample::U64,
            "float" => Sample::F32,
            "double" => Sample::F64,
            other => {
                let found = format!("a NRRD of type {other:?}");
                return Err(Failure::unusable(found, "integers of 8 to 64 bits, float or double"));
            }
        };
        Ok(sample)
    }

    /// Axes and origin, by the rules of ITK: what names no space that has left and right is taken as
    /// left, posterior, superior.
    fn placement(&self, sizes: [i64; 3]) -> Result<Placement, Failure> {
        let mut warnings = Vec::new();
        let signs = match self.get("space").map(str::to_ascii_lowercase).as_deref() {
            Some("left-posterior-superior" | "lps") => [-1.0, -1.0, 1.0],
            Some("right-anterior-superior" | "ras") => [1.0, 1.0, 1.0],
            Some("left-anterior-superior" | "las") => [-1.0, 1.0, 1.0],
            _ => {
                let warning = "the NRRD names no space of the patient: its axes are taken as left, \
                               posterior, superior, as in ITK";
                warnings.push(warning.to_owned());
                [-1.0, -1.0, 1.0]
            }
        };
        let wrong = |what: &str| Failure::unusable(format!("{what} of a NRRD that is none"), "3-D");
        let columns = match (self.get("space directions"), self.get("spacings")) {
            (Some(directions), _) => {
                let columns: Vec<[f64; 3]> =
                    vectors(directions).ok_or_else(|| wrong("a space direction"))?;
                columns.try_into().map_err(|_| wrong("a set of space directions"))?
            }
            (None, Some(spacings)) => {
                let steps: Vec<f64> = numbers(spacings).ok_or_else(|| wrong("a spacing"))?;
                let [x, y, z] = steps.try_into().map_err(|_| wrong("a set of spacings"))?;
                [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z]]
            }
            (None, None) => {
                let found = "a NRRD without space directions";
                return Err(Failure::unusable(found, "directions and spacing of its axes"));
            }
        };
        let origin = match self.get("space origin").map(vectors::<3>) {
            None => [0.0; 3],
            Some(Some(origin)) if origin.len() == 1 => origin[0],
            Some(_) => return Err(wrong("a space origin")),
        };
        let rows = std::array::from_fn(|r| {
            let [x, y, z] = columns.map(|column| signs[r] * column[r]);
            [x, y, z, signs[r] * origin[r]]
        });
        Ok(Placement { sizes, spacing: columns.map(length), rows, warnings })
    }
}

/// Vectors in parentheses, one after the other.
fn vectors<const N: usize>(text: &str) -> Option<Vec<[f64; N]>> {
    let mut all = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (inside, behind) = rest.strip_prefix('(')?.split_once(')')?;
        let numbers: Option<Vec<f64>> = inside.split(',').map(|n| n.trim().parse().ok()).collect();
        all.push(numbers?.try_into().ok()?);
        // More than an image has axes is no image.
        if all.len() > 16 {
            return None;
        }
        rest = behind.trim_start();
    }
    Some(all)
}

/// Writes a label map that lies where `affine` says; `keys` are what a program adds about it.
pub(crate) fn save_nrrd(
    target: Target<'_>,
    labels: LabelArray<'_>,
    affine: &Affine,
    keys: &[(String, String)],
) -> Result<()> {
    let head = encode(labels, affine, keys);
    target.write(|file| {
        let mut out = io::BufWriter::new(file);
        out.write_all(head.as_bytes())?;
        gzip::write(&mut out, &[&labels.bytes()], Compression::new(LEVEL))?;
        out.flush()
    })
}

fn encode(labels: LabelArray<'_>, affine: &Affine, keys: &[(String, String)]) -> String {
    let [z, y, x] = labels.shape();
    let kind = match labels {
        LabelArray::U8(_) => "uint8",
        LabelArray::U16(_) => "uint16",
    };
    let column = |c: usize| {
        let [a, b, c] = lps(affine, c);
        format!("({a},{b},{c})")
    };
    let mut text = format!(
        "NRRD0005\n# fastnnunet {}\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\n\
         sizes: {x} {y} {z}\nspace directions: {} {} {}\nkinds: domain domain domain\n\
         endian: little\nencoding: gzip\nspace origin: {}\n",
        env!("CARGO_PKG_VERSION"),
        column(0),
        column(1),
        column(2),
        column(3),
    );
    for (key, value) in keys {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "{key}:={value}");
    }
    text.push('\n');
    text
}

/// A column of an affine, towards left, posterior and superior.
pub(super) fn lps(affine: &Affine, column: usize) -> [f64; 3] {
    let [right, anterior, superior] = affine.0.map(|row| row[column]);
    // Adding 0 leaves no negative zero.
    [0.0 - right, 0.0 - anterior, superior + 0.0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Existing;
    use crate::io::{ReadOptions, Scan};
    use crate::{Error, ErrorKind};
    use ndarray::Array3;
    use std::path::PathBuf;

    fn opened(bytes: &[u8]) -> Result<Scan> {
        let folder = tempfile::tempdir().expect("folder");
        let path: PathBuf = folder.path().join("a.nrrd");
        std::fs::write(&path, bytes).expect("writes");
        Scan::open_with(&path, &ReadOptions { expects_ct: false, ..Default::default() })
    }

    fn file(header: &str, voxels: &[u8]) -> Vec<u8> {
        [header.as_bytes(), b"\n", voxels].concat()
    }

    const HEADER: &str = "NRRD0004\n# a comment\ntype: short\ndimension: 3\n\
        space: left-posterior-superior\nsizes: 3 2 1\n\
        space directions: (0.5,0,0) (0,0,-2) (0,3,0)\nkinds: domain domain domain\n\
        endian: little\nencoding: raw\nspace origin: (10,20,-30)\nPatient:=nobody\n";

    #[test]
    fn an_image_lies_where_its_header_says() {
        let voxels: Vec<u8> = (-2_i16..4).flat_map(i16::to_le_bytes).collect();
        let scan = opened(&file(HEADER, &voxels)).expect("reads");
        assert_eq!(scan.grid().spacing, [3.0, 2.0, 0.5]);
        let expected = [[-0.5, 0.0, 0.0, -10.0], [0.0, 0.0, -3.0, -20.0], [0.0, -2.0, 0.0, -30.0]];
        assert_eq!(scan.affine().0, expected);
        assert_eq!(scan.voxels().to_f32().into_raw_vec_and_offset().0, [-2., -1., 0., 1., 2., 3.]);
        let swapped: Vec<u8> = (-2_i16..4).flat_map(i16::to_be_bytes).collect();
        let big = HEADER.replace("little", "big").replace("-superior\n", "-superior\r\n");
        let same = opened(&file(&big, &swapped)).expect("reads");
        assert_eq!(same.voxels(), scan.voxels());
        let ras = HEADER.replace("left-posterior", "right-anterior");
        let turned = opened(&file(&ras, &voxels)).expect("reads");
        assert_eq!(turned.affine().0[0], [0.5, 0.0, 0.0, 10.0]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let cases = [
            ("encoding: raw", "encoding: bzip2", "bzip2"),
            ("endian: little\n", "", "endian"),
            ("sizes: 3 2 1", "sizes: 3 2", "2 sizes"),
            ("sizes: 3 2 1", "sizes: 3 -2 1", "size of -2"),
            ("dimension: 3", "dimension: 4", "dimension"),
            ("type: short", "type: block", "block"),
            ("type: short", "data file: /etc/passwd\ntype: short", "another file"),
            ("type: short", "byte skip: -1\ntype: short", "byte skip"),
            ("(0.5,0,0) ", "", "space directions"),
            ("(0.5,0,0) ", "(0.5,zero,0) ", "space direction"),
            ("(0.5,0,0) ", "(0,0,0) ", "spacing of 0"),
            ("(0.5,0,0) ", "(NaN,0,0) ", "spacing of NaN"),
            ("(0.5,0,0) ", "(0.5,0,2) ", "sheared"),
            ("sizes: 3 2 1", "sizes: 3 2 9999", "bytes"),
        ];
        for (from, to, expected) in cases {
            assert!(HEADER.contains(from), "{from}");
            let error = opened(&file(&HEADER.replace(from, to), &[0; 12])).expect_err(to);
            assert_eq!(error.kind(), ErrorKind::Input, "{to}");
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
        let cut = &HEADER.as_bytes()[..60];
        assert!(matches!(opened(cut), Err(Error::Input { .. })));
        assert!(matches!(opened(&file(HEADER, &[0; 11])), Err(Error::Input { .. })));
    }

    #[test]
    fn a_label_map_comes_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("labels.nrrd");
        let affine =
            Affine([[-0.7, 0.0, 0.0, 100.25], [0.0, 0.6, -0.8, -7.0], [0.0, 0.8, 0.6, 1.0 / 3.0]]);
        let labels = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (100 * z + 10 * y + x) as u16);
        let keys = [("Segment0_Name".to_owned(), "a\\b\nc".to_owned())];
        let target = Target::new(&path, Existing::Keep);
        save_nrrd(target, labels.view().into(), &affine, &keys).expect("writes");
        let scan = Scan::open(&path).expect("reads");
        assert_eq!(scan.voxels().to_f32(), labels.mapv(f32::from));
        for (own, expected) in scan.affine().0.iter().flatten().zip(affine.0.iter().flatten()) {
            assert!((own - expected).abs() < 1e-12, "{own} is {expected}");
        }
        let bytes = std::fs::read(&path).expect("written");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\nSegment0_Name:=a\\\\b\\nc\n\n"), "{text}");
    }
}
