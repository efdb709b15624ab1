//! One file: where its data set starts and how it is encoded, said by its meta header or, where
//! that is missing or wrong, seen from its first bytes.

use super::dataset::DataSet;
use super::parse::{self, Parsed, ReadSeek};
use super::syntax::{self, Syntax};
use crate::limits::Limits;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use fastnnunet_model::Mismatch;
use std::io::{Cursor, Read, Seek, SeekFrom};

/// A file's headers, and the bytes its pixels lie in if those are not the file's own.
pub(crate) struct Opened {
    pub(crate) meta: DataSet,
    pub(crate) parsed: Parsed,
    pub(crate) syntax: Syntax,
    /// The inflated data set of a deflated file: positions of pixels count from its start.
    pub(crate) inflated: Option<Vec<u8>>,
    /// What had to be guessed.
    pub(crate) note: Option<&'static str>,
}

/// How much a file may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileLimits {
    pub(crate) max_elements: usize,
    pub(crate) max_bytes: u64,
}

impl FileLimits {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { max_elements: limits.max_elements, max_bytes: limits.max_file_bytes }
    }
}

/// Reads the headers of a file of `len` bytes; `None` if it is not DICOM at all.
pub(crate) fn open(
    source: &mut dyn ReadSeek,
    len: u64,
    limits: FileLimits,
) -> Result<Option<Opened>, Mismatch> {
    let mut head = Vec::with_capacity(140);
    (&mut *source)
        .take(140)
        .read_to_end(&mut head)
        .map_err(|e| Mismatch::new(format!("a read error ({})", e.kind()), "a readable file"))?;
    let Some(start) = start_of(&head) else { return Ok(None) };

    let explicit = Syntax::find(syntax::EXPLICIT_LE).expect("the registry has it").headers();
    let begins_with_meta = head.get(start..start + 2).is_some_and(|group| group == [2, 0]);
    let (meta, data_start) = if begins_with_meta {
        parse::parse_meta(source, (start as u64, len), explicit)?
    } else {
        (DataSet::default(), start as u64)
    };
    let named = meta.text(tags::TRANSFER_SYNTAX_UID);
    let declared = named.as_deref().and_then(Syntax::find);

    let mut first = Vec::new();
    // Not `read`, which a signal may interrupt and which may stop short.
    source
        .seek(SeekFrom::Start(data_start))
        .and_then(|_| (&mut *source).take(8).read_to_end(&mut first))
        .map_err(|e| Mismatch::new(format!("a read error ({})", e.kind()), "a readable file"))?;
    let seen = <[u8; 8]>::try_from(first).ok().and_then(encoding_of);
    let (syntax, note) = match (declared, seen) {
        // Deflated bytes look like anything.
        (Some(declared), _) if declared.deflated => (declared, None),
        (Some(declared), Some(seen)) if declared.headers().uid() != seen => {
            let found = Syntax::find(seen).expect("one of the three basic syntaxes");
            let native = matches!(declared.coding, Some(syntax::Coding::Native { .. }));
            let coding = if native { found.coding } else { declared.coding };
            (Syntax { coding, uid: found.uid, ..declared }, Some(WRONG_SYNTAX))
        }
        (Some(declared), _) => (declared, None),
        // Its headers can be read, and what series it is of.
        (None, Some(seen)) if named.is_some() => {
            let found = Syntax::find(seen).expect("one of the three basic syntaxes");
            (Syntax { coding: None, name: "no transfer syntax of DICOM", ..found }, None)
        }
        (None, Some(seen)) => {
            let note = if begins_with_meta { NO_SYNTAX } else { NO_META };
            (Syntax::find(seen).expect("one of the three basic syntaxes"), Some(note))
        }
        (None, None) if begins_with_meta => {
            return Err(Mismatch::new("a meta header and nothing after it", "a data set"));
        }
        (None, None) => return Ok(None),
    };

    if syntax.deflated {
        let bytes = inflate(source, data_start, limits.max_bytes)?;
        let len = bytes.len() as u64;
        let mut cursor = Cursor::new(&bytes[..]);
        let parsed = parse::parse(&mut cursor, (0, len), explicit, limits.max_elements)?;
        return Ok(Some(Opened { meta, parsed, syntax, inflated: Some(bytes), note }));
    }
    let parsed = parse::parse(source, (data_start, len), syntax.headers(), limits.max_elements)?;
    Ok(Some(Opened { meta, parsed, syntax, inflated: None, note }))
}

