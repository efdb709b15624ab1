//! What the user typed. Doc comments are the help text.

#![allow(clippy::doc_markdown, reason = "help text is read as it stands")]

#[cfg(feature = "dicom")]
use super::values::parse_encoding;
use super::values::{
    Chosen, isa_help, output_type_help, parse_isa, parse_labels, parse_mirror, parse_precision,
    parse_size, parse_step,
};
use clap::{Args, Parser, Subcommand};
use fastnnunet::cohort::Shard;
#[cfg(feature = "dicom")]
use fastnnunet::dicom::write::SegEncoding;
use fastnnunet::infer::cpu::Isa;
use fastnnunet::infer::{Device, Precision};
use fastnnunet::model::Orientation;
use fastnnunet::nnunet::Folds;
use fastnnunet::{Existing, LabelsBack, Names, OutputType, Quality};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Segment CT volumes with distilled nnU-Net models, offline
///
/// Reads a CT in NIfTI or DICOM and writes a label map on the very same grid. The models and their
/// configurations are inside this program; it opens no network connection.
///
/// For research; not a medical device.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) predict: PredictArgs,
}

const EXIT_CODES: &str = "\
Examples:
  fastnnunet --input CT.nii.gz --mode bone
  fastnnunet -i CT.nii.gz -o bone.nii.gz --mode bone --quality low --json
  fastnnunet -i CT.nii.gz -o seg.nii.gz --model net.onnx --config net.json
  fastnnunet -i study.zip --mode bone --series 1.2.840.113619.2.55.3 -o bone.seg.dcm
  fastnnunet -i CT.nii.gz -o segmentations -ta total -f -s
  fastnnunet -i imagesTs -o labels --model nnUNetTrainer__nnUNetPlans__3d_fullres
  fastnnunet --cases cases.tsv -o labels --mode bone --shard 2/8 --skip-existing

Exit codes:
  0 done              2 usage                        3 input unusable
  4 model or config   5 device not available         6 memory limit
  7 output            130 interrupted                129, 143 ended by SIGHUP, SIGTERM";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the modes and the models that answer them
    Modes(ListArgs),
    /// List the models: those inside this program and those of --models-dir
    Models(ListArgs),
    /// Make models of TotalSegmentator's or other nnU-Net weights, which modes then use
    Import(ImportArgs),
    /// List the DICOM series below a path, and whether each can be read
    #[cfg(feature = "dicom")]
    Series(SeriesArgs),
    /// Turn a trained folder of nnU-Net into an ONNX file and its configuration
    Convert(ConvertArgs),
    /// Measure on scans what --precision int8 needs to know of a model
    Calibrate(CalibrateArgs),
    /// Check that this machine computes what it should, with every engine it can run
    Selftest(SelftestArgs),
    /// Compile the GPU kernels of a mode or model and keep them, so that no later run waits for them
    #[cfg(feature = "cuda")]
    Warm(WarmArgs),
}

/// Runs the networks inside this program on a fixed patch with each engine, on the CPU with each
/// instruction set, and compares the logits with those of plain Rust code. Also checks the weights'
/// SHA-256 and that one thread gives the same bytes as all. Code 5 if an engine fails.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Device: auto (all of this build), cpu, cuda[:N], vulkan[:N], reference or reference:cuda[:N];
    /// one asked for by name and missing is an error
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: Device,
    /// A model by name [default: all]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Threads to use, at most two per core [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[cfg(feature = "cuda")]
    #[command(flatten)]
    pub(crate) kernels: KernelsArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Models beside the program's own.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelsArgs {
    /// A folder with further models (NAME.onnx and NAME.json, imports, or results of nnU-Net)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
    /// Leave out the user's own folder of models (see `fastnnunet import --help`)
    #[arg(long)]
    pub(crate) no_user_models: bool,
}

/// Compiled kernels.
#[cfg(feature = "cuda")]
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Where compiled GPU kernels are kept from one run to the next: a folder, or none [default:
    /// `fastnnunet/kernels` in the platform's folder of caches]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) kernel_cache: Option<super::kernels::Folder>,
}

