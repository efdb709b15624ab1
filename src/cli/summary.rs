//! What the user is told at the end, as text and as JSON.

use super::cases::CaseFiles;
use super::job::Job;
use super::table;
use fastnnunet::model::{Grade, Label};
use fastnnunet::pipeline::Timings;
use fastnnunet::segmenter::{Network, Outcome, Run};
use fastnnunet::volume::{Affine, Grid};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) struct Summary<'a> {
    pub(crate) job: &'a Job,
    pub(crate) files: &'a CaseFiles,
    pub(crate) networks: Vec<&'a Network>,
    pub(crate) grade: Grade,
    pub(crate) grid: Grid,
    /// Where the image lies, as its file says.
    pub(crate) affine: Affine,
    /// The structures of the result.
    pub(crate) labels: Vec<Label>,
    pub(crate) outcome: Outcome,
    /// Memory expected for what follows the networks.
    pub(crate) finishing_bytes: u64,
    /// Computed for JSON only: it reads the files once more.
    pub(crate) input_sha256: Option<Vec<String>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) timings: Timings,
    pub(crate) total: Duration,
    pub(crate) peak_bytes: Option<u64>,
}

/// One structure of the result.
struct Found {
    id: u16,
    name: String,
    voxels: u64,
    ml: f64,
}

/// Said of models that only show that a mode works.
pub(crate) const DEMONSTRATION: &str = "a demonstration: these models are not for use";

