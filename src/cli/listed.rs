//! Cases that a file lists: which run, in which order, and the status of each.

use super::args::PredictArgs;
use super::cases::{CaseFiles, Cases, images_of, labels_in, place};
use super::load::{Loaded, Loader};
use super::outputs::{Outputs, Wanted, with_end};
use super::peak;
use super::predict::{Open, Tally};
use super::report;
use super::request::{Request, usage};
use fastnnunet::cohort::{
    self, Asked, Entry, Input, Output, Shard, Standing, Status, Terms, Work, digest_of,
};
use fastnnunet::io::{Outline, ReadOptions};
use fastnnunet::model::Label;
use fastnnunet::{Access, Error, Result, Segmentation};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a status file is called, behind the name of what it is beside.
const STATUS: &str = ".status.json";

/// Cases that have the same models.
pub(super) struct Group {
    /// What was typed, with what the list says of these cases.
    pub(super) args: PredictArgs,
    pub(super) cases: Vec<(Entry, Outputs)>,
}

/// Runs the cases of a list, those of one model after those of another.
pub(crate) fn run(args: &PredictArgs, list: &Path) -> Result<u8> {
    let mut groups = groups(args, list)?;
    if let Some(shard) = args.shard {
        let costs = costs(&groups)?;
        keep(&mut groups, &costs, shard);
    }
    let todo: usize = groups.iter().map(|group| group.cases.len()).sum();
    // What is wrong with a model or an output is told before hours of work, not between them.
    let mut first = None;
    let mut found = Vec::new();
    for group in &groups {
        let open = Open::new(&group.args, Request::new(&group.args)?)?;
        let (cases, failed) = group.find();
        cases.check_outputs(&group.args, open.segmenter.structures())?;
        found.push((cases, failed));
        // Models of one group at a time are held.
        first = (groups.len() == 1).then_some(open);
    }
    let mut tally = Tally::new(todo, args);
    for (group, (cases, failed)) in groups.iter().zip(&found) {
        let open = match first.take() {
            Some(open) => open,
            None => Open::new(&group.args, Request::new(&group.args)?)?,
        };
        let networks = &open.segmenter.about().networks;
        let terms = Terms::new(networks, options(&group.args)?);
        let record = Record { terms, skips: args.skip_existing };
        let mut job = open.with(&group.args, cases).recorded(record);
        job.announce();
        for (files, error) in failed {
            tally.begin();
            job.tell_failure(files, error);
            tally.fail(&files.name, error);
        }
        let files: Vec<&CaseFiles> = cases.list.iter().collect();
        let goes_on = job.batch(&files, &mut tally);
        job.clear();
        if goes_on == ControlFlow::Break(()) {
            break;
        }
    }
    tally.tell(args)
}

/// Reads the list, and joins the cases that have the same models, in the order of the first of each.
pub(super) fn groups(args: &PredictArgs, list: &Path) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<Asked, usize> = HashMap::new();
    let mut written: HashMap<PathBuf, usize> = HashMap::new();
    let given = args.mode.clone().map(Asked::Mode).or(args.model.clone().map(Asked::Model));
    let entries = cohort::read(list)?;
    let read = read_by(args, &entries);
    for entry in entries {
        let line = format!("{}, line {}", list.display(), entry.line);
        if args.config.is_some() && entry.asked.is_some() {
            return Err(usage(&line, "a mode or model", "none beside --config"));
        }
        let Some(asked) = entry.asked.clone().or_else(|| given.clone()) else {
            let expected = "one of them there, or --mode or --model for all";
            return Err(usage(&line, "neither mode nor model", expected));
        };
        let outputs = outputs_of(args, &entry).map_err(|error| within(error, &line))?;
        let paths = outputs.files.iter().map(|file| file.path.clone());
        for path in paths.chain([outputs.beside(STATUS)]) {
            let at = place(&path);
            if let Some(other) = read.get(&at) {
                let found = format!("{}, which line {other} reads", path.display());
                return Err(usage(&line, found, "an output that is no input"));
            }
            if let Some(other) = written.insert(at, entry.line) {
                let found = format!("{}, which line {other} writes", path.display());
                return Err(usage(&line, found, "another output for each case"));
            }
        }
        let at = *places.entry(asked.clone()).or_insert_with(|| {
            groups.push(Group { args: asking(args, asked), cases: Vec::new() });
            groups.len() - 1
        });
        groups[at].cases.push((entry, outputs));
    }
    Ok(groups)
}

