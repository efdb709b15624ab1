//! `modes` and `models`: what is inside this program and in a folder, and what answers what.

use super::args::ListArgs;
use super::summary::{reversed, times_sign};
use super::{report, request, table};
use fastnnunet::model::modes::{Candidate, Choice, Mode, Part};
use fastnnunet::model::{Label, ModelConfig};
use fastnnunet::registry::{Model, Registry, Request, Selection};
use fastnnunet::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashSet;

pub(crate) fn models(args: &ListArgs) -> Result<()> {
    let models = request::models(args.models.models_dir.as_deref(), args.models.no_user_models)?;
    let registry = models.as_deref().unwrap_or(Registry::embedded());
    let chosen: Vec<&Model> = match &args.name {
        Some(name) => vec![find(registry, name)?],
        None => registry.models().iter().map(|model| &**model).collect(),
    };
    if args.json {
        let list: Result<Vec<Value>> = chosen.iter().map(|model| model_json(model)).collect();
        report::say(&format!("{}\n", Value::from(list?)))?;
    } else if args.name.is_some() {
        report::say(&model_text(chosen[0])?)?;
    } else {
        let heading =
            ["name", "configuration", "spacing mm", "patch", "classes", "grade", "size", "sha256"];
        let mut rows = vec![heading.map(String::from).to_vec()];
        for model in &chosen {
            rows.push(model_row(model)?);
        }
        if registry.models().iter().any(|model| !model.is_embedded()) {
            rows[0].push("from".into());
            for (row, model) in rows[1..].iter_mut().zip(&chosen) {
                row.push(place(model));
            }
        }
        report::say(&table::render(&rows))?;
    }
    Ok(())
}

pub(super) fn find<'a>(registry: &'a Registry, name: &str) -> Result<&'a Model> {
    registry.find(name).map(|model| &**model).ok_or_else(|| {
        let names: Vec<&str> = registry.models().iter().map(|model| &*model.name).collect();
        request::usage("model", name, format!("one of {}", names.join(", ")))
    })
}

/// Where a model's weights are.
fn place(model: &Model) -> String {
    model.file().map_or_else(|| "this program".into(), |file| file.display().to_string())
}

/// What is known of a model's weights.
struct Weights {
    classes: usize,
    bytes: Option<u64>,
    sha256: Vec<String>,
    opset: Option<i64>,
}

impl Weights {
    /// Weights that stay with their training are hashed only if all is to be told.
    fn of(model: &Model, in_full: bool) -> Result<Self> {
        if model.is_one_file() {
            let facts = model.facts()?;
            return Ok(Self {
                classes: facts.output_channels,
                bytes: Some(facts.bytes),
                sha256: vec![facts.sha256.to_string()],
                opset: Some(facts.opset),
            });
        }
        let sha256 = if in_full || model.folds() > 1 { model.digests()? } else { Vec::new() };
        let classes = model.config().output_channels().unwrap_or(0);
        Ok(Self { classes, bytes: None, sha256, opset: None })
    }
}

fn model_row(model: &Model) -> Result<Vec<String>> {
    let (config, weights) = (model.config(), Weights::of(model, false)?);
    Ok(vec![
        model.name.to_string(),
        model.configuration.into(),
        spacing_text(config),
        times_sign(reversed(config.patch_size)),
        weights.classes.to_string(),
        model.grade.to_string(),
        weights.bytes.map_or_else(|| "-".into(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6)),
        // Enough to tell files apart at a glance; `models NAME` and `--json` give all.
        weights.sha256.first().map_or("-", |sha256| &sha256[..16]).into(),
    ])
}

fn spacing_text(config: &ModelConfig) -> String {
    let shown = |s: Option<f64>| s.map_or_else(|| "own".to_string(), |s| format!("{s:.3}"));
    times_sign(reversed(config.target_spacing).map(shown))
}

