//! Bytes of a data set to elements.
//!
//! The header of an element is decoded by `dicom-encoding`; how elements nest is followed here,
//! because what comes from a disk has to be bounded before it is believed: no length is allocated
//! that the file does not hold, sequences nest so far and no further, values nobody asks for are
//! skipped, and a length that is wrong inside a sequence of known length costs that sequence only.
//! (`dicom-parser`, which does the nesting in `dicom-object`, allocates what a header announces
//! and panics at an item after a stray delimiter.)

use super::dataset::{DataSet, Element, Value};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::header::{Header, SequenceItemHeader};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use dicom_encoding::transfer_syntax::{DynDecoder, Endianness, TransferSyntax};
use fastnnunet_model::Mismatch;
use std::io::{Read, Seek, SeekFrom};

/// Where the bytes come from.
pub(crate) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// Values longer than this are not what a geometry or a patient is described with.
const MAX_VALUE_BYTES: u64 = 64 << 10;
/// Functional groups nest five deep, structured reports some ten.
const MAX_DEPTH: usize = 32;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
pub(crate) const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);
/// Eight bytes for each frame.
const EXTENDED_OFFSETS: Tag = Tag(0x7FE0, 0x0001);

/// Where the pixels lie, from the start of the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PixelData {
    Native {
        start: u64,
        /// As the header says.
        claimed: u64,
        /// As far as the file goes.
        present: u64,
    },
    Encapsulated {
        /// Start and length of each, without the offset table.
        fragments: Vec<(u64, u32)>,
        /// Basic offset table, from the first fragment's item.
        offsets: Vec<u32>,
        /// Whether the sequence ends as it should.
        whole: bool,
    },
}

/// A data set and where its pixels lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) set: DataSet,
    pub(crate) pixels: Option<PixelData>,
    /// Why it was followed no further.
    pub(crate) fault: Option<Mismatch>,
}

/// Follows a data set from the stream's position `at` to its end at `len`.
pub(crate) fn parse(
    source: &mut dyn ReadSeek,
    (at, len): (u64, u64),
    syntax: &TransferSyntax,
    max_elements: usize,
) -> Result<Parsed, Mismatch> {
    let mut parser = Parser::new(source, (at, len), syntax, max_elements)?;
    let mut set = DataSet::default();
    let fault = parser.elements(&mut set, None, 0, true).err();
    Ok(Parsed { set, pixels: parser.pixels, fault })
}

/// Reads elements of group 2 from `at`; returns them and where the data set starts.
pub(crate) fn parse_meta(
    source: &mut dyn ReadSeek,
    (at, len): (u64, u64),
    syntax: &TransferSyntax,
) -> Result<(DataSet, u64), Mismatch> {
    let mut parser = Parser::new(source, (at, len), syntax, 1000)?;
    let mut set = DataSet::default();
    while parser.len - parser.at >= 8 {
        let start = parser.at;
        let header = parser.header()?;
        if header.tag.group() != 2 {
            parser.seek(start)?;
            break;
        }
        let Some(bytes) = header.len else {
            return Err(Mismatch::new("a meta header element without length", "a length"));
        };
        if let Some(value) = parser.value(&header, bytes, true)? {
            set.0.push(Element { tag: header.tag, vr: header.vr, value: Value::Bytes(value) });
        }
    }
    Ok((set, parser.at))
}

struct Parser<'a> {
    source: &'a mut dyn ReadSeek,
    at: u64,
    len: u64,
    decoder: DynDecoder<dyn ReadSeek + 'a>,
    big_endian: bool,
    elements_left: usize,
    pixels: Option<PixelData>,
}

struct ElementHeader {
    tag: Tag,
    vr: VR,
    /// `None` is undefined.
    len: Option<u64>,
}

impl<'a> Parser<'a> {
    fn new(
        source: &'a mut dyn ReadSeek,
        (at, len): (u64, u64),
        syntax: &TransferSyntax,
        max_elements: usize,
    ) -> Result<Self, Mismatch> {
        let decoder = syntax
            .decoder_for()
            .ok_or_else(|| Mismatch::new("an unknown byte order", "a transfer syntax of DICOM"))?;
        let big_endian = syntax.endianness() == Endianness::Big;
        source.seek(SeekFrom::Start(at)).map_err(|e| unreadable(&e))?;
        Ok(Self { source, at, len, decoder, big_endian, elements_left: max_elements, pixels: None })
    }

    fn seek(&mut self, to: u64) -> Result<(), Mismatch> {
        // Relative, so that a buffered reader keeps what it has read ahead.
        let moved = self.source.seek_relative(to.wrapping_sub(self.at).cast_signed());
        self.at = to;
        moved.map_err(|e| unreadable(&e))
    }

