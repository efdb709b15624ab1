//! Other people's weights become models of this program's own.
//!
//! Folders and archives of nnU-Net trainings enter; a folder per model leaves, with the networks as
//! ONNX, the configuration as JSON, and a manifest with the SHA-256 of everything. Known data sets
//! (`config/tasks.json`) become models with all that is done around their networks, others models of
//! their own name. Nothing half appears: a model is made beside its place and renamed.

mod archive;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use crate::files::{self, Existing, Room, Target};
use crate::model::Orientation;
use crate::model::tasks::{Dataset, Tasks};
use crate::nnunet::{
    CHECKPOINTS, Fold, Folder, Folds, Trained, model_name, model_names, others, trainings,
};
use crate::registry::{Digest, Manifest, imports};
use crate::{Error, Mismatch, Result};
use prost::Message;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A training that can be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Its folder, or the archive it is in.
    pub source: PathBuf,
    /// Its place in the archive.
    pub inside: Option<String>,
    /// `Dataset297_Name`, as its folder is called.
    pub dataset: String,
    /// Name of the trainer's class.
    pub trainer: String,
    /// Name of the plans.
    pub plans: String,
    /// nnU-Net's configuration.
    pub configuration: String,
    /// The folds that have weights.
    pub folds: Vec<Fold>,
    /// Bytes of their checkpoints.
    pub bytes: u64,
    /// The models it becomes.
    pub models: Vec<String>,
    /// The task it is for, where it is known.
    pub task: Option<String>,
    /// Terms of the weights, where they are known.
    pub license: Option<String>,
}

/// How an import is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Leave the weights where they are.
    pub link: bool,
    /// What becomes of models of the same name.
    pub existing: Existing,
    /// How images lie that the networks were trained on, where that is not what their plans say.
    /// Known data sets have one of their own.
    pub orientation: Option<Orientation>,
}

/// Begins the names of folders in which models are made.
const TEMPORARY: &str = ".fastnnunet-import-";

/// Looks for trainings: in folders of any level, in archives, and in archives in folders.
///
/// # Errors
///
/// [`Error::Model`] naming the source that is neither, or an archive that is broken.
pub fn find(sources: &[PathBuf], tasks: &Tasks) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for source in sources {
        let before = found.len();
        if source.is_dir() {
            for path in trainings(source) {
                found.push(of_folder(&path, tasks)?);
            }
            for archive in archives(source) {
                found.extend(archive::find(&archive, tasks)?);
            }
        } else if is_archive(source) {
            found.extend(archive::find(source, tasks)?);
        }
        if found.len() == before {
            let what = match (others::of_path(source), source.metadata()) {
                (Some(family), _) => family,
                (None, Ok(found)) if found.is_dir() => "a folder without a training",
                (None, Ok(_)) => "a file that is no .zip",
                (None, Err(_)) => "no such folder",
            };
            let expected =
                "results of nnU-Net v2, a data set or training of them, or a released .zip";
            return Err(Error::model_file(source, Mismatch::new(what, expected)));
        }
    }
    let mut seen = HashSet::new();
    found.retain(|one: &Found| seen.insert((one.source.clone(), one.inside.clone())));
    name_unknown(&mut found);
    Ok(found)
}

/// Gives trainings that nothing is known of the names that their models will have.
fn name_unknown(found: &mut [Found]) {
    let unknown = |one: &&mut Found| one.task.is_none();
    let unknown: Vec<&mut Found> = found.iter_mut().filter(unknown).collect();
    let parts =
        unknown.iter().map(|one| [&*one.dataset, &*one.trainer, &*one.plans, &*one.configuration]);
    let names = model_names(&parts.collect::<Vec<_>>());
    for (one, name) in unknown.into_iter().zip(names) {
        one.models = vec![name];
    }
}

/// Gives the one training that was found, of which nothing is known, the name of the model it becomes.
///
/// # Errors
///
/// [`Error::Usage`] if there are several or it is known, if a known one is called so, or if it is no
/// name for a model.
pub fn rename(found: &mut [Found], name: &str, tasks: &Tasks) -> Result<()> {
    let refused = |what: String, expected: &str| Err(Error::usage("name", what, expected));
    let count = found.len();
    match found {
        [one] if one.task.is_none() => {
            if model_name(name) != name || tasks.dataset(name).is_some() {
                return refused(
                    name.to_owned(),
                    "lowercase letters, digits and _, and no known task",
                );
            }
            one.models = vec![name.to_owned()];
            Ok(())
        }
        [one] => refused(format!("{name} for {}", one.dataset), "none for what is known"),
        _ => refused(format!("{name} for {count} trainings"), "a name for one"),
    }
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip")) && path.is_file()
}

