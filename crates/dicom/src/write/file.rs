//! An object with its own identifiers made of what it holds.
//!
//! The data set is written with placeholders for the object's own identifiers and hashed as it
//! goes; the identifiers made of the digest are as long as their placeholders and are put in their
//! places at the end. So a large object is written once, and its identifiers are those of its
//! content.

use super::elements::Item;
use super::{Fresh, Out, Written};
use crate::uid;
use dicom_dictionary_std::uids;
use dicom_object::FileMetaTableBuilder;
use sha2::{Digest, Sha256};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

/// Transfer syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Explicit,
    /// For values of text beyond 64 KiB, which the lengths of explicit VR cannot say.
    Implicit,
}

impl Encoding {
    fn uid(self) -> &'static str {
        match self {
            Self::Explicit => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::Implicit => uids::IMPLICIT_VR_LITTLE_ENDIAN,
        }
    }
}

/// Which of the object's own identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Instance,
    Series,
    Dimensions,
    /// Others, by number.
    Other(u16),
}

/// No valid identifier begins like this: parts have no leading zero.
const PLACEHOLDER: &str = "2.25.0000000000000000000000000000000000";

impl Own {
    /// What stands in its place until the content is known.
    pub(super) fn placeholder(self) -> String {
        format!("{PLACEHOLDER}{:05}", self.number())
    }

    fn number(self) -> u32 {
        match self {
            Self::Instance => 0,
            Self::Series => 1,
            Self::Dimensions => 2,
            Self::Other(number) => 3 + u32::from(number),
        }
    }
}

/// An object on its way out.
pub(super) struct Sink<'a> {
    out: BufWriter<&'a mut dyn Out>,
    class_uid: &'a str,
    encoding: Encoding,
    hash: Sha256,
    at: u64,
    /// Where which identifier goes.
    places: Vec<(u64, u32)>,
}

impl<'a> Sink<'a> {
    /// Begins an object: preamble and meta header.
    pub(super) fn begin(
        out: &'a mut dyn Out,
        class_uid: &'a str,
        encoding: Encoding,
    ) -> io::Result<Self> {
        let version = format!("FASTNNUNET_{}", env!("CARGO_PKG_VERSION"));
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(class_uid)
            .media_storage_sop_instance_uid(Own::Instance.placeholder())
            .transfer_syntax(encoding.uid())
            .implementation_class_uid(uid::of(&[b"fastnnunet"]))
            .implementation_version_name(version.chars().take(16).collect::<String>())
            .build()
            .map_err(io::Error::other)?;
        let mut head = vec![0; 128];
        head.extend(b"DICM");
        meta.write(&mut head).map_err(io::Error::other)?;
        let mut sink = Self {
            out: BufWriter::with_capacity(1 << 20, out),
            class_uid,
            encoding,
            hash: Sha256::new(),
            at: 0,
            places: Vec::new(),
        };
        sink.find_places(&head);
        sink.out.write_all(&head)?;
        sink.at = head.len() as u64;
        Ok(sink)
    }

    /// Writes elements, in ascending order of tags from call to call.
    pub(super) fn elements(&mut self, elements: &Item) -> io::Result<()> {
        let bytes = encoded(elements, self.encoding)?;
        self.find_places(&bytes);
        self.bytes(&bytes)
    }

    /// Begins a sequence whose items are written one by one.
    pub(super) fn begin_sequence(&mut self, tag: dicom_core::Tag) -> io::Result<()> {
        let [g, e] = [tag.0.to_le_bytes(), tag.1.to_le_bytes()];
        self.bytes(&[g[0], g[1], e[0], e[1]])?;
        if self.encoding == Encoding::Explicit {
            self.bytes(b"SQ\0\0")?;
        }
        self.bytes(&[0xFF; 4])
    }

    /// An item of encoded elements.
    pub(super) fn item(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes(&[0xFE, 0xFF, 0x00, 0xE0])?;
        self.bytes(&(bytes.len() as u32).to_le_bytes())?;
        self.bytes(bytes)
    }

    pub(super) fn end_sequence(&mut self) -> io::Result<()> {
        self.bytes(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0])
    }

    /// The header of native pixel data of `len` bytes, which follow. Objects with pixels are written
    /// with explicit VR.
    pub(super) fn begin_pixels(&mut self, vr: [u8; 2], len: u64) -> io::Result<()> {
        debug_assert_eq!(self.encoding, Encoding::Explicit);
        let len = u32::try_from(len.next_multiple_of(2)).ok().filter(|len| *len < u32::MAX);
        let len = len.ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "pixel data of 4 GiB or more")
        })?;
        self.bytes(&[0xE0, 0x7F, 0x10, 0x00, vr[0], vr[1], 0, 0])?;
        self.bytes(&len.to_le_bytes())
    }

    /// Pads pixel data of `len` bytes to an even number.
    pub(super) fn end_pixels(&mut self, len: u64) -> io::Result<()> {
        if len % 2 == 1 { self.bytes(&[0]) } else { Ok(()) }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn find_places(&mut self, bytes: &[u8]) {
        let mut from = 0;
        let prefix = PLACEHOLDER.as_bytes();
        while let Some(found) = bytes[from..].windows(prefix.len()).position(|w| w == prefix) {
            let at = from + found;
            let digits = bytes.get(at + prefix.len()..at + uid::LENGTH);
            // A text of the source may look like one.
            let Some(digits) = digits.filter(|all| all.iter().all(u8::is_ascii_digit)) else {
                from = at + prefix.len();
                continue;
            };
            let number = digits.iter().fold(0, |n, digit| 10 * n + u32::from(digit - b'0'));
            self.places.push((self.at + at as u64, number));
            from = at + uid::LENGTH;
        }
    }

    /// Puts the identifiers in their places.
    pub(super) fn finish(self, fresh: Option<&Fresh>) -> io::Result<Written> {
        let Self { mut out, class_uid, hash, places, .. } = self;
        let content: [u8; 32] = hash.finalize().into();
        let digest = match fresh {
            None => content,
            Some(fresh) => {
                Sha256::new().chain_update(content).chain_update(fresh.salt).finalize().into()
            }
        };
        let name = |number: u32| match number {
            0 => uid::of_digest(digest),
            _ => uid::of(&[&digest, &number.to_le_bytes()]),
        };
        for (at, number) in places {
            out.seek(SeekFrom::Start(at))?;
            out.write_all(name(number).as_bytes())?;
        }
        out.flush()?;
        Ok(Written {
            class_uid: class_uid.to_owned(),
            instance_uid: name(Own::Instance.number()),
            series_uid: name(Own::Series.number()),
        })
    }
}

/// Elements as bytes.
pub(super) fn encoded(elements: &Item, encoding: Encoding) -> io::Result<Vec<u8>> {
    let syntax = crate::read::syntax::Syntax::find(encoding.uid());
    let syntax = syntax.ok_or(io::ErrorKind::Unsupported)?;
    let mut bytes = Vec::new();
    elements.write_dataset_with_ts(&mut bytes, syntax.headers()).map_err(io::Error::other)?;
    Ok(bytes)
}
