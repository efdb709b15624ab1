//! What networks take on a device, known before a device is asked for anything.

use crate::network::{Error, Join, Options};
use crate::plan::activation_slots;
use fastnnunet_model::Mismatch;
use fastnnunet_model::network::{Network as Checked, Operator};

/// Bytes of a sum, and of a number of an image.
const SINGLE: u64 = 4;

/// Most numbers of a buffer: kernels count in 32 bits.
const MOST_NUMBERS: u64 = u32::MAX as u64;

/// Bytes of the networks of one model, from their graphs: what is alive at each step and nothing
/// else, as the plan has it. Parts of sums, which deep layers have and are small, are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Weights as the files have them, in the precision that is multiplied.
    weights: u64,
    /// Activations of a patch, and the largest buffer of them.
    activations: u64,
    largest: u64,
    voxels: u64,
    inputs: u64,
    outputs: u64,
}

impl Needs {
    /// Of networks that run with these options.
    ///
    /// # Errors
    ///
    /// [`Error::Network`] if there is none, or they differ in what they read or make.
    pub fn of(networks: &[Checked], options: &Options) -> Result<Self, Error> {
        let Some(first) = networks.first() else {
            return Err(Mismatch::new("no network", "at least one").into());
        };
        let same = |other: &Checked| {
            other.input == first.input && other.output_channels() == first.output_channels()
        };
        if !networks.iter().all(same) || first.extent(first.output).dims != first.input.dims {
            let expected = "networks that read and make patches of the same size";
            return Err(Mismatch::new("networks that differ", expected).into());
        }
        let slots = activation_slots(first, options.precision);
        let size = options.precision.bytes() as u64;
        let each = first.output_channels();
        let outputs = if options.join == Join::Side { each * networks.len() } else { each };
        let numbers = networks.iter().map(|network| weights(network) as u64);
        Ok(Self {
            weights: numbers.fold(0, u64::saturating_add).saturating_mul(size),
            activations: slots.iter().fold(0, |sum: u64, &bytes| sum.saturating_add(bytes)),
            largest: slots.iter().copied().max().unwrap_or(0),
            voxels: volume(first.input.dims),
            inputs: first.input.channels as u64,
            outputs: outputs as u64,
        })
    }

    /// Bytes for so many patches at once: weights, activations, and what patches leave.
    #[must_use]
    pub fn patch_bytes(&self, patches: usize) -> u64 {
        let results = product(&[self.outputs, self.voxels, SINGLE]);
        let each = self.activations.saturating_add(results);
        self.weights.saturating_add(each.saturating_mul(patches as u64))
    }

    /// Bytes of the largest buffer for so many patches at once.
    #[must_use]
    pub fn largest_buffer(&self, patches: usize) -> u64 {
        let results = product(&[self.outputs, self.voxels, SINGLE]);
        self.largest.max(results).saturating_mul(patches as u64)
    }

    /// Bytes for a whole image of that many voxels with so many tiles at once: the networks, the
    /// image, sums and their weights, and labels of `target` voxels.
    #[must_use]
    pub fn image_bytes(&self, image: [usize; 3], target: usize, tiles: usize) -> u64 {
        let maps = product(&[volume(image), self.inputs + self.outputs + 1, SINGLE]);
        self.patch_bytes(tiles).saturating_add(maps).saturating_add(target as u64 * 2)
    }

    /// Tiles that run at once over an image, at most `most`, within so many bytes in all and in one
    /// buffer; `None` if not even one fits, or kernels cannot count that far.
    #[must_use]
    pub fn tiles_at_once(
        &self,
        image: [usize; 3],
        target: usize,
        most: usize,
        (limit_bytes, buffer_bytes): (u64, u64),
    ) -> Option<usize> {
        let numbers = product(&[volume(image), self.inputs.max(self.outputs)]);
        if numbers >= MOST_NUMBERS || numbers.saturating_mul(SINGLE) > buffer_bytes {
            return None;
        }
        let fits = |&n: &usize| {
            self.image_bytes(image, target, n) <= limit_bytes
                && self.largest_buffer(n) <= buffer_bytes
        };
        (1..=most.max(1)).rev().find(fits)
    }

    /// As many tiles as give every processor some blocks of the deepest layers.
    pub(crate) fn tiles_that_pay(&self) -> usize {
        const VOXELS: u64 = 2 << 20;
        (VOXELS / self.voxels.max(1)).clamp(1, 8) as usize
    }
}

/// Numbers of a network's weights.
fn weights(network: &Checked) -> usize {
    let of = |operator: &Operator| match operator {
        Operator::Conv(conv) | Operator::TransposedConv(conv) => conv.weights.len(),
        _ => 0,
    };
    network.nodes.iter().map(|node| of(&node.operator)).sum()
}

fn volume(dims: [usize; 3]) -> u64 {
    product(&dims.map(|n| n as u64))
}

fn product(numbers: &[u64]) -> u64 {
    numbers.iter().fold(1, |product: u64, &n| product.saturating_mul(n))
}
