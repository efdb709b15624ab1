//! From what was typed to what the library takes.

use super::args::PredictArgs;
use super::outputs::Wanted;
use super::{peak, user};
use fastnnunet::nnunet::{self, is_training};
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::registry::Registry;
use fastnnunet::{Error, Options, Postprocessing, PreviousStage, Result, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to open.
pub(crate) struct Request {
    pub(crate) source: Source,
    pub(crate) options: Options,
    /// Labels that a cascade refines, where they come from files: a label map, or a folder of label
    /// maps named like the cases.
    pub(crate) previous_stage: Option<PathBuf>,
    pub(crate) wanted: Wanted,
}

impl Request {
    pub(crate) fn new(args: &PredictArgs) -> Result<Self> {
        let wanted = Wanted::new(args)?;
        let source = source(args)?;
        if args.config.is_some() && matches!(source, Source::Mode(_)) {
            return Err(usage("--config", "a mode", "a model or a trained folder"));
        }
        let is_folder = matches!(source, Source::Folder { .. });
        let (stage, previous_stage) = match &args.previous_stage {
            None => (PreviousStage::Own, None),
            Some(path) if is_training(path) && is_folder => {
                (PreviousStage::Folder(path.clone()), None)
            }
            Some(path) => (PreviousStage::Given, Some(path.clone())),
        };
        let mut options = Options::default()
            .structures(&args.roi)
            .divide_bone(args.enable_subseg)
            .folds(args.folds.clone())
            .previous_stage(stage)
            .postprocessing(postprocessing(&args.postprocess)?)
            .labels(args.labels)
            .names(args.names)
            .robust_crop(args.robust_crop)
            .device(args.device)
            .skip_air(args.skip_air)
            .keep_probabilities(args.save_probabilities)
            // Objects and status files say by which models they were made.
            .digests(
                args.json
                    || args.cases.is_some()
                    || wanted.kinds.iter().any(|kind| kind.needs_series()),
            );
        options.quality = args.quality;
        options.variant.clone_from(&args.variant);
        options.models = models(args.models.models_dir.as_deref(), args.models.no_user_models)?;
        options.checkpoint.clone_from(&args.checkpoint);
        options.precision = args.precision.0;
        options.isa = args.isa;
        options.memory_limit_bytes = peak::limit_bytes(args.memory_limit);
        options.held_bytes = peak::own_bytes();
        options.picture =
            args.preview.is_some() || wanted.kinds.iter().any(|kind| kind.is_picture());
        options.gpu_memory_limit_bytes = args.gpu_memory_limit;
        options.mirror = args.mirror.0;
        options.step_size = args.step_size;
        options.gaussian = args.no_gaussian.then_some(false);
        Ok(Self { source, options, previous_stage, wanted })
    }
}

fn source(args: &PredictArgs) -> Result<Source> {
    let Some(given) = &args.model else {
        let mode = args.mode.clone();
        return mode.map(Source::Mode).ok_or_else(|| usage("--mode", "nothing", "a mode"));
    };
    source_of(given, args.config.as_deref())
}

/// What a model is that was given by name, or as a path.
pub(crate) fn source_of(given: &str, config: Option<&Path>) -> Result<Source> {
    let path = Path::new(given);
    let (own, config) = (path.to_path_buf(), config.map(Path::to_path_buf));
    if path.is_dir() {
        return Ok(Source::Folder { path: own, config });
    }
    if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        if path.is_file() {
            let expected = "an ONNX file, a trained folder of nnU-Net, or the name of a model; \
                            archives are for `fastnnunet import`";
            return Err(usage("--model", format!("the file {given}"), expected));
        }
        return Ok(Source::Model { name: given.to_owned(), config });
    }
    match config {
        Some(config) => Ok(Source::Onnx { onnx: own, config }),
        None => Err(usage("--model", "an ONNX file", "--config with it")),
    }
}

/// The program's models, before them the user's unless they are left out, and before those the ones
/// of a folder; `None` for the program's alone.
pub(crate) fn models(folder: Option<&Path>, no_user: bool) -> Result<Option<Arc<Registry>>> {
    let user = if no_user { None } else { user::models().filter(|folder| folder.is_dir()) };
    if folder.is_none() && user.is_none() {
        return Ok(None);
    }
    Registry::with_folders(user.as_deref(), folder).map(|registry| Some(Arc::new(registry)))
}

pub(crate) fn usage(what: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Usage { what: what.into(), found: found.into(), expected: expected.into() }
}

fn postprocessing(given: &str) -> Result<Postprocessing> {
    let recipe = match given {
        "default" => return Ok(Postprocessing::Own),
        "none" => return Ok(Postprocessing::None),
        path => {
            let path = Path::new(path);
            if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pkl")) {
                Recipe::from_nnunet_json(&nnunet::read_postprocessing(path)?.to_string())?
            } else {
                Recipe::open(path)?
            }
        }
    };
    Ok(Postprocessing::Recipe(recipe))
}
