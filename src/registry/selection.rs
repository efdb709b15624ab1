//! From what a user asks for to the models that run, the labels that come out, and the reason.

use super::subset::{self, LabelSubset};
use super::{Model, Place, Registry, join};
use crate::model::labels::LabelTable;
use crate::model::modes::{Candidate, Choice, Mode, Part};
use crate::model::{Grade, Label, Name};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// Name of the mode.
    pub mode: &'a str,
    /// `low`, `medium` or `high`; absent for the best that fits.
    pub quality: Option<&'a str>,
    /// Name of the variant; absent for the first.
    pub variant: Option<&'a str>,
}

/// What answers a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selection {
    /// Name of the mode.
    pub mode: Name,
    /// The quality chosen, in a mode that has qualities.
    pub quality: Option<String>,
    /// The variant chosen, in a mode that has variants.
    pub variant: Option<String>,
    /// The models to run, never none. Each one's label map is renumbered; then later ones are
    /// [merged](super::merge_labels) onto earlier ones.
    pub parts: Vec<SelectedPart>,
    /// The structures that can come out, with the ids they have in the result.
    pub labels: Vec<Label>,
    /// Structures that the models label besides, with ids of their own. The postprocessing
    /// recipe may look at them (the spine says where the midline is); then they are dropped.
    pub context: Vec<Label>,
    /// Structures of the mode that these models do not label.
    pub missing: Vec<String>,
    /// The structures once bone is divided, where the mode can do that.
    pub subseg: Option<LabelTable>,
    /// Name of the postprocessing recipe.
    pub recipe: Option<String>,
    /// How much the least trusted of the models may be trusted.
    pub grade: Grade,
    /// One sentence for users: which models, and why these.
    pub why: String,
}

/// A model of a [`Selection`].
#[derive(Clone, Debug)]
pub struct SelectedPart {
    /// The model.
    pub model: Arc<Model>,
    /// From its labels to those of the answer.
    pub subset: LabelSubset,
    /// From its labels to those of the answer and its [context](Selection::context).
    pub whole: LabelSubset,
}

impl Selection {
    /// The first model, which is the only one unless the mode merges several.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.parts[0].model
    }

    /// Restricts the answer to the structures called `names`, of which one that ends in `*`
    /// stands for all that begin so.
    ///
    /// Models that label none of them do not run, so they no longer paint over what others found.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for names the mode does not have, with near ones, and
    /// [`Error::Model`] for structures of the mode that its installed models do not label.
    pub fn keep_only(&mut self, names: &[impl AsRef<str>]) -> Result<()> {
        let lacking = |name: &&str| {
            self.missing.iter().any(|missing| subset::means(name, missing))
                && !self.labels.iter().any(|label| subset::means(name, &label.name))
        };
        let absent: Vec<&str> = names.iter().map(AsRef::as_ref).filter(lacking).collect();
        if !absent.is_empty() {
            return Err(Error::Model {
                model: join(self.parts.iter().map(|part| &*part.model.name)),
                found: format!("no labels {}", absent.join(", ")),
                expected: format!(
                    "structures that it labels, such as {}, or other weights for mode {}",
                    join(self.labels.iter().take(8).map(|label| label.name.as_str())),
                    self.mode
                ),
            });
        }
        let kept = subset::named(&self.labels, names)?;
        for part in &mut self.parts {
            part.subset = part.subset.clone().keeping(&kept);
        }
        // What has no side gets one by structures that have, which others label.
        let needs_sides = self.parts.iter().any(|part| !part.subset.halves().is_empty());
        self.parts.retain(|part| needs_sides || !part.subset.ids().is_empty());
        // The recipe sees what the remaining models label besides.
        let ids: HashSet<u16> = kept.iter().map(|label| label.id).collect();
        self.context.extend(self.labels.iter().filter(|l| !ids.contains(&l.id)).cloned());
        self.labels = kept;
        self.missing.clear();
        Ok(())
    }
}