/// Runs each network of a mode or model once, on nothing, and keeps the kernels that this took: in the
/// platform's folder of caches or the one named, which can be copied to machines with the same kind of
/// GPU, driver and program.
#[cfg(feature = "cuda")]
#[derive(Debug, Args)]
pub(crate) struct WarmArgs {
    /// A mode, as listed by `fastnnunet modes`
    #[arg(short, long, value_name = "MODE", required_unless_present = "model")]
    pub(crate) mode: Option<String>,
    /// Grid of a mode that offers several: lowest, low, medium or high
    #[arg(long, value_name = "QUALITY", requires = "mode", conflicts_with = "model")]
    pub(crate) quality: Option<Quality>,
    /// A model instead of a mode: a name, an ONNX file (with --config), or a trained folder
    #[arg(long, value_name = "MODEL", conflicts_with = "mode")]
    pub(crate) model: Option<String>,
    /// The configuration of an ONNX file
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
    /// Device: cuda[:N] or reference:cuda[:N]
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub(crate) device: Device,
    /// Arithmetic: f32, f16 or bf16
    #[arg(long, value_name = "PRECISION", default_value = "auto", value_parser = parse_precision)]
    pub(crate) precision: Chosen<Precision>,
    #[command(flatten)]
    pub(crate) kernels: KernelsArgs,
}

/// Takes results folders of nnU-Net v2, data sets or trainings in them, released .zip files, and folders
/// of those. Known data sets (TotalSegmentator's) become models with all that is done around their
/// networks; modes find them. Models are kept in the user's folder of models: `fastnnunet/models` in
/// `$XDG_DATA_HOME` (`~/.local/share`), in `~/Library/Application Support` on a Mac, in
/// `%LOCALAPPDATA%` on Windows.
// Flags are what a command line has.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Folders or .zip files of weights
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// Folder of models to add to [default: the user's]
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Only say what each source is; without sources, what was imported
    #[arg(long, conflicts_with_all = ["link", "overwrite"])]
    pub(crate) list: bool,
    /// Leave the weights where they are, and read them there
    #[arg(long)]
    pub(crate) link: bool,
    /// Replace models of the same name
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Name of the model, where one training is imported that is not known
    #[arg(long, value_name = "NAME", requires = "sources", conflicts_with = "list")]
    pub(crate) name: Option<String>,
    /// How images lie that the network was trained on: LPS, RAS or native, as in the file [default: as
    /// the plans say]. MRSegmentator's are LPS
    #[arg(long, value_name = "ORIENTATION", requires = "sources", conflicts_with = "list")]
    pub(crate) orientation: Option<Orientation>,
    /// Remove a model that was imported; repeat for several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["sources", "list", "link", "overwrite"])]
    pub(crate) remove: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Writes NAME.onnx and NAME.json, ready for `--models-dir` or for the program's own `models/`
/// and `config/`. The ONNX file runs in any runtime: opset 17, `input` to `output`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Folder with plans.json, dataset.json and fold_*, or the .ini of FastnnUNet's engine
    #[arg(value_name = "FOLDER")]
    pub(crate) source: PathBuf,
    /// Folder to write to
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Which training: a number, or all for fold_all [default: the first numbered one]
    #[arg(long, value_name = "FOLD")]
    pub(crate) fold: Option<String>,
    /// Checkpoint file [default: checkpoint_final.pth, or checkpoint_best.pth]
    #[arg(long, value_name = "NAME")]
    pub(crate) checkpoint: Option<String>,
    /// Name of the model [default: of the data set and configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Run the folder's network and the written one on a sample and compare
    #[arg(long)]
    pub(crate) verify: bool,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// Runs a model over scans like those it will see, once in f32 and once in int8, and writes its
