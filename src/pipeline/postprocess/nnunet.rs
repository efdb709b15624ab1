//! nnU-Net's own postprocessing rule, from its `postprocessing.json` or from plain values.

use super::Connectivity;
use super::recipe::Recipe;
use super::steps::{KeepLargest, Select, Step, Ties};
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
        let step = |call: &RemoveAllButLargest| {
            let step = Step::KeepLargest(KeepLargest {
                labels: Select::Ids(call.labels.clone()),
                except: Vec::new(),
                union: true,
                connectivity: Connectivity::TwentySix,
                nearest_mm: None,
                ties: Ties::All,
                background: call.background_label,
            });
            (FUNCTION, step)
        };
        Self::from_steps(calls.iter().map(step).collect())
    }
}

#[derive(Deserialize)]
struct File {
    postprocessing_fns: Vec<String>,
    postprocessing_kwargs: Vec<Keywords>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keywords {
    labels_or_regions: Value,
    #[serde(default)]
    background_label: u16,
}

impl Recipe {
    /// Reads nnU-Net's `postprocessing.json`; its other entries (scores) are ignored.
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
        let (functions, keywords) = (file.postprocessing_fns, file.postprocessing_kwargs);
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
