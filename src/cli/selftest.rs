//! `selftest`: did the weights come over to this machine whole, and does it compute right?

use super::args::SelftestArgs;
use super::summary::{reversed, times_sign};
use super::{list, report};
use fastnnunet::infer::{Device, EngineOptions, Precision, check_weights};
use fastnnunet::registry::{Model, Registry, Request};
use fastnnunet::selftest::{self, Comparison, Plain};
use fastnnunet::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(crate) fn run(args: &SelftestArgs) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(note) = super::kernels::keep(args.kernels.kernel_cache.as_ref(), args.device) {
        report::tell(&format!("note: {note}"));
    }
    let registry = Registry::embedded();
    let (models, timed): (Vec<&Model>, Option<&Model>) = if let Some(name) = &args.model {
        let model = list::find(registry, name)?;
        (vec![model], Some(model))
    } else {
        let usual = registry
            .select(&Request { mode: "bone", ..Request::default() }, &mut |_| Ok(true))
            .ok();
        let usual = usual.and_then(|bone| registry.find(&bone.model().name));
        (registry.models().iter().map(|model| &**model).collect(), usual.map(|model| &**model))
    };
    let say = |line: String| if args.json { Ok(()) } else { report::say(&(line + "\n")) };

    for model in &models {
        check_weights(model)?;
    }
    let plain = models.iter().map(|model| Plain::of(model)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for options in selftest::engines(args.device) {
        let row = Row::of(&options, &plain, timed, args.device)?;
        if rows.is_empty() {
            say(heading(models.len(), timed))?;
        }
        say(row.text())?;
        rows.push(row);
    }
    let failed = rows.iter().find_map(Row::failed);
    if args.json {
        let summary = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "passed": failed.is_none(),
            "models": models.iter().map(|m| &m.name).collect::<Vec<_>>(),
            "timed_model": timed.map(|model| &model.name),
            "engines": rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        report::say(&format!("{summary}\n"))?;
    }
    match failed {
        None => Ok(()),
        Some((device, worst)) => Err(failure(device, worst)),
    }
}

/// What was done and what the columns are.
fn heading(models: usize, timed: Option<&Model>) -> String {
    let mut text = format!("weights  as they were built in ({models} checked)\n");
    text += "compare  logits with those of plain Rust code in f32\n";
    if let Some(model) = timed {
        let patch = times_sign(reversed(model.config().patch_size));
        let _ = writeln!(text, "ms       one patch of {patch} voxels of {}", model.name);
    }
    text + "\n" + &Row::heading()
}

fn failure(device: Device, worst: &Comparison) -> Error {
    let reason = if worst.repeats {
        format!(
            "its logits of {} in {} differ by {:.1e} of the largest from those of plain code, where \
             {:.0e} is allowed; do not use it here: {}",
            worst.model,
            worst.precision,
            worst.difference.relative(),
            worst.tolerance(),
            match (device, worst.precision) {
                (_, Precision::F16 | Precision::Bf16 | Precision::Int8) =>
                    "--precision f32 rounds less",
                (Device::Cpu, Precision::F32) => "--isa lowers the instruction set",
                (_, Precision::F32) => "--device cpu is without it",
            }
        )
    } else {
        format!("its logits of {} on one thread are not those on several", worst.model)
    };
    Error::Device { device: worst.device.clone(), reason }
}

/// One engine on all networks.
struct Row {
    device: Device,
    name: String,
    precision: String,
    state: State,
    /// Milliseconds per patch.
    time: Option<f64>,
}

enum State {
    /// The network that came out worst.
    Ran(Comparison),
    /// Why it did not open.
    Absent(String),
}

impl Row {
    fn of(
        options: &EngineOptions,
        plain: &[Plain<'_>],
        timed: Option<&Model>,
        asked: Device,
    ) -> Result<Self> {
        let mut row = Self {
            device: options.device,
            name: options.device.to_string(),
            precision: options.precision.map_or_else(String::new, |p| p.to_string()),
            state: State::Absent("there is no model".into()),
            time: None,
        };
        let mut all = Vec::new();
        for plain in plain {
            match plain.compare(options) {
                Ok(comparison) => all.push(comparison),
                // A machine need not have every device of the build, nor a device every precision.
                Err(Error::Device { reason, .. })
                    if all.is_empty()
                        && (asked == Device::Auto || options.precision != Some(Precision::F32)) =>
                {
                    row.state = State::Absent(reason);
                    return Ok(row);
                }
                Err(error) => return Err(error),
            }
        }
        let labels = all.iter().map(|c| c.difference.same_labels).fold(1.0, f64::min);
        let worst = all.into_iter().max_by(|a, b| {
            let distance = |c: &Comparison| c.difference.relative();
            b.repeats.cmp(&a.repeats).then(distance(a).total_cmp(&distance(b)))
        });
        if let Some(mut worst) = worst {
            worst.difference.same_labels = labels;
            row.name.clone_from(&worst.device);
            row.state = State::Ran(worst);
        }
        if let Some(model) = timed {
            row.time = Some(1e3 * selftest::seconds_per_patch(model, options)?);
        }
        Ok(row)
    }

    fn failed(&self) -> Option<(Device, &Comparison)> {
        match &self.state {
            State::Ran(worst) if !worst.passes() => Some((self.device, worst)),
            _ => None,
        }
    }

    fn heading() -> String {
        Self::line(["engine", "in", "difference", "same label", "ms", "result"])
    }

    fn line([engine, precision, difference, same, time, result]: [&str; 6]) -> String {
        format!("{engine:<18}  {precision:<4}  {difference:>10}  {same:>10}  {time:>7}  {result}")
    }

    fn text(&self) -> String {
        let (difference, same, result) = match &self.state {
            State::Absent(reason) => (String::new(), String::new(), format!("absent: {reason}")),
            State::Ran(worst) => (
                format!("{:.1e}", worst.difference.relative()),
                format!("{:.3} %", 100.0 * worst.difference.same_labels),
                if worst.passes() { "ok".into() } else { format!("FAILED on {}", worst.model) },
            ),
        };
        let time = self.time.map_or_else(String::new, |ms| format!("{ms:.1}"));
        Self::line([&self.name, &self.precision, &difference, &same, &time, &result])
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "device": self.name,
            "precision": self.precision,
            "milliseconds_per_patch": self.time,
        });
        match &self.state {
            State::Absent(reason) => row["absent"] = json!(reason),
            State::Ran(worst) => {
                row["passed"] = json!(worst.passes());
                row["largest_relative_difference"] = json!(worst.difference.relative());
                row["same_labels"] = json!(worst.difference.same_labels);
                row["worst_model"] = json!(worst.model);
                row["same_bytes_on_one_thread"] = json!(worst.repeats);
            }
        }
        row
    }
}
