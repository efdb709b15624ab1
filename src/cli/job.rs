//! What to do, checked before any work starts.

use super::args::{Mirror, PredictArgs};
use super::cases::Cases;
use super::peak;
use fastnnunet::infer::{self, EngineOptions};
use fastnnunet::io::Limits;
use fastnnunet::model::registry::Registry;
use fastnnunet::model::{Grade, Label, Model, ModelConfig, Request, Selection};
use fastnnunet::nnunet::{Folder, Folds};
use fastnnunet::pipeline::Options;
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::segmenter::{Network, Segmenter};
use fastnnunet::{Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A checked request.
pub(crate) struct Job {
    pub(crate) cases: Cases,
    /// The mode, where one was asked for.
    pub(crate) mode: Option<String>,
    pub(crate) options: Options,
    /// Labels of the previous stage of a cascade, where they come from files.
    pub(crate) previous: Option<PathBuf>,
    /// Bone labels to divide, and the structures there are then.
    pub(crate) subseg: Option<Vec<Label>>,
    /// One sentence: what runs, and why that.
    pub(crate) why: String,
    /// What it took to check the request and to open the models, once for all cases.
    pub(crate) opened: Duration,
    /// Structures of the mode that no model labels.
    pub(crate) missing: Vec<String>,
    /// Whether a model only shows that the program works. Trained folders have no grade.
    pub(crate) is_demonstration: bool,
}

impl Job {
    /// Checks the request and loads the networks, if possible others than those that are `too_large`.
    pub(crate) fn open(args: &PredictArgs, too_large: &[String]) -> Result<(Self, Segmenter)> {
        let started = Instant::now();
        let options = Options {
            mirror_axes: match &args.mirror {
                Mirror::Auto => None,
                Mirror::Axes(axes) => Some(axes.clone()),
            },
            step_size: args.step_size,
            use_gaussian: args.no_gaussian.then_some(false),
            isa: args.isa,
            keep_evidence: args.save_probabilities,
            memory_limit_bytes: args.memory_limit.or_else(peak::available_bytes),
            held_bytes: 0,
        };
        let engine = EngineOptions {
            device: args.device,
            arithmetic: args.precision,
            isa: args.isa,
            gpu_memory_limit_bytes: args.gpu_memory_limit,
        };
        let registry = &registry(args.models_dir.as_deref())?;
        let asked = match (&args.mode, &args.model) {
            (Some(mode), _) => {
                let limit = options.memory_limit_bytes;
                Asked::Mode(Box::new(select(args, mode, registry, limit, &engine, too_large)?))
            }
            (None, Some(model)) => Asked::named(args, model, registry)?,
            (None, None) => return Err(usage("--mode", "nothing", "a mode or a --model")),
        };
        let cases = Cases::find(args, &asked.name())?;
        cases.check_outputs(args)?;
        let config = args.config.as_deref().map(read_config).transpose()?;
        let mut job = Self {
            cases,
            mode: args.mode.clone(),
            options,
            previous: None,
            subseg: None,
            why: String::new(),
            opened: Duration::ZERO,
            missing: Vec::new(),
            is_demonstration: false,
        };
        let mut segmenter = match &asked {
            Asked::Mode(selection) => {
                if config.is_some() {
                    return Err(usage("--config", "a mode", "a --model"));
                }
                job.why.clone_from(&selection.why);
                job.missing.clone_from(&selection.missing);
                Segmenter::from_selection(selection, registry, &engine)?
            }
            Asked::Model(model) => {
                job.previous.clone_from(&args.previous_stage);
                let config = config.map_or_else(|| model.config(), Ok)?;
                if job.previous.is_some() && config.previous_stage.is_none() {
                    return Err(usage("--previous-stage", model.configuration, "a cascade"));
                }
                let registry = job.previous.is_none().then_some(&**registry);
                Segmenter::from_model(model, Some(config), registry, &engine)?
            }
            Asked::Folder(folder) => {
                if config.is_some() {
                    return Err(usage("--config", "a trained folder", "an ONNX model"));
                }
                let previous = job.previous_of(args, folder)?;
                Segmenter::from_folder(folder, previous.as_ref(), &engine)?
            }
        };
        if args.enable_subseg {
            job.subseg = Some(subseg(args, &asked)?);
        }
        if let Some(recipe) = recipe(&args.postprocess, &asked, &segmenter)? {
            segmenter.postprocess_with(recipe)?;
        }
        job.is_demonstration =
            !matches!(asked, Asked::Folder(_)) && segmenter.grade() == Grade::Demo;
        job.opened = started.elapsed();
        Ok((job, segmenter))
    }

    /// The trained folder a cascade refines, or none if labels come from files.
    fn previous_of(&mut self, args: &PredictArgs, folder: &Folder) -> Result<Option<Folder>> {
        let Some(beside) = folder.previous_stage() else {
            return match &args.previous_stage {
                None => Ok(None),
                Some(_) => Err(usage("--previous-stage", folder.configuration(), "a cascade")),
            };
        };
        let open = |path: &Path| Folder::open(path, &args.folds, args.checkpoint.as_deref());
        match &args.previous_stage {
            Some(given)
                if given.join("plans.json").is_file() && given.join("dataset.json").is_file() =>
            {
                open(given).map(Some)
            }
            Some(given) => {
                self.previous = Some(given.clone());
                Ok(None)
            }
            None if beside.is_dir() => open(&beside).map(Some),
            None => Err(Error::Model {
                model: folder.path().display().to_string(),
                found: format!("no {}", beside.display()),
                expected: "the folder of the first stage there, or --previous-stage".into(),
            }),
        }
    }

    /// How much of a file may be read.
    pub(crate) fn limits(&self) -> Limits {
        Limits { max_bytes: self.options.memory_limit_bytes.unwrap_or(u64::MAX) }
    }
}

/// What the user asked to run.
enum Asked {
    Mode(Box<Selection>),
    Model(Box<Model>),
    Folder(Box<Folder>),
}

impl Asked {
    fn named(args: &PredictArgs, given: &str, registry: &Registry) -> Result<Self> {
        let path = Path::new(given);
        if path.is_dir() {
            let checkpoint = args.checkpoint.as_deref();
            return Folder::open(path, &args.folds, checkpoint).map(|f| Self::Folder(Box::new(f)));
        }
        let of_folders =
            [("--folds", args.folds != Folds::Auto), ("--checkpoint", args.checkpoint.is_some())];
        if let Some((option, _)) = of_folders.into_iter().find(|(_, is_given)| *is_given) {
            return Err(usage(option, "--model without a folder", "a trained folder"));
        }
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
            let Some(config) = &args.config else {
                return Err(usage("--model", "an ONNX file", "--config with it"));
            };
            return Model::from_files(path, config).map(|m| Self::Model(Box::new(m)));
        }
        if let Some(model) = registry.find(given) {
            return Ok(Self::Model(Box::new(Model::clone(model))));
        }
        let names: Vec<&str> = registry.models().iter().map(|m| &*m.name).collect();
        let expected = format!("an ONNX file, a trained folder, or one of {}", names.join(", "));
        Err(usage("--model", given, &expected))
    }

    /// What outputs without a given name are called after.
    fn name(&self) -> String {
        match self {
            Self::Mode(selection) => selection.mode.clone(),
            Self::Model(model) => model.name.to_string(),
            Self::Folder(folder) => folder.configuration().to_owned(),
        }
    }
}