fn model_text(model: &Model) -> Result<String> {
    let (config, weights) = (model.config(), Weights::of(model, true)?);
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let rows = [
        ("name", model.name.to_string()),
        ("configuration", model.configuration.to_string()),
        ("spacing mm", spacing_text(config)),
        ("patch", times_sign(reversed(config.patch_size))),
        ("classes", weights.classes.to_string()),
        ("grade", model.grade.to_string()),
        ("size", or_none(weights.bytes.map(|bytes| format!("{bytes} bytes")))),
        ("sha256", weights.sha256.join(" ")),
        ("opset", or_none(weights.opset.map(|opset| opset.to_string()))),
        ("from", place(model)),
        ("source", source(model).unwrap_or("not known").into()),
        ("license", license(model).unwrap_or("not known").into()),
    ];
    let mut rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    for (k, label) in config.labels.iter().enumerate() {
        let heading = if k == 0 { "labels" } else { "" };
        rows.push(vec![heading.into(), format!("{:>3}  {}", label.id, label.name)]);
    }
    Ok(table::render(&rows))
}

/// What is said about where the weights come from; files say nothing.
fn source(model: &Model) -> Option<&str> {
    let said = model.config().source.as_deref();
    said.or_else(|| model.is_embedded().then_some(&*model.source))
}

fn license(model: &Model) -> Option<&str> {
    Some(&*model.license).filter(|license| !license.is_empty())
}

fn model_json(model: &Model) -> Result<Value> {
    let (config, weights) = (model.config(), Weights::of(model, true)?);
    let sha256 = match &weights.sha256[..] {
        [only] => json!(only),
        several => json!(several),
    };
    Ok(json!({
        "name": model.name,
        "configuration": model.configuration,
        "spacing_zyx_mm": config.target_spacing,
        "patch_zyx": config.patch_size,
        "classes": weights.classes,
        "grade": model.grade.to_string(),
        "bytes": weights.bytes,
        "sha256": sha256,
        "opset": weights.opset,
        "source": source(model),
        "license": license(model),
        "embedded": model.is_embedded(),
        "file": model.file().map(|file| file.display().to_string()),
        "labels": config.labels,
    }))
}

pub(crate) fn modes(args: &ListArgs) -> Result<()> {
    let models = request::models(args.models.models_dir.as_deref(), args.models.no_user_models)?;
    let registry = models.as_deref().unwrap_or(Registry::embedded());
    let chosen: Vec<&Mode> = match &args.name {
        Some(name) => vec![registry.mode(name)?],
        None => registry.modes().iter().collect(),
    };
    if args.json {
        let in_full = args.name.is_some();
        let list: Result<Vec<Value>> =
            chosen.iter().map(|mode| mode_json(registry, mode, in_full)).collect();
        report::say(&format!("{}\n", Value::from(list?)))?;
        return Ok(());
    }
    let with_places = registry.models().iter().any(|model| !model.is_embedded());
    let mut heading = vec!["mode", "choice", "structures", "answered by", "grade"];
    heading.extend(with_places.then_some("from"));
    heading.push("what");
    let mut rows = vec![heading.into_iter().map(String::from).collect()];
    // Of the many tasks of other programs, those that somebody has weights of.
    let is_task = |mode: &Mode| {
        let tasks = &registry.tasks().tasks;
        mode.name != "total" && tasks.iter().any(|task| task.name == mode.name)
    };
    let is_there = |mode: &Mode| {
        let mut parts = mode.choices.iter().flat_map(|c| &c.models).flat_map(|c| &c.parts);
        parts.any(|part| registry.find(&part.model).is_some())
    };
    let (shown, rest): (Vec<&Mode>, Vec<&Mode>) =
        chosen.iter().partition(|mode| args.name.is_some() || !is_task(mode) || is_there(mode));
    for mode in &shown {
        for (k, choice) in mode.choices.iter().enumerate() {
            let mut row = mode_row(registry, mode, choice, with_places)?;
            if k == 0 {
                row[0] = mode.name.to_string();
                row.push(mode.summary.clone());
            }
            rows.push(row);
        }
    }
    report::say(&table::render(&rows))?;
    if chosen.iter().any(|mode| mode.choices.len() > 1) {
        report::say("* taken when no option is given\n")?;
    }
    if !rest.is_empty() {
        let names: Vec<&str> = rest.iter().map(|mode| mode.name.as_str()).collect();
        let names = names.join(", ");
        report::say(&format!("with weights that `fastnnunet import` takes, also {names}\n"))?;
    }
    for note in registry.notes() {
        report::tell(&format!("note: {note}"));
    }
    if args.name.is_some() {
        for choice in &chosen[0].choices {
            report::say(&format!("\n{}", choice_text(registry, chosen[0], choice)?))?;
        }
    }
    Ok(())
}