/// The meta header of a file that has preamble and header; nothing of any other.
pub(crate) fn meta_of_object(source: &mut (impl Read + Seek)) -> DataSet {
    const PREAMBLE: u64 = 132;
    let explicit = Syntax::find(syntax::EXPLICIT_LE).expect("the registry has it").headers();
    let Ok(len) = source.seek(SeekFrom::End(0)) else { return DataSet::default() };
    let meta = parse::parse_meta(source, (PREAMBLE.min(len), len), explicit);
    meta.map(|(meta, _)| meta).unwrap_or_default()
}

pub(crate) const NO_META: &str = "no meta header: encoding seen from the data";
const NO_SYNTAX: &str = "no transfer syntax in the meta header: encoding seen from the data";
const WRONG_SYNTAX: &str = "transfer syntax of the meta header is not the data's";

/// Where elements start: after the preamble, after the magic alone, or at once.
fn start_of(head: &[u8]) -> Option<usize> {
    if head.get(128..132) == Some(b"DICM") {
        return Some(132);
    }
    if head.starts_with(b"DICM") {
        return Some(4);
    }
    // A data set by itself starts with the meta group or the one that names the object.
    let first = *head.first_chunk::<8>()?;
    let little = u16::from_le_bytes([first[0], first[1]]);
    let big = u16::from_be_bytes([first[0], first[1]]);
    ((little == 2 || little == 8 || big == 8) && encoding_of(first).is_some()).then_some(0)
}

/// The basic syntax that the first element of a data set is encoded in, if it looks like one.
fn encoding_of(first: [u8; 8]) -> Option<&'static str> {
    let little = u16::from_le_bytes([first[0], first[1]]);
    let explicit = VR::from_binary([first[4], first[5]]).is_some();
    // Groups of a data set's first element: identification (8), seldom another low one.
    let plausible = |group: u16| (2..=0x20).contains(&group);
    if explicit {
        let big = u16::from_be_bytes([first[0], first[1]]);
        return match (plausible(little), plausible(big)) {
            (true, _) => Some(syntax::EXPLICIT_LE),
            (_, true) => Some(syntax::EXPLICIT_BE),
            _ => None,
        };
    }
    let len = u32::from_le_bytes([first[4], first[5], first[6], first[7]]);
    (plausible(little) && len < 1 << 20).then_some(syntax::IMPLICIT_LE)
}

fn inflate(source: &mut dyn ReadSeek, start: u64, max_bytes: u64) -> Result<Vec<u8>, Mismatch> {
    let damaged = |_| Mismatch::new("a deflated data set that is damaged", "a whole one");
    source.seek(SeekFrom::Start(start)).map_err(damaged)?;
    let mut bytes = Vec::new();
    let inflated = flate2::read::DeflateDecoder::new(source)
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes);
    inflated.map_err(damaged)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Mismatch::new(
            "a deflated data set beyond the limit",
            format!("{max_bytes} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(bytes: &[u8]) -> Result<Option<Opened>, Mismatch> {
        let limits = FileLimits { max_elements: 100, max_bytes: 1000 };
        open(&mut Cursor::new(bytes), bytes.len() as u64, limits)
    }

    #[test]
    fn a_data_set_alone_is_recognized_in_three_encodings() {
        let cases: [(&str, &[u8], &str); 3] = [
            ("implicit", b"\x08\0\x60\0\x02\0\0\0CT", syntax::IMPLICIT_LE),
            ("explicit", b"\x08\0\x60\0CS\x02\0CT", syntax::EXPLICIT_LE),
            ("big endian", b"\0\x08\0\x60CS\0\x02CT", syntax::EXPLICIT_BE),
        ];
        for (case, bytes, uid) in cases {
            let file = opened(bytes).expect(case).expect(case);
            assert_eq!(file.syntax.uid, uid, "{case}");
            assert_eq!(file.parsed.set.text(tags::MODALITY).as_deref(), Some("CT"), "{case}");
            assert_eq!(file.note, Some(NO_META), "{case}");
        }
    }

    #[test]
    fn other_files_are_not_dicom() {
        let files: [&[u8]; 5] =
            [b"", b"\x08", b"%PDF-1.4 and so on", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0"];
        for bytes in files {
            assert!(opened(bytes).expect("no fault").is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn damage_is_a_fault_and_never_more_memory_than_the_file() {
        let explicit = |rest: &[u8]| [b"\x08\0\x05\0CS\x02\0AB", rest].concat();
        let nested = [b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
            .as_slice(); 40]
            .concat();
        let cases = [
            ("longer than the file", explicit(b"\x10\0\x10\0UN\0\0\xf0\xff\xff\xff")),
            ("no sequence end", explicit(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0")),
            ("nested too deep", explicit(&nested)),
            ("an item after a stray delimiter", explicit(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\0\xe0\0\0\0\0")),
        ];
        for (case, bytes) in cases {
            let file = opened(&bytes).expect(case).expect(case);
            assert!(file.parsed.fault.is_some(), "{case}");
        }
    }
}
