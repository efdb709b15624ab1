//! Marching cubes of a mask (Lorensen and Cline 1987): a closed surface halfway between the voxels
//! inside and those outside.
//!
//! The table of 256 cases is made by walking around the faces of a cube. Where the corners of a face
//! alternate, those inside are taken to be apart, seen from either cube alike, so that the surface
//! has no holes; and no triangle has an inner edge on a face, so that no two edges are the same.
//! Every edge is therefore of exactly two triangles, which run along it in opposite directions.

use super::Mesh;
use ndarray::ArrayView3;
use std::ops::Range;
use std::sync::LazyLock;

/// Corners, numbered by a bit per axis: x, y, z.
type Corner = usize;

/// An edge of a cube: four times its axis, and where it is along the other two.
type Edge = usize;

/// The triangles of one case. What is 12 and more is the middle of a loop.
#[derive(Debug, Default)]
struct Case {
    triangles: Vec<[usize; 3]>,
    /// The loops that have a vertex in their middle.
    centers: Vec<Vec<Edge>>,
}

/// First of the numbers that stand for the middle of a loop.
const CENTERS: usize = 12;

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| (0..256).map(case).collect());

/// The edge between two corners that differ in one axis.
fn edge_between(a: Corner, b: Corner) -> Edge {
    let axis = (a ^ b).trailing_zeros() as usize;
    let (low, high) = (a & ((1 << axis) - 1), a >> (axis + 1));
    4 * axis + (low | high << axis)
}

/// The first corner of an edge; the other has the bit of its axis.
fn start_of(edge: Edge) -> Corner {
    let (axis, place) = (edge / 4, edge % 4);
    let low = place & ((1 << axis) - 1);
    low | (place >> axis) << (axis + 1)
}

/// The corners of each face, counterclockwise from outside.
fn faces() -> impl Iterator<Item = [Corner; 4]> {
    (0..6).map(|face| {
        let (axis, side) = (face / 2, face % 2);
        let (u, v) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
        let base = side << axis;
        if side == 1 {
            [base, base + u, base + u + v, base + v]
        } else {
            [base, base + v, base + u + v, base + u]
        }
    })
}

fn case(inside: usize) -> Case {
    let is_inside = |corner: Corner| inside >> corner & 1 == 1;
    // From the edge where a face's border enters the inside to the one where it leaves it.
    let mut next = [None; 12];
    for corners in faces() {
        for k in 0..4 {
            let (before, first) = (corners[k], corners[(k + 1) % 4]);
            if is_inside(before) || !is_inside(first) {
                continue;
            }
            let run = (1..4).take_while(|j| is_inside(corners[(k + j) % 4])).count();
            let (last, after) = (corners[(k + run) % 4], corners[(k + run + 1) % 4]);
            next[edge_between(before, first)] = Some(edge_between(last, after));
        }
    }
    let mut case = Case::default();
    for start in 0..12 {
        let mut around = Vec::new();
        let mut at = start;
        while let Some(to) = next[at].take() {
            around.push(at);
            at = to;
        }
        if !around.is_empty() {
            case.fill(around);
        }
    }
    case
}

impl Case {
    /// Fills a loop with triangles: a fan without an edge on a face, or one about its middle.
    fn fill(&mut self, around: Vec<Edge>) {
        let n = around.len();
        let apart = |i: usize, j: usize| !share_a_face(around[i % n], around[j % n]);
        let apex = (0..n).find(|&i| (i + 2..i + n - 1).all(|j| apart(i, j)));
        if let Some(i) = apex {
            let fan = (i + 1..i + n - 1).map(|j| [around[i], around[j % n], around[(j + 1) % n]]);
            self.triangles.extend(fan);
            return;
        }
        let center = CENTERS + self.centers.len();
        self.triangles.extend((0..n).map(|j| [center, around[j], around[(j + 1) % n]]));
        self.centers.push(around);
    }
}

fn share_a_face(a: Edge, b: Edge) -> bool {
    let corners = |edge: Edge| [start_of(edge), start_of(edge) | 1 << (edge / 4)];
    let all = [corners(a), corners(b)].concat();
    (0..3).any(|axis| all.iter().all(|c| c >> axis & 1 == all[0] >> axis & 1))
}

/// The surface of what has the label `id` within `bounds`, `[z, y, x]`, in voxels `x, y, z`.
pub(super) fn march<T: Copy + Into<u16>>(
    labels: ArrayView3<'_, T>,
    id: u16,
    bounds: &[Range<usize>; 3],
) -> Mesh {
    let [_, rows, columns] = bounds.each_ref().map(|range| range.len() + 2);
    let origin = bounds.each_ref().map(|range| range.start as f32 - 1.0);
    let mut surface = Mesh::default();
    let (mut below, mut above) = (Layer::new(rows, columns), Layer::new(rows, columns));
    let mut upright = vec![NONE; rows * columns];
    for z in 0..=bounds[0].len() {
        std::mem::swap(&mut below, &mut above);
        let slice = (z < bounds[0].len()).then_some(bounds[0].start + z);
        above.read(labels, id, slice, bounds);
        upright.fill(NONE);
        let mut cubes =
            Cubes { below: &mut below, above: &mut above, upright: &mut upright, columns };
        cubes.march(rows, [origin[2], origin[1], origin[0] + z as f32], &mut surface);
    }
    surface
}

const NONE: u32 = u32::MAX;

