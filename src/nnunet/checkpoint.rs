//! A PyTorch checkpoint: what it says about the training, and its tensors.
//!
//! The file is a zip archive with a pickle and one uncompressed entry per storage. Opening
//! reads the directory and the pickle only; of the storages, just the bytes of a tensor that is
//! asked for are read. Optimizer state is never touched.

use super::pickle::{Id, Pickle};
use crate::Mismatch;
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// An open checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    file: File,
    pickle: Pickle,
    /// Storages by name: where their bytes are in the file.
    storages: HashMap<String, Range<u64>>,
}

/// Type of a storage's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
    /// Integers of that many bytes; counted, never read.
    Other(u64),
}

impl Element {
    fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "DoubleStorage" => Self::F64,
            "LongStorage" => Self::Other(8),
            "IntStorage" => Self::Other(4),
            "ShortStorage" => Self::Other(2),
            "ByteStorage" | "CharStorage" | "BoolStorage" => Self::Other(1),
            _ => return None,
        })
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(n) => n,
        }
    }

    /// `raw` as little-endian 32-bit floats.
    fn widen(self, raw: Vec<u8>) -> Option<Vec<u8>> {
        let each = |wide: Vec<f32>| wide.into_iter().flat_map(f32::to_le_bytes).collect();
        Some(match self {
            Self::F32 => raw,
            Self::F16 => each(
                raw.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&b| half::f16::from_le_bytes(b).to_f32())
                    .collect(),
            ),
            Self::Bf16 => each(
                raw.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&b| half::bf16::from_le_bytes(b).to_f32())
                    .collect(),
            ),
            Self::F64 => {
                each(raw.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect())
            }
            Self::Other(_) => return None,
        })
    }
}

/// A tensor that has not been read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Extent per axis.
    pub(super) shape: Vec<usize>,
    strides: Vec<u64>,
    offset: u64,
    element: Element,
    storage: String,
}

/// Longest archive directory looked through; a checkpoint has some thousand entries.
const MAX_ENTRIES: usize = 1 << 20;

