//! Left and right by the midline.

use super::components::{Components, Connectivity};
use super::map::{Classes, Edit, Map};
use super::patient::PatientAxes;
use super::runs::{Runs, Voxel};
use super::steps::{Fields, Select, Table, within};
use crate::Mismatch;
use serde::Deserialize;

/// A structure that exists on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Label on the patient's left.
    pub left: u16,
    /// Label on the patient's right.
    pub right: u16,
}

/// What changes side as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Components, by their centroids.
    Components(Connectivity),
    /// Each voxel by itself.
    Voxels,
}

/// Gives what lies more than `margin_mm` on the wrong side of the midline its partner's label.
///
/// The midline is a straight line in the coronal plane, fitted by least squares to all voxels of
/// the labels `midline` (spine, cord, sternum), so a patient who lies tilted is no problem; a
/// strong scoliosis is, which is what the margin is for.
///
/// Returns the number of voxels changed, or `None` if the map has no voxel of the midline.
pub fn correct<T: Voxel>(
    map: &mut Map<'_, T>,
    pairs: &[Pair],
    midline: &[u16],
    axes: &PatientAxes,
    margin_mm: f64,
    unit: Unit,
) -> Option<u64> {
    let runs = map.runs();
    let line = Line::fit(runs, &Classes::union(midline), axes)?;
    let sided: Vec<u16> = pairs.iter().flat_map(|pair| [pair.left, pair.right]).collect();
    let classes = Classes::each(&sided);
    let partner = |label: u16, right_mm: f64| {
        pairs.iter().find_map(|pair| match right_mm {
            mm if label == pair.left && mm > margin_mm => Some(pair.right),
            mm if label == pair.right && mm < -margin_mm => Some(pair.left),
            _ => None,
        })
    };
    Some(match unit {
        Unit::Components(connectivity) => {
            let at = |voxel| line.right_of(axes.position(voxel));
            let choose = |label, mean| partner(label, mean).unwrap_or(label);
            relabel_components(map, &classes, connectivity, at, choose)
        }
        Unit::Voxels => {
            let mut edits = Vec::new();
            each_voxel(runs, &classes, |i, voxel| {
                let right_mm = line.right_of(axes.position(voxel));
                if let Some(label) = partner(runs.all()[i].label, right_mm) {
                    let ([z, y], x) = ([voxel[0] as u32, voxel[1] as u32], voxel[2] as u16);
                    edits.push(Edit { z, y, start: x, end: x + 1, label });
                }
            });
            map.apply(&edits, |_| true)
        }
    })
}

/// Tells sides apart where a model does not: what has the `left` label of one of `halves` gets the
/// `right` one if it lies right of the middle, each component as a whole.
///
/// The middle is halfway between the means of what is known to be left and right, by the pairs
/// `known`. If only one side of them is there, only one side is in the image. If neither is, nobody
/// knows: the labels are removed.
///
/// Returns the number of voxels changed, or `None` if labels were removed.
pub fn tell_apart<T: Voxel>(
    map: &mut Map<'_, T>,
    halves: &[Pair],
    known: &[Pair],
    axes: &PatientAxes,
) -> Option<u64> {
    let runs = map.runs();
    let mean = |side: fn(&Pair) -> u16| {
        let labels: Vec<u16> = known.iter().map(side).collect();
        let (mut count, mut sum) = (0_u64, 0.0);
        each_voxel(runs, &Classes::union(&labels), |_, voxel| {
            count += 1;
            sum += axes.position(voxel)[2];
        });
        (count > 0).then(|| sum / count as f64)
    };
    let middle = match (mean(|pair| pair.left), mean(|pair| pair.right)) {
        (Some(left), Some(right)) => Some(f64::midpoint(left, right)),
        (Some(_), None) => Some(f64::INFINITY),
        (None, Some(_)) => Some(f64::NEG_INFINITY),
        (None, None) => None,
    };
    let lefts: Vec<u16> = halves.iter().map(|pair| pair.left).collect();
    let right = |label: u16| halves.iter().find(|pair| pair.left == label).map(|pair| pair.right);
    let at = |voxel| axes.position(voxel)[2];
    let choose = |label, mean| match middle {
        None => 0,
        Some(middle) if mean > middle => right(label).unwrap_or(label),
        Some(_) => label,
    };
    let classes = Classes::each(&lefts);
    let changed = relabel_components(map, &classes, Connectivity::TwentySix, at, choose);
    (middle.is_some() || changed == 0).then_some(changed)
}

