//! Segments cases: the program's main job.

use super::args::PredictArgs;
use super::bar::Bar;
use super::cases::CaseFiles;
use super::job::Job;
use super::load::{Loaded, Loader};
use super::summary::{DEMONSTRATION, Summary};
use super::{interrupt, peak, report};
use fastnnunet::model::Label;
use fastnnunet::pipeline::postprocess::cortical;
use fastnnunet::pipeline::{Options, Progress, Stage};
use fastnnunet::segmenter::Segmenter;
use fastnnunet::volume::{Grid, LabelMap};
use fastnnunet::{Error, Result, io, pipeline, preview};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

/// Returns the exit code of a run whose cases are done, each reported.
pub(crate) fn run(args: &PredictArgs) -> Result<u8> {
    interrupt::listen();
    if let Some(threads) = args.threads {
        use_threads(threads)?;
    }
    let mut bar = Bar::new(args.quiet);
    // Models that the image has made too large: how large it is, nobody knows when the first is
    // chosen.
    let mut too_large: Vec<String> = Vec::new();
    let mut least: Option<(u64, Error)> = None;
    loop {
        let (job, mut segmenter) = Job::open(args, &too_large)?;
        let names: Vec<String> = segmenter.networks().map(|n| n.info().name.clone()).collect();
        if names.iter().all(|name| too_large.contains(name))
            && let Some((_, error)) = least
        {
            return Err(error);
        }
        match run_job(args, &job, &mut segmenter, &mut bar) {
            Err(error @ Error::Memory { need_bytes, .. })
                if !job.cases.batch && job.mode.is_some() =>
            {
                too_large.extend(names);
                if least.as_ref().is_none_or(|(bytes, _)| need_bytes < *bytes) {
                    least = Some((need_bytes, error));
                }
            }
            result => return result,
        }
    }
}

fn run_job(args: &PredictArgs, job: &Job, segmenter: &mut Segmenter, bar: &mut Bar) -> Result<u8> {
    if args.verbose || job.cases.batch && !args.quiet {
        bar.note(&format!("models   {}", if job.why.is_empty() { "as asked" } else { &job.why }));
    }
    if !args.quiet && !job.missing.is_empty() {
        bar.note(&format!("note: no model here labels {}", job.missing.join(", ")));
    }
    // The summary of a single case says so itself.
    if job.is_demonstration && !args.quiet && (job.cases.batch || args.json) {
        bar.note(&format!("note: {DEMONSTRATION}"));
    }
    let result = if job.cases.batch {
        run_batch(args, job, segmenter, bar)
    } else {
        run_one(args, job, segmenter, bar).map(|()| 0)
    };
    bar.clear();
    result
}

fn run_one(args: &PredictArgs, job: &Job, segmenter: &mut Segmenter, bar: &mut Bar) -> Result<()> {
    let files = &job.cases.list[0];
    if files.is_done(args) {
        bar.note(&format!("{} exists, left as it is", files.output.display()));
        let skipped = serde_json::json!({"skipped": [files.name]});
        return if args.json { report::say(&format!("{skipped}\n")) } else { Ok(()) };
    }
    bar.show(Progress { stage: Stage::Load, done: 0, total: 1, memory: None });
    let loaded = loader(args, job, segmenter).load(files)?;
    let summary = segment(args, job, files, loaded, segmenter, bar, false)?;
    bar.clear();
    if args.json {
        report::say(&format!("{}\n", summary.to_json()))?;
    } else if !args.quiet {
        report::say(&summary.to_text())?;
    }
    Ok(())
}

