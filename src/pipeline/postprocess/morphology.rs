//! Binary dilation, erosion, opening and closing by a ball in millimetres.
//!
//! A voxel belongs to the dilation if a voxel of the structure lies within the radius, measured
//! between centers: the set that a threshold of the exact Euclidean distance gives
//! ([`distance`](super::distance)), found on rows of bits instead. Offsets of equal reach along
//! `x` are joined first and widened together, so a row costs one word operation per 64 voxels and
//! offset. Beyond the volume's border nothing is known: structures are not eroded from there.

use super::bits::{Ball, Bits};
use super::map::Map;
use super::nearest;
use super::patient::PatientAxes;
use super::runs::{Runs, Voxel};
use super::steps::{self, Fields, Select, Table, within};
use crate::Mismatch;
use crate::pipeline::crop::{grown, join};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

/// What is done to each structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Grow into background.
    Dilate,
    /// Remove what is closer to the outside than the radius.
    Erode,
    /// Erode, then dilate: removes what is thinner than twice the radius.
    Open,
    /// Dilate, then erode: fills what is narrower than twice the radius with the structure.
    Close,
}

/// Applies `operation` with a ball of `radius_mm` to each of `labels` by itself.
///
/// All labels are treated as they were on entry. Voxels are added only where there was
/// background; where several labels would take one, the first of `labels` does. Removed voxels
/// take the nearest label within `nearest_mm`, or become background.
///
/// Returns the number of voxels that changed.
pub fn apply<T: Voxel>(
    map: &mut Map<'_, T>,
    labels: &[u16],
    operation: Operation,
    radius_mm: f64,
    nearest_mm: Option<f64>,
) -> u64 {
    let (shape, spacing) = (map.shape(), map.spacing());
    let ball = Ball::new(radius_mm, spacing, shape);
    let runs = map.runs();
    let boxes = runs.boxes();
    let edits: Vec<_> = labels
        .par_iter()
        .flat_map(|&label| {
            let Some(Some(tight)) = boxes.get(usize::from(label)) else { return Vec::new() };
            let margin = match operation {
                Operation::Erode | Operation::Open => [1; 3],
                Operation::Dilate | Operation::Close => ball.reach.map(|n| n + 1),
            };
            let old = Bits::from_runs(runs, &grown(tight, margin, shape), |l| l == label);
            match operation {
                Operation::Dilate => old.dilate(&ball).edits_without(&old, label),
                Operation::Close => old.dilate(&ball).erode(&ball).edits_without(&old, label),
                Operation::Erode => old.edits_without(&old.erode(&ball), 0),
                Operation::Open => old.edits_without(&old.erode(&ball).dilate(&ball), 0),
            }
        })
        .collect();
    match operation {
        Operation::Dilate | Operation::Close => map.apply(&edits, |old| old == 0),
        Operation::Erode | Operation::Open => {
            let changed = map.apply(&edits, |_| true);
            if let Some(within_mm) = nearest_mm {
                nearest::reassign(map, &edits, within_mm);
            }
            changed
        }
    }
}

/// The voxels within `distance_mm` of the labels that `pick` chooses, over a box that holds all
/// of them; `None` if there are none.
pub(super) fn surroundings(
    runs: &Runs,
    spacing: [f64; 3],
    distance_mm: f64,
    pick: impl Fn(u16) -> bool + Sync,
) -> Option<Bits> {
    let boxes = runs.boxes();
    let chosen = boxes.iter().enumerate().filter(|&(label, _)| pick(label as u16));
    let tight = chosen.filter_map(|(_, bounds)| bounds.clone()).reduce(join)?;
    let ball = Ball::new(distance_mm, spacing, runs.shape());
    Some(Bits::from_runs(runs, &grown(&tight, ball.reach, runs.shape()), pick).dilate(&ball))
}

/// The steps `dilate`, `erode`, `open` and `close`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Morphology {
    #[serde(rename = "step")]
    operation: Operation,
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    radius_mm: f64,
    nearest_mm: Option<f64>,
}

impl Fields for Morphology {
    type Labels = Vec<u16>;

    fn read(name: &str, mut fields: Value) -> Result<Self, Mismatch> {
        fields["step"] = name.into();
        steps::read(fields)
    }

    fn check(&self) -> Result<(), Mismatch> {
        let adds = matches!(self.operation, Operation::Dilate | Operation::Close);
        if adds && self.nearest_mm.is_some() {
            let found = "`nearest_mm` for a step that removes nothing";
            return Err(Mismatch::new(found, "it with erode and open only"));
        }
        within("radius_mm", self.radius_mm, 100.0)?;
        within("nearest_mm", self.nearest_mm, 50.0)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.structures(&self.labels, &self.except)
    }

    fn apply<T: Voxel>(
        &self,
        labels: &Vec<u16>,
        map: &mut Map<'_, T>,
        _axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        Ok(apply(map, labels, self.operation, self.radius_mm, self.nearest_mm))
    }
}