/// The archives right in a folder.
fn archives(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        list.map(|entry| entry.path()).filter(|path| is_archive(path)).collect();
    found.sort();
    found
}

fn of_folder(path: &Path, tasks: &Tasks) -> Result<Found> {
    let trained = Trained::look(path)?;
    let bytes = |fold: &Fold| -> u64 {
        let list = fs::read_dir(path.join(format!("fold_{fold}"))).into_iter().flatten().flatten();
        let largest = list.filter_map(|entry| Some(entry.metadata().ok()?.len())).max();
        largest.unwrap_or(0)
    };
    Ok(Found {
        source: path.to_owned(),
        inside: None,
        bytes: trained.folds.iter().map(bytes).fold(0, u64::saturating_add),
        folds: trained.folds.clone(),
        ..named(&trained.dataset, [&trained.trainer, &trained.plans, &trained.configuration], tasks)
    })
}

/// What the names of a training say.
fn named(dataset: &str, [trainer, plans, configuration]: [&str; 3], tasks: &Tasks) -> Found {
    let id = crate::nnunet::dataset_id(dataset).unwrap_or(0);
    let known: Vec<&Dataset> = tasks.known(id, plans, configuration).collect();
    Found {
        source: PathBuf::new(),
        inside: None,
        dataset: dataset.to_owned(),
        trainer: trainer.to_owned(),
        plans: plans.to_owned(),
        configuration: configuration.to_owned(),
        folds: Vec::new(),
        bytes: 0,
        models: known.iter().map(|dataset| dataset.model.clone()).collect(),
        task: known.first().map(|dataset| dataset.task.clone()),
        license: known.first().map(|dataset| dataset.license.clone()),
    }
}

/// What became of the models of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Those that were made.
    pub made: Vec<Manifest>,
    /// Those that were there already, of the same checkpoints: a stopped import goes on.
    pub kept: Vec<Manifest>,
}

