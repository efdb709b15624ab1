//! From what a user asks for to open networks, and what becomes of their labels.

use super::group::{Group, Part};
use super::network::{Network, check_file};
use super::options::{Options, Postprocessing, PreviousStage, Source};
use super::segmentation::About;
use crate::files::Allowance;
use crate::infer::EngineOptions;
use crate::model::{Grade, Label, ModelConfig, Name};
use crate::nnunet::Folder;
use crate::pipeline::postprocess::Recipe;
use crate::pipeline::postprocess::sides::Pair;
use crate::registry::{Model, Registry, Request, Selection, read_json, sides_of};
use crate::{Error, Mismatch, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Networks that are open, and what becomes of their labels.
pub(super) struct Answer {
    pub(super) groups: Vec<Group>,
    /// The structures that can come out of the networks.
    pub(super) labels: Vec<Label>,
    /// Structures that only the recipe sees.
    pub(super) context: Vec<Label>,
    pub(super) recipe: Recipe,
    /// Structures that models label without a side, and what is known of sides.
    pub(super) sides: Sides,
    /// The structures once bone is divided, where it is.
    pub(super) divided: Option<Vec<Label>>,
    pub(super) about: About,
}

/// What tells sides apart.
#[derive(Default)]
pub(super) struct Sides {
    /// Left and right of what is left until it is known where it lies.
    pub(super) halves: Vec<Pair>,
    /// Left and right of structures whose side the models know.
    pub(super) known: Vec<Pair>,
}

impl Sides {
    /// Of these halves and structures.
    fn new(halves: impl Iterator<Item = (u16, u16)>, seen: &[Label]) -> Self {
        let halves: Vec<Pair> = halves.map(|(left, right)| Pair { left, right }).collect();
        let pair = |label: &Label| {
            let (left, right) = sides_of(label.name.strip_suffix("_left")?, seen)?;
            Some(Pair { left, right })
        };
        let known = seen.iter().filter_map(pair).filter(|pair| !halves.contains(pair)).collect();
        Self { halves, known }
    }
}

/// The structures of a whole answer with those only the recipe sees, by id.
fn seen(labels: &[Label], context: &[Label]) -> Vec<Label> {
    let mut seen = [labels, context].concat();
    seen.sort_by_key(|label| label.id);
    seen
}

impl Answer {
    /// Opens what answers `source`, in a mode if possible with other models than those that are
    /// `too_large`.
    pub(super) fn open(source: &Source, options: &Options, too_large: &[String]) -> Result<Self> {
        let opening = Opening {
            options,
            engine: EngineOptions {
                device: options.device,
                precision: options.precision,
                isa: options.isa,
                gpu_memory_limit_bytes: options.gpu_memory_limit_bytes,
                memory_limit_bytes: options.memory_limit_bytes,
                held_bytes: options.base_bytes(),
            },
            registry: options.models.as_deref().unwrap_or(Registry::embedded()),
            depth: 0,
        };
        match source {
            Source::Mode(mode) => opening.mode(mode, too_large),
            Source::Model { name, config } => {
                opening.not_for_a_model()?;
                let model = named(opening.registry, name)?;
                opening.model(model, config.as_deref().map(read_config).transpose()?)
            }
            Source::Onnx { onnx, config } => {
                opening.not_for_a_model()?;
                check_file(onnx, &opening.engine)?;
                opening.model(&Model::from_files(onnx, config)?, None)
            }
            Source::Folder { path, config } => {
                opening.folder(path, config.as_deref().map(read_config).transpose()?)
            }
        }
    }

    /// What the recipe works on, by id: the same however few of them remain in the end.
    pub(super) fn seen(&self) -> Vec<Label> {
        seen(&self.labels, &self.context)
    }

    /// The structures that can come out in the end.
    pub(super) fn structures(&self) -> &[Label] {
        self.divided.as_deref().unwrap_or(&self.labels)
    }

    /// The networks, in the order they run.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.groups.iter().flat_map(Group::networks)
    }

    /// Runs each network once on nothing.
    pub(super) fn warm(&mut self) -> Result<()> {
        self.groups.iter_mut().try_for_each(Group::warm)
    }

    /// The configuration that says how images are read and how many there are.
    pub(super) fn config(&self) -> &ModelConfig {
        self.groups[0].parts[0].network.config()
    }
}

/// The model of that name.
pub(super) fn named<'a>(registry: &'a Registry, name: &str) -> Result<&'a Model> {
    registry.find(name).map(|model| &**model).ok_or_else(|| {
        let names: Vec<&str> = registry.models().iter().map(|m| &*m.name).collect();
        Error::usage("model", name, format!("one of {}", names.join(", ")))
    })
}

/// What an answer is opened with.
pub(super) struct Opening<'a> {
    pub(super) options: &'a Options,
    pub(super) engine: EngineOptions,
    pub(super) registry: &'a Registry,
    /// How many models need the one that is opened.
    pub(super) depth: usize,
}

