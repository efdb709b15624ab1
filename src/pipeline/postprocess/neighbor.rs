//! Clipping a structure to the surroundings of another.

use super::components::{Components, Connectivity};
use super::map::{Classes, Map};
use super::patient::PatientAxes;
use super::runs::Voxel;
use super::steps::{Fields, Select, Table, within};
use super::{keep, morphology};
use crate::Mismatch;
use serde::Deserialize;

/// What is removed of a structure that reaches too far from its neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// Every voxel that is too far.
    Voxels,
    /// Components of which every voxel is too far.
    Components(Connectivity),
}

/// Removes what is farther than `distance_mm`, between centers, from every voxel of the labels
/// `neighbor`. Without a neighbor in the map everything is too far.
///
/// Returns the number of voxels removed.
pub fn clip<T: Voxel>(
    map: &mut Map<'_, T>,
    labels: &[u16],
    neighbor: &[u16],
    distance_mm: f64,
    clip: Clip,
) -> u64 {
    let spacing = map.spacing();
    let runs = map.runs();
    let around = Classes::union(neighbor);
    let near = morphology::surroundings(runs, spacing, distance_mm, |l| around.of(l) != 0);
    let near = |z, y, x| near.as_ref().is_some_and(|bits| bits.get(z, y, x));
    match clip {
        Clip::Components(connectivity) => {
            let components = Components::new(runs, &Classes::each(labels), connectivity);
            let mut stays = vec![false; components.voxels.len()];
            runs.for_each(|z, y, i, run| {
                if let Some(stays) = stays.get_mut(components.of_run[i] as usize) {
                    *stays |= (run.start..run.end).any(|x| near(z, y, usize::from(x)));
                }
            });
            keep::remove(map, &components, |component| stays[component], 0, None)
        }
        Clip::Voxels => {
            let classes = Classes::union(labels);
            let mut edits = Vec::new();
            runs.for_each(|z, y, _, run| {
                if classes.of(run.label) == 0 {
                    return;
                }
                for x in run.start..run.end {
                    if !near(z, y, usize::from(x)) {
                        let (z, y) = (z as u32, y as u32);
                        edits.push(super::map::Edit { z, y, start: x, end: x + 1, label: 0 });
                    }
                }
            });
            map.apply(&edits, |_| true)
        }
    }
}

/// The step `clip_to_neighbor`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipToNeighbor {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    neighbor: Select,
    distance_mm: f64,
    #[serde(default)]
    whole_components: bool,
    #[serde(default)]
    connectivity: Connectivity,
}

impl Fields for ClipToNeighbor {
    type Labels = (Vec<u16>, Vec<u16>);

    fn check(&self) -> Result<(), Mismatch> {
        within("distance_mm", self.distance_mm, 100.0)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        let labels = table.structures(&self.labels, &self.except)?;
        let neighbor = table.structures(&self.neighbor, &[])?;
        Ok(labels.zip(neighbor))
    }

    fn apply<T: Voxel>(
        &self,
        (labels, neighbor): &Self::Labels,
        map: &mut Map<'_, T>,
        _axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        let components = Clip::Components(self.connectivity);
        let what = if self.whole_components { components } else { Clip::Voxels };
        Ok(clip(map, labels, neighbor, self.distance_mm, what))
    }
}