/// What there is for a choice.
enum Answer {
    Installed(Box<Selection>),
    /// There are models, but they cannot answer.
    Unusable(Error),
    Missing,
}

impl Answer {
    fn find(registry: &Registry, mode: &Mode, choice: &Choice) -> Self {
        let request = Request {
            mode: &mode.name,
            quality: choice.quality.as_deref(),
            variant: choice.variant.as_deref(),
        };
        let there = |part: &Part| registry.find(&part.model).is_some();
        let selected = registry.select(&request, &mut |_| Ok(true)).and_then(|selection| {
            // A file of a folder is read here for the first time.
            selection.parts.iter().try_for_each(|part| part.model.check())?;
            Ok(selection)
        });
        match selected {
            Ok(selection) => Self::Installed(Box::new(selection)),
            Err(Error::NotInstalled { .. }) => Self::Missing,
            Err(error) if choice.models.iter().any(|c| c.parts.iter().any(there)) => {
                Self::Unusable(error)
            }
            Err(_) => Self::Missing,
        }
    }

    fn selection(&self) -> Option<&Selection> {
        match self {
            Self::Installed(selection) => Some(selection),
            Self::Unusable(_) | Self::Missing => None,
        }
    }
}

fn names(selection: &Selection) -> String {
    let names: Vec<&str> = selection.parts.iter().map(|part| &*part.model.name).collect();
    names.join(" + ")
}

/// Where the models are, each place once.
fn places(selection: &Selection) -> String {
    let mut places: Vec<String> = selection.parts.iter().map(|part| place(&part.model)).collect();
    places.dedup();
    places.join(" + ")
}

/// All but the mode's name and summary.
fn mode_row(
    registry: &Registry,
    mode: &Mode,
    choice: &Choice,
    with_places: bool,
) -> Result<Vec<String>> {
    let total = registry.table(&choice.labels)?.labels.len();
    let answer = Answer::find(registry, mode, choice);
    let (structures, by, grade) = match &answer {
        Answer::Installed(selection) if selection.missing.is_empty() => {
            (total.to_string(), names(selection), selection.grade.to_string())
        }
        Answer::Installed(selection) => (
            format!("{} of {total}", selection.labels.len()),
            names(selection),
            selection.grade.to_string(),
        ),
        Answer::Unusable(_) => (total.to_string(), "unusable model".into(), "-".into()),
        Answer::Missing => (total.to_string(), "not installed".into(), "-".into()),
    };
    let mut row = vec![
        String::new(),
        format!(
            "{}{}",
            option_text(choice),
            if is_default(registry, mode, choice) { " *" } else { "" }
        ),
        structures,
        by,
        grade,
    ];
    if with_places {
        row.push(answer.selection().map_or_else(|| "-".into(), places));
    }
    Ok(row)
}

/// Whether a choice is what answers its mode without an option, where there are several.
fn is_default(registry: &Registry, mode: &Mode, choice: &Choice) -> bool {
    let request = Request { mode: &mode.name, ..Request::default() };
    mode.choices.len() > 1
        && match registry.select(&request, &mut |_| Ok(true)) {
            Ok(chosen) => (&chosen.quality, &chosen.variant) == (&choice.quality, &choice.variant),
            // Variants do not stand in for one another.
            Err(_) => choice.variant.is_some() && choice == &mode.choices[0],
        }
}

