//! NIfTI files built byte by byte, good ones and bad ones, not by the code under test.

use flate2::{Compression, write::GzEncoder};
use std::io::Write;

/// A NIfTI header with voxels, in one of the two versions and byte orders.
#[derive(Clone, Debug)]
pub(crate) struct Nifti {
    pub(crate) version: u8,
    pub(crate) big_endian: bool,
    /// Number of axes, then voxels per axis.
    pub(crate) dim: Vec<i64>,
    pub(crate) datatype: i16,
    pub(crate) pixdim: [f64; 4],
    pub(crate) scaling: [f64; 2],
    pub(crate) offset: f64,
    pub(crate) codes: [i16; 2],
    /// Quaternion b, c, d and the origin of the qform.
    pub(crate) qform: [[f64; 3]; 2],
    pub(crate) srow: [[f64; 4]; 3],
    pub(crate) units: u8,
    pub(crate) magic: Vec<u8>,
    /// Raw samples, already in the file's byte order.
    pub(crate) voxels: Vec<u8>,
}

pub(crate) const SROW: [[f64; 4]; 3] =
    [[-0.75, 0.0, 0.0, 11.0], [0.0, 1.5, 0.0, -22.0], [0.0, 0.0, 2.5, 33.0]];
pub(crate) const HU: [i16; 24] = {
    let mut v = [-1000; 24];
    let mut i = 0;
    while i < 24 {
        v[i] += 100 * i as i16;
        i += 1;
    }
    v
};

