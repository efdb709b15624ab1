//! One patient's images as they came, checked to lie on one grid.

use crate::io::Scan;
use crate::model::Reader;
use crate::pipeline::Input;
use crate::volume::{Affine, Grid, Image, LabelMap, VoxelView};
use crate::{Error, Result};
use std::borrow::Cow;

/// One case: the images of one patient, in the model's channel order.
///
/// `&scan` or `scan` is a case of one channel. Images that are handed over, not lent, are freed as
/// soon as the network's input is made of them.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    scans: Vec<Cow<'a, Scan>>,
    /// The voxels in place of those of the scans, where they are the caller's.
    lent: Vec<VoxelView<'a>>,
    previous_stage: Option<LabelMap>,
}

impl<'a> Case<'a> {
    /// Several channels of one patient.
    #[must_use]
    pub fn new(scans: impl IntoIterator<Item = Cow<'a, Scan>>) -> Self {
        Self { scans: scans.into_iter().collect(), lent: Vec::new(), previous_stage: None }
    }

    /// Channels whose voxels stay the caller's, each with its place. They may lie in memory in any
    /// order of axes, flipped or with gaps; nothing is copied but a view whose slices interleave,
    /// for as long as it is resampled.
    ///
    /// ```no_run
    /// use fastnnunet::volume::{Affine, Grid, VoxelView};
    /// use fastnnunet::{Case, Segmenter};
    ///
    /// # fn main() -> fastnnunet::Result<()> {
    /// // As a scanner wrote it: a slice after the other, 0.8 x 0.8 x 2.5 mm.
    /// let stored: Vec<i16> = vec![-1024; 133 * 512 * 512];
    /// let voxels = ndarray::aview1(&stored).into_shape_with_order((133, 512, 512)).expect("all");
    /// let affine = Affine([[-0.8, 0.0, 0.0, 0.0], [0.0, -0.8, 0.0, 0.0], [0.0, 0.0, 2.5, 0.0]]);
    /// let grid = Grid { shape: [133, 512, 512], spacing: [2.5, 0.8, 0.8], affine };
    /// let case = Case::lent([(VoxelView::from(voxels), grid)])?;
    /// Segmenter::open("bone")?.segment(case)?.save("bone.nii.gz")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Scan::new`].
    pub fn lent(images: impl IntoIterator<Item = (VoxelView<'a>, Grid)>) -> Result<Self> {
        let images = images
            .into_iter()
            .map(|(voxels, grid)| Ok((Cow::Owned(Scan::of_place(voxels, grid)?), voxels)));
        let (scans, lent) = images.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Self { scans, lent, previous_stage: None })
    }

    /// With the labels that a cascade's second stage refines, on the grid of the images.
    #[must_use]
    pub fn previous_stage(self, labels: LabelMap) -> Self {
        Self { previous_stage: Some(labels), ..self }
    }

    /// The images, but for voxels that are lent.
    pub(super) fn scans(&self) -> impl ExactSizeIterator<Item = &Scan> {
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
        let own = |scan| match scan {
            Cow::Borrowed(scan) => Image::from(Scan::voxels(scan)),
            Cow::Owned(scan) => Image::Own(scan.into_voxels()),
        };
        let channels = if self.lent.is_empty() {
            self.scans.into_iter().map(own).collect()
        } else {
            self.lent.into_iter().map(Image::Lent).collect()
        };
        Ok(Input { channels, grid, previous: self.previous_stage.map(Cow::Owned) })
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
