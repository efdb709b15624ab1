//! What is written of each case, and under which names.

use super::args::PredictArgs;
use super::request::usage;
use fastnnunet::cohort::Entry;
use fastnnunet::model::{Label, Name};
use fastnnunet::{Existing, OutputType, Result};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// A file to write.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) kind: OutputType,
    pub(crate) path: PathBuf,
}

impl Output {
    /// The files of it, for a result with these structures.
    pub(crate) fn files(&self, structures: &[Label]) -> Vec<PathBuf> {
        self.kind.files(&self.path, structures)
    }

    fn is_whole(&self, structures: &[Label]) -> bool {
        self.files(structures).iter().all(|file| is_whole(file))
    }

    /// On what terms it is to be made; `None` where it is not: under `--skip-existing`, what is there
    /// whole stays, and what is not whole is replaced.
    pub(crate) fn wanted_over(&self, args: &PredictArgs, structures: &[Label]) -> Option<Existing> {
        // Whoever goes on where a run was stopped has some of a folder's files.
        match args.skip_existing && (self.kind.is_folder() || self.path.exists()) {
            true if self.is_whole(structures) => None,
            true => Some(Existing::Replace),
            false => Some(args.existing()),
        }
    }
}

/// The files of one case.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    /// In the order they are written; at least one.
    pub(crate) files: Vec<Output>,
    /// Their path without ending: where files beside them go.
    stem: PathBuf,
}

impl Outputs {
    /// The first of them: what a case is known by.
    pub(crate) fn first(&self) -> &Path {
        &self.files[0].path
    }

    /// A file beside them, under their name.
    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        self.stem.with_file_name(with_end(self.stem.file_name().unwrap_or_default(), ending))
    }

    /// Whether each of them is there, for a result with these structures.
    pub(crate) fn are_whole(&self, structures: &[Label]) -> bool {
        self.files.iter().all(|file| file.is_whole(structures))
    }

    /// Whether any of them shows or measures the image.
    pub(crate) fn need_image(&self) -> bool {
        self.files.iter().any(|file| file.kind.needs_image())
    }

    /// Fails unless each type can be made of an image that is a series or none.
    pub(crate) fn check_source(&self, is_series: bool, image: &Path) -> Result<()> {
        match self.files.iter().find(|file| file.kind.needs_series() && !is_series) {
            None => Ok(()),
            Some(Output { kind, .. }) => {
                let found = format!("{kind} of {}, which is no DICOM series", image.display());
                Err(usage("--output-type", found, "a DICOM series for it"))
            }
        }
    }

    /// Fails if a report of this run would name a segmentation that an earlier one gave another UID, or a
    /// report that is there one that this run gives another.
    #[cfg(feature = "dicom")]
    pub(crate) fn check_uids(&self, args: &PredictArgs) -> Result<()> {
        if !(args.new_uids && args.skip_existing) {
            return Ok(());
        }
        let path = |kind| self.files.iter().find(|file| file.kind == kind).map(|file| &file.path);
        let [Some(seg), Some(report)] = [OutputType::DicomSeg, OutputType::Sr].map(path) else {
            return Ok(());
        };
        let (there, missing) = match [seg, report].map(|path| is_whole(path)) {
            [true, false] => (seg, report),
            [false, true] => (report, seg),
            _ => return Ok(()),
        };
        let found = format!("{} without {}", there.display(), missing.display());
        Err(usage("--new-uids", found, "both or neither, as the report names the segmentation"))
    }

    /// Files in a folder.
    pub(crate) fn in_folder(folder: &Path, stem: &OsStr, kinds: &[OutputType]) -> Self {
        let file =
            |&kind: &OutputType| Output { kind, path: folder.join(with_end(stem, kind.suffix())) };
        Self { files: kinds.iter().map(file).collect(), stem: folder.join(stem) }
    }
}

/// What `--output` and `--output-type` ask for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// In the order they are written; at least one.
    pub(crate) kinds: Vec<OutputType>,
    /// The file that `--output` names, if it names one.
    file: Option<PathBuf>,
}

impl Wanted {
    pub(crate) fn new(args: &PredictArgs) -> Result<Self> {
        let wanted = Self::of(args)?;
        #[cfg(feature = "dicom")]
        wanted.check_choices(args)?;
        Ok(wanted)
    }