/// A slice with a voxel of nothing around it, and the vertices on its edges.
struct Layer {
    inside: Vec<bool>,
    /// Whether a row has any.
    occupied: Vec<bool>,
    along_x: Vec<u32>,
    along_y: Vec<u32>,
}

impl Layer {
    fn new(rows: usize, columns: usize) -> Self {
        let none = vec![NONE; rows * columns];
        Self {
            inside: vec![false; rows * columns],
            occupied: vec![false; rows],
            along_x: none.clone(),
            along_y: none,
        }
    }

    fn read<T: Copy + Into<u16>>(
        &mut self,
        labels: ArrayView3<'_, T>,
        id: u16,
        slice: Option<usize>,
        [_, ys, xs]: &[Range<usize>; 3],
    ) {
        self.inside.fill(false);
        self.occupied.fill(false);
        self.along_x.fill(NONE);
        self.along_y.fill(NONE);
        let Some(z) = slice else { return };
        let columns = xs.len() + 2;
        for (row, y) in ys.clone().enumerate() {
            let own = &mut self.inside[(row + 1) * columns + 1..][..xs.len()];
            for (inside, x) in own.iter_mut().zip(xs.clone()) {
                *inside = labels[[z, y, x]].into() == id;
                self.occupied[row + 1] |= *inside;
            }
        }
    }
}

/// The cubes between two slices.
struct Cubes<'a> {
    below: &'a mut Layer,
    above: &'a mut Layer,
    upright: &'a mut [u32],
    columns: usize,
}

impl Cubes<'_> {
    /// Adds the triangles of all cubes; `origin` is where the first corner lies, `x, y, z`.
    fn march(&mut self, rows: usize, origin: [f32; 3], surface: &mut Mesh) {
        for y in 0..rows - 1 {
            if ![&*self.below, &*self.above].iter().any(|l| l.occupied[y] || l.occupied[y + 1]) {
                continue;
            }
            for x in 0..self.columns - 1 {
                let case = &CASES[self.corners(y, x)];
                if case.triangles.is_empty() {
                    continue;
                }
                let [ox, oy, oz] = origin;
                let place = [ox + x as f32, oy + y as f32, oz];
                let centers: Vec<u32> =
                    case.centers.iter().map(|around| surface.add(middle(around, place))).collect();
                for triangle in &case.triangles {
                    let corners = triangle.map(|v| match v.checked_sub(CENTERS) {
                        Some(k) => centers[k],
                        None => self.vertex(v, y, x, place, surface),
                    });
                    surface.triangles.push(corners);
                }
            }
        }
    }

    /// A bit for each corner of a cube that is inside.
    fn corners(&self, y: usize, x: usize) -> usize {
        let mut bits = 0;
        for (z, layer) in [&*self.below, &*self.above].into_iter().enumerate() {
            for dy in 0..2 {
                let at = (y + dy) * self.columns + x;
                bits |= usize::from(layer.inside[at]) << (4 * z + 2 * dy);
                bits |= usize::from(layer.inside[at + 1]) << (4 * z + 2 * dy + 1);
            }
        }
        bits
    }

    /// The vertex on an edge of a cube; up to four cubes have it.
    fn vertex(
        &mut self,
        edge: Edge,
        y: usize,
        x: usize,
        place: [f32; 3],
        surface: &mut Mesh,
    ) -> u32 {
        let start = start_of(edge);
        let at = (y + (start >> 1 & 1)) * self.columns + x + (start & 1);
        let layer = if start >> 2 & 1 == 0 { &mut *self.below } else { &mut *self.above };
        let slot = match edge / 4 {
            0 => &mut layer.along_x[at],
            1 => &mut layer.along_y[at],
            _ => &mut self.upright[at],
        };
        if *slot == NONE {
            *slot = surface.add(middle(&[edge], place));
        }
        *slot
    }
}

/// The mean of the middles of edges of the cube at `place`.
fn middle(edges: &[Edge], place: [f32; 3]) -> [f32; 3] {
    std::array::from_fn(|axis| {
        let along = |edge: &Edge| {
            if edge / 4 == axis { 0.5 } else { (start_of(*edge) >> axis & 1) as f32 }
        };
        place[axis] + edges.iter().map(along).sum::<f32>() / edges.len() as f32
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_closed, noise};
    use super::*;
    use ndarray::Array3;

    #[test]
    fn edges_and_corners_say_the_same() {
        for edge in 0..12 {
            let start = start_of(edge);
            assert_eq!(edge_between(start, start | 1 << (edge / 4)), edge);
            assert_eq!(edge_between(start | 1 << (edge / 4), start), edge);
        }
    }

    #[test]
    fn a_voxel_is_an_octahedron_that_faces_outward() {
        let surface = march(Array3::from_elem((1, 1, 1), 7_u8).view(), 7, &[0..1, 0..1, 0..1]);
        assert_eq!((surface.vertices.len(), surface.triangles.len()), (6, 8));
        assert!((surface.volume() - 1.0 / 6.0).abs() < 1e-6, "{}", surface.volume());
        assert_closed(&surface);
    }

    /// Every case occurs, beside every other.
    #[test]
    fn surfaces_of_noise_are_closed() {
        for parts in [2, 3, 9] {
            let labels = noise([13, 14, 15], parts);
            let surface = march(labels.view(), 1, &[0..13, 0..14, 0..15]);
            assert_closed(&surface);
        }
    }
}
