//! Anatomical orientation by name.

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
