//! Surfaces of structures, for what shows, prints or computes with them.
//!
//! A [`Segmentation`] enters; a [`Mesh`] of each structure leaves: closed, also where the image ends,
//! smooth, of the volume that its voxels have, facing outward, in the patient's millimetres. Marching
//! cubes give the surface of the mask, Taubin's filter takes off its steps, and what that and the
//! cut corners cost of the volume is given back along the normals.

mod cubes;
mod gltf;
mod smooth;
mod stl;

pub(crate) use gltf::save_gltf;
pub(crate) use stl::{index_of, save_stl, stl_files};

use crate::model::Label;
use crate::segmenter::Segmentation;
use crate::volume::{Affine, LabelMap};
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// The surface of a structure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// Places in millimetres towards left, posterior and superior, as DICOM, ITK and Slicer count.
    pub vertices: Vec<[f32; 3]>,
    /// Three vertices each, counterclockwise seen from outside.
    pub triangles: Vec<[u32; 3]>,
}

/// A structure that was found, with what is written of it.
#[derive(Clone, Debug)]
pub(crate) struct Found<'a> {
    label: &'a Label,
    voxels: u64,
    bounds: [Range<usize>; 3],
    /// Its surface, where that is kept.
    mesh: Option<Mesh>,
}

impl Found<'_> {
    /// Its surface, made now unless it is there.
    fn mesh(&self, labels: &LabelMap, affine: &Affine) -> Cow<'_, Mesh> {
        match &self.mesh {
            Some(mesh) => Cow::Borrowed(mesh),
            None => Cow::Owned(mesh(labels, self.label.id, self.voxels, &self.bounds, affine)),
        }
    }
}

impl Segmentation {
    /// The surface of a structure; `None` if it was not found.
    #[must_use]
    pub fn mesh(&self, id: u16) -> Option<Mesh> {
        let (voxels, bounds) = boxes(&self.labels).get(usize::from(id)).cloned().flatten()?;
        Some(mesh(&self.labels, id, voxels, &bounds, &self.affine()))
    }
}

/// The structures that were found, in their order; with their surfaces if those are to be `kept` for
/// several files, which otherwise are made one after the other.
pub(crate) fn found(result: &Segmentation, kept: bool) -> Vec<Found<'_>> {
    let (labels, affine) = (&result.labels, result.affine());
    let mut boxes = boxes(labels);
    let own = result.structures.iter().filter_map(|label| {
        let (voxels, bounds) = boxes.get_mut(usize::from(label.id))?.take()?;
        Some(Found { label, voxels, bounds, mesh: None })
    });
    let mut all: Vec<Found<'_>> = own.collect();
    if kept {
        all.par_iter_mut().for_each(|own| {
            own.mesh = Some(mesh(labels, own.label.id, own.voxels, &own.bounds, &affine));
        });
    }
    all
}

fn mesh(
    labels: &LabelMap,
    id: u16,
    voxels: u64,
    bounds: &[Range<usize>; 3],
    affine: &Affine,
) -> Mesh {
    let mut surface = match labels {
        LabelMap::U8(labels) => cubes::march(labels.view(), id, bounds),
        LabelMap::U16(labels) => cubes::march(labels.view(), id, bounds),
    };
    smooth::taubin(&mut surface);
    // Affines count right and anterior.
    let rows = affine.0;
    let signs = [-1.0, -1.0, 1.0];
    for vertex in &mut surface.vertices {
        let [x, y, z] = vertex.map(f64::from);
        *vertex = std::array::from_fn(|k| {
            let [a, b, c, origin] = rows[k];
            (signs[k] * (a * x + b * y + c * z + origin)) as f32
        });
    }
    let determinant = affine.determinant();
    if determinant < 0.0 {
        surface.triangles.iter_mut().for_each(|triangle| triangle.swap(1, 2));
    }
    let steps = [0, 1, 2].map(|axis| length(affine.step(axis)));
    let shortest = steps.into_iter().fold(f64::INFINITY, f64::min);
    smooth::to_volume(&mut surface, voxels as f64 * determinant.abs(), shortest);
    surface
}

