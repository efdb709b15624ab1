//! Segments cases: the program's main job.

mod tally;

pub(crate) use tally::Tally;

use super::args::PredictArgs;
use super::bar::Bar;
use super::cases::{CaseFiles, Cases};
#[cfg(feature = "cuda")]
use super::kernels;
use super::listed::{self, Record};
use super::load::{Loaded, Loader};
use super::outputs::Wanted;
use super::request::{Request, usage};
use super::summary::{DEMONSTRATION, Summary, weights};
use super::{interrupt, peak, report, threads};
#[cfg(feature = "dicom")]
use fastnnunet::OutputType;
use fastnnunet::pipeline::{Progress, Stage};
use fastnnunet::{Case, Error, Result, Scan, Segmentation, Segmenter};
use std::borrow::Cow;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A run whose models are open.
pub(super) struct Job<'a> {
    args: &'a PredictArgs,
    cases: &'a Cases,
    segmenter: Segmenter,
    loader: Loader,
    bar: Bar,
    /// What it took to open the models, once for all cases.
    opened: Duration,
    /// Keeps the status of each case, where that is wanted.
    record: Option<Record>,
}

/// Returns the exit code of a run whose cases are done, each reported.
pub(crate) fn run(args: &PredictArgs) -> Result<u8> {
    if let Some(list) = &args.cases {
        return listed::run(args, list);
    }
    if let Some(shard) = args.shard {
        return Err(usage("--shard", format!("{shard} of --input"), "--cases with it"));
    }
    let open = Open::new(args, Request::new(args)?)?;
    let cases = Cases::find(args, &open.wanted, open.segmenter.name())?;
    cases.check_outputs(args, open.segmenter.structures())?;
    let mut job = open.with(args, &cases);
    job.announce();
    let result = if cases.batch { job.whole_batch() } else { job.single().map(|()| 0) };
    job.bar.clear();
    result
}

/// Models that are open, before it is known for which cases.
pub(super) struct Open {
    pub(super) segmenter: Segmenter,
    wanted: Wanted,
    previous_stage: Option<PathBuf>,
    bar: Bar,
    opened: Duration,
}

impl Open {
    pub(super) fn new(args: &PredictArgs, request: Request) -> Result<Self> {
        let started = Instant::now();
        let Request { source, options, previous_stage, wanted } = request;
        let notes =
            options.models.as_ref().map(|models| models.notes().to_vec()).unwrap_or_default();
        #[cfg(feature = "cuda")]
        let notes =
            [notes, Vec::from_iter(kernels::keep(args.kernels.kernel_cache.as_ref(), args.device))]
                .concat();
        let bar = Bar::new(args.quiet);
        // Before anything can fail: what was left out may be why.
        for note in notes.iter().filter(|_| !args.quiet) {
            bar.note(&format!("note: {note}"));
        }
        let segmenter = Segmenter::open_with(source, options)?;
        if let (Some(task), true) = (&args.task, segmenter.about().is_demonstration) {
            let expected = "its weights, which `fastnnunet import` takes (docs/weights.md)";
            let found = format!("{task}, of which there is a demonstration");
            return Err(usage("--task", found, expected));
        }
        Ok(Self { segmenter, wanted, previous_stage, bar, opened: started.elapsed() })
    }

    /// The run for these cases.
    pub(super) fn with<'a>(self, args: &'a PredictArgs, cases: &'a Cases) -> Job<'a> {
        let Self { segmenter, previous_stage, bar, opened, .. } = self;
        let images = 0..segmenter.images();
        let expect_ct = images.map(|channel| segmenter.expects_ct(channel)).collect();
        let options = segmenter.read_options();
        let loader = Loader { expect_ct, options, previous_stage };
        Job { args, cases, segmenter, loader, bar, opened, record: None }
    }
}

impl<'a> Job<'a> {
    /// The same, and it keeps a status of each case.
    pub(super) fn recorded(self, record: Record) -> Self {
        Self { record: Some(record), ..self }
    }

    /// Says what was chosen, where the summary of a single case will not.
    pub(super) fn announce(&self) {
        let (args, about) = (self.args, self.segmenter.about());
        let batch = self.cases.batch;
        if args.verbose || batch && !args.quiet {
            let choice = if about.choice.is_empty() { "as asked" } else { &about.choice };
            self.bar.note(&format!("models   {choice}"));
            for text in about.networks.iter().filter_map(weights) {
                self.bar.note(&format!("weights  {text}"));
            }
        }
        if !args.quiet && !about.missing.is_empty() {
            self.bar.note(&format!("note: no model here labels {}", about.missing.join(", ")));
        }
        for doubt in self.cases.doubts.iter().filter(|_| !args.quiet) {
            self.bar.note(&format!("note: {doubt}"));
        }
        if let Some(modality) = about.modality.as_ref().filter(|_| !args.quiet) {
            self.bar.note(&format!(
                "note: these weights segment {modality}, which the images have to be"
            ));
        }
        if about.is_demonstration && !args.quiet && (batch || args.json) {
            self.bar.note(&format!("note: {DEMONSTRATION}"));
        }
    }

