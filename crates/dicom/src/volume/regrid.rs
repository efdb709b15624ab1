//! Slices that are no planes of a grid to that grid, and labels from the grid back to them.
//!
//! Each slice is shifted within its plane, and planes between two slices are mixed from both, all
//! linearly. Labels go back to the nearest voxel. The two know the same two numbers of each slice:
//! its depth in planes and its offset in pixels.

use crate::series::stack::Regrid;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

/// What lies outside of every slice.
const AIR: f32 = -1024.0;

/// Values on the grid of `shape`.
pub(super) fn resample(
    slices: ArrayView3<'_, f32>,
    regrid: &Regrid,
    shape: [usize; 3],
) -> Array3<f32> {
    let mut grid = Array3::from_elem(shape, AIR);
    let last = regrid.depth.len() - 1;
    grid.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(plane, mut out)| {
        let depth = plane as f64;
        let above = regrid.depth.partition_point(|&slice| slice < depth).min(last);
        let below = above.saturating_sub(usize::from(regrid.depth[above] > depth));
        let gap = regrid.depth[above] - regrid.depth[below];
        let weight = if gap > 0.0 { ((depth - regrid.depth[below]) / gap) as f32 } else { 0.0 };
        let near = shifted(slices.index_axis(Axis(0), below), regrid.offset[below], out.dim());
        if weight == 0.0 {
            out.assign(&near);
            return;
        }
        let far = shifted(slices.index_axis(Axis(0), above), regrid.offset[above], out.dim());
        ndarray::Zip::from(&mut out)
            .and(&near)
            .and(&far)
            .for_each(|out, &a, &b| *out = a + weight * (b - a));
    });
    grid
}

/// A slice on a plane of `dim`, its first pixel at `offset`.
fn shifted(slice: ArrayView2<'_, f32>, offset: [f64; 2], dim: (usize, usize)) -> Array2<f32> {
    let (rows, columns) = slice.dim();
    let places = |n: usize, len: usize, offset: f64| -> Vec<Option<(usize, usize, f32)>> {
        (0..n).map(|i| between(i as f64 - offset, len)).collect()
    };
    let (down, across) = (places(dim.0, rows, offset[0]), places(dim.1, columns, offset[1]));
    Array2::from_shape_fn(dim, |(y, x)| {
        let (Some((y0, y1, wy)), Some((x0, x1, wx))) = (down[y], across[x]) else { return AIR };
        let line = |y: usize| {
            let (a, b) = (slice[[y, x0]], slice[[y, x1]]);
            a + wx * (b - a)
        };
        let (a, b) = (line(y0), line(y1));
        a + wy * (b - a)
    })
}

/// The two pixels around `at` and the weight of the second; within half a pixel of the edge, the
/// edge.
fn between(at: f64, len: usize) -> Option<(usize, usize, f32)> {
    let last = (len - 1) as f64;
    if at < -0.5 || at > last + 0.5 {
        return None;
    }
    let at = at.clamp(0.0, last);
    let low = at.floor();
    Some((low as usize, at.ceil() as usize, (at - low) as f32))
}

/// Labels of slice `number`, of `dim` pixels, from those of the grid.
pub(super) fn carry_back<T: Copy + Default>(
    labels: ArrayView3<'_, T>,
    regrid: &Regrid,
    number: usize,
    dim: (usize, usize),
) -> Array2<T> {
    let plane = regrid.depth[number].round() as usize;
    let plane = labels.index_axis(Axis(0), plane.min(labels.dim().0 - 1));
    let [down, across] = regrid.offset[number];
    let place = |i: usize, offset: f64| (i as f64 + offset).round() as usize;
    Array2::from_shape_fn(dim, |(y, x)| {
        plane.get([place(y, down), place(x, across)]).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_by_whole_pixels_moves_and_labels_come_back() {
        let slices = Array3::from_shape_fn([3, 4, 5], |(z, y, x)| (100 * z + 10 * y + x) as f32);
        let regrid =
            Regrid { depth: vec![0.0, 1.0, 2.0], offset: vec![[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]] };
        let grid = resample(slices.view(), &regrid, [3, 6, 6]);
        assert_eq!(grid[[0, 0, 1]], 0.0);
        assert_eq!(grid[[0, 0, 0]], AIR);
        assert_eq!(grid[[1, 1, 1]], 100.0);
        assert_eq!(grid[[2, 5, 4]], 234.0);
        let labels = grid.mapv(|v| if v == AIR { 0 } else { v as u16 + 1 });
        for k in 0..3 {
            let back = carry_back(labels.view(), &regrid, k, (4, 5));
            assert_eq!(back, slices.index_axis(Axis(0), k).mapv(|v| v as u16 + 1), "slice {k}");
        }
    }

    #[test]
    fn planes_between_slices_are_mixed() {
        let slices = Array3::from_shape_fn([3, 1, 1], |(z, _, _)| [0.0, 10.0, 30.0][z]);
        let regrid = Regrid { depth: vec![0.0, 1.0, 3.0], offset: vec![[0.0, 0.0]; 3] };
        let grid = resample(slices.view(), &regrid, [4, 1, 1]);
        assert_eq!(grid.into_raw_vec_and_offset().0, [0.0, 10.0, 20.0, 30.0]);
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_two() {
        let slices = Array3::from_shape_fn([2, 1, 3], |(_, _, x)| x as f32);
        let regrid = Regrid { depth: vec![0.0, 1.0], offset: vec![[0.0, 0.0], [0.0, 0.5]] };
        let grid = resample(slices.view(), &regrid, [2, 1, 4]);
        let second = grid.index_axis(Axis(0), 1);
        assert_eq!(second.iter().copied().collect::<Vec<_>>(), [0.0, 0.5, 1.5, 2.0]);
    }
}