impl Registry {
    /// Chooses the models that answer a request; `fits` says whether one may run here, for
    /// instance within the memory allowed. It is asked only where there is an alternative.
    ///
    /// Without quality it takes the best that is installed and fits; without variant the
    /// first. If nothing fits, the smallest is chosen and left to fail with the numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a mode, quality or variant that does not exist, with those that
    /// do; [`Error::Model`] if no model for it is installed, with the files to add.
    pub fn select(
        &self,
        request: &Request<'_>,
        fits: &mut dyn FnMut(&Model) -> Result<bool>,
    ) -> Result<Selection> {
        let mode = self.mode(request.mode)?;
        let by_quality = choices(self, mode, request)?;
        let mut choices = by_quality.clone();
        if request.quality.is_none() {
            // A finer grid does not make up for a model that only demonstrates.
            choices.sort_by_key(|choice| std::cmp::Reverse(rank_of(self, choice)));
        }
        // What there is no alternative to is not asked about: it runs, or says itself what it lacks.
        let candidates = choices.iter().flat_map(|choice| ranked(self, choice));
        let alone = candidates.filter(|(_, found)| found.is_some()).count() == 1;
        let mut passed_over: Vec<(String, Reason)> = Vec::new();
        let mut smallest: Option<(usize, &Choice, Parts<'_>)> = None;
        for (k, choice) in choices.iter().enumerate() {
            let tried = &choices[..k];
            // From high to low, whatever order they are tried in.
            let coarseness = by_quality.iter().position(|other| std::ptr::eq(*other, *choice));
            let coarseness = coarseness.unwrap_or_default();
            for (candidate, found) in ranked(self, choice) {
                let Some(Installed { parts, .. }) = found else {
                    passed_over.push((candidate.name(), Reason::NotInstalled));
                    continue;
                };
                let mut fit =
                    |all, (_, model): &(_, Arc<Model>)| Ok::<_, Error>(all && fits(model)?);
                if alone || parts.iter().try_fold(true, &mut fit)? {
                    let finer = &by_quality[..coarseness];
                    passed_over.extend(finer.iter().filter_map(|finer| beaten(self, finer, tried)));
                    let why = match (&passed_over[..], request.quality.or(request.variant)) {
                        ([], Some(_)) => ", as asked".to_owned(),
                        ([], None) => ", the best for it".to_owned(),
                        (passed, _) => format!(" because {}", reasons(passed)),
                    };
                    return selection(self, mode, choice, &parts, &why);
                }
                passed_over.push((candidate.name(), Reason::TooLarge));
                if smallest.as_ref().is_none_or(|(coarsest, ..)| coarseness >= *coarsest) {
                    smallest = Some((coarseness, choice, parts));
                }
            }
        }
        match smallest {
            Some((_, choice, parts)) => {
                let why = format!(" because {}, so the smallest is tried", reasons(&passed_over));
                selection(self, mode, choice, &parts, &why)
            }
            None => Err(missing(self, mode, &choices)),
        }
    }
}

/// Why models were passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    NotInstalled,
    TooLarge,
    Grade(Grade),
}

/// `a and b are not installed, c does not fit`.
fn reasons(passed_over: &[(String, Reason)]) -> String {
    let clause = |group: &[(String, Reason)]| {
        let names: Vec<&str> = group.iter().map(|(name, _)| name.as_str()).collect();
        let one = names.len() == 1;
        let (is, does) = if one { ("is", "does") } else { ("are", "do") };
        let reason = match group[0].1 {
            Reason::NotInstalled => format!("{is} not installed"),
            Reason::TooLarge => format!("{does} not fit"),
            Reason::Grade(grade) => format!("{is} of grade {grade}"),
        };
        format!("{} {reason}", names.join(" and "))
    };
    let clauses: Vec<String> = passed_over.chunk_by(|a, b| a.1 == b.1).map(clause).collect();
    clauses.join(", ")
}

/// The choices that answer a request, the best first.
fn choices<'a>(
    registry: &Registry,
    mode: &'a Mode,
    request: &Request<'_>,
) -> Result<Vec<&'a Choice>> {
    // A default variant is not replaced by another, as variants differ in what they label; but for
    // versions of a task, of which the user may have a later one.
    let first = || {
        let place = |choice: &Choice| rank_of(registry, choice).map(|rank| rank.place);
        let of = |choice: &&Choice| choice.models.iter().any(|c| !c.tasks.is_empty());
        let best = mode.choices.iter().filter(of).map(place).max().flatten();
        let reaches = |choice: &&Choice| best.is_none() || place(choice) == best;
        mode.choices.iter().find(reaches).or(mode.choices.first())?.variant.as_deref()
    };
    let variant = request.variant.or_else(first);
    let by_variant: Vec<&Choice> = mode.choices.iter().collect();
    let by_variant = pick(mode, "variant", variant, by_variant, |c| c.variant.as_deref())?;
    let by_quality = pick(mode, "quality", request.quality, by_variant, |c| c.quality.as_deref())?;
    // Qualities go from low to high.
    Ok(by_quality.into_iter().rev().collect())
}

