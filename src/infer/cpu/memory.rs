//! What opening a network holds, found before any of it is allocated.
//!
//! A small file can ask for much: nodes that share weights each pack a copy of their own, and every
//! channel that is read has numbers of its own. A checked network enters; bounds leave, which
//! lowering stays under whatever the instruction set.

use super::plan::Plan;
use crate::model::network::{Conv, Network, Node, Operator, Window};
use fastnnunet_kernels::row::Affine;
use std::collections::HashMap;

/// Output channels are packed in blocks of at most so many.
const WIDEST_BLOCK: usize = 32;

/// Input channels that are multiplied together.
const WIDEST_GROUP: usize = 4;

/// Input channels of a tile of 16-bit floats.
const TILE_CHANNELS: usize = 32;

/// What a channel that a step reads, or a value has, takes at most while a network is lowered: how
/// it is scaled, by which numbers, with which slope, and how it becomes bytes.
const CHANNEL_BYTES: usize = 96;

/// What a step takes beside its channels.
const STEP_BYTES: usize = 1024;

/// Bytes of a network's constants, each counted once.
pub(in crate::infer) fn constant_bytes(network: &Network) -> u64 {
    let weights = network.nodes.iter().filter_map(|node| Some(&conv_of(node)?.weights));
    let once: HashMap<*const f32, usize> = weights.map(|w| (w.as_ptr(), w.len())).collect();
    once.values().map(|&len| (len * size_of::<f32>()) as u64).sum()
}

/// Bytes that lowering a network makes at most, the largest moment included; `in_halves` where it
/// multiplies 16-bit floats.
pub(super) fn lowering_bytes(network: &Network, in_halves: bool) -> u64 {
    let packed = |node: &Node| conv_of(node).map_or(0, |conv| packed_bytes(conv, node, in_halves));
    let all: u64 = network.nodes.iter().map(packed).fold(0, u64::saturating_add);
    // Weights are packed before they are laid where kernels read them.
    let passing = network.nodes.iter().map(packed).max().unwrap_or(0);
    let channels = |value: usize| match value.checked_sub(1) {
        None => network.input.channels,
        Some(node) => network.nodes[node].extent.channels,
    };
    let around = |node: &Node| {
        let read: usize = node.inputs.iter().map(|&value| channels(value)).sum();
        ((read + node.extent.channels) * CHANNEL_BYTES + STEP_BYTES) as u64
    };
    let around: u64 = network.nodes.iter().map(around).sum();
    all.saturating_add(passing).saturating_add(around)
}

fn conv_of(node: &Node) -> Option<&Conv> {
    match &node.operator {
        Operator::Conv(conv) | Operator::TransposedConv(conv) => Some(conv),
        _ => None,
    }
}

/// Bytes of a node's packed weights at most: blocks are filled up, and minimal filtering makes six
/// rows of three.
fn packed_bytes(conv: &Conv, node: &Node, in_halves: bool) -> u64 {
    let Window { kernel, stride, dilation, .. } = conv.window;
    let taps: usize = kernel.iter().product();
    // What each output voxel's columns are: a transposed convolution makes a box of its stride.
    let is_transposed = matches!(node.operator, Operator::TransposedConv(_));
    let outputs = node.extent.channels * if is_transposed { taps } else { 1 };
    let group_outputs = (outputs / conv.groups).next_multiple_of(WIDEST_BLOCK);
    let inputs = conv.weights.len() / (node.extent.channels * taps).max(1);
    let inputs = inputs * if is_transposed { conv.groups } else { 1 };
    let mut group_inputs = inputs.max(1).next_multiple_of(WIDEST_GROUP);
    let taps = if is_transposed { 1 } else { taps };
    // As lowering chooses: what is exact stays in floats, and those alone are filtered.
    let is_exact = inputs <= 1 || conv.groups > 1 || kernel == [1; 3];
    let halves = in_halves && !is_exact && !is_transposed;
    if halves {
        // Tiles overlap by a pair at most, and slices of few channels are packed in every order.
        group_inputs += 2 * inputs.div_ceil(TILE_CHANNELS);
        group_inputs *= if inputs < TILE_CHANNELS && dilation[0] == 1 { kernel[0] } else { 1 };
    }
    let is_filtered =
        !halves && !is_transposed && kernel[1] == 3 && stride[1..] == [1, 1] && dilation[1] == 1;
    let (filtered, width) = (if is_filtered { 2 } else { 1 }, if halves { 2 } else { 4 });
    let numbers = [conv.groups, group_outputs, group_inputs, taps, filtered, width];
    numbers.iter().fold(1_u64, |all, &n| all.saturating_mul(n as u64))
}

impl Plan {
    /// Bytes that the plan takes itself: weights, and what is kept for each channel that is read.
    pub(super) fn bytes(&self) -> u64 {
        let norms = self.tensors.iter().flat_map(|tensor| &tensor.norms);
        let floats = self.weights() + norms.map(|norm| 2 * norm.gamma.len()).sum::<usize>();
        let affines = self.affines.len() * size_of::<Affine>();
        let steps = (self.steps.len() + self.tensors.len()) * STEP_BYTES / 2;
        (floats * size_of::<f32>() + affines + steps) as u64
    }
}
