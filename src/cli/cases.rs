//! From the paths a user gave to the cases there are: which images, and which output.

use super::args::PredictArgs;
use super::images::{Found, Image, has_dicom, look};
use super::outputs::{Output, Outputs, Wanted, is_whole, with_end};
use super::request::usage;
use fastnnunet::model::{Label, Name};
use fastnnunet::pipeline::Probabilities;
use fastnnunet::{Error, OutputType, Result, preview, statistics};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// One case to segment.
#[derive(Clone, Debug)]
pub(crate) struct CaseFiles {
    /// Name of the case, as it is shown.
    pub(crate) name: String,
    /// What its files are called, without an ending: names of files need not be text.
    pub(crate) stem: OsString,
    /// Its images, in channel order.
    pub(crate) images: Vec<Image>,
    /// What to write.
    pub(crate) outputs: Outputs,
    /// Overview to draw.
    pub(crate) preview: Option<PathBuf>,
    /// Statistics to write.
    pub(crate) statistics: Option<PathBuf>,
    /// Probabilities to keep: beside the outputs, under their name.
    pub(crate) probabilities: Option<PathBuf>,
}

impl CaseFiles {
    /// Whether there is nothing to do for it: its label map and all that belongs to it are there,
    /// and none is empty, as a full disk may leave files that others wrote.
    pub(crate) fn is_done(&self, args: &PredictArgs, structures: &[Label]) -> bool {
        let beside = [&self.preview, &self.statistics, &self.probabilities];
        args.skip_existing
            && self.outputs.are_whole(structures)
            && beside.into_iter().flatten().all(|path| is_whole(path))
    }

    /// Where a folder may have its label map; the first that is there is taken.
    pub(crate) fn labels_in(&self, folder: &Path) -> [PathBuf; 2] {
        labels_in(folder, &self.stem)
    }
}

/// Where a folder may have the label map of a case that is called so.
pub(super) fn labels_in(folder: &Path, stem: &OsStr) -> [PathBuf; 2] {
    [".nii.gz", ".nii"].map(|ending| folder.join(with_end(stem, ending)))
}

/// What outputs are called by.
#[derive(Clone, Copy)]
struct Names<'a> {
    wanted: &'a Wanted,
    /// The mode or model.
    what: &'a Name,
}

/// The cases of a run.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    pub(crate) list: Vec<CaseFiles>,
    /// Cases that there are and that cannot be read, and why.
    pub(crate) failed: Vec<(String, Error)>,
    /// Whether there may be several cases: a bad one then does not end the run.
    pub(crate) batch: bool,
    /// Sentences about what was left out.
    pub(crate) doubts: Vec<String>,
}

impl Cases {
    /// `what` names the mode or model in default names of outputs.
    pub(crate) fn find(args: &PredictArgs, wanted: &Wanted, what: &Name) -> Result<Self> {
        let names = Names { wanted, what };
        if let (Some(_), [_, _, ..]) = (args.series(), &args.input[..]) {
            let found = format!("{} inputs", args.input.len());
            return Err(usage("--series", found, "one input that holds the series"));
        }
        if let [folder] = &args.input[..]
            && folder.is_dir()
            && let files = images_in(folder)?
            && !files.is_empty()
        {
            return Self::in_folder(folder, files, args, &names);
        }
        let (mut images, mut doubts) = (Vec::new(), Vec::new());
        for path in &args.input {
            // What is not there is neither a file nor a folder, and says nothing about outputs.
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            images.push(match look(path, args.series(), &mut doubts)? {
                Found::File if path.is_dir() => return Err(empty(path)),
                Found::File => Image::from(path.clone()),
                Found::Series(image) => image,
                Found::Studies(studies) if args.input.len() == 1 => {
                    let cases = Self::of_studies(studies, path, args, &names)?;
                    return Ok(Self { doubts, ..cases });
                }
                Found::Studies(studies) => {
                    let found = format!("{} studies in {}", studies.len(), path.display());
                    return Err(usage("--input", found, "one series in each of several inputs"));
                }
            });
        }
        check_alike(&images, args)?;
        let first = images.first();
        let stem = first
            .and_then(Image::series_name)
            .map_or_else(|| case_name(first.map_or(Path::new(""), Image::path)), OsString::from);
        let outputs = wanted.of_one(args, &stem, what)?;
        let name = stem.to_string_lossy().into_owned();
        let probabilities = args.save_probabilities.then(|| outputs.beside(".npz"));
        let (preview, statistics) = (args.preview.clone(), args.statistics.clone());
        let case = CaseFiles { name, stem, images, outputs, preview, statistics, probabilities };
        Ok(Self { list: vec![case], doubts, ..Self::default() })
    }