/// Imports trainings into a folder of models, which is created if it is missing. `progress` is told
/// the name of each model before it is made, and may stop the import; models that are finished stay.
///
/// # Errors
///
/// [`Error::Write`] if another model of that name is there and stays, if there is not enough space or
/// a file cannot be written; [`Error::Usage`] if an archive is to be linked; [`Error::Model`] if a
/// training cannot be used; [`Error::Interrupted`] if `progress` said so.
pub fn import(
    found: &[Found],
    to: &Path,
    tasks: &Tasks,
    options: ImportOptions,
    progress: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Imported> {
    check(found, options)?;
    let mut all = Imported::default();
    let mut todo = Vec::new();
    for one in found {
        match there(one, to, options)? {
            Some(kept) => all.kept.extend(kept),
            None => todo.push(one),
        }
    }
    if todo.is_empty() {
        return Ok(all);
    }
    let failed = |source| Error::Write { path: to.to_path_buf(), source };
    let room = Room::new(to, TEMPORARY).map_err(failed)?;
    check_space(&todo, to, options)?;
    for (k, one) in todo.into_iter().enumerate() {
        let unpacked = room.path().join(format!("unpacked-{k}"));
        let mut trained = match &one.inside {
            None => Trained::look(&one.source)?,
            Some(inside) => {
                Trained::look(&archive::unpack(&one.source, inside, one, &room, &unpacked)?)?
            }
        };
        trained.orientation = options.orientation;
        let known: Vec<&Dataset> = one.models.iter().filter_map(|m| tasks.dataset(m)).collect();
        let known = if one.task.is_some() { known } else { Vec::new() };
        let mut first = None;
        for (m, name) in one.models.iter().enumerate() {
            if progress(name).is_break() {
                return Err(Error::Interrupted);
            }
            let making = Making {
                trained: &trained,
                known: known.get(m).map(|dataset| (*dataset, tasks.made_from.as_str())),
                name,
                folder: room.path().join(format!("made-{k}-{m}")),
                room: &room,
            };
            let manifest =
                if options.link { making.link()? } else { making.convert(first.as_deref())? };
            put(&making.folder, &to.join(name), room.path())?;
            first.get_or_insert(to.join(name));
            all.made.push(manifest);
        }
        // What was unpacked takes as much space as the next one needs.
        let _ = fs::remove_dir_all(&unpacked);
    }
    Ok(all)
}

/// Removes a model that was imported.
///
/// # Errors
///
/// [`Error::Usage`] if there is none of that name, and [`Error::Write`] if it cannot be removed.
pub fn remove(name: &str, from: &Path) -> Result<()> {
    let all = imports(from)?;
    // By its folder too: a manifest that cannot be used does not tell its name.
    let called = |folder: &Path| folder.file_name().is_some_and(|own| own == name);
    let says = |found: &Result<Manifest>| found.as_ref().is_ok_and(|own| own.name == name);
    let found = all.iter().find(|(folder, _)| called(folder));
    let Some((folder, _)) = found.or_else(|| all.iter().find(|(_, found)| says(found))) else {
        let own = |(folder, found): &(PathBuf, Result<Manifest>)| match found {
            Ok(manifest) => manifest.name.clone(),
            Err(_) => folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let names: Vec<String> = all.iter().map(own).collect();
        return Err(Error::usage("imported model", name, format!("one of {}", names.join(", "))));
    };
    let failed = |source| Error::Write { path: folder.clone(), source };
    let room = Room::new(from, TEMPORARY).map_err(failed)?;
    fs::rename(folder, room.path().join("old")).map_err(failed)?;
    room.close().map_err(failed)
}

/// What can be said before anything is looked for or written.
fn check(found: &[Found], options: ImportOptions) -> Result<()> {
    let mut names: Vec<(&str, &Path)> = Vec::new();
    for one in found {
        if one.folds.is_empty() {
            let what = Mismatch::new("no weights", "fold_0/checkpoint_final.pth or another fold's");
            return Err(Error::model_file(&one.source, what));
        }
        if let (Some(orientation), Some(task)) = (options.orientation, &one.task) {
            let found = format!("{orientation} for {task}");
            return Err(Error::usage("orientation", found, "none for what is known"));
        }
        if options.link && one.inside.is_some() {
            let found = one.source.display().to_string();
            return Err(Error::usage("link", found, "a folder: weights in an archive are packed"));
        }
        for name in &one.models {
            if let Some((_, other)) = names.iter().find(|(known, _)| known == name) {
                let found =
                    format!("{name} in {} and in {}", other.display(), one.source.display());
                return Err(Error::usage("models", found, "each once"));
            }
            names.push((name, &one.source));
        }
    }
    Ok(())
}

/// The models of a training if all are there, made of the same checkpoints by this version in the
/// same way, and none is to be replaced; `None` if they are to be made.
fn there(one: &Found, to: &Path, options: ImportOptions) -> Result<Option<Vec<Manifest>>> {
    let mut kept = Vec::new();
    for name in &one.models {
        let place = to.join(name);
        if !place.exists() {
            continue;
        }
        let manifest = Manifest::read(&place)?;
        match manifest {
            Some(_) if options.existing == Existing::Replace => return Ok(None),
            Some(manifest) if one.is_source_of(&manifest, options)? => kept.push(manifest),
            _ => {
                let source = io::ErrorKind::AlreadyExists.into();
                return Err(Error::Write { path: place, source });
            }
        }
    }
    Ok((kept.len() == one.models.len()).then_some(kept))
}

impl Found {
    /// Whether an import now would give what is there.
    fn is_source_of(&self, manifest: &Manifest, options: ImportOptions) -> Result<bool> {
        let training = [&*self.trainer, &self.plans, &self.configuration];
        let is_same = manifest.link.is_some() == options.link
            && manifest.orientation == options.orientation
            && manifest.is_of(&self.dataset, training);
        if !is_same {
            return Ok(false);
        }
        for known in &manifest.checkpoints {
            if self.sha256(&known.file)?.as_ref() != Some(&known.sha256) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// SHA-256 of a checkpoint by its place in the training, if it is there.
    fn sha256(&self, file: &str) -> Result<Option<String>> {
        let is_one = |(fold, name): (&str, &str)| {
            let is = |own: &Fold| fold.strip_prefix("fold_").is_some_and(|n| n == own.to_string());
            self.folds.iter().any(is) && CHECKPOINTS.contains(&name)
        };
        if !file.split_once('/').is_some_and(is_one) {
            return Ok(None);
        }
        if let Some(inside) = &self.inside {
            return archive::sha256(&self.source, &format!("{inside}/{file}"));
        }
        let path = self.source.join(file);
        path.is_file().then(|| sha256_of(&path)).transpose()
    }
}

fn sha256_of(path: &Path) -> Result<String> {
    files::sha256_of(path)
        .map_err(|error| Error::model_file(path, error.instead_of("a readable file")))
}

/// Fails unless the disk holds what will be made: at most the checkpoints again, and an archive
/// unpacked.
fn check_space(found: &[&Found], to: &Path, options: ImportOptions) -> Result<()> {
    if options.link {
        return Ok(());
    }
    let Ok(free) = fs4::available_space(to) else { return Ok(()) };
    let unpacked = found.iter().filter(|one| one.inside.is_some()).map(|one| one.bytes).max();
    // Sizes are what archives announce: a sum may be beyond any number.
    let all = found.iter().map(|one| one.bytes).chain(unpacked);
    let need = all.fold(0, u64::saturating_add);
    if need <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let text = format!("{} MiB are needed at most, {} MiB are free", mib(need), mib(free));
    let source = io::Error::new(io::ErrorKind::StorageFull, text);
    Err(Error::Write { path: to.to_path_buf(), source })
}

/// A model on its way.
struct Making<'a> {
    trained: &'a Trained,
    known: Option<(&'a Dataset, &'a str)>,
    name: &'a str,
    /// Where it is made.
    folder: PathBuf,
    room: &'a Room,
}

impl Making<'_> {
    fn folds(&self) -> Result<Folds> {
        match self.known {
            Some((dataset, _)) => dataset.folds.parse(),
            None => Ok(self.trained.usual_folds()),
        }
    }

    /// Notes where the training is.
    fn link(&self) -> Result<Manifest> {
        let folds = self.folds()?;
        // Everything about it is checked as if it were opened to run.
        let folder = self.trained.open(&folds, self.known)?;
        let mut manifest = Manifest::new(self.name, self.trained, &folds);
        let place = self.trained.path.canonicalize();
        manifest.link = Some(place.unwrap_or_else(|_| self.trained.path.clone()));
        manifest.checkpoints = checkpoints(&folder)?;
        self.write(&manifest)?;
        Ok(manifest)
    }

    /// Writes the networks and the configuration. Another model of the same training, `other`, has
    /// the networks already.
    fn convert(&self, other: Option<&Path>) -> Result<Manifest> {
        let folds = self.folds()?;
        let folder = self.trained.open(&folds, self.known)?;
        let mut manifest = Manifest::new(self.name, self.trained, &folds);
        manifest.checkpoints = checkpoints(&folder)?;
        let count = folder.folds().len();
        let known = other.map(Manifest::read).transpose()?.flatten();
        for fold in 0..count {
            let file = match count {
                1 => format!("{}.onnx", self.name),
                _ => format!("{}_fold{}.onnx", self.name, folder.folds()[fold]),
            };
            let path = self.folder.join(&file);
            let twin = known.as_ref().and_then(|twin| twin.weights.get(fold)).zip(other);
            let digest = if let Some((twin, place)) = twin {
                self.room.share(&place.join(&twin.file), &path)?;
                Digest { file, ..twin.clone() }
            } else {
                let bytes = folder.model(fold)?.encode_to_vec();
                Target::new(&path, Existing::Keep).write_bytes(&bytes)?;
                Digest { file, sha256: files::sha256(&bytes), bytes: bytes.len() as u64 }
            };
            manifest.weights.push(digest);
        }
        let json = self.folder.join(format!("{}.json", self.name));
        let config = folder.config_json(Some(&manifest.weights[0].file));
        Target::new(&json, Existing::Keep).write_bytes(config.as_bytes())?;
        self.write(&manifest)?;
        Ok(manifest)
    }

    fn write(&self, manifest: &Manifest) -> Result<()> {
        let mut text = serde_json::to_string_pretty(manifest).unwrap_or_default();
        text.push('\n');
        let path = self.folder.join(crate::registry::MANIFEST);
        Target::new(&path, Existing::Keep).write_bytes(text.as_bytes())
    }
}

fn checkpoints(folder: &Folder) -> Result<Vec<Digest>> {
    let digest = |fold: usize| {
        let path = folder.checkpoint(fold);
        let place = path.strip_prefix(folder.path()).unwrap_or(path);
        let bytes = fs::metadata(path).map_or(0, |found| found.len());
        let file = place.to_string_lossy().replace('\\', "/");
        Ok(Digest { file, sha256: sha256_of(path)?, bytes })
    };
    (0..folder.folds().len()).map(digest).collect()
}

/// Puts a finished model in its place; one that is there goes to `room`, which will be removed.
fn put(made: &Path, place: &Path, room: &Path) -> Result<()> {
    let failed = |source| Error::Write { path: place.to_path_buf(), source };
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let old = place.exists().then(|| room.join(format!("old-{name}")));
    if let Some(old) = &old {
        fs::rename(place, old).map_err(failed)?;
    }
    fs::rename(made, place).map_err(|error| {
        // It goes back, or it would go with the room.
        if let Some(old) = &old {
            let _ = fs::rename(old, place);
        }
        failed(error)
    })
}

#[cfg(test)]
mod tests;
