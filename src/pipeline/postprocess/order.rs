//! Numbered structures in their order along the body: vertebrae, ribs.

use super::components::{Components, Connectivity};
use super::map::{Classes, Map};
use super::patient::PatientAxes;
use super::runs::{Runs, Voxel};
use super::sides::each_voxel;
use super::steps::{Fields, Table, within};
use crate::Mismatch;
use serde::Deserialize;

/// What counts as one vertebra or rib.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instances {
    /// Components of one label, together where they follow each other closely along the body.
    /// For structures that touch. A component less than half as large as the largest of its
    /// label is a fragment, such as a spinous process that came loose.
    Labels {
        /// Largest distance between positions of parts of one instance.
        gap_mm: f64,
    },
    /// Components of all labels together: for structures with background between them, such as
    /// vertebral bodies, where a second label inside one is an error.
    Union,
}

/// Where along the body an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// The height of its centroid.
    Centroid,
    /// The mean height of what lies within 20 mm of its most posterior voxel: ribs slope. What
    /// the first or last slice cuts has lost that end or its front, so such instances are neither
    /// judged nor renumbered.
    Posterior,
}

/// How a chain of structures is put in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// What counts as one structure.
    pub instances: Instances,
    /// Where it is.
    pub position: Position,
    /// Components smaller than this are no instances; like fragments, they follow the nearest
    /// instance that had their label.
    pub min_mm3: f64,
    /// Which voxels are connected.
    pub connectivity: Connectivity,
}

/// Renumbers the labels of `chain`, listed from superior to inferior, where components disagree
/// with that order.
///
/// If the labels of all instances, from top to bottom, follow the chain, nothing is renumbered:
/// a missing number may be a structure the model missed. Otherwise instances get labels
/// that do follow the chain such that the most voxels keep theirs and, among equals, the fewest
/// numbers are left out. With [`Instances::Union`], every instance also becomes one label. If
/// there are more instances than labels, nothing is changed.
///
/// TotalSegmentator's vertebra refinement has the same purpose; it always numbers from the
/// lowest label without gaps.
///
/// Returns the number of voxels that changed.
pub fn renumber<T: Voxel>(
    map: &mut Map<'_, T>,
    chain: &[u16],
    axes: &PatientAxes,
    options: &Options,
) -> u64 {
    let voxel_mm3 = map.voxel_mm3();
    let runs = map.runs();
    let classes = match options.instances {
        Instances::Labels { .. } => Classes::each(chain),
        Instances::Union => Classes::union(chain),
    };
    let components = Components::new(runs, &classes, options.connectivity);
    let heights = heights(runs, &classes, &components, axes, options.position);
    let mut cut = vec![false; components.voxels.len()];
    if options.position == Position::Posterior {
        each_voxel(runs, &classes, |i, voxel| {
            cut[components.of_run[i] as usize] |= axes.at_end(voxel);
        });
    }
    let mut largest = vec![0; 1 << 16];
    for (&voxels, &class) in components.voxels.iter().zip(&components.class) {
        let most: &mut u64 = &mut largest[usize::from(class)];
        *most = voxels.max(*most);
    }
    let split = matches!(options.instances, Instances::Labels { .. });
    let large = |part: usize| {
        let (voxels, class) = (components.voxels[part], components.class[part]);
        let whole = !split || 2 * voxels >= largest[usize::from(class)];
        whole && voxels as f64 * voxel_mm3 >= options.min_mm3
    };
    let mut instances = instances(runs, &components, chain, &heights, large);
    if let Instances::Labels { gap_mm } = options.instances {
        instances = joined(instances, gap_mm);
    }
    let is_cut = |instance: &Instance| instance.parts.iter().any(|&part| cut[part as usize]);
    let mut free = vec![true; chain.len()];
    for instance in instances.iter().filter(|instance| is_cut(instance)) {
        free[instance.main()] = false;
    }
    instances.retain(|instance| !is_cut(instance));
    // Top first; of equal heights, the one that begins first in memory.
    instances.sort_by(|a, b| b.position.total_cmp(&a.position).then(a.parts.cmp(&b.parts)));
    let Some(numbers) = numbers(&instances, &free) else { return 0 };

    let mut labels: Vec<Option<u16>> = vec![None; components.voxels.len()];
    for (instance, &number) in instances.iter().zip(&numbers) {
        for &part in &instance.parts {
            labels[part as usize] = Some(chain[number]);
        }
    }
    if split {
        for (part, label) in labels.iter_mut().enumerate() {
            if large(part) {
                continue;
            }
            let old = |i: &Instance| chain[i.main()] == components.class[part];
            let same = instances.iter().zip(&numbers).filter(|(i, _)| old(i));
            let distance = |i: &Instance| (i.position - heights[part]).abs();
            let near = same.min_by(|(a, _), (b, _)| distance(a).total_cmp(&distance(b)));
            *label = near.map(|(_, &number)| chain[number]);
        }
    }
    map.relabel(|i, run| {
        labels.get(components.of_run[i] as usize).copied().flatten().unwrap_or(run.label)
    })
}

