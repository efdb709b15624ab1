//! Networks on a device.

use crate::device::Device;
use crate::needs::Needs;
use crate::plan::{Precision, Settings, plan};
use crate::queue::{Queue, compile_ahead};
use crate::run::{Program, download, numbers};
use cubecl::server::{Handle, ServerError};
use fastnnunet_model::Mismatch;
use fastnnunet_model::network::Network as Checked;
use std::sync::Arc;

/// Why something does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network that the device's kernels do not know.
    #[error("{0}")]
    Network(#[from] Mismatch),
    /// More than the device may hold.
    #[error("{what} needs {need_bytes} bytes on the device, {limit_bytes} are planned with")]
    Memory {
        /// What.
        what: &'static str,
        /// Bytes it takes.
        need_bytes: u64,
        /// Bytes there are.
        limit_bytes: u64,
    },
    /// A device that is not here: what is missing and what helps, in a sentence without a full stop.
    #[error("{0}")]
    Missing(String),
    /// The device failed.
    #[error("{0}")]
    Device(String),
    /// A folder that kernels are not kept in.
    #[error("{0}")]
    Folder(String),
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let said = error.to_string();
        let words = said.split("\nBacktrace").next();
        Self::Device(words.unwrap_or_default().to_owned())
    }
}

/// What several networks (folds) make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The mean of all.
    Mean,
    /// The channels of one after those of the other.
    Side,
}

/// How networks run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What is multiplied.
    pub precision: Precision,
    /// What several networks make.
    pub join: Join,
    /// Bytes of the device to plan with.
    pub limit_bytes: u64,
    /// Tiles at once in whole images; `None` for what pays and fits.
    pub tiles: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::F32, join: Join::Mean, limit_bytes: u64::MAX, tiles: None }
    }
}

/// Networks of one patch on a device.
pub struct Network {
    pub(crate) device: Device,
    pub(crate) options: Options,
    pub(crate) networks: Vec<Checked>,
    pub(crate) needs: Needs,
    /// For single patches, made when the first comes.
    single: Option<(Vec<Program>, Handle)>,
    /// For tiles of images.
    pub(crate) tiles: Option<Vec<Program>>,
}

impl Network {
    /// Notes networks for a device; `networks` are those of one model, all for the same patch.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] if they differ in what they read or make, or cannot be planned;
    /// [`Error::Memory`] if one patch does not fit.
    pub fn open(device: &Device, networks: Vec<Checked>, options: Options) -> Result<Self, Error> {
        let needs = Needs::of(&networks, &options)?;
        let fits = |what, need_bytes: u64, limit_bytes: u64| {
            let error = Error::Memory { what, need_bytes, limit_bytes };
            (need_bytes <= limit_bytes).then_some(()).ok_or(error)
        };
        fits("the network", needs.patch_bytes(1), options.limit_bytes)?;
        fits("one buffer of the network", needs.largest_buffer(1), device.buffer_bytes())?;
        let device = device.clone();
        Ok(Self { device, options, networks, needs, single: None, tiles: None })
    }

    /// Voxels of a patch.
    #[must_use]
    pub fn patch(&self) -> [usize; 3] {
        self.networks[0].input.dims
    }

    /// Channels that are read.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.networks[0].input.channels
    }

    /// Channels that are made.
    #[must_use]
    pub fn outputs(&self) -> usize {
        let each = self.networks[0].output_channels();
        if self.options.join == Join::Side { each * self.networks.len() } else { each }
    }

    pub(crate) fn voxels(&self) -> usize {
        self.patch().iter().product()
    }

    fn settings(&self, images: usize) -> Settings {
        Settings {
            precision: self.options.precision,
            images,
            gpu: self.device.gpu,
            known: Arc::default(),
        }
    }

    /// Tiles that run at once over an image; `None` if not even one fits, or kernels cannot count that
    /// far.
    #[must_use]
    pub fn tiles_at_once(&self, image: [usize; 3], target: usize, count: usize) -> Option<usize> {
        let most = self.options.tiles.unwrap_or_else(|| self.needs.tiles_that_pay()).min(count);
        let limits = (self.options.limit_bytes, self.device.buffer_bytes());
        self.needs.tiles_at_once(image, target, most, limits)
    }

    /// Bytes on the device for an image of that many voxels in `count` tiles and passes, labeled on a
    /// grid of `target` voxels, or `None` if the device does not hold them.
    #[must_use]
    pub fn image_bytes(&self, image: [usize; 3], target: usize, count: usize) -> Option<u64> {
        let tiles = self.tiles_at_once(image, target, count)?;
        Some(self.needs.image_bytes(image, target, tiles))
    }

    pub(crate) fn programs(&self, images: usize) -> Result<Vec<Program>, Error> {
        let mut programs: Vec<Program> = Vec::new();
        for network in &self.networks {
            let plan = plan(network.clone(), self.settings(images))?;
            let client = self.device.client.clone();
            programs.push(Program::new(client, plan, programs.first()));
        }
        Ok(programs)
    }

    /// Runs one patch, `[c, z, y, x]` both.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device fails.
    ///
    /// # Panics
    ///
    /// If `input` or `output` have another length than a patch.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        assert_eq!(input.len(), self.inputs() * self.voxels(), "a patch");
        assert_eq!(output.len(), self.outputs() * self.voxels(), "its results");
        if self.single.is_none() {
            let programs = self.programs(1)?;
            let results = numbers(&self.device.client, self.outputs() * self.voxels());
            compile_ahead(&self.device, |queue| {
                for program in &programs {
                    program.launch(queue);
                    program.leave(queue, &results);
                }
            });
            self.single = Some((programs, results));
        }
        let Some((programs, results)) = &self.single else { unreachable!("made above") };
        let queue = Queue::new(&self.device.client);
        let each = self.networks[0].output_channels() * self.voxels();
        for (k, program) in programs.iter().enumerate() {
            program.write_input(input);
            program.launch(&queue);
            program.leave(&queue, results);
            let found = download(&self.device.client, results, each)?;
            match self.options.join {
                Join::Side => output[k * each..(k + 1) * each].copy_from_slice(&found),
                Join::Mean if k == 0 => output.copy_from_slice(&found),
                Join::Mean => output.iter_mut().zip(found).for_each(|(sum, v)| *sum += v),
            }
        }
        if self.options.join == Join::Mean && programs.len() > 1 {
            let count = programs.len() as f32;
            for sum in output {
                *sum /= count;
            }
        }
        Ok(())
    }
}
