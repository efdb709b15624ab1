//! nnU-Net's networks as ONNX graphs.
//!
//! The arguments of a network's class and the weights of a checkpoint enter, one graph leaves:
//! opset 17, `input` to `output`, every spatial axis and the batch dynamic, weights under the
//! names the checkpoint gives them.

mod arguments;
mod blocks;
mod generic;
mod graph;

pub(super) use arguments::Architecture;

use super::checkpoint::{Checkpoint, Storages, Stored};
use crate::files::Allowance;
use crate::model::proto;
use crate::{Mismatch, Result};
use graph::Builder;
use prost::bytes::Bytes;
use std::collections::HashMap;

/// Weights of a checkpoint, each to be taken once.
struct Weights {
    storages: Storages,
    left: HashMap<String, Stored>,
}

/// Prefixes that wrappers put before every name: data parallelism, `torch.compile`, and
/// FastnnUNet's `LiteResEncStudent`.
const WRAPPERS: &[&str] = &["module.", "_orig_mod.", "network."];

/// Names that are second names of other weights, or say nothing about inference.
fn is_alias(name: &str) -> bool {
    name.contains(".all_modules.")
        || name.starts_with("decoder.encoder.")
        || name.ends_with(".num_batches_tracked")
}

/// The weights of a checkpoint under the names the reference's classes give them.
pub(super) fn names(
    checkpoint: &Checkpoint,
    allowed: Allowance,
) -> Result<HashMap<String, Stored>> {
    let mut weights = checkpoint.weights(allowed)?;
    while let Some(prefix) = WRAPPERS
        .iter()
        .find(|prefix| !weights.is_empty() && weights.keys().all(|name| name.starts_with(**prefix)))
    {
        weights = weights.into_iter().map(|(n, t)| (n[prefix.len()..].to_owned(), t)).collect();
    }
    weights.retain(|name, _| !is_alias(name));
    Ok(if generic::is_one(&weights) { generic::renamed(weights) } else { weights })
}

impl Weights {
    /// Checks that a weight is there and of that shape, and takes it off the list.
    fn claim(&mut self, name: &str, shape: &[usize]) -> Result<Stored, Mismatch> {
        let stored = self.left.remove(name).ok_or_else(|| {
            Mismatch::new(format!("no weights {name:?}"), format!("some of shape {shape:?}"))
        })?;
        if stored.shape != shape {
            return Err(Mismatch::new(
                format!("weights {name:?} of shape {:?}", stored.shape),
                format!("{shape:?}"),
            ));
        }
        Ok(stored)
    }

    /// Reads a weight of that shape.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Bytes, Mismatch> {
        let stored = self.claim(name, shape)?;
        self.storages.read(&stored).map_err(|wrong| wrong.within(name))
    }
}

/// Builds the graph of a network from a checkpoint, if it may be held and become constants.
pub(super) fn build(
    architecture: &Architecture,
    checkpoint: &Checkpoint,
    allowed: Allowance,
) -> Result<proto::Model> {
    let left = names(checkpoint, allowed)?;
    let storages = checkpoint.storages(left.values())?;
    allowed.check("reading the weights", storages.bytes(left.values()))?;
    let mut builder = Builder::new(architecture, Weights { storages, left });
    blocks::network(&mut builder)?;
    Ok(builder.finish()?)
}