/// Where all that the cases read is, and the first line that reads it: whatever share or group a case is
/// in, no other may write there.
fn read_by(args: &PredictArgs, entries: &[Entry]) -> HashMap<PathBuf, usize> {
    let mut read = HashMap::new();
    for entry in entries {
        let stem = OsStr::new(entry.id.as_str());
        let stage = args.previous_stage.iter();
        let stage = stage.flat_map(|path| labels_in(path, stem).into_iter().chain([path.clone()]));
        for path in entry.inputs.iter().cloned().chain(stage) {
            read.entry(place(&path)).or_insert(entry.line);
        }
    }
    read
}

/// What was typed as if it asked for this. Whether a case is done its status says; what is there of one
/// that is not is replaced.
fn asking(args: &PredictArgs, asked: Asked) -> PredictArgs {
    let (mode, model) = match asked {
        Asked::Mode(mode) => (Some(mode), None),
        Asked::Model(model) => (None, Some(model)),
    };
    let overwrite = args.overwrite || args.skip_existing;
    PredictArgs { mode, model, overwrite, skip_existing: false, ..args.clone() }
}

/// The files that a case is written to.
fn outputs_of(args: &PredictArgs, entry: &Entry) -> Result<Outputs> {
    let output = entry.output.clone().or_else(|| args.output.clone());
    let args = PredictArgs { output, ..args.clone() };
    Wanted::new(&args)?.of_listed(&args, entry)
}

/// The same sentence, with the line that it is about.
fn within(error: Error, line: &str) -> Error {
    match error {
        Error::Usage { what, found, expected } => {
            Error::Usage { what: format!("{line}: {what}"), found, expected }
        }
        other => other,
    }
}

/// What each case takes, group by group, as the list or the headers of images say.
///
/// # Errors
///
/// What keeps a header from being read this time or here, and not the next time or elsewhere: runs that do
/// not know the same of all cases share them out differently, and some would be in no share.
pub(super) fn costs(groups: &[Group]) -> Result<Vec<Vec<f64>>> {
    groups.iter().map(Group::costs).collect()
}

/// Whether another run may well read the header that this one could not.
fn may_do_elsewhere(error: &Error) -> bool {
    let is_denied = |source: &std::io::Error| source.kind() == ErrorKind::PermissionDenied;
    let denied = matches!(error, Error::Read { source, .. } if is_denied(source));
    denied || cohort::is_worth_a_retry(error)
}

/// Leaves the cases of one share, and no group without any.
fn keep(groups: &mut Vec<Group>, costs: &[Vec<f64>], shard: Shard) {
    let cases = groups.iter().flat_map(|group| &group.cases);
    let costs = costs.iter().flatten();
    let all: Vec<(&str, f64)> =
        cases.zip(costs).map(|((entry, _), &cost)| (entry.id.as_str(), cost)).collect();
    let mut shares = cohort::shares(&all, shard.count()).into_iter();
    for group in &mut *groups {
        group.cases.retain(|_| shares.next() == Some(shard.index()));
    }
    groups.retain(|group| !group.cases.is_empty());
}