    fn header(&mut self) -> Result<ElementHeader, Mismatch> {
        let (header, bytes) = self
            .decoder
            .decode_header(self.source)
            .map_err(|_| Mismatch::new("an element cut off in its header", "a whole data set"))?;
        self.at += bytes as u64;
        Ok(ElementHeader {
            tag: header.tag(),
            vr: header.vr(),
            len: header.len.get().map(u64::from),
        })
    }

    /// The next `bytes` as a value in little-endian order, or nothing if they are not kept.
    fn value(
        &mut self,
        header: &ElementHeader,
        bytes: u64,
        keep: bool,
    ) -> Result<Option<Box<[u8]>>, Mismatch> {
        let ElementHeader { tag, vr, .. } = *header;
        let left = self.len - self.at;
        if bytes > left {
            return Err(Mismatch::new(
                format!("element {tag} of {bytes} bytes where the file has {left} left"),
                "a whole data set",
            ));
        }
        let long = tag == EXTENDED_OFFSETS;
        // Private elements and overlays are nobody's business here.
        let known = tag.group() % 2 == 0 && tag.group() >> 8 != 0x60;
        if !(keep && known && (bytes <= MAX_VALUE_BYTES || long && bytes < 64 << 20)) {
            self.seek(self.at + bytes)?;
            return Ok(None);
        }
        self.elements_left = self
            .elements_left
            .checked_sub(1)
            .ok_or_else(|| Mismatch::new("too many elements in one file", "fewer"))?;
        let mut value = vec![0; bytes as usize].into_boxed_slice();
        self.source.read_exact(&mut value).map_err(|e| unreadable(&e))?;
        self.at += bytes;
        if self.big_endian {
            swap(&mut value, vr);
        }
        Ok(Some(value))
    }

    /// Elements up to `end`, or to the delimiter of an item, or (at depth 0) of the file.
    fn elements(
        &mut self,
        set: &mut DataSet,
        end: Option<u64>,
        depth: usize,
        keep: bool,
    ) -> Result<(), Mismatch> {
        let end_at = end.unwrap_or(self.len).min(self.len);
        // Less than a header at the end is padding.
        while end_at.saturating_sub(self.at) >= 8 {
            let header = match self.header() {
                Ok(header) => header,
                // What follows the pixels may be anything.
                Err(_) if depth == 0 && self.pixels.is_some() => break,
                Err(fault) => return Err(fault),
            };
            match header.tag {
                ITEM_END if end.is_none() && depth > 0 => return Ok(()),
                SEQUENCE_END | ITEM_END | ITEM => {
                    if depth == 0 && self.pixels.is_some() {
                        break;
                    }
                    // A stray delimiter has no value.
                    continue;
                }
                _ => {}
            }
            match self.element(&header, depth, keep) {
                Ok(Some(value)) => set.0.push(Element { tag: header.tag, vr: header.vr, value }),
                Ok(None) => {}
                Err(_) if depth == 0 && self.pixels.is_some() => break,
                Err(fault) => return Err(fault),
            }
        }
        if end.is_none() && depth > 0 {
            return Err(Mismatch::new("an item without an end", "a whole data set"));
        }
        if let Some(end) = end {
            self.seek(end)?;
        }
        Ok(())
    }

    fn element(
        &mut self,
        header: &ElementHeader,
        depth: usize,
        keep: bool,
    ) -> Result<Option<Value>, Mismatch> {
        let ElementHeader { tag, mut vr, len } = *header;
        // Archives that do not know an element pass it on as unknown.
        let unknown = vr == VR::UN;
        if unknown && let Some(entry) = StandardDataDictionary.by_tag(tag) {
            vr = entry.vr().relaxed();
        }
        // The file's own image; one in an item is an icon.
        let image = tag == PIXEL_DATA && depth == 0;
        let keep = keep && tag.group() % 2 == 0;
        match len {
            Some(claimed) if image => {
                let present = claimed.min(self.len - self.at);
                self.pixels = Some(PixelData::Native { start: self.at, claimed, present });
                self.seek(self.at + present)?;
                Ok(None)
            }
            None if tag == PIXEL_DATA || vr == VR::OB || vr == VR::OW => {
                let fragments = self.fragments()?;
                if image {
                    self.pixels = Some(fragments);
                }
                Ok(None)
            }
            Some(bytes) if vr == VR::SQ && keep && bytes <= self.len - self.at => {
                let end = self.at + bytes;
                let pixels = self.pixels.clone();
                // A wrong length inside costs this sequence only: its own length leads past it.
                let items = self.items(Some(end), depth + 1, keep, unknown);
                self.pixels = pixels;
                self.seek(end)?;
                Ok(items.ok().map(Value::Items))
            }
            Some(bytes) => Ok(self.value(header, bytes, keep)?.map(Value::Bytes)),
            None => {
                let items = self.items(None, depth + 1, keep, unknown)?;
                Ok(keep.then_some(Value::Items(items)))
            }
        }
    }

