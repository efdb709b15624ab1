//! Times postprocessing of a long CT's labels and measures its memory, once, in a fresh process.
//!
//! ```text
//! bench_postprocess draw LABELS.raw            draws the phantom: 500x512x512 bytes
//! bench_postprocess components                 time of one pass over all labels
//! bench_postprocess RECIPE.json [OUT.raw]      applies a recipe to the phantom
//! ```
//!
//! One line of JSON with seconds, voxels changed per step and extra bytes at peak.

use fastnnunet::pipeline::postprocess::{Classes, Components, Connectivity, Recipe, Runs};
use fastnnunet::registry::Registry;
use fastnnunet::volume::LabelMap;
use std::time::Instant;

mod phantom;

/// A number of kilobytes from the kernel's account of this process, in bytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[allow(clippy::print_stdout, reason = "what the program is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let labels = phantom::labels();
    let before = memory("VmRSS");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["draw", file] => {
            let bytes = labels.as_slice().ok_or("the phantom is contiguous")?;
            let names = phantom::names();
            std::fs::write(file, bytes)?;
            println!("{}", serde_json::to_string(&names)?);
        }
        ["components"] => {
            let ids: Vec<u16> = phantom::names().iter().map(|label| label.id).collect();
            let start = Instant::now();
            let runs = Runs::new(labels.view());
            let of_runs = start.elapsed().as_secs_f64();
            let components = Components::new(&runs, &Classes::each(&ids), Connectivity::TwentySix);
            let found = start.elapsed().as_secs_f64();
            let extra = memory("VmHWM").saturating_sub(before);
            let painted = components.paint(&runs);
            let all = start.elapsed().as_secs_f64();
            let result = serde_json::json!({
                "runs": runs.all().len(), "components": components.voxels.len(),
                "seconds_runs": of_runs, "seconds": found, "seconds_painted": all,
                "extra_bytes": extra, "painted": painted.len(),
            });
            println!("{result}");
        }
        [recipe, out @ ..] => {
            let recipe = match Registry::embedded().recipe(recipe) {
                Ok(json) => Recipe::from_json(json)?,
                Err(_) => Recipe::open(recipe)?,
            };
            let mut labels = LabelMap::U8(labels);
            let start = Instant::now();
            let report = recipe.apply(&mut labels, &phantom::grid(), &phantom::names())?;
            let seconds = start.elapsed().as_secs_f64();
            let extra = memory("VmHWM").saturating_sub(before);
            if let ([file], LabelMap::U8(labels)) = (out, &labels) {
                std::fs::write(file, labels.as_slice().ok_or("contiguous")?)?;
            }
            let result = serde_json::json!({
                "seconds": seconds, "extra_bytes": extra, "steps": report.steps,
            });
            println!("{result}");
        }
        [] => return Err("what to do: see the first lines of this file".into()),
    }
    Ok(())
}
