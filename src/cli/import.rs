//! `import`: other people's weights become models.

use super::args::{ImportArgs, existing};
use super::request::usage;
use super::{interrupt, report, table, user};
use fastnnunet::import::{self, Found, ImportOptions, Imported};
use fastnnunet::registry::{Manifest, Registry, imports};
use fastnnunet::{Error, Result};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    let to = place(args)?;
    if !args.remove.is_empty() {
        for name in &args.remove {
            import::remove(name, &to)?;
            report::say(&format!("removed  {name}\n"))?;
        }
        return Ok(());
    }
    if args.sources.is_empty() {
        return if args.list { list_imports(args, &to) } else { Err(nothing_to_import()) };
    }
    let tasks = Registry::embedded().tasks();
    let mut found = import::find(&args.sources, tasks)?;
    if let Some(name) = &args.name {
        import::rename(&mut found, name, tasks)?;
    }
    if args.list {
        return list(args, &found);
    }
    let options = ImportOptions {
        link: args.link,
        existing: existing(args.overwrite),
        orientation: args.orientation,
    };
    let mut progress = |name: &str| {
        if interrupt::asked() {
            return ControlFlow::Break(());
        }
        if !args.json {
            report::tell(&format!("importing {name}"));
        }
        ControlFlow::Continue(())
    };
    let all = import::import(&found, &to, tasks, options, &mut progress)?;
    told(args, &all, &to)
}

/// The folder that models go to.
fn place(args: &ImportArgs) -> Result<PathBuf> {
    let own = || user::models().ok_or_else(|| usage("--output", "nothing", "a folder of models"));
    args.output.clone().map_or_else(own, Ok)
}

fn nothing_to_import() -> Error {
    usage("SOURCE", "nothing", "folders or archives of weights, or --list for what was imported")
}

/// What the sources are.
fn list(args: &ImportArgs, found: &[Found]) -> Result<()> {
    if args.json {
        let list: Vec<Value> = found.iter().map(found_json).collect();
        return report::say(&format!("{}\n", Value::from(list)));
    }
    let heading = ["data set", "configuration", "plans", "folds", "size", "becomes", "license"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for one in found {
        let folds: Vec<String> = one.folds.iter().map(ToString::to_string).collect();
        rows.push(vec![
            one.dataset.clone(),
            one.configuration.clone(),
            one.plans.clone(),
            if folds.is_empty() { "no weights".into() } else { folds.join(",") },
            format!("{:.1} MB", one.bytes as f64 / 1e6),
            one.models.join(", "),
            one.license.clone().unwrap_or_else(|| "not known".into()),
        ]);
    }
    report::say(&table::render(&rows))
}

fn found_json(found: &Found) -> Value {
    json!({
        "source": found.source.display().to_string(),
        "inside": found.inside,
        "dataset": found.dataset,
        "trainer": found.trainer,
        "plans": found.plans,
        "configuration": found.configuration,
        "folds": found.folds.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bytes": found.bytes,
        "models": found.models,
        "task": found.task,
        "license": found.license,
    })
}

/// What was imported before.
fn list_imports(args: &ImportArgs, from: &Path) -> Result<()> {
    let all = imports(from)?;
    if args.json {
        let one = |(folder, manifest): &(PathBuf, Result<Manifest>)| match manifest {
            Ok(manifest) => json!(manifest),
            Err(error) => json!({"name": called(folder), "error": report::chain(error)}),
        };
        let list: Vec<Value> = all.iter().map(one).collect();
        return report::say(&format!("{}\n", Value::from(list)));
    }
    let mut rows =
        vec![["name", "data set", "training", "folds", "sha256"].map(String::from).to_vec()];
    for (folder, manifest) in &all {
        match manifest {
            Ok(manifest) => rows.push(manifest_row(manifest)),
            Err(error) => {
                let (name, why) = (called(folder), report::chain(error));
                report::tell(&format!("note: {name} cannot be used: {why}"));
            }
        }
    }
    report::say(&format!("in {}\n{}", from.display(), table::render(&rows)))
}

/// The name of an import that does not tell it itself.
fn called(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn manifest_row(manifest: &Manifest) -> Vec<String> {
    let weights = if manifest.link.is_some() { &manifest.checkpoints } else { &manifest.weights };
    let digests: Vec<&str> = weights.iter().map(|digest| &digest.sha256[..16]).collect();
    vec![
        manifest.name.clone(),
        manifest.dataset.clone(),
        manifest.training.clone(),
        manifest.folds.clone(),
        digests.join(" "),
    ]
}

/// What was made, and what was there.
fn told(args: &ImportArgs, Imported { made, kept }: &Imported, to: &Path) -> Result<()> {
    if args.json {
        let all = json!({"folder": to.display().to_string(), "made": made, "kept": kept});
        return report::say(&format!("{all}\n"));
    }
    let bytes: u64 = made.iter().flat_map(|m| &m.weights).map(|digest| digest.bytes).sum();
    let size = format!("{:.1} MB", bytes as f64 / 1e6);
    let what = if args.link { "by reference".to_owned() } else { size };
    let models = if made.len() == 1 { "model" } else { "models" };
    let there = match kept.len() {
        0 => String::new(),
        n => format!("; {n} of the same weights were there and stay"),
    };
    let place = to.display();
    report::say(&format!("imported {} {models} ({what}) to {place}{there}\n", made.len()))
}
