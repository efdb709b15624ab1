//! What the user is told at the end, as text and as JSON.

use super::job::Job;
use super::table;
use fastnnunet::infer::Precision;
use fastnnunet::model::Grade;
use fastnnunet::pipeline::{Segmentation, Timings};
use fastnnunet::volume::Grid;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) struct Summary<'a> {
    pub(crate) job: &'a Job,
    pub(crate) grid: Grid,
    pub(crate) segmentation: Segmentation,
    /// Computed for JSON only: it reads the file once more.
    pub(crate) input_sha256: Option<String>,
    pub(crate) device: String,
    pub(crate) precision: Precision,
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

impl Summary<'_> {
    /// The labels of the configuration, and any other that occurs.
    fn found(&self) -> Vec<Found> {
        let counts = self.segmentation.labels.counts();
        let config = &self.job.config;
        (1..counts.len())
            .map(|id| (id as u16, counts[id]))
            .filter(|&(id, voxels)| voxels > 0 || config.labels.iter().any(|l| l.id == id))
            .map(|(id, voxels)| Found {
                id,
                name: config.label_name(id),
                voxels,
                ml: voxels as f64 * self.grid.voxel_ml(),
            })
            .collect()
    }

    pub(crate) fn to_text(&self) -> String {
        let model = &self.job.model;
        let config = &self.job.config;
        let (tiles, passes) = self.segmentation.tiles;
        let mirrored = if passes > 1 { format!(" x {passes} mirrored") } else { String::new() };
        let times: Vec<String> = self
            .timings
            .iter()
            .map(|(stage, time)| format!("{} {:.2}", stage.name(), time.as_secs_f64()))
            .collect();
        let mut rows = vec![
            (
                "input",
                format!(
                    "{}, {} voxels of {} mm",
                    self.job.input.display(),
                    times_sign(reversed(self.grid.shape)),
                    times_sign(reversed(self.grid.spacing).map(|s| format!("{s:.3}"))),
                ),
            ),
            (
                "model",
                format!(
                    "{} ({}, grade {}), device {}, {}",
                    model.name,
                    model.configuration,
                    grade_name(config.grade),
                    self.device,
                    self.precision
                ),
            ),
            (
                "network",
                format!(
                    "{} voxels, {tiles} tiles of {}{mirrored}",
                    times_sign(reversed(self.segmentation.network_shape)),
                    times_sign(reversed(config.patch_size)),
                ),
            ),
        ];
        let found = self.found();
        let width = found.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        for (k, Found { id, name, ml, .. }) in found.iter().enumerate() {
            let heading = if k == 0 { "labels" } else { "" };
            rows.push((heading, format!("{id:>3}  {name:<width$}  {ml:>9.1} ml")));
        }
        rows.push(("time", format!("{:.2} s: {}", self.total.as_secs_f64(), times.join(", "))));
        if let Some(bytes) = self.peak_bytes {
            rows.push(("memory", format!("{:.0} MiB at peak", bytes as f64 / f64::from(1 << 20))));
        }
        rows.push(("output", self.job.output.display().to_string()));
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        table::render(&rows)
    }

    pub(crate) fn to_json(&self) -> Value {
        let model = &self.job.model;
        let config = &self.job.config;
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
        json!({
            "program": "fastnnunet",
            "version": env!("CARGO_PKG_VERSION"),
            "input": self.job.input.display().to_string(),
            "input_sha256": self.input_sha256,
            "output": self.job.output.display().to_string(),
            "geometry": {
                "shape_xyz": reversed(self.grid.shape),
                "spacing_xyz_mm": reversed(self.grid.spacing),
                "affine": self.grid.affine.0,
            },
            "mode": self.job.mode,
            "model": {
                "name": model.name,
                "configuration": model.configuration,
                "grade": grade_name(config.grade),
                "sha256": model.facts().map(|facts| &*facts.sha256).ok(),
            },
            "device": self.device,
            "precision": self.precision.to_string(),
            "network": {
                "shape_zyx": self.segmentation.network_shape,
                "patch_zyx": config.patch_size,
                "tiles": self.segmentation.tiles.0,
                "passes": self.segmentation.tiles.1,
            },
            "labels": labels,
            "warnings": self.warnings,
            "seconds": timings,
            "total_seconds": self.total.as_secs_f64(),
            "peak_bytes": self.peak_bytes,
        })
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
