//! What a caller may choose.

use crate::sized::{self, Sized_};
use crate::status::usage;
use crate::text;
use fastnnunet::infer::cpu::instruction_set;
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::registry::Registry;
use fastnnunet::{Error, Postprocessing};
use std::ffi::c_char;
use std::path::Path;
use std::thread::available_parallelism;

/// Bits of `fnn_options.mirror`: the axis of the network that is flipped.
pub const FNN_MIRROR_X: u32 = 1;
/// As `FNN_MIRROR_X`.
pub const FNN_MIRROR_Y: u32 = 2;
/// As `FNN_MIRROR_X`.
pub const FNN_MIRROR_Z: u32 = 4;
/// No test-time mirroring, whatever the model would do. Alone.
pub const FNN_MIRROR_NONE: u32 = 8;

/// Which models answer, and how they run: what the command line can choose.
///
/// Zero is the default of every field, so `fnn_options options = {sizeof options};` is the
/// defaults, and so is NULL in place of the struct. Texts are needed during the call only.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Options {
    /// `sizeof(fnn_options)`.
    pub size: usize,
    /// Grid of a mode's model: `lowest`, `low`, `medium` or `high`; NULL for the finest of the best
    /// grade.
    pub quality: *const c_char,
    /// Set of structures of a mode that offers several.
    pub variant: *const c_char,
    /// Structures of a mode to keep, by name; one that ends in `*` stands for all that begin so. NULL
    /// for all. Models that label none of them do not run.
    pub structures: *const *const c_char,
    /// How many.
    pub structure_count: usize,
    /// A folder of models of one's own, looked into before those of the library.
    pub models_dir: *const c_char,
    /// Folds of a trained folder: `all`, or numbers such as `0,1,2`; NULL for those that are there.
    pub folds: *const c_char,
    /// File of a trained folder's weights; NULL for `checkpoint_final.pth`, else
    /// `checkpoint_best.pth`.
    pub checkpoint: *const c_char,
    /// A recipe for cleaning up, as JSON file, or `none`; NULL for that of the mode or model.
    pub postprocessing: *const c_char,
    /// `cpu`, `cuda:0`, ...; NULL for the fastest of this build and machine.
    pub device: *const c_char,
    /// `f32`, `f16`, `bf16` or `int8`; NULL for the fastest that was measured to give the same labels.
    pub precision: *const c_char,
    /// Highest instruction set of the CPU to use, such as `avx2` or `scalar`; NULL for the best.
    pub isa: *const c_char,
    /// Axes flipped for test-time averaging: bits such as `FNN_MIRROR_X`, or `FNN_MIRROR_NONE`; 0
    /// for the model's choice.
    pub mirror: u32,
    /// Threads of the segmenter; 0 for one per processor.
    pub threads: u32,
    /// Distance between tiles as a fraction of the patch, from 0.01 to 1; 0 for the model's choice.
    pub step_size: f64,
    /// Weight tiles by a Gaussian: 1 yes, -1 no, 0 the model's choice.
    pub gaussian: i32,
    /// Not 0: divide bone into cortical and trabecular bone, in a mode that can.
    pub divide_bone: i32,
    /// Not 0: treat tiles that hold nothing denser than -400 HU as air, whose answer is computed
    /// once.
    pub skip_air: i32,
    /// For the fields of versions to come; 0.
    pub reserved: i32,
    /// Bytes of memory a case may hold, networks and the library itself included; more is an error,
    /// or the next smaller model of the mode. 0 for any.
    pub memory_limit_bytes: u64,
    /// Bytes of a GPU's memory to plan with; 0 for what is free.
    pub gpu_memory_limit_bytes: u64,
}

// SAFETY: numbers and pointers, which any bytes are; the first is the size.
unsafe impl Sized_ for Options {
    const NAME: &'static str = "fnn_options";
    const FIRST: usize = size_of::<Self>();
}

