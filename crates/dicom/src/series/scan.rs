//! A path to its series.

use super::group::{self, Part};
use super::stack::{Slice, axes};
use super::{Catalog, Series, Verdict};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::read::file::{self, FileLimits};
use crate::read::image::{self, Image, Texts};
use crate::read::place::Places;
use crate::volume;
use base16ct::lower;
use dicom_dictionary_std::uids;
use fastnnunet_model::Mismatch;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How series are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Bounds on what is read.
    pub limits: Limits,
    /// Fill gaps of missing slices by interpolation instead of refusing the series.
    pub allow_gaps: bool,
}

/// Lists the series below `path`: a file, a folder, a DICOMDIR or a zip.
///
/// Headers alone are read, but for slices that lie in one place: those are compared.
///
/// # Errors
///
/// [`Error::Read`](crate::Error::Read) if the path cannot be read, and
/// [`Error::Input`](crate::Error::Input) if there is more below it than the limits allow. A file
/// below it that cannot be read is one that is not used.
pub fn scan(path: &Path, options: &ScanOptions) -> Result<Catalog> {
    let places = Arc::new(Places::find(path, &options.limits)?);
    let limits = FileLimits::of(&options.limits);
    let read: Vec<Found> =
        (0..places.len()).into_par_iter().map(|place| look(&places, place, limits)).collect();

    let mut groups: BTreeMap<[String; 3], Vec<Image>> = BTreeMap::new();
    let (mut others, mut damaged) = (0, Vec::new());
    for (place, found) in read.into_iter().enumerate() {
        match found {
            Found::Other => others += 1,
            Found::Damaged(reason) => damaged.push((places.path(place).to_path_buf(), reason)),
            Found::Image(image) => {
                // Files without UIDs belong together if they lie together.
                let folder = if image.series_uid.is_empty() {
                    places.folder_of(place).to_string_lossy().into_owned()
                } else {
                    String::new()
                };
                let key = [image.study_uid.clone(), image.series_uid.clone(), folder];
                groups.entry(key).or_default().push(*image);
            }
        }
    }
    let same = |a: &Slice, b: &Slice| volume::same_pixels(&places, a, b);
    let series = groups
        .into_values()
        .enumerate()
        .flat_map(|(number, images)| {
            let nameless = images.iter().all(|image| image.series_uid.is_empty());
            let mut parts = group::parts(images, options.allow_gaps, &same);
            if nameless {
                let note = "no series UID: the images of one folder taken as a series";
                for part in &mut parts {
                    part.notes.push(note.into());
                }
            }
            let several = parts.len() > 1;
            let list: Vec<Series> = parts
                .into_iter()
                .enumerate()
                .map(|(k, part)| describe(part, several.then_some(k + 1), number, &places))
                .collect();
            list
        })
        .collect();
    Ok(Catalog { path: path.to_path_buf(), series, others, damaged })
}

/// Whether any file below `path` begins as DICOM files do. Quicker than [`scan`], and blind to files
/// without preamble.
///
/// # Errors
///
/// As [`scan`].
pub fn holds_dicom(path: &Path, limits: &Limits) -> Result<bool> {
    let places = Places::find(path, limits)?;
    Ok((0..places.len()).into_par_iter().any(|place| {
        let mut head = [0; 132];
        let read = places.open(place).is_ok_and(|mut content| {
            let (source, _) = content.source();
            source.read_exact(&mut head).is_ok()
        });
        read && head.ends_with(b"DICM")
    }))
}

enum Found {
    /// Not DICOM, or no object of a series.
    Other,
    Damaged(String),
    Image(Box<Image>),
}

fn look(places: &Places, place: usize, limits: FileLimits) -> Found {
    let opened = places.open(place).and_then(|mut content| {
        let (source, len) = content.source();
        file::open(source, len, limits).map_err(|fault| Error::input(places.path(place), fault))
    });
    match opened {
        Err(Error::Input { found, expected, .. }) => {
            Found::Damaged(format!("found {found}, expected {expected}"))
        }
        Err(_) => Found::Damaged("could not be read".into()),
        Ok(None) => Found::Other,
        Ok(Some(opened)) => {
            let image = Image::of(&opened, place);
            let index = image.class_uid == uids::MEDIA_STORAGE_DIRECTORY_STORAGE;
            let empty = image.series_uid.is_empty() && image.instance_uid.is_empty();
            match &opened.parsed.fault {
                _ if index => Found::Other,
                Some(fault) if empty => Found::Damaged(fault.to_string()),
                None if empty && image.modality.is_empty() => Found::Other,
                _ => Found::Image(Box::new(image)),
            }
        }
    }
}

fn describe(part: Part, number: Option<usize>, group: usize, places: &Arc<Places>) -> Series {
    let Part { slices, stack, notes, sample, slice } = part;
    let frame = slice.as_ref().map(Slice::of);
    let (stack, verdict) = match stack {
        Ok(stack) if notes.is_empty() => (Some(stack), Verdict::Suitable),
        Ok(stack) => (Some(stack), Verdict::Corrected(notes)),
        Err(Mismatch { found, expected }) => (None, Verdict::Refused { found, expected }),
    };
    // Where there are no UIDs, the order of the folders tells series apart.
    let order = if sample.series_uid.is_empty() { group.to_string() } else { String::new() };
    let part_text = number.map_or_else(String::new, |part| part.to_string());
    let study = [sample.study_uid.as_str(), if sample.study_uid.is_empty() { &order } else { "" }];
    let kernel = frame.map(|frame| frame.keys.kernel.replace('\\', " ")).filter(|k| is_plain(k));
    Series {
        study_name: digest(&study),
        name: digest(&[&sample.study_uid, &sample.series_uid, &order, &part_text]),
        study_uid: sample.study_uid.clone(),
        series_uid: sample.series_uid.clone(),
        part: number,
        modality: image::code(&sample.modality).unwrap_or_default().to_owned(),
        class_uid: sample.class_uid.clone(),
        slices,
        shape: stack.as_ref().map(|stack| stack.grid.shape),
        spacing: stack.as_ref().map(|stack| stack.grid.spacing),
        plane: frame.map(|frame| plane(axes(frame)[2])),
        kernel,
        contrast: sample.contrast,
        verdict,
        texts: Texts::clone(&sample.texts),
        stack,
        places: places.clone(),
    }
}

/// Kernels are names of a scanner's; anything else may be a note.
fn is_plain(kernel: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" ._+-/()".contains(&b);
    !kernel.is_empty() && kernel.len() <= 32 && kernel.bytes().all(plain)
}

fn plane(normal: [f64; 3]) -> &'static str {
    let along = |axis: usize| normal[axis].abs() > 0.9;
    match (along(0), along(1), along(2)) {
        (true, ..) => "sagittal",
        (_, true, _) => "coronal",
        (.., true) => "axial",
        _ => "oblique",
    }
}

/// 64 bits of the SHA-256 of texts, in hexadecimal digits.
fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    lower::encode_string(&hash.finalize()[..8])
}
