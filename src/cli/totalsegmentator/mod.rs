//! `TotalSegmentator`'s command lines as they are typed, in our words.
//!
//! What was typed enters and what clap reads leaves. With `--task`, conventions are those of that
//! program: `docs/from-totalsegmentator.md` is the table, and the tests read it. So they are where
//! nothing says what to segment, which that program takes for its task `total`. Otherwise only its
//! short words for what we have as well are understood.

#[cfg(test)]
mod tests;

use super::args::{RESULTS, dashed};
use super::request::usage;
use fastnnunet::Result;
use fastnnunet::registry::Registry;
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What follows a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    One,
    /// One value or none.
    Maybe,
    /// Everything up to the next word.
    Many,
}

/// What becomes of a word.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// A word of ours with the same value.
    Ours(&'static str),
    /// Fixed words of ours.
    Words(&'static [&'static str]),
    /// Nothing: what it chooses does not differ here.
    Nothing,
    /// Nothing if it has this value; others are refused.
    Only(&'static str),
    /// What we do not do, and what to do instead.
    Refused(&'static str),
    Task,
    Output,
    OutputType,
    Multilabel,
    Structures(&'static [&'static str]),
    Statistics,
    Preview,
    Size,
    Device,
}

/// A word of `TotalSegmentator`'s command line.
struct Word {
    short: &'static str,
    /// With dashes for underscores.
    long: &'static [&'static str],
    takes: Takes,
    becomes: Becomes,
}

const fn word(
    short: &'static str,
    long: &'static [&'static str],
    takes: Takes,
    becomes: Becomes,
) -> Word {
    Word { short, long, takes, becomes }
}

/// Those of version 2.18.
const WORDS: &[Word] = &[
    word("-i", &["--input"], Takes::One, Becomes::Ours("--input")),
    word("-o", &["--output"], Takes::One, Becomes::Output),
    word("-ot", &["--output-type"], Takes::Many, Becomes::OutputType),
    word("-ml", &["--ml"], Takes::Nothing, Becomes::Multilabel),
    word("-nr", &["--nr-thr-resamp"], Takes::One, Becomes::Nothing),
    word("-ro", &["--resampling-order"], Takes::One, Becomes::Only("1")),
    word("-ns", &["--nr-thr-saving"], Takes::One, Becomes::Nothing),
    word("-f", &["--fast"], Takes::Nothing, Becomes::Words(&["--quality", "low"])),
    word("-ff", &["--fastest"], Takes::Nothing, Becomes::Words(&["--quality", "lowest"])),
    word(
        "-sl",
        &["--save-lowres"],
        Takes::Nothing,
        Becomes::Refused("labels on the grid of the image"),
    ),
    word("-t", &["--nora-tag"], Takes::One, Becomes::Refused("no tag (--threads is for threads)")),
    word("-p", &["--preview"], Takes::Maybe, Becomes::Preview),
    word("-ta", &["--task"], Takes::One, Becomes::Task),
    word("-ms", &["--model-size"], Takes::One, Becomes::Size),
    word("-rs", &["--roi-subset"], Takes::Many, Becomes::Structures(&[])),
    word("-rsr", &["--roi-subset-robust"], Takes::Many, Becomes::Structures(&["--robust-crop"])),
    word("-rc", &["--robust-crop"], Takes::Nothing, Becomes::Words(&["--robust-crop"])),
    word(
        "",
        &["--higher-order-resampling-LEGACY", "--high-order-resampling-LEGACY"],
        Takes::Nothing,
        Becomes::Refused("--labels smooth"),
    ),
    word(
        "-ho",
        &["--higher-order-resampling", "--high-order-resampling"],
        Takes::Nothing,
        Becomes::Words(&["--labels", "smooth"]),
    ),
    word("-s", &["--statistics"], Takes::Maybe, Becomes::Statistics),
    word("-r", &["--radiomics"], Takes::Nothing, Becomes::Refused("--statistics")),
    word("-rp", &["--report"], Takes::One, Becomes::Refused("--json, which prints one")),
    word("-sii", &["--stats-include-incomplete"], Takes::Nothing, Becomes::Nothing),
    word("-sa", &["--stats-aggregation"], Takes::One, Becomes::Only("mean")),
    word("-sx", &["--statistics-extra"], Takes::Nothing, Becomes::Nothing),
    word("-cp", &["--crop-path"], Takes::One, Becomes::Refused("the task's own rough crop")),
    word("-bs", &["--body-seg"], Takes::Nothing, Becomes::Refused("the whole image")),
    word("-fs", &["--force-split"], Takes::Nothing, Becomes::Nothing),
    word("-ss", &["--skip-saving"], Takes::Nothing, Becomes::Refused("labels to be written")),
    word("-ndm", &["--no-derived-masks"], Takes::Nothing, Becomes::Nothing),
    word("-v1o", &["--v1-order"], Takes::Nothing, Becomes::Refused("the ids of version 2")),
    word(
        "-rmb",
        &["--remove-small-blobs"],
        Takes::Maybe,
        Becomes::Refused("--postprocess with a recipe of docs/postprocessing.md"),
    ),
    word("-d", &["--device"], Takes::One, Becomes::Device),
    word("-q", &["--quiet"], Takes::Nothing, Becomes::Words(&["--quiet"])),
    word(
        "-sp",
        &["--save-probabilities"],
        Takes::One,
        Becomes::Refused("a model on the image's own grid for probabilities"),
    ),
    word("-v", &["--verbose"], Takes::Nothing, Becomes::Words(&["--verbose"])),
    word("", &["--debug"], Takes::Nothing, Becomes::Nothing),
    word("-l", &["--license-number"], Takes::One, Becomes::Nothing),
    word("", &["--test"], Takes::One, Becomes::Refused("fastnnunet selftest")),
    word("-lt", &["--list-tasks"], Takes::Nothing, Becomes::Refused("fastnnunet modes")),
    word("-lc", &["--list-classes"], Takes::Maybe, Becomes::Refused("fastnnunet modes TASK")),
];