/// Gives each component the label that `choose` makes of its own and of the mean of `at` over its
/// voxels, which is linear along a run. Returns the number of voxels changed.
fn relabel_components<T: Voxel>(
    map: &mut Map<'_, T>,
    classes: &Classes,
    connectivity: Connectivity,
    at: impl Fn([usize; 3]) -> f64,
    choose: impl Fn(u16, f64) -> u16,
) -> u64 {
    let runs = map.runs();
    let components = Components::new(runs, classes, connectivity);
    let mut sums = vec![0.0; components.voxels.len()];
    runs.for_each(|z, y, i, run| {
        if let Some(sum) = sums.get_mut(components.of_run[i] as usize) {
            // Its ends say the mean.
            let [first, last] = [run.start, run.end - 1].map(|x| at([z, y, usize::from(x)]));
            *sum += f64::midpoint(first, last) * run.voxels() as f64;
        }
    });
    let labels: Vec<u16> = (components.class.iter().zip(&components.voxels).zip(sums))
        .map(|((&label, &voxels), sum)| choose(label, sum / voxels as f64))
        .collect();
    map.relabel(|i, run| labels.get(components.of_run[i] as usize).copied().unwrap_or(run.label))
}

/// Calls `f` with the run's index and the position of every voxel that has a class.
pub(super) fn each_voxel(runs: &Runs, classes: &Classes, mut f: impl FnMut(usize, [usize; 3])) {
    runs.for_each(|z, y, i, run| {
        if classes.of(run.label) != 0 {
            (run.start..run.end).for_each(|x| f(i, [z, y, usize::from(x)]));
        }
    });
}

/// `right = middle + slope * (superior - height)`, in millimetres.
struct Line {
    middle: f64,
    height: f64,
    slope: f64,
}

impl Line {
    fn fit(runs: &Runs, classes: &Classes, axes: &PatientAxes) -> Option<Self> {
        let (mut count, mut sum_s, mut sum_r) = (0.0, 0.0, 0.0);
        each_voxel(runs, classes, |_, voxel| {
            let [superior, _, right] = axes.position(voxel);
            count += 1.0;
            sum_s += superior;
            sum_r += right;
        });
        if count == 0.0 {
            return None;
        }
        let (height, middle) = (sum_s / count, sum_r / count);
        let (mut square, mut product) = (0.0, 0.0);
        each_voxel(runs, classes, |_, voxel| {
            let [superior, _, right] = axes.position(voxel);
            square += (superior - height).powi(2);
            product += (superior - height) * (right - middle);
        });
        let slope = if square > 0.0 { product / square } else { 0.0 };
        Some(Self { middle, height, slope })
    }

    fn right_of(&self, [superior, _, right]: [f64; 3]) -> f64 {
        right - self.middle - self.slope * (superior - self.height)
    }
}

/// The step `sides`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sides {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    midline: Select,
    margin_mm: f64,
    #[serde(default)]
    by_voxel: bool,
    #[serde(default)]
    connectivity: Connectivity,
}

impl Fields for Sides {
    type Labels = (Vec<Pair>, Vec<u16>);

    fn check(&self) -> Result<(), Mismatch> {
        within("margin_mm", self.margin_mm, 1e4)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        let pairs = table.pairs(&self.labels, &self.except)?;
        let midline = table.structures(&self.midline, &[])?;
        Ok(pairs.zip(midline))
    }

    fn apply<T: Voxel>(
        &self,
        (pairs, midline): &Self::Labels,
        map: &mut Map<'_, T>,
        axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        let components = Unit::Components(self.connectivity);
        let unit = if self.by_voxel { Unit::Voxels } else { components };
        let changed = correct(map, pairs, midline, axes, self.margin_mm, unit);
        changed.ok_or("no voxel of the midline")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};
    use ndarray::Array3;

    /// Right is towards higher x.
    fn axes(shape: [usize; 3]) -> PatientAxes {
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        PatientAxes::new(&Grid { shape, spacing: [1.0; 3], affine })
    }

    #[test]
    fn what_has_no_side_gets_that_of_its_place() {
        let halves = [Pair { left: 7, right: 8 }];
        let known = [Pair { left: 1, right: 2 }];
        // (case, row of labels, row after, whether it was known)
        let cases = [
            ("both sides", [1, 1, 7, 0, 0, 7, 7, 2], [1, 1, 7, 0, 0, 8, 8, 2], true),
            ("as a whole", [1, 0, 0, 7, 7, 7, 7, 2], [1, 0, 0, 8, 8, 8, 8, 2], true),
            ("left only", [1, 0, 7, 0, 0, 0, 7, 0], [1, 0, 7, 0, 0, 0, 7, 0], true),
            ("right only", [7, 0, 0, 0, 7, 0, 0, 2], [8, 0, 0, 0, 8, 0, 0, 2], true),
            ("nobody knows", [7, 0, 5, 0, 7, 0, 0, 0], [0, 0, 5, 0, 0, 0, 0, 0], false),
            ("nothing there", [0, 0, 5, 0, 0, 0, 0, 0], [0, 0, 5, 0, 0, 0, 0, 0], true),
        ];
        for (case, row, after, is_known) in cases {
            let mut labels = Array3::from_shape_vec((1, 1, 8), row.to_vec()).expect("a row");
            let mut map = Map::<u8>::new(labels.view_mut(), [1.0; 3]);
            let told = tell_apart(&mut map, &halves, &known, &axes([1, 1, 8]));
            assert_eq!(told.is_some(), is_known, "{case}");
            drop(map);
            assert_eq!(labels.as_slice(), Some(&after[..]), "{case}");
        }
    }
}
