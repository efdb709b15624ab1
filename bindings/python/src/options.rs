//! What a caller may choose, as Python's keyword arguments give it.

use crate::errors::{raised, usage};
use fastnnunet::infer::cpu::instruction_set;
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::registry::Registry;
use fastnnunet::{Error, Options, Postprocessing};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::available_parallelism;

/// The library's options for a dictionary of those that are set.
pub(crate) fn read(given: &Bound<'_, PyDict>) -> PyResult<Options> {
    let mut options = Options::default();
    options.threads = Some(available_parallelism().map_or(1, usize::from));
    for (name, value) in given.iter() {
        if !value.is_none() {
            set(&mut options, &name.extract::<String>()?, &value)?;
        }
    }
    Ok(options)
}

fn set(options: &mut Options, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = value.py();
    match name {
        "quality" => options.quality = Some(parsed(value)?),
        "variant" => options.variant = Some(value.extract()?),
        "structures" => options.structures = value.extract()?,
        "models_dir" => options.models = Some(of_path(value, Registry::with_folder)?.into()),
        "folds" => options.folds = parsed(value)?,
        "checkpoint" => options.checkpoint = Some(value.extract()?),
        "postprocessing" if value.extract::<&str>().is_ok_and(|text| text == "none") => {
            options.postprocessing = Postprocessing::None;
        }
        "postprocessing" => {
            options.postprocessing =
                Postprocessing::Recipe(of_path(value, |path| Recipe::open(path))?);
        }
        "device" => options.device = parsed(value)?,
        "precision" => options.precision = Some(parsed(value)?),
        "isa" => {
            let text: String = value.extract()?;
            options.isa = Some(instruction_set(&text).map_err(|error| raised(py, &error))?);
        }
        "mirror" => {
            let names: Vec<String> = value.extract()?;
            options.mirror = Some(axes(&names).map_err(|error| raised(py, &error))?);
        }
        "threads" => options.threads = Some(value.extract()?),
        "step_size" => options.step_size = Some(value.extract()?),
        "gaussian" => options.gaussian = Some(value.extract()?),
        "divide_bone" => options.divide_bone = value.extract()?,
        "skip_air" => options.skip_air = value.extract()?,
        "memory_limit_bytes" => options.memory_limit_bytes = Some(value.extract()?),
        "gpu_memory_limit_bytes" => options.gpu_memory_limit_bytes = Some(value.extract()?),
        _ => return Err(PyTypeError::new_err(format!("no option is called {name}"))),
    }
    Ok(())
}

/// A text that names a choice.
fn parsed<T: FromStr<Err = Error>>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    let text: String = value.extract()?;
    text.parse().map_err(|error| raised(value.py(), &error))
}

/// What a file or folder holds.
fn of_path<T>(
    value: &Bound<'_, PyAny>,
    open: impl FnOnce(&Path) -> Result<T, Error>,
) -> PyResult<T> {
    let path: PathBuf = value.extract()?;
    open(&path).map_err(|error| raised(value.py(), &error))
}

/// Axes of the network, `[z, y, x]`, by name.
fn axes(names: &[String]) -> Result<[bool; 3], Error> {
    let mut axes = [false; 3];
    for name in names {
        let axis = ["z", "y", "x"].iter().position(|axis| axis == name);
        axes[axis.ok_or_else(|| usage("mirror", name.as_str(), "z, y or x"))?] = true;
    }
    Ok(axes)
}
