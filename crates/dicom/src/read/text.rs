//! Free text in a file's own character set. It is shown only to a user who asks for it.

use super::dataset::{DataSet, trimmed};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

/// The value as text of at most 64 characters, without control characters.
pub(crate) fn decoded(set: &DataSet, tag: Tag) -> Option<String> {
    let bytes = trimmed(set.bytes(tag)?);
    // Of several character sets the last is the one that names the script.
    let charset = set.text(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
    let codec = charset.rsplit('\\').find_map(SpecificCharacterSet::from_code).unwrap_or_default();
    let text = codec.decode(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
    let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    (!shown.is_empty()).then_some(shown)
}