    /// Items up to `end` or to the delimiter of the sequence.
    ///
    /// Content of unknown kind and length is encoded with implicit VR, whatever the file's syntax
    /// (PS3.5 section 6.2.2, note 2); some writers forget.
    fn items(
        &mut self,
        end: Option<u64>,
        depth: usize,
        keep: bool,
        unknown: bool,
    ) -> Result<Vec<DataSet>, Mismatch> {
        if depth > MAX_DEPTH {
            return Err(Mismatch::new(
                format!("sequences nested deeper than {MAX_DEPTH}"),
                "fewer levels",
            ));
        }
        let mut items = Vec::new();
        let end_at = end.unwrap_or(self.len).min(self.len);
        while end_at.saturating_sub(self.at) >= 8 {
            let item = self.decoder.decode_item_header(self.source).map_err(|_| {
                Mismatch::new("a sequence that does not go on with an item", "a whole data set")
            })?;
            self.at += 8;
            let len = match item {
                SequenceItemHeader::Item { len } => len.get().map(u64::from),
                SequenceItemHeader::SequenceDelimiter => return Ok(items),
                SequenceItemHeader::ItemDelimiter => continue,
            };
            if len.is_some_and(|len| len > end_at - self.at) {
                return Err(Mismatch::new("an item longer than its sequence", "a whole data set"));
            }
            let item_end = len.map(|len| self.at + len);
            if !keep && let Some(item_end) = item_end {
                self.seek(item_end)?;
                continue;
            }
            self.elements_left = self
                .elements_left
                .checked_sub(1)
                .ok_or_else(|| Mismatch::new("too many items in one file", "fewer"))?;
            let mut item = DataSet::default();
            if unknown && self.looks_implicit()? {
                self.with_implicit(|parser| parser.elements(&mut item, item_end, depth, keep))
            } else {
                self.elements(&mut item, item_end, depth, keep)
            }?;
            if keep {
                items.push(item);
            }
        }
        if end.is_none() {
            return Err(Mismatch::new("a sequence without an end", "a whole data set"));
        }
        Ok(items)
    }

    /// Whether the next element has a length where its VR would be.
    fn looks_implicit(&mut self) -> Result<bool, Mismatch> {
        let mut head = [0; 6];
        if self.len - self.at < 8 {
            return Ok(false);
        }
        self.source.read_exact(&mut head).map_err(|e| unreadable(&e))?;
        self.source.seek_relative(-6).map_err(|e| unreadable(&e))?;
        Ok(VR::from_binary([head[4], head[5]]).is_none() && head[..2] != [0xFE, 0xFF])
    }

    fn with_implicit<T>(&mut self, follow: impl FnOnce(&mut Self) -> T) -> T {
        let implicit = dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN.erased();
        let Some(decoder) = implicit.decoder_for() else { return follow(self) };
        let explicit = std::mem::replace(&mut self.decoder, decoder);
        let big_endian = std::mem::replace(&mut self.big_endian, false);
        let result = follow(self);
        (self.decoder, self.big_endian) = (explicit, big_endian);
        result
    }

    /// Where the fragments of encapsulated pixels lie.
    fn fragments(&mut self) -> Result<PixelData, Mismatch> {
        let (mut fragments, mut offsets, mut first) = (Vec::new(), Vec::new(), true);
        let mut whole = false;
        while self.len - self.at >= 8 {
            let Ok(item) = self.decoder.decode_item_header(self.source) else { break };
            self.at += 8;
            let len = match item {
                SequenceItemHeader::Item { len } => len.get(),
                SequenceItemHeader::SequenceDelimiter => {
                    whole = true;
                    break;
                }
                SequenceItemHeader::ItemDelimiter => continue,
            };
            let Some(len) = len.filter(|len| u64::from(*len) <= self.len - self.at) else { break };
            if std::mem::take(&mut first) {
                let mut table = vec![0; len as usize];
                self.source.read_exact(&mut table).map_err(|e| unreadable(&e))?;
                self.at += u64::from(len);
                offsets = table.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
                continue;
            }
            self.elements_left = self
                .elements_left
                .checked_sub(1)
                .ok_or_else(|| Mismatch::new("too many fragments in one file", "fewer"))?;
            fragments.push((self.at, len));
            self.seek(self.at + u64::from(len))?;
        }
        Ok(PixelData::Encapsulated { fragments, offsets, whole })
    }
}

/// Turns a big-endian value into a little-endian one.
fn swap(value: &mut [u8], vr: VR) {
    let width = match vr {
        VR::US | VR::SS | VR::OW | VR::AT => 2,
        VR::UL | VR::SL | VR::FL | VR::OF | VR::OL => 4,
        VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
        _ => return,
    };
    value.chunks_exact_mut(width).for_each(<[u8]>::reverse);
}

fn unreadable(e: &std::io::Error) -> Mismatch {
    Mismatch::new(format!("a read error ({})", e.kind()), "a readable file")
}
