//! `calibrate`: measures on scans what int8 needs to know of a model or a trained folder.

use super::args::{CalibrateArgs, existing};
use super::bar::Bar;
use super::{interrupt, peak, report, request, table};
use fastnnunet::model::Agreement;
use fastnnunet::segmenter::{Calibration, Uncalibrated};
use fastnnunet::{Options, Result, Scan, Source};
use std::ops::ControlFlow;

/// Structures listed, those with the least Dice.
const LISTED: usize = 10;

pub(crate) fn run(args: &CalibrateArgs) -> Result<()> {
    let existing = existing(args.overwrite);
    Calibration::check_output(&args.output, existing)?;
    let measured = measure(args)?;
    measured.save(&args.output, existing)?;
    report::say(&text(args, &measured))
}

fn measure(args: &CalibrateArgs) -> Result<Calibration> {
    let source = request::source_of(&args.model, args.config.as_deref())?;
    if let (Some(_), Source::Model { .. } | Source::Folder { .. }) = (&args.config, &source) {
        return Err(request::usage("--config", "a model with its own", "an ONNX file"));
    }
    let mut options = Options::default().folds(args.folds.clone());
    options.checkpoint.clone_from(&args.checkpoint);
    options.models = request::models(args.models_dir.as_deref(), false)?;
    options.isa = args.isa;
    options.memory_limit_bytes = peak::limit_bytes(args.memory_limit);
    options.held_bytes = peak::own_bytes();
    let uncalibrated = Uncalibrated::open(&source, &options)?;
    let (mut read, mut scans) = (uncalibrated.read_options(), Vec::new());
    for path in &args.input {
        let scan = Scan::open_with(path, &read)?;
        read.max_bytes = read.max_bytes.saturating_sub(scan.voxels().bytes());
        scans.push(scan);
    }
    let mut bar = Bar::new(args.quiet);
    let mut progress = |progress| {
        bar.show(progress);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let measured = uncalibrated.measure(&scans, &mut progress);
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
    let agreement = match &measured.agreement {
        None => format!(
            "no structure of {} ml or more in any scan: no Dice",
            Agreement::LEAST_VOLUME_ML
        ),
        Some(agreement @ Agreement { scans, mean_dice, least_dice }) => {
            let chosen = if agreement.is_close() { "" } else { " not" };
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