    /// Checks, before any work starts, that what the run makes can be written and that none of it
    /// is what the run reads. `structures` are those that come out.
    pub(crate) fn check_outputs(&self, args: &PredictArgs, structures: &[Label]) -> Result<()> {
        let images = self.list.iter().flat_map(|case| &case.images).flat_map(|image| {
            let files = image.files().into_iter().chain([image.path()]);
            files.map(Path::to_path_buf).collect::<Vec<_>>()
        });
        let labels = self
            .list
            .iter()
            .flat_map(|case| args.previous_stage.iter().flat_map(|folder| case.labels_in(folder)));
        let read = images.chain(args.previous_stage.clone()).chain(labels);
        let read: HashSet<PathBuf> = read.map(|path| place(&path)).collect();
        for case in &self.list {
            if let Some(first) = case.images.first() {
                case.outputs.check_source(first.series_name().is_some(), first.path())?;
            }
            let pictures = case.preview.iter().map(|path| ("--preview", path));
            let statistics = case.statistics.iter().map(|path| ("--statistics", path));
            let probabilities =
                case.probabilities.iter().map(|path| ("--save-probabilities", path));
            let beside = pictures.chain(statistics).chain(probabilities);
            let outputs: Vec<PathBuf> =
                case.outputs.files.iter().flat_map(|output| output.files(structures)).collect();
            let outputs = outputs.iter().map(|path| ("--output", path));
            for (option, path) in outputs.chain(beside) {
                if read.contains(&place(path)) {
                    let found = format!("{}, which is read", path.display());
                    return Err(usage(option, found, "another place"));
                }
            }
            if case.is_done(args, structures) {
                continue;
            }
            #[cfg(feature = "dicom")]
            case.outputs.check_uids(args)?;
            for output @ Output { kind, path } in &case.outputs.files {
                if let Some(existing) = output.wanted_over(args, structures) {
                    kind.check(path, existing, structures)?;
                }
            }
            let beside = args.existing_beside();
            if let Some(picture) = &case.preview {
                preview::check_writable(picture, beside)?;
            }
            if let Some(path) = &case.statistics {
                statistics::check_writable(path, beside)?;
            }
            if let Some(path) = &case.probabilities {
                Probabilities::check_writable(path, beside)?;
            }
        }
        Ok(())
    }

    /// The image files of a folder.
    fn in_folder(
        folder: &Path,
        files: BTreeMap<OsString, PathBuf>,
        args: &PredictArgs,
        names: &Names<'_>,
    ) -> Result<Self> {
        let input = |found: String, expected: &str| Error::Input {
            path: folder.to_path_buf(),
            found,
            expected: expected.into(),
        };
        if has_dicom(folder) {
            return Err(input("NIfTI and DICOM files".into(), "one of the two"));
        }
        if args.series().is_some() {
            return Err(usage("--series", "NIfTI files", "a series, which DICOM files have"));
        }
        let groups = grouped(files).map_err(|(case, channel)| {
            let found = format!("{} beside {}", file_name(&case), file_name(&channel));
            input(found, "a case as one file, or as numbered channels")
        })?;
        let cases = groups
            .into_iter()
            .map(|(name, images)| (name, images.into_iter().map(Image::from).collect()));
        Ok(Self::several(cases, &outputs_folder(folder, args)?, args, names))
    }

    /// A series of each study, as far as they have one.
    fn of_studies(
        studies: Vec<(String, Result<Image>)>,
        input: &Path,
        args: &PredictArgs,
        names: &Names<'_>,
    ) -> Result<Self> {
        let outputs = outputs_folder(input, args)?;
        if place(&outputs).starts_with(place(input)) {
            let found = format!("{}, below what is read", outputs.display());
            return Err(usage("--output", found, "a folder elsewhere"));
        }
        let (mut good, mut failed) = (Vec::new(), Vec::new());
        for (name, image) in studies {
            match image {
                Ok(image) => good.push((name.into(), vec![image])),
                Err(error) => failed.push((name, error)),
            }
        }
        let cases = Self::several(good.into_iter(), &outputs, args, names);
        Ok(Self { failed, ..cases })
    }

