//! A data set as far as it is kept: elements in the order of the file, values as bytes.
//!
//! Values are little-endian whatever the file's transfer syntax. Text stays in the file's own
//! character set, so that what is copied into a result is copied to the byte.

use dicom_core::{Tag, VR};

/// One element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) tag: Tag,
    pub(crate) vr: VR,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bytes(Box<[u8]>),
    Items(Vec<DataSet>),
}

/// Elements of the root or of one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DataSet(pub(crate) Vec<Element>);

impl DataSet {
    pub(crate) fn get(&self, tag: Tag) -> Option<&Element> {
        self.0.iter().find(|element| element.tag == tag)
    }

    /// The value's bytes; nothing for a sequence or a missing element.
    pub(crate) fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        match &self.get(tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Items(_) => None,
        }
    }

    /// Text without the padding at its ends, if there is any; bytes that are not ASCII are
    /// replaced. For codes, numbers and UIDs, not for names.
    pub(crate) fn text(&self, tag: Tag) -> Option<String> {
        let text: String = trimmed(self.bytes(tag)?)
            .iter()
            .map(|&b| if b.is_ascii() && !b.is_ascii_control() { b as char } else { '?' })
            .collect();
        (!text.is_empty()).then_some(text)
    }

    /// Decimal strings, as many as there are; nothing if one is not a finite number.
    pub(crate) fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        let element = self.get(tag)?;
        if element.vr == VR::FD {
            let bytes = self.bytes(tag)?;
            let numbers = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
            return Some(numbers.collect());
        }
        decimals(&self.text(tag)?)
    }

    pub(crate) fn decimal(&self, tag: Tag) -> Option<f64> {
        self.decimals(tag)?.first().copied()
    }

    /// An unsigned short, or an integer string of its size.
    pub(crate) fn number(&self, tag: Tag) -> Option<u32> {
        let element = self.get(tag)?;
        let bytes = self.bytes(tag)?;
        match element.vr {
            VR::IS | VR::DS => self.text(tag)?.split('\\').next()?.trim().parse().ok(),
            VR::UL | VR::SL => Some(u32::from_le_bytes(*bytes.first_chunk()?)),
            _ => Some(u32::from(u16::from_le_bytes(*bytes.first_chunk()?))),
        }
    }

    /// A number or text, as text.
    pub(crate) fn shown(&self, tag: Tag) -> Option<String> {
        match self.get(tag)?.vr {
            VR::US | VR::UL => self.number(tag).map(|number| number.to_string()),
            _ => self.text(tag),
        }
    }

    /// The items of a sequence; none if it is missing.
    pub(crate) fn items(&self, tag: Tag) -> &[DataSet] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// The first item of a sequence.
    pub(crate) fn item(&self, tag: Tag) -> Option<&DataSet> {
        self.items(tag).first()
    }
}

/// Decimal strings separated by backslashes.
pub(crate) fn decimals(text: &str) -> Option<Vec<f64>> {
    text.split('\\')
        .map(|part| part.trim().parse::<f64>().ok().filter(|value| value.is_finite()))
        .collect()
}

/// A value without the spaces and zero bytes that pad it.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    let padding = |b: &u8| matches!(b, 0 | b' ' | b'\t' | b'\r' | b'\n');
    let start = bytes.iter().position(|b| !padding(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !padding(b)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_their_kind_says() {
        let element =
            |tag, vr, bytes: &[u8]| Element { tag, vr, value: Value::Bytes(bytes.into()) };
        let set = DataSet(vec![
            element(Tag(0x0028, 0x0030), VR::DS, b" 0.5\\1e1 "),
            element(Tag(0x0028, 0x0010), VR::US, &[0, 2]),
            element(Tag(0x0028, 0x0008), VR::IS, b"12\0"),
            element(Tag(0x0020, 0x0032), VR::DS, b"1\\nan\\3"),
            element(Tag(0x0010, 0x0010), VR::PN, b"  \0"),
            element(Tag(0x0018, 0x9306), VR::FD, &1.25_f64.to_le_bytes()),
        ]);
        assert_eq!(set.decimals(Tag(0x0028, 0x0030)), Some(vec![0.5, 10.0]));
        assert_eq!(set.number(Tag(0x0028, 0x0010)), Some(512));
        assert_eq!(set.number(Tag(0x0028, 0x0008)), Some(12));
        assert_eq!(set.decimals(Tag(0x0020, 0x0032)), None);
        assert_eq!(set.text(Tag(0x0010, 0x0010)), None);
        assert_eq!(set.decimal(Tag(0x0018, 0x9306)), Some(1.25));
        assert_eq!(set.number(Tag(0x0028, 0x0011)), None);
    }
}
