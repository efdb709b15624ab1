//! An object with its own identifiers made of what it holds.
//!
//! The data set is written with a blank in the places of the object's own identifiers and hashed as it
//! goes; the identifiers made of the digest are as long as the blank and are put in their places at the
//! end. So a large object is written once, and its identifiers are those of its content. The places are
//! noted as they are written, so that no text of a source or a label is ever taken for one.

use super::elements::{self, Item, item};
use super::{Fresh, Out, Written};
use crate::uid;
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
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

/// An identifier that is made of the object's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Instance,
    Series,
}

impl Own {
    /// That of an element of the data set itself; those of its items are others'.
    fn of(tag: Tag) -> Option<Self> {
        match tag {
            tags::SOP_INSTANCE_UID => Some(Self::Instance),
            tags::SERIES_INSTANCE_UID => Some(Self::Series),
            _ => None,
        }
    }

    fn made_of(self, digest: [u8; 32]) -> String {
        match self {
            Self::Instance => uid::of_digest(digest),
            Self::Series => uid::of(&[&digest, b"series"]),
        }
    }
}

/// What stands in the place of an identifier until the content is known: as long as one.
pub(super) const BLANK: &str = "2.25.000000000000000000000000000000000000000";

/// An object on its way out.
pub(super) struct Sink<'a> {
    out: BufWriter<&'a mut dyn Out>,
    class_uid: &'a str,
    encoding: Encoding,
    hash: Sha256,
    at: u64,
    /// Where which identifier goes.
    places: Vec<(u64, Own)>,
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
            .media_storage_sop_instance_uid(BLANK)
            .transfer_syntax(encoding.uid())
            .implementation_class_uid(uid::of(&[b"fastnnunet"]))
            .implementation_version_name(version.chars().take(16).collect::<String>())
            .build()
            .map_err(io::Error::other)?;
        let mut head = vec![0; 128];
        head.extend(b"DICM");
        meta.write(&mut head).map_err(io::Error::other)?;
        // Nothing in the meta header is anybody else's text.
        let instance = head.windows(uid::LENGTH).position(|window| window == BLANK.as_bytes());
        let instance = instance.ok_or(io::ErrorKind::InvalidData)?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        out.write_all(&head)?;
        Ok(Self {
            out,
            class_uid,
            encoding,
            hash: Sha256::new(),
            at: head.len() as u64,
            places: vec![(instance as u64, Own::Instance)],
        })
    }

    /// Writes elements of the data set itself, in ascending order of tags from call to call. Its own
    /// identifiers are left blank, whatever they are here.
    pub(super) fn elements(&mut self, elements: Item) -> io::Result<()> {
        let mut part = Vec::new();
        for element in elements {
            let tag = element.header().tag;
            let Some(own) = Own::of(tag) else {
                part.push(element);
                continue;
            };
            part.push(elements::uid(tag, BLANK));
            let bytes = encoded(&item(part.drain(..)), self.encoding)?;
            self.bytes(&bytes)?;
            // A value of even length is the last of its element, and that of what was written.
            self.places.push((self.at - uid::LENGTH as u64, own));
        }
        let bytes = encoded(&item(part), self.encoding)?;
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
        let len = length(bytes.len() as u64, "an item")?;
        self.bytes(&[0xFE, 0xFF, 0x00, 0xE0])?;
        self.bytes(&len.to_le_bytes())?;
        self.bytes(bytes)
    }

    pub(super) fn end_sequence(&mut self) -> io::Result<()> {
        self.bytes(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0])
    }

    /// The header of native pixel data of `len` bytes, which follow. Objects with pixels are written
    /// with explicit VR.
    pub(super) fn begin_pixels(&mut self, vr: [u8; 2], len: u64) -> io::Result<()> {
        debug_assert_eq!(self.encoding, Encoding::Explicit);
        let len = length(len.next_multiple_of(2), "pixel data")?;
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
        for (at, own) in places {
            out.seek(SeekFrom::Start(at))?;
            out.write_all(own.made_of(digest).as_bytes())?;
        }
        out.flush()?;
        Ok(Written {
            class_uid: class_uid.to_owned(),
            instance_uid: Own::Instance.made_of(digest),
            series_uid: Own::Series.made_of(digest),
        })
    }
}

/// A length as headers can say it: all bits set mean that there is none.
fn length(len: u64, what: &str) -> io::Result<u32> {
    u32::try_from(len).ok().filter(|len| *len < u32::MAX).ok_or_else(|| {
        io::Error::new(io::ErrorKind::FileTooLarge, format!("{what} of 4 GiB or more"))
    })
}

/// Elements as bytes.
pub(super) fn encoded(elements: &Item, encoding: Encoding) -> io::Result<Vec<u8>> {
    let syntax = crate::read::syntax::Syntax::find(encoding.uid());
    let syntax = syntax.ok_or(io::ErrorKind::Unsupported)?;
    let mut bytes = Vec::new();
    elements.write_dataset_with_ts(&mut bytes, syntax.headers()).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blank_is_as_long_as_an_identifier_and_none() {
        assert_eq!(BLANK.len(), uid::LENGTH);
        assert!(BLANK.starts_with("2.25.00"), "a part of an identifier has no leading zero");
    }

    #[test]
    fn what_a_header_cannot_say_is_an_error() {
        assert_eq!(length(0xFFFF_FFFE, "an item").ok(), Some(0xFFFF_FFFE));
        for len in [0xFFFF_FFFF, 1 << 32, (1 << 32) + 2] {
            let error = length(len, "an item").expect_err("too long");
            assert_eq!(error.to_string(), "an item of 4 GiB or more", "{len}");
        }
    }
}
