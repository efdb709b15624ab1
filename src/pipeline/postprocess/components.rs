//! Connected components of runs: union-find per slab, slabs joined in order.

use super::map::Classes;
use super::runs::{Runs, SLAB_PLANES};
use ndarray::{Array3, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which voxels are neighbors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Connectivity {
    /// Voxels that share a face.
    Six,
    /// Voxels that share a face or an edge.
    Eighteen,
    /// Voxels that share a face, an edge or a corner.
    #[default]
    TwentySix,
}

impl TryFrom<u8> for Connectivity {
    type Error = String;

    fn try_from(neighbors: u8) -> Result<Self, String> {
        match neighbors {
            6 => Ok(Self::Six),
            18 => Ok(Self::Eighteen),
            26 => Ok(Self::TwentySix),
            other => Err(format!("connectivity {other}, expected 6, 18 or 26")),
        }
    }
}

impl From<Connectivity> for u8 {
    fn from(connectivity: Connectivity) -> Self {
        match connectivity {
            Connectivity::Six => 6,
            Connectivity::Eighteen => 18,
            Connectivity::TwentySix => 26,
        }
    }
}

/// An earlier row whose runs may touch a row's: plane before or same, row offset, and by how
/// many voxels runs may miss each other along `x`.
type Neighbor = (usize, isize, u16);

impl Connectivity {
    fn neighbors(self) -> &'static [Neighbor] {
        match self {
            Self::Six => &[(0, -1, 0), (1, 0, 0)],
            Self::Eighteen => &[(0, -1, 1), (1, 0, 1), (1, -1, 0), (1, 1, 0)],
            Self::TwentySix => &[(0, -1, 1), (1, 0, 1), (1, -1, 1), (1, 1, 1)],
        }
    }
}

/// Faces within planes `z` only.
pub(super) const FACES_IN_PLANE: &[Neighbor] = &[(0, -1, 0)];
/// Faces within planes `y` only.
pub(super) const FACES_ACROSS_ROWS: &[Neighbor] = &[(1, 0, 0)];
/// Faces in all directions.
pub(super) const FACES: &[Neighbor] = &[(0, -1, 0), (1, 0, 0)];

/// The component of each run and each component's size, in the order of their first voxels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// Component of each run; [`Components::NONE`] for runs without a class.
    pub of_run: Vec<u32>,
    /// Voxels of each component.
    pub voxels: Vec<u64>,
    /// Class of each component.
    pub class: Vec<u16>,
}

impl Components {
    /// What runs without a class belong to.
    pub const NONE: u32 = u32::MAX;

    /// Components of voxels of equal class, for all classes in one pass over the runs.
    ///
    /// # Panics
    ///
    /// If there are 2^32 or more runs.
    #[must_use]
    pub fn new(runs: &Runs, classes: &Classes, connectivity: Connectivity) -> Self {
        Self::with_neighbors(runs, classes, connectivity.neighbors())
    }

    pub(super) fn with_neighbors(runs: &Runs, classes: &Classes, neighbors: &[Neighbor]) -> Self {
        let count = u32::try_from(runs.all().len()).expect("fewer than 2^32 runs");
        let mut parents: Vec<u32> = (0..count).collect();
        let depth = runs.shape()[0];
        let starts: Vec<usize> = (0..depth).step_by(SLAB_PLANES).collect();

        let mut slabs = Vec::with_capacity(starts.len());
        let mut rest = parents.as_mut_slice();
        for &z in &starts {
            let planes = z..(z + SLAB_PLANES).min(depth);
            let range = runs.plane_range(planes.clone());
            let (slab, later) = rest.split_at_mut(range.len());
            rest = later;
            slabs.push((planes, Forest { parents: slab, base: range.start as u32 }));
        }
        let link = Linker { runs, classes, neighbors };
        slabs.into_par_iter().for_each(|(planes, mut forest)| {
            for z in planes.clone() {
                link.plane(z, z > planes.start, true, &mut forest);
            }
        });
        let mut forest = Forest { parents: &mut parents, base: 0 };
        for &z in starts.iter().skip(1) {
            link.plane(z, true, false, &mut forest);
        }
        Self::number(runs, classes, parents)
    }

