//! Around the stages: the grid of a task, which images come to first and labels go back from.
//!
//! The image turned to right, anterior, superior axes enters and leaves on the task's grid;
//! labels found there enter and leave on the image's own. This is what `TotalSegmentator` does
//! around nnU-Net with `scipy.ndimage.zoom`: corners on corners, values interpolated in `f64`
//! and cut off behind the point, labels by one step to the nearest voxel.

use crate::model::{GridOrder, Integer, TaskGrid};
use crate::volume::{Scale, Spacing, Stored, VoxelView, Voxels, with_stored};
use crate::{Error, Result};
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis, Zip, parallel::prelude::*};

/// Most voxels along an axis of the grid, as of any grid a network runs on.
const MOST_VOXELS: f64 = u16::MAX as f64;

/// The grid of a task for one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Voxels per axis, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Millimetres per voxel, `[z, y, x]`, as the task's file would say them.
    pub spacing: Spacing,
    /// Whether it is the image's own grid.
    pub is_same: bool,
}

/// Lays the task's grid over an image of `shape` voxels of `spacing` mm, `[z, y, x]` both.
///
/// Axis `k` becomes `shape[k] * (spacing[k] / wanted[k])` voxels, rounded half to even. An image
/// that has exactly the wanted spacing stays as it is.
///
/// # Errors
///
/// [`Error::Volume`] if an axis would have no voxel or too many.
pub fn place(grid: &TaskGrid, shape: [usize; 3], spacing: Spacing) -> Result<Placed> {
    let own = Placed { shape, spacing, is_same: true };
    let Some(wanted) = grid.spacing.filter(|wanted| *wanted != spacing) else { return Ok(own) };
    let factor: [f64; 3] = std::array::from_fn(|k| spacing[k] / wanted[k]);
    let counts: [f64; 3] = std::array::from_fn(|k| (shape[k] as f64 * factor[k]).round_ties_even());
    if !counts.iter().all(|n| (1.0..=MOST_VOXELS).contains(n)) {
        return Err(Error::volume(
            format!("{shape:?} voxels of {spacing:?} mm for a grid of {wanted:?} mm"),
            format!("a grid of 1 to {MOST_VOXELS} voxels along each axis"),
        ));
    }
    // The affine's columns are divided by the factor, and the file keeps 32 bits of their length.
    let spacing = std::array::from_fn(|k| f64::from((spacing[k] / factor[k]) as f32));
    Ok(Placed { shape: counts.map(|n| n as usize), spacing, is_same: false })
}

/// The image on the task's grid.
#[must_use]
pub fn to_grid(image: VoxelView<'_>, grid: &TaskGrid, placed: &Placed) -> Voxels {
    if placed.is_same {
        return copied(image);
    }
    let from = image.shape();
    let axes: [Vec<Tap>; 3] = std::array::from_fn(|k| match grid.order {
        GridOrder::Nearest => nearest_taps(from[k], placed.shape[k]),
        GridOrder::Linear => linear_taps(from[k], placed.shape[k]),
    });
    let values = match grid.integer {
        Integer::Truncate => sampled(image, &axes, f64::trunc),
        Integer::Keep => sampled(image, &axes, |value| value),
    };
    if grid.integer == Integer::Truncate { narrowed(values) } else { Voxels::F32(values) }
}

/// The image with what is behind the point cut off, as it lies; `None` if there is nothing.
#[must_use]
pub fn truncated(image: VoxelView<'_>) -> Option<Voxels> {
    match image {
        VoxelView::I16(_, scale) if scale == Scale::NONE => None,
        _ => Some(with_stored!(image, |stored, scale| {
            narrowed(Zip::from(stored).par_map_collect(|v| v.exact(scale).trunc() as f32))
        })),
    }
}

/// Writes `labels`, found on the task's grid, to the image's own: each voxel takes the label of
/// the nearest.
pub fn labels_back<T: Copy + Send + Sync>(
    labels: ArrayView3<'_, T>,
    mut target: ArrayViewMut3<'_, T>,
) {
    let (from, to): ([usize; 3], [usize; 3]) = (labels.dim().into(), target.dim().into());
    let [zs, ys, xs]: [Vec<usize>; 3] = std::array::from_fn(|k| {
        nearest_taps(from[k], to[k]).into_iter().map(|tap| tap.low).collect()
    });
    target.axis_iter_mut(Axis(0)).into_par_iter().zip(&zs).for_each(|(mut plane, &z)| {
        for (mut row, &y) in plane.outer_iter_mut().zip(&ys) {
            for (to, &x) in row.iter_mut().zip(&xs) {
                *to = labels[[z, y, x]];
            }
        }
    });
}

/// What a voxel of the grid reads along one axis: two neighbors and the second one's share.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    low: usize,
    high: usize,
    share: f64,
}

/// Where the voxels of an axis of `to` voxels lie among `from`, corners on corners.
fn positions(from: usize, to: usize) -> impl Iterator<Item = f64> {
    let step = if to > 1 { (from as f64 - 1.0) / (to as f64 - 1.0) } else { 1.0 };
    let last = from as f64 - 1.0;
    // Rounding may lead past the last one.
    (0..to).map(move |k| (k as f64 * step).min(last))
}

