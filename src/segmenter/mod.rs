//! What answers a request: networks with all that turns a case into a finished label map.
//!
//! A [`Source`] and [`Options`] enter and become open networks, once; then [`Case`]s enter one after
//! the other, and a [`Segmentation`] of each leaves: the stages of a cascade, parts that are merged,
//! the choice of structures, the mode's recipe, the division of bone, and a smaller model where the
//! best one's case does not fit the memory allowed.

mod answer;
mod around;
mod calibrate;
mod case;
mod group;
mod names;
mod network;
mod options;
mod run;
mod segmentation;

pub use calibrate::{Calibration, Compared, Uncalibrated};
pub use case::{Case, lies_apart};
pub use names::Names;
pub use network::NetworkInfo;
pub use options::{LabelsBack, Options, Postprocessing, PreviousStage, Quality, Source};
pub use segmentation::{About, Found, NetworkRun, Segmentation};

use crate::io::{ReadOptions, Scan};
use crate::model::{Channel, Label, ModelConfig, Name, Normalization};
use crate::pipeline::{Input, OnProgress, Settings, base_bytes};
use crate::{Access, Error, Result};
use answer::Answer;
use run::Done;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this process is a copy of one that had asked this before. A caller whose host copies processes
/// asks before it opens and uses a [`Segmenter`]: the threads of a pool stay behind when a process is
/// copied, and waiting for them would never end.
#[must_use]
pub fn is_forked() -> bool {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id();
    let first = FIRST.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    first.is_err_and(|first| first != own)
}

/// Networks ready to segment case after case.
///
/// ```no_run
/// use fastnnunet::{Scan, Segmenter};
///
/// # fn main() -> fastnnunet::Result<()> {
/// let mut bone = Segmenter::open("bone")?;
/// let scan = Scan::open("ct.nii.gz")?;
/// bone.segment(&scan)?.save("bone.nii.gz")?;
/// # Ok(())
/// # }
/// ```
pub struct Segmenter {
    source: Source,
    options: Options,
    answer: Answer,
    /// What can come out, by the names that were asked for.
    structures: Vec<Label>,
    /// Whether the last case needed a smaller model than the next one may.
    is_fallback: bool,
    pool: Option<rayon::ThreadPool>,
}

impl Segmenter {
    /// Opens a mode such as `"bone"` with the best of its models, or another [`Source`].
    ///
    /// # Errors
    ///
    /// As [`open_with`](Self::open_with).
    pub fn open(source: impl Into<Source>) -> Result<Self> {
        Self::open_with(source, Options::default())
    }

    /// Opens what answers, as the options say.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the options contradict each other, the source or what there is,
    /// [`Error::Model`] if a model is not installed or cannot be used, [`Error::Device`] if a
    /// device asked for by name is missing, and [`Error::Memory`] if no model fits.
    pub fn open_with(source: impl Into<Source>, options: Options) -> Result<Self> {
        let source = source.into();
        let pool = options.threads.map(pool_of).transpose()?;
        let open = || Answer::open(&source, &options, &[]);
        let answer = inside(pool.as_ref(), open)?;
        let structures = options.names.of(answer.structures().to_vec());
        Ok(Self { source, options, answer, structures, is_fallback: false, pool })
    }

    /// Opens what answers anew, but for models that are `too_large`.
    fn open_again(&mut self, too_large: &[String]) -> Result<()> {
        self.answer = Answer::open(&self.source, &self.options, too_large)?;
        self.structures = self.options.names.of(self.answer.structures().to_vec());
        Ok(())
    }

    /// The structures that can come out, with the ids they have in the result.
    #[must_use]
    pub fn structures(&self) -> &[Label] {
        &self.structures
    }

