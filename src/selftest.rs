//! Whether a machine computes what it should: every engine that runs there, beside plain Rust.
//!
//! The networks are those inside the program, the patch a fixed one. What is compared with are
//! our kernels without any vector instructions, in `f32` ([`Plain`]); the generated code of
//! [`Device::Reference`] shares nothing with them but the weights.

use crate::infer::cpu::{CpuEngine, Isa};
use crate::infer::{Device, Difference, Engine, EngineOptions, Precision, open, sample_patch};
use crate::model::onnx::Graph;
use crate::nnunet::Folder;
use crate::registry::{MAX_ONNX_BYTES, Model};
use crate::{Error, Result};
use ndarray::Array4;
use std::path::Path;
use std::time::Instant;

/// Longest edge of the patch: small enough for plain Rust, and two voxels at the deepest of five stages.
const EDGE: usize = 32;

/// The plain engine's answer for one network.
pub struct Plain<'a> {
    model: &'a Model,
    input: Array4<f32>,
    logits: Array4<f32>,
}

/// An engine's answer for one network, beside the plain one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Name of the model.
    pub model: String,
    /// The device, for instance `cpu (avx2)`.
    pub device: String,
    /// What it multiplies in.
    pub precision: Precision,
    /// How far it is from the plain engine.
    pub difference: Difference,
    /// Whether a second run, on a single thread, gave the same bytes. GPUs need not.
    pub repeats: bool,
}

impl Comparison {
    /// Largest [`relative`](Difference::relative) difference in this precision, at least twice what
    /// engines that compute right have. Sums of some thousand products in another order differ by
    /// 1e-6; a number of bf16 has 8 binary digits and is rounded twice per layer.
    #[must_use]
    pub fn tolerance(&self) -> f32 {
        match self.precision {
            Precision::F32 => 1e-5,
            Precision::F16 => 1e-2,
            Precision::Bf16 | Precision::Int8 => 1e-1,
        }
    }

    /// Whether the engine computes what it should.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.repeats && self.difference.relative() <= self.tolerance()
    }
}

/// The engines of this build on that device: every instruction set and precision of the CPU,
/// and for [`Device::Auto`] every device of the build. Those of a GPU may not open.
#[must_use]
pub fn engines(device: Device) -> Vec<EngineOptions> {
    let devices = match device {
        Device::Auto => {
            let built = [
                (true, Device::Cpu),
                (cfg!(feature = "reference"), Device::Reference),
                (cfg!(feature = "cuda"), Device::Cuda(0)),
                (cfg!(all(feature = "cuda", feature = "reference")), Device::ReferenceCuda(0)),
                (cfg!(feature = "vulkan"), Device::Vulkan(0)),
            ];
            built.iter().filter(|(is, _)| *is).map(|(_, device)| *device).collect()
        }
        named => vec![named],
    };
    let mut all = Vec::new();
    for device in devices {
        let (levels, halves): (Vec<Option<Isa>>, &[Precision]) = match device {
            Device::Cpu => (Isa::available().into_iter().map(Some).collect(), &[Precision::Bf16]),
            Device::Reference | Device::ReferenceCuda(_) => (vec![None], &[]),
            _ => (vec![None], &[Precision::F16, Precision::Bf16]),
        };
        for isa in levels {
            let able = |_: &&Precision| isa.is_none_or(Isa::has_bf16);
            for &precision in [Precision::F32].iter().chain(halves.iter().filter(able)) {
                all.push(EngineOptions {
                    device,
                    precision: Some(precision),
                    isa,
                    ..EngineOptions::default()
                });
            }
        }
    }
    all
}

impl<'a> Plain<'a> {
    /// Runs the plain engine on `model`'s network.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the network cannot be run.
    pub fn of(model: &'a Model) -> Result<Self> {
        let config = model.config();
        let plain = EngineOptions {
            device: Device::Cpu,
            precision: Some(Precision::F32),
            isa: Some(Isa::SCALAR),
            ..EngineOptions::default()
        };
        let small = config.patch_size.map(|edge| edge.min(EDGE));
        let (patch, mut engine) = match open(model, small, &plain) {
            Ok(engine) => (small, engine),
            // A network may have the size of its patch written into it.
            Err(_) => (config.patch_size, open(model, config.patch_size, &plain)?),
        };
        let input = sample_patch(config.input_channels(), patch);
        let logits = engine.logits(input.view())?;
        Ok(Self { model, input, logits })
    }

