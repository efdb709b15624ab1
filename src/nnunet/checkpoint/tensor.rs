//! Tensors of a checkpoint before and after they are read.

use crate::Mismatch;
use crate::files::Steady;
use flate2::Crc;
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Type of a storage's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Element {
    F16,
    Bf16,
    F32,
    F64,
    /// Integers of that many bytes; counted, never read.
    Other(u64),
}

impl Element {
    pub(super) fn of_storage(name: &str) -> Option<Self> {
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

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(n) => n,
        }
    }

    /// `raw` as little-endian 32-bit floats.
    fn widen(self, raw: Vec<u8>) -> Option<Vec<u8>> {
        /// No list but the one that is asked for.
        fn each<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<u8> {
            let (stored, _) = raw.as_chunks::<N>();
            let mut wide = Vec::with_capacity(stored.len() * size_of::<f32>());
            for &bytes in stored {
                wide.extend(number(bytes).to_le_bytes());
            }
            wide
        }
        Some(match self {
            Self::F32 => raw,
            Self::F16 => each(&raw, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            Self::Bf16 => each(&raw, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            Self::F64 => each(&raw, |bytes| f64::from_le_bytes(bytes) as f32),
            Self::Other(_) => return None,
        })
    }
}

/// A tensor that has not been read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Stored {
    /// Extent per axis.
    pub(in super::super) shape: Vec<usize>,
    pub(super) strides: Vec<u64>,
    pub(super) offset: u64,
    pub(super) element: Element,
    pub(super) storage: String,
}

impl Stored {
    /// A tensor in a storage of `held` numbers.
    pub(super) fn new(
        storage: &str,
        held: u64,
        element: Element,
        offset: u64,
        shape: &[u64],
        strides: Vec<u64>,
    ) -> Result<Self, Mismatch> {
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
        Ok(Self {
            shape: shape.iter().map(|&n| n as usize).collect(),
            strides,
            offset,
            element,
            storage: storage.to_owned(),
        })
    }

    /// Numbers in the storage from the first to the last of the tensor: they lie inside it.
    fn span(&self) -> u64 {
        1 + self.shape.iter().zip(&self.strides).map(|(&n, &s)| (n as u64 - 1) * s).sum::<u64>()
    }

    fn is_contiguous(&self) -> bool {
        let mut packed = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let good = n == 1 || stride == packed;
            packed *= n as u64;
            good
        })
    }
}

/// Where the bytes of a storage are in the file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bytes: Range<u64>,
    /// CRC-32 of them, as long as it has not been compared; `None` also where the file has none.
    pub(super) crc: Option<u32>,
}

impl Place {
    pub(super) fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// Fails if `found` is not the CRC-32 that the file has of these bytes.
    pub(super) fn check(&self, found: &Crc) -> Result<(), Mismatch> {
        match self.crc {
            Some(stored) if stored != found.sum() => Err(Mismatch::new(
                format!("damaged bytes (CRC-32 {:08x})", found.sum()),
                format!("those that were written (CRC-32 {stored:08x})"),
            )),
            _ => Ok(()),
        }
    }
}

/// The numbers of a checkpoint's storages, which are read when a tensor asks for them.
#[derive(Debug)]
pub(in super::super) struct Storages {
    file: Steady,
    places: HashMap<String, Place>,
    /// What was read of a storage that is held for more tensors, as 32-bit floats.
    held: HashMap<String, Bytes>,
    /// Storages that several tensors use.
    shared: HashMap<String, usize>,
    /// Bytes that may still be copied for tensors that are not stored in order: those of a
    /// file's own numbers, and no more.
    copies_left: u64,
}

