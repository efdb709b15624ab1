//! Anatomical orientation by name.

use crate::Mismatch;
use std::fmt;
use std::str::FromStr;

/// The orientation a model was trained in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum Orientation {
    /// x grows to the patient's left, y to posterior, z to superior: ITK's identity
    /// direction, which FastnnUNet documents.
    #[default]
    #[serde(rename = "LPS")]
    Lps,
    /// x grows to the right, y to anterior, z to superior: nibabel's canonical axes.
    #[serde(rename = "RAS")]
    Ras,
    /// As stored in the file: nnU-Net's `SimpleITKIO`.
    #[serde(rename = "native")]
    Native,
}

impl Orientation {
    const ALL: [(&'static str, Self); 3] =
        [("LPS", Self::Lps), ("RAS", Self::Ras), ("native", Self::Native)];
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::ALL.iter().find(|(_, own)| own == self);
        f.pad(known.map_or("", |(name, _)| name))
    }
}

impl FromStr for Orientation {
    type Err = Mismatch;

    fn from_str(text: &str) -> Result<Self, Mismatch> {
        let known = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map(|(_, own)| *own).ok_or_else(|| Mismatch::new(text, "LPS, RAS or native"))
    }
}
