//! A user's folder of models, read at run time.

use super::installed::{Model, Place, read_json, unusable};
use super::{RECIPES, Registry};
use crate::Result;
use crate::model::{CONFIGURATIONS, labels, modes};
use crate::nnunet::{is_training, others};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files of one kind looked at: a folder of models, not a disk.
const MAX_FILES: usize = 1000;

impl Registry {
    /// What is inside the program and, before it, what is in `folder`.
    ///
    /// A model is `NAME.onnx` with `NAME.json`, or with a JSON in a subfolder called like its
    /// configuration, for instance `3d_fullres/NAME.json`. `modes.json` and `labels/*.json`,
    /// if there, are written like the program's own in `config/`; a model, mode or table
    /// replaces the program's of the same name. Weights are read when they are used.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) naming the file that cannot be read or used.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        let mut registry = Self::embedded().clone();
        registry.add_folder(folder, Place::Named)?;
        Ok(registry)
    }

    /// What is inside the program, before it what is in the `user`'s folder of models, if there is
    /// one, and before that what is in the folder that was `named`.
    ///
    /// # Errors
    ///
    /// As [`with_folder`](Self::with_folder).
    pub fn with_folders(user: Option<&Path>, named: Option<&Path>) -> Result<Self> {
        let mut registry = Self::embedded().clone();
        if let Some(user) = user.filter(|folder| folder.is_dir()) {
            registry.add_folder(user, Place::User)?;
        }
        if let Some(named) = named {
            registry.add_folder(named, Place::Named)?;
        }
        Ok(registry)
    }

    /// Adds a folder of models: those written side by side, imports, and trainings of nnU-Net, which
    /// stay where they are.
    fn add_folder(&mut self, folder: &Path, place: Place) -> Result<()> {
        let before = self.notes.len();
        let mut found = 0;
        if !is_training(folder) {
            for onnx in files(folder, "onnx")? {
                let model = Model::listed_in(folder, &onnx);
                if let Some(model) = self.usable(model, place)? {
                    self.models.retain(|known| known.name != model.name);
                    self.models.push(Arc::new(Model { place, ..model }));
                }
                found += 1;
            }
            self.usable(check_strays(folder), place)?;
            found += self.add_imports(folder, place)?;
        }
        found += self.add_trainings(folder, place);
        self.models.sort_by(|a, b| a.name.cmp(&b.name));
        let is_described = ["modes.json", "labels"].iter().any(|name| folder.join(name).exists());
        if found == 0 && self.notes.len() == before && !is_described {
            let other = others::of_path(folder).map(|family| format!(", but {family}"));
            let other = other.unwrap_or_default();
            self.notes.push(format!("no model in {}{other}", folder.display()));
        }
        if is_described {
            let mut described = self.clone();
            let result = described.add_descriptions(folder);
            if self.usable(result, place)?.is_some() {
                *self = described;
            }
        }
        Ok(())
    }

    /// What was read, or `None` where it cannot be used and lies in the user's own folder, which
    /// nobody named: it is noted there, and ends no run that needs none of it.
    pub(super) fn usable<T>(&mut self, read: Result<T>, place: Place) -> Result<Option<T>> {
        match read {
            Err(error) if place == Place::User => {
                self.notes.push(format!("left out: {error}"));
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Adds the label tables and modes of a folder.
    fn add_descriptions(&mut self, folder: &Path) -> Result<()> {
        let tables = folder.join("labels");
        if tables.is_dir() {
            let mut written = Vec::new();
            for path in files(&tables, "json")? {
                written.push((stem(&path), read_json(&path)?));
            }
            let own = labels::parse(&written, &self.tables)
                .map_err(|e| unusable(&tables, e, "label tables as in config/labels".to_owned()))?;
            self.tables.retain(|known| own.iter().all(|table| table.name != known.name));
            self.tables.extend(own);
            self.tables.sort_by(|a, b| a.name.cmp(&b.name));
        }

        let path = folder.join("modes.json");
        if path.exists() {
            let mut own = modes::parse(&read_json(&path)?).map_err(|e| bad_modes(&path, e))?;
            self.tasks.fill(&mut own).map_err(|e| bad_modes(&path, e))?;
            for mode in own {
                match self.modes.iter_mut().find(|known| known.name == mode.name) {
                    Some(known) => *known = mode,
                    None => self.modes.push(mode),
                }
            }
        }
        // A table that was replaced may lack what a mode of the program needs.
        let known: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
        modes::check_tables(&self.modes, &self.tables)
            .and_then(|()| modes::check_recipes(&self.modes, &known))
            .map_err(|e| bad_modes(&path, e))
    }
}

/// Fails if the folder holds half of a model, which would be passed over in silence: weights where
/// none are looked for, or a configuration without weights.
fn check_strays(folder: &Path) -> Result<()> {
    for below in CONFIGURATIONS.map(|name| folder.join(name)) {
        if below.is_dir()
            && let Some(onnx) = files(&below, "onnx")?.first()
        {
            let expected = format!("weights in {} itself", folder.display());
            return Err(unusable(onnx, "weights beside configurations".to_owned(), expected));
        }
    }
    let places = [folder.to_path_buf()].into_iter().chain(CONFIGURATIONS.map(|n| folder.join(n)));
    for place in places.filter(|place| place.is_dir()) {
        for json in files(&place, "json")? {
            let onnx = folder.join(format!("{}.onnx", stem(&json)));
            if onnx.is_file() {
                continue;
            }
            // Beside models there may be other JSON.
            if place != folder || read_json(&json)?.contains("\"patch_size\"") {
                let expected = format!("its weights, {}", onnx.display());
                return Err(unusable(&json, "a configuration alone".to_owned(), expected));
            }
        }
    }
    Ok(())
}

fn bad_modes(path: &Path, message: String) -> crate::Error {
    unusable(path, message, "modes as in config/modes.json".to_owned())
}

impl Model {
    /// The model of `folder` whose network is `onnx`, with the one JSON that belongs to it.
    fn listed_in(folder: &Path, onnx: &Path) -> Result<Self> {
        let json = format!("{}.json", stem(onnx));
        let flat = (folder.join(&json), None);
        let below = CONFIGURATIONS.map(|name| (folder.join(name).join(&json), Some(name)));
        let found: Vec<(PathBuf, Option<&'static str>)> =
            std::iter::once(flat).chain(below).filter(|(path, _)| path.is_file()).collect();
        match &found[..] {
            [(path, configuration)] => Self::listed(onnx, path, *configuration),
            [] => Err(unusable(
                onnx,
                "no configuration".to_owned(),
                format!("{json} beside it or in one of {}", CONFIGURATIONS.join(", ")),
            )),
            [(first, _), (second, _), ..] => Err(unusable(
                onnx,
                format!("configurations {} and {}", first.display(), second.display()),
                "one".to_owned(),
            )),
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of one kind in a folder, sorted by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| {
        unusable(folder, e.to_string(), "a folder of models that can be listed".to_owned())
    };
    let mut found = Vec::new();
    for item in fs::read_dir(folder).map_err(fail)? {
        let path = item.map_err(fail)?.path();
        // What macOS leaves beside a file on a memory stick is called like it, behind a dot.
        let is_hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !is_hidden
            && path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
            && path.is_file()
        {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(unusable(
                folder,
                format!("more than {MAX_FILES} .{extension} files"),
                "a folder of models".to_owned(),
            ));
        }
    }
    found.sort();
    Ok(found)
}