    fn several(
        cases: impl Iterator<Item = (OsString, Vec<Image>)>,
        outputs: &Path,
        args: &PredictArgs,
        Names { wanted, what }: &Names<'_>,
    ) -> Self {
        // nnU-Net's own names, where nobody asked for types.
        let is_bare = args.output.is_some() && args.output_type.is_empty();
        let end = if is_bare { String::new() } else { format!("_{what}") };
        let list = cases.map(|(stem, images)| {
            let file = with_end(&stem, &end);
            let outputs = Outputs::in_folder(outputs, &file, &wanted.kinds);
            CaseFiles {
                probabilities: args.save_probabilities.then(|| outputs.beside(".npz")),
                outputs,
                preview: args.preview.as_ref().map(|to| to.join(with_end(&file, ".png"))),
                statistics: args.statistics.as_ref().map(|to| to.join(with_end(&file, ".json"))),
                name: stem.to_string_lossy().into_owned(),
                stem,
                images,
            }
        });
        Self { list: list.collect(), batch: true, ..Self::default() }
    }
}

/// The image files in a folder, by name without ending.
fn images_in(folder: &Path) -> Result<BTreeMap<OsString, PathBuf>> {
    let read = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let (file, stem) = (path.file_name().unwrap_or_default(), stem(&path));
        if file.as_encoded_bytes().starts_with(b".") || ending(&path).is_none() {
            continue;
        }
        let file = file_name(&path);
        if let Some(other) = files.insert(stem, path) {
            return Err(Error::Input {
                path: folder.to_path_buf(),
                found: format!("{file} and {}, one name", file_name(&other)),
                expected: "one file per name".into(),
            });
        }
    }
    Ok(files)
}

fn empty(folder: &Path) -> Error {
    let (found, expected) = if cfg!(feature = "dicom") {
        ("no file of NIfTI, NRRD, MetaImage or DICOM", "at least one CT volume")
    } else {
        ("no file of NIfTI, NRRD or MetaImage", "at least one CT volume; this build reads no DICOM")
    };
    Error::Input { path: folder.to_path_buf(), found: found.into(), expected: expected.into() }
}

/// The folder that the results of several cases go to.
fn outputs_folder(input: &Path, args: &PredictArgs) -> Result<PathBuf> {
    let outputs = args.output_or_default().to_path_buf();
    let named = outputs.display();
    let wrong = if outputs.is_file() {
        Some((format!("the file {named}"), "a folder"))
    } else if place(&outputs) == place(input) {
        // Results among the images would be cases of the next run.
        Some((format!("{named}, which is read"), "another folder"))
    } else if !outputs.is_dir() && !OutputType::of_name(&outputs).is_empty() {
        Some((format!("{named}, the name of a file"), "another folder"))
    } else {
        None
    };
    match wrong {
        Some((found, what)) => {
            Err(usage("--output", found, format!("{what}, as there are several cases")))
        }
        None => Ok(outputs),
    }
}

/// The images of a case of a list: a file or one series each.
pub(crate) fn images_of(inputs: &[PathBuf], args: &PredictArgs) -> Result<Vec<Image>> {
    let image = |path: &PathBuf| {
        std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        match look(path, None, &mut Vec::new())? {
            Found::File if path.is_dir() => Err(empty(path)),
            Found::File => Ok(Image::from(path.clone())),
            Found::Series(image) => Ok(image),
            Found::Studies(studies) => Err(Error::Input {
                path: path.clone(),
                found: format!("{} studies", studies.len()),
                expected: "one series".into(),
            }),
        }
    };
    let images = inputs.iter().map(image).collect::<Result<Vec<_>>>()?;
    check_alike(&images, args)?;
    Ok(images)
}

/// Checks that the images are of one kind, and series where one was named.
fn check_alike(images: &[Image], args: &PredictArgs) -> Result<()> {
    let series = images.iter().filter(|image| image.series_name().is_some()).count();
    if series == 0 && args.series().is_some() {
        return Err(usage("--series", "NIfTI", "a series, which DICOM files have"));
    }
    if series == 0 || series == images.len() {
        return Ok(());
    }
    Err(usage("--input", "NIfTI and DICOM", "images of one kind"))
}

