//! A safetensors file: a JSON header, and the numbers of one tensor after the other.

use super::WHAT;
use super::tensor::{Element, Place, Stored};
use crate::files::{Allowance, Steady};
use crate::{Mismatch, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::HashMap;
use std::io::{self, Read};

/// Longest header read; a network has some hundred tensors.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Memory that a byte of the header becomes at most: an extent is two bytes in it, and a number of eight
/// in three lists that grow.
const BYTES_PER_BYTE: u64 = 32;

/// What the file says before its numbers.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: HashMap<String, Stored>,
    /// `__metadata__`.
    pub(super) notes: HashMap<String, String>,
}

/// Reads the header of a file of `bytes` bytes, where each tensor's numbers are, and what both take.
pub(super) fn read(
    file: &mut Steady,
    bytes: u64,
    allowed: Allowance,
) -> Result<(Header, HashMap<String, Place>, u64)> {
    let bad = |what: &dyn std::fmt::Display| {
        Mismatch::new(format!("a broken safetensors file ({what})"), "a whole one")
    };
    let failed = |error: io::Error| bad(&error);
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(bytes.saturating_sub(8)) {
        return Err(bad(&format!("a header of {length} bytes")).into());
    }
    let held = BYTES_PER_BYTE * length;
    allowed.check(WHAT, held)?;
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json).map_err(failed)?;
    let header: Metadata = serde_json::from_slice(&json).map_err(|error| bad(&error))?;
    let start = 8 + length;
    let end = start + header.data_len() as u64;
    if end != bytes {
        return Err(bad(&format!("{bytes} bytes where its header tells of {end}")).into());
    }
    let (mut tensors, mut places) = (HashMap::new(), HashMap::new());
    for (name, info) in header.tensors() {
        let element = match info.dtype {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => Element::Other(u64::try_from(other.bitsize().div_ceil(8)).unwrap_or(8).max(1)),
        };
        let bytes = start + info.data_offsets.0 as u64..start + info.data_offsets.1 as u64;
        let place = Place { bytes, crc: None };
        let shape: Vec<u64> = info.shape.iter().map(|&n| n as u64).collect();
        let held = place.len() / element.bytes();
        let stored = Stored::new(&name, held, element, 0, &shape, packed(&shape));
        tensors.insert(name.clone(), stored.map_err(|wrong| wrong.within(&name))?);
        places.insert(name, place);
    }
    let notes = header.metadata().iter().flatten();
    let notes = notes.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((Header { tensors, notes }, places, held))
}

/// Strides of a tensor stored in order.
fn packed(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for k in (1..shape.len()).rev() {
        strides[k - 1] = shape[k].saturating_mul(strides[k]);
    }
    strides
}
