//! The zip archive that `torch.save` writes: a pickle, and one uncompressed entry per storage.

use super::tensor::Place;
use super::{PLACE_BYTES, WANTED, WHAT};
use crate::files::{Allowance, Steady};
use crate::nnunet::pickle::Pickle;
use crate::{Error, Mismatch, Result};
use flate2::Crc;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Longest archive directory looked through; a checkpoint has some thousand entries.
const MAX_ENTRIES: usize = 1 << 20;

/// Memory that a byte of the directory becomes at most: an entry is 46 bytes and a name in the file, and
/// 600 as the crate keeps it. Measured with a million entries: 10 to 13.
const BYTES_PER_BYTE: u64 = 16;

/// The pickle, where the bytes of each storage are in the file, and what both take.
pub(super) type Directory = (Pickle, HashMap<String, Place>, u64);

/// A file whose bytes become structures of a size nobody tells beforehand, as long as there is memory for
/// them.
struct Metered<'a> {
    file: &'a mut Steady,
    allowed: Allowance,
    is_on: &'a Cell<bool>,
    counted: u64,
    refused: Option<Error>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if self.is_on.get() {
            self.counted += BYTES_PER_BYTE * count as u64;
            if let Err(error) = self.allowed.check(WHAT, self.counted) {
                self.refused = Some(error);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(count)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn bad(error: &dyn std::fmt::Display) -> Mismatch {
    Mismatch::new(format!("a broken zip archive ({error})"), "a whole checkpoint")
}

/// Reads the archive's directory and its pickle.
pub(super) fn read(file: &mut Steady, allowed: Allowance) -> Result<Directory> {
    let is_on = Cell::new(true);
    let mut metered =
        Metered { file: &mut *file, allowed, is_on: &is_on, counted: 0, refused: None };
    let listed = list(&mut metered, &is_on);
    if let Some(refused) = metered.refused {
        return Err(refused);
    }
    let Listed { mut entries, pickle, bytes: held } = listed?;
    let allowed = allowed.beside(held);
    let content = |file: &mut Steady, name: &str, place: &Place| -> Result<Vec<u8>> {
        allowed.check(WHAT, place.len())?;
        // Inside the file, so no larger than it.
        let mut bytes = vec![0; place.len() as usize];
        let read = file.seek(SeekFrom::Start(place.bytes.start));
        read.and_then(|_| file.read_exact(&mut bytes)).map_err(|e| bad(&e))?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        place.check(&crc).map_err(|wrong| wrong.within(name))?;
        Ok(bytes)
    };
    if let Some(place) = entries.remove("byteorder")
        && place.len() < 16
        && content(file, "byteorder", &place)? != b"little"
    {
        return Err(Mismatch::new("a big-endian checkpoint", "a little-endian one").into());
    }
    let place =
        pickle.ok_or_else(|| Mismatch::new("a zip archive without data.pkl", "a checkpoint"))?;
    let pickle = Pickle::parse_only(content(file, "data.pkl", &place)?, WANTED, allowed)?;
    let storages = entries
        .into_iter()
        .filter_map(|(name, place)| Some((name.strip_prefix("data/")?.to_owned(), place)))
        .collect();
    let held = held + pickle.held_bytes();
    Ok((pickle, storages, held))
}

/// What an archive's directory says.
struct Listed {
    entries: HashMap<String, Place>,
    pickle: Option<Place>,
    bytes: u64,
}

fn list(file: &mut Metered<'_>, is_on: &Cell<bool>) -> Result<Listed> {
    let allowed = file.allowed;
    let size = file.seek(SeekFrom::End(0)).map_err(|e| bad(&e))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(&e))?;
    is_on.set(false);
    if archive.len() > MAX_ENTRIES {
        return Err(bad(&format!("{} entries", archive.len())).into());
    }
    let (mut entries, mut pickle, mut bytes) = (HashMap::new(), None, 0);
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
        // Who wrote the file may have left the checksum out.
        let crc = Some(entry.crc32()).filter(|&crc| crc != 0);
        let place = match (start, end) {
            (Some(start), Some(end)) if end <= size => Place { bytes: start..end, crc },
            _ => return Err(bad(&format!("entry {name:?} beyond the end of the file")).into()),
        };
        if !stored {
            let found = format!("a compressed entry {name:?}");
            return Err(Mismatch::new(found, "the archive as torch.save writes it").into());
        }
        bytes += PLACE_BYTES + short.len() as u64;
        allowed.check(WHAT, bytes)?;
        if short == "data.pkl" {
            pickle = Some(place);
        } else if short == "byteorder" {
            entries.insert("byteorder".to_owned(), place);
        } else if let Some(key) = short.strip_prefix("data/") {
            entries.insert(format!("data/{key}"), place);
        }
    }
    Ok(Listed { entries, pickle, bytes })
}
