//! Smoothing that keeps a surface where it is, and its volume.

use super::{Mesh, cross, length, sub};

/// Steps of Taubin's filter (1995): one that shrinks and one that swells a little more, so that
/// waves longer than some ten edges pass and shorter ones, the steps of voxels, do not.
const SHRINK: f32 = 0.5;
const SWELL: f32 = -0.53;
const ROUNDS: usize = 20;

/// How far a vertex may go along an axis, in voxels: a structure of one voxel is not smoothed away.
const MOST_VOXELS: f32 = 0.45;

/// Part of the volume that may be missing in the end.
const VOLUME_TOLERANCE: f64 = 1e-4;

/// Takes off the steps of voxels. Vertices are in voxels; as each goes towards the mean of its
/// neighbors, it does not matter how long those are.
pub(super) fn taubin(surface: &mut Mesh) {
    let Mesh { vertices, triangles } = surface;
    let start = vertices.clone();
    // Each neighbor is a corner of two of the triangles about a vertex.
    let mut neighbors = vec![0_u16; vertices.len()];
    for corner in triangles.iter().flatten() {
        neighbors[*corner as usize] += 2;
    }
    let mut sums = vec![[0.0_f32; 3]; vertices.len()];
    for factor in [SHRINK, SWELL].repeat(ROUNDS) {
        sums.fill([0.0; 3]);
        for triangle in &*triangles {
            let [a, b, c] = triangle.map(|v| v as usize);
            for k in 0..3 {
                let [va, vb, vc] = [vertices[a][k], vertices[b][k], vertices[c][k]];
                sums[a][k] += vb + vc;
                sums[b][k] += va + vc;
                sums[c][k] += va + vb;
            }
        }
        for (i, vertex) in vertices.iter_mut().enumerate() {
            for k in 0..3 {
                let mean = sums[i][k] / f32::from(neighbors[i]);
                let moved = vertex[k] + factor * (mean - vertex[k]);
                vertex[k] = moved.clamp(start[i][k] - MOST_VOXELS, start[i][k] + MOST_VOXELS);
            }
        }
    }
}

/// Moves the surface along its normals until it encloses `target`, in steps of at most a quarter of
/// `shortest`, the shortest edge of a voxel.
pub(super) fn to_volume(surface: &mut Mesh, target: f64, shortest: f64) {
    for _ in 0..64 {
        let missing = target - surface.volume();
        if missing.abs() <= VOLUME_TOLERANCE * target {
            return;
        }
        let Mesh { vertices, triangles } = surface;
        let area = triangles.iter().map(|t| length(twice_area(vertices, t)) / 2.0).sum::<f64>();
        if area <= 0.0 {
            return;
        }
        let step = (missing / area).clamp(-shortest / 4.0, shortest / 4.0);
        let normals = normals(vertices, triangles);
        for (vertex, normal) in vertices.iter_mut().zip(normals) {
            for k in 0..3 {
                vertex[k] += (step * f64::from(normal[k])) as f32;
            }
        }
    }
}

/// The normal of each vertex: of the triangles about it, each weighted by its area.
pub(super) fn normals(vertices: &[[f32; 3]], triangles: &[[u32; 3]]) -> Vec<[f32; 3]> {
    let mut sums = vec![[0.0_f64; 3]; vertices.len()];
    for triangle in triangles {
        let normal = twice_area(vertices, triangle);
        for corner in triangle {
            let sum = &mut sums[*corner as usize];
            *sum = std::array::from_fn(|k| sum[k] + normal[k]);
        }
    }
    let unit = |sum: [f64; 3]| {
        let length = length(sum);
        // Where triangles cancel each other out any direction is as good.
        if length > 0.0 { sum.map(|v| (v / length) as f32) } else { [0.0, 0.0, 1.0] }
    };
    sums.into_iter().map(unit).collect()
}

/// Normal of a triangle, twice as long as its area is large.
pub(super) fn twice_area(vertices: &[[f32; 3]], triangle: &[u32; 3]) -> [f64; 3] {
    let [a, b, c] = triangle.map(|v| vertices[v as usize]);
    cross(sub(b, a), sub(c, a))
}