/// Voxels and box of each label, where it occurs.
type Boxes = Vec<Option<(u64, [Range<usize>; 3])>>;

fn boxes(labels: &LabelMap) -> Boxes {
    fn of<T: Copy + Into<u16> + Sync + Send>(labels: ArrayView3<'_, T>) -> Boxes {
        let slices: Vec<_> = labels.axis_iter(Axis(0)).collect();
        let one = |(z, slice): (usize, &ndarray::ArrayView2<'_, T>)| {
            let mut found: Boxes = Vec::new();
            for (y, row) in slice.outer_iter().enumerate() {
                for (x, &label) in row.iter().enumerate() {
                    let label = usize::from(label.into());
                    if found.len() <= label {
                        found.resize(label + 1, None);
                    }
                    let own = (1, [z..z + 1, y..y + 1, x..x + 1]);
                    match &mut found[label] {
                        Some(all) => join(all, &own),
                        none => *none = Some(own),
                    }
                }
            }
            found
        };
        let found: Vec<Boxes> = slices.par_iter().enumerate().map(|(z, s)| one((z, s))).collect();
        let mut all: Boxes = Vec::new();
        for boxes in found {
            if all.len() < boxes.len() {
                all.resize(boxes.len(), None);
            }
            for (all, own) in all.iter_mut().zip(boxes) {
                match (all, own) {
                    (Some(all), Some(own)) => join(all, &own),
                    (all, own) => *all = all.take().or(own),
                }
            }
        }
        all
    }
    fn join((count, all): &mut (u64, [Range<usize>; 3]), (more, own): &(u64, [Range<usize>; 3])) {
        *count += more;
        for (all, own) in all.iter_mut().zip(own) {
            *all = all.start.min(own.start)..all.end.max(own.end);
        }
    }
    match labels {
        LabelMap::U8(labels) => of(labels.view()),
        LabelMap::U16(labels) => of(labels.view()),
    }
}

impl Mesh {
    /// What it encloses, in millilitres.
    #[must_use]
    pub fn ml(&self) -> f64 {
        self.volume() / 1000.0
    }

    fn add(&mut self, vertex: [f32; 3]) -> u32 {
        // A surface of four thousand million vertices needs an image of as many voxels.
        let index = self.vertices.len() as u32;
        self.vertices.push(vertex);
        index
    }

    /// What it encloses: the volume of the tetrahedron of each triangle and the first vertex, added up.
    fn volume(&self) -> f64 {
        let Some(base) = self.vertices.first() else { return 0.0 };
        let six = |triangle: &[u32; 3]| {
            let [a, b, c] = triangle.map(|v| sub(self.vertices[v as usize], *base));
            dot(a, cross(b, c))
        };
        self.triangles.iter().map(six).sum::<f64>() / 6.0
    }

    /// The normal of each vertex: of the triangles about it, each weighted by its area.
    fn normals(&self) -> Vec<[f32; 3]> {
        smooth::normals(&self.vertices, &self.triangles)
    }
}