impl Word {
    fn is(&self, text: &str) -> bool {
        !text.is_empty() && (self.short == text || self.long.contains(&text))
    }

    /// Whether it means the same without a task, or in ours something else.
    fn is_also_ours(&self) -> bool {
        matches!(
            self.becomes,
            Becomes::Ours(_)
                | Becomes::Words(_)
                | Becomes::Structures(_)
                | Becomes::Device
                | Becomes::Output
                | Becomes::OutputType
                | Becomes::Statistics
                | Becomes::Preview
        )
    }
}

/// A word that was typed, with its values.
struct Typed<'a> {
    word: &'static Word,
    /// As it was typed.
    name: String,
    values: Cow<'a, [OsString]>,
    /// What follows it and them.
    after: &'a [OsString],
}

impl<'a> Typed<'a> {
    /// The word that `first` is, with its values from what comes after; `None` if it is none of theirs.
    fn read(first: &OsString, after: &'a [OsString], has_task: bool) -> Option<Self> {
        let text = first.to_string_lossy();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (&*text, None),
        };
        // Ours has other words of these names unless the line is one of theirs.
        let word = find(name).filter(|word| has_task || !["-t", "-sp"].contains(&word.short))?;
        let name = name.to_owned();
        if let Some(value) = inline {
            return Some(Self { word, name, values: vec![value].into(), after });
        }
        let is_value = |value: &&OsString| !value.to_string_lossy().starts_with('-');
        let count = match word.takes {
            Takes::One => after.len().min(1),
            Takes::Maybe => after.iter().take(1).filter(is_value).count(),
            Takes::Many => after.iter().take_while(is_value).count(),
            Takes::Nothing => 0,
        };
        let (values, after) = after.split_at(count);
        Some(Self { word, name, values: values.into(), after })
    }

    fn first(&self) -> Option<&OsString> {
        self.values.first()
    }

    fn refused(&self, expected: &str) -> fastnnunet::Error {
        let values = self.values.iter().map(|value| value.to_string_lossy());
        let found: Vec<_> = std::iter::once(self.name.as_str().into()).chain(values).collect();
        usage("TotalSegmentator's option", found.join(" "), expected)
    }
}

/// A command line in our words.
pub(crate) struct Translated {
    /// What clap reads: the program's name first, as in what was typed.
    pub(crate) words: Vec<OsString>,
    /// What to tell who typed it.
    pub(crate) note: Option<&'static str>,
}

/// What a line without a task, mode or model is taken for.
const DEFAULT_TASK: &str = "total";
const TAKEN_FOR: &str = "note: without --mode and --model this is a line of TotalSegmentator, whose \
                         task is then total";

/// In our words what was typed.
///
/// # Errors
///
/// `Usage` for what `TotalSegmentator` has and we do not take, by its name.
pub(crate) fn translated(arguments: impl Iterator<Item = OsString>) -> Result<Translated> {
    let typed: Vec<OsString> = arguments.map(dashed).flat_map(separated).collect();
    // A command of ours has its own words.
    if !typed.get(1).is_some_and(is_word) {
        return Ok(Translated { words: typed, note: None });
    }
    let is_task = |argument: &OsString| argument == "-ta" || argument == "--task";
    let is_named = typed.iter().any(is_task);
    let is_default = !is_named && is_all_theirs(&typed[1..]);
    let mut line = Line::read(&typed[1..], is_named || is_default)?;
    let mut note = None;
    if is_default {
        line.task = Some(DEFAULT_TASK.to_owned());
        note = (!line.ours.iter().any(|word| word == "--quiet")).then_some(TAKEN_FOR);
    }
    let name = typed.into_iter().take(1);
    Ok(Translated { words: name.chain(line.finished()?).collect(), note })
}

