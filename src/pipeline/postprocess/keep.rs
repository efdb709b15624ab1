//! Keeping the largest component, removing small ones.

use super::components::{Components, Connectivity};
use super::map::{Classes, Edit, Map};
use super::nearest;
use super::patient::PatientAxes;
use super::runs::Voxel;
use super::steps::{Fields, Select, Table, within};
use crate::Mismatch;
use serde::Deserialize;

/// Removes all but the largest component of each class, as nnU-Net's
/// `remove_all_but_largest_component`: of equally large ones all stay.
///
/// Removed voxels become `background`, or the nearest label within `nearest_mm`. Returns the
/// number of voxels removed.
pub fn keep_largest<T: Voxel>(
    map: &mut Map<'_, T>,
    classes: &Classes,
    connectivity: Connectivity,
    background: u16,
    nearest_mm: Option<f64>,
) -> u64 {
    let components = Components::new(map.runs(), classes, connectivity);
    let mut largest = vec![0; 1 << 16];
    for (&voxels, &class) in components.voxels.iter().zip(&components.class) {
        let most: &mut u64 = &mut largest[usize::from(class)];
        *most = voxels.max(*most);
    }
    let keep = |component: usize| {
        components.voxels[component] == largest[usize::from(components.class[component])]
    };
    remove(map, &components, keep, background, nearest_mm)
}

/// As [`keep_largest`], but of equally large components only one stays: that of the voxel with the
/// least `x`, then `y`, then `z`, which `scipy.ndimage.label` finds first in an array of that order
/// of axes.
pub fn keep_first_largest<T: Voxel>(
    map: &mut Map<'_, T>,
    classes: &Classes,
    connectivity: Connectivity,
    nearest_mm: Option<f64>,
) -> u64 {
    let components = Components::new(map.runs(), classes, connectivity);
    let mut first = vec![(usize::MAX, usize::MAX, usize::MAX); components.voxels.len()];
    map.runs().for_each(|z, y, i, run| {
        if components.of_run[i] != Components::NONE {
            let known = &mut first[components.of_run[i] as usize];
            *known = (*known).min((usize::from(run.start), y, z));
        }
    });
    let mut best: Vec<Option<usize>> = vec![None; 1 << 16];
    for (k, (&voxels, &class)) in components.voxels.iter().zip(&components.class).enumerate() {
        let best = &mut best[usize::from(class)];
        let beats = |other: usize| {
            let most = components.voxels[other];
            voxels > most || voxels == most && first[k] < first[other]
        };
        if best.is_none_or(beats) {
            *best = Some(k);
        }
    }
    let keep = |component: usize| best[usize::from(components.class[component])] == Some(component);
    remove(map, &components, keep, 0, nearest_mm)
}

/// Removes components of less than `min_mm3` cubic millimetres.
///
/// Removed voxels become background, or the nearest label within `nearest_mm`. Returns the
/// number of voxels removed.
pub fn remove_small<T: Voxel>(
    map: &mut Map<'_, T>,
    classes: &Classes,
    connectivity: Connectivity,
    min_mm3: f64,
    nearest_mm: Option<f64>,
) -> u64 {
    let voxel_mm3 = map.voxel_mm3();
    let components = Components::new(map.runs(), classes, connectivity);
    // A relative slack, so that a limit of a whole number of voxels means that number.
    let large = |voxels: u64| voxels as f64 * voxel_mm3 >= min_mm3 * (1.0 - 1e-9);
    let keep = |component: usize| large(components.voxels[component]);
    remove(map, &components, keep, 0, nearest_mm)
}

/// Removes the components that are not to be kept.
pub(super) fn remove<T: Voxel>(
    map: &mut Map<'_, T>,
    components: &Components,
    keep: impl Fn(usize) -> bool,
    background: u16,
    nearest_mm: Option<f64>,
) -> u64 {
    let keep: Vec<bool> = (0..components.voxels.len()).map(keep).collect();
    let stays = |i: usize| {
        let component = components.of_run[i];
        component == Components::NONE || keep[component as usize]
    };
    let mut removed = Vec::new();
    if nearest_mm.is_some() {
        map.runs().for_each(|z, y, i, run| {
            if !stays(i) {
                let (z, y) = (z as u32, y as u32);
                removed.push(Edit { z, y, start: run.start, end: run.end, label: 0 });
            }
        });
    }
    let changed = map.relabel(|i, run| if stays(i) { run.label } else { background });
    if let Some(within_mm) = nearest_mm {
        nearest::reassign(map, &removed, within_mm);
    }
    changed
}

/// The step `keep_largest`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepLargest {
    pub(super) labels: Select,
    #[serde(default)]
    pub(super) except: Vec<String>,
    #[serde(default)]
    pub(super) union: bool,
    #[serde(default)]
    pub(super) connectivity: Connectivity,
    pub(super) nearest_mm: Option<f64>,
    /// Which of equally large components stay.
    #[serde(default)]
    pub(super) ties: Ties,
    #[serde(skip)]
    pub(super) background: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ties {
    /// All of them, as in nnU-Net.
    #[default]
    All,
    /// The first in `x`, `y`, `z`, as in `TotalSegmentator`.
    First,
}

impl Fields for KeepLargest {
    type Labels = Classes;

    fn check(&self) -> Result<(), Mismatch> {
        within("nearest_mm", self.nearest_mm, 50.0)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.classes(&self.labels, &self.except, self.union)
    }

    fn apply<T: Voxel>(
        &self,
        classes: &Classes,
        map: &mut Map<'_, T>,
        _axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        Ok(match self.ties {
            Ties::First => keep_first_largest(map, classes, self.connectivity, self.nearest_mm),
            Ties::All => {
                keep_largest(map, classes, self.connectivity, self.background, self.nearest_mm)
            }
        })
    }

    fn background(&self) -> u16 {
        self.background
    }
}

/// The step `remove_small`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveSmall {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    union: bool,
    min_mm3: f64,
    #[serde(default)]
    connectivity: Connectivity,
    nearest_mm: Option<f64>,
}

impl Fields for RemoveSmall {
    type Labels = Classes;

    fn check(&self) -> Result<(), Mismatch> {
        within("min_mm3", self.min_mm3, 1e9)?;
        within("nearest_mm", self.nearest_mm, 50.0)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.classes(&self.labels, &self.except, self.union)
    }

    fn apply<T: Voxel>(
        &self,
        classes: &Classes,
        map: &mut Map<'_, T>,
        _axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        Ok(remove_small(map, classes, self.connectivity, self.min_mm3, self.nearest_mm))
    }
}
