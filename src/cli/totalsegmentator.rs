//! `TotalSegmentator`'s command lines as they are typed, in our words.
//!
//! What was typed enters and what clap reads leaves. With `--task`, conventions are those of that
//! program: `docs/from-totalsegmentator.md` is the table, and the tests read it. So they are where
//! nothing says what to segment, which that program takes for its task `total`. Otherwise only its
//! short words for what we have as well are understood.

use super::args::{RESULTS, dashed};
use super::request::usage;
use fastnnunet::Result;
use fastnnunet::registry::Registry;
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
    values: &'a [OsString],
}

impl Typed<'_> {
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
fn is_all_theirs(line: &[OsString]) -> bool {
    let parts = |argument: &OsString| {
        let text = argument.to_string_lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(n, v)| (n, Some(v)));
        (find(name), value.map(OsString::from))
    };
    let words: Vec<_> = line.iter().filter(|argument| is_word(argument)).map(parts).collect();
    let has = |short: &str| words.iter().any(|(word, _)| word.is_some_and(|w| w.short == short));
    let is_output = |argument: &OsString| parts(argument).0.is_some_and(|word| word.short == "-o");
    let output = line.iter().position(is_output);
    let output = output.and_then(|at| parts(&line[at]).1.or_else(|| line.get(at + 1).cloned()));
    let is_file = output.is_some_and(|output| Path::new(&output).extension().is_some());
    let all_known = words.iter().all(|(word, _)| word.is_some());
    all_known && has("-i") && has("-o") && (has("-ml") || !is_file)
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
            let name = first.to_string_lossy();
            let (own_name, inline) = match name.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some([OsString::from(value)])),
                None => (name.clone().into_owned(), None),
            };
            // Ours has other words of these names unless the line is one of theirs.
            let is_theirs = |word: &&Word| has_task || !["-t", "-sp"].contains(&word.short);
            let known = find(&own_name).filter(is_theirs);
            let Some(word) = known else {
                line.ours.push(first.clone());
                rest = after;
                continue;
            };
            let is_value = |value: &&OsString| !value.to_string_lossy().starts_with('-');
            let count = match word.takes {
                Takes::One => after.len().min(1),
                Takes::Maybe => after.iter().take(1).filter(is_value).count(),
                Takes::Many => after.iter().take_while(is_value).count(),
                Takes::Nothing => 0,
            };
            let count = if inline.is_some() { 0 } else { count };
            let (values, next) = after.split_at(count);
            let values = inline.as_ref().map_or(values, |value| &value[..]);
            line.take(&Typed { word, name: own_name, values })?;
            rest = next;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use clap::Parser;

    const TABLE: &str = include_str!("../../docs/from-totalsegmentator.md");

    /// What a line becomes, without the program's name; or why it is refused.
    fn line(typed: &str) -> Result<String, String> {
        let words = std::iter::once("fastnnunet").chain(typed.split_whitespace());
        let ours = translated(words.map(OsString::from)).map_err(|error| error.to_string())?;
        let ours: Vec<_> = ours.words[1..].iter().map(|word| word.to_string_lossy()).collect();
        Ok(ours.join(" "))
    }

    /// Rows of the table: what is typed, and what it becomes.
    fn rows() -> Vec<(&'static str, &'static str)> {
        let cells = |row: &'static str| {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?, cells.next()?))
        };
        let rows = TABLE.lines().filter(|line| line.starts_with("| `-"));
        rows.filter_map(cells).collect()
    }

    /// What stands in the first pair of backticks.
    fn code(cell: &str) -> &str {
        cell.split('`').nth(1).unwrap_or_default()
    }

    #[test]
    fn every_row_of_the_table_is_what_happens() {
        let base = line("-ta body -o out").expect("a line");
        for (typed, becomes) in rows() {
            let typed = code(typed);
            let found = line(&format!("-ta body -o out {typed}"));
            if becomes.starts_with("refused") {
                let said = found.expect_err(typed);
                let name = typed.split(' ').next().unwrap_or_default().replace('_', "-");
                assert!(said.contains(&name), "{typed}: {said}");
                continue;
            }
            let found = found.unwrap_or_else(|said| panic!("{typed}: {said}"));
            if becomes.starts_with("no effect") {
                assert_eq!(found, base, "{typed}");
                continue;
            }
            let ours = code(becomes);
            assert!(!ours.is_empty(), "{typed}: the second column has the words");
            assert!(format!("{found} ").contains(&format!("{ours} ")), "{typed}: {found}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_every_word() {
        let rows = rows();
        for word in WORDS {
            let names = || std::iter::once(word.short).chain(word.long.iter().copied());
            let has = |(typed, _): &(&str, &str)| {
                let first = code(typed).split(' ').next().unwrap_or_default().replace('_', "-");
                names().any(|name| !name.is_empty() && name == first)
            };
            assert!(rows.iter().any(has), "{}{:?}", word.short, word.long);
        }
    }

    #[test]
    fn words_are_one_each() {
        let all = || WORDS.iter().flat_map(|w| std::iter::once(&w.short).chain(w.long));
        for name in all().filter(|name| !name.is_empty()) {
            assert_eq!(all().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn lines_of_the_readme_are_understood_by_clap() {
        let lines = TABLE.lines().filter_map(|line| line.strip_prefix("TotalSegmentator "));
        let mut count = 0;
        for typed in lines {
            let words = std::iter::once("fastnnunet").chain(typed.split_whitespace());
            let ours = translated(words.map(OsString::from)).expect("understood").words;
            let cli = Cli::try_parse_from(ours).unwrap_or_else(|said| panic!("{typed}: {said}"));
            assert!(cli.predict.task.is_some() && cli.predict.mode == cli.predict.task, "{typed}");
            count += 1;
        }
        assert!(count >= 10, "{count}");
    }

    #[test]
    fn files_without_a_name_lie_where_the_reference_puts_them() {
        // (line, part of ours)
        let cases = [
            ("-ta total -o a/segs -s -p", "--statistics a/segs/statistics.json"),
            ("-ta total -o a/segs -s -p", "--preview a/segs/preview_total.png"),
            ("-ta body -o a/segs.nii.gz -ml -s -p", "--statistics a/statistics.json"),
            ("-ta body -o segs.nii.gz --ml -p", "--preview preview_body.png"),
            ("-ta body -o segs --statistics mine.csv -f", "--statistics mine.csv"),
            ("-s -ta body -o segs", "--statistics segs/statistics.json"),
        ];
        for (typed, part) in cases {
            let found = line(typed).expect(typed);
            assert!(format!("{found} ").contains(&format!("{part} ")), "{typed}: {found}");
        }
    }

    #[test]
    fn without_a_task_words_are_ours() {
        let same = [
            "-i a.nii -m bone -t 4",
            "--mode bone --statistics s.csv -i a -o b",
            "modes total",
            "-i a -o b -m bone --save-probabilities --preview c.png",
        ];
        for typed in same {
            let found = line(typed).expect(typed);
            let sorted = |text: &str| {
                let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
                words.sort();
                words
            };
            let ours = found.replace("--input", "-i").replace("--output", "-o");
            assert_eq!(sorted(&ours), sorted(typed), "{typed}");
        }
        let found = line("-i a --mode total -f -rs liver spleen").expect("understood");
        assert_eq!(found, "--input a --mode total --quality low --roi liver,spleen");
        let found = line("-i a --mode total -ot dicom").expect("understood");
        assert_eq!(found, "--input a --mode total --output-type dicom", "clap refuses it");
        for typed in ["-i a --mode total -ml", "-i a -bs", "-lt", "-i a -ns 4"] {
            assert!(line(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn a_line_that_names_nothing_is_of_task_total() {
        for typed in ["-i a -o segs", "-o=segs -i a --fast", "-i a -o b.nii.gz --ml -rs liver"] {
            let found = line(typed).expect(typed);
            assert_eq!(found, line(&format!("-ta total {typed}")).expect("understood"), "{typed}");
            let told = |typed: &str| {
                let words = std::iter::once("fastnnunet").chain(typed.split(' '));
                translated(words.map(OsString::from)).expect("understood").note
            };
            assert!(told(typed).is_some() && told(&format!("{typed} -q")).is_none(), "{typed}");
            assert!(told(&format!("{typed} -ta total")).is_none(), "{typed}");
        }
        // With a word of ours, or a file for what would be a folder, it is a line of ours.
        for typed in [
            "-i a -o segs --threads 4",
            "-i a -o b.nii.gz",
            "-i a",
            "-i a --output=b.nii",
            "-i a -o b -m bone",
        ] {
            let found = line(typed).expect(typed);
            assert!(!found.contains("--task"), "{typed}: {found}");
        }
    }

    #[test]
    fn a_task_is_what_it_is_there() {
        // (line, part of ours)
        let cases = [
            ("-ta total", "--mode total --variant v2 --quality high --overwrite"),
            ("--task total -ff", "--quality lowest"),
            ("-ta=lung_vessels", "--mode lung_vessels --overwrite --output-type per-structure"),
            ("-ta total_v3 -ms small", "--variant small --quality high"),
            ("-ta body --models-dir m --skip-existing", "--models-dir m --skip-existing"),
            ("-ta body -ot nifti dicom_seg -o d", "--output-type nifti --output-type dicom-seg"),
            ("-ta body -ot dicom -o d/a.dcm", "--output-type rtstruct --output d/a.dcm"),
            ("-ta body -d gpu:1", "--device cuda:1"),
        ];
        for (typed, part) in cases {
            let found = line(typed).expect(typed);
            assert!(format!("{found} ").contains(&format!("{part} ")), "{typed}: {found}");
        }
        for typed in ["-ta body --mode bone", "-ta", "-ta body -rs", "-ta body -ms tiny"] {
            assert!(line(typed).is_err(), "{typed}");
        }
    }
}