impl Group {
    fn costs(&self) -> Result<Vec<f64>> {
        let given: Option<Vec<f64>> = self.cases.iter().map(|(entry, _)| entry.cost).collect();
        if let Some(given) = given {
            return Ok(given);
        }
        let Request { source, options, .. } = Request::new(&self.args)?;
        let work = Work::of(&source, &options)?;
        let options = ReadOptions { max_bytes: u64::MAX, ..ReadOptions::default() };
        let cost = |(entry, _): &(Entry, Outputs)| {
            let outline = Outline::open(&entry.inputs[0], &options);
            match outline.and_then(|outline| work.cost(&outline.grid)) {
                Ok(cost) => Ok(cost as f64),
                Err(error) if may_do_elsewhere(&error) => Err(error),
                // Whoever gets it says what is wrong, in no time.
                Err(_) => Ok(0.0),
            }
        };
        self.cases.par_iter().map(cost).collect()
    }

    /// The cases, and those whose images cannot be read.
    fn find(&self) -> (Cases, Vec<(CaseFiles, Error)>) {
        let (mut list, mut failed) = (Vec::new(), Vec::new());
        for (entry, outputs) in &self.cases {
            let images = images_of(&entry.inputs, &self.args);
            let args = &self.args;
            let beside = |folder: &Option<PathBuf>, ending: &str| {
                folder.as_ref().map(|to| to.join(with_end(entry.id.as_str().as_ref(), ending)))
            };
            let files = CaseFiles {
                name: entry.id.to_string(),
                stem: entry.id.as_str().into(),
                images: Vec::new(),
                outputs: outputs.clone(),
                preview: beside(&args.preview, ".png"),
                statistics: beside(&args.statistics, ".json"),
                probabilities: args.save_probabilities.then(|| outputs.beside(".npz")),
            };
            match images {
                Ok(images) => list.push(CaseFiles { images, ..files }),
                Err(error) => failed.push((files, error)),
            }
        }
        (Cases { list, batch: true, ..Cases::default() }, failed)
    }
}

/// Keeps the status of each case, and tells by it whether one is done.
#[derive(Clone)]
pub(super) struct Record {
    terms: Terms,
    /// Whether cases that are done are left out.
    skips: bool,
}

impl Record {
    /// Reads a case, unless it is done.
    pub(super) fn load(
        &self,
        files: &CaseFiles,
        structures: &[Label],
        loader: &Loader,
    ) -> Result<Option<Loaded>> {
        let reads = loader.reads(files);
        let mut again = None;
        if self.skips {
            let (status, outputs) = (status_of(files), outputs_written(files, structures));
            match cohort::standing(&status, &self.terms, &reads, &outputs)? {
                Standing::Done => return Ok(None),
                Standing::Open(why) => again = why,
            }
        }
        // Before they are read: of a file that is replaced meanwhile, the status has a digest that it
        // no longer has, and the case is computed once more.
        let input = |files: &Vec<PathBuf>| {
            Ok::<_, Error>(Input { path: files[0].clone(), sha256: digest_of(files)? })
        };
        let inputs = reads.iter().map(input).collect::<Result<Vec<_>>>()?;
        let loaded = loader.load(files)?;
        Ok(Some(Loaded { again, inputs, ..loaded }))
    }

    /// Says that a case is done.
    pub(super) fn done(
        &self,
        files: &CaseFiles,
        inputs: Vec<Input>,
        done: &Segmentation,
        total: Duration,
    ) -> Result<()> {
        let path = status_of(files);
        let written = outputs_written(files, &done.structures);
        let mut status = Status::new(&files.name, &self.terms, inputs).wrote(&path, &written)?;
        status.answered_by = done.about.networks.iter().map(cohort::Model::from).collect();
        status.seconds = total.as_secs_f64();
        status.peak_bytes = peak::peak_bytes();
        status.save(&path, done.access())
    }

    /// Says why a case is not done.
    pub(super) fn failed(&self, files: &CaseFiles, error: &Error) -> Result<()> {
        let message = report::shown(&report::chain(error)).into_owned();
        let status = Status::new(&files.name, &self.terms, Vec::new());
        let mut status = status.failed(error, message, report::exit_code(error));
        status.peak_bytes = peak::peak_bytes();
        status.save(&status_of(files), Access::ANYONE)
    }
}