    /// Runs another engine on the same patch.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device is missing or fails, and those of [`open`].
    pub fn compare(&self, options: &EngineOptions) -> Result<Comparison> {
        let (_, z, y, x) = self.input.dim();
        let mut engine = open(self.model, [z, y, x], options)?;
        let logits = engine.logits(self.input.view())?;
        let difference = Difference::between(&self.logits, &logits).ok_or_else(|| {
            let shape = |logits: &Array4<f32>| format!("logits of shape {:?}", logits.dim());
            Error::Model {
                model: self.model.name.to_string(),
                found: shape(&logits),
                expected: shape(&self.logits),
            }
        })?;
        let repeats = match options.device {
            Device::Cuda(_) | Device::Vulkan(_) | Device::ReferenceCuda(_) => true,
            _ => alone(|| engine.logits(self.input.view()))?
                .iter()
                .map(|v| v.to_bits())
                .eq(logits.iter().map(|v| v.to_bits())),
        };
        Ok(Comparison {
            model: self.model.name.to_string(),
            device: engine.device().to_owned(),
            precision: engine.precision(),
            difference,
            repeats,
        })
    }
}

/// Seconds an engine takes for a patch of the size the model is used with: the best of three
/// runs after a first one, or that first one if it takes longer than a second.
///
/// # Errors
///
/// Those of [`open`] and [`Engine::run`].
pub fn seconds_per_patch(model: &Model, options: &EngineOptions) -> Result<f64> {
    let config = model.config();
    let input = sample_patch(config.input_channels(), config.patch_size);
    let mut engine = open(model, config.patch_size, options)?;
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let started = Instant::now();
        engine.logits(input.view())?;
        best = best.min(started.elapsed().as_secs_f64());
        if best > 1.0 {
            break;
        }
    }
    Ok(best)
}

/// Runs the folder's network and the one in the file `onnx` on the same patch.
///
/// # Errors
///
/// [`Error::Model`] if a network cannot be read or run.
///
/// # Panics
///
/// If there is no such fold.
pub fn verify_converted(folder: &Folder, fold: usize, onnx: &Path) -> Result<Difference> {
    let bytes = crate::files::read(onnx, MAX_ONNX_BYTES)
        .map_err(|error| Error::model_file(onnx, error.instead_of("the file just written")))?;
    let patch = folder.config().patch_size;
    let expected = logits(folder.graph(fold)?, patch)?;
    let found = logits(Graph::read(&bytes)?, patch)?;
    Difference::between(&expected, &found).ok_or_else(|| {
        let found = format!("{} output channels", found.dim().0);
        Error::model_file(onnx, crate::Mismatch::new(found, expected.dim().0.to_string()))
    })
}

/// What the network says about a sample patch.
fn logits(graph: Graph, patch: [usize; 3]) -> Result<Array4<f32>> {
    let mut engine = CpuEngine::from_graph(graph, patch, Precision::F32, Isa::best())?;
    let input = sample_patch(engine.input_channels(), patch);
    engine.logits(input.view())
}

/// Does `work` on one thread; on the threads there are if no other can be had.
fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn what_is_far_off_or_does_not_repeat_fails() {
        let model = registry::find("selftest").expect("self-test model");
        let plain = Plain::of(model).expect("runs");
        let engines = engines(Device::Cpu);
        assert!(engines.iter().any(|engine| engine.isa.map(Isa::name) == Some(Isa::best().name())));
        for options in &engines {
            let good = plain.compare(options).expect("a CPU engine");
            assert!(good.passes(), "{good:?}");
            let far = Difference { largest: 2.0 * good.tolerance(), scale: 1.0, same_labels: 0.9 };
            assert!(!Comparison { difference: far, ..good.clone() }.passes());
            assert!(!Comparison { repeats: false, ..good }.passes());
        }
        // The networks of the answer and of the question are not the same by accident.
        let other = registry::find("bone_low").expect("a model");
        let foreign = Plain { model: other, ..plain };
        let options = EngineOptions { device: Device::Cpu, ..EngineOptions::default() };
        assert_eq!(
            foreign.compare(&options).expect_err("other outputs").kind(),
            crate::ErrorKind::Model
        );
    }
}
