//! Turns a trained folder, or the settings of FastnnUNet's engine, into this program's files.

use super::args::{ConvertArgs, existing};
use super::report;
use super::request::usage;
use fastnnunet::model::Name;
use fastnnunet::nnunet::{self, EngineIni, Folder, Folds};
use fastnnunet::{Error, Result, selftest};
use std::fmt::Write as _;
use std::path::Path;

/// Logits of the two networks may differ by this fraction of the largest.
const TOLERANCE: f32 = 1e-4;

pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    if args.source.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip")) {
        let found = format!("the archive {}", args.source.display());
        return Err(usage("convert", found, "a folder; `fastnnunet import` takes archives"));
    }
    if args.source.is_file() { settings(args) } else { folder(args) }
}

fn folder(args: &ConvertArgs) -> Result<()> {
    let folds: Folds = args.fold.as_deref().unwrap_or("auto").parse()?;
    if matches!(&folds, Folds::List(list) if list.len() != 1) {
        return Err(usage("--fold", args.fold.clone().unwrap_or_default(), "one fold"));
    }
    let folder = Folder::open(&args.source, &folds, args.checkpoint.as_deref())?;
    let name = match &args.name {
        Some(name) => checked(name)?,
        None => safe(folder.suggested_name())?,
    };
    let written = nnunet::convert(&folder, 0, &args.output, &name, existing(args.overwrite))?;
    let mut text = String::new();
    let fold = folder.folds()[0];
    let _ = writeln!(
        text,
        "model    {name}: {} of {}, fold {fold}",
        folder.configuration(),
        folder.trainer()
    );
    let megabytes = written.onnx_bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(text, "network  {} ({megabytes:.1} MiB)", written.onnx.display());
    let _ = writeln!(text, "config   {}", written.json.display());
    report::say(&text)?;
    if args.verify {
        verify(&folder, &written.onnx)?;
    }
    Ok(())
}

fn verify(folder: &Folder, onnx: &Path) -> Result<()> {
    let found = selftest::verify_converted(folder, 0, onnx)?;
    let [z, y, x] = folder.config().patch_size;
    report::say(&format!(
        "verify   patch {z}x{y}x{x}: largest difference {:.1e} of logits up to {:.3}, same label \
         in {:.4} % of voxels\n",
        found.largest,
        found.scale,
        100.0 * found.same_labels
    ))?;
    if found.relative() <= TOLERANCE {
        return Ok(());
    }
    Err(Error::Model {
        model: onnx.display().to_string(),
        found: format!("logits that differ by {} from the folder's", found.largest),
        expected: format!("at most {TOLERANCE} of the largest, {}", found.scale),
    })
}

fn settings(args: &ConvertArgs) -> Result<()> {
    let refused = |option| usage(option, args.source.display().to_string(), "a trained folder");
    if args.verify {
        return Err(refused("--verify"));
    }
    if args.fold.is_some() || args.checkpoint.is_some() {
        return Err(refused("--fold and --checkpoint"));
    }
    let ini = EngineIni::read(&args.source)?;
    let name = if let Some(name) = &args.name {
        checked(name)?
    } else {
        let file = ini.model_file.as_deref().map_or(args.source.as_path(), Path::new);
        safe(nnunet::model_name(&file.file_stem().unwrap_or_default().to_string_lossy()))?
    };
    let path = ini.write(&args.output, &name, existing(args.overwrite))?;
    let mut text = format!("config   {}\n", path.display());
    if let Some(file) = &ini.model_file {
        let _ = writeln!(text, "network  {file}, to be put beside it as {name}.onnx");
    }
    if let Some(classes) = ini.classes {
        let _ = writeln!(text, "labels   none named; the network has {classes} outputs");
    }
    if !ini.unused.is_empty() {
        let _ = writeln!(text, "unused   {}", ini.unused.join(", "));
    }
    report::say(&text)
}

/// A name the build and `--models-dir` take.
fn checked(name: &str) -> Result<Name> {
    if nnunet::model_name(name) == name {
        return safe(name.to_owned());
    }
    Err(usage("--name", name, "lowercase letters, digits and _, starting with a letter"))
}

/// What may name a file.
fn safe(name: String) -> Result<Name> {
    Name::new(name).map_err(|wrong| usage("--name", wrong.found, wrong.expected))
}
