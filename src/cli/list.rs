//! `modes` and `models`: what is inside this program.

use super::args::ListArgs;
use super::summary::{grade_name, reversed, times_sign};
use super::table;
use fastnnunet::model::modes::{Choice, Mode};
use fastnnunet::model::registry::EmbeddedModel;
use fastnnunet::model::{ModelConfig, registry};
use fastnnunet::{Error, Result};
use serde_json::{Value, json};

pub(crate) fn models(request: &ListArgs) -> Result<()> {
    let chosen: Vec<&EmbeddedModel> = match &request.name {
        Some(name) => vec![find(name)?],
        None => registry::models().iter().collect(),
    };
    if request.json {
        let list: Result<Vec<Value>> = chosen.iter().map(|model| model_json(model)).collect();
        println!("{}", Value::from(list?));
    } else if request.name.is_some() {
        print!("{}", model_text(chosen[0])?);
    } else {
        let heading =
            ["name", "configuration", "spacing mm", "patch", "classes", "grade", "size", "sha256"];
        let mut rows = vec![heading.map(String::from).to_vec()];
        for model in chosen {
            rows.push(model_row(model)?);
        }
        print!("{}", table::render(&rows));
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static EmbeddedModel> {
    registry::find(name).ok_or_else(|| Error::Usage {
        what: "model".into(),
        found: name.into(),
        expected: format!("one of {}", model_names()),
    })
}

/// The models of this build, for messages.
pub(crate) fn model_names() -> String {
    registry::models().iter().map(|model| model.name).collect::<Vec<_>>().join(", ")
}

fn model_row(model: &EmbeddedModel) -> Result<Vec<String>> {
    let config = model.config()?;
    Ok(vec![
        model.name.into(),
        model.configuration.into(),
        spacing_text(&config),
        times_sign(reversed(config.patch_size)),
        model.output_channels.to_string(),
        grade_name(config.grade).into(),
        format!("{:.1} MB", model.onnx.len() as f64 / 1e6),
        // Enough to tell files apart at a glance; `models NAME` and `--json` give all.
        model.sha256[..16].into(),
    ])
}

fn spacing_text(config: &ModelConfig) -> String {
    let shown = |s: Option<f64>| s.map_or_else(|| "own".to_string(), |s| format!("{s:.3}"));
    times_sign(reversed(config.target_spacing).map(shown))
}

fn model_text(model: &EmbeddedModel) -> Result<String> {
    let config = model.config()?;
    let rows = [
        ("name", model.name.to_string()),
        ("configuration", model.configuration.to_string()),
        ("spacing mm", spacing_text(&config)),
        ("patch", times_sign(reversed(config.patch_size))),
        ("classes", model.output_channels.to_string()),
        ("grade", grade_name(config.grade).to_string()),
        ("size", format!("{} bytes", model.onnx.len())),
        ("sha256", model.sha256.to_string()),
        ("opset", model.opset.to_string()),
        ("origin", model.origin.to_string()),
        ("licence", model.licence.to_string()),
    ];
    let mut rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    for (k, label) in config.labels.iter().enumerate() {
        let heading = if k == 0 { "labels" } else { "" };
        rows.push(vec![heading.into(), format!("{:>3}  {}", label.id, label.name)]);
    }
    Ok(table::render(&rows))
}

fn model_json(model: &EmbeddedModel) -> Result<Value> {
    let config = model.config()?;
    Ok(json!({
        "name": model.name,
        "configuration": model.configuration,
        "spacing_zyx_mm": config.target_spacing,
        "patch_zyx": config.patch_size,
        "classes": model.output_channels,
        "grade": grade_name(config.grade),
        "bytes": model.onnx.len(),
        "sha256": model.sha256,
        "opset": model.opset,
        "origin": model.origin,
        "licence": model.licence,
        "labels": config.labels,
    }))
}

pub(crate) fn modes(request: &ListArgs) -> Result<()> {
    let all = registry::modes();
    let chosen: Vec<&Mode> = match &request.name {
        Some(name) => vec![all.iter().find(|mode| mode.name == *name).ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|mode| mode.name.as_str()).collect();
            Error::Usage {
                what: "mode".into(),
                found: name.clone(),
                expected: format!("one of {}", known.join(", ")),
            }
        })?],
        None => all.iter().collect(),
    };
    if request.json {
        let list: Vec<Value> = chosen.iter().map(|mode| mode_json(mode)).collect();
        println!("{}", Value::from(list));
        return Ok(());
    }
    let mut rows =
        vec![["mode", "choice", "model", "installed", "what"].map(String::from).to_vec()];
    for mode in &chosen {
        for (k, choice) in mode.choices.iter().enumerate() {
            let installed = registry::find(&choice.model)
                .map(EmbeddedModel::config)
                .transpose()?
                .map_or("no", |config| grade_name(config.grade));
            rows.push(vec![
                if k == 0 { mode.name.clone() } else { String::new() },
                choice_text(choice),
                choice.model.clone(),
                installed.into(),
                if k == 0 { mode.summary.clone() } else { String::new() },
            ]);
        }
    }
    print!("{}", table::render(&rows));
    if request.name.is_some() {
        for choice in &chosen[0].choices {
            if let Some(model) = registry::find(&choice.model) {
                print!("\n{}", model_text(model)?);
            }
        }
    }
    Ok(())
}

/// The option that selects a choice.
fn choice_text(choice: &Choice) -> String {
    match (&choice.quality, &choice.variant) {
        (Some(quality), _) => format!("--quality {quality}"),
        (None, Some(variant)) => format!("--variant {variant}"),
        (None, None) => String::new(),
    }
}

fn mode_json(mode: &Mode) -> Value {
    let choices: Vec<Value> = mode
        .choices
        .iter()
        .map(|choice| {
            json!({
                "quality": choice.quality,
                "variant": choice.variant,
                "model": choice.model,
                "installed": registry::find(&choice.model).is_some(),
            })
        })
        .collect();
    json!({"mode": mode.name, "summary": mode.summary, "choices": choices})
}