/// Runs all cases; the next one is read while one runs. A case that fails is reported and
/// does not end the run, unless nothing could be written or the user stops it.
fn run_batch(
    args: &PredictArgs,
    job: &Job,
    segmenter: &mut Segmenter,
    bar: &mut Bar,
) -> Result<u8> {
    let (done, todo): (Vec<&CaseFiles>, Vec<&CaseFiles>) =
        job.cases.list.iter().partition(|files| files.is_done(args));
    let loader = loader(args, job, segmenter);
    let (mut well, mut summaries) = (0, Vec::new());
    let mut failed: Vec<(&CaseFiles, Error)> = Vec::new();
    let mut interrupted = false;
    std::thread::scope(|scope| {
        // A rendezvous: one case is read ahead, none waits in memory.
        let (send, receive) = mpsc::sync_channel(0);
        let ahead = todo.clone();
        scope.spawn(move || {
            for files in ahead {
                if send.send(loader.load(files)).is_err() {
                    return;
                }
            }
        });
        for (k, files) in todo.iter().enumerate() {
            bar.note_if(!args.quiet, &format!("[{}/{}] {}", k + 1, todo.len(), files.name));
            let result = receive.recv().unwrap_or(Err(Error::Interrupted)).and_then(|loaded| {
                let more = k + 1 < todo.len();
                segment(args, job, files, loaded, segmenter, bar, more)
            });
            match result {
                Ok(summary) => {
                    well += 1;
                    bar.note_if(!args.quiet, &summary.to_line());
                    if args.json {
                        summaries.push(summary.to_json());
                    }
                }
                Err(Error::Interrupted) => {
                    interrupted = true;
                    return;
                }
                Err(error) => {
                    bar.note(&format!("{}: {}", files.name, report::chain(&error)));
                    let is_last = ends_the_run(&error, &files.output);
                    failed.push((files, error));
                    if is_last {
                        return;
                    }
                }
            }
        }
    });
    bar.clear();
    if args.json {
        let failures: Vec<_> = failed
            .iter()
            .map(|(files, error)| {
                serde_json::json!({
                    "case": files.name,
                    "error": report::chain(error),
                    "exit_code": error.exit_code(),
                })
            })
            .collect();
        let skipped: Vec<&str> = done.iter().map(|files| files.name.as_str()).collect();
        let all = serde_json::json!({"cases": summaries, "failed": failures, "skipped": skipped});
        report::say(&format!("{all}\n"))?;
    } else if !args.quiet {
        let left = todo.len() - well - failed.len();
        let left = if left > 0 { format!(", {left} not begun") } else { String::new() };
        let (badly, skipped) = (failed.len(), done.len());
        report::say(&format!("{well} done, {badly} failed, {skipped} skipped{left}\n"))?;
    }
    if interrupted {
        return Err(Error::Interrupted);
    }
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|(files, _)| files.name.as_str()).collect();
        let names = names.join(", ");
        report::tell(&format!("error: {} of {} cases failed: {names}", failed.len(), todo.len()));
    }
    Ok(failed.iter().map(|(_, error)| error.exit_code()).max().unwrap_or(0))
}

/// Whether what kept one result from being written will keep the others from it, such as a full disk.
fn ends_the_run(error: &Error, output: &Path) -> bool {
    match error {
        Error::Write { source, .. } => {
            source.kind() != std::io::ErrorKind::AlreadyExists || !output.exists()
        }
        _ => false,
    }
}

fn loader(args: &PredictArgs, job: &Job, segmenter: &Segmenter) -> Loader {
    Loader {
        reader: segmenter.reader(),
        images: segmenter.images(),
        limits: job.limits(),
        previous: job.previous.clone(),
        digests: args.json,
    }
}