fn is_word(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with('-'))
}

/// Whether a line has words of that program only, what it reads and what it writes among them: then
/// nothing in it says what to segment. A file that is named without its `--ml` is what ours writes.
fn is_all_theirs(mut rest: &[OsString]) -> bool {
    let (mut has_input, mut output, mut is_multilabel) = (false, None, false);
    while let [first, after @ ..] = rest {
        let Some(typed) = Typed::read(first, after, true) else {
            if is_word(first) {
                return false;
            }
            rest = after;
            continue;
        };
        match typed.word.short {
            "-i" => has_input = true,
            "-o" => output = Some(typed.first().map(PathBuf::from).unwrap_or_default()),
            "-ml" => is_multilabel = true,
            _ => {}
        }
        rest = typed.after;
    }
    has_input && output.is_some_and(|output| is_multilabel || output.extension().is_none())
}

/// `-ta=total` as two words, as long as `-ta` is one of theirs.
fn separated(argument: OsString) -> Vec<OsString> {
    let text = argument.to_str().unwrap_or_default();
    match text.split_once('=') {
        Some((name, value)) if find(name).is_some() && !name.starts_with("--") => {
            vec![name.into(), value.into()]
        }
        Some((name @ "--task", value)) => vec![name.into(), value.into()],
        _ => vec![argument],
    }
}

fn find(text: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.is(text))
}

/// Where a file goes.
#[derive(Clone, Debug)]
enum Place {
    Named(OsString),
    /// Where that program puts it: in or beside the output.
    Default,
}

impl Place {
    fn of(typed: &Typed<'_>) -> Self {
        typed.first().cloned().map_or(Self::Default, Self::Named)
    }
}

/// A command line on its way from their words to ours.
#[derive(Default)]
struct Line {
    /// Words of ours, in the order typed.
    ours: Vec<OsString>,
    has_task: bool,
    task: Option<String>,
    output: Option<PathBuf>,
    /// Names of types, as ours has them.
    types: Vec<String>,
    is_multilabel: bool,
    /// Whether the size of the model is the small one.
    is_small: bool,
    statistics: Option<Place>,
    preview: Option<Place>,
}

impl Line {
    fn read(arguments: &[OsString], has_task: bool) -> Result<Self> {
        let mut line = Self { has_task, ..Self::default() };
        let mut rest = arguments;
        while let [first, after @ ..] = rest {
            if let Some(typed) = Typed::read(first, after, has_task) {
                line.take(&typed)?;
                rest = typed.after;
            } else {
                line.ours.push(first.clone());
                rest = after;
            }
        }
        Ok(line)
    }

    fn take(&mut self, typed: &Typed<'_>) -> Result<()> {
        let word = typed.word;
        if word.takes == Takes::One && typed.values.is_empty() {
            if self.has_task {
                return Err(typed.refused("a value after it"));
            }
            // Clap says what is missing.
            self.ours.push(typed.name.clone().into());
            return Ok(());
        }
        if let Becomes::Refused(instead) = word.becomes {
            return Err(typed.refused(instead));
        }
        if !self.has_task && !word.is_also_ours() {
            return Err(typed.refused("--task with it, whose conventions then hold"));
        }
        match word.becomes {
            Becomes::Ours(ours) => self.add(ours, typed.first()),
            Becomes::Words(words) => self.ours.extend(words.iter().map(OsString::from)),
            Becomes::Only(value) => {
                if typed.first().is_some_and(|given| given != value) {
                    return Err(typed.refused(value));
                }
            }
            Becomes::Task => {
                self.task = typed.first().map(|task| task.to_string_lossy().into_owned());
            }
            Becomes::Output if self.has_task => self.output = typed.first().map(PathBuf::from),
            Becomes::Output => self.add("--output", typed.first()),
            Becomes::OutputType => self.output_types(typed)?,
            Becomes::Multilabel => self.is_multilabel = true,
            Becomes::Structures(besides) => {
                let names: Vec<_> =
                    typed.values.iter().map(|name| name.to_string_lossy()).collect();
                if names.is_empty() {
                    return Err(typed.refused("names of structures after it"));
                }
                self.add("--roi", Some(&names.join(",").into()));
                self.ours.extend(besides.iter().map(OsString::from));
            }
            Becomes::Statistics => self.statistics = Some(Place::of(typed)),
            Becomes::Preview => self.preview = Some(Place::of(typed)),
            Becomes::Size => match typed.first().and_then(|size| size.to_str()) {
                Some("big") => {}
                Some("small") => self.is_small = true,
                _ => return Err(typed.refused("big or small")),
            },
            Becomes::Device => {
                let device = typed.first().map(|device| device.to_string_lossy());
                let device = device.unwrap_or_default();
                let ours = match device.strip_prefix("gpu") {
                    Some(number) if self.has_task => format!("cuda{number}"),
                    _ => device.into_owned(),
                };
                self.add("--device", Some(&ours.into()));
            }
            Becomes::Nothing | Becomes::Refused(_) => {}
        }
        Ok(())
    }

