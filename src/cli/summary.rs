//! What the user is told at the end, as text and as JSON.

use super::cases::CaseFiles;
use super::images::Image;
use super::outputs::Output;
use super::table;
use fastnnunet::Segmentation;
use fastnnunet::pipeline::Timings;
use fastnnunet::segmenter::{Found, NetworkInfo, NetworkRun};
use fastnnunet::volume::Affine;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) struct Summary<'a> {
    pub(crate) mode: Option<&'a str>,
    /// What it took to open the models, once for all cases.
    pub(crate) opened: Duration,
    pub(crate) files: &'a CaseFiles,
    /// Where the image lies, as its file says.
    pub(crate) affine: Affine,
    pub(crate) done: Segmentation,
    /// Of each image.
    pub(crate) input_sha256: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) timings: Timings,
    pub(crate) total: Duration,
    pub(crate) peak_bytes: Option<u64>,
}

/// Said of models that only show that a mode works.
pub(crate) const DEMONSTRATION: &str = "a demonstration: these models are not for use";

impl Summary<'_> {
    /// One line for a case among many.
    pub(crate) fn to_line(&self) -> String {
        let found = self.done.found();
        let there = found.iter().filter(|found| found.voxels > 0).count();
        format!(
            "{}: {there} of {} structures, {:.2} s, {}",
            self.files.name,
            found.len(),
            self.total.as_secs_f64(),
            self.files.outputs.first().display()
        )
    }

    pub(crate) fn to_text(&self) -> String {
        let times: Vec<String> = self
            .timings
            .iter()
            .map(|(stage, time)| format!("{} {:.2}", stage.name(), time.as_secs_f64()))
            .collect();
        let (grid, about) = (&self.done.grid, &self.done.about);
        let images: Vec<String> = self.files.images.iter().map(Image::display).collect();
        let mut rows = vec![(
            "input",
            format!(
                "{}, {} voxels of {} mm",
                images.join(" + "),
                times_sign(reversed(grid.shape)),
                times_sign(reversed(grid.spacing).map(|s| format!("{s:.3}"))),
            ),
        )];
        if !about.choice.is_empty() {
            rows.push(("choice", about.choice.clone()));
        }
        for info in &about.networks {
            let NetworkInfo { name, configuration, grade, device, precision, .. } = info;
            let text =
                format!("{name} ({configuration}, grade {grade}), device {device}, {precision}");
            rows.push(("model", text));
            rows.extend(weights(info).map(|text| ("weights", text)));
        }
        for NetworkRun { network_shape, patch_size, tiles, known_tiles, passes, .. } in
            &self.done.runs
        {
            let mirrored =
                if *passes > 1 { format!(" x {passes} mirrored") } else { String::new() };
            let known = if *known_tiles > 0 {
                format!(", {known_tiles} of them air like one before")
            } else {
                String::new()
            };
            rows.push((
                "network",
                format!(
                    "{} voxels, {tiles} tiles of {}{mirrored}{known}",
                    times_sign(reversed(*network_shape)),
                    times_sign(reversed(*patch_size)),
                ),
            ));
        }
        rows.extend(self.label_rows());
        rows.push((
            "time",
            format!(
                "{:.2} s: {}; models opened before in {:.2} s",
                self.total.as_secs_f64(),
                times.join(", "),
                self.opened.as_secs_f64()
            ),
        ));
        if let Some(bytes) = self.peak_bytes {
            rows.push(("memory", format!("{:.0} MiB at peak", bytes as f64 / f64::from(1 << 20))));
        }
        for (k, output) in self.files.outputs.files.iter().enumerate() {
            let heading = if k == 0 { "output" } else { "" };
            rows.push((heading, output.path.display().to_string()));
        }
        if let Some(preview) = &self.files.preview {
            rows.push(("preview", preview.display().to_string()));
        }
        if let Some(statistics) = &self.files.statistics {
            rows.push(("statistics", statistics.display().to_string()));
        }
        if let Some(probabilities) = &self.files.probabilities {
            rows.push(("probabilities", probabilities.display().to_string()));
        }
        if about.is_demonstration {
            rows.push(("note", DEMONSTRATION.to_owned()));
        }
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        table::render(&rows)
    }

    /// The structures that were found, and those that were not if they are few.
    fn label_rows(&self) -> Vec<(&'static str, String)> {
        let found = self.done.found();
        let absent = found.iter().filter(|found| found.voxels == 0).count();
        let shown: Vec<&Found> =
            found.iter().filter(|f| f.voxels > 0 || absent <= MOST_ABSENT).collect();
        let width = shown.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        let mut rows = Vec::new();
        for (k, Found { id, name, ml, .. }) in shown.iter().enumerate() {
            let heading = if k == 0 { "labels" } else { "" };
            rows.push((heading, format!("{id:>3}  {name:<width$}  {ml:>9.1} ml")));
        }
        if absent > MOST_ABSENT {
            rows.push(("", format!("{absent} more structures were not found")));
        }
        rows
    }

    pub(crate) fn to_json(&self) -> Value {
        let labels: Vec<Value> = self
            .done
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
        let (grid, about) = (&self.done.grid, &self.done.about);
        let models: Vec<Value> = about.networks.iter().map(model_json).collect();
        let runs: Vec<Value> = self.done.runs.iter().map(run_json).collect();
        let last = about.networks.last();
        let images: Vec<String> =
            self.files.images.iter().map(|image| image.path().display().to_string()).collect();
        let outputs = &self.files.outputs.files;
        let outputs: Vec<Value> = outputs.iter().map(output_json).collect();
        let series: Vec<String> = self.files.images.iter().filter_map(Image::series_id).collect();
        json!({
            "program": "fastnnunet",
            "version": env!("CARGO_PKG_VERSION"),
            "input": one_or_many(&images),
            "series": if series.is_empty() { Value::Null } else { one_or_many(&series) },
            "input_sha256": one_or_many(&self.input_sha256),
            "output": self.files.outputs.first().display().to_string(),
            "outputs": outputs,
            "preview": self.files.preview.as_ref().map(|path| path.display().to_string()),
            "statistics": self.files.statistics.as_ref().map(|path| path.display().to_string()),
            "probabilities": self.files.probabilities.as_ref().map(|path| path.display().to_string()),
            "geometry": {
                "shape_xyz": reversed(grid.shape),
                "spacing_xyz_mm": reversed(grid.spacing),
                "affine": self.affine.0,
            },
            "mode": self.mode,
            "choice": about.choice,
            "grade": about.grade.to_string(),
            "model": models.last(),
            "models": models,
            "device": last.map(|network| &network.device),
            "precision": last.map(|network| network.precision.to_string()),
            "network": runs.last(),
            "networks": runs,
            "labels": labels,
            "not_labeled": about.missing,
            "postprocessing": self.done.postprocessing,
            "warnings": self.warnings,
            "seconds": timings,
            "open_seconds": self.opened.as_secs_f64(),
            "total_seconds": self.total.as_secs_f64(),
            "predicted_peak_bytes": self.done.predicted_bytes,
            "peak_bytes": self.peak_bytes,
        })
    }
}

