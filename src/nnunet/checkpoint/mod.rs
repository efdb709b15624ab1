//! A checkpoint: what it says about the training, and its tensors.
//!
//! Opening reads the directory of the file and, of its pickle, what inference needs: no value is made
//! of optimizer state and training log. Of the storages, just the bytes of a tensor that is asked
//! for are read.

mod archive;
mod safetensors;
mod tensor;

pub(super) use tensor::{Storages, Stored};

use super::pickle::{Id, Pickle, Value};
use crate::files::{Allowance, Steady};
use crate::{Mismatch, Result, files};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tensor::{Element, Place};

/// The keys of a checkpoint's dictionary that are read.
const WANTED: &[&str] = &[
    "network_weights",
    "state_dict",
    "init_args",
    "trainer_name",
    "inference_allowed_mirroring_axes",
];

/// What memory is for, where there is too little.
const WHAT: &str = "opening the checkpoint";

/// What a storage's name and place take at most.
const PLACE_BYTES: u64 = 256;

/// What a tensor's name, place and extents take at most, once in a list and once in one that grows.
const TENSOR_BYTES: u64 = 1024;

/// Most axes of a tensor; those of a network have five.
const MAX_AXES: usize = 8;

/// What a checkpoint says, and where its numbers are.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    content: Content,
    places: HashMap<String, Place>,
    held_bytes: u64,
}

/// What describes the tensors.
#[derive(Debug)]
enum Content {
    Pickle(Pickle),
    Safetensors(safetensors::Header),
}

impl Checkpoint {
    /// Reads the directory of the file, and what is said about the training, as far as memory is
    /// `allowed` for it.
    pub(super) fn open(path: &Path, allowed: Allowance) -> Result<Self> {
        let (mut file, bytes) = open(path)?;
        let failed = |error: std::io::Error| Mismatch::new(error.to_string(), EXPECTED);
        let mut magic = Vec::new();
        // Not `read`, which a signal may interrupt and which may stop short.
        (&mut file).take(10).read_to_end(&mut magic).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        if magic.starts_with(b"PK") {
            let (pickle, places, held_bytes) = archive::read(&mut file, allowed)?;
            let content = Content::Pickle(pickle);
            return Ok(Self { path: path.to_owned(), content, places, held_bytes });
        }
        // A length of eight bytes, then JSON.
        if magic.get(8) == Some(&b'{') {
            let (header, places, held_bytes) = safetensors::read(&mut file, bytes, allowed)?;
            let content = Content::Safetensors(header);
            return Ok(Self { path: path.to_owned(), content, places, held_bytes });
        }
        // The old format starts with a pickle of protocol 2.
        let found = if magic.starts_with(&[0x80, 2]) {
            "a checkpoint in the format PyTorch wrote before version 1.6"
        } else {
            "a file that is no zip archive"
        };
        Err(Mismatch::new(found, "a checkpoint of PyTorch 1.6 or later (torch.save)").into())
    }

    /// Bytes that it takes, as they were counted when it was opened.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The pickled dictionary, where there is one.
    pub(super) fn pickle(&self) -> Option<&Pickle> {
        match &self.content {
            Content::Pickle(pickle) => Some(pickle),
            Content::Safetensors(_) => None,
        }
    }

    /// A text that a file without a pickle says about the training.
    pub(super) fn note(&self, key: &str) -> Option<&str> {
        match &self.content {
            Content::Pickle(_) => None,
            Content::Safetensors(header) => header.notes.get(key).map(String::as_str),
        }
    }

    /// All tensors of the network, by name.
    pub(super) fn weights(&self, allowed: Allowance) -> Result<HashMap<String, Stored>> {
        match &self.content {
            Content::Pickle(pickle) => self.pickled(pickle, allowed),
            Content::Safetensors(header) => {
                // Their extents are no longer than what is there already.
                allowed.check(WHAT, self.held_bytes)?;
                Ok(header.tensors.clone())
            }
        }
    }

