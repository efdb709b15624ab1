//! One patient's images as they came, checked to lie on one grid.

use crate::io::Scan;
use crate::model::Reader;
use crate::pipeline::Input;
use crate::volume::{Affine, Grid, LabelMap};
use crate::{Error, Result};
use std::borrow::Cow;

/// One case: the images of one patient, in the model's channel order.
///
/// `&scan` or `scan` is a case of one channel. Images that are handed over, not lent, are freed as
/// soon as the network's input is made of them.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    scans: Vec<Cow<'a, Scan>>,
    first_stage: Option<LabelMap>,
}

impl<'a> Case<'a> {
    /// Several channels of one patient.
    #[must_use]
    pub fn new(scans: impl IntoIterator<Item = Cow<'a, Scan>>) -> Self {
        Self { scans: scans.into_iter().collect(), first_stage: None }
    }

    /// With the labels that a cascade's second stage refines, on the grid of the images.
    #[must_use]
    pub fn first_stage(self, labels: LabelMap) -> Self {
        Self { first_stage: Some(labels), ..self }
    }

    /// The images.
    pub fn scans(&self) -> impl ExactSizeIterator<Item = &Scan> {
        self.scans.iter().map(AsRef::as_ref)
    }

    /// The first image: its grid is that of the case, and its header that of the result.
    pub(super) fn first(&self) -> Result<&Scan> {
        self.scans().next().ok_or_else(|| Error::volume("no image", "at least one"))
    }

    /// What the pipeline takes, with the grid that a model's `reader` takes from the files.
    pub(super) fn into_input(self, reader: Option<Reader>) -> Result<Input<'a>> {
        let grid = self.first()?.grid_for(reader)?;
        for scan in self.scans().skip(1) {
            same_grid(&grid, &scan.grid_for(reader)?)?;
        }
        let voxels = |scan| match scan {
            Cow::Borrowed(scan) => Cow::Borrowed(Scan::voxels(scan)),
            Cow::Owned(scan) => Cow::Owned(scan.into_voxels()),
        };
        let channels = self.scans.into_iter().map(voxels).collect();
        Ok(Input { channels, grid, previous: self.first_stage.map(Cow::Owned) })
    }

    /// Sentences about what is odd but usable: each once, with what it is about, which is a name per
    /// image where there are several.
    #[must_use]
    pub fn warnings(&self, names: &[String]) -> Vec<String> {
        let mut odd: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut elsewhere = Vec::new();
        let first = self.scans().next().map(Scan::affine);
        for (k, scan) in self.scans().enumerate() {
            let name = names.get(k).map_or("", String::as_str);
            for text in scan.warnings() {
                match odd.iter_mut().find(|(known, _)| known == text) {
                    Some((_, about)) => about.push(name),
                    None => odd.push((text, vec![name])),
                }
            }
            if first.is_some_and(|first| lies_apart(&scan.affine(), &first)) {
                elsewhere.push(format!(
                    "{name} lies elsewhere than the first image, whose place is used"
                ));
            }
        }
        let alone = self.scans.len() == 1;
        let text = |(text, about): (&str, Vec<&str>)| {
            if alone { text.to_owned() } else { format!("{}: {text}", about.join(", ")) }
        };
        odd.into_iter().map(text).chain(elsewhere).collect()
    }
}

impl<'a> From<&'a Scan> for Case<'a> {
    fn from(scan: &'a Scan) -> Self {
        Self::new([Cow::Borrowed(scan)])
    }
}

impl From<Scan> for Case<'_> {
    fn from(scan: Scan) -> Self {
        Self::new([Cow::Owned(scan)])
    }
}

impl From<Vec<Scan>> for Case<'_> {
    fn from(scans: Vec<Scan>) -> Self {
        Self::new(scans.into_iter().map(Cow::Owned))
    }
}

impl<'a> From<&'a [Scan]> for Case<'a> {
    fn from(scans: &'a [Scan]) -> Self {
        Self::new(scans.iter().map(Cow::Borrowed))
    }
}

/// Fails if an image has another shape or spacing than the first.
fn same_grid(first: &Grid, other: &Grid) -> Result<()> {
    let mut spacing = first.spacing.iter().zip(&other.spacing);
    if other.shape == first.shape && spacing.all(|(a, b)| (a - b).abs() <= 1e-4 * a) {
        return Ok(());
    }
    Err(Error::volume(
        format!("{:?} voxels of {:?} mm", other.shape, other.spacing),
        format!("{:?} voxels of {:?} mm, as the first image", first.shape, first.spacing),
    ))
}

/// Whether two affines differ by more than the rounding of what wrote them.
#[must_use]
pub fn lies_apart(a: &Affine, b: &Affine) -> bool {
    let mut pairs = a.0.as_flattened().iter().zip(b.0.as_flattened());
    pairs.any(|(a, b)| (a - b).abs() > 1e-4 * a.abs().max(1.0))
}