/// configuration with the ranges it measured and how well the labels agree: a file for --config.
/// Of a trained folder each fold is measured, and the labels of all together are compared. `auto`
/// takes int8 only where the mean Dice is at least 0.998 and that of no structure of 1 ml or more
/// below 0.99.
#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// A model by name, as listed by `fastnnunet models`, an ONNX file (with --config), or a trained
    /// folder of nnU-Net v2
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// CT volume: NIfTI or DICOM; repeat for several patients
    #[arg(short, long, value_name = "PATH", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// The configuration of an ONNX file
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<PathBuf>,
    /// Folds of a trained folder that are averaged: auto (every numbered one), numbers such as 0,1,2,
    /// or all (fold_all, the one trained on every case)
    #[arg(long, value_name = "FOLDS", default_value = "auto")]
    pub(crate) folds: Folds,
    /// File of a trained folder's weights [default: checkpoint_final.pth, else
    /// checkpoint_best.pth]
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<String>,
    /// Configuration to write
    #[arg(short, long, value_name = "JSON")]
    pub(crate) output: PathBuf,
    /// A folder with further models (NAME.onnx and NAME.json)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) models_dir: Option<PathBuf>,
    #[arg(long, value_name = "NAME", value_parser = parse_isa, help = isa_help())]
    pub(crate) isa: Option<Isa>,
    /// Threads to use, at most two per core [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Refuse scans and a model that would hold more than this, such as 3GiB [default: memory available]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory_limit: Option<u64>,
    /// Replace the output if it exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Reads headers only. Descriptions are free text, which may name a patient: they are shown if asked