/// How good an answer is, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    place: Place,
    /// Whether nothing of it is missing.
    is_whole: bool,
    grade: Grade,
}

/// The candidates of a choice, the best of those that are installed first.
fn ranked<'a>(
    registry: &Registry,
    choice: &'a Choice,
) -> Vec<(&'a Candidate, Option<Installed<'a>>)> {
    let found = |candidate| (candidate, installed(registry, candidate, choice));
    let mut all: Vec<_> = choice.models.iter().map(found).collect();
    // What is not installed is told of in its place in the list.
    let mut there: Vec<usize> = (0..all.len()).filter(|&k| all[k].1.is_some()).collect();
    let places = there.clone();
    there.sort_by_key(|&k| std::cmp::Reverse(all[k].1.as_ref().map(Installed::rank)));
    let mut sorted: Vec<_> = there.iter().map(|&k| (all[k].0, all[k].1.take())).collect();
    for (&place, best) in places.iter().zip(sorted.drain(..)) {
        all[place] = best;
    }
    all
}

/// How good the best answer of a choice is; none where nothing is installed.
fn rank_of(registry: &Registry, choice: &Choice) -> Option<Rank> {
    ranked(registry, choice).iter().filter_map(|(_, found)| Some(found.as_ref()?.rank())).max()
}

/// Why a finer choice that was not `tried` did not come first; none for one that was.
fn beaten(registry: &Registry, choice: &Choice, tried: &[&Choice]) -> Option<(String, Reason)> {
    if tried.iter().any(|tried| std::ptr::eq(*tried, choice)) {
        return None;
    }
    let all = ranked(registry, choice);
    let found = all.iter().find(|(_, found)| found.is_some()).or(all.first());
    let name = found.map_or_else(String::new, |(candidate, _)| candidate.name());
    let reason = found.and_then(|(_, found)| found.as_ref()).map(|found| found.rank().grade);
    Some((name, reason.map_or(Reason::NotInstalled, Reason::Grade)))
}

/// The choices that a given quality or variant leaves of `choices`: all when none is given.
fn pick<'a>(
    mode: &Mode,
    what: &str,
    given: Option<&str>,
    choices: Vec<&'a Choice>,
    of: impl Fn(&'a Choice) -> Option<&'a str>,
) -> Result<Vec<&'a Choice>> {
    let Some(given) = given else { return Ok(choices) };
    let mut known: Vec<&str> = choices.iter().filter_map(|choice| of(choice)).collect();
    known.dedup();
    let found: Vec<&Choice> = choices.into_iter().filter(|c| of(c) == Some(given)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let known = join(known.into_iter());
    Err(Error::Usage {
        what: format!("{what} of mode {}", mode.name),
        found: given.to_owned(),
        expected: if known.is_empty() {
            format!("no {what} for this mode")
        } else {
            format!("one of {known}")
        },
    })
}

/// The models of a candidate, each with its part.
type Parts<'a> = Vec<(&'a Part, Arc<Model>)>;

/// A candidate of which there is at least something.
struct Installed<'a> {
    parts: Parts<'a>,
    is_whole: bool,
}

impl Installed<'_> {
    fn rank(&self) -> Rank {
        let models = || self.parts.iter().map(|(_, model)| model);
        Rank {
            place: models().map(|model| model.place).min().unwrap_or(Place::Program),
            is_whole: self.is_whole,
            grade: models().map(|model| model.grade).min().unwrap_or_default(),
        }
    }
}