fn segment<'a>(
    args: &PredictArgs,
    job: &'a Job,
    files: &'a CaseFiles,
    loaded: Loaded,
    segmenter: &'a mut Segmenter,
    bar: &mut Bar,
    more: bool,
) -> Result<Summary<'a>> {
    let started = Instant::now();
    let Loaded { case, affine, header, warnings, sha256, time: load_time } = loaded;
    if !args.quiet {
        for warning in &warnings {
            bar.note(&format!("warning: {warning}"));
        }
    }
    let grid = case.grid.clone();
    // In a batch the next case is read meanwhile; nobody knows its size, so that of this one.
    let held_bytes = if more { case.image_bytes() } else { 0 };
    let options = Options { held_bytes, ..job.options.clone() };
    let finishing = finishing_bytes(args, job, files, segmenter, &case) + held_bytes;
    if let Some(limit_bytes) = options.memory_limit_bytes
        && finishing > limit_bytes
    {
        return Err(Error::Memory {
            what: "reading the image once more for the picture or the parts of bone".into(),
            need_bytes: finishing,
            limit_bytes,
        });
    }
    let mut told = None;
    let mut progress = |progress: Progress| {
        if args.verbose && progress.memory.is_some() && progress.memory != told {
            told = progress.memory;
            let finish = pipeline::Memory { bytes: finishing, during: "finishing" };
            if let Some(pipeline::Memory { bytes, during }) = told.max(Some(finish)) {
                let mib = bytes as f64 / f64::from(1 << 20);
                bar.note(&format!("memory   {mib:.0} MiB expected at peak ({during})"));
            }
        }
        bar.show(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut outcome = segmenter.segment(case, &options, &mut progress)?;

    let mut timings = vec![(Stage::Load, load_time)];
    for (stage, time) in outcome.runs.iter().flat_map(|run| &run.timings) {
        match timings.iter_mut().find(|(known, _)| known == stage) {
            Some((_, sum)) => *sum += *time,
            None => timings.push((*stage, *time)),
        }
    }
    let cleaning = Instant::now();
    let mut labels = segmenter.labels().to_vec();
    let replace = args.replaces_files_beside();
    // What goes wrong with the files beside it is told once the label map is safe.
    let mut beside = match outcome.evidence.take() {
        Some(evidence) => evidence.save_npz(&files.probabilities(), replace),
        None => Ok(()),
    };
    // The networks normalized the images in place; what needs them again reads them again.
    let mut ct = None;
    if job.subseg.is_some() || files.preview.is_some() {
        match io::load_as(&files.images[0], segmenter.reader(), job.limits()) {
            Ok(scan) => ct = Some(scan.volume.data),
            Err(error) if job.subseg.is_some() => return Err(error),
            Err(error) => beside = beside.and(Err(error)),
        }
    }
    if let (Some(ct), Some(parts)) = (&ct, &job.subseg) {
        divide_bone(ct, &mut outcome.labels, &grid, &labels, parts);
        labels.clone_from(parts);
    }
    timings.push((Stage::Postprocess, outcome.postprocess_time + cleaning.elapsed()));

    let saving = Instant::now();
    bar.show(Progress { stage: Stage::Save, done: 0, total: 1, memory: None });
    if let (Some(ct), Some(path)) = (&ct, &files.preview) {
        let title = format!("{} {}", files.name, job.mode.as_deref().unwrap_or_default());
        let picture =
            preview::draw(ct.view(), (&outcome.labels).into(), &grid, &labels, title.trim());
        beside = beside.and(preview::save(path, &picture, replace));
    }
    io::save_labels(&files.output, (&outcome.labels).into(), &header, args.overwrite)?;
    beside?;
    timings.push((Stage::Save, saving.elapsed()));
    Ok(Summary {
        job,
        files,
        networks: segmenter.networks().collect(),
        grade: segmenter.grade(),
        grid,
        affine,
        labels,
        finishing_bytes: finishing,
        outcome,
        input_sha256: sha256,
        warnings,
        timings,
        total: load_time + started.elapsed(),
        peak_bytes: peak::peak_bytes(),
    })
}

/// Bytes held once the networks are done, where the first image is needed again; else 0.
fn finishing_bytes(
    args: &PredictArgs,
    job: &Job,
    files: &CaseFiles,
    segmenter: &Segmenter,
    case: &pipeline::Case,
) -> u64 {
    if files.preview.is_none() && !args.enable_subseg {
        return 0;
    }
    let (shape, spacing) = (case.grid.shape, case.grid.spacing);
    let voxels: u64 = shape.iter().map(|&n| n as u64).product();
    let label = if segmenter.labels().iter().any(|l| l.id >= u16::from(u8::MAX)) { 2 } else { 1 };
    let split = match job.subseg {
        Some(_) => cortical::split_bytes(shape, spacing, rayon::current_num_threads()),
        None => 0,
    };
    segmenter.idle_bytes() + voxels * (size_of::<f32>() as u64 + label) + split
}

/// Gives every bone the labels of its cortical and trabecular parts.
fn divide_bone(
    ct: &ndarray::Array3<f32>,
    labels: &mut LabelMap,
    grid: &Grid,
    whole: &[Label],
    parts: &[Label],
) {
    let id = |word: &str| parts.iter().find(|label| label.name.starts_with(word)).map(|l| l.id);
    let (Some(cortical), Some(trabecular)) = (id("cortical"), id("trabecular")) else { return };
    if let LabelMap::U8(narrow) = labels
        && cortical.max(trabecular) > u16::from(u8::MAX)
    {
        *labels = LabelMap::U16(narrow.mapv(u16::from));
    }
    let bones: Vec<cortical::Bone> = whole
        .iter()
        .map(|label| cortical::Bone { label: label.id, cortical, trabecular })
        .collect();
    match labels {
        LabelMap::U8(labels) => {
            let mut map = pipeline::postprocess::Map::new(labels.view_mut(), grid.spacing);
            cortical::split(ct.view(), &mut map, &bones);
        }
        LabelMap::U16(labels) => {
            let mut map = pipeline::postprocess::Map::new(labels.view_mut(), grid.spacing);
            cortical::split(ct.view(), &mut map, &bones);
        }
    }
}

pub(super) fn use_threads(threads: u16) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    built.map_err(|error| Error::Usage {
        what: "--threads".into(),
        found: format!("{threads} ({error})"),
        expected: "a number of threads the system can start".into(),
    })
}