fn linear_taps(from: usize, to: usize) -> Vec<Tap> {
    let tap = |position: f64| {
        let low = position.floor();
        let high = (low as usize + 1).min(from - 1);
        Tap { low: low as usize, high, share: position - low }
    };
    positions(from, to).map(tap).collect()
}

fn nearest_taps(from: usize, to: usize) -> Vec<Tap> {
    let tap = |position: f64| {
        let nearest = ((position + 0.5).floor() as usize).min(from - 1);
        Tap { low: nearest, high: nearest, share: 0.0 }
    };
    positions(from, to).map(tap).collect()
}

/// Every voxel as the sum of its eight neighbors, in the order of the reference: `x` slowest,
/// each value times its shares along `x`, `y` and `z`.
fn sampled(
    image: VoxelView<'_>,
    axes: &[Vec<Tap>; 3],
    finish: impl Fn(f64) -> f64 + Sync,
) -> Array3<f32> {
    with_stored!(image, |stored, scale| {
        let value = |at: [usize; 3]| stored[at].exact(scale);
        let [zs, ys, xs] = axes;
        let mut out = Array3::zeros((zs.len(), ys.len(), xs.len()));
        out.axis_iter_mut(Axis(0)).into_par_iter().zip(zs).for_each(|(mut plane, z)| {
            for (mut row, y) in plane.outer_iter_mut().zip(ys) {
                for (to, x) in row.iter_mut().zip(xs) {
                    let mut sum = 0.0;
                    for (ix, wx) in [(x.low, 1.0 - x.share), (x.high, x.share)] {
                        for (iy, wy) in [(y.low, 1.0 - y.share), (y.high, y.share)] {
                            for (iz, wz) in [(z.low, 1.0 - z.share), (z.high, z.share)] {
                                sum += value([iz, iy, ix]) * wx * wy * wz;
                            }
                        }
                    }
                    *to = finish(sum) as f32;
                }
            }
        });
        out
    })
}

/// Whole numbers in the smallest type that holds them.
fn narrowed(values: Array3<f32>) -> Voxels {
    let small = |v: &f32| (f32::from(i16::MIN)..=f32::from(i16::MAX)).contains(v);
    if values.iter().all(small) {
        return values.mapv(|v| v as i16).into();
    }
    Voxels::F32(values)
}

/// The image as it is seen.
fn copied(image: VoxelView<'_>) -> Voxels {
    match image {
        VoxelView::I16(stored, scale) => {
            Voxels::I16(stored.as_standard_layout().into_owned(), scale)
        }
        VoxelView::F32(values) => Voxels::F32(values.as_standard_layout().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(spacing: [f64; 3]) -> TaskGrid {
        TaskGrid { spacing: Some(spacing), ..TaskGrid::default() }
    }

    #[test]
    fn grids_are_laid_as_the_reference_lays_them() {
        // (case, voxels, mm, wanted mm, voxels of the grid)
        let cases = [
            ("half to even down", 5, 1.5, 3.0, Some(2)),
            ("half to even up", 7, 1.5, 3.0, Some(4)),
            ("finer", 70, 2.5, 1.5, Some(117)),
            ("less than half a voxel", 1, 1.0, 6.0, None),
        ];
        for (case, voxels, mm, wanted, expected) in cases {
            let placed = place(&grid([wanted; 3]), [voxels; 3], [mm; 3]).ok();
            assert_eq!(placed.map(|p| p.shape), expected.map(|n| [n; 3]), "{case}");
        }
        let own = place(&grid([1.5; 3]), [9; 3], [1.5; 3]).expect("its own");
        assert!(own.is_same && own.shape == [9; 3]);
        assert!(place(&TaskGrid::default(), [9; 3], [0.7; 3]).expect("any").is_same);
    }

    #[test]
    fn values_are_cut_off_and_not_rounded() {
        let image = Array3::from_shape_vec((1, 1, 3), vec![-10_i16, -5, 6]).expect("a row");
        let image = Voxels::from(image);
        let placed = Placed { shape: [1, 1, 5], spacing: [1.0; 3], is_same: false };
        let expected = Array3::from_shape_vec((1, 1, 5), vec![-10_i16, -7, -5, 0, 6]).expect("row");
        assert_eq!(to_grid(image.view(), &grid([0.5; 3]), &placed), Voxels::from(expected));
        let whole = truncated(Voxels::F32(ndarray::arr3(&[[[-0.9, 1.9, 40000.5]]])).view());
        assert_eq!(whole, Some(Voxels::F32(ndarray::arr3(&[[[-0.0, 1.0, 40000.0]]]))));
    }

    #[test]
    fn labels_come_back_from_the_nearest_voxel() {
        let labels = ndarray::arr3(&[[[1_u8, 2, 3]]]);
        let mut target = Array3::zeros((1, 1, 5));
        labels_back(labels.view(), target.view_mut());
        assert_eq!(target, ndarray::arr3(&[[[1, 2, 2, 3, 3]]]));
        let mut one = Array3::zeros((1, 1, 1));
        labels_back(labels.view(), one.view_mut());
        assert_eq!(one, ndarray::arr3(&[[[1]]]));
    }
}