    /// Turns parents, none after its child, into consecutive component numbers.
    fn number(runs: &Runs, classes: &Classes, mut parents: Vec<u32>) -> Self {
        let (mut voxels, mut class) = (Vec::new(), Vec::new());
        for (i, run) in runs.all().iter().enumerate() {
            let of_label = classes.of(run.label);
            let parent = parents[i] as usize;
            parents[i] = if of_label == 0 {
                Self::NONE
            } else if parent == i {
                voxels.push(0);
                class.push(of_label);
                voxels.len() as u32 - 1
            } else {
                parents[parent]
            };
            if of_label != 0 {
                voxels[parents[i] as usize] += run.voxels();
            }
        }
        Self { of_run: parents, voxels, class }
    }

    /// The component of each voxel counted from 1, and 0 elsewhere, `[z, y, x]`.
    #[must_use]
    pub fn paint(&self, runs: &Runs) -> Array3<u32> {
        let mut out = Array3::zeros(runs.shape());
        runs.for_each(|z, y, i, run| {
            if self.of_run[i] != Self::NONE {
                let (start, end) = (usize::from(run.start), usize::from(run.end));
                out.slice_mut(s![z, y, start..end]).fill(self.of_run[i] + 1);
            }
        });
        out
    }
}

/// Parents of the runs from `base` on, as numbers of runs.
struct Forest<'a> {
    parents: &'a mut [u32],
    base: u32,
}

impl Forest<'_> {
    fn root(&mut self, mut i: u32) -> u32 {
        loop {
            let parent = self.parents[(i - self.base) as usize];
            if parent == i {
                return i;
            }
            let above = self.parents[(parent - self.base) as usize];
            self.parents[(i - self.base) as usize] = above;
            i = above;
        }
    }

    /// The earlier root stays root: numbering follows the voxels, whatever joined first.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a as u32), self.root(b as u32));
        self.parents[(a.max(b) - self.base) as usize] = a.min(b);
    }
}

struct Linker<'a> {
    runs: &'a Runs,
    classes: &'a Classes,
    neighbors: &'a [Neighbor],
}

impl Linker<'_> {
    /// Joins the runs of plane `z` with those of the plane before, of the plane itself, or both.
    fn plane(&self, z: usize, before: bool, within: bool, forest: &mut Forest<'_>) {
        let rows = self.runs.shape()[1];
        for y in 0..rows {
            let row = self.runs.row_range(z, y);
            if row.is_empty() {
                continue;
            }
            if within {
                self.in_row(row.clone(), forest);
            }
            for &(dz, dy, reach) in self.neighbors {
                let wanted = if dz == 0 { within } else { before };
                let other = y.checked_add_signed(dy).filter(|&other| other < rows);
                if let Some(other) = other.filter(|_| wanted) {
                    let earlier = self.runs.row_range(z - dz, other);
                    self.between(row.clone(), earlier, reach, forest);
                }
            }
        }
    }

    fn class(&self, run: usize) -> u16 {
        self.classes.of(self.runs.all()[run].label)
    }

    /// Runs that follow each other in a row may be of one class.
    fn in_row(&self, row: std::ops::Range<usize>, forest: &mut Forest<'_>) {
        for i in row.start + 1..row.end {
            let touch = self.runs.all()[i - 1].end == self.runs.all()[i].start;
            if touch && self.class(i) != 0 && self.class(i) == self.class(i - 1) {
                forest.join(i - 1, i);
            }
        }
    }

    fn between(
        &self,
        row: std::ops::Range<usize>,
        earlier: std::ops::Range<usize>,
        reach: u16,
        forest: &mut Forest<'_>,
    ) {
        let (all, reach) = (self.runs.all(), u32::from(reach));
        let mut first = earlier.start;
        for i in row {
            let (start, end) = (u32::from(all[i].start), u32::from(all[i].end) + reach);
            while first < earlier.end && u32::from(all[first].end) + reach <= start {
                first += 1;
            }
            let class = self.class(i);
            if class == 0 {
                continue;
            }
            let mut j = first;
            while j < earlier.end && u32::from(all[j].start) < end {
                if self.class(j) == class {
                    forest.join(j, i);
                }
                j += 1;
            }
        }
    }
}
