//! Left and right by the midline.

use super::components::{Components, Connectivity};
use super::map::{Classes, Edit, Map};
use super::patient::PatientAxes;
use super::runs::{Runs, Voxel};

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
            let components = Components::new(runs, &classes, connectivity);
            let mut sums = vec![0.0; components.voxels.len()];
            // Linear along a run: its ends say the mean.
            runs.for_each(|z, y, i, run| {
                if let Some(sum) = sums.get_mut(components.of_run[i] as usize) {
                    let at = |x: u16| line.right_of(axes.position([z, y, usize::from(x)]));
                    *sum += f64::midpoint(at(run.start), at(run.end - 1)) * run.voxels() as f64;
                }
            });
            let labels: Vec<_> = (components.class.iter().zip(&components.voxels).zip(sums))
                .map(|((&label, &voxels), sum)| {
                    partner(label, sum / voxels as f64).unwrap_or(label)
                })
                .collect();
            map.relabel(|i, run| {
                labels.get(components.of_run[i] as usize).copied().unwrap_or(run.label)
            })
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
