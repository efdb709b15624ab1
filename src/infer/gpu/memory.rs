//! How much device memory a network takes, estimated from its graph before anything is loaded.
//!
//! burn allocates as it runs, so nobody knows beforehand; the estimate walks the graph, adds
//! up what is alive at each node and what burn's form of that operator copies, and takes the
//! largest sum. A test compares it with what a device reports.

use crate::infer::Precision;
use crate::infer::invalid;
use crate::model::network::Network;
use crate::model::onnx::{Graph, Node};
use crate::model::{graph, head};
use crate::{Error, Result};
use std::collections::HashMap;

/// Bytes a network takes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Weights.
    pub weights: u64,
    /// Activations per patch, at their peak.
    pub patch: u64,
    /// The largest array of a patch.
    pub array: u64,
}

/// What a whole image takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Voxels on the network's grid, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Voxels per tile.
    pub patch: [usize; 3],
    /// Channels the network reads.
    pub inputs: usize,
    /// Channels that are summed: classes, or features where the last layer is applied late.
    pub outputs: usize,
}

/// Bytes of an `f32`.
const FLOAT: u64 = size_of::<f32>() as u64;

/// Channels that fill a side of the matrices tensor cores multiply: a convolution in half precision
/// with fewer, in or out, is our own kernel's.
pub(super) const TENSOR_CORE_CHANNELS: usize = 16;

/// Most elements of an array on a device: cubecl's kernels count in 32 bits.
pub(super) const MOST_ELEMENTS: u64 = u32::MAX as u64;

impl Image {
    /// Voxels once the image is grown to hold every tile.
    fn padded(self) -> u64 {
        (0..3).fold(1, |n: u64, k| n.saturating_mul(self.shape[k].max(self.patch[k]) as u64))
    }

    fn maps(self, count: usize) -> u64 {
        self.padded().saturating_mul((count * size_of::<f32>()) as u64)
    }

    /// Bytes of the image itself on the device.
    #[must_use]
    pub fn image_bytes(self) -> u64 {
        self.maps(self.inputs)
    }

    /// Bytes of the weighted sums on the device.
    #[must_use]
    pub fn sums_bytes(self) -> u64 {
        self.maps(self.outputs)
    }

    /// Bytes on the device whatever the number of tiles: image, sums and total weights.
    #[must_use]
    pub fn fixed_bytes(self) -> u64 {
        self.maps(self.inputs + self.outputs + 1)
    }

    /// Bytes on the host at most: on the way up a copy of the image with its total weights, on
    /// the way down the map, and once more as it arrives.
    #[must_use]
    pub fn host_bytes(self) -> u64 {
        self.maps((self.inputs + 1).max(2 * self.outputs))
    }

    /// Whether every element of every array has a number on the device.
    #[must_use]
    pub fn is_indexable(self) -> bool {
        let elements = self.padded().saturating_mul(self.inputs.max(self.outputs) as u64);
        elements <= MOST_ELEMENTS
    }
}

/// Channels, then `z, y, x` (z = 1 for a two-dimensional network).
type Size = (usize, [usize; 3]);

/// Estimates the footprint for patches of `patch` voxels (`[z, y, x]`), without the last layer
/// where that is applied late ([`head::cut`]).
///
/// # Errors
///
/// [`Error::Model`] if the graph cannot be read or an extent does not come out.
pub fn footprint(
    onnx: &[u8],
    channels: usize,
    patch: [usize; 3],
    precision: Precision,
) -> Result<Footprint> {
    let mut model = graph::parse(onnx.to_vec().into())?;
    head::cut(&mut model, &Network::new(Graph::read(onnx)?, patch)?);
    let graph = Graph::from_proto(model)?;
    let sizes = || graph.constants.values().map(crate::model::onnx::Tensor::len);
    // Those of the layer that runs are there once more, as its kernel reads them.
    let weights = sizes().sum::<usize>().saturating_add(sizes().max().unwrap_or(0));
    let mut last_use: HashMap<&str, usize> = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            last_use.insert(input, at);
        }
    }
    for port in &graph.outputs {
        last_use.insert(&port.name, graph.nodes.len());
    }
    let mut alive: HashMap<&str, Size> =
        graph.inputs.iter().map(|port| (port.name.as_str(), (channels, patch))).collect();
    let half = precision != Precision::F32;
    let number = if half { 2 } else { FLOAT };
    let (mut peak, mut largest) = (0, 0);
    for (at, node) in graph.nodes.iter().enumerate() {
        let held = alive.values().fold(0_u64, |sum, &size| sum.saturating_add(voxels(size)));
        let Some(size) = output(node, &graph, &alive)? else { continue };
        let input = node.input(0).and_then(|name| alive.get(name)).copied().unwrap_or(size);
        // burn's kernels take input and output once more, channels last; ours make no copies.
        let on_tensor_cores = half && input.0.min(size.0) >= TENSOR_CORE_CHANNELS;
        let copied = node.op == "Conv" && (on_tensor_cores || !is_plain(node));
        let copies = if copied { voxels(input).saturating_add(voxels(size)) } else { 0 };
        let last = node.input(0).and_then(|name| last_use.get(name)) == Some(&at);
        // A normalization may have to write apart (`kernels::normalize`).
        let in_place = last && node.op == "LeakyRelu";
        let made = if in_place { 0 } else { voxels(size) };
        largest = largest.max(voxels(size).saturating_mul(FLOAT));
        let there = held.saturating_add(made).saturating_add(copies);
        peak = peak.max(there.saturating_mul(number));
        if let Some(name) = node.outputs.first() {
            alive.insert(name, size);
        }
        alive.retain(|name, _| last_use.get(name).is_some_and(|&last| last > at));
    }
    // Weights arrive as `f32` and are converted there.
    let weights = (weights as u64).saturating_mul(FLOAT);
    Ok(Footprint { weights, patch: peak, array: largest })
}

