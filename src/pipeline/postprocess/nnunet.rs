//! nnU-Net's own postprocessing rule, from its `postprocessing.json` or from plain values.

use super::Connectivity;
use super::keep::{KeepLargest, Ties};
use super::recipe::Recipe;
use super::steps::{Select, Step};
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

/// The one function nnU-Net's rule consists of.
pub const FUNCTION: &str = "remove_all_but_largest_component_from_segmentation";

/// One call of [`FUNCTION`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveAllButLargest {
    /// Labels whose union is treated as one structure; regions are the union of their labels, so
    /// nested lists of the reference are flat here.
    pub labels: Vec<u16>,
    /// What removed voxels become.
    pub background_label: u16,
}

impl From<&[RemoveAllButLargest]> for Recipe {
    /// The calls in order: union of the labels, full connectivity, equally large components all
    /// kept.
    fn from(calls: &[RemoveAllButLargest]) -> Self {
        keep_largest(calls, Connectivity::TwentySix)
    }
}

fn keep_largest(calls: &[RemoveAllButLargest], connectivity: Connectivity) -> Recipe {
    let step = |call: &RemoveAllButLargest| {
        let step = Step::KeepLargest(KeepLargest {
            labels: Select::Ids(call.labels.clone()),
            except: Vec::new(),
            union: true,
            connectivity,
            nearest_mm: None,
            ties: Ties::All,
            background: call.background_label,
        });
        (FUNCTION, step)
    };
    Recipe::from_steps(calls.iter().map(step).collect())
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    postprocessing_fns: Vec<String>,
    postprocessing_kwargs: Option<Vec<Keywords>>,
    /// Instead of those in nnU-Net v1: labels, and lists of labels that count as one.
    for_which_classes: Option<Vec<Value>>,
    /// Sizes from which other components stay, as Python writes a dictionary or `None`.
    min_valid_object_sizes: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keywords {
    labels_or_regions: Value,
    #[serde(default)]
    background_label: u16,
}

impl Recipe {
    /// Reads nnU-Net's `postprocessing.json`, of v2 or v1; its other entries (scores) are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the lists do not match, a function is not nnU-Net's, or labels are not
    /// numbers from 1 to 65535.
    pub fn from_nnunet_json(text: &str) -> Result<Self> {
        let wrong = |found: String, expected: &str| Error::Model {
            model: "postprocessing.json".into(),
            found,
            expected: expected.into(),
        };
        let file: File = serde_json::from_str(text)
            .map_err(|e| wrong(e.to_string(), "postprocessing_fns and postprocessing_kwargs"))?;
        if let Some(classes) = &file.for_which_classes {
            let sizes = file.min_valid_object_sizes.filter(|sizes| sizes != "None");
            if let Some(sizes) = sizes {
                return Err(wrong(format!("min_valid_object_sizes {sizes}"), "None"));
            }
            let call = |one: &Value| {
                let mut labels = Vec::new();
                let found = || format!("for_which_classes {one}");
                flatten(one, 1, &mut labels)
                    .then_some(RemoveAllButLargest { labels, background_label: 0 })
                    .ok_or_else(|| wrong(found(), "labels or lists of them"))
            };
            let calls: Vec<_> = classes.iter().map(call).collect::<Result<_>>()?;
            // There components touch by faces.
            return Ok(keep_largest(&calls, Connectivity::Six));
        }
        let expected = "postprocessing_fns and postprocessing_kwargs";
        let keywords =
            file.postprocessing_kwargs.ok_or_else(|| wrong("neither".into(), expected))?;
        let functions = file.postprocessing_fns;
        if functions.len() != keywords.len() {
            let found = format!("{} functions, {} arguments", functions.len(), keywords.len());
            return Err(wrong(found, "as many of one as of the other"));
        }
        if let Some(other) = functions.into_iter().find(|name| name != FUNCTION) {
            return Err(wrong(format!("function {other}"), FUNCTION));
        }
        let calls: Result<Vec<_>> = keywords
            .into_iter()
            .map(|keywords| {
                let mut labels = Vec::new();
                if !flatten(&keywords.labels_or_regions, 2, &mut labels) {
                    let found = format!("labels_or_regions {}", keywords.labels_or_regions);
                    return Err(wrong(found, "a label, a list of labels, or a list of regions"));
                }
                let background_label = keywords.background_label;
                Ok(RemoveAllButLargest { labels, background_label })
            })
            .collect();
        Ok(Self::from(calls?.as_slice()))
    }
}

/// Collects the labels of a value nested at most `depth` lists deep; false if it is not labels.
fn flatten(value: &Value, depth: usize, labels: &mut Vec<u16>) -> bool {
    match value {
        Value::Number(number) => {
            let label = number.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|&n| n != 0);
            labels.extend(label);
            label.is_some()
        }
        Value::Array(list) => depth > 0 && list.iter().all(|v| flatten(v, depth - 1, labels)),
        _ => false,
    }
}