    fn single(&mut self) -> Result<()> {
        let (args, cases) = (self.args, self.cases);
        let files = &cases.list[0];
        if files.is_done(args, self.segmenter.structures()) {
            let first = files.outputs.first().display();
            self.bar.note(&format!("{first} exists, left as it is"));
            let skipped = serde_json::json!({"skipped": [files.name]});
            return if args.json { report::say(&format!("{skipped}\n")) } else { Ok(()) };
        }
        self.bar.show(Progress { stage: Stage::Load, done: 0, total: 1, memory: None });
        let loaded = self.loader.load(files)?;
        let summary = self.segment(files, loaded, false)?;
        self.bar.clear();
        if args.json {
            report::say(&format!("{}\n", summary.to_json()))?;
        } else if !args.quiet {
            report::say(&summary.to_text())?;
        }
        Ok(())
    }

    /// Runs all cases, those first that are over before they begin.
    fn whole_batch(&mut self) -> Result<u8> {
        let (args, cases, structures) = (self.args, self.cases, self.segmenter.structures());
        let (done, todo): (Vec<&CaseFiles>, Vec<&CaseFiles>) =
            cases.list.iter().partition(|files| files.is_done(args, structures));
        let mut tally = Tally::new(todo.len() + cases.failed.len(), args);
        for (name, error) in &cases.failed {
            self.bar.note(&format!("{name}: {}", report::chain(error)));
            tally.fail(name, error);
        }
        for files in done {
            tally.skip(&files.name);
        }
        let _ = self.batch(&todo, &mut tally);
        self.bar.clear();
        tally.tell(args)
    }