/// Whether our own kernel knows this convolution.
fn is_plain(node: &Node) -> bool {
    let ones = |name| node.ints(name).is_none_or(|list| list.iter().all(|&n| n == 1));
    let mirrored = |pads: &[i64]| pads[..pads.len() / 2] == pads[pads.len() / 2..];
    node.int("group").is_none_or(|n| n == 1)
        && ones("dilations")
        && node.ints("pads").is_none_or(mirrored)
}

fn voxels((channels, [z, y, x]): Size) -> u64 {
    [channels, z, y, x].iter().fold(1, |product, &n| product.saturating_mul(n as u64))
}

/// Size of a node's result; `None` for one that depends on no image.
fn output(node: &Node, graph: &Graph, alive: &HashMap<&str, Size>) -> Result<Option<Size>> {
    let mut inputs = node.inputs.iter().filter_map(|name| alive.get(name.as_str()).copied());
    let Some((channels, extent)) = inputs.next() else { return Ok(None) };
    let kernel = || {
        let kernel = node.input(1).and_then(|name| graph.constants.get(name));
        kernel.map(|kernel| &kernel.dims[..]).filter(|dims| dims.len() > 2)
    };
    Ok(Some(match node.op.as_str() {
        "Conv" | "ConvTranspose" => {
            let dims = kernel().ok_or_else(|| bad(node))?;
            let forward = node.op == "Conv";
            let groups = node.int("group").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
            let channels = if forward { dims[0] } else { dims[1].saturating_mul(groups) };
            (channels, window(node, &dims[2..], extent, forward)?)
        }
        "MaxPool" | "AveragePool" => {
            let kernel: Option<Vec<usize>> = node
                .ints("kernel_shape")
                .map(|k| k.iter().filter_map(|&n| usize::try_from(n).ok()).collect());
            (channels, window(node, &kernel.ok_or_else(|| bad(node))?, extent, true)?)
        }
        "Concat" => (inputs.map(|(c, _)| c).fold(channels, usize::saturating_add), extent),
        "GlobalAveragePool" => (channels, [1; 3]),
        _ => (channels, extent),
    }))
}

/// Extent after a sliding window, or before one (`forward` = false).
fn window(node: &Node, kernel: &[usize], extent: [usize; 3], forward: bool) -> Result<[usize; 3]> {
    let rank = kernel.len();
    if rank > 3 {
        return Err(bad(node));
    }
    let setting = |name: &str, k: usize, otherwise: i64| {
        node.ints(name).and_then(|list| list.get(k)).copied().unwrap_or(otherwise)
    };
    let mut result = extent;
    for (k, &kernel) in kernel.iter().enumerate() {
        let axis = 3 - rank + k;
        let reach = i64::try_from(kernel)
            .ok()
            .and_then(|n| (n - 1).checked_mul(setting("dilations", k, 1)));
        let pads = setting("pads", k, 0).checked_add(setting("pads", rank + k, 0));
        let (stride, size) = (setting("strides", k, 1), i64::try_from(extent[axis]).ok());
        let after = || {
            if forward {
                size?
                    .checked_add(pads?)?
                    .checked_sub(reach?)?
                    .checked_sub(1)?
                    .checked_div(stride)?
                    .checked_add(1)
            } else {
                let grown =
                    (size? - 1).checked_mul(stride)?.checked_sub(pads?)?.checked_add(reach?)?;
                grown.checked_add(1)?.checked_add(setting("output_padding", k, 0))
            }
        };
        let after = after().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        result[axis] = after.ok_or_else(|| bad(node))?;
    }
    Ok(result)
}

fn bad(node: &Node) -> Error {
    invalid(format!("{} (node `{}`) without an extent", node.op, node.name), "a patch it takes")
}

impl Footprint {
    /// As part of a run over an image with `passes` passes over each tile: the tile as it was
    /// cut stays for the passes to come, and so does the sum of those done.
    #[must_use]
    pub fn with_passes(self, image: Image, passes: usize) -> Self {
        let held = image.inputs + if passes > 1 { image.outputs } else { 0 };
        let bytes = voxels((held, image.patch)).saturating_mul(size_of::<f32>() as u64);
        Self { patch: self.patch.saturating_add(bytes), ..self }
    }

