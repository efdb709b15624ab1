//! The zip archive that `torch.save` writes: a pickle, and one uncompressed entry per storage.

use super::WANTED;
use super::tensor::Place;
use crate::Mismatch;
use crate::nnunet::pickle::Pickle;
use flate2::Crc;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Longest archive directory looked through; a checkpoint has some thousand entries.
const MAX_ENTRIES: usize = 1 << 20;

/// The pickle, and where the bytes of each storage are in the file.
pub(super) type Directory = (Pickle, HashMap<String, Place>);

/// Reads the archive's directory and its pickle.
pub(super) fn read(file: &mut File) -> Result<Directory, Mismatch> {
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
        // Who wrote the file may have left the checksum out.
        let crc = Some(entry.crc32()).filter(|&crc| crc != 0);
        let place = match (start, end) {
            (Some(start), Some(end)) if end <= size => Place { bytes: start..end, crc },
            _ => return Err(bad(&format!("entry {name:?} beyond the end of the file"))),
        };
        if !stored {
            return Err(Mismatch::new(
                format!("a compressed entry {name:?}"),
                "the archive as torch.save writes it",
            ));
        }
        if short == "data.pkl" {
            pickle = Some(place);
        } else if short == "byteorder" {
            entries.insert("byteorder".to_owned(), place);
        } else if let Some(key) = short.strip_prefix("data/") {
            entries.insert(format!("data/{key}"), place);
        }
    }
    drop(archive);
    let content = |file: &mut File, name: &str, place: &Place| {
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
        return Err(Mismatch::new("a big-endian checkpoint", "a little-endian one"));
    }
    let place =
        pickle.ok_or_else(|| Mismatch::new("a zip archive without data.pkl", "a checkpoint"))?;
    let pickle = Pickle::parse_only(content(file, "data.pkl", &place)?, WANTED)?;
    let storages = entries
        .into_iter()
        .filter_map(|(name, place)| Some((name.strip_prefix("data/")?.to_owned(), place)))
        .collect();
    Ok((pickle, storages))
}