/// The program's models and, before them, those of a folder.
pub(crate) fn registry(folder: Option<&Path>) -> Result<Cow<'static, Registry>> {
    Ok(match folder {
        Some(folder) => {
            let registry = Registry::with_folder(folder)?;
            for mode in registry.modes() {
                for recipe in mode.choices.iter().filter_map(|choice| choice.recipe.as_deref()) {
                    if !Recipe::names().contains(&recipe) {
                        return Err(Error::Model {
                            model: folder.join("modes.json").display().to_string(),
                            found: format!("recipe {recipe} of mode {}", mode.name),
                            expected: format!("one of {}", Recipe::names().join(", ")),
                        });
                    }
                }
            }
            Cow::Owned(registry)
        }
        None => Cow::Borrowed(Registry::embedded()),
    })
}

fn usage(what: &str, found: &str, expected: &str) -> Error {
    Error::Usage { what: what.into(), found: found.into(), expected: expected.into() }
}

fn select(
    args: &PredictArgs,
    mode: &str,
    registry: &Registry,
    memory_limit_bytes: Option<u64>,
    engine: &EngineOptions,
    too_large: &[String],
) -> Result<Selection> {
    let request =
        Request { mode, quality: args.quality.as_deref(), variant: args.variant.as_deref() };
    // Whether its device takes it, and the host what it holds for a tile; how large the image
    // is nobody knows yet, but for models it was too large for.
    let fits = |model: &Model| {
        if too_large.iter().any(|name| *name == model.name) {
            return Ok(false);
        }
        let bytes = match infer::open(model, model.config()?.patch_size, engine) {
            Ok(engine) => engine.memory_bytes(rayon::current_num_threads()),
            Err(Error::Memory { .. }) => return Ok(false),
            // A user's own model that another device would run is not passed over in silence.
            Err(Error::Device { .. }) if model.is_embedded() => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(memory_limit_bytes.is_none_or(|limit| bytes <= limit))
    };
    let mut selection = registry.select(&request, &fits)?;
    if !args.roi.is_empty() {
        selection.keep_only(&args.roi)?;
    }
    Ok(selection)
}

/// The structures once bone is divided.
fn subseg(args: &PredictArgs, asked: &Asked) -> Result<Vec<Label>> {
    if let Asked::Mode(selection) = asked
        && let Some(table) = &selection.subseg
    {
        let is_whole = |label: &&Label| selection.labels.iter().any(|l| l.id == label.id);
        return Ok(table.labels.iter().filter(|label| !is_whole(label)).cloned().collect());
    }
    let mode = args.mode.as_deref().unwrap_or_default();
    Err(usage("--enable-subseg", &format!("mode {mode}"), "mode bone"))
}

/// The recipe of that name, which a mode or a model's configuration gives.
fn named(name: &str) -> Result<Recipe> {
    Recipe::for_mode(name)
        .ok_or_else(|| usage("recipe", name, &format!("one of {}", Recipe::names().join(", "))))
}

fn recipe(given: &str, asked: &Asked, segmenter: &Segmenter) -> Result<Option<Recipe>> {
    match (given, asked) {
        ("none", _) => Ok(None),
        ("default", Asked::Model(_)) => {
            let configs = segmenter.networks().map(Network::config);
            let mut names = configs.filter_map(|config| config.postprocessing.as_deref());
            names.next().map(named).transpose()
        }
        ("default", Asked::Mode(selection)) => selection.recipe.as_deref().map(named).transpose(),
        ("default", Asked::Folder(folder)) => folder
            .postprocessing()?
            .map(|rule| Recipe::from_nnunet_json(&rule.to_string()))
            .transpose(),
        (path, _) => {
            let path = Path::new(path);
            if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pkl")) {
                let rule = fastnnunet::nnunet::read_postprocessing(path)?;
                return Recipe::from_nnunet_json(&rule.to_string()).map(Some);
            }
            let text = read_text("--postprocess", path, "default, none, or a recipe")?;
            if text.contains("postprocessing_fns") {
                Recipe::from_nnunet_json(&text).map(Some)
            } else {
                Recipe::from_json(&text).map(Some)
            }
        }
    }
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    ModelConfig::from_json(&read_text("--config", path, "a JSON configuration")?).map_err(|error| {
        Error::Model {
            model: path.display().to_string(),
            found: format!("{} {}", error.field, error.found),
            expected: error.expected,
        }
    })
}

/// Recipes and configurations are longer by no mistake of a person.
const MAX_TEXT_BYTES: u64 = 4 << 20;

fn read_text(option: &str, path: &Path, what: &str) -> Result<String> {
    let read = || {
        let mut text = String::new();
        let mut file = File::open(path)?.take(MAX_TEXT_BYTES + 1);
        file.read_to_string(&mut text).map(|bytes| (bytes as u64, text))
    };
    let found = match read() {
        Ok((bytes, text)) if bytes <= MAX_TEXT_BYTES => return Ok(text),
        Ok(_) => format!("more than {} MiB", MAX_TEXT_BYTES >> 20),
        Err(error) => error.to_string(),
    };
    Err(usage(option, &format!("{}: {found}", path.display()), &format!("{what} that can be read")))
}