#[derive(Clone, Debug)]
struct Instance {
    parts: Vec<u32>,
    position: f64,
    /// Voxels per number of the chain.
    votes: Vec<u64>,
}

impl Instance {
    fn total(&self) -> u64 {
        self.votes.iter().sum()
    }

    /// The number most of its voxels have, the first of equals.
    fn main(&self) -> usize {
        let most = self.votes.iter().max();
        self.votes.iter().position(|votes| Some(votes) == most).unwrap_or(0)
    }
}

/// Height of every component, in millimetres.
fn heights(
    runs: &Runs,
    classes: &Classes,
    components: &Components,
    axes: &PatientAxes,
    position: Position,
) -> Vec<f64> {
    /// How much of a rib's posterior end says where it is.
    const END_MM: f64 = 20.0;
    let count = components.voxels.len();
    let component = |run: usize| components.of_run[run] as usize;
    let mut back = vec![f64::INFINITY; count];
    if position == Position::Posterior {
        each_voxel(runs, classes, |i, voxel| {
            let anterior = axes.position(voxel)[1];
            back[component(i)] = back[component(i)].min(anterior);
        });
    }
    let mut sums = vec![(0.0, 0_u64); count];
    each_voxel(runs, classes, |i, voxel| {
        let [superior, anterior, _] = axes.position(voxel);
        let at = component(i);
        if position == Position::Centroid || anterior <= back[at] + END_MM {
            sums[at] = (sums[at].0 + superior, sums[at].1 + 1);
        }
    });
    sums.into_iter().map(|(sum, voxels)| sum / voxels as f64).collect()
}

/// The components that are large enough.
fn instances(
    runs: &Runs,
    components: &Components,
    chain: &[u16],
    heights: &[f64],
    large: impl Fn(usize) -> bool,
) -> Vec<Instance> {
    let mut index = vec![usize::MAX; components.voxels.len()];
    let mut found = Vec::new();
    for part in (0..index.len()).filter(|&part| large(part)) {
        index[part] = found.len();
        let votes = vec![0; chain.len()];
        found.push(Instance { parts: vec![part as u32], position: heights[part], votes });
    }
    for (i, run) in runs.all().iter().enumerate() {
        let of_run = index.get(components.of_run[i] as usize);
        if let Some(instance) = of_run.and_then(|&at| found.get_mut(at))
            && let Some(number) = chain.iter().position(|&label| label == run.label)
        {
            instance.votes[number] += run.voxels();
        }
    }
    found
}