/// Structures that were not found are listed one by one if there are at most so many.
const MOST_ABSENT: usize = 10;

fn output_json(Output { kind, path }: &Output) -> Value {
    json!({"type": kind.name(), "path": path.display().to_string()})
}

fn model_json(info: &NetworkInfo) -> Value {
    json!({
        "name": info.name,
        "configuration": info.configuration,
        "grade": info.grade.to_string(),
        "file": info.file.as_ref().map(|file| file.display().to_string()),
        "sha256": one_or_many(&info.sha256),
        "license": (!info.license.is_empty()).then_some(&info.license),
        "source": (!info.source.is_empty()).then_some(&info.source),
    })
}

fn run_json(run: &NetworkRun) -> Value {
    json!({
        "model": run.model,
        "shape_zyx": run.network_shape,
        "patch_zyx": run.patch_size,
        "tiles": run.tiles,
        "known_tiles": run.known_tiles,
        "passes": run.passes,
    })
}

/// Where weights that are not the program's own are, and which they are: enough of each SHA-256 to
/// tell files apart; `--json` has all.
pub(crate) fn weights(info: &NetworkInfo) -> Option<String> {
    let file = info.file.as_ref()?.display().to_string();
    let digests: Vec<&str> = info.sha256.iter().map(|sha256| &sha256[..16]).collect();
    Some(if digests.is_empty() { file } else { format!("{file}, sha256 {}", digests.join(" ")) })
}

/// A list, or its only entry.
fn one_or_many(list: &[String]) -> Value {
    match list {
        [only] => json!(only),
        list => json!(list),
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