/// The models of a candidate if all are there; of tasks, those that label something of the choice,
/// at least one of the first task.
fn installed<'a>(
    registry: &Registry,
    candidate: &'a Candidate,
    choice: &Choice,
) -> Option<Installed<'a>> {
    let find = |part: &'a Part| Some((part, registry.find(&part.model)?.clone()));
    let Some(first) = candidate.tasks.first() else {
        let parts = candidate.parts.iter().map(find).collect::<Option<_>>()?;
        return Some(Installed { parts, is_whole: true });
    };
    let table = registry.tables.iter().find(|table| table.name == choice.labels)?;
    let dataset = |part: &Part| registry.tasks.dataset(&part.model);
    let labels_some = |part: &&Part| {
        dataset(part).is_some_and(|set| {
            let has_sides = |name: &String| {
                !set.auxiliary.contains(name) && subset::sides_of(name, &table.labels).is_some()
            };
            set.labels.iter().any(|name| table.find(name).is_some() || has_sides(name))
        })
    };
    let needed: Vec<&Part> = candidate.parts.iter().filter(labels_some).collect();
    let parts: Parts<'_> = needed.iter().filter_map(|part| find(part)).collect();
    let of_first = |(part, _): &(&Part, _)| dataset(part).is_some_and(|s| s.task == first.task);
    let is_whole = parts.len() == needed.len();
    parts.iter().any(of_first).then_some(Installed { parts, is_whole })
}

fn selection(
    registry: &Registry,
    mode: &Mode,
    choice: &Choice,
    parts: &[(&Part, Arc<Model>)],
    reason: &str,
) -> Result<Selection> {
    let table = registry.table(&choice.labels)?;
    let mut selected = Vec::with_capacity(parts.len());
    for (part, model) in parts {
        let subset = subset_of(registry, part, model, table)?;
        selected.push(SelectedPart { model: model.clone(), whole: subset.clone(), subset });
    }
    let context = match (parts, &mut selected[..]) {
        // What one of several models labels besides could hide what another one is there for.
        ([(Part { ids: None, .. }, model)], [only]) => {
            let besides = context_of(&model.config().labels, &only.subset, table);
            for (label, context) in &besides {
                only.whole.set(*label, context.id);
            }
            besides.into_iter().map(|(_, context)| context).collect()
        }
        _ => Vec::new(),
    };
    let ids: HashSet<u16> = selected.iter().flat_map(|part| part.subset.ids()).collect();
    let (labels, rest): (Vec<Label>, Vec<Label>) =
        table.labels.iter().cloned().partition(|label| ids.contains(&label.id));
    let grade = selected.iter().map(|part| part.model.grade).min().unwrap_or_default();
    let names = parts.iter().map(|(_, model)| &*model.name).collect::<Vec<_>>().join(" + ");
    let asked = choice.options().fold(mode.name.to_string(), |asked, (option, value)| {
        asked + &format!(", {option} {value}")
    });
    let mut why = format!("{names} (grade {grade}) answers mode {asked}{reason}");
    if !rest.is_empty() {
        let total = table.labels.len();
        let _ = write!(why, "; it labels {} of the mode's {total} structures", labels.len());
    }
    Ok(Selection {
        mode: mode.name.clone(),
        quality: choice.quality.clone(),
        variant: choice.variant.clone(),
        parts: selected,
        labels,
        context,
        missing: rest.into_iter().map(|label| label.name).collect(),
        subseg: choice.subseg.as_deref().map(|name| registry.table(name)).transpose()?.cloned(),
        recipe: choice.recipe.clone(),
        grade,
        why,
    })
}

/// How a model's labels become those of the table.
///
/// # Errors
///
/// [`Error::Model`] if the model shares no structure with the table, or has others than its `ids`
/// say.
fn subset_of(
    registry: &Registry,
    part: &Part,
    model: &Model,
    table: &LabelTable,
) -> Result<LabelSubset> {
    let own = labels_of(registry, model);
    let subset = match &part.ids {
        Some(ids) => {
            check_ids(ids, model, &own, table)?;
            LabelSubset::by_ids(ids.iter().copied())
        }
        None if own.is_empty() => {
            let largest = largest_label(model)?.into();
            LabelSubset::by_ids(table.labels.iter().map(|label| label.id).take(largest))
        }
        None => LabelSubset::by_name_or_side(&own, &table.labels, &model.config().auxiliary),
    };
    if subset.ids().is_empty() {
        return Err(Error::Model {
            model: model.name.to_string(),
            found: format!("labels {}", join(own.iter().take(8).map(|l| l.name.as_str()))),
            expected: format!(
                "names of label table {}, for instance {}, or a modes.json that gives its labels \
                 ids (docs/models.md)",
                table.name,
                join(table.labels.iter().take(8).map(|l| l.name.as_str()))
            ),
        });
    }
    Ok(subset)
}