/// for.
#[cfg(feature = "dicom")]
#[derive(Debug, Args)]
pub(crate) struct SeriesArgs {
    /// File, folder or zip
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Also show descriptions of series and study, protocol and contrast agent
    #[arg(long)]
    pub(crate) show_text: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show one in full, with its labels
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

// Flags are what a command line has.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("modes").args(["mode", "cases"]).multiple(true))]
#[command(group = clap::ArgGroup::new("models").args(["model", "cases"]).multiple(true))]
pub(crate) struct PredictArgs {
    /// CT volume: NIfTI, NRRD, MetaImage (.mha) or DICOM (a file, folder or zip with one series);
    /// repeat, once per input channel of the model; or a folder of such files, or DICOM of several
    /// studies, for every case in it
    #[arg(short, long, value_name = "PATH", required_unless_present = "cases")]
    pub(crate) input: Vec<PathBuf>,
    /// Many cases in place of --input: a file (.jsonl or .tsv) with a line for each, which has id, inputs,
    /// output, and mode or model (docs/scale.md); beside each result a status file, by which
    /// --skip-existing tells what is done
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "task"])]
    pub(crate) cases: Option<PathBuf>,
    /// Of the cases only share I of N, from 1/N to N/N: about as much work in each, and each case in one
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Which of several DICOM series, by UID or by the name that `fastnnunet series` lists
    #[cfg(feature = "dicom")]
    #[arg(long, value_name = "UID", conflicts_with = "cases")]
    pub(crate) series: Option<String>,
    /// File to write, whose ending says what it is, or a folder for `<case>_<mode>` with the ending of
    /// each type [default: results]; a folder if there are several cases or types
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    #[arg(long, value_name = "TYPE", help = output_type_help())]
    pub(crate) output_type: Vec<OutputType>,
    /// How dicom-seg stores labels: binary, which archives take, or labelmap (of 2024, smaller)
    /// [default: binary]
    #[cfg(feature = "dicom")]
    #[arg(long, value_name = "ENCODING", value_parser = parse_encoding)]
    pub(crate) seg_encoding: Option<SegEncoding>,
    /// Give DICOM objects random UIDs and today's date [default: UIDs made of their content, and the
    /// date of the series, so that the same result gives the same bytes]
    #[cfg(feature = "dicom")]
    #[arg(long)]
    pub(crate) new_uids: bool,
    /// What to segment, as listed by `fastnnunet modes`
    #[arg(short, long, value_name = "MODE", required_unless_present_any = ["model", "cases"])]
    pub(crate) mode: Option<String>,
    /// A task of TotalSegmentator, by the conventions of its command line, whose options are
    /// understood with it (docs/from-totalsegmentator.md): a folder with one file per structure
    /// unless --ml, what is there is replaced
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
    /// Grid of a mode that offers several: lowest, low, medium or high [default: the finest of the
    /// best grade that is installed and fits]
    #[arg(long, value_name = "QUALITY", requires = "modes", conflicts_with = "model")]
    pub(crate) quality: Option<Quality>,
    /// Set of structures of a mode that offers several, such as standard or extended
    #[arg(long, value_name = "VARIANT", requires = "modes", conflicts_with = "model")]
    pub(crate) variant: Option<String>,
    /// Divide bone into cortical and trabecular bone
    #[arg(long, requires = "modes", conflicts_with = "model")]
    pub(crate) enable_subseg: bool,
    /// Keep only these structures of the mode, by name, separated by commas; lung_* stands for
    /// all that begin so; models that label none of them do not run
    #[arg(
        long,
        value_name = "NAMES",
        requires = "modes",
        conflicts_with = "model",
        value_delimiter = ',',
        value_parser = |name: &str| Ok::<_, std::convert::Infallible>(name.trim().to_owned())
    )]
    pub(crate) roi: Vec<String>,
    /// A model instead of a mode: a name as listed by `fastnnunet models`, an ONNX file (with
    /// --config), or a trained folder of nnU-Net v2
    #[arg(long, value_name = "MODEL", conflicts_with = "mode")]
    pub(crate) model: Option<String>,
    /// With --model: use this configuration instead of the model's own
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
    /// Folds of a trained folder to average: auto (every numbered one), numbers such as 0,1,2, or
    /// all (fold_all, the one trained on every case)
    #[arg(long, value_name = "FOLDS", default_value = "auto", requires = "models")]
    pub(crate) folds: Folds,
    /// File of a trained folder's weights [default: checkpoint_final.pth, else
    /// checkpoint_best.pth]
    #[arg(long, value_name = "FILE", requires = "models")]
    pub(crate) checkpoint: Option<String>,
    /// What a cascade refines: a label map, a folder of label maps named like the cases, or a
    /// trained folder [default: the one beside the cascade]
    #[arg(long, value_name = "PATH", requires = "models")]
    pub(crate) previous_stage: Option<PathBuf>,
    /// Postprocessing: default (the mode's own, or the one found in a trained folder), none,
    /// or a recipe: a JSON of docs/postprocessing.md or nnU-Net's postprocessing.json or .pkl
    #[arg(long, value_name = "RECIPE", default_value = "default")]
    pub(crate) postprocess: String,
    /// What structures are called: own (kidney_left) or tg263 (Kidney_L, as planning systems have
    /// it, where it has a name)
    #[arg(long, value_name = "NAMES", default_value = "own")]
    pub(crate) names: Names,
    /// Where part of the image is found by a coarse model first, by the finest that the task allows:
    /// takes longer, and misses less
    #[arg(long, requires = "modes", conflicts_with = "model")]
    pub(crate) robust_crop: bool,
    /// How labels of a task with a grid of its own come to the image's: own (as the task does it,
    /// TotalSegmentator's by the nearest voxel) or smooth (from logits, as nnU-Net does it: better
    /// borders, longer, another result)
    #[arg(long, value_name = "HOW", default_value = "own", value_parser = parse_labels)]
    pub(crate) labels: LabelsBack,
    /// Device: auto, cpu, cuda[:N], vulkan[:N], reference or reference:cuda[:N]; one asked for by name
    /// and missing is an error
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: Device,
    /// Arithmetic: auto (int8 where it was measured to give the same labels, else bf16 products
    /// where those are faster, else f32), f32, bf16, int8 (CPUs) or f16 (GPUs)
    #[arg(long, value_name = "PRECISION", default_value = "auto", value_parser = parse_precision)]
    pub(crate) precision: Chosen<Precision>,
    #[arg(long, value_name = "NAME", value_parser = parse_isa, help = isa_help())]
    pub(crate) isa: Option<Isa>,
    /// Test-time mirroring: auto (the model's choice), none, or axes such as z,y,x
    #[arg(long, value_name = "AXES", default_value = "auto", value_parser = parse_mirror)]
    pub(crate) mirror: Chosen<[bool; 3]>,
    /// Distance between tiles as a fraction of the patch, 0.01 to 1 [default: the model's]
    #[arg(long, value_name = "FRACTION", value_parser = parse_step)]
    pub(crate) step_size: Option<f64>,
    /// Weight all voxels of a tile alike instead of by a Gaussian
    #[arg(long)]
    pub(crate) no_gaussian: bool,
    /// Treat tiles in which nothing is denser than -400 HU as air: saves the network's work on them;
    /// what it would have found in lung or cloth without anything denser nearby is lost
    #[arg(long)]
    pub(crate) skip_air: bool,
    /// Threads to use, at most two per core [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Refuse a case that would hold more than this, such as 3GiB [default: memory available]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory_limit: Option<u64>,
    /// Plan with at most this much of a GPU's memory, such as 3GiB [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) gpu_memory_limit: Option<u64>,
    #[cfg(feature = "cuda")]
    #[command(flatten)]
    pub(crate) kernels: KernelsArgs,
    /// Draw an overview picture (.png); a folder if there are several cases
    #[arg(long, value_name = "PATH")]
    pub(crate) preview: Option<PathBuf>,
    /// Measure each structure (.json or .csv): volume, mean, deviation, least and greatest of HU,
    /// voxels, centroid, box, and whether the image cuts it off; a folder, for JSON, if there are
    /// several cases
    #[arg(long, value_name = "PATH")]
    pub(crate) statistics: Option<PathBuf>,
    /// Also write class probabilities beside the label map, as nnU-Net does (.npz; large)
    #[arg(long)]
    pub(crate) save_probabilities: bool,
    /// Replace the output if it exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Leave out cases whose outputs exist; with --cases, those that are done with the same inputs, models
    /// and options
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) skip_existing: bool,
    /// Say what was chosen, why, and what memory is expected
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// No progress, warnings or summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print one JSON summary on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