/// Joins parts of one label that follow each other closely; the largest says where they are.
fn joined(mut parts: Vec<Instance>, gap_mm: f64) -> Vec<Instance> {
    parts.sort_by(|a, b| a.main().cmp(&b.main()).then(a.position.total_cmp(&b.position)));
    let mut groups: Vec<(Vec<Instance>, f64)> = Vec::new();
    for part in parts {
        match groups.last_mut() {
            Some((group, last))
                if group[0].main() == part.main() && part.position - *last <= gap_mm =>
            {
                *last = part.position;
                group.push(part);
            }
            _ => {
                let last = part.position;
                groups.push((vec![part], last));
            }
        }
    }
    let join = |(group, _): (Vec<Instance>, f64)| {
        let largest = group.iter().map(Instance::total).max();
        let position = group.iter().find(|i| Some(i.total()) == largest).map(|i| i.position);
        let number = group[0].main();
        let mut votes = vec![0; group[0].votes.len()];
        votes[number] = group.iter().map(Instance::total).sum();
        let parts = group.iter().flat_map(|i| i.parts.clone()).collect();
        Instance { parts, position: position.unwrap_or(0.0), votes }
    };
    groups.into_iter().map(join).collect()
}

/// The best score of the instances so far, voxels kept and numbers skipped, if the last of them
/// has a certain number, and the number before it; `None` if it cannot have that number.
type Cell = Option<((u64, i64), usize)>;

/// A strictly rising number per instance that keeps the most voxels and, among equals, skips
/// the fewest numbers; `None` if there are more instances than `free` numbers.
fn numbers(instances: &[Instance], free: &[bool]) -> Option<Vec<usize>> {
    if instances.is_empty() {
        return None;
    }
    let main: Vec<_> = instances.iter().map(Instance::main).collect();
    if main.windows(2).all(|pair| pair[0] < pair[1]) {
        return Some(main);
    }
    let mut table: Vec<Vec<Cell>> = Vec::new();
    for instance in instances {
        let row = free.iter().enumerate().map(|(j, &free)| {
            if !free {
                return None;
            }
            let Some(above) = table.last() else { return Some(((instance.votes[j], 0), 0)) };
            let mut best: Cell = None;
            for (before, cell) in above[..j].iter().enumerate() {
                let Some(((kept, skipped), _)) = *cell else { continue };
                let score = (kept + instance.votes[j], skipped - (j - before - 1) as i64);
                if best.is_none_or(|(other, _)| score > other) {
                    best = Some((score, before));
                }
            }
            best
        });
        table.push(row.collect());
    }
    let last = table.last()?;
    let best = last.iter().flatten().map(|&(score, _)| score).max()?;
    let mut number = last.iter().position(|cell| cell.is_some_and(|(score, _)| score == best))?;
    let mut numbers = vec![0; instances.len()];
    for (i, row) in table.iter().enumerate().rev() {
        numbers[i] = number;
        number = row[number]?.1;
    }
    Some(numbers)
}

/// The step `order`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    chain: Vec<String>,
    #[serde(default)]
    union: bool,
    #[serde(default)]
    gap_mm: f64,
    position: Position,
    min_mm3: f64,
    #[serde(default)]
    connectivity: Connectivity,
}

impl Fields for Order {
    type Labels = Vec<u16>;

    fn check(&self) -> Result<(), Mismatch> {
        within("gap_mm", self.gap_mm, 1e4)?;
        within("min_mm3", self.min_mm3, 1e9)
    }

    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch> {
        table.chain(&self.chain)
    }

    fn apply<T: Voxel>(
        &self,
        chain: &Vec<u16>,
        map: &mut Map<'_, T>,
        axes: &PatientAxes,
    ) -> Result<u64, &'static str> {
        let labels = Instances::Labels { gap_mm: self.gap_mm };
        let options = Options {
            instances: if self.union { Instances::Union } else { labels },
            position: self.position,
            min_mm3: self.min_mm3,
            connectivity: self.connectivity,
        };
        Ok(renumber(map, chain, axes, &options))
    }
}
