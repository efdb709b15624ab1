//! Elements and items of data sets to be written.

use super::segment::Code;
use crate::read::dataset::{DataSet, Element as Raw, Value};
use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

pub(super) type Element = InMemElement;
pub(super) type Item = InMemDicomObject;

pub(super) fn item(elements: impl IntoIterator<Item = Element>) -> Item {
    Item::from_element_iter(elements)
}

/// Text of any kind. Characters outside of ASCII are written as question marks: the character set
/// is the source's, and may not have them.
pub(super) fn text(tag: Tag, vr: VR, value: &str) -> Element {
    let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let value: String = value.chars().map(plain).collect();
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

/// As [`text`], cut to the 64 characters that a long string may have; backslashes separate values.
pub(super) fn long(tag: Tag, value: &str) -> Element {
    let value: String = value.replace('\\', "/").chars().take(64).collect();
    text(tag, VR::LO, &value)
}

pub(super) fn short(tag: Tag, value: &str) -> Element {
    let value: String = value.replace('\\', "/").chars().take(16).collect();
    text(tag, VR::SH, &value)
}

pub(super) fn keyword(tag: Tag, value: &str) -> Element {
    text(tag, VR::CS, value)
}

pub(super) fn uid(tag: Tag, value: &str) -> Element {
    text(tag, VR::UI, value)
}

pub(super) fn unsigned(tag: Tag, value: u16) -> Element {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value))
}

pub(super) fn unsigned_list(tag: Tag, values: [u16; 3]) -> Element {
    DataElement::new(tag, VR::US, PrimitiveValue::U16(values.as_slice().into()))
}

pub(super) fn unsigned_long_list(tag: Tag, values: &[u32]) -> Element {
    DataElement::new(tag, VR::UL, PrimitiveValue::U32(values.into()))
}

pub(super) fn integer(tag: Tag, value: impl std::fmt::Display) -> Element {
    text(tag, VR::IS, &value.to_string())
}

pub(super) fn decimals(tag: Tag, values: &[f64]) -> Element {
    let values: Vec<String> = values.iter().map(|value| decimal(*value)).collect();
    text(tag, VR::DS, &values.join("\\"))
}

pub(super) fn sequence(tag: Tag, items: Vec<Item>) -> Element {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

pub(super) fn coded(tag: Tag, concept: &Code) -> Element {
    sequence(tag, vec![code(concept)])
}

pub(super) fn code(code: &Code) -> Item {
    item([
        short(tags::CODE_VALUE, &code.value),
        short(tags::CODING_SCHEME_DESIGNATOR, &code.scheme),
        long(tags::CODE_MEANING, &code.meaning),
    ])
}

/// An element of the source as it is, padded as its kind asks for.
pub(super) fn copied(raw: &Raw) -> Element {
    let value = match &raw.value {
        Value::Items(items) => {
            return sequence(raw.tag, items.iter().map(copied_set).collect());
        }
        Value::Bytes(bytes) => bytes,
    };
    let bytes = match raw.vr {
        VR::UI => value.to_vec(),
        vr if is_text(vr) => {
            let mut text = crate::read::dataset::trimmed(value).to_vec();
            if text.len() % 2 == 1 {
                text.push(b' ');
            }
            text
        }
        _ => value.to_vec(),
    };
    match raw.vr {
        // Bytes in these would be written as numbers.
        VR::DS | VR::IS => text(raw.tag, raw.vr, &String::from_utf8_lossy(&bytes)),
        _ => DataElement::new(raw.tag, raw.vr, PrimitiveValue::U8(bytes.into())),
    }
}

fn copied_set(set: &DataSet) -> Item {
    // Private elements are no part of what is copied.
    item(set.0.iter().filter(|raw| raw.tag.group() % 2 == 0).map(copied))
}

fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UR | UT)
}

/// A number as a decimal string of at most 16 characters, as exact as those allow.
pub(super) fn decimal(value: f64) -> String {
    // No minus before zero.
    let value = if value == 0.0 { 0.0 } else { value };
    let shortest = format!("{value}");
    if shortest.len() <= 16 {
        return shortest;
    }
    let plain = value.abs() < 1e14 && value.abs() >= 1e-4;
    (0..=14)
        .rev()
        .map(
            |digits| if plain { format!("{value:.digits$}") } else { format!("{value:.digits$e}") },
        )
        .find(|text| text.len() <= 16)
        .unwrap_or_else(|| "0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_and_are_as_exact_as_that_allows() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (-249.511_718_75, "-249.51171875"),
            (1.0 / 3.0, "0.33333333333333"),
            (-1000.0 / 3.0, "-333.33333333333"),
            (1e-9 / 3.0, "3.3333333333e-10"),
            (-2.0_f64.sqrt() * 1e-20, "-1.414213562e-20"),
        ];
        for (value, text) in cases {
            assert_eq!(decimal(value), text);
            assert!(text.len() <= 16);
        }
        for k in 0..10_000 {
            let value = (f64::from(k) * 0.7312).sin() * 10_f64.powi(k % 40 - 20);
            let text = decimal(value);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().expect("a number");
            assert!((back - value).abs() <= value.abs() * 1e-8, "{value} as {text}");
        }
    }
}
