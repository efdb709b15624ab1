//! What a recipe's steps say, and what they mean for one model's labels.

use super::bodies::{self, Bodies};
use super::components::Connectivity;
use super::keep;
use super::map::{Classes, Map};
use super::morphology::{self, Operation};
use super::neighbor::{self, Clip};
use super::order::{self, Instances, Position};
use super::patient::PatientAxes;
use super::runs::Voxel;
use super::sides::{self, Pair, Unit};
use crate::model::Label;
use crate::{Error, Mismatch};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Structures: `"all"`, or names; a name that ends in `*` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Select {
    /// Must be `"all"`.
    Word(String),
    Names(Vec<String>),
    /// Not in JSON: label numbers, as nnU-Net's rules have them.
    #[serde(skip)]
    Ids(Vec<u16>),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveSmall {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    union: bool,
    min_mm3: f64,
    #[serde(default)]
    connectivity: Connectivity,
    nearest_mm: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepLargest {
    pub(super) labels: Select,
    #[serde(default)]
    pub(super) except: Vec<String>,
    #[serde(default)]
    pub(super) union: bool,
    #[serde(default)]
    pub(super) connectivity: Connectivity,
    pub(super) nearest_mm: Option<f64>,
    /// Which of equally large components stay.
    #[serde(default)]
    pub(super) ties: Ties,
    #[serde(skip)]
    pub(super) background: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ties {
    /// All of them, as in nnU-Net.
    #[default]
    All,
    /// The first in `x`, `y`, `z`, as in `TotalSegmentator`.
    First,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Plane {
    Axial,
    Coronal,
    Sagittal,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillHoles {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    plane: Option<Plane>,
    max_mm3: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Morphology {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    radius_mm: f64,
    nearest_mm: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipToNeighbor {
    labels: Select,
    #[serde(default)]
    except: Vec<String>,
    neighbor: Select,
    distance_mm: f64,
    #[serde(default)]
    whole_components: bool,
    #[serde(default)]
    connectivity: Connectivity,
}

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

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VertebralBodies {
    chain: Vec<String>,
    min_mm3: f64,
    grow_mm: f64,
}

/// A step as the recipe has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    RemoveSmall(RemoveSmall),
    KeepLargest(KeepLargest),
    FillHoles(FillHoles),
    Morphology(Operation, Morphology),
    ClipToNeighbor(ClipToNeighbor),
    Sides(Sides),
    Order(Order),
    VertebralBodies(VertebralBodies),
}

impl Step {
    pub(super) const NAMES: &'static str = "remove_small, keep_largest, fill_holes, dilate, \
        erode, open, close, clip_to_neighbor, sides, order, vertebral_bodies";

    pub(super) fn parse(name: &str, fields: Value) -> Result<Self, Mismatch> {
        fn read<S: DeserializeOwned>(fields: Value) -> Result<S, Mismatch> {
            let expected = "the fields of docs/postprocessing.md";
            serde_json::from_value(fields).map_err(|e| Mismatch::new(e.to_string(), expected))
        }
        let step = match name {
            "remove_small" => Self::RemoveSmall(read(fields)?),
            "keep_largest" => Self::KeepLargest(read(fields)?),
            "fill_holes" => Self::FillHoles(read(fields)?),
            "dilate" => Self::Morphology(Operation::Dilate, read(fields)?),
            "erode" => Self::Morphology(Operation::Erode, read(fields)?),
            "open" => Self::Morphology(Operation::Open, read(fields)?),
            "close" => Self::Morphology(Operation::Close, read(fields)?),
            "clip_to_neighbor" => Self::ClipToNeighbor(read(fields)?),
            "sides" => Self::Sides(read(fields)?),
            "order" => Self::Order(read(fields)?),
            "vertebral_bodies" => Self::VertebralBodies(read(fields)?),
            _ => {
                return Err(Mismatch::new(format!("`{name}`"), format!("one of {}", Self::NAMES)));
            }
        };
        step.check()?;
        Ok(step)
    }

    /// Checks numbers: distances are bounded so that a recipe cannot ask for days of work.
    fn check(&self) -> Result<(), Mismatch> {
        let number = |field: &str, value: Option<f64>, most: f64| match value {
            Some(value) if !(0.0..=most).contains(&value) => {
                Err(Mismatch::new(format!("`{field}`: {value}"), format!("0 to {most}")))
            }
            _ => Ok(()),
        };
        match self {
            Self::RemoveSmall(s) => {
                number("min_mm3", Some(s.min_mm3), 1e9)?;
                number("nearest_mm", s.nearest_mm, 50.0)
            }
            Self::KeepLargest(s) => number("nearest_mm", s.nearest_mm, 50.0),
            Self::FillHoles(s) => number("max_mm3", s.max_mm3, 1e9),
            Self::Morphology(operation, s) => {
                let adds = matches!(operation, Operation::Dilate | Operation::Close);
                if adds && s.nearest_mm.is_some() {
                    let found = "`nearest_mm` for a step that removes nothing";
                    return Err(Mismatch::new(found, "it with erode and open only"));
                }
                number("radius_mm", Some(s.radius_mm), 100.0)?;
                number("nearest_mm", s.nearest_mm, 50.0)
            }
            Self::ClipToNeighbor(s) => number("distance_mm", Some(s.distance_mm), 100.0),
            Self::Sides(s) => number("margin_mm", Some(s.margin_mm), 1e4),
            Self::Order(s) => {
                number("gap_mm", Some(s.gap_mm), 1e4)?;
                number("min_mm3", Some(s.min_mm3), 1e9)
            }
            Self::VertebralBodies(s) => {
                number("grow_mm", Some(s.grow_mm), 100.0)?;
                number("min_mm3", Some(s.min_mm3), 1e9)
            }
        }
    }

    /// The label that removed voxels get.
    pub(super) fn background(&self) -> u16 {
        match self {
            Self::KeepLargest(s) => s.background,
            _ => 0,
        }
    }

    /// The step for one model's table; `None` if it has none of the structures and need not.
    pub(super) fn resolve(
        &self,
        names: &[Label],
        optional: bool,
    ) -> Result<Option<Resolved<'_>>, Mismatch> {
        let table = Table { names, optional };
        let some = |labels: Vec<u16>| (!labels.is_empty()).then_some(labels);
        let classes = |union, labels: &[u16]| {
            if union { Classes::union(labels) } else { Classes::each(labels) }
        };
        Ok(match self {
            Self::RemoveSmall(s) => some(table.select(&s.labels, &s.except)?)
                .map(|labels| Resolved::RemoveSmall(classes(s.union, &labels), s)),
            Self::KeepLargest(s) => some(table.select(&s.labels, &s.except)?)
                .map(|labels| Resolved::KeepLargest(classes(s.union, &labels), s)),
            Self::FillHoles(s) => some(table.select(&s.labels, &s.except)?)
                .map(|labels| Resolved::FillHoles(labels, s)),
            Self::Morphology(operation, s) => some(table.select(&s.labels, &s.except)?)
                .map(|labels| Resolved::Morphology(labels, *operation, s)),
            Self::ClipToNeighbor(s) => {
                let labels = some(table.select(&s.labels, &s.except)?);
                let neighbor = some(table.select(&s.neighbor, &[])?);
                labels.zip(neighbor).map(|(l, n)| Resolved::ClipToNeighbor(l, n, s))
            }
            Self::Sides(s) => {
                let pairs = table.pairs(&table.select(&s.labels, &s.except)?);
                let midline = some(table.select(&s.midline, &[])?);
                if pairs.is_empty() { None } else { midline.map(|m| Resolved::Sides(pairs, m, s)) }
            }
            Self::Order(s) => some(table.chain(&s.chain)?).map(|chain| Resolved::Order(chain, s)),
            Self::VertebralBodies(s) => {
                some(table.chain(&s.chain)?).map(|chain| Resolved::VertebralBodies(chain, s))
            }
        })
    }
}

/// Most comparisons of a step's names with a model's: far more than the longest lists need.
const MOST_COMPARED: usize = 1 << 24;

/// A model's structures.
struct Table<'a> {
    names: &'a [Label],
    optional: bool,
}

impl Table<'_> {
    fn select(&self, select: &Select, except: &[String]) -> Result<Vec<u16>, Mismatch> {
        let chosen: Vec<u16> = match select {
            Select::Ids(ids) => return Ok(ids.clone()),
            Select::Word(word) if word == "all" => self.names.iter().map(|l| l.id).collect(),
            Select::Word(word) => {
                return Err(Mismatch::new(format!("`{word}`"), "\"all\" or a list of names"));
            }
            Select::Names(patterns) => self.matching(patterns, self.optional)?,
        };
        // What is excluded need not exist.
        let mut seen: HashSet<u16> = self.matching(except, true)?.into_iter().collect();
        Ok(chosen.into_iter().filter(|&id| id != 0 && seen.insert(id)).collect())
    }

    fn matching(&self, patterns: &[String], may_miss: bool) -> Result<Vec<u16>, Mismatch> {
        // A short file can name all structures any number of times.
        let work = patterns.len().saturating_mul(self.names.len());
        if patterns.len() > 1 && work > MOST_COMPARED {
            let found = format!("{} names for {} structures", patterns.len(), self.names.len());
            return Err(Mismatch::new(found, "each of them once, or \"all\""));
        }
        let mut ids = Vec::new();
        for pattern in patterns {
            let fits = |label: &&Label| match pattern.strip_suffix('*') {
                Some(start) => label.name.starts_with(start),
                None => label.name == *pattern,
            };
            let before = ids.len();
            ids.extend(self.names.iter().filter(fits).map(|label| label.id));
            if ids.len() == before && !may_miss {
                let expected = "a structure of the model, or a step marked optional";
                return Err(Mismatch::new(format!("structure `{pattern}`"), expected));
            }
        }
        Ok(ids)
    }

    /// The chain's labels in its own order.
    fn chain(&self, names: &[String]) -> Result<Vec<u16>, Mismatch> {
        let mut seen = HashSet::new();
        let ids = self.matching(names, self.optional)?;
        Ok(ids.into_iter().filter(|&id| seen.insert(id)).collect())
    }

    /// The left and right structures among `labels`: names that differ only by the word.
    fn pairs(&self, labels: &[u16]) -> Vec<Pair> {
        let by_id: HashMap<u16, &Label> = self.names.iter().map(|l| (l.id, l)).collect();
        let chosen: Vec<&Label> = labels.iter().filter_map(|id| by_id.get(id).copied()).collect();
        let by_name: HashMap<&str, &Label> =
            chosen.iter().map(|&label| (label.name.as_str(), label)).collect();
        let swap = |name: &str| -> Option<String> {
            let words: Vec<&str> = name.split('_').collect();
            let at = words.iter().position(|&word| word == "left")?;
            let mut words = words;
            words[at] = "right";
            Some(words.join("_"))
        };
        let pair = |left: &&Label| {
            let right = swap(&left.name)?;
            let right = by_name.get(right.as_str())?;
            Some(Pair { left: left.id, right: right.id })
        };
        chosen.iter().filter_map(pair).collect()
    }
}

/// What a step needs to know besides the labels.
pub(super) struct Context {
    pub axes: PatientAxes,
}

/// A step with label numbers.
pub(super) enum Resolved<'a> {
    RemoveSmall(Classes, &'a RemoveSmall),
    KeepLargest(Classes, &'a KeepLargest),
    FillHoles(Vec<u16>, &'a FillHoles),
    Morphology(Vec<u16>, Operation, &'a Morphology),
    ClipToNeighbor(Vec<u16>, Vec<u16>, &'a ClipToNeighbor),
    Sides(Vec<Pair>, Vec<u16>, &'a Sides),
    Order(Vec<u16>, &'a Order),
    VertebralBodies(Vec<u16>, &'a VertebralBodies),
}

impl Resolved<'_> {
    /// Voxels changed; `None` if the step could not be applied.
    pub(super) fn apply<T: Voxel>(&self, map: &mut Map<'_, T>, context: &Context) -> Option<u64> {
        Some(match self {
            Self::RemoveSmall(classes, s) => {
                keep::remove_small(map, classes, s.connectivity, s.min_mm3, s.nearest_mm)
            }
            Self::KeepLargest(classes, s) if s.ties == Ties::First => {
                keep::keep_first_largest(map, classes, s.connectivity, s.nearest_mm)
            }
            Self::KeepLargest(classes, s) => {
                keep::keep_largest(map, classes, s.connectivity, s.background, s.nearest_mm)
            }
            Self::FillHoles(labels, s) => {
                let across = context.axes.across();
                let axis = s.plane.map(|plane| match plane {
                    Plane::Axial => across[0],
                    Plane::Coronal => across[1],
                    Plane::Sagittal => across[2],
                });
                super::holes::fill(map, labels, axis, s.max_mm3)
            }
            Self::Morphology(labels, operation, s) => {
                morphology::apply(map, labels, *operation, s.radius_mm, s.nearest_mm)
            }
            Self::ClipToNeighbor(labels, neighbor, s) => {
                let components = Clip::Components(s.connectivity);
                let clip = if s.whole_components { components } else { Clip::Voxels };
                neighbor::clip(map, labels, neighbor, s.distance_mm, clip)
            }
            Self::Sides(pairs, midline, s) => {
                let components = Unit::Components(s.connectivity);
                let unit = if s.by_voxel { Unit::Voxels } else { components };
                return sides::correct(map, pairs, midline, &context.axes, s.margin_mm, unit);
            }
            Self::Order(chain, s) => {
                let labels = Instances::Labels { gap_mm: s.gap_mm };
                let instances = if s.union { Instances::Union } else { labels };
                let options = order::Options {
                    instances,
                    position: s.position,
                    min_mm3: s.min_mm3,
                    connectivity: s.connectivity,
                };
                order::renumber(map, chain, &context.axes, &options)
            }
            Self::VertebralBodies(chain, s) => {
                let bodies = Bodies { chain, min_mm3: s.min_mm3, grow_mm: s.grow_mm };
                bodies::renumber(map, &context.axes, &bodies)
            }
        })
    }
}

/// What does not fit in the step of that place in the recipe.
pub(super) fn in_step(what: Mismatch, index: usize, name: &str) -> Error {
    let Mismatch { found, expected } = what;
    Error::usage(format!("postprocessing step {} ({name})", index + 1), found, expected)
}
