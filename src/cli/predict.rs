//! Segments one case: the program's main job.

use super::args::PredictArgs;
use super::bar::Bar;
use super::job::Job;
use super::summary::Summary;
use super::{interrupt, peak};
use fastnnunet::pipeline::{self, Progress, Stage};
use fastnnunet::{Error, Result, infer, io};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &PredictArgs) -> Result<()> {
    let job = Job::new(args)?;
    interrupt::listen();
    if let Some(threads) = args.threads {
        use_threads(threads)?;
    }
    io::check_writable(&job.output, args.overwrite)?;
    let mut engine = infer::open(job.model, job.config.patch_size, &job.engine)?;

    let mut bar = Bar::new(args.quiet);
    let result = segment(args, &job, engine.as_mut(), &mut bar);
    bar.clear();
    let summary = result?;
    if args.json {
        println!("{}", summary.to_json());
    } else if !args.quiet {
        print!("{}", summary.to_text());
    }
    Ok(())
}

fn segment<'a>(
    args: &PredictArgs,
    job: &'a Job,
    engine: &mut dyn infer::Engine,
    bar: &mut Bar,
) -> Result<Summary<'a>> {
    let started = Instant::now();
    bar.show(Progress { stage: Stage::Load, done: 0, total: 1 });
    let limits = io::Limits { max_bytes: job.options.memory_limit_bytes.unwrap_or(u64::MAX) };
    let (scan, sha256) = rayon::join(
        || io::load(&job.input, limits),
        || args.json.then(|| digest(&job.input)).transpose(),
    );
    let io::Scan { volume, header, warnings } = scan?;
    let sha256 = sha256?;
    let load = (Stage::Load, started.elapsed());
    if !args.quiet {
        for warning in &warnings {
            bar.note(&format!("warning: {warning}"));
        }
    }

    let grid = volume.grid.clone();
    let mut progress = |progress: Progress| {
        bar.show(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let segmentation =
        pipeline::segment_volume(volume, &job.config, engine, &job.options, &mut progress)?;

    let saving = Instant::now();
    bar.show(Progress { stage: Stage::Save, done: 0, total: 1 });
    io::save_labels(&job.output, (&segmentation.labels).into(), &header, args.overwrite)?;
    let mut timings = vec![load];
    timings.extend(&segmentation.timings);
    timings.push((Stage::Save, saving.elapsed()));
    Ok(Summary {
        job,
        grid,
        segmentation,
        input_sha256: sha256,
        device: engine.device().to_string(),
        precision: engine.precision(),
        warnings,
        timings,
        total: started.elapsed(),
        peak_bytes: peak::peak_bytes(),
    })
}

fn use_threads(threads: u16) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    built.map_err(|error| Error::Usage {
        what: "--threads".into(),
        found: format!("{threads} ({error})"),
        expected: "a number of threads the system can start".into(),
    })
}

/// SHA-256 of a file, lowercase hexadecimal.
fn digest(path: &Path) -> Result<String> {
    let read = |source| Error::Read { path: path.to_path_buf(), source };
    let mut file = std::fs::File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
