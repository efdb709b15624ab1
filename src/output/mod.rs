//! Results as files: one table of the types there are.
//!
//! A [`Segmentation`] enters, with the image it was made of for types that show or measure that, and
//! files leave, each whole or not at all and no easier to read than its source. A new type is a row
//! of the table and an arm of [`Writer::write`].

#[cfg(feature = "dicom")]
mod dicom;
mod slicer;

use crate::files::{self, Existing, Target};
use crate::io::{self, Scan};
use crate::mesh;
use crate::model::Label;
use crate::segmenter::Segmentation;
use crate::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A type in which a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputType {
    /// A label map on the image's own grid.
    Nifti,
    /// A folder with a NIfTI file for each structure, `<name>.nii.gz`: 1 where it is, 0 elsewhere.
    PerStructure,
    /// A label map as NRRD.
    Nrrd,
    /// A label map as `MetaImage`.
    Mha,
    /// A segmentation of 3D Slicer: a label map as NRRD with names, colors and terminology.
    SegNrrd,
    /// A folder with the closed surface of each structure that was found, `<name>.stl`, and a list of
    /// them, `structures.json`.
    Stl,
    /// The closed surfaces of all structures that were found, with names and colors, as one glTF.
    Gltf,
    /// A DICOM segmentation.
    #[cfg(feature = "dicom")]
    DicomSeg,
    /// A DICOM structure set: each structure as outlines in the planes of the series.
    #[cfg(feature = "dicom")]
    RtStruct,
    /// A DICOM report: volume, mean and standard deviation of each structure (TID 1500). It refers
    /// to the segmentation that the same [`Writer`] wrote before it or was told of.
    #[cfg(feature = "dicom")]
    Sr,
    /// The overview picture as DICOM secondary capture.
    #[cfg(feature = "dicom")]
    Sc,
}

/// What is known of a type.
struct Row {
    output_type: OutputType,
    name: &'static str,
    summary: &'static str,
    /// What follows case and mode in a name that the program gives.
    suffix: &'static str,
    /// What a name that the user gives may end in.
    endings: &'static [&'static str],
    /// Whether it is a folder of files, which may have any name.
    is_folder: bool,
    /// Whether it is about a DICOM series.
    needs_series: bool,
    image: ImageUse,
}

/// What becomes of the image in a type.
#[derive(PartialEq, Eq)]
enum ImageUse {
    Unused,
    #[cfg(feature = "dicom")]
    Measured,
    /// With its labels.
    Shown,
}

/// What most types have in common.
const FILE: Row = Row {
    output_type: OutputType::Nifti,
    name: "",
    summary: "",
    suffix: "",
    endings: &[],
    is_folder: false,
    needs_series: false,
    image: ImageUse::Unused,
};

/// What those of a series have in common.
#[cfg(feature = "dicom")]
const OBJECT: Row = Row { needs_series: true, ..FILE };

/// In the order of the variants, in which they are written: what others refer to comes before them.
const TYPES: &[Row] = &[
    Row {
        output_type: OutputType::Nifti,
        name: "nifti",
        summary: "label map",
        suffix: ".nii.gz",
        endings: io::NIFTI_ENDINGS,
        ..FILE
    },
    Row {
        output_type: OutputType::PerStructure,
        name: "per-structure",
        summary: "a folder with a mask for each structure",
        suffix: "_structures",
        endings: &["_structures"],
        is_folder: true,
        ..FILE
    },
    Row {
        output_type: OutputType::Nrrd,
        name: "nrrd",
        summary: "label map",
        suffix: ".nrrd",
        endings: &[".nrrd"],
        ..FILE
    },
    Row {
        output_type: OutputType::Mha,
        name: "mha",
        summary: "label map",
        suffix: ".mha",
        endings: &[".mha"],
        ..FILE
    },
    Row {
        output_type: OutputType::SegNrrd,
        name: "seg-nrrd",
        summary: "label map for 3D Slicer",
        suffix: ".seg.nrrd",
        endings: &[".seg.nrrd"],
        ..FILE
    },
    Row {
        output_type: OutputType::Stl,
        name: "stl",
        summary: "a folder of surfaces",
        suffix: "_surfaces",
        endings: &["_surfaces"],
        is_folder: true,
        ..FILE
    },
    Row {
        output_type: OutputType::Gltf,
        name: "gltf",
        summary: "surfaces in one file",
        suffix: ".glb",
        endings: &[".glb"],
        ..FILE
    },
    #[cfg(feature = "dicom")]
    Row {
        output_type: OutputType::DicomSeg,
        name: "dicom-seg",
        summary: "segmentation",
        suffix: ".seg.dcm",
        endings: &[".seg.dcm", ".dcm"],
        ..OBJECT
    },
    #[cfg(feature = "dicom")]
    Row {
        output_type: OutputType::RtStruct,
        name: "rtstruct",
        summary: "contours",
        suffix: ".rtstruct.dcm",
        endings: &[".rtstruct.dcm", ".dcm"],
        ..OBJECT
    },
    #[cfg(feature = "dicom")]
    Row {
        output_type: OutputType::Sr,
        name: "sr",
        summary: "volume, mean and deviation in HU",
        suffix: ".sr.dcm",
        endings: &[".sr.dcm", ".dcm"],
        image: ImageUse::Measured,
        ..OBJECT
    },
    #[cfg(feature = "dicom")]
    Row {
        output_type: OutputType::Sc,
        name: "sc",
        summary: "overview picture",
        suffix: ".sc.dcm",
        endings: &[".sc.dcm", ".dcm"],
        image: ImageUse::Shown,
        ..OBJECT
    },
];

