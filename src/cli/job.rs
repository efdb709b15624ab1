//! What to do, checked before any work starts.

use super::args::{Mirror, PredictArgs};
use super::peak;
use fastnnunet::infer::EngineOptions;
use fastnnunet::model::{ModelConfig, registry};
use fastnnunet::pipeline::Options;
use fastnnunet::{Error, Result};
use std::path::{Path, PathBuf};

/// One case to segment.
pub(crate) struct Job {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    /// The mode, where one was asked for.
    pub(crate) mode: Option<String>,
    pub(crate) model: &'static registry::EmbeddedModel,
    pub(crate) config: ModelConfig,
    pub(crate) options: Options,
    pub(crate) engine: EngineOptions,
}

impl Job {
    pub(crate) fn new(args: &PredictArgs) -> Result<Self> {
        let input = args.input.clone().ok_or_else(|| Error::Usage {
            what: "--input".into(),
            found: "nothing".into(),
            expected: "a CT volume".into(),
        })?;
        let model = choose_model(args)?;
        if args.enable_subseg {
            return Err(refuse_subseg(args.mode.as_deref().unwrap_or_default()));
        }
        let config = match &args.config {
            Some(path) => read_config(path)?,
            None => model.config()?,
        };
        let name = args.mode.as_deref().unwrap_or(model.name);
        let output = args.output.clone().unwrap_or_else(|| {
            Path::new("results").join(format!("{}_{name}.nii.gz", case(&input)))
        });
        let options = Options {
            mirror_axes: match &args.mirror {
                Mirror::Auto => None,
                Mirror::Axes(axes) => Some(axes.clone()),
            },
            step_size: args.step_size,
            use_gaussian: args.no_gaussian.then_some(false),
            isa: args.isa,
            memory_limit_bytes: args.memory_limit.or_else(peak::available_bytes),
            ..Options::default()
        };
        let engine =
            EngineOptions { device: args.device, arithmetic: args.precision, isa: args.isa };
        Ok(Self { input, output, mode: args.mode.clone(), model, config, options, engine })
    }
}

fn choose_model(args: &PredictArgs) -> Result<&'static registry::EmbeddedModel> {
    if let Some(name) = &args.model {
        return registry::find(name).ok_or_else(|| Error::Usage {
            what: "--model".into(),
            found: name.clone(),
            expected: format!("one of {}", super::list::model_names()),
        });
    }
    let mode = args.mode.as_deref().unwrap_or_default();
    registry::resolve(mode, args.quality.as_deref(), args.variant.as_deref())
}

/// No model for cortical bone is built in yet; saying so beats leaving it out silently.
fn refuse_subseg(mode: &str) -> Error {
    if mode == "bone" {
        Error::Model {
            model: "bone_cortical".into(),
            found: "no cortical bone model in this build".into(),
            expected: "a run without --enable-subseg".into(),
        }
    } else {
        Error::Usage {
            what: "--enable-subseg".into(),
            found: format!("mode {mode}"),
            expected: "mode bone".into(),
        }
    }
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let json = std::fs::read_to_string(path).map_err(|error| Error::Model {
        model: path.display().to_string(),
        found: error.to_string(),
        expected: "a readable JSON configuration".into(),
    })?;
    ModelConfig::from_json(&json).map_err(|error| Error::Model {
        model: path.display().to_string(),
        found: format!("{} {}", error.field, error.found),
        expected: error.expected,
    })
}

/// File name without its NIfTI ending.
fn case(input: &Path) -> String {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    stem.strip_suffix(".nii").unwrap_or(stem).to_string()
}

#[cfg(test)]
mod tests {
    use super::case;
    use std::path::Path;

    #[test]
    fn case_is_the_name_without_ending() {
        for name in ["a/CT.nii.gz", "CT.nii", "CT.gz", "CT"] {
            assert_eq!(case(Path::new(name)), "CT", "{name}");
        }
        assert_eq!(case(Path::new("p.01.nii.gz")), "p.01");
    }
}