/// The options that select a choice.
fn option_text(choice: &Choice) -> String {
    let options: Vec<String> =
        choice.options().map(|(option, value)| format!("--{option} {value}")).collect();
    options.join(" ")
}

/// A choice in full: what answers it and why, and its label table.
fn choice_text(registry: &Registry, mode: &Mode, choice: &Choice) -> Result<String> {
    let answer = Answer::find(registry, mode, choice);
    let selection = answer.selection();
    let candidates: Vec<String> = choice.models.iter().map(Candidate::name).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.into(), value]);
    let option = option_text(choice);
    if !option.is_empty() {
        row("choice", option);
    }
    row("models", candidates.join(", else "));
    match &answer {
        Answer::Installed(selection) => {
            row("installed", selection.why.clone());
            row("from", places(selection));
        }
        Answer::Unusable(error) => row("installed", format!("no: {}", report::chain(error))),
        Answer::Missing => row("installed", "no".into()),
    }
    row("recipe", choice.recipe.clone().unwrap_or_else(|| "none".into()));
    row("table", choice.labels.clone());
    let table = &registry.table(&choice.labels)?.labels;
    let divided = match &choice.subseg {
        Some(name) => registry.table(name)?.labels.clone(),
        None => Vec::new(),
    };
    let known: HashSet<u16> = table.iter().map(|label| label.id).collect();
    let more: Vec<&Label> = divided.iter().filter(|label| !known.contains(&label.id)).collect();
    let width = table.iter().chain(more.iter().copied()).map(|l| l.name.len()).max().unwrap_or(0);
    let line = |label: &Label, note: &str| {
        let code = label.snomed.as_ref().map_or_else(String::new, |c| format!("SCT {c}"));
        let color = label.color.as_deref().unwrap_or_default();
        format!("{:>3}  {:<width$}  {color:<7}  {code:<14}{note}", label.id, label.name)
    };
    for (k, label) in table.iter().enumerate() {
        let missing = selection.is_some_and(|s| s.missing.contains(&label.name));
        let note = if missing { "not labeled by the installed model" } else { "" };
        row(if k == 0 { "labels" } else { "" }, line(label, note));
    }
    for label in more {
        row("", line(label, "with --enable-subseg"));
    }
    Ok(table::render(&rows))
}

fn mode_json(registry: &Registry, mode: &Mode, in_full: bool) -> Result<Value> {
    let mut choices = Vec::new();
    for choice in &mode.choices {
        let table = registry.table(&choice.labels)?;
        let answer = Answer::find(registry, mode, choice);
        let selection = answer.selection();
        let candidates: Vec<String> = choice.models.iter().map(Candidate::name).collect();
        let mut value = json!({
            "quality": choice.quality,
            "variant": choice.variant,
            "default": mode.choices.len() == 1 || is_default(registry, mode, choice),
            // The one that answers or, if none does, the one to install.
            "model": selection.map_or_else(|| candidates[0].clone(), names),
            "installed": selection.is_some(),
            "candidates": candidates,
            "unusable": match &answer {
                Answer::Unusable(error) => Some(report::chain(error)),
                Answer::Installed(_) | Answer::Missing => None,
            },
            "from": selection.map(places),
            "grade": selection.map(|s| s.grade.to_string()),
            "why": selection.map(|s| &s.why),
            "missing": selection.map(|s| &s.missing),
            "structures": table.labels.len(),
            "table": table.name,
            "recipe": choice.recipe,
        });
        if in_full {
            value["labels"] = json!(table.labels);
            if let Some(name) = &choice.subseg {
                value["subseg_labels"] = json!(registry.table(name)?.labels);
            }
        }
        choices.push(value);
    }
    Ok(json!({"mode": mode.name, "summary": mode.summary, "choices": choices}))
}