impl PredictArgs {
    /// The DICOM series to use.
    pub(crate) fn series(&self) -> Option<&str> {
        #[cfg(feature = "dicom")]
        return self.series.as_deref();
        #[cfg(not(feature = "dicom"))]
        {
            let _ = self;
            None
        }
    }

    /// What becomes of an output that is there.
    pub(crate) fn existing(&self) -> Existing {
        existing(self.overwrite)
    }

    /// Where results go, the program's own choice if nothing was said.
    pub(crate) fn output_or_default(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(RESULTS))
    }

    /// What becomes of a picture or probabilities that are there: whoever goes on where a run was
    /// stopped has no label map yet, and may have these.
    pub(crate) fn existing_beside(&self) -> Existing {
        existing(self.overwrite || self.skip_existing)
    }
}

pub(crate) fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Replace } else { Existing::Keep }
}

/// Where results go that were given no place.
pub(crate) const RESULTS: &str = "results";

/// Long options accept `-` and `_` alike: `--enable_subseg` is `--enable-subseg`.
pub(crate) fn dashed(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else { return argument };
    if !text.starts_with("--") {
        return argument;
    }
    let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
    let name = name.replace('_', "-");
    value.map_or_else(|| name.clone(), |value| format!("{name}={value}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn seed_command_parses_as_typed() {
        let typed = ["fastnnunet", "--input", "CT.nii.gz", "--mode", "bone", "--enable_subseg"];
        let cli = Cli::try_parse_from(typed.map(OsString::from).map(dashed)).expect("parses");
        assert!(cli.predict.enable_subseg);
        assert_eq!(cli.predict.mode.as_deref(), Some("bone"));
    }

    #[test]
    fn underscores_in_values_stay() {
        assert_eq!(dashed("--step_size=a_b".into()), "--step-size=a_b");
        assert_eq!(dashed("my_file".into()), "my_file");
    }
}