/// Joins `CASE_0000`, `CASE_0001` and so on, which are nnU-Net's names for the channels of a
/// case; files that are not numbered from 0 without a gap are cases of their own.
///
/// Where a case has a file without a number as well, those two files are the error.
fn grouped(
    files: BTreeMap<OsString, PathBuf>,
) -> Result<BTreeMap<OsString, Vec<PathBuf>>, (PathBuf, PathBuf)> {
    let numbered = |case: &str, n: usize| files.get(OsStr::new(&format!("{case}_{n:04}")));
    let mut cases: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
    for (stem, path) in &files {
        let in_order = stem
            .to_str()
            .and_then(channel_of)
            .filter(|(case, n)| (0..usize::from(*n)).all(|k| numbered(case, k).is_some()));
        if let Some(whole) = in_order.and_then(|(case, _)| files.get(OsStr::new(case))) {
            return Err((whole.clone(), path.clone()));
        }
        let name = in_order.map_or(stem.as_os_str(), |(case, _)| OsStr::new(case));
        cases.entry(name.to_owned()).or_default().push(path.clone());
    }
    Ok(cases)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The file a path leads to; for one that is not there, the place it would have.
pub(crate) fn place(path: &Path) -> PathBuf {
    let there = |path: &Path| path.canonicalize().ok();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    there(path).unwrap_or_else(|| {
        let parent = there(parent).unwrap_or_else(|| parent.to_path_buf());
        parent.join(path.file_name().unwrap_or_default())
    })
}

/// `CASE` and the channel of nnU-Net's `CASE_0000`.
fn channel_of(stem: &str) -> Option<(&str, u16)> {
    let (case, digits) = stem.rsplit_once('_')?;
    let channel = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    (channel && !case.is_empty()).then(|| digits.parse().ok().map(|n| (case, n)))?
}

/// What names of images end in.
const ENDINGS: [&str; 4] = [".nii.gz", ".nii", ".nrrd", ".mha"];

/// The ending of an image's name; a segmentation of 3D Slicer is no image.
fn ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_image = !name.ends_with(OutputType::SegNrrd.suffix());
    ENDINGS.into_iter().find(|ending| is_image && name.ends_with(ending))
}

/// File name without the ending of an image.
fn stem(path: &Path) -> OsString {
    let without = |name: &OsStr, ending: &str| {
        let path = Path::new(name);
        let ends = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
        path.file_stem().filter(|_| ends).unwrap_or(name).to_owned()
    };
    let bare = without(path.file_name().unwrap_or_default(), "gz");
    let mut stems = ["nii", "nrrd", "mha"].into_iter().map(|ending| without(&bare, ending));
    stems.find(|stem| *stem != bare).unwrap_or(bare)
}

fn case_name(input: &Path) -> OsString {
    let stem = stem(input);
    let case = stem.to_str().and_then(|stem| stem.strip_suffix("_0000"));
    case.filter(|case| !case.is_empty()).map(OsString::from).unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_the_name_without_ending_and_channel() {
        for name in [
            "a/CT.nii.gz",
            "CT.nii",
            "CT.nrrd",
            "CT.MHA",
            "CT.gz",
            "CT",
            "CT.NII.GZ",
            "CT_0000.nii.gz",
        ] {
            assert_eq!(case_name(Path::new(name)), "CT", "{name}");
        }
        assert_eq!(ending(Path::new("CT.seg.nrrd")), None);
        assert_eq!(case_name(Path::new("p.01.nii.gz")), "p.01");
        assert_eq!(case_name(Path::new("scan_2024.nii.gz")), "scan_2024");
        assert_eq!(case_name(Path::new("_0000.nii.gz")), "_0000");
    }

    #[test]
    fn channels_are_joined_only_where_they_are_numbered_from_0() {
        let names = ["a_0000", "a_0001", "b_0000", "scan_2024", "scan_2025", "c", "d_0001"];
        let files = names.iter().map(|n| (OsString::from(n), PathBuf::from(n))).collect();
        let cases: Vec<(OsString, usize)> = grouped(files)
            .expect("no two of one case")
            .into_iter()
            .map(|(name, images)| (name, images.len()))
            .collect();
        let expected =
            [("a", 2), ("b", 1), ("c", 1), ("d_0001", 1), ("scan_2024", 1), ("scan_2025", 1)];
        assert_eq!(cases, expected.map(|(name, count)| (name.into(), count)));
    }
}
