//! Weights of nnU-Net v1's `Generic_UNet` under the names of v2's `PlainConvUNet`.

use super::super::checkpoint::Stored;
use std::collections::HashMap;

/// Where the stages of the encoder begin.
const CONTEXT: &str = "conv_blocks_context";

/// Where those of the decoder do.
const LOCALIZATION: &str = "conv_blocks_localization";

pub(super) fn is_one(weights: &HashMap<String, Stored>) -> bool {
    weights.keys().any(|name| name.starts_with(CONTEXT))
}

/// The same weights; names that are none of its stay.
pub(super) fn renamed(weights: HashMap<String, Stored>) -> HashMap<String, Stored> {
    // A stage in two halves counts its convolutions anew in the second.
    let mut first_half: HashMap<(String, String), usize> = HashMap::new();
    for name in weights.keys() {
        if let [top, stage, "0", "blocks", block, ..] = name.split('.').collect::<Vec<_>>()[..]
            && let Ok(block) = block.parse::<usize>()
        {
            let count = first_half.entry((top.to_owned(), stage.to_owned())).or_default();
            *count = (*count).max(block.saturating_add(1));
        }
    }
    let of_v2 = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        let (top, stage, half, block, rest) = match parts[..] {
            [top @ CONTEXT, stage, "blocks", block, ref rest @ ..] => {
                (top, stage, "0", block, rest)
            }
            [top @ (CONTEXT | LOCALIZATION), stage, half, "blocks", block, ref rest @ ..] => {
                (top, stage, half, block, rest)
            }
            ["tu", stage, last] => return Some(format!("decoder.transpconvs.{stage}.{last}")),
            ["seg_outputs", stage, last] => {
                return Some(format!("decoder.seg_layers.{stage}.{last}"));
            }
            _ => return None,
        };
        let before = match half {
            "0" => 0,
            "1" => first_half.get(&(top.to_owned(), stage.to_owned())).copied().unwrap_or(0),
            _ => return None,
        };
        let block = block.parse::<usize>().ok()?.checked_add(before)?;
        let rest = match rest {
            ["conv", last] => format!("conv.{last}"),
            ["instnorm", last] => format!("norm.{last}"),
            _ => return None,
        };
        Some(if top == CONTEXT {
            format!("encoder.stages.{stage}.0.convs.{block}.{rest}")
        } else {
            format!("decoder.stages.{stage}.convs.{block}.{rest}")
        })
    };
    weights.into_iter().map(|(name, stored)| (of_v2(&name).unwrap_or(name), stored)).collect()
}