impl Opening<'_> {
    /// The best models of a mode that are installed and fit. Each engine is opened once: how much
    /// it holds is asked of what will run.
    fn mode(&self, mode: &str, too_large: &[String]) -> Result<Answer> {
        let (options, found) = (self.options, format!("mode {mode}"));
        options.check_no_training(&found)?;
        if options.previous_stage != PreviousStage::Own {
            return Err(Error::usage("previous stage", found, "a model or a trained folder"));
        }
        let request = Request {
            mode,
            quality: options.quality.map(super::Quality::name),
            variant: options.variant.as_deref(),
        };
        let mut opened: HashMap<String, Network> = HashMap::new();
        let threads = rayon::current_num_threads();
        // Whether its device takes it, and the host what it holds for a tile; how large the image
        // is nobody knows yet, but for models it was too large for.
        let mut fits = |model: &Model| {
            if too_large.iter().any(|name| model.name == *name) {
                return Ok(false);
            }
            let network = match self.network(model, None, Some(self.registry)) {
                Ok(network) => network,
                Err(Error::Memory { .. }) => return Ok(false),
                // A user's own model that another device would run is not passed over in silence.
                Err(Error::Device { .. }) if model.is_embedded() => return Ok(false),
                Err(error) => return Err(error),
            };
            let bytes = network.memory_bytes(threads);
            let fits = self.engine.allowance().check("a tile", bytes).is_ok();
            if fits {
                opened.insert(model.name.to_string(), network);
            }
            Ok(fits)
        };
        let mut selection = self.registry.select(&request, &mut fits)?;
        if !options.structures.is_empty() {
            selection.keep_only(&options.structures)?;
        }
        let divided = self.divided(&selection)?;
        let Selection { parts, labels, context, missing, recipe, grade, why, mode, .. } = selection;
        let halves = parts.iter().flat_map(|part| part.whole.halves()).copied();
        let sides = Sides::new(halves, &seen(&labels, &context));
        let part = |part: crate::registry::SelectedPart| {
            let network = match opened.remove(&*part.model.name) {
                Some(network) => network,
                None => self.network(&part.model, None, Some(self.registry))?,
            };
            Ok(Part { network, subset: Some(part.whole) })
        };
        let parts = parts.into_iter().map(part).collect::<Result<Vec<_>>>()?;
        let groups = self.groups(parts, &seen(&labels, &context), &options.structures)?;
        // Models that bring a task's own way of cleaning up are not cleaned up by the mode's.
        let recipe = recipe.filter(|_| groups.iter().all(|group| group.around.is_none()));
        let recipe = self.recipe(|| recipe.as_deref().map(|name| self.named(name)).transpose())?;
        let about = about(mode, &groups, why, grade, grade == Grade::Demo, missing);
        let answer = Answer { groups, labels, context, recipe, sides, divided, about };
        answer.recipe.check(&answer.seen())?;
        Ok(answer)
    }

    /// The structures once bone is divided.
    fn divided(&self, selection: &Selection) -> Result<Option<Vec<Label>>> {
        if !self.options.divide_bone {
            return Ok(None);
        }
        let Some(table) = &selection.subseg else {
            let found = format!("mode {}", selection.mode);
            return Err(Error::usage("division of bone", found, "mode bone"));
        };
        let whole: HashSet<u16> = selection.labels.iter().map(|label| label.id).collect();
        let parts = table.labels.iter().filter(|label| !whole.contains(&label.id));
        Ok(Some(parts.cloned().collect()))
    }

    /// Choices among models, and what is done for modes only.
    fn not_for_a_model(&self) -> Result<()> {
        let Options { quality, variant, structures, divide_bone, .. } = self.options;
        let of_modes =
            quality.is_some() || variant.is_some() || !structures.is_empty() || *divide_bone;
        if of_modes {
            let what = "quality, variant, structures or division of bone";
            return Err(Error::usage(what, "a model", "a mode"));
        }
        self.options.check_no_training("a model")
    }

    /// One model; in a cascade with the model it refines.
    fn model(&self, model: &Model, config: Option<ModelConfig>) -> Result<Answer> {
        let is_cascade = config.as_ref().unwrap_or(model.config()).previous_stage.is_some();
        if self.options.previous_stage != PreviousStage::Own && !is_cascade {
            return Err(Error::usage("previous stage", model.configuration, "a cascade"));
        }
        let registry = match &self.options.previous_stage {
            PreviousStage::Own => Some(self.registry),
            PreviousStage::Given => None,
            PreviousStage::Folder(path) => {
                let found = path.display().to_string();
                return Err(Error::usage("previous stage", found, "label maps, for this model"));
            }
        };
        self.opened(model, config, registry)
    }

    /// One model as its own configuration has it, for others that need it.
    pub(super) fn whole_model(&self, model: &Model) -> Result<Answer> {
        self.opened(model, None, Some(self.registry))
    }

    fn network(
        &self,
        model: &Model,
        config: Option<ModelConfig>,
        registry: Option<&Registry>,
    ) -> Result<Network> {
        Network::from_model(model, config, registry, &self.engine, self.options.digests)
    }

    fn opened(
        &self,
        model: &Model,
        config: Option<ModelConfig>,
        registry: Option<&Registry>,
    ) -> Result<Answer> {
        let network = self.network(model, config, registry)?;
        let recipe = self.recipe(|| {
            let config = network.config();
            // On the grid of a task, it is applied there.
            let name = config.postprocessing.as_deref().filter(|_| config.grid.is_none());
            name.map(|name| self.named(name)).transpose()
        })?;
        let is_demonstration = network.info().grade == Grade::Demo;
        self.alone(network, recipe, model.name.clone(), is_demonstration)
    }

    /// A trained folder; in a cascade with the folder it refines.
    fn folder(&self, path: &Path, config: Option<ModelConfig>) -> Result<Answer> {
        let (folder, first) = trained(path, self.options, self.engine.allowance())?;
        let recipe = self.recipe(|| {
            let rule = folder.postprocessing()?;
            rule.map(|rule| Recipe::from_nnunet_json(&rule.to_string())).transpose()
        })?;
        let digests = self.options.digests;
        let network = Network::from_folder(&folder, config, first.as_ref(), &self.engine, digests)?;
        self.alone(network, recipe, folder.configuration().clone(), false)
    }

    /// A network by itself.
    fn alone(
        &self,
        network: Network,
        recipe: Recipe,
        name: Name,
        is_demonstration: bool,
    ) -> Result<Answer> {
        let is_auxiliary = |label: &Label| network.config().auxiliary.contains(&label.name);
        let (context, labels) =
            network.config().labels.iter().cloned().partition::<Vec<_>, _>(is_auxiliary);
        let grade = network.info().grade;
        let parts = vec![Part { network, subset: None }];
        let groups = self.groups(parts, &seen(&labels, &context), &[])?;
        let about = about(name, &groups, String::new(), grade, is_demonstration, Vec::new());
        recipe.check(&labels)?;
        let sides = Sides::default();
        Ok(Answer { groups, labels, context, recipe, sides, divided: None, about })
    }

    /// The recipe of that name, which a mode or a model's configuration gives.
    pub(super) fn named(&self, name: &str) -> Result<Recipe> {
        Recipe::from_json(self.registry.recipe(name)?)
    }

    /// The recipe the user wants; `own` is the one that comes with what answers.
    fn recipe(&self, own: impl FnOnce() -> Result<Option<Recipe>>) -> Result<Recipe> {
        match &self.options.postprocessing {
            Postprocessing::Own => Ok(own()?.unwrap_or_default()),
            Postprocessing::None => Ok(Recipe::default()),
            Postprocessing::Recipe(recipe) => Ok(recipe.clone()),
        }
    }
}