fn sub(a: [f32; 3], b: [f32; 3]) -> [f64; 3] {
    std::array::from_fn(|k| f64::from(a[k]) - f64::from(b[k]))
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn length(v: [f64; 3]) -> f64 {
    dot(v, v).sqrt()
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use std::collections::HashSet;

    /// Labels below `parts` without any order.
    pub(super) fn noise(shape: [usize; 3], parts: u64) -> Array3<u8> {
        let mut state = 1_u64;
        Array3::from_shape_fn(shape, |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % parts) as u8
        })
    }

    /// Every edge is run along once in each direction, so each is of two triangles that face alike.
    pub(super) fn assert_closed(surface: &Mesh) {
        let mut edges = HashSet::new();
        for [a, b, c] in &surface.triangles {
            for edge in [(*a, *b), (*b, *c), (*c, *a)] {
                assert!(edges.insert(edge), "{edge:?} twice in one direction");
            }
        }
        assert!(edges.iter().all(|&(a, b)| edges.contains(&(b, a))), "an edge of one triangle");
    }

    fn ball(shape: [usize; 3], radius: f64, spacing: [f64; 3]) -> LabelMap {
        LabelMap::U8(Array3::from_shape_fn(shape, |(z, y, x)| {
            let at = [z, y, x];
            let square = |k: usize| ((at[k] as f64 - shape[k] as f64 / 2.0) * spacing[k]).powi(2);
            u8::from((0..3).map(square).sum::<f64>() < radius * radius) * 3
        }))
    }

    fn mesh_of(labels: &LabelMap, affine: &Affine) -> (Mesh, f64) {
        let (voxels, bounds) = boxes(labels)[3].clone().expect("found");
        let ml = voxels as f64 * affine.determinant().abs() / 1000.0;
        (mesh(labels, 3, voxels, &bounds, affine), ml)
    }

    fn affine([z, y, x]: [f64; 3]) -> Affine {
        Affine([[-x, 0.0, 0.0, 90.0], [0.0, y, 0.0, -70.0], [0.0, 0.0, z, 1000.0]])
    }

    #[test]
    fn meshes_have_the_volume_of_their_voxels_and_face_outward() {
        // (radius in mm, spacing)
        let cases = [
            (30.0, [1.0, 1.0, 1.0]),
            (30.0, [5.0, 0.8, 0.8]),
            (9.0, [3.0, 3.0, 3.0]),
            (2.7, [3.0, 3.0, 3.0]),
        ];
        for (radius, spacing) in cases {
            let shape = spacing.map(|s| (2.0 * radius / s) as usize + 6);
            let (mesh, ml) = mesh_of(&ball(shape, radius, spacing), &affine(spacing));
            let off = (mesh.ml() - ml).abs() / ml;
            assert!(off < 1e-3, "radius {radius} at {spacing:?}: {} of {ml} ml", mesh.ml());
            assert_closed(&mesh);
        }
    }

    /// The steps of voxels add to the area of a ball; within a hundredth nothing of that is left.
    #[test]
    fn meshes_are_smooth_and_where_the_structure_is() {
        let spacing = [1.0; 3];
        let (mesh, _) = mesh_of(&ball([70; 3], 30.0, spacing), &affine(spacing));
        let area: f64 = mesh
            .triangles
            .iter()
            .map(|t| {
                let [a, b, c] = t.map(|v| mesh.vertices[v as usize]);
                let normal = cross(sub(b, a), sub(c, a));
                dot(normal, normal).sqrt() / 2.0
            })
            .sum();
        let exact = 4.0 * std::f64::consts::PI * 30.0_f64.powi(2);
        assert!((area / exact - 1.0).abs() < 0.01, "{area} of {exact} mm2");
        // Left is against right: the center is voxel 35 of an axis that begins at 90 and runs left.
        let center = [-90.0 + 35.0, 70.0 - 35.0, 1000.0 + 35.0];
        for vertex in &mesh.vertices {
            let apart = sub(*vertex, center);
            let off = dot(apart, apart).sqrt() - 30.0;
            // The mask itself ends up to half a voxel inside.
            assert!(off.abs() < 0.75, "{vertex:?} is {off} mm off the ball");
        }
    }

    #[test]
    fn what_the_image_cuts_off_is_closed_there() {
        let labels = LabelMap::U8(Array3::from_elem((4, 5, 6), 3));
        let (mesh, ml) = mesh_of(&labels, &affine([2.0, 1.0, 1.0]));
        assert!((mesh.ml() - ml).abs() / ml < 1e-3);
        assert_closed(&mesh);
    }

    #[test]
    fn meshes_of_noise_stay_closed() {
        let labels = LabelMap::U8(noise([9, 10, 11], 5));
        let (mesh, _) = mesh_of(&labels, &affine([3.0, 1.0, 1.0]));
        assert!(mesh.vertices.iter().flatten().all(|v| v.is_finite()));
        assert_closed(&mesh);
    }
}