/// Every variant has its row, at its place.
const _: () = {
    #[cfg(feature = "dicom")]
    let last = OutputType::Sc;
    #[cfg(not(feature = "dicom"))]
    let last = OutputType::Gltf;
    assert!(TYPES.len() == last as usize + 1, "a variant without a row, or another one is last");
    let mut k = 0;
    while k < TYPES.len() {
        assert!(TYPES[k].output_type as usize == k, "rows are in the order of the variants");
        k += 1;
    }
};

impl OutputType {
    /// All types of this build, in the order in which a [`Writer`] should be given them.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TYPES.iter().map(|row| row.output_type)
    }

    /// The types that a file of this name may have: those of the longest ending that fits. A name
    /// without a known ending has none.
    #[must_use]
    pub fn of_name(path: &Path) -> Vec<Self> {
        let longest = TYPES.iter().map(|row| row.fitting(path)).max().unwrap_or(0);
        let fits = TYPES.iter().filter(|row| longest > 0 && row.fitting(path) == longest);
        fits.map(|row| row.output_type).collect()
    }

    fn row(self) -> &'static Row {
        &TYPES[self as usize]
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// What follows case and mode in the name of a file.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        self.row().suffix
    }

    /// What the name of a file may end in, in lowercase.
    #[must_use]
    pub fn endings(self) -> &'static [&'static str] {
        self.row().endings
    }

    /// How many bytes of a file's name are its ending; 0 if it ends otherwise.
    #[must_use]
    pub fn ending_of(self, path: &Path) -> usize {
        self.row().fitting(path)
    }

    /// Whether it is about a DICOM series, and there is none of an image that is not one.
    #[must_use]
    pub fn needs_series(self) -> bool {
        self.row().needs_series
    }

    /// Whether it shows or measures the image, which [`Writer::image`] gives.
    #[must_use]
    pub fn needs_image(self) -> bool {
        self.row().image != ImageUse::Unused
    }

    /// Whether it shows the image with its labels.
    #[must_use]
    pub fn is_picture(self) -> bool {
        self.row().image == ImageUse::Shown
    }

    /// Whether it is a folder of files.
    #[must_use]
    pub fn is_folder(self) -> bool {
        self.row().is_folder
    }

    /// The files that it consists of, for a result with these structures: where they are, it is whole.
    #[must_use]
    pub fn files(self, path: &Path, structures: &[Label]) -> Vec<PathBuf> {
        match self {
            Self::PerStructure => io::structure_files(path, structures, io::MASK),
            Self::Stl => vec![mesh::index_of(path)],
            _ => vec![path.to_path_buf()],
        }
    }

    /// The files that may be written, for a result with these structures.
    fn possible_files(self, path: &Path, structures: &[Label]) -> Vec<PathBuf> {
        let mut files = self.files(path, structures);
        if self == Self::Stl {
            files.extend(mesh::stl_files(path, structures));
        }
        files
    }

    /// Checks, before hours of work depend on it, that it could be written of a result with these
    /// structures. Creates nothing that stays.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the name does not end as it must, and [`Error::Write`] if there is a file
    /// that is to be kept, or as far as it can be foreseen that writing fails.
    pub fn check(self, path: &Path, existing: Existing, structures: &[Label]) -> Result<()> {
        self.check_name(path)?;
        let files = self.possible_files(path, structures);
        let targets: Vec<_> = files.iter().map(|file| Target::new(file, existing)).collect();
        Target::check_all(&targets)
    }

    fn check_name(self, path: &Path) -> Result<()> {
        if self.is_folder() {
            return io::check_folder(path);
        }
        files::known_ending("output", path, self.endings()).map(drop)
    }
}

impl Row {
    /// How many bytes of a file's name are an ending of this type.
    fn fitting(&self, path: &Path) -> usize {
        files::ending_of(path, self.endings).map_or(0, str::len)
    }
}

impl fmt::Display for OutputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for OutputType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = TYPES.iter().find(|row| row.name == text);
        found.map(|row| row.output_type).ok_or_else(|| {
            let names: Vec<&str> = TYPES.iter().map(|row| row.name).collect();
            Error::usage("output type", text, format!("one of {}", names.join(", ")))
        })
    }
}