/// The library's options that a caller's stand for.
///
/// # Safety
///
/// `from` is NULL or points to a struct as the header says: as large as its size, with texts that
/// end in a zero byte, and as many of `structures` as `structure_count` says.
pub(crate) unsafe fn read(from: *const Options) -> Result<fastnnunet::Options, Error> {
    let mut options = fastnnunet::Options::default();
    options.threads = Some(available_parallelism().map_or(1, usize::from));
    if from.is_null() {
        return Ok(options);
    }
    // SAFETY: the caller's promise is the same.
    let given = unsafe { sized::read(from) }?;
    // SAFETY: the fields are texts by the caller's promise.
    let text = |field, name| unsafe { text::some(field, name) };
    let parsed = Texts {
        quality: text(given.quality, "quality")?,
        variant: text(given.variant, "variant")?,
        models_dir: text(given.models_dir, "models_dir")?,
        folds: text(given.folds, "folds")?,
        checkpoint: text(given.checkpoint, "checkpoint")?,
        postprocessing: text(given.postprocessing, "postprocessing")?,
        device: text(given.device, "device")?,
        precision: text(given.precision, "precision")?,
        isa: text(given.isa, "isa")?,
    };
    parsed.into_options(&mut options)?;
    // SAFETY: as many texts as the count says, by the caller's promise.
    options.structures =
        unsafe { text::list(given.structures, given.structure_count, "structures") }?
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
    numbers(&given, &mut options)?;
    Ok(options)
}

/// The fields that are texts.
struct Texts<'a> {
    quality: Option<&'a str>,
    variant: Option<&'a str>,
    models_dir: Option<&'a str>,
    folds: Option<&'a str>,
    checkpoint: Option<&'a str>,
    postprocessing: Option<&'a str>,
    device: Option<&'a str>,
    precision: Option<&'a str>,
    isa: Option<&'a str>,
}

impl Texts<'_> {
    fn into_options(self, options: &mut fastnnunet::Options) -> Result<(), Error> {
        options.quality = self.quality.map(str::parse).transpose()?;
        options.variant = self.variant.map(ToOwned::to_owned);
        let models = |folder| Registry::with_folder(Path::new(folder)).map(Into::into);
        options.models = self.models_dir.map(models).transpose()?;
        options.folds = self.folds.map(str::parse).transpose()?.unwrap_or_default();
        options.checkpoint = self.checkpoint.map(ToOwned::to_owned);
        options.postprocessing = match self.postprocessing {
            None => Postprocessing::Own,
            Some("none") => Postprocessing::None,
            Some(path) => Postprocessing::Recipe(Recipe::open(Path::new(path))?),
        };
        options.device = self.device.map(str::parse).transpose()?.unwrap_or_default();
        options.precision = self.precision.map(str::parse).transpose()?;
        options.isa = self.isa.map(instruction_set).transpose()?;
        Ok(())
    }
}

/// The fields that are numbers.
fn numbers(given: &Options, options: &mut fastnnunet::Options) -> Result<(), Error> {
    if given.reserved != 0 {
        return Err(usage("reserved", given.reserved.to_string(), "0"));
    }
    let axes = [FNN_MIRROR_Z, FNN_MIRROR_Y, FNN_MIRROR_X];
    options.mirror = match given.mirror {
        0 => None,
        FNN_MIRROR_NONE => Some([false; 3]),
        bits if bits < FNN_MIRROR_NONE => Some(axes.map(|axis| bits & axis != 0)),
        bits => {
            let expected = "FNN_MIRROR_X, _Y and _Z, or FNN_MIRROR_NONE alone";
            return Err(usage("mirror", bits.to_string(), expected));
        }
    };
    if given.threads > 0 {
        options.threads = Some(given.threads as usize);
    }
    // Compared so that a NaN is not taken for none; what is out of range the library refuses.
    options.step_size = (given.step_size != 0.0).then_some(given.step_size);
    options.gaussian = match given.gaussian {
        0 => None,
        1 => Some(true),
        -1 => Some(false),
        other => return Err(usage("gaussian", other.to_string(), "1, 0 or -1")),
    };
    options.divide_bone = given.divide_bone != 0;
    options.skip_air = given.skip_air != 0;
    let limit = |bytes: u64| (bytes > 0).then_some(bytes);
    options.memory_limit_bytes = limit(given.memory_limit_bytes);
    options.gpu_memory_limit_bytes = limit(given.gpu_memory_limit_bytes);
    Ok(())
}
