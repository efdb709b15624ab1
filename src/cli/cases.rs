//! From the paths a user gave to the cases there are: which images, and which output.

use super::args::PredictArgs;
use fastnnunet::pipeline::Probabilities;
use fastnnunet::{Error, Result, io, preview};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// One case to segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaseFiles {
    /// Name of the case.
    pub(crate) name: String,
    /// Its images, in channel order.
    pub(crate) images: Vec<PathBuf>,
    /// Label map to write.
    pub(crate) output: PathBuf,
    /// Overview to draw.
    pub(crate) preview: Option<PathBuf>,
}

impl CaseFiles {
    /// Whether there is nothing to do for it.
    pub(crate) fn is_done(&self, args: &PredictArgs) -> bool {
        args.skip_existing && self.output.exists()
    }

    /// Where a folder may have its label map; the first that is there is taken.
    pub(crate) fn labels_in(&self, folder: &Path) -> [PathBuf; 2] {
        ["nii.gz", "nii"].map(|ending| folder.join(format!("{}.{ending}", self.name)))
    }

    /// Where probabilities go: beside the label map, under its name.
    pub(crate) fn probabilities(&self) -> PathBuf {
        let name = self.output.file_name().unwrap_or_default().to_string_lossy();
        self.output.with_file_name(format!("{}.npz", stem(&name)))
    }
}

/// The cases of a run.
#[derive(Debug)]
pub(crate) struct Cases {
    pub(crate) list: Vec<CaseFiles>,
    /// Whether the input is a folder: a bad case then does not end the run.
    pub(crate) batch: bool,
}

impl Cases {
    /// `what` names the mode or model in default names of outputs.
    pub(crate) fn find(args: &PredictArgs, what: &str) -> Result<Self> {
        match &args.input[..] {
            [folder] if folder.is_dir() => Self::in_folder(folder, args, what),
            images => {
                let name = case_name(images.first().map_or(Path::new(""), PathBuf::as_path));
                let output = args
                    .output
                    .clone()
                    .unwrap_or_else(|| Path::new("results").join(format!("{name}_{what}.nii.gz")));
                let (images, preview) = (images.to_vec(), args.preview.clone());
                Ok(Self { list: vec![CaseFiles { name, images, output, preview }], batch: false })
            }
        }
    }

    /// Checks, before any work starts, that what the run makes can be written and that none of it
    /// is what the run reads.
    pub(crate) fn check_outputs(&self, args: &PredictArgs) -> Result<()> {
        let images = self.list.iter().flat_map(|case| &case.images).chain(&args.previous_stage);
        let labels = self
            .list
            .iter()
            .flat_map(|case| args.previous_stage.iter().flat_map(|folder| case.labels_in(folder)));
        let read = images.cloned().chain(labels);
        let read: HashSet<PathBuf> = read.map(|path| place(&path)).collect();
        for case in &self.list {
            let probabilities = args.save_probabilities.then(|| case.probabilities());
            let pictures = case.preview.iter().map(|path| ("--preview", path));
            let beside =
                pictures.chain(probabilities.iter().map(|path| ("--save-probabilities", path)));
            for (option, path) in std::iter::once(("--output", &case.output)).chain(beside) {
                if read.contains(&place(path)) {
                    return Err(Error::Usage {
                        what: option.into(),
                        found: format!("{}, which is read", path.display()),
                        expected: "another place".into(),
                    });
                }
            }
            if case.is_done(args) {
                continue;
            }
            io::check_writable(&case.output, args.existing())?;
            let beside = args.existing_beside();
            if let Some(picture) = &case.preview {
                preview::check_writable(picture, beside)?;
            }
            if let Some(path) = &probabilities {
                Probabilities::check_writable(path, beside)?;
            }
        }
        Ok(())
    }

