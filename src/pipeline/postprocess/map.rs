//! The label map being edited, with its runs.

use super::runs::{Run, Runs, Voxel};
use crate::volume::Spacing;
use ndarray::ArrayViewMut3;

/// Which labels a step treats, and which of them together: a class per label, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(Vec<u16>);

impl Classes {
    /// Every label by itself.
    #[must_use]
    pub fn each(labels: &[u16]) -> Self {
        Self::with(labels, |label| label)
    }

    /// All of the labels as one structure.
    #[must_use]
    pub fn union(labels: &[u16]) -> Self {
        Self::with(labels, |_| 1)
    }

    fn with(labels: &[u16], class: impl Fn(u16) -> u16) -> Self {
        let mut classes = vec![0; 1 << 16];
        for &label in labels.iter().filter(|&&label| label != 0) {
            classes[usize::from(label)] = class(label);
        }
        Self(classes)
    }

    /// Class of a label; 0 if the step leaves it alone.
    #[must_use]
    pub fn of(&self, label: u16) -> u16 {
        self.0[usize::from(label)]
    }
}

/// A label map under edit.
///
/// Voxels and runs are kept equal; the runs are made when a step first needs them.
#[derive(Debug)]
pub struct Map<'a, T> {
    labels: ArrayViewMut3<'a, T>,
    spacing: Spacing,
    runs: Option<Runs>,
}

/// Voxels `start..end` of row `z, y` become `label`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub z: u32,
    pub y: u32,
    pub start: u16,
    pub end: u16,
    pub label: u16,
}

impl<'a, T: Voxel> Map<'a, T> {
    /// `labels` are `[z, y, x]`, `spacing` millimetres per voxel in the same order.
    ///
    /// # Panics
    ///
    /// If `labels` is not in standard layout or a row has more than 65535 voxels.
    #[must_use]
    pub fn new(labels: ArrayViewMut3<'a, T>, spacing: Spacing) -> Self {
        assert!(labels.is_standard_layout(), "label maps are in standard layout");
        Self { labels, spacing, runs: None }
    }

    /// Voxels per axis, `[z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.labels.dim().into()
    }

    /// Millimetres per voxel, `[z, y, x]`.
    #[must_use]
    pub fn spacing(&self) -> Spacing {
        self.spacing
    }

    /// Volume of one voxel in cubic millimetres.
    #[must_use]
    pub fn voxel_mm3(&self) -> f64 {
        self.spacing.iter().product()
    }

    /// The map's runs.
    pub fn runs(&mut self) -> &Runs {
        let labels = &self.labels;
        self.runs.get_or_insert_with(|| Runs::new(labels.view()))
    }

    /// Gives each run the label that `relabel` says, by index; returns how many voxels changed.
    ///
    /// # Panics
    ///
    /// If a label does not fit the map's type.
    pub(super) fn relabel(&mut self, mut relabel: impl FnMut(usize, &Run) -> u16) -> u64 {
        let mut runs = self.take_runs();
        let [nz, ny, nx] = self.shape();
        let data = self.labels.as_slice_mut().expect("checked by `new`");
        let mut changed = 0;
        for row in 0..nz * ny {
            for i in runs.row_range(row / ny, row % ny) {
                let run = runs.list[i];
                let label = relabel(i, &run);
                if label != run.label {
                    let at = row * nx;
                    let (start, end) = (at + usize::from(run.start), at + usize::from(run.end));
                    data[start..end].fill(voxel(label));
                    runs.list[i].label = label;
                    changed += run.voxels();
                }
            }
        }
        self.runs = Some(runs);
        changed
    }

    /// Applies edits in order to voxels that `may` change; returns how many changed.
    ///
    /// # Panics
    ///
    /// If a label does not fit the map's type.
    pub(super) fn apply(&mut self, edits: &[Edit], may: impl Fn(u16) -> bool) -> u64 {
        let mut changed = 0;
        for edit in edits {
            let value = voxel(edit.label);
            for x in edit.start..edit.end {
                let old = &mut self.labels[[edit.z as usize, edit.y as usize, usize::from(x)]];
                if *old != value && may((*old).into()) {
                    *old = value;
                    changed += 1;
                }
            }
        }
        if changed > 0 {
            self.runs = None;
        }
        changed
    }

    fn take_runs(&mut self) -> Runs {
        self.runs();
        self.runs.take().expect("made above")
    }
}

/// A label as a voxel.
fn voxel<T: Voxel>(label: u16) -> T {
    T::try_from(label).ok().expect("labels fit the label map's type")
}