impl Checkpoint {
    /// Reads the archive's directory and its pickle.
    pub(super) fn open(path: &Path) -> Result<Self, Mismatch> {
        let failed = |error: io::Error| Mismatch::new(error.to_string(), "a readable checkpoint");
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic).map_err(failed)?;
        if !magic[..read].starts_with(b"PK") {
            // The old format starts with a pickle of protocol 2.
            let found = if magic[..read].starts_with(&[0x80, 2]) {
                "a checkpoint in the format PyTorch wrote before version 1.6"
            } else {
                "a file that is no zip archive"
            };
            return Err(Mismatch::new(found, "a checkpoint of PyTorch 1.6 or later (torch.save)"));
        }
        let (pickle, storages) = Self::directory(&mut file)?;
        Ok(Self { file, pickle, storages })
    }

    #[allow(clippy::type_complexity, reason = "used once, just above")]
    fn directory(file: &mut File) -> Result<(Pickle, HashMap<String, Range<u64>>), Mismatch> {
        let bad = |error: &dyn std::fmt::Display| {
            Mismatch::new(format!("a broken zip archive ({error})"), "a whole checkpoint")
        };
        let size = file.seek(SeekFrom::End(0)).map_err(|e| bad(&e))?;
        let mut archive = zip::ZipArchive::new(BufReader::new(&mut *file)).map_err(|e| bad(&e))?;
        if archive.len() > MAX_ENTRIES {
            return Err(bad(&format!("{} entries", archive.len())));
        }
        let (mut entries, mut pickle) = (HashMap::new(), None);
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|e| bad(&e))?;
            let name = entry.name().map_err(|e| bad(&e))?.into_owned();
            // The name of the folder inside is the file's first name; it says nothing.
            let short = name.split_once('/').map_or(name.as_str(), |(_, short)| short).to_owned();
            let stored = entry.compression() == zip::CompressionMethod::Stored
                && !entry.encrypted()
                && entry.size() == entry.compressed_size();
            let start = entry.data_start();
            let end = start.and_then(|start| start.checked_add(entry.size()));
            let range = match (start, end) {
                (Some(start), Some(end)) if end <= size => start..end,
                _ => return Err(bad(&format!("entry {name:?} beyond the end of the file"))),
            };
            if !stored {
                return Err(Mismatch::new(
                    format!("a compressed entry {name:?}"),
                    "the archive as torch.save writes it",
                ));
            }
            if short == "data.pkl" {
                pickle = Some(range);
            } else if short == "byteorder" {
                entries.insert("byteorder".to_owned(), range);
            } else if let Some(key) = short.strip_prefix("data/") {
                entries.insert(format!("data/{key}"), range);
            }
        }
        drop(archive);
        let read = |file: &mut File, range: &Range<u64>| {
            // Inside the file, so no larger than it.
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.seek(SeekFrom::Start(range.start))?;
            file.read_exact(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        if let Some(range) = entries.remove("byteorder")
            && range.end - range.start < 16
            && read(file, &range).map_err(|e| bad(&e))? != b"little"
        {
            return Err(Mismatch::new("a big-endian checkpoint", "a little-endian one"));
        }
        let range = pickle
            .ok_or_else(|| Mismatch::new("a zip archive without data.pkl", "a checkpoint"))?;
        let pickle = Pickle::parse(read(file, &range).map_err(|e| bad(&e))?)?;
        let storages = entries
            .into_iter()
            .filter_map(|(name, range)| Some((name.strip_prefix("data/")?.to_owned(), range)))
            .collect();
        Ok((pickle, storages))
    }

    /// The pickled dictionary.
    pub(super) fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// Value of a key of the pickled dictionary.
    pub(super) fn get(&self, key: &str) -> Option<Id> {
        self.pickle.lookup(self.pickle.root(), key)
    }

    /// All tensors of `network_weights`, by name.
    pub(super) fn weights(&self) -> Result<HashMap<String, Stored>, Mismatch> {
        let weights = self
            .get("network_weights")
            .ok_or_else(|| Mismatch::new("no network_weights", "a checkpoint nnU-Net wrote"))?;
        let entries = self.pickle.entries(weights).ok_or_else(|| {
            Mismatch::new(
                format!("network_weights that is {}", self.pickle.describe(weights)),
                "a dictionary of tensors",
            )
        })?;
        let mut tensors = HashMap::with_capacity(entries.len());
        for &(key, value) in entries {
            let name = self.pickle.text(key).ok_or_else(|| {
                Mismatch::new(format!("a key that is {}", self.pickle.describe(key)), "a text")
            })?;
            let tensor = self.tensor(value).map_err(|wrong| wrong.within(name))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(tensors)
    }

    /// What a value says about a tensor.
    fn tensor(&self, mut id: Id) -> Result<Stored, Mismatch> {
        let pickle = &self.pickle;
        let no_tensor = |id: Id| {
            Mismatch::new(pickle.describe(id), "a tensor (torch._utils._rebuild_tensor_v2)")
        };
        // A parameter wraps a tensor; a few of them wrap each other at most.
        for _ in 0..4 {
            let Some((callee, arguments)) = pickle.call(id) else { break };
            match (callee, arguments) {
                (("torch._utils", "_rebuild_parameter"), [data, ..]) => id = *data,
                (("torch._utils", "_rebuild_tensor_v2"), [storage, offset, shape, strides, ..]) => {
                    return self
                        .layout(*storage, *offset, *shape, *strides)
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
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    ) -> Option<Result<Stored, Mismatch>> {
        let pickle = &self.pickle;
        let super::pickle::Value::Persistent(storage) = pickle.value(storage) else { return None };
        // ("storage", class, key, device, count)
        let &[_, class, key, ..] = pickle.items(*storage)? else { return None };
        let (_, class) = pickle.names(class)?;
        let element = Element::of_storage(class);
        let storage = pickle.text(key)?;
        let offset = u64::try_from(pickle.int(offset)?).ok()?;
        let count = |id: &Id| u64::try_from(pickle.int(*id)?).ok();
        let shape: Vec<u64> = pickle.items(shape)?.iter().map(count).collect::<Option<_>>()?;
        let strides: Vec<u64> = pickle.items(strides)?.iter().map(count).collect::<Option<_>>()?;
        if shape.len() != strides.len() {
            return None;
        }
        Some(self.stored(storage, class, element, offset, &shape, strides))
    }

    fn stored(
        &self,
        storage: &str,
        class: &str,
        element: Option<Element>,
        offset: u64,
        shape: &[u64],
        strides: Vec<u64>,
    ) -> Result<Stored, Mismatch> {
        let element = element.ok_or_else(|| {
            Mismatch::new(format!("numbers of type {class}"), "f32, f16, bf16, f64 or integers")
        })?;
        let range = self.storages.get(storage).ok_or_else(|| {
            Mismatch::new(format!("no entry data/{storage}"), "one for each storage")
        })?;
        let held = (range.end - range.start) / element.bytes();
        let fits = || {
            let count = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d))?;
            let mut last = offset;
            for (&extent, &stride) in shape.iter().zip(&strides) {
                last = last.checked_add(extent.saturating_sub(1).checked_mul(stride)?)?;
            }
            // A tensor larger than its storage repeats values, which no weights do.
            (count == 0 || (last < held && count <= held)).then_some(())
        };
        fits().ok_or_else(|| {
            Mismatch::new(
                format!("shape {shape:?} with strides {strides:?}"),
                format!("a tensor inside its {held} numbers"),
            )
        })?;
        Ok(Stored {
            shape: shape.iter().map(|&n| n as usize).collect(),
            strides,
            offset,
            element,
            storage: storage.to_owned(),
        })
    }

    /// Reads a tensor as little-endian 32-bit floats, last axis fastest.
    pub(super) fn read(&mut self, tensor: &Stored) -> Result<Bytes, Mismatch> {
        let Stored { shape, strides, offset, element, storage } = tensor;
        let failed = |error: io::Error| Mismatch::new(error.to_string(), "a readable checkpoint");
        let range = self.storages.get(storage).ok_or_else(|| Mismatch::new("no storage", "one"))?;
        if shape.contains(&0) {
            return Ok(Bytes::new());
        }
        // Checked when the tensor was found: the span lies in the storage.
        let span: u64 =
            1 + shape.iter().zip(strides).map(|(&n, &s)| (n as u64 - 1) * s).sum::<u64>();
        let mut raw = vec![0; (span * element.bytes()) as usize];
        self.file.seek(SeekFrom::Start(range.start + offset * element.bytes())).map_err(failed)?;
        self.file.read_exact(&mut raw).map_err(failed)?;
        let mut packed = 1;
        let contiguous = shape.iter().zip(strides).rev().all(|(&n, &stride)| {
            let good = n == 1 || stride == packed;
            packed *= n as u64;
            good
        });
        let raw = if contiguous { raw } else { gather(&raw, shape, strides, element.bytes()) };
        let wide = element
            .widen(raw)
            .ok_or_else(|| Mismatch::new("integers", "real numbers (f32, f16, bf16 or f64)"))?;
        Ok(wide.into())
    }
}

/// Elements of a strided tensor in order.
fn gather(raw: &[u8], shape: &[usize], strides: &[u64], width: u64) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut dense = Vec::with_capacity(count * width as usize);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at: u64 = index.iter().zip(strides).map(|(&i, &s)| i as u64 * s).sum();
        dense.extend_from_slice(&raw[(at * width) as usize..][..width as usize]);
        for k in (0..shape.len()).rev() {
            index[k] += 1;
            if index[k] < shape[k] {
                break;
            }
            index[k] = 0;
        }
    }
    dense
}