    /// Runs cases; the next one is read while one runs. A case that fails is reported and does not end
    /// the run, unless nothing could be written or the user stops it.
    pub(super) fn batch(&mut self, todo: &[&'a CaseFiles], tally: &mut Tally) -> ControlFlow<()> {
        let args = self.args;
        let structures = &self.segmenter.structures().to_vec();
        let (loader, record) = (self.loader.clone(), self.record.clone());
        // Another run may have finished a case meanwhile.
        let load = move |files: &CaseFiles| match &record {
            _ if files.is_done(args, structures) => Ok(None),
            Some(record) => record.load(files, structures, &loader),
            None => loader.load(files).map(Some),
        };
        thread::scope(|scope| {
            // A rendezvous: one case is read ahead, none waits in memory.
            let (send, receive) = mpsc::sync_channel(0);
            let ahead = todo.to_vec();
            let read = load.clone();
            let reading = move || {
                for files in ahead {
                    if threads::is_alone() || send.send(read(files)).is_err() {
                        return;
                    }
                }
            };
            // Where no thread can be started, each case is read when its turn comes.
            let _ = thread::Builder::new().spawn_scoped(scope, reading);
            for (k, files) in todo.iter().enumerate() {
                let more = k + 1 < todo.len();
                let loaded = receive.recv().unwrap_or_else(|_| load(files));
                let place = tally.begin();
                if !matches!(loaded, Ok(None)) {
                    self.bar.note_if(!args.quiet, &format!("{place} {}", files.name));
                }
                let result = loaded.and_then(|loaded| {
                    loaded.map(|loaded| self.segment(files, loaded, more)).transpose()
                });
                match result {
                    Ok(None) => tally.skip_late(&files.name),
                    // Another run was first, with the same.
                    Err(Error::Write { .. }) if files.is_done(args, structures) => {
                        tally.skip_late(&files.name);
                    }
                    Ok(Some(summary)) => {
                        self.bar.note_if(!args.quiet, &summary.to_line());
                        tally.succeed(args.json.then(|| summary.to_json()));
                    }
                    Err(Error::Interrupted) => {
                        tally.interrupt();
                        return ControlFlow::Break(());
                    }
                    Err(error) => {
                        self.tell_failure(files, &error);
                        tally.fail(&files.name, &error);
                        if ends_the_run(&error) {
                            return ControlFlow::Break(());
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.clear();
    }

    /// Says why a case is not done, on the line and in its status.
    pub(super) fn tell_failure(&self, files: &CaseFiles, error: &Error) {
        self.bar.note(&format!("{}: {}", files.name, report::chain(error)));
        // A result that is there is another run's, and so is what its status says.
        let record = self.record.as_ref().filter(|_| !is_there(error));
        let kept = record.map_or(Ok(()), |record| record.failed(files, error));
        if let Err(error) = kept {
            self.bar.note(&format!("{}: {}", files.name, report::chain(&error)));
        }
    }

    fn segment(&mut self, files: &'a CaseFiles, loaded: Loaded, more: bool) -> Result<Summary<'a>> {
        let started = Instant::now();
        let args = self.args;
        if !args.quiet {
            if let Some(why) = &loaded.again {
                self.bar.note(&format!("note: {}: {why}, so it is computed again", files.name));
            }
            for warning in &loaded.warnings {
                self.bar.note(&format!("warning: {warning}"));
            }
        }
        // In a batch the next case is read meanwhile; nobody knows its size, so that of this one.
        let held_bytes = if more { loaded.bytes() } else { 0 };
        let Loaded { mut scans, previous_stage, warnings, inputs, time: load_time, .. } = loaded;
        let affine = scans[0].affine();
        let sha256 = scans.iter().filter_map(|scan| scan.sha256().map(str::to_owned)).collect();
        // Pictures show the first image and statistics measure it; what nothing needs afterwards is
        // handed over.
        let is_needed =
            files.preview.is_some() || files.statistics.is_some() || files.outputs.need_image();
        let shown = is_needed.then(|| scans.remove(0));
        let lent = shown.iter().map(Cow::Borrowed);
        let mut case = Case::new(lent.chain(scans.into_iter().map(Cow::Owned)));
        if let Some(labels) = previous_stage {
            case = case.previous_stage(labels);
        }
        let mut progress = progress(&mut self.bar, args.verbose);
        let mut done = self.segmenter.segment_with(case, held_bytes, &mut progress)?;
        drop(progress);
        let mut timings = vec![(Stage::Load, load_time)];
        timings.append(&mut done.timings);

        let saving = Instant::now();
        self.bar.show(Progress { stage: Stage::Save, done: 0, total: 1, memory: None });
        let title = format!("{} {}", files.name, args.mode.as_deref().unwrap_or_default());
        write(args, files, &done, shown.as_ref(), title.trim())?;
        // What goes wrong with the files beside them is told once the outputs are safe.
        if let (Some(path), Some(probabilities)) = (&files.probabilities, done.probabilities.take())
        {
            let existing = args.existing_beside();
            probabilities.save_npz(path, existing, done.access())?;
        }
        if let (Some(scan), Some(path)) = (&shown, &files.preview) {
            done.preview(scan, title.trim()).save(path, args.existing_beside(), done.access())?;
        }
        if let (Some(scan), Some(path)) = (&shown, &files.statistics) {
            done.statistics(scan).save(path, args.existing_beside())?;
        }
        timings.push((Stage::Save, saving.elapsed()));
        let total = load_time + started.elapsed();
        if let Some(record) = &self.record {
            record.done(files, inputs, &done, total)?;
        }
        Ok(Summary {
            mode: args.mode.as_deref(),
            opened: self.opened,
            files,
            affine,
            done,
            input_sha256: sha256,
            warnings,
            timings,
            total,
            peak_bytes: peak::peak_bytes(),
        })
    }
}

/// Writes what was asked for; under `--skip-existing`, what is not there whole.
fn write(
    args: &PredictArgs,
    files: &CaseFiles,
    done: &Segmentation,
    image: Option<&Scan>,
    title: &str,
) -> Result<()> {
    let mut writer = done.writer().title(title);
    if let Some(image) = image {
        writer = writer.image(image);
    }
    #[cfg(feature = "dicom")]
    {
        writer = writer.seg_encoding(args.seg_encoding.unwrap_or_default());
        if args.new_uids {
            writer = writer.fresh(super::outputs::fresh()?);
        }
    }
    let over = |output: &super::outputs::Output| output.wanted_over(args, &done.structures);
    let outputs: Vec<_> = files.outputs.files.iter().map(|o| (o, over(o))).collect();
    let wanted = outputs.iter().filter(|(_, over)| over.is_some());
    writer = writer.expecting(&wanted.map(|(output, _)| output.kind).collect::<Vec<_>>());
    for (output, over) in outputs {
        match over {
            Some(existing) => {
                writer = writer.existing(existing);
                writer.write(output.kind, &output.path)?;
            }
            // What a report beside it refers to.
            #[cfg(feature = "dicom")]
            None if output.kind == OutputType::DicomSeg => {
                writer = writer.present_seg(&output.path);
            }
            None => {}
        }
    }
    Ok(())
}

/// Shows progress and, once it is known and asked for, the memory expected; stops the run when the
/// user does.
fn progress(
    bar: &mut Bar,
    verbose: bool,
) -> impl FnMut(Progress) -> ControlFlow<()> + Send + use<'_> {
    let mut told = None;
    move |progress: Progress| {
        if verbose && progress.memory.is_some() && progress.memory != told {
            told = progress.memory;
            if let Some(memory) = told {
                let mib = memory.bytes as f64 / f64::from(1 << 20);
                bar.note(&format!("memory   {mib:.0} MiB expected at peak ({})", memory.during));
            }
        }
        bar.show(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Whether what kept one result from being written will keep the others from it, such as a full disk.
fn ends_the_run(error: &Error) -> bool {
    matches!(error, Error::Write { .. }) && !is_there(error)
}

/// Whether a result was not written because there is one.
fn is_there(error: &Error) -> bool {
    match error {
        Error::Write { path, source } => source.kind() == ErrorKind::AlreadyExists && path.exists(),
        _ => false,
    }
}
