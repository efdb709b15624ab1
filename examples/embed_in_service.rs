//! A service that keeps one engine and segments case after case in a thread pool of its own.
//!
//! Run with `cargo run --release --example embed_in_service -- CT.nii.gz ...`; labels go to
//! the system's temporary folder.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use fastnnunet::registry::{Registry, Request};
use fastnnunet::{Result, infer, io, pipeline};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let cases: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // A pool of the service's own bounds the threads of everything inside `install`.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    pool.install(|| -> Result<()> {
        let request = Request { mode: "bone", ..Request::default() };
        let selection = Registry::embedded().select(&request, &|_| Ok(true))?;
        let model = selection.model();
        let config = model.config();
        // Weights are loaded once and serve every case.
        let mut engine = infer::open(model, config.patch_size, &infer::EngineOptions::default())?;
        for case in &cases {
            match segment(case, &config, engine.as_mut()) {
                Ok(output) => println!("{} -> {}", case.display(), output.display()),
                // One bad case must not end the service.
                Err(error) => eprintln!("{}: {error}", case.display()),
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn segment(
    case: &Path,
    config: &fastnnunet::model::ModelConfig,
    engine: &mut dyn infer::Engine,
) -> Result<PathBuf> {
    let scan = io::load(case, io::Limits::default())?;
    let result = pipeline::segment_volume(
        scan.volume,
        config,
        engine,
        &pipeline::Options::default(),
        &mut |progress| {
            eprintln!("{} {}/{}", progress.stage.name(), progress.done, progress.total);
            ControlFlow::Continue(())
        },
    )?;
    let name = case.file_stem().unwrap_or_default().to_string_lossy().replace(".nii", "");
    let output = std::env::temp_dir().join(format!("{name}_bone.nii.gz"));
    io::save_labels(&output, (&result.labels).into(), &scan.header, true)?;
    Ok(output)
}
