//! Projections through the whole volume: brightest values and translucent surfaces.

use super::canvas::{Picture, Raster, Rgb};
use super::{Window, blend};
use crate::volume::VoxelView;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;

/// A structure lets this part of what is behind its surface through.
const TRANSLUCENCY: f32 = 0.4;

/// What a ray has met so far.
#[derive(Clone, Copy)]
struct Ray {
    /// Largest value.
    brightest: f32,
    /// Colors of the surfaces met, weighted by how visible they are.
    color: [f32; 3],
    /// Part of what lies further on that is still visible.
    visible: f32,
    /// Voxels before the first surface.
    depth: f32,
    /// Label of the voxel before.
    last: u16,
}

impl Ray {
    const NEW: Self = Self {
        brightest: f32::NEG_INFINITY,
        color: [0.0; 3],
        visible: 1.0,
        depth: f32::NAN,
        last: 0,
    };

    fn meet(&mut self, value: f32, label: u16, depth: usize, colors: &[Rgb]) {
        self.brightest = self.brightest.max(value);
        if label == self.last {
            return;
        }
        self.last = label;
        if label > 0 {
            if self.visible == 1.0 {
                self.depth = depth as f32;
            }
            let color = colors.get(usize::from(label)).copied().unwrap_or([255; 3]);
            let weight = self.visible * (1.0 - TRANSLUCENCY);
            for (sum, part) in self.color.iter_mut().zip(color) {
                *sum += weight * f32::from(part);
            }
            self.visible *= TRANSLUCENCY;
        }
    }
}

/// What both projections have seen, one row per slice from superior to inferior.
pub(super) struct Projections {
    coronal: Vec<Ray>,
    sagittal: Vec<Ray>,
    shape: [usize; 3],
    spacing: [f64; 3],
}

/// Looks through the volume, `[z, y, x]` with x to the patient's left, y to posterior and z to
/// superior, from the front and from the left.
pub(super) fn project<T: Copy + Into<u16> + Sync>(
    ct: VoxelView<'_>,
    labels: ArrayView3<'_, T>,
    spacing: [f64; 3],
    colors: &[Rgb],
) -> Projections {
    let [nz, ny, nx] = ct.shape();
    let mut coronal = vec![Ray::NEW; nz * nx];
    let mut sagittal = vec![Ray::NEW; nz * ny];
    coronal.par_chunks_mut(nx).zip(sagittal.par_chunks_mut(ny)).enumerate().for_each(
        |(row, (front, side))| {
            let z = nz - 1 - row;
            let (ct, labels) = (ct.slice(z), labels.index_axis(Axis(0), z));
            for (y, from_left) in side.iter_mut().enumerate() {
                for (x, from_front) in front.iter_mut().enumerate() {
                    from_front.meet(ct[[y, x]], labels[[y, x]].into(), y, colors);
                }
                for x in (0..nx).rev() {
                    from_left.meet(ct[[y, x]], labels[[y, x]].into(), nx - 1 - x, colors);
                }
            }
        },
    );
    Projections { coronal, sagittal, shape: [nz, ny, nx], spacing }
}

impl Projections {
    /// The view from the front: patient's right is left, superior is up.
    pub(super) fn coronal(&self, width: usize, height: usize, window: Window) -> Picture {
        let [_, dy, dx] = self.spacing;
        picture(&self.coronal, self.shape[2], [dx, dy], (width, height), window, self.spacing[0])
    }

    /// The view from the patient's left: anterior is left, superior is up.
    pub(super) fn sagittal(&self, width: usize, height: usize, window: Window) -> Picture {
        let [_, dy, dx] = self.spacing;
        picture(&self.sagittal, self.shape[1], [dy, dx], (width, height), window, self.spacing[0])
    }
}

/// Colors the rays; `across` and `along` are the spacing beside and along a ray, `down` that
/// between rows.
fn picture(
    rays: &[Ray],
    columns: usize,
    [across, along]: [f64; 2],
    (width, height): (usize, usize),
    window: Window,
    down: f64,
) -> Picture {
    let values = rays
        .iter()
        .enumerate()
        .map(|(k, ray)| {
            let light = light(rays, k, columns, [across, along, down]);
            let [r, g, b] = ray.color.map(|part| part * light);
            [window.gray(ray.brightest), r, g, b, 1.0 - ray.visible]
        })
        .collect();
    let plane = Raster { width: columns, values }.resized(width, height);
    let mut picture = Picture::new(width, height, [0; 3]);
    for (k, [gray, r, g, b, covered]) in plane.values.into_iter().enumerate() {
        // Colors are weighted by coverage already.
        let share = 0.85;
        let color = [r, g, b].map(|part| share * part + gray * (1.0 - share * covered));
        picture.set(k % width, k / width, blend(color));
    }
    picture
}

/// How bright the surface is under a lamp beside the viewer, from the depths around it.
fn light(rays: &[Ray], k: usize, columns: usize, [across, along, down]: [f64; 3]) -> f32 {
    let depth = |k: usize| f64::from(rays[k].depth) * along;
    let here = depth(k);
    if !here.is_finite() {
        return 1.0;
    }
    let column = k % columns;
    let left = if column > 0 { depth(k - 1) } else { here };
    let right = if column + 1 < columns { depth(k + 1) } else { here };
    let above = if k >= columns { depth(k - columns) } else { here };
    let below = if k + columns < rays.len() { depth(k + columns) } else { here };
    let or_here = |depth: f64| if depth.is_finite() { depth } else { here };
    let slope_x = (or_here(right) - or_here(left)) / (2.0 * across);
    let slope_y = (or_here(below) - or_here(above)) / (2.0 * down);
    // The normal is (slope_x, slope_y, 1); the lamp is up and to the left.
    let cosine = (0.35 * slope_x + 0.35 * slope_y + 0.87) / (slope_x.hypot(slope_y).hypot(1.0));
    (0.55 + 0.6 * cosine.clamp(0.0, 1.0)) as f32
}
