//! Released archives: what trainings are in one, and one of them unpacked.
//!
//! Names in an archive are looked at, never used as paths.

use super::{Found, named};
use crate::files::{self, Room, Steady};
use crate::model::tasks::Tasks;
use crate::nnunet::{CHECKPOINTS, Fold, others};
use crate::{Error, Mismatch, Result};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Most entries looked through.
const MAX_ENTRIES: usize = 1 << 16;

/// Largest file unpacked: a checkpoint of the largest networks has two gigabytes.
const MAX_FILE_BYTES: u64 = 16 << 30;

fn open(path: &Path) -> Result<ZipArchive<BufReader<Steady>>> {
    let broken = |found: String| Error::model_file(path, Mismatch::new(found, "a whole .zip"));
    let file = files::open(path).map_err(|error| broken(error.to_string()))?.file;
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| broken(e.to_string()))?;
    if archive.len() > MAX_ENTRIES {
        return Err(broken(format!("{} entries", archive.len())));
    }
    Ok(archive)
}

/// The trainings in an archive.
pub(super) fn find(path: &Path, tasks: &Tasks) -> Result<Vec<Found>> {
    let mut archive = open(path)?;
    let mut places: BTreeMap<String, (BTreeMap<String, u64>, usize)> = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index);
        let entry =
            entry.map_err(|e| Error::model_file(path, Mismatch::new(e.to_string(), "an entry")))?;
        let Ok(name) = entry.name().map(std::borrow::Cow::into_owned) else { continue };
        let Some((place, file)) = split(&name) else { continue };
        let known = places.entry(place.to_owned()).or_default();
        if file == "plans.json" || file == "dataset.json" {
            known.1 += 1;
        } else if let Some((fold, checkpoint)) = file.split_once('/')
            && CHECKPOINTS.contains(&checkpoint)
        {
            let bytes = known.0.entry(fold.to_owned()).or_default();
            *bytes = entry.size().max(*bytes);
        }
    }
    places.retain(|_, (_, descriptions)| *descriptions >= 2);
    let found = |(place, (checkpoints, _)): (String, (BTreeMap<String, u64>, usize))| {
        let (dataset, training) = place_names(&place);
        let parts: Vec<&str> = training.split("__").collect();
        let names: [&str; 3] = parts.try_into().ok()?;
        let fold = |name: &String| match name.strip_prefix("fold_")? {
            "all" => Some(Fold::All),
            number => number.parse().ok().map(Fold::Number),
        };
        Some(Found {
            source: path.to_owned(),
            inside: Some(place.clone()),
            folds: checkpoints.keys().filter_map(fold).collect(),
            bytes: checkpoints.values().copied().fold(0, u64::saturating_add),
            ..named(dataset, names, tasks)
        })
    };
    let found: Vec<Found> = places.into_iter().filter_map(found).collect();
    if found.is_empty() {
        let names: Vec<_> = archive.file_names().flatten().collect();
        let is_renamed = names.iter().any(|name| name.rsplit('/').next() == Some("plans.json"));
        let family = others::of_files(names.iter().map(|name| &**name)).filter(|_| !is_renamed);
        let what = family.unwrap_or("an archive without a training of its full name");
        let expected =
            "Dataset.../Trainer__Plans__Configuration, or an unpacked folder of any name";
        return Err(Error::model_file(path, Mismatch::new(what, expected)));
    }
    Ok(found)
}

/// Place of a training in the archive, and a file's place in the training.
fn split(name: &str) -> Option<(&str, &str)> {
    let mut at = 0;
    for part in name.split('/') {
        let end = at + part.len();
        if part.matches("__").count() == 2 {
            return Some((&name[..end], name.get(end + 1..)?));
        }
        at = end + 1;
    }
    None
}

/// Names of the data set and the training, by its place in the archive.
fn place_names(place: &str) -> (&str, &str) {
    let mut parts = place.rsplit('/');
    let training = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), training)
}

/// Unpacks what is needed of a training to `to` in `room`; returns its folder.
pub(super) fn unpack(
    path: &Path,
    inside: &str,
    found: &Found,
    room: &Room,
    to: &Path,
) -> Result<PathBuf> {
    let mut archive = open(path)?;
    let is_plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let (dataset, training) = place_names(inside);
    // A data set may be at the top.
    let dataset = if is_plain(dataset) { dataset } else { "Dataset" };
    if !is_plain(training) || dataset.starts_with('.') || training.starts_with('.') {
        let what = Mismatch::new(format!("a training called {training:?}"), "letters and digits");
        return Err(Error::model_file(path, what));
    }
    let folder = to.join(dataset).join(training);
    for name in ["plans.json", "dataset.json"] {
        extract(&mut archive, path, &format!("{inside}/{name}"), room, &folder.join(name))?;
    }
    for fold in &found.folds {
        let fold = format!("fold_{fold}");
        let has =
            |name: &&&str| archive.index_for_name(&format!("{inside}/{fold}/{name}")).is_some();
        if let Some(name) = CHECKPOINTS.iter().find(has) {
            let from = format!("{inside}/{fold}/{name}");
            extract(&mut archive, path, &from, room, &folder.join(&fold).join(name))?;
        }
    }
    Ok(folder)
}

fn extract(
    archive: &mut ZipArchive<BufReader<Steady>>,
    path: &Path,
    name: &str,
    room: &Room,
    to: &Path,
) -> Result<()> {
    let broken = |found: String| Error::model_file(path, Mismatch::new(found, "a whole .zip"));
    let entry = archive.by_name(name).map_err(|e| broken(format!("{name}: {e}")))?;
    let size = entry.size();
    if size > MAX_FILE_BYTES {
        return Err(broken(format!("{name} of {size} bytes")));
    }
    // No more than was announced and space was looked for. What cannot be read is the archive's fault,
    // what cannot be written is not.
    let mut entry = Noting { inner: entry.take(size), damage: None };
    let copied = room.write(to, |file| io::copy(&mut entry, file));
    if let Some(damage) = entry.damage {
        return Err(broken(format!("{name}: {damage}")));
    }
    let copied = copied?;
    if copied == size { Ok(()) } else { Err(broken(format!("{copied} of {size} bytes of {name}"))) }
}

/// Passes bytes on, and keeps what went wrong with reading them.
struct Noting<R> {
    inner: R,
    damage: Option<String>,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.damage = Some(error.to_string());
        }
        read
    }
}

/// SHA-256 of a file in the archive, if it is there.
pub(super) fn sha256(path: &Path, name: &str) -> Result<Option<String>> {
    let mut archive = open(path)?;
    let Some(index) = archive.index_for_name(name) else { return Ok(None) };
    let broken = |found: String| Error::model_file(path, Mismatch::new(found, "a whole .zip"));
    let entry = archive.by_index(index).map_err(|e| broken(format!("{name}: {e}")))?;
    let size = entry.size();
    let digest = files::Digesting::new(entry.take(size)).finish();
    digest.map(Some).map_err(|e| broken(format!("{name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_are_found_by_their_names() {
        let cases = [
            ("Dataset297_X/T__P__C/plans.json", Some(("Dataset297_X/T__P__C", "plans.json"))),
            ("T__P__C/fold_0/a.pth", Some(("T__P__C", "fold_0/a.pth"))),
            ("a/b/c.json", None),
            ("T__P__C", None),
        ];
        for (name, expected) in cases {
            assert_eq!(split(name), expected, "{name}");
        }
        assert_eq!(place_names("x/Dataset297_X/T__P__C"), ("Dataset297_X", "T__P__C"));
    }
}