/// A valid CT of 4 x 3 x 2 voxels (x, y, z).
pub(crate) fn ct() -> Nifti {
    Nifti {
        version: 1,
        big_endian: false,
        dim: vec![3, 4, 3, 2],
        datatype: 4,
        pixdim: [1.0, 0.75, 1.5, 2.5],
        scaling: [1.0, 0.0],
        offset: 352.0,
        codes: [0, 1],
        qform: [[0.0; 3]; 2],
        srow: SROW,
        units: 2,
        magic: b"n+1\0".to_vec(),
        voxels: HU.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

pub(crate) fn ct2() -> Nifti {
    Nifti { version: 2, offset: 544.0, magic: b"n+2\0\r\n\x1a\n".to_vec(), ..ct() }
}

impl Nifti {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let head = if self.version == 1 { 352 } else { 544 };
        let mut out = vec![0; head];
        let mut put = |at: usize, le: &[u8]| {
            let mut field = le.to_vec();
            if self.big_endian {
                field.reverse();
            }
            out[at..at + field.len()].copy_from_slice(&field);
        };
        let (qform, rows) = (self.qform.as_flattened(), self.srow.as_flattened());
        let text = b"DOE^JANE";
        if self.version == 1 {
            put(0, &348_i32.to_le_bytes());
            for i in 0..8 {
                let n = self.dim.get(i).copied().unwrap_or(1) as i16;
                put(40 + 2 * i, &n.to_le_bytes());
            }
            put(70, &self.datatype.to_le_bytes());
            for (i, p) in self.pixdim.iter().enumerate() {
                put(76 + 4 * i, &(*p as f32).to_le_bytes());
            }
            for (i, v) in [self.offset, self.scaling[0], self.scaling[1]].iter().enumerate() {
                put(108 + 4 * i, &(*v as f32).to_le_bytes());
            }
            put(123, &[self.units]);
            put(252, &self.codes[0].to_le_bytes());
            put(254, &self.codes[1].to_le_bytes());
            for (i, v) in qform.iter().enumerate() {
                put(256 + 4 * i, &(*v as f32).to_le_bytes());
            }
            for (i, v) in rows.iter().enumerate() {
                put(280 + 4 * i, &(*v as f32).to_le_bytes());
            }
            out[344..348].copy_from_slice(&self.magic);
            out[148..156].copy_from_slice(text);
        } else {
            put(0, &540_i32.to_le_bytes());
            put(12, &self.datatype.to_le_bytes());
            for i in 0..8 {
                put(16 + 8 * i, &self.dim.get(i).copied().unwrap_or(1).to_le_bytes());
            }
            for (i, p) in self.pixdim.iter().enumerate() {
                put(104 + 8 * i, &p.to_le_bytes());
            }
            put(168, &(self.offset as i64).to_le_bytes());
            put(176, &self.scaling[0].to_le_bytes());
            put(184, &self.scaling[1].to_le_bytes());
            put(344, &i32::from(self.codes[0]).to_le_bytes());
            put(348, &i32::from(self.codes[1]).to_le_bytes());
            for (i, v) in qform.iter().enumerate() {
                put(352 + 8 * i, &v.to_le_bytes());
            }
            for (i, v) in rows.iter().enumerate() {
                put(400 + 8 * i, &v.to_le_bytes());
            }
            put(500, &i32::from(self.units).to_le_bytes());
            out[4..12].copy_from_slice(&self.magic);
            out[240..248].copy_from_slice(text);
        }
        out.extend(&self.voxels);
        out
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A case, the content of a file, and what the message must contain.
type Unusable = (&'static str, Vec<u8>, &'static str);

/// Files that hold no usable CT.
pub(crate) fn unusable() -> Vec<Unusable> {
    [not_whole(), not_a_ct()].concat()
}

/// Other kinds of files, and files that are cut or damaged.
fn not_whole() -> Vec<Unusable> {
    let cut = |n: usize| ct().bytes()[..n].to_vec();
    let zipped = gzip(&ct().bytes());
    let mut damaged = zipped.clone();
    let end = damaged.len();
    damaged[end - 6] ^= 0xff; // in the checksum
    let mut broken = zipped.clone();
    broken[14..40].fill(0xff);
    let mut dicom = vec![0; 400];
    dicom[128..132].copy_from_slice(b"DICM");
    vec![
        ("empty", vec![], "an empty file"),
        ("text", b"patient,age\n".repeat(40), "a text file"),
        ("short text", b"hello".to_vec(), "a text file"),
        ("binary", vec![0xab; 1000], "without a NIfTI header"),
        // With or without the feature that reads it.
        ("DICOM without images", dicom, "DICOM"),
        ("header cut", cut(200), "200 bytes of a header"),
        ("NIfTI-2 header cut", ct2().bytes()[..400].to_vec(), "400 bytes of a header"),
        ("no voxels", cut(352), "a file of 352 bytes"),
        ("voxels cut", cut(399), "a file of 399 bytes"),
        ("gzip of half", gzip(&cut(380)), "14 of 24 voxels"),
        ("gzip of the header", gzip(&cut(348)), "ends before its voxels"),
        ("gzip cut", zipped[..zipped.len() / 2].to_vec(), "ends too early"),
        ("gzip magic only", vec![0x1f, 0x8b], "ends too early"),
        ("gzip checksum", damaged, "damaged compressed"),
        ("gzip body", broken, "damaged compressed"),
        ("gzip of text", gzip(b"hello"), "a text file"),
    ]
}

/// Whole files whose header says something no CT has.
fn not_a_ct() -> Vec<Unusable> {
    let with = |change: fn(&mut Nifti)| {
        let mut file = ct();
        change(&mut file);
        file.bytes()
    };
    let with2 = |change: fn(&mut Nifti)| {
        let mut file = ct2();
        change(&mut file);
        file.bytes()
    };
    vec![
        ("pair", with(|f| f.magic = b"ni1\0".to_vec()), ".hdr/.img pair"),
        ("NIfTI-2 pair", with2(|f| f.magic[1] = b'i'), ".hdr/.img pair"),
        ("Analyze", with(|f| f.magic = vec![0; 4]), "Analyze"),
        ("magic", with(|f| f.magic = b"oops".to_vec()), "magic"),
        ("NIfTI-2 magic", with2(|f| f.magic[4] = b'\n'), "magic"),
        ("0-D", with(|f| f.dim[0] = 0), "0 dimensions"),
        ("8-D", with(|f| f.dim[0] = 8), "8 dimensions"),
        ("negative count", with(|f| f.dim[0] = -3), "-3 dimensions"),
        ("count of the other byte order", with(|f| f.dim[0] = 0x0300), "768 dimensions"),
        ("NIfTI-2 count", with2(|f| f.dim[0] = i64::MIN), "dimensions"),
        ("1-D", with(|f| f.dim = vec![1, 24]), "a 1-D line"),
        ("2-D", with(|f| f.dim = vec![2, 6, 4]), "a 2-D image of 6 x 4"),
        ("4-D", with(|f| f.dim = vec![4, 2, 2, 2, 3]), "a 4-D image of 3 volumes"),
        ("5-D", with(|f| f.dim = vec![5, 2, 2, 2, 1, 3]), "a 5-D image of 3 volumes"),
        ("zero size", with(|f| f.dim[2] = 0), "a size of 0 along axis 2"),
        ("negative size", with(|f| f.dim[3] = -2), "a size of -2 along axis 3"),
        ("absurd size", with(|f| f.dim = vec![3, 32767, 32767, 32767]), "a file of 400 bytes"),
        ("overflow", with2(|f| f.dim = vec![3, i64::MAX, i64::MAX, 2]), "announces"),
        ("overflow in bytes", with2(|f| f.dim = vec![3, i64::MAX / 2, 1, 1]), "announces"),
        (
            "gzip that cannot hold it",
            gzip(&with(|f| f.dim = vec![3, 512, 512, 500])),
            "compressed bytes",
        ),
        ("complex", with(|f| f.datatype = 32), "complex64 voxels"),
        ("RGB", with(|f| f.datatype = 128), "RGB color voxels"),
        ("float128", with(|f| f.datatype = 1536), "float128 voxels"),
        ("no type", with(|f| f.datatype = 0), "unknown voxels (datatype 0)"),
        ("offset 0", with(|f| f.offset = 0.0), "begin at byte 0"),
        ("offset NaN", with(|f| f.offset = f64::NAN), "begin at byte NaN"),
        ("offset negative", with(|f| f.offset = -352.0), "begin at byte -352"),
        ("offset fraction", with(|f| f.offset = 352.5), "begin at byte 352.5"),
        ("offset infinite", with(|f| f.offset = f64::INFINITY), "begin at byte inf"),
        ("offset beyond", with(|f| f.offset = 4096.0), "a file of 400 bytes"),
        ("NIfTI-2 offset", with2(|f| f.offset = -1.0), "begin at byte -1"),
        ("NIfTI-2 offset huge", with2(|f| f.offset = 1e18), "begin at byte"),
        ("zero spacing", with(|f| f.pixdim[3] = 0.0), "a voxel spacing of 0 along axis 3"),
        ("negative spacing", with(|f| f.pixdim[1] = -0.75), "a voxel spacing of -0.75"),
        ("NaN spacing", with(|f| f.pixdim[2] = f64::NAN), "a voxel spacing of NaN"),
        ("infinite spacing", with(|f| f.pixdim[2] = f64::INFINITY), "a voxel spacing of inf"),
        ("sheared", with(|f| f.srow[0][1] = 0.5), "sheared or singular"),
        ("singular", with(|f| f.srow[2] = [0.0; 4]), "sheared or singular"),
        ("voxels that are not finite", not_finite(), "2 of 24 voxels that are not finite"),
        ("sform NaN", with(|f| f.srow[1][3] = f64::NAN), "sheared or singular"),
    ]
}

/// A float volume with a NaN and an infinity in it.
fn not_finite() -> Vec<u8> {
    let mut raw = [40.0_f32; 24];
    raw[3] = f32::NAN;
    raw[17] = f32::NEG_INFINITY;
    let voxels = raw.iter().flat_map(|v| v.to_le_bytes()).collect();
    Nifti { datatype: 16, voxels, ..ct() }.bytes()
}