impl Storages {
    /// Those of which `tensors` will be read: what several of them share is read once.
    pub(super) fn new<'a>(
        file: Steady,
        places: HashMap<String, Place>,
        tensors: impl Iterator<Item = &'a Stored>,
    ) -> Self {
        let copies_left = places.values().map(Place::len).sum::<u64>();
        let copies_left = copies_left.saturating_mul(size_of::<f32>() as u64);
        let mut shared = HashMap::new();
        for tensor in tensors {
            *shared.entry(tensor.storage.clone()).or_default() += 1;
        }
        shared.retain(|_, users| *users > 1);
        Self { file, places, held: HashMap::new(), shared, copies_left }
    }

    /// Bytes that `tensors` take at most while they are read, and then become constants of a graph
    /// one after the other.
    pub(in super::super) fn bytes<'a>(&self, tensors: impl Iterator<Item = &'a Stored>) -> u64 {
        let width = size_of::<f32>() as u64;
        let (mut wholes, mut read, mut made) = (HashMap::new(), 0_u64, 0_u64);
        let (mut passing, mut largest) = (0_u64, 0_u64);
        for tensor in tensors.filter(|tensor| !tensor.shape.contains(&0)) {
            let dense = tensor.shape.iter().product::<usize>() as u64 * width;
            let own = tensor.element.bytes();
            let stored = if self.shared.contains_key(&tensor.storage) {
                let place = self.places.get(&tensor.storage).map_or(0, Place::len);
                wholes.insert(&tensor.storage, place / own * width);
                place / own
            } else {
                read = read.saturating_add(tensor.span() * width);
                tensor.span()
            };
            // Numbers of another type are there beside what they become.
            passing = passing.max(if own == width { 0 } else { stored.saturating_mul(own) });
            if !tensor.is_contiguous() {
                read = read.saturating_add(dense);
            }
            made = made.saturating_add(dense);
            largest = largest.max(dense);
        }
        let wholes = wholes.values().fold(0_u64, |all, &bytes| all.saturating_add(bytes));
        let held = wholes.saturating_add(read);
        // What tensors share goes with the last of them, their own numbers go one by one.
        let reading = held.saturating_add(passing);
        let making = made.saturating_add(wholes).saturating_add(largest);
        reading.max(making).max(held)
    }

    /// Reads a tensor as little-endian 32-bit floats, last axis fastest. Tensors that share a
    /// storage share its memory.
    pub(in super::super) fn read(&mut self, tensor: &Stored) -> Result<Bytes, Mismatch> {
        if tensor.shape.contains(&0) {
            return Ok(Bytes::new());
        }
        let width = size_of::<f32>();
        let span = tensor.span();
        let numbers = if self.shared.contains_key(&tensor.storage) {
            let whole = self.whole(tensor)?;
            let start = tensor.offset as usize * width;
            let part = start..start + span as usize * width;
            if part.end > whole.len() {
                return Err(Mismatch::new("numbers of two types in one storage", "one type"));
            }
            whole.slice(part)
        } else {
            self.numbers(tensor, tensor.offset, span)?
        };
        if tensor.is_contiguous() {
            return finite(numbers);
        }
        let bytes = (tensor.shape.iter().product::<usize>() * width) as u64;
        self.copies_left = self.copies_left.checked_sub(bytes).ok_or_else(|| {
            Mismatch::new("tensors that repeat each other's numbers", "each number once")
        })?;
        finite(gather(&numbers, &tensor.shape, &tensor.strides, width as u64).into())
    }

    /// All numbers of the storage that a tensor is in.
    fn whole(&mut self, tensor: &Stored) -> Result<Bytes, Mismatch> {
        if let Some(known) = self.held.get(&tensor.storage) {
            return Ok(known.clone());
        }
        let place = self.places.get(&tensor.storage);
        let place = place.ok_or_else(|| Mismatch::new("no storage", "one"))?;
        let count = place.len() / tensor.element.bytes();
        let numbers = self.numbers(tensor, 0, count)?;
        self.held.insert(tensor.storage.clone(), numbers.clone());
        Ok(numbers)
    }

    /// `count` numbers of a tensor's storage.
    fn numbers(&mut self, tensor: &Stored, first: u64, count: u64) -> Result<Bytes, Mismatch> {
        let failed = |error: io::Error| Mismatch::new(error.to_string(), "a readable checkpoint");
        let Stored { element, storage, .. } = tensor;
        let place = self.places.get_mut(storage);
        let place = place.ok_or_else(|| Mismatch::new("no storage", "one"))?;
        // Checked when the tensor was found: it lies in the storage, and that in the file.
        let mut raw = vec![0; (count * element.bytes()) as usize];
        let start = place.bytes.start + first * element.bytes();
        self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.file.read_exact(&mut raw).map_err(failed)?;
        if place.crc.is_some() {
            let mut crc = Crc::new();
            if raw.len() as u64 == place.len() {
                crc.update(&raw);
            } else {
                // A part of it: all of the storage has to be looked at, once.
                self.file.seek(SeekFrom::Start(place.bytes.start)).map_err(failed)?;
                let mut piece = vec![0; 1 << 16];
                let mut rest = (&mut self.file).take(place.len());
                loop {
                    match rest.read(&mut piece).map_err(failed)? {
                        0 => break,
                        count => crc.update(&piece[..count]),
                    }
                }
            }
            place.check(&crc)?;
            place.crc = None;
        }
        let wide = element
            .widen(raw)
            .ok_or_else(|| Mismatch::new("integers", "real numbers (f32, f16, bf16 or f64)"))?;
        Ok(wide.into())
    }
}

/// The 32-bit floats, if they are numbers: in others, a training that diverged shows.
fn finite(floats: Bytes) -> Result<Bytes, Mismatch> {
    let (each, _) = floats.as_chunks::<4>();
    if each.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite()) {
        return Ok(floats);
    }
    Err(Mismatch::new("weights that are not finite", "numbers"))
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