    /// The models that answer, and why these.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.answer.about
    }

    /// A name for results: the mode, the model, or the folder's configuration.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.answer.about.name
    }

    /// Images per case.
    #[must_use]
    pub fn images(&self) -> usize {
        self.answer.config().channels.len()
    }

    /// How files are read for these models: by the rules of their own reader, within the memory
    /// allowed.
    #[must_use]
    pub fn read_options(&self) -> ReadOptions {
        read_options(self.answer.config(), &self.options)
    }

    /// Whether image `channel` should be a CT: what is in others, nothing is known of.
    #[must_use]
    pub fn expects_ct(&self, channel: usize) -> bool {
        expects_ct(self.answer.config(), channel)
    }

    /// Runs each network once on nothing, so that what its device compiles or reserves is there before
    /// the first case; on a CUDA device compiled kernels are kept where
    /// [`infer::keep_kernels_in`](crate::infer) says.
    ///
    /// # Errors
    ///
    /// Those of the engines.
    pub fn warm(&mut self) -> Result<()> {
        self.answer.warm()
    }

    /// Segments one case.
    ///
    /// A case of a cascade that comes with the first stage's labels does not run that stage. Where
    /// the best model of a mode would hold more memory than allowed, the next smaller one is tried.
    ///
    /// # Errors
    ///
    /// [`Error::Volume`] if the images do not fit each other or the model, [`Error::Memory`] if no
    /// model fits, and [`Error::Device`] if the device fails.
    pub fn segment<'a>(&mut self, case: impl Into<Case<'a>>) -> Result<Segmentation> {
        self.segment_with(case, 0, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`segment`](Self::segment), and tells how far it is; `held_bytes` is what the caller holds
    /// besides and the limit counts, such as a case read ahead.
    ///
    /// # Errors
    ///
    /// As [`segment`](Self::segment), and [`Error::Interrupted`] if `progress` said so.
    pub fn segment_with<'a>(
        &mut self,
        case: impl Into<Case<'a>>,
        held_bytes: u64,
        progress: &mut OnProgress<'_>,
    ) -> Result<Segmentation> {
        let case = case.into();
        // The pool leaves while it is worked in.
        let pool = self.pool.take();
        let result = inside(pool.as_ref(), || self.run(case, held_bytes, progress));
        self.pool = pool;
        result
    }

    fn run(
        &mut self,
        case: Case<'_>,
        held_bytes: u64,
        progress: &mut OnProgress<'_>,
    ) -> Result<Segmentation> {
        if self.is_fallback {
            self.open_again(&[])?;
            self.is_fallback = false;
        }
        let (header, affine, access) = {
            let first = case.first()?;
            let access = case.scans().map(Scan::access).reduce(Access::and);
            (first.header().clone(), first.affine(), access.unwrap_or_default())
        };
        #[cfg(feature = "dicom")]
        let source = case.first()?.series().cloned();
        let input = case.into_input(self.read_options().reader)?;
        let held_bytes = held_bytes.saturating_add(self.options.held_bytes);
        let image_bytes = input.image_bytes();
        let image_bytes = (image_bytes + base_bytes(image_bytes)).saturating_add(held_bytes);
        if let Some(limit_bytes) = self.options.memory_limit_bytes
            && image_bytes > limit_bytes
        {
            let what = "the image".to_owned();
            return Err(Error::Memory { what, need_bytes: image_bytes, limit_bytes });
        }
        let grid = input.grid.clone();
        let settings = Settings { held_bytes, ..self.settings() };
        let done = self.with_the_first_that_fits(input, &settings, progress)?;
        let Done { labels, runs, report, probabilities, timings } = done;
        let predicted_bytes = runs.iter().map(|run| run.predicted.bytes).max().unwrap_or(0);
        Ok(Segmentation {
            labels,
            structures: self.structures().to_vec(),
            grid,
            about: self.answer.about.clone(),
            runs,
            postprocessing: report,
            probabilities,
            timings,
            predicted_bytes,
            header,
            affine,
            access,
            #[cfg(feature = "dicom")]
            source,
        })
    }

    fn settings(&self) -> Settings {
        let Options {
            mirror, step_size, gaussian, skip_air, keep_probabilities, picture, isa, ..
        } = self.options;
        Settings {
            mirror,
            step_size,
            use_gaussian: gaussian,
            skip_air,
            keep_probabilities,
            picture,
            isa,
            memory_limit_bytes: self.options.memory_limit_bytes,
            held_bytes: 0,
        }
    }

    /// Runs the case, in a mode by smaller and smaller models until one fits. If none does, the
    /// error is that of the one that needs least.
    fn with_the_first_that_fits(
        &mut self,
        input: Input<'_>,
        settings: &Settings,
        progress: &mut OnProgress<'_>,
    ) -> Result<Done> {
        // What does not fit is found before the images are used up.
        let mut input = Some(input);
        if !matches!(self.source, Source::Mode(_)) {
            return self.answer.segment(&mut input, settings, progress);
        }
        let mut too_large: Vec<String> = Vec::new();
        let mut least: Option<(u64, Error)> = None;
        loop {
            let names: Vec<String> =
                self.answer.networks().map(|network| network.info().name.clone()).collect();
            if names.iter().all(|name| too_large.contains(name))
                && let Some((_, error)) = least
            {
                return Err(error);
            }
            match self.answer.segment(&mut input, settings, progress) {
                Err(error @ Error::Memory { need_bytes, .. }) => {
                    too_large.extend(names);
                    if least.as_ref().is_none_or(|(bytes, _)| need_bytes < *bytes) {
                        least = Some((need_bytes, error));
                    }
                    self.open_again(&too_large)?;
                    self.is_fallback = true;
                }
                result => return result,
            }
        }
    }
}

/// Whether image `channel` of a model should be a CT.
fn expects_ct(config: &ModelConfig, channel: usize) -> bool {
    let is_ct = |channel: &Channel| channel.normalization == Normalization::Ct;
    config.modality.is_none() && config.channels.get(channel).is_some_and(is_ct)
}

/// How files are read for a model.
fn read_options(config: &ModelConfig, options: &Options) -> ReadOptions {
    ReadOptions {
        reader: config.reader,
        max_bytes: options
            .memory_limit_bytes
            .map_or(u64::MAX, |limit| limit.saturating_sub(options.base_bytes())),
        expects_ct: expects_ct(config, 0),
    }
}

/// Does `work` with that many threads.
///
/// # Errors
///
/// [`Error::Usage`] if the system does not start them.
pub fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    Ok(pool_of(threads)?.install(work))
}

/// A pool of the caller's number of threads.
fn pool_of(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
        let found = format!("{threads} ({error})");
        Error::usage("threads", found, "a number of threads the system can start")
    })
}

/// Works in the pool, or in the one the caller is in.
fn inside<T: Send>(pool: Option<&rayon::ThreadPool>, work: impl FnOnce() -> T + Send) -> T {
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}