impl Summary<'_> {
    /// The structures that can occur, and any other that does.
    fn found(&self) -> Vec<Found> {
        let counts = self.outcome.labels.counts();
        (1..counts.len())
            .map(|id| (id as u16, counts[id]))
            .filter_map(|(id, voxels)| {
                let known = self.labels.iter().find(|label| label.id == id);
                let name = match known {
                    Some(label) => label.name.clone(),
                    None if voxels == 0 => return None,
                    None => format!("label_{id}"),
                };
                let ml = voxels as f64 * self.grid.voxel_ml();
                Some(Found { id, name, voxels, ml })
            })
            .collect()
    }

    /// The networks in the order they ran: a cascade's first stage before its second.
    fn stages(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter().flat_map(|network| network.previous().into_iter().chain([*network]))
    }

    /// One line for a case among many.
    pub(crate) fn to_line(&self) -> String {
        let found = self.found();
        let there = found.iter().filter(|found| found.voxels > 0).count();
        format!(
            "{}: {there} of {} structures, {:.2} s, {}",
            self.files.name,
            found.len(),
            self.total.as_secs_f64(),
            self.files.output.display()
        )
    }

    pub(crate) fn to_text(&self) -> String {
        let times: Vec<String> = self
            .timings
            .iter()
            .map(|(stage, time)| format!("{} {:.2}", stage.name(), time.as_secs_f64()))
            .collect();
        let images: Vec<String> =
            self.files.images.iter().map(|image| image.display().to_string()).collect();
        let mut rows = vec![(
            "input",
            format!(
                "{}, {} voxels of {} mm",
                images.join(" + "),
                times_sign(reversed(self.grid.shape)),
                times_sign(reversed(self.grid.spacing).map(|s| format!("{s:.3}"))),
            ),
        )];
        if !self.job.why.is_empty() {
            rows.push(("choice", self.job.why.clone()));
        }
        for network in self.stages() {
            let info = network.info();
            rows.push((
                "model",
                format!(
                    "{} ({}, grade {}), device {}, {}",
                    info.name,
                    info.configuration,
                    grade_name(info.grade),
                    network.device(),
                    network.precision()
                ),
            ));
        }
        for Run { network_shape, patch_size, tiles: (tiles, passes), .. } in &self.outcome.runs {
            let mirrored =
                if *passes > 1 { format!(" x {passes} mirrored") } else { String::new() };
            rows.push((
                "network",
                format!(
                    "{} voxels, {tiles} tiles of {}{mirrored}",
                    times_sign(reversed(*network_shape)),
                    times_sign(reversed(*patch_size)),
                ),
            ));
        }
        let found = self.found();
        let absent = found.iter().filter(|found| found.voxels == 0).count();
        let shown: Vec<&Found> =
            found.iter().filter(|f| f.voxels > 0 || absent <= MOST_ABSENT).collect();
        let width = shown.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        for (k, Found { id, name, ml, .. }) in shown.iter().enumerate() {
            let heading = if k == 0 { "labels" } else { "" };
            rows.push((heading, format!("{id:>3}  {name:<width$}  {ml:>9.1} ml")));
        }
        if absent > MOST_ABSENT {
            rows.push(("", format!("{absent} more structures were not found")));
        }
        rows.push((
            "time",
            format!(
                "{:.2} s: {}; models opened before in {:.2} s",
                self.total.as_secs_f64(),
                times.join(", "),
                self.job.opened.as_secs_f64()
            ),
        ));
        if let Some(bytes) = self.peak_bytes {
            rows.push(("memory", format!("{:.0} MiB at peak", bytes as f64 / f64::from(1 << 20))));
        }
        rows.push(("output", self.files.output.display().to_string()));
        if let Some(preview) = &self.files.preview {
            rows.push(("preview", preview.display().to_string()));
        }
        if self.job.is_demonstration {
            rows.push(("note", DEMONSTRATION.to_owned()));
        }
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        table::render(&rows)
    }

    pub(crate) fn to_json(&self) -> Value {
        let labels: Vec<Value> = self
            .found()
            .into_iter()
            .map(|Found { id, name, voxels, ml }| {
                json!({"id": id, "name": name, "voxels": voxels, "ml": ml})
            })
            .collect();
        let timings: serde_json::Map<String, Value> = self
            .timings
            .iter()
            .map(|(stage, time)| (stage.name().to_string(), json!(time.as_secs_f64())))
            .collect();
        let models: Vec<Value> = self.stages().map(model_json).collect();
        let runs: Vec<Value> = self.outcome.runs.iter().map(run_json).collect();
        let running = self.outcome.runs.iter().map(|run| run.predicted.bytes);
        let predicted = running.chain([self.finishing_bytes]).max();
        let last = self.networks.last();
        let images: Vec<String> =
            self.files.images.iter().map(|image| image.display().to_string()).collect();
        json!({
            "program": "fastnnunet",
            "version": env!("CARGO_PKG_VERSION"),
            "input": one_or_many(&images),
            "input_sha256": self.input_sha256.as_deref().map(one_or_many),
            "output": self.files.output.display().to_string(),
            "preview": self.files.preview.as_ref().map(|path| path.display().to_string()),
            "geometry": {
                "shape_xyz": reversed(self.grid.shape),
                "spacing_xyz_mm": reversed(self.grid.spacing),
                "affine": self.affine.0,
            },
            "mode": self.job.mode,
            "choice": self.job.why,
            "grade": grade_name(self.grade),
            "model": models.last(),
            "models": models,
            "device": last.map(|network| network.device()),
            "precision": last.map(|network| network.precision().to_string()),
            "network": runs.last(),
            "networks": runs,
            "labels": labels,
            "not_labeled": self.job.missing,
            "postprocessing": self.outcome.report,
            "warnings": self.warnings,
            "seconds": timings,
            "open_seconds": self.job.opened.as_secs_f64(),
            "total_seconds": self.total.as_secs_f64(),
            "predicted_peak_bytes": predicted,
            "peak_bytes": self.peak_bytes,
        })
    }
}

/// Structures that were not found are listed one by one if there are at most so many.
const MOST_ABSENT: usize = 10;

fn model_json(network: &Network) -> Value {
    let info = network.info();
    json!({
        "name": info.name,
        "configuration": info.configuration,
        "grade": grade_name(info.grade),
        "sha256": one_or_many(&info.sha256),
    })
}

fn run_json(run: &Run) -> Value {
    json!({
        "model": run.model,
        "shape_zyx": run.network_shape,
        "patch_zyx": run.patch_size,
        "tiles": run.tiles.0,
        "passes": run.tiles.1,
    })
}

/// A list, or its only entry.
fn one_or_many(list: &[String]) -> Value {
    match list {
        [only] => json!(only),
        list => json!(list),
    }
}

/// `grade` as configurations write it.
pub(crate) fn grade_name(grade: Grade) -> &'static str {
    match grade {
        Grade::Test => "test",
        Grade::Demo => "demo",
        Grade::Starter => "starter",
        Grade::Validated => "validated",
    }
}

/// `[z, y, x]` as people and NIfTI write it.
pub(crate) fn reversed<T: Copy>([z, y, x]: [T; 3]) -> [T; 3] {
    [x, y, z]
}

/// `512x512x133`.
pub(crate) fn times_sign<T: ToString>(values: [T; 3]) -> String {
    values.map(|v| v.to_string()).join("x")
}