/// The labels of a model by its configuration, or of one that names none by the data set that is
/// called like it.
fn labels_of(registry: &Registry, model: &Model) -> Vec<Label> {
    let own = &model.config().labels;
    let Some(known) = registry.tasks.dataset(&model.name).filter(|_| own.is_empty()) else {
        return own.clone();
    };
    let label = |(k, name): (usize, &String)| Label {
        id: k as u16 + 1,
        name: name.clone(),
        ..Label::default()
    };
    known.labels.iter().enumerate().map(label).collect()
}

/// Fails unless `ids` can be those of the model's labels: as many, and none for another structure
/// than the one its label is called after.
fn check_ids(ids: &[u16], model: &Model, own: &[Label], table: &LabelTable) -> Result<()> {
    let fail = |found: String, expected: String| {
        Err(Error::Model { model: model.name.to_string(), found, expected })
    };
    let largest = own.last().map_or_else(|| largest_label(model), |label| Ok(label.id))?;
    if ids.len() != usize::from(largest) {
        let expected = format!("{}, as modes.json has ids for", ids.len());
        return fail(format!("{largest} labels"), expected);
    }
    let by_name: HashMap<&str, &Label> =
        table.labels.iter().map(|label| (label.name.as_str(), label)).collect();
    let by_id: HashMap<u16, &Label> = table.labels.iter().map(|label| (label.id, label)).collect();
    for label in own {
        let id = ids[usize::from(label.id) - 1];
        let named = by_name.get(label.name.as_str());
        if let (Some(named), Some(meant)) = (named, by_id.get(&id))
            && named.id != meant.id
        {
            return fail(
                format!("label {} called {}", label.id, label.name),
                format!("{}, by its place in the ids of modes.json", meant.name),
            );
        }
    }
    Ok(())
}

/// The structures of a model that `subset` drops, each by its label there and with an id that the
/// table does not use.
fn context_of(own: &[Label], subset: &LabelSubset, table: &LabelTable) -> Vec<(u16, Label)> {
    let ids: HashSet<u16> = table.labels.iter().map(|label| label.id).collect();
    let mut free = (1..=u16::MAX).filter(|id| !ids.contains(id));
    own.iter()
        .filter(|label| subset.get(label.id) == 0)
        .filter_map(|label| Some((label.id, Label { id: free.next()?, ..label.clone() })))
        .collect()
}

/// The largest label of a model whose configuration names none.
fn largest_label(model: &Model) -> Result<u16> {
    Ok(match &model.config().regions_class_order {
        Some(order) => order.iter().copied().max().unwrap_or(0),
        None => u16::try_from(model.facts()?.output_channels.saturating_sub(1)).unwrap_or(u16::MAX),
    })
}

/// Says which files the least that would do needs, and where they go.
fn missing(registry: &Registry, mode: &Mode, choices: &[&Choice]) -> Error {
    let all = || choices.iter().flat_map(|choice| &choice.models);
    // One model, of the lowest quality.
    let single = |candidate: &&Candidate| candidate.parts.len() == 1;
    let first = choices.iter().rev().find_map(|choice| choice.models.iter().find(single));
    let Some(first) = first.or_else(|| all().next()) else {
        return Error::usage("mode", mode.name.as_str(), "a mode with models");
    };
    let others: Vec<String> = all().filter(|other| *other != first).map(Candidate::name).collect();
    let nor =
        if others.is_empty() { String::new() } else { format!(" (nor {})", others.join(", ")) };
    let only = (choices.len() == 1).then(|| choices[0].options()).into_iter().flatten();
    let asked = only.fold(mode.name.to_string(), |asked, (option, value)| {
        asked + &format!(", {option} {value}")
    });
    let released: Vec<String> = first
        .parts
        .iter()
        .filter(|_| !first.tasks.is_empty())
        .filter_map(|part| Some(registry.tasks.dataset(&part.model)?.folder.clone()))
        .collect();
    let model = first.parts.iter().map(|part| part.model.as_str()).collect::<Vec<_>>().join(" + ");
    let files = if released.is_empty() {
        format!("{model}.onnx and {model}.json in a folder of models")
    } else {
        released.join(", ")
    };
    Error::NotInstalled { mode: asked, model, others: nor, files, released }
}