fn about(
    name: Name,
    groups: &[Group],
    choice: String,
    grade: Grade,
    is_demonstration: bool,
    missing: Vec<String>,
) -> About {
    let stages = groups.iter().flat_map(Group::networks).flat_map(Network::stages);
    let networks = stages.map(|network| network.info().clone()).collect();
    let modality = groups[0].parts[0].network.config().modality.clone();
    About { name, choice, networks, grade, is_demonstration, modality, missing }
}

/// A trained folder, and in a cascade the one it refines unless labels are given.
pub(super) fn trained(
    path: &Path,
    options: &Options,
    allowed: Allowance,
) -> Result<(Folder, Option<Folder>)> {
    let open = |path: &Path, allowed| {
        Folder::open_within(path, &options.folds, options.checkpoint.as_deref(), allowed)
    };
    let folder = open(path, allowed)?;
    let allowed = allowed.beside(folder.held_bytes());
    let first = match (folder.previous_stage(), &options.previous_stage) {
        (None, PreviousStage::Own) | (Some(_), PreviousStage::Given) => None,
        (None, _) => {
            return Err(Error::usage(
                "previous stage",
                folder.configuration().as_str(),
                "a cascade",
            ));
        }
        (Some(_), PreviousStage::Folder(given)) => Some(open(given, allowed)?),
        (Some(beside), PreviousStage::Own) if beside.is_dir() => Some(open(&beside, allowed)?),
        (Some(beside), PreviousStage::Own) => {
            let what = Mismatch::new(
                format!("no {}", beside.display()),
                "the folder of the first stage there, or labels of it",
            );
            return Err(Error::model_file(folder.path(), what));
        }
    };
    Ok((folder, first))
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    ModelConfig::from_json(&read_json(path)?).map_err(|what| Error::model_file(path, what))
}