    /// How many patches run at once: as many as `budget_bytes` holds, at most `most`.
    ///
    /// `fixed_bytes` is what lies on the device whatever the number of patches.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if not even one fits.
    pub fn batch(self, fixed_bytes: u64, budget_bytes: u64, most: usize) -> Result<usize> {
        let fixed = self.weights.saturating_add(fixed_bytes);
        let one = fixed.saturating_add(self.patch);
        if one > budget_bytes {
            return Err(Error::Memory {
                what: "the network on the GPU".to_owned(),
                need_bytes: one,
                limit_bytes: budget_bytes,
            });
        }
        let fitting = (budget_bytes - fixed).checked_div(self.patch).unwrap_or(u64::MAX);
        Ok(usize::try_from(fitting).unwrap_or(usize::MAX).min(most.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn selftest() -> Footprint {
        let model = registry::find("selftest").expect("self-test model");
        footprint(&model.onnx().expect("ONNX"), 1, [16, 24, 24], Precision::F32)
            .expect("a footprint")
    }

    #[test]
    fn weights_are_those_of_the_file() {
        let model = registry::find("selftest").expect("self-test model");
        let Footprint { weights, .. } = selftest();
        let file = model.onnx().expect("ONNX").len() as u64;
        assert!(weights > file && weights < file * 3 / 2, "{weights} of {file}");
    }

    #[test]
    fn activations_grow_with_the_patch() {
        let model = registry::find("selftest").expect("self-test model");
        let onnx = model.onnx().expect("ONNX");
        let large = footprint(&onnx, 1, [32, 48, 48], Precision::F32).expect("a footprint");
        assert_eq!(large.patch, 8 * selftest().patch);
        let half = footprint(&onnx, 1, [32, 48, 48], Precision::F16).expect("a footprint");
        // Those of its convolutions that are large are not for tensor cores, and make no copies.
        assert_eq!(half.patch * 2, large.patch);
        for edge in [1 << 20, usize::MAX] {
            assert!(footprint(&onnx, 1, [edge; 3], Precision::F32).is_err(), "no such patch");
        }
    }

    #[test]
    fn every_embedded_model_has_a_footprint_that_fits_a_small_card() {
        for model in registry::models() {
            let config = model.config();
            let onnx = model.onnx().expect("ONNX");
            let found = footprint(&onnx, config.channels.len(), config.patch_size, Precision::F32);
            let found = found.expect(&model.name);
            assert!(found.weights + found.patch < 3 << 30, "{}: {found:?}", model.name);
        }
    }

    /// A card of 4 GB, less what driver and kernels take, runs every model over a scan of
    /// 512x512x275 voxels (0.75 x 0.75 x 1.25 mm), the whole image on the device or tile by tile.
    #[test]
    fn small_cards_run_every_model() {
        let budget = 4_000_000_000 - (300 << 20);
        let mut whole = Vec::new();
        for model in registry::models() {
            let config = model.config();
            let facts = model.facts().expect("checked by the build");
            let found = footprint(
                &model.onnx().expect("ONNX"),
                facts.input_channels,
                config.patch_size,
                Precision::F32,
            );
            let found = found.expect(&model.name);
            assert_eq!(found.batch(0, budget, 1).expect(&model.name), 1);
            let (scan, spacing) = ([275, 512, 512], [1.25, 0.75, 0.75]);
            let target = std::array::from_fn(|k| config.target_spacing[k].unwrap_or(spacing[k]));
            let shape = crate::pipeline::resample::resampled_shape(scan, spacing, target);
            let graph = Graph::read(&model.onnx().expect("ONNX")).expect("checked by the build");
            let network = Network::new(graph, config.patch_size).expect("checked by the build");
            let narrow = network.head().filter(|(classes, features)| features < classes);
            let outputs = narrow.map_or(facts.output_channels, |(_, features)| features);
            let image =
                Image { shape, patch: config.patch_size, inputs: facts.input_channels, outputs };
            let passes = 1 << config.mirror_axes.len();
            let tiles = found.with_passes(image, passes);
            if tiles.batch(image.fixed_bytes(), budget, 8).is_ok() && image.is_indexable() {
                whole.push(model.name.to_string());
            }
        }
        // The classes of `total` alone would not fit; its features do.
        for name in ["bone_low", "bone_medium", "headneck", "total"] {
            assert!(whole.iter().any(|model| model == name), "{name} is not among {whole:?}");
        }
    }

    #[test]
    fn batches_fill_the_budget() {
        let footprint = Footprint { weights: 10, patch: 100, array: 50 };
        assert_eq!(footprint.batch(5, 115, 8).expect("one"), 1);
        assert_eq!(footprint.batch(5, 314, 8).expect("two"), 2);
        assert_eq!(footprint.batch(5, u64::MAX, 8).expect("eight"), 8);
        let error = footprint.batch(5, 114, 8).expect_err("none");
        assert_eq!(error.kind(), crate::ErrorKind::Memory);
    }
}