impl Segmentation {
    /// Writes the result in one type that needs labels only; see [`writer`](Self::writer) for the
    /// others, and for what becomes of a file that is there.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn write(&self, kind: OutputType, path: impl AsRef<Path>) -> Result<()> {
        self.writer().write(kind, path)
    }

    /// What writes the result in several types.
    ///
    /// ```no_run
    /// # #[cfg(feature = "dicom")]
    /// # fn main() -> fastnnunet::Result<()> {
    /// use fastnnunet::{OutputType, Scan, Segmenter};
    ///
    /// let scan = Scan::open("study/series")?;
    /// let result = Segmenter::open("bone")?.segment(&scan)?;
    /// let mut writer = result.writer().image(&scan);
    /// writer.write(OutputType::DicomSeg, "bone.seg.dcm")?;
    /// writer.write(OutputType::Sr, "bone.sr.dcm")?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "dicom"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            result: self,
            image: None,
            title: String::new(),
            existing: Existing::Keep,
            expected: Vec::new(),
            found: None,
            #[cfg(feature = "dicom")]
            dicom: dicom::Choices::default(),
        }
    }
}

/// Writes a result.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    result: &'a Segmentation,
    #[cfg_attr(not(feature = "dicom"), expect(dead_code, reason = "no type shows it"))]
    image: Option<&'a Scan>,
    #[cfg_attr(not(feature = "dicom"), expect(dead_code, reason = "no type shows it"))]
    title: String,
    existing: Existing,
    /// Types that are going to be written.
    expected: Vec<OutputType>,
    /// The structures that were found, with their surfaces if those are needed again.
    found: Option<Vec<mesh::Found<'a>>>,
    #[cfg(feature = "dicom")]
    dicom: dicom::Choices,
}

impl<'a> Writer<'a> {
    /// The image that the result was made of.
    #[must_use]
    pub fn image(self, image: &'a Scan) -> Self {
        Self { image: Some(image), ..self }
    }

    /// What stands above a picture.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// What becomes of files that are there; they stay by default.
    #[must_use]
    pub fn existing(self, existing: Existing) -> Self {
        Self { existing, ..self }
    }

    /// The types that are going to be written: what several of them need is made once and kept.
    #[must_use]
    pub fn expecting(self, kinds: &[OutputType]) -> Self {
        Self { expected: kinds.to_vec(), ..self }
    }

    /// The structures that were found.
    fn found(&mut self) -> &[mesh::Found<'a>] {
        let kept = [OutputType::Stl, OutputType::Gltf].iter().all(|k| self.expected.contains(k));
        self.found.get_or_insert_with(|| mesh::found(self.result, kept))
    }

    /// Writes one type: each of its files complete or not at all, for at most those who may read the
    /// image. Missing folders are created. The same result gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the name does not end as that of the type must, or if the type is about a
    /// series or an image that there is none of, and [`Error::Write`] if the file exists and is to be
    /// kept or cannot be written.
    ///
    /// # Panics
    ///
    /// If the image has another shape than the labels.
    pub fn write(&mut self, kind: OutputType, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        kind.check_name(path)?;
        let result = self.result;
        let target = Target { path, existing: self.existing, access: result.access() };
        let Segmentation { labels, structures, .. } = result;
        let affine = result.affine();
        match kind {
            OutputType::Nifti => result.save_as(path, self.existing),
            OutputType::PerStructure => io::save_masks(target, labels, structures, result.header()),
            OutputType::Nrrd => io::save_nrrd(target, labels.into(), &affine, &[]),
            OutputType::Mha => io::save_meta_image(target, labels.into(), &affine),
            OutputType::SegNrrd => {
                io::save_nrrd(target, labels.into(), &affine, &slicer::keys(result))
            }
            OutputType::Stl => mesh::save_stl(target, result, self.found()),
            OutputType::Gltf => mesh::save_gltf(target, result, self.found()),
            #[cfg(feature = "dicom")]
            object => self.write_object(object, target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_every_form_leads_back_to_it_and_stands_in_the_docs() {
        let docs = include_str!("../../docs/outputs.md");
        for row in TYPES {
            let name = format!("case_mode{}", row.suffix);
            assert_eq!(OutputType::of_name(Path::new(&name)), [row.output_type], "{name}");
            assert_eq!(row.name.parse::<OutputType>().ok(), Some(row.output_type));
            let begin = format!("| `{}` |", row.name);
            let documented = docs.lines().find(|line| line.starts_with(&begin));
            let documented = documented.unwrap_or_else(|| panic!("docs/outputs.md has no {begin}"));
            assert!(documented.contains(&format!("`{}`", row.suffix)), "{documented}");
        }
    }

    #[test]
    fn names_tell_the_form_as_far_as_they_do() {
        let of = |name: &str| OutputType::of_name(Path::new(name));
        assert_eq!(of("a/seg.nii"), [OutputType::Nifti]);
        assert_eq!(of("SEG.NII.GZ"), [OutputType::Nifti]);
        for name in ["seg", "seg.png", ".nii", "a.nii/seg", "dcm"] {
            assert_eq!(of(name), [], "{name}");
        }
        #[cfg(feature = "dicom")]
        assert_eq!(of("x.dcm").len(), 4, "any object about a series");
        assert_eq!(OutputType::Nifti.ending_of(Path::new("a.nii.gz")), 7);
    }
}