fn status_of(files: &CaseFiles) -> PathBuf {
    files.outputs.beside(STATUS)
}

/// The files of a case by what they are, for a result with these structures.
fn outputs_written(files: &CaseFiles, structures: &[Label]) -> Vec<Output> {
    let output =
        |kind: &str, path: PathBuf| Output { kind: kind.to_owned(), path, sha256: String::new() };
    let outputs = files.outputs.files.iter().flat_map(|file| {
        file.files(structures).into_iter().map(|path| output(file.kind.name(), path))
    });
    let beside = [
        ("preview", &files.preview),
        ("statistics", &files.statistics),
        ("probabilities", &files.probabilities),
    ];
    let beside = beside.into_iter().filter_map(|(kind, path)| Some(output(kind, path.clone()?)));
    outputs.chain(beside).collect()
}

/// What was asked for that a result depends on, beside models and outputs. Files that are named count by
/// what is in them.
fn options(args: &PredictArgs) -> Result<Value> {
    // All are named, so that whoever adds one decides.
    let PredictArgs {
        input: _,
        cases: _,
        shard: _,
        #[cfg(feature = "dicom")]
            series: _,
        output: _,
        output_type: _,
        #[cfg(feature = "dicom")]
        seg_encoding,
        #[cfg(feature = "dicom")]
        new_uids,
        mode,
        task: _,
        quality,
        variant,
        enable_subseg,
        roi,
        model: _,
        config,
        models: _,
        folds: _,
        checkpoint: _,
        previous_stage: _,
        postprocess,
        names,
        robust_crop,
        labels,
        device,
        precision,
        isa,
        mirror,
        step_size,
        no_gaussian,
        skip_air,
        threads: _,
        memory_limit: _,
        gpu_memory_limit: _,
        #[cfg(feature = "cuda")]
            kernels: _,
        preview: _,
        statistics: _,
        save_probabilities: _,
        overwrite: _,
        skip_existing: _,
        verbose: _,
        quiet: _,
        json: _,
    } = args;
    let is_file = !["default", "none"].contains(&postprocess.as_str());
    let postprocess = if is_file { digest_of(&[postprocess])? } else { postprocess.clone() };
    let config = config.as_ref().map(|config| digest_of(&[config])).transpose()?;
    let options = json!({
        "mode": mode,
        "quality": quality.map(fastnnunet::Quality::name),
        "variant": variant,
        "enable_subseg": enable_subseg,
        "roi": roi,
        "config": config,
        "postprocess": postprocess,
        "names": format!("{names:?}").to_lowercase(),
        "robust_crop": robust_crop,
        "labels": format!("{labels:?}").to_lowercase(),
        "device": device.to_string(),
        "precision": precision.0.map(|precision| precision.to_string()),
        "isa": isa.map(fastnnunet::infer::cpu::Isa::name),
        "mirror": mirror.0,
        "step_size": step_size,
        "no_gaussian": no_gaussian,
        "skip_air": skip_air,
    });
    #[cfg(feature = "dicom")]
    let options = {
        let mut options = options;
        options["seg_encoding"] = json!(seg_encoding.map(|encoding| format!("{encoding:?}")));
        options["new_uids"] = json!(new_uids);
        options
    };
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_run_may_read_ends_this_one() {
        let read = |kind: ErrorKind| Error::Read { path: "x".into(), source: kind.into() };
        for (kind, expected) in [
            (ErrorKind::PermissionDenied, true),
            (ErrorKind::TimedOut, true),
            (ErrorKind::NotFound, false),
            (ErrorKind::InvalidData, false),
        ] {
            assert_eq!(may_do_elsewhere(&read(kind)), expected, "{kind}");
        }
        let odd = Error::Volume { found: "a".into(), expected: "b".into() };
        assert!(!may_do_elsewhere(&odd));
    }
}
