//! `calibrate`: measures on scans what int8 needs to know of a model.

use super::args::{CalibrateArgs, existing};
use super::bar::Bar;
use super::{interrupt, report, request, table};
use fastnnunet::model::Agreement;
use fastnnunet::segmenter::{Calibration, calibrate, with_threads};
use fastnnunet::{Options, Result, Scan, Source};
use std::ops::ControlFlow;
use std::path::Path;

/// Structures listed, those with the least Dice.
const LISTED: usize = 10;

pub(crate) fn run(args: &CalibrateArgs) -> Result<()> {
    let measured = match args.threads {
        Some(threads) => with_threads(threads.into(), || measure(args))??,
        None => measure(args)?,
    };
    measured.save(&args.output, existing(args.overwrite))?;
    report::say(&text(args, &measured))
}

fn measure(args: &CalibrateArgs) -> Result<Calibration> {
    let path = Path::new(&args.model);
    let is_file = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    let source = match (&args.config, is_file) {
        (Some(config), true) => Source::Onnx { onnx: path.to_path_buf(), config: config.clone() },
        (None, false) => Source::Model { name: args.model.clone(), config: None },
        (None, true) => return Err(request::usage("--config", "nothing", "the ONNX file's JSON")),
        (Some(_), false) => {
            return Err(request::usage("--config", "a model's name", "an ONNX file"));
        }
    };
    let mut options = Options::default();
    options.models = request::models(args.models_dir.as_deref(), false)?;
    options.isa = args.isa;
    let scans = args.input.iter().map(Scan::open).collect::<Result<Vec<_>>>()?;
    interrupt::listen();
    let mut bar = Bar::new(args.quiet);
    let mut progress = |progress| {
        bar.show(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let measured = calibrate(&source, &scans, &options, &mut progress);
    bar.clear();
    measured
}

/// What was measured, in a few lines.
fn text(args: &CalibrateArgs, measured: &Calibration) -> String {
    let mut structures: Vec<_> = measured.structures.iter().collect();
    structures.sort_by(|a, b| a.dice.total_cmp(&b.dice));
    let mut rows = vec![["structure", "ml", "Dice", "scan"].map(str::to_owned).to_vec()];
    rows.extend(structures.iter().take(LISTED).map(|structure| {
        vec![
            structure.name.clone(),
            format!("{:.1}", structure.volume_ml),
            format!("{:.4}", structure.dice),
            args.input[structure.scan].display().to_string(),
        ]
    }));
    let agreement = match measured.quantization.agreement {
        None => "nothing found in any scan: no Dice".to_owned(),
        Some(Agreement { scans, mean_dice, least_dice }) => {
            let chosen = if measured.quantization.is_close() { "" } else { " not" };
            format!(
                "mean Dice {mean_dice:.4} of {} structures in {scans} scans, at least {least_dice:.4} \
                 from {} ml on: auto does{chosen} take int8",
                structures.len(),
                Agreement::LEAST_VOLUME_ML,
            )
        }
    };
    format!("{}{agreement}\nconfig   {}\n", table::render(&rows), args.output.display())
}
