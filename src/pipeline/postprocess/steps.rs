//! The steps that a recipe can have: one table, and what they have in common.
//!
//! A step stands whole in a file of its own: the fields of its JSON, which are [`Fields`], and the
//! function that they call.

use super::bodies::VertebralBodies;
use super::holes::FillHoles;
use super::keep::{KeepLargest, RemoveSmall};
use super::map::{Classes, Map};
use super::morphology::Morphology;
use super::neighbor::ClipToNeighbor;
use super::order::Order;
use super::patient::PatientAxes;
use super::runs::Voxel;
use super::sides::{Pair, Sides};
use crate::model::Label;
use crate::{Error, Mismatch};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// What a step's fields in the JSON mean.
pub(super) trait Fields: DeserializeOwned {
    /// Its structures by number.
    type Labels;

    /// From the JSON of a step of this name, which the table below gives it.
    fn read(_name: &str, fields: Value) -> Result<Self, Mismatch> {
        read(fields)
    }

    /// Checks numbers, for the most with [`within`]: distances are bounded so that a recipe cannot ask
    /// for days of work.
    fn check(&self) -> Result<(), Mismatch>;

    /// Looks its structures up; `None` if the model has none of them and need not.
    fn labels(&self, table: &Table<'_>) -> Result<Option<Self::Labels>, Mismatch>;

    /// Does the step: the number of voxels changed, or why there is nothing that it could go by.
    fn apply<T: Voxel>(
        &self,
        labels: &Self::Labels,
        map: &mut Map<'_, T>,
        axes: &PatientAxes,
    ) -> Result<u64, &'static str>;

    /// The label that removed voxels get.
    fn background(&self) -> u16 {
        0
    }
}

/// Makes the enums of steps from their table.
macro_rules! steps {
    ($($step:ident: $($name:literal),+;)+) => {
        /// A step as the recipe has it.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Step {
            $($step($step),)+
        }

        /// A step with label numbers.
        pub(super) enum Resolved<'a> {
            $($step(<$step as Fields>::Labels, &'a $step),)+
        }

        impl Step {
            const NAMES: &[&str] = &[$($($name),+),+];

            pub(super) fn parse(name: &str, fields: Value) -> Result<Self, Mismatch> {
                match name {
                    $($($name)|+ => {
                        let step = $step::read(name, fields)?;
                        step.check().map(|()| Self::$step(step))
                    })+
                    _ => Err(Mismatch::new(format!("`{name}`"), Self::one_of())),
                }
            }

            /// The label that removed voxels get.
            pub(super) fn background(&self) -> u16 {
                match self {
                    $(Self::$step(step) => step.background(),)+
                }
            }

            /// The step for one model's table; `None` if it has none of the structures and need not.
            pub(super) fn resolve(
                &self,
                names: &[Label],
                optional: bool,
            ) -> Result<Option<Resolved<'_>>, Mismatch> {
                let table = Table { names, optional };
                Ok(match self {
                    $(Self::$step(step) => {
                        step.labels(&table)?.map(|labels| Resolved::$step(labels, step))
                    })+
                })
            }
        }

        impl Resolved<'_> {
            /// As [`Fields::apply`].
            pub(super) fn apply<T: Voxel>(
                &self,
                map: &mut Map<'_, T>,
                axes: &PatientAxes,
            ) -> Result<u64, &'static str> {
                match self {
                    $(Self::$step(labels, step) => step.apply(labels, map, axes),)+
                }
            }
        }
    };
}

// The fields of a step, and the names it has in a recipe.
steps! {
    RemoveSmall: "remove_small";
    KeepLargest: "keep_largest";
    FillHoles: "fill_holes";
    Morphology: "dilate", "erode", "open", "close";
    ClipToNeighbor: "clip_to_neighbor";
    Sides: "sides";
    Order: "order";
    VertebralBodies: "vertebral_bodies";
}

impl Step {
    /// What the name of a step has to be.
    pub(super) fn one_of() -> String {
        format!("one of {}", Self::NAMES.join(", "))
    }
}

/// A step's fields.
pub(super) fn read<S: DeserializeOwned>(fields: Value) -> Result<S, Mismatch> {
    let expected = "the fields of docs/postprocessing.md";
    serde_json::from_value(fields).map_err(|e| Mismatch::new(e.to_string(), expected))
}

/// Checks that a number, if it is there, is from 0 to `most`.
pub(super) fn within(
    field: &str,
    value: impl Into<Option<f64>>,
    most: f64,
) -> Result<(), Mismatch> {
    match value.into() {
        Some(value) if !(0.0..=most).contains(&value) => {
            Err(Mismatch::new(format!("`{field}`: {value}"), format!("0 to {most}")))
        }
        _ => Ok(()),
    }
}

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

/// Most comparisons of a step's names with a model's: far more than the longest lists need.
const MOST_COMPARED: usize = 1 << 24;

/// A model's structures, in which a step looks its own up by name. What finds none is `None`, unless a
/// name must be there: that is an error then.
pub(super) struct Table<'a> {
    names: &'a [Label],
    /// Whether the step is marked so: names may miss.
    optional: bool,
}

impl Table<'_> {
    /// The numbers of what a step selects, each once, in its order.
    pub(super) fn structures(
        &self,
        select: &Select,
        except: &[String],
    ) -> Result<Option<Vec<u16>>, Mismatch> {
        Ok(some(self.select(select, except)?))
    }

    /// The same as classes: each structure by itself, or all as one.
    pub(super) fn classes(
        &self,
        select: &Select,
        except: &[String],
        union: bool,
    ) -> Result<Option<Classes>, Mismatch> {
        let classes = if union { Classes::union } else { Classes::each };
        Ok(self.structures(select, except)?.map(|labels| classes(&labels)))
    }

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
    pub(super) fn chain(&self, names: &[String]) -> Result<Option<Vec<u16>>, Mismatch> {
        let mut seen = HashSet::new();
        let ids = self.matching(names, self.optional)?;
        Ok(some(ids.into_iter().filter(|&id| seen.insert(id)).collect()))
    }

    /// The left and right structures among what a step selects: names that differ only by the word.
    pub(super) fn pairs(
        &self,
        select: &Select,
        except: &[String],
    ) -> Result<Option<Vec<Pair>>, Mismatch> {
        let labels = self.select(select, except)?;
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
        Ok(some(chosen.iter().filter_map(pair).collect()))
    }
}

/// A list, unless it is empty.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// What does not fit in the step of that place in the recipe.
pub(super) fn in_step(what: Mismatch, index: usize, name: &str) -> Error {
    let Mismatch { found, expected } = what;
    Error::usage(format!("postprocessing step {} ({name})", index + 1), found, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_documented() {
        let docs = include_str!("../../../docs/postprocessing.md");
        let rows: Vec<&str> = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
            .flat_map(|names| names.split(", "))
            .collect();
        for name in Step::NAMES {
            assert!(rows.contains(&format!("`{name}`").as_str()), "{name}: docs/postprocessing.md");
        }
    }
}