    fn in_folder(folder: &Path, args: &PredictArgs, what: &str) -> Result<Self> {
        let read = |source| Error::Read { path: folder.to_path_buf(), source };
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What differs from its stem by more than `.gz` is NIfTI.
            let bare = file.len() - stem(&file).len();
            if file.starts_with('.') || !(bare == ".nii".len() || bare == ".nii.gz".len()) {
                continue;
            }
            if let Some(other) = files.insert(stem(&file).to_owned(), path) {
                return Err(Error::Input {
                    path: folder.to_path_buf(),
                    found: format!("{file} and {}, one name", file_name(&other)),
                    expected: "one file per name".into(),
                });
            }
        }
        if files.is_empty() {
            return Err(Error::Input {
                path: folder.to_path_buf(),
                found: "no .nii or .nii.gz file".into(),
                expected: "at least one CT volume".into(),
            });
        }
        let outputs = args.output.clone().unwrap_or_else(|| PathBuf::from("results"));
        let named = outputs.display();
        let wrong = if outputs.is_file() {
            Some((format!("the file {named}"), "a folder"))
        } else if place(&outputs) == place(folder) {
            // Results among the images would be cases of the next run.
            Some((format!("{named}, which is read"), "another folder"))
        } else if !outputs.is_dir() && file_name(&outputs) != stem(&file_name(&outputs)) {
            Some((format!("{named}, the name of a file"), "another folder"))
        } else {
            None
        };
        if let Some((found, what)) = wrong {
            let expected = format!("{what}, as the input is one");
            return Err(Error::Usage { what: "--output".into(), found, expected });
        }
        let groups = grouped(files).map_err(|(case, channel)| Error::Input {
            path: folder.to_path_buf(),
            found: format!("{} beside {}", file_name(&case), file_name(&channel)),
            expected: "a case as one file, or as numbered channels".into(),
        })?;
        let list = groups.into_iter().map(|(name, images)| {
            let file = if args.output.is_some() { name.clone() } else { format!("{name}_{what}") };
            CaseFiles {
                output: outputs.join(format!("{file}.nii.gz")),
                preview: args.preview.as_ref().map(|to| to.join(format!("{file}.png"))),
                name,
                images,
            }
        });
        Ok(Self { list: list.collect(), batch: true })
    }
}

/// Joins `CASE_0000`, `CASE_0001` and so on, which are nnU-Net's names for the channels of a
/// case; files that are not numbered from 0 without a gap are cases of their own.
///
/// Where a case has a file without a number as well, those two files are the error.
fn grouped(
    files: BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, Vec<PathBuf>>, (PathBuf, PathBuf)> {
    let numbered = |case: &str, n: usize| files.get(&format!("{case}_{n:04}"));
    let mut cases: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (stem, path) in &files {
        let in_order = channel_of(stem)
            .filter(|(case, n)| (0..usize::from(*n)).all(|k| numbered(case, k).is_some()));
        if let Some(whole) = in_order.and_then(|(case, _)| files.get(case)) {
            return Err((whole.clone(), path.clone()));
        }
        let name = in_order.map_or(stem.as_str(), |(case, _)| case);
        cases.entry(name.to_owned()).or_default().push(path.clone());
    }
    Ok(cases)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The file a path leads to; for one that is not there, the place it would have.
fn place(path: &Path) -> PathBuf {
    let there = |path: &Path| path.canonicalize().ok();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    there(path).unwrap_or_else(|| {
        there(parent).unwrap_or_else(|| parent.to_path_buf()).join(file_name(path))
    })
}

/// `CASE` and the channel of nnU-Net's `CASE_0000`.
fn channel_of(stem: &str) -> Option<(&str, u16)> {
    let (case, digits) = stem.rsplit_once('_')?;
    let channel = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    (channel && !case.is_empty()).then(|| digits.parse().ok().map(|n| (case, n)))?
}

/// File name without its NIfTI ending.
fn stem(name: &str) -> &str {
    let cut = |name: &str, ending: &str| {
        let at = name.len().checked_sub(ending.len())?;
        let (start, end) = (name.get(..at)?, name.get(at..)?);
        end.eq_ignore_ascii_case(ending).then_some(start.len())
    };
    let end = cut(name, ".gz").unwrap_or(name.len());
    let name = &name[..end];
    &name[..cut(name, ".nii").unwrap_or(name.len())]
}

fn case_name(input: &Path) -> String {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = stem(&name);
    stem.strip_suffix("_0000").filter(|case| !case.is_empty()).unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_the_name_without_ending_and_channel() {
        for name in ["a/CT.nii.gz", "CT.nii", "CT.gz", "CT", "CT.NII.GZ", "CT_0000.nii.gz"] {
            assert_eq!(case_name(Path::new(name)), "CT", "{name}");
        }
        assert_eq!(case_name(Path::new("p.01.nii.gz")), "p.01");
        assert_eq!(case_name(Path::new("scan_2024.nii.gz")), "scan_2024");
        assert_eq!(case_name(Path::new("_0000.nii.gz")), "_0000");
    }

    #[test]
    fn channels_are_joined_only_where_they_are_numbered_from_0() {
        let names = ["a_0000", "a_0001", "b_0000", "scan_2024", "scan_2025", "c", "d_0001"];
        let files = names.iter().map(|n| ((*n).to_owned(), PathBuf::from(n))).collect();
        let cases: Vec<(String, usize)> = grouped(files)
            .expect("no two of one case")
            .into_iter()
            .map(|(name, images)| (name, images.len()))
            .collect();
        let expected =
            [("a", 2), ("b", 1), ("c", 1), ("d_0001", 1), ("scan_2024", 1), ("scan_2025", 1)];
        assert_eq!(cases, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