    fn of(args: &PredictArgs) -> Result<Self> {
        let given = |kind: &OutputType| args.output_type.contains(kind);
        let kinds: Vec<OutputType> = OutputType::all().filter(given).collect();
        let path = args.output.as_deref().filter(|path| !is_folder(path));
        if let ([kind], Some(folder)) = (&kinds[..], &args.output)
            && kind.is_folder()
        {
            let file = Some(folder.clone());
            return Ok(Self { kinds, file });
        }
        let fitting = path.map(OutputType::of_name).unwrap_or_default();
        let Some(path) = path.filter(|_| !fitting.is_empty()) else {
            let kinds = if kinds.is_empty() { vec![OutputType::Nifti] } else { kinds };
            return Ok(Self { kinds, file: None });
        };
        let named = path.display().to_string();
        let kind = match (&kinds[..], &fitting[..]) {
            ([], &[only]) | (&[only], _) if only.ending_of(path) > 0 => only,
            (&[only], _) => {
                let endings = only.endings().join(" or ");
                let expected = format!("a name that ends in {endings} for {only}, or a folder");
                return Err(usage("--output", named, expected));
            }
            ([], several) => {
                let names: Vec<&str> = several.iter().map(|kind| kind.name()).collect();
                let expected = format!("--output-type with it, one of {}", names.join(", "));
                return Err(usage("--output", named, expected));
            }
            (several, _) => {
                let found = format!("{named}, the name of one file");
                let expected = format!("a folder for {} types of output", several.len());
                return Err(usage("--output", found, expected));
            }
        };
        Ok(Self { kinds: vec![kind], file: Some(path.to_path_buf()) })
    }

    /// Fails if there are choices for types that are not written.
    #[cfg(feature = "dicom")]
    fn check_choices(&self, args: &PredictArgs) -> Result<()> {
        if args.new_uids && !self.kinds.iter().any(|kind| kind.needs_series()) {
            return Err(usage("--new-uids", "no type that has UIDs", "one of DICOM"));
        }
        if args.seg_encoding.is_some() && !self.kinds.contains(&OutputType::DicomSeg) {
            return Err(usage("--seg-encoding", "no dicom-seg", "--output-type dicom-seg"));
        }
        Ok(())
    }

    /// The one file that was named, if one was.
    fn of_file(&self) -> Option<Outputs> {
        let (path, kind) = (self.file.as_ref()?, self.kinds[0]);
        let mut stem = path.clone();
        let name = path.file_name().map_or(0, OsStr::len) - kind.ending_of(path);
        while stem.extension().is_some() && stem.file_name().is_some_and(|n| n.len() > name) {
            stem.set_extension("");
        }
        Some(Outputs { files: vec![Output { kind, path: path.clone() }], stem })
    }

    /// The files of a case of a list: what was named, or those called by its id in the folder that was.
    pub(crate) fn of_listed(&self, args: &PredictArgs, entry: &Entry) -> Result<Outputs> {
        let is_own = entry.output.is_some();
        // A folder of files that a line names is that of its case alone; --output is for all cases.
        let named = self.of_file().filter(|_| is_own || !self.kinds[0].is_folder());
        if let Some(outputs) = named {
            return Ok(outputs);
        }
        let folder = args.output_or_default();
        if is_own {
            self.check_folder(folder)?;
        }
        Ok(Outputs::in_folder(folder, OsStr::new(entry.id.as_str()), &self.kinds))
    }

    /// The files of a single case; `what` names the mode or model.
    pub(crate) fn of_one(&self, args: &PredictArgs, case: &OsStr, what: &Name) -> Result<Outputs> {
        if let Some(outputs) = self.of_file() {
            return Ok(outputs);
        }
        let folder = args.output_or_default();
        self.check_folder(folder)?;
        Ok(Outputs::in_folder(folder, &with_end(case, &format!("_{what}")), &self.kinds))
    }

    /// Fails if what was named for one case, and is no file to write, looks like a file.
    fn check_folder(&self, named: &Path) -> Result<()> {
        if is_folder(named) || named.extension().is_none() && !named.exists() {
            return Ok(());
        }
        let endings: Vec<&str> =
            self.kinds.iter().flat_map(|kind| kind.endings()).copied().collect();
        let expected = format!("a name that ends in {}, or a folder", endings.join(" or "));
        Err(usage("--output", named.display().to_string(), expected))
    }
}

/// Whether a file is there, and not as empty as a full disk may leave what others wrote.
pub(super) fn is_whole(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// A name and what comes behind it.
pub(super) fn with_end(stem: &OsStr, ending: &str) -> OsString {
    let mut name = stem.to_owned();
    name.push(ending);
    name
}

/// Whether a path is that of a folder: one that is there, or a name that ends like one.
fn is_folder(path: &Path) -> bool {
    let ends = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    ends || path.is_dir()
}

/// Random bytes and the time of this moment, where the clock on the wall stands.
#[cfg(feature = "dicom")]
pub(crate) fn fresh() -> Result<fastnnunet::dicom::write::Fresh> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| {
        let found = format!("no random numbers ({error})");
        usage("--new-uids", found, "a system that gives some")
    })?;
    let now = chrono::Local::now();
    let [date, time] = ["%Y%m%d", "%H%M%S"].map(|form| now.format(form).to_string());
    Ok(fastnnunet::dicom::write::Fresh { salt, date, time })
}
