//! Where compiled GPU kernels are kept, and filling that folder beforehand.

use super::args::WarmArgs;
use super::request::usage;
use super::{report, request, user};
use fastnnunet::infer::{Device, check_cuda, keep_kernels_in, kernel_counts};
use fastnnunet::{Options, Result, Segmenter, Source};
use std::path::PathBuf;

/// The folder that `--kernel-cache` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Nowhere.
    None,
    /// There.
    Named(PathBuf),
}

impl From<&str> for Folder {
    fn from(text: &str) -> Self {
        if text == "none" { Self::None } else { Self::Named(text.into()) }
    }
}

/// Keeps compiled kernels from now on where the user wants them, or where the platform keeps such
/// things. What stands in the way is a note: kernels are then compiled in every run.
pub(crate) fn keep(asked: Option<&Folder>, device: Device) -> Option<String> {
    let index = match device {
        Device::Auto => 0,
        Device::Cuda(index) | Device::ReferenceCuda(index) => index,
        _ => return None,
    };
    let folder = match asked {
        Some(Folder::None) => return None,
        Some(Folder::Named(folder)) => folder.clone(),
        None => user::kernels()?,
    };
    // Where no GPU runs, no folder is made.
    check_cuda(index).ok()?;
    match keep_kernels_in(Some(&folder)) {
        Ok(true) => None,
        Ok(false) => Some(format!("{}: read-only, new GPU kernels are not kept", folder.display())),
        Err(reason) => Some(format!("{reason}; compiled GPU kernels are not kept")),
    }
}

/// Compiles the kernels of what was asked for, and keeps them.
pub(crate) fn warm(args: &WarmArgs) -> Result<()> {
    if !matches!(args.device, Device::Cuda(_) | Device::ReferenceCuda(_)) {
        let found = args.device.to_string();
        return Err(usage("--device", found, "cuda[:N] or reference:cuda[:N]"));
    }
    if let Some(note) = keep(args.kernels.kernel_cache.as_ref(), args.device) {
        report::tell(&format!("note: {note}"));
    }
    let source = match (&args.mode, &args.model) {
        (_, Some(model)) => request::source_of(model, args.config.as_deref())?,
        (mode, None) => Source::Mode(mode.clone().unwrap_or_default()),
    };
    let mut options = Options::default().device(args.device);
    options.models =
        request::models(args.models.models_dir.as_deref(), args.models.no_user_models)?;
    options.quality = args.quality;
    options.precision = args.precision.0;
    let mut segmenter = Segmenter::open_with(source, options)?;
    segmenter.warm()?;
    let (compiled, read) = kernel_counts();
    let networks = segmenter.about().networks.iter();
    for network in networks {
        report::say(&format!("{} on {}, {}\n", network.name, network.device, network.precision))?;
    }
    report::say(&format!("kernels  {compiled} compiled, {read} were there\n"))
}
