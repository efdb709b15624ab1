//! `series`, and the series that a run's input holds.

use super::args::SeriesArgs;
use super::images::Image;
use super::summary::{reversed, times_sign};
use super::{report, table};
use fastnnunet::dicom::{Catalog, ScanOptions, Series, Verdict, scan};
use fastnnunet::{Error, Result, io};
use std::fmt::Write;
use std::path::Path;

/// Lists what is below a path.
pub(crate) fn list(args: &SeriesArgs) -> Result<()> {
    let catalog = scan(&args.path, &ScanOptions::default())?;
    if args.json {
        return report::say(&format!("{}\n", catalog.to_json(args.show_text)));
    }
    let mut heading = vec!["study", "name", "modality", "slices", "size", "mm", "plane", "kernel"];
    heading.extend(["contrast", "verdict"]);
    if args.show_text {
        heading.extend(["description", "study description", "protocol", "contrast agent"]);
    }
    heading.push("series");
    let mut rows = vec![heading.into_iter().map(String::from).collect()];
    rows.extend(catalog.series.iter().map(|series| row(series, args.show_text)));
    let mut text = if catalog.series.is_empty() { String::new() } else { table::render(&rows) };
    for series in &catalog.series {
        let (reason, notes) = reasons(series);
        if !notes.is_empty() {
            let _ = writeln!(text, "{} is {reason}: {}", series.name, notes.join("; "));
        }
    }
    let count = |count: usize, what: &str| match count {
        0 => String::new(),
        1 => format!("1 file {what}\n"),
        n => format!("{n} files {what}\n"),
    };
    text += &count(catalog.others, "beside them, not DICOM or without images");
    text += &count(catalog.damaged.len(), "damaged");
    if catalog.series.is_empty() {
        text += "no series\n";
    }
    report::say(&text)
}

fn row(series: &Series, show_text: bool) -> Vec<String> {
    let mut row = vec![
        series.study_name.clone(),
        series.name.clone(),
        series.modality.clone(),
        series.slices.to_string(),
        series.shape.map_or_else(String::new, |shape| times_sign(reversed(shape))),
        series
            .spacing
            .map_or_else(String::new, |mm| times_sign(reversed(mm).map(|mm| format!("{mm:.3}")))),
        series.plane.unwrap_or_default().into(),
        series.kernel.clone().unwrap_or_default(),
        if series.contrast { "yes" } else { "" }.into(),
        reasons(series).0.into(),
    ];
    if show_text {
        let texts = series.texts();
        for text in [&texts.series, &texts.study, &texts.protocol, &texts.contrast] {
            row.push(text.as_deref().map(plain).unwrap_or_default());
        }
    }
    row.push(series.id());
    row
}

/// The verdict in a word, and what it is for.
fn reasons(series: &Series) -> (&'static str, Vec<String>) {
    match &series.verdict {
        Verdict::Suitable => ("suitable", Vec::new()),
        Verdict::Corrected(notes) => ("corrected", notes.clone()),
        Verdict::Refused { found, expected } => {
            ("refused", vec![format!("found {found}, expected {expected}")])
        }
    }
}

/// Text of a file without what would move the cursor.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What a run's input holds that is DICOM.
pub(super) struct Below {
    catalog: Catalog,
}

/// One study's series, or why it has none to use; with its name.
pub(super) type Chosen = (String, Result<Image>);

impl Below {
    /// The series below `path`, if that is to be read as DICOM.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        if !io::is_dicom(path)? {
            return Ok(None);
        }
        let catalog = scan(path, &ScanOptions::default())?;
        // A file, or a folder of something else: what it should have been is told elsewhere.
        let is_none = catalog.series.is_empty() && catalog.damaged.is_empty();
        Ok((!is_none).then_some(Self { catalog }))
    }

    /// The one series, or that of the name.
    pub(super) fn pick(&self, id: Option<&str>) -> Result<Image> {
        let series = self.catalog.pick(id).map_err(by_option)?;
        Ok(Image::Series(Box::new(series.clone())))
    }

    /// The one series of each study, where there are several studies.
    pub(super) fn studies(&self) -> Option<Vec<Chosen>> {
        let studies = self.catalog.studies();
        (studies.len() > 1).then(|| {
            let chosen = studies.iter().map(|study| match study.pick() {
                Ok(series) => (series.name.clone(), Ok(Image::Series(Box::new(series.clone())))),
                Err(error) => (study.name.to_owned(), Err(by_option(error))),
            });
            chosen.collect()
        })
    }

    /// A sentence about files that could not be followed to a series.
    pub(super) fn doubt(&self) -> Option<String> {
        let (count, path) = (self.catalog.damaged.len(), self.catalog.path.display());
        let (_, reason) = self.catalog.damaged.first()?;
        Some(format!("{count} DICOM files below {path} left out, the first for this: {reason}"))
    }
}

/// Names the option that chooses.
fn by_option(error: fastnnunet::dicom::Error) -> Error {
    match error.into() {
        Error::Usage { found, expected, .. } => {
            Error::Usage { what: "--series".into(), found, expected }
        }
        other => other,
    }
}
