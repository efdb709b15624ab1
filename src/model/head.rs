//! The last layer of a network, cut off where it is better applied late.
//!
//! A pointwise convolution into more classes than it reads features is linear per voxel: tiles
//! may be averaged and resampled as features, and the layer applied at the voxels of the image.
//! `build.rs` compiles this file too, so that the generated code ends where the engine thinks it
//! does.

use super::proto::{Model, Node, Tensor};

/// A pointwise convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[classes, features]`, row after row.
    pub weights: Vec<f32>,
    /// One per class.
    pub bias: Vec<f32>,
    /// Channels it reads.
    pub features: usize,
}

/// Cuts the last layer off if it is a pointwise convolution into more classes than features;
/// the network's output are the features then. Otherwise nothing changes.
pub fn cut(model: &mut Model) -> Option<Head> {
    let graph = model.graph.as_mut()?;
    let [output] = &mut graph.output[..] else { return None };
    let at = graph.node.iter().position(|node| node.output.contains(&output.name))?;
    let node = &graph.node[at];
    let head = head(node, &graph.initializer)?;
    // Values computed besides, or features that are an input, would make it another network.
    let read = graph.node.iter().any(|other| other.input.contains(&output.name));
    let source = node.input.first()?.clone();
    if read || !graph.node[..at].iter().any(|other| other.output.contains(&source)) {
        return None;
    }
    let node = graph.node.remove(at);
    let used = |name: &String| graph.node.iter().any(|other| other.input.contains(name));
    graph.initializer.retain(|t| !node.input[1..].contains(&t.name) || used(&t.name));
    output.name = source;
    let shape = output.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?;
    let channels = shape.dim.get_mut(1)?;
    (channels.dim_value, channels.dim_param) = (i64::try_from(head.features).ok(), None);
    Some(head)
}

fn head(node: &Node, initializers: &[Tensor]) -> Option<Head> {
    let all = |name: &str, wanted: i64| {
        node.ints(name).is_none_or(|list| list.iter().all(|&n| n == wanted))
    };
    let padded = node.attribute.iter().any(|attribute| {
        attribute.name == "auto_pad"
            && attribute.s.as_deref().is_some_and(|mode| !matches!(mode, b"NOTSET" | b"VALID"))
    });
    let plain = node.op_type == "Conv"
        && all("strides", 1)
        && all("pads", 0)
        && node.int("group").unwrap_or(1) == 1
        && !padded;
    let constant = |k: usize| {
        let name = node.input.get(k).filter(|name| !name.is_empty())?;
        initializers.iter().find(|tensor| tensor.name == *name)
    };
    let kernel = constant(1)?;
    let [classes, features, rest @ ..] = &kernel.dims[..] else { return None };
    if !plain || rest.iter().any(|&n| n != 1) || features >= classes {
        return None;
    }
    let (classes, features) = (usize::try_from(*classes).ok()?, usize::try_from(*features).ok()?);
    let weights = floats(kernel)?;
    let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(_) => floats(constant(2)?)?,
        None => vec![0.0; classes],
    };
    let whole = weights.len() == classes.checked_mul(features)? && bias.len() == classes;
    whole.then_some(Head { weights, bias, features })
}

/// Values of a tensor of 32-bit floats.
fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    const FLOAT: i32 = 1;
    if tensor.data_type != FLOAT {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    let (numbers, rest) = tensor.raw_data.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}