    fn add(&mut self, word: &str, value: Option<&OsString>) {
        self.ours.push(word.into());
        self.ours.extend(value.cloned());
    }

    /// Types, apart by commas or spaces; those of a line that is theirs in our names.
    fn output_types(&mut self, typed: &Typed<'_>) -> Result<()> {
        let all: Vec<_> = typed.values.iter().map(|names| names.to_string_lossy()).collect();
        if all.is_empty() {
            return Err(typed.refused("types after it"));
        }
        for name in all.iter().flat_map(|names| names.split(',')) {
            let ours = match name {
                "dicom" | "dicom_rtstruct" if self.has_task => "rtstruct",
                "dicom_seg" if self.has_task => "dicom-seg",
                ours => ours,
            };
            self.types.push(ours.to_owned());
        }
        Ok(())
    }

    /// The line in our words.
    fn finished(mut self) -> Result<Vec<OsString>> {
        if !self.has_task {
            for (word, file) in [("--statistics", &self.statistics), ("--preview", &self.preview)] {
                if file.is_some() {
                    self.ours.push(word.into());
                }
                if let Some(Place::Named(file)) = file {
                    self.ours.push(file.clone());
                }
            }
            for kind in &self.types {
                self.ours.extend(["--output-type".into(), kind.into()]);
            }
            return Ok(self.ours);
        }
        let task = self.task.clone().unwrap_or_default();
        let typed = |ours: &[OsString], words: &[&str]| {
            ours.iter().any(|typed| words.iter().any(|word| typed == *word))
        };
        if typed(&self.ours, &["--mode", "-m", "--model"]) {
            return Err(usage("--task", format!("{task} and --mode or --model"), "one of them"));
        }
        let mut line: Vec<OsString> =
            ["--task", &task, "--mode", &task].map(OsString::from).to_vec();
        if !typed(&self.ours, &["--variant"])
            && let Some(variant) = variant(&task, self.is_small)
        {
            line.extend(["--variant".into(), variant.into()]);
        }
        if !typed(&self.ours, &["--quality"])
            && let Some(quality) = finest(&task)
        {
            line.extend(["--quality".into(), quality.into()]);
        }
        // That program replaces what is there.
        if !typed(&self.ours, &["--overwrite", "--skip-existing"]) {
            line.push("--overwrite".into());
        }
        let is_folder = !self.is_multilabel && self.types.iter().all(|kind| kind == "nifti");
        if is_folder {
            self.types = vec!["per-structure".to_owned()];
        }
        for kind in &self.types {
            line.extend(["--output-type".into(), kind.into()]);
        }
        let output = self.output.clone();
        if let Some(output) = &output {
            line.extend(["--output".into(), output.into()]);
        }
        let beside = output.map_or_else(
            || PathBuf::from(RESULTS),
            |output| if is_folder { output } else { folder_of(&output) },
        );
        let files = [
            ("--statistics", self.statistics.take(), "statistics.json".to_owned()),
            ("--preview", self.preview.take(), format!("preview_{task}.png")),
        ];
        for (word, file, default) in files {
            match file {
                Some(Place::Named(file)) => line.extend([word.into(), file]),
                Some(Place::Default) => line.extend([word.into(), beside.join(default).into()]),
                None => {}
            }
        }
        line.extend(self.ours);
        Ok(line)
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The variant of a mode that is the task: of `total` that of version 2.
fn variant(task: &str, is_small: bool) -> Option<&'static str> {
    match task {
        "total" => Some("v2"),
        "total_v3" => Some(if is_small { "small" } else { "big" }),
        _ => None,
    }
}

/// The finest quality of a task that has several.
fn finest(task: &str) -> Option<String> {
    let mode = Registry::embedded().modes().iter().find(|mode| mode.name == task)?;
    mode.choices.last()?.quality.clone()
}