    fn pickled(&self, pickle: &Pickle, allowed: Allowance) -> Result<HashMap<String, Stored>> {
        let weights = pickle
            .lookup(pickle.root(), "network_weights")
            .or_else(|| pickle.lookup(pickle.root(), "state_dict"))
            .ok_or_else(|| Mismatch::new("no network_weights", "a checkpoint nnU-Net wrote"))?;
        let entries = pickle.entries(weights).ok_or_else(|| {
            Mismatch::new(
                format!("network_weights that is {}", pickle.describe(weights)),
                "a dictionary of tensors",
            )
        })?;
        let names = entries.iter().filter_map(|&(key, _)| pickle.text(key));
        let names: u64 = names.map(|name| 2 * name.len() as u64).sum();
        allowed.check(WHAT, (TENSOR_BYTES * entries.len() as u64).saturating_add(names))?;
        let mut tensors = HashMap::with_capacity(entries.len());
        for &(key, value) in entries {
            let name = pickle.text(key).ok_or_else(|| {
                Mismatch::new(format!("a key that is {}", pickle.describe(key)), "a text")
            })?;
            let tensor = self.tensor(pickle, value).map_err(|wrong| wrong.within(name))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(tensors)
    }

    /// What a value says about a tensor.
    fn tensor(&self, pickle: &Pickle, mut id: Id) -> Result<Stored, Mismatch> {
        let no_tensor = |id: Id| {
            Mismatch::new(pickle.describe(id), "a tensor (torch._utils._rebuild_tensor_v2)")
        };
        // A parameter wraps a tensor; a few of them wrap each other at most.
        for _ in 0..4 {
            let Some((callee, arguments)) = pickle.call(id) else { break };
            match (callee, arguments) {
                (("torch._utils", "_rebuild_parameter"), [data, ..]) => id = *data,
                (
                    ("torch._utils", "_rebuild_tensor_v2"),
                    [storage, offset, shape, strides, rest @ ..],
                ) => {
                    // Behind whether it needs gradients, and hooks: what else to do to its numbers.
                    let lazy = |view: &&&str| {
                        let known = rest.get(2).and_then(|&notes| pickle.lookup(notes, view));
                        known.is_some_and(|value| pickle.int(value) != Some(0))
                    };
                    if let Some(view) = ["neg", "conj"].iter().find(lazy) {
                        let found = format!("a view that PyTorch calls {view:?}");
                        return Err(Mismatch::new(found, "numbers as they are"));
                    }
                    return self
                        .layout(pickle, [*storage, *offset, *shape, *strides])
                        .ok_or_else(|| Mismatch::new("a tensor without a known layout", "one"))?;
                }
                _ => break,
            }
        }
        Err(no_tensor(id))
    }

    /// `None` where something is of the wrong kind.
    fn layout(
        &self,
        pickle: &Pickle,
        [storage, offset, shape, strides]: [Id; 4],
    ) -> Option<Result<Stored, Mismatch>> {
        let Value::Persistent(storage) = pickle.value(storage) else { return None };
        // ("storage", class, key, device, count)
        let &[_, class, key, ..] = pickle.items(*storage)? else { return None };
        let (_, class) = pickle.names(class)?;
        let element = Element::of_storage(class);
        let storage = pickle.text(key)?;
        let offset = u64::try_from(pickle.int(offset)?).ok()?;
        let count = |id: &Id| u64::try_from(pickle.int(*id)?).ok();
        let (shape, strides) = (pickle.items(shape)?, pickle.items(strides)?);
        if shape.len() != strides.len() || shape.len() > MAX_AXES {
            return None;
        }
        let shape: Vec<u64> = shape.iter().map(count).collect::<Option<_>>()?;
        let strides: Vec<u64> = strides.iter().map(count).collect::<Option<_>>()?;
        let stored = || {
            let element = element.ok_or_else(|| {
                Mismatch::new(format!("numbers of type {class}"), "f32, f16, bf16, f64 or integers")
            })?;
            let place = self.places.get(storage).ok_or_else(|| {
                Mismatch::new(format!("no entry data/{storage}"), "one for each storage")
            })?;
            let held = place.len() / element.bytes();
            Stored::new(storage, held, element, offset, &shape, strides)
        };
        Some(stored())
    }

    /// What reads `tensors`, each when it is asked for; what several of them share is read and held
    /// once.
    pub(super) fn storages<'a>(
        &self,
        tensors: impl Iterator<Item = &'a Stored>,
    ) -> Result<Storages, Mismatch> {
        let (file, _) = open(&self.path)?;
        Ok(Storages::new(file, self.places.clone(), tensors))
    }
}

/// What a checkpoint's file should have been.
const EXPECTED: &str = "a readable checkpoint";

/// The file, and its size.
fn open(path: &Path) -> Result<(Steady, u64), Mismatch> {
    let opened = files::open(path).map_err(|error| error.instead_of(EXPECTED))?;
    Ok((opened.file, opened.bytes))
}

#[cfg(test)]
mod tests;
