//! Segmenters and their results, as plain tuples and arrays; `fastnnunet/_segmenter.py` gives them types.

use crate::errors::{raised, usage};
use crate::images::Image;
use crate::{options, run};
use fastnnunet::model::{self, Side};
use fastnnunet::pipeline::{Progress, Stage};
use fastnnunet::volume::LabelMap;
use fastnnunet::{Case, Error, Existing, OutputType, Scan, Source};
use numpy::ToPyArray;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// Open networks.
#[pyclass(frozen, module = "fastnnunet._native")]
pub(crate) struct Segmenter {
    open: Mutex<fastnnunet::Segmenter>,
    /// Images per case.
    #[pyo3(get)]
    channels: usize,
    #[pyo3(get)]
    choice: String,
    #[pyo3(get)]
    grade: String,
    /// Id, name, color, SNOMED CT code, its meaning, side.
    #[pyo3(get)]
    labels: Vec<Label>,
}

type Label = (u16, String, Option<String>, Option<String>, Option<String>, Option<&'static str>);

#[pymethods]
impl Segmenter {
    /// Opens what `kind` (mode, model, folder or onnx) and `name` say.
    #[new]
    fn new(
        py: Python<'_>,
        kind: &str,
        name: PathBuf,
        config: Option<PathBuf>,
        given: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let named = || name.to_string_lossy().into_owned();
        let source = match (kind, config) {
            ("mode", None) => Source::Mode(named()),
            ("model", config) => Source::Model { name: named(), config },
            ("folder", config) => Source::Folder { path: name, config },
            ("onnx", Some(config)) => Source::Onnx { onnx: name, config },
            ("onnx", None) => return Err(PyTypeError::new_err("onnx needs a config")),
            _ => return Err(PyTypeError::new_err("config goes with model, folder and onnx only")),
        };
        let options = options::read(given)?;
        let open = run::beside(py, None, |_| {
            check_process()?;
            fastnnunet::Segmenter::open_with(source, options)
        })?;
        let label = |label: &model::Label| {
            let side = label.side.map(|side| match side {
                Side::Left => "left",
                Side::Right => "right",
            });
            let model::Label { id, name, color, snomed, meaning, .. } = label.clone();
            (id, name, color, snomed, meaning, side)
        };
        Ok(Self {
            channels: open.images(),
            choice: open.about().choice.clone(),
            grade: open.about().grade.to_string(),
            labels: open.structures().iter().map(label).collect(),
            open: Mutex::new(open),
        })
    }

    /// Checks, before a run depends on it, that labels could be written there.
    fn check_output(&self, py: Python<'_>, path: PathBuf, overwrite: bool) -> PyResult<()> {
        let structures = self.turn().map(|turn| turn.structures().to_vec());
        structures
            .and_then(|structures| OutputType::Nifti.check(&path, existing(overwrite), &structures))
            .map_err(|error| raised(py, &error))
    }

    /// Segments images in arrays.
    fn segment_arrays(
        &self,
        py: Python<'_>,
        images: Vec<Image<'_>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Segmentation> {
        let lent: Vec<_> = images.iter().map(Image::lent).collect();
        let done = run::beside(py, progress, |tell| {
            self.turn()?.segment_with(Case::lent(lent)?, 0, tell)
        })?;
        Ok(Segmentation { done, warnings: Vec::new() })
    }

    /// Segments images in files.
    fn segment_files(
        &self,
        py: Python<'_>,
        paths: Vec<PathBuf>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Segmentation> {
        let (done, warnings) = run::beside(py, progress, |tell| {
            let mut turn = self.turn()?;
            let mut scans = Vec::with_capacity(paths.len());
            for (channel, path) in paths.iter().enumerate() {
                let (done, total) = (channel, paths.len());
                let step = Progress { stage: Stage::Load, done, total, memory: None };
                if tell(step).is_break() {
                    return Err(Error::Interrupted);
                }
                let mut rules = turn.read_options();
                rules.expects_ct = turn.expects_ct(channel);
                scans.push(Scan::open_with(path, &rules)?);
            }
            let case = Case::from(scans);
            let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let warnings = case.warnings(&names);
            Ok((turn.segment_with(case, 0, tell)?, warnings))
        })?;
        Ok(Segmentation { done, warnings })
    }
}

impl Segmenter {
    /// The segmenter for one case, once those before it are done.
    fn turn(&self) -> Result<MutexGuard<'_, fastnnunet::Segmenter>, Error> {
        check_process()?;
        // What a panic left half done is not used again.
        self.open.lock().map_err(|_| {
            usage("segmenter", "one that ended in an internal fault", "a newly opened one")
        })
    }
}

/// Fails in a copy of a process that had segmented.
fn check_process() -> Result<(), Error> {
    if !fastnnunet::segmenter::is_forked() {
        return Ok(());
    }
    Err(usage(
        "process",
        "a fork of one that had opened a Segmenter",
        "multiprocessing's start method \"spawn\" or \"forkserver\", or a fork before",
    ))
}

/// A finished case.
#[pyclass(frozen, module = "fastnnunet._native")]
pub(crate) struct Segmentation {
    done: fastnnunet::Segmentation,
    #[pyo3(get)]
    warnings: Vec<String>,
}

#[pymethods]
impl Segmentation {
    /// The labels, `[z, y, x]`, copied to an array of uint8 or uint16.
    fn labels<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.done.labels {
            LabelMap::U8(labels) => labels.to_pyarray(py).into_any(),
            LabelMap::U16(labels) => labels.to_pyarray(py).into_any(),
        }
    }

    /// Id, name, voxels and millilitres of each structure that can occur.
    #[getter]
    fn structures(&self) -> Vec<(u16, String, u64, f64)> {
        self.done.found().into_iter().map(|s| (s.id, s.name, s.voxels, s.ml)).collect()
    }

    /// Name and seconds of each stage, in the order in which they ran.
    #[getter]
    fn timings(&self) -> Vec<(&'static str, f64)> {
        self.done.timings.iter().map(|(stage, time)| (stage.name(), time.as_secs_f64())).collect()
    }

    #[getter]
    fn predicted_bytes(&self) -> u64 {
        self.done.predicted_bytes
    }

    /// Millimetres per voxel, `[z, y, x]`.
    #[getter]
    fn spacing(&self) -> [f64; 3] {
        self.done.grid.spacing
    }

    /// From (x, y, z, 1) to millimetres right, anterior and superior: three rows.
    #[getter]
    fn affine(&self) -> [[f64; 4]; 3] {
        self.done.grid.affine.0
    }

    /// Writes the labels as NIfTI.
    fn save(&self, py: Python<'_>, path: PathBuf, overwrite: bool) -> PyResult<()> {
        py.detach(|| self.done.save_as(path, existing(overwrite)))
            .map_err(|error| raised(py, &error))
    }
}

fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Replace } else { Existing::Keep }
}
