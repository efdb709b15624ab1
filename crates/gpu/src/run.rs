//! Runs a plan on a device.

#![allow(unsafe_code, reason = "launches of kernels")]

mod general;

use crate::conv::{self, Buffers, Types};
use crate::kernels::{image, last, moments};
use crate::plan::{Action, Last, Norm, Number, Plan, Precision, Slot};
use crate::queue::{Queue, cubes, start, whole};
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};
use std::ops::Range;

/// A plan on a device: weights are there, buffers are there, nothing is allocated from now on.
pub(crate) struct Program {
    pub(crate) client: Client,
    pub(crate) plan: Plan,
    slots: Vec<Handle>,
    params: Handle,
    singles: Handle,
    halves: Handle,
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    // An empty buffer is none.
    let values = if values.is_empty() { &[0.0; 4] } else { values };
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Numbers on a device.
pub(crate) fn upload(client: &Client, values: &[f32]) -> Handle {
    client.create_from_slice(&bytes_of(values))
}

/// A buffer of so many numbers in `f32`, of exactly that size.
pub(crate) fn numbers(client: &Client, count: usize) -> Handle {
    client.memory_persistent_allocation((), |()| client.empty(count * 4))
}

/// So many numbers from the start of a buffer.
pub(crate) fn download(
    client: &Client,
    handle: &Handle,
    count: usize,
) -> Result<Vec<f32>, ServerError> {
    let rest = handle.size_in_used() - count as u64 * 4;
    let bytes = client.read_one(handle.clone().offset_end(rest))?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Where results are added up.
pub(crate) struct Sums<'a> {
    pub image: &'a Handle,
    /// The weight of each voxel of a tile.
    pub bell: &'a Handle,
    pub spot: Spot,
    /// Channels before the network's own.
    pub channel: usize,
    pub factor: f32,
}

/// Where a tile lies in an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub tile: [usize; 3],
    pub image: [usize; 3],
    pub origin: [isize; 3],
    pub flips: [bool; 3],
}

impl Spot {
    pub(crate) fn launch(&self) -> image::SpotLaunch {
        let ([tz, ty, tx], [iz, iy, ix]) = (self.tile, self.image);
        // Kernels count in 32 bits, and wrap around.
        let [z, y, x] = self.origin.map(|n| n as i32 as u32 as usize);
        let [fz, fy, fx] = self.flips.map(usize::from);
        image::SpotLaunch::new(tz, ty, tx, iz, iy, ix, z, y, x, fz, fy, fx, iz * iy * ix)
    }
}

impl Program {
    /// Puts a plan on a device, in buffers of its own or in those of another program whose plan has
    /// none that are larger.
    pub(crate) fn new(client: Client, plan: Plan, other: Option<&Self>) -> Self {
        let halves: &[u16] = if plan.halves.is_empty() { &[0; 8] } else { &plan.halves };
        let halves: Vec<u8> = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
        let fits = |other: &&Self| {
            let sizes = other.plan.slots.iter().zip(&plan.slots);
            other.plan.slots.len() >= plan.slots.len() && sizes.clone().all(|(a, b)| a >= b)
        };
        let shared = other.filter(fits).map(|other| other.slots.clone());
        // Exact sizes, which stay where they are.
        let (slots, [params, singles, halves]) = client.memory_persistent_allocation((), |()| {
            let own = || plan.slots.iter().map(|&bytes| client.empty(bytes as usize)).collect();
            let constants = [bytes_of(&plan.params), bytes_of(&plan.singles), halves];
            (shared.unwrap_or_else(own), constants.map(|bytes| client.create_from_slice(&bytes)))
        });
        let mut program = Self { client, plan, slots, params, singles, halves };
        // They are on the device now.
        (program.plan.singles, program.plan.halves) = (Vec::new(), Vec::new());
        program
    }

    /// The network's input, `[image, channel, z, y, x]` in `f32`.
    pub(crate) fn input(&self) -> &Handle {
        &self.slots[self.plan.input]
    }

    pub(crate) fn element(&self, number: Number) -> ElemType {
        ElemType::Float(match (number, self.plan.precision) {
            (Number::Own, Precision::F16) => FloatKind::F16,
            (Number::Own, Precision::Bf16) => FloatKind::BF16,
            _ => FloatKind::F32,
        })
    }

    /// Copies numbers to a buffer; more bytes than it has is an error of the caller.
    pub(crate) fn write_input(&self, values: &[f32]) {
        let bytes = bytes_of(values);
        let handle = self.input().clone();
        let rest = handle.size_in_used() - bytes.len() as u64;
        self.client.write(&handle.offset_end(rest), cubecl::bytes::Bytes::from_bytes_vec(bytes));
    }

    /// Launches all steps once.
    pub(crate) fn launch(&self, queue: &Queue<'_>) {
        for step in &self.plan.steps {
            self.act(queue, step);
        }
    }

    /// Bytes of weights and parameters on the device.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn weight_bytes(&self) -> u64 {
        [&self.params, &self.singles, &self.halves].map(Handle::size_in_used).iter().sum()
    }

    /// Numbers of the results of all images.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn results(&self) -> usize {
        self.plan.images * self.plan.last.outputs * self.plan.patch.iter().product::<usize>()
    }

    /// Writes results to `output`, `[image, channel, z, y, x]`.
    pub(crate) fn leave(&self, queue: &Queue<'_>, output: &Handle) {
        let spot = Spot {
            tile: self.plan.patch,
            image: self.plan.patch,
            origin: [0; 3],
            flips: [false; 3],
        };
        // No weights are read.
        let to = Sums { image: output, bell: &self.params, spot, channel: 0, factor: 1.0 };
        self.last(queue, 0..self.plan.images, &to, false);
    }

    /// Adds the results of one image to sums.
    pub(crate) fn add(&self, queue: &Queue<'_>, number: usize, to: &Sums<'_>) {
        self.last(queue, number..number + 1, to, true);
    }

    fn last(&self, queue: &Queue<'_>, images: Range<usize>, to: &Sums<'_>, adds: bool) {
        let Last { source, outputs, head, bias, weights } = self.plan.last;
        let voxels: usize = source.dims.iter().product();
        let count = cubes((images.len() * outputs.div_ceil(8) * voxels).div_ceil(last::THREADS));
        let sizes = last::EndingLaunch::new(
            images.len(),
            images.start,
            voxels,
            source.channels.div_ceil(8),
            outputs,
            source.entry,
            source.stride,
            bias,
            weights,
            to.channel,
            to.factor,
        );
        let own = self.element(Number::Own);
        let a = whole(self.slot(source.slot), own.size() * 8);
        let (params, weights) = (whole(self.params.clone(), 16), whole(self.singles.clone(), 16));
        let (bell, output) = (whole(to.bell.clone(), 4), whole(to.image.clone(), 4));
        let dim = CubeDim::new_1d(last::THREADS as u32);
        // SAFETY: the source holds all its blocks, the output a number per voxel and channel, or the
        // image one per voxel that the tile and it have both.
        unsafe {
            start!(
                queue,
                last::last,
                count,
                dim,
                a,
                params,
                weights,
                bell,
                output,
                sizes,
                to.spot.launch(),
                head,
                adds,
                own,
            );
        }
    }

    fn slot(&self, slot: Slot) -> Handle {
        self.slots[slot].clone()
    }

    /// One launch.
    pub(crate) fn act(&self, queue: &Queue<'_>, action: &Action) {
        let images = self.plan.images;
        match action {
            Action::Conv { conv, way, bases, inputs, input, output } => {
                let matrix = matches!(way.kernel, conv::Kernel::Matrix(_));
                let buffers = Buffers {
                    inputs: inputs.map(|slot| self.slot(slot)),
                    params: self.params.clone(),
                    weights: if matrix { self.halves.clone() } else { self.singles.clone() },
                    output: self.slot(*output),
                    sums: self.slot(self.plan.sums),
                    parts: self.slot(self.plan.parts),
                };
                let types =
                    Types { input: self.element(*input), output: self.element(Number::Own) };
                conv::launch(queue, conv, way, images, bases, types, buffers);
            }
            Action::Merge { norm, pieces } => {
                let team = self.plan.team;
                let dim = CubeDim::new_1d(team as u32);
                let parts = whole(self.slot(self.plan.parts), 16);
                let params = whole(self.params.clone(), 16);
                let norm = self.norm(norm, *pieces);
                let count = cubes(images * norm.1);
                // SAFETY: there are moments of all pieces of all maps, and an entry for each map.
                unsafe { start!(queue, moments::merge, count, dim, parts, params, norm.0, team) };
            }
            Action::Finish { task, source, from, output, norm, voxels, piece, splits, bias } => {
                let team = self.plan.team;
                let dim = CubeDim::new_1d(team as u32);
                let pieces = voxels.div_ceil(*piece);
                let (from, own) = (self.element(*from), self.element(Number::Own));
                let (norm, blocks) = self.norm(norm, pieces);
                let count = cubes(images * blocks * pieces);
                let sizes = moments::PiecesLaunch::new(*voxels, *piece, *splits, *bias);
                let source = whole(self.slot(*source), from.size() * 4);
                let params = whole(self.params.clone(), 16);
                let output = whole(self.slot(*output), own.size() * 4);
                let parts = whole(self.slot(self.plan.parts), 16);
                // SAFETY: source and output hold all voxels of all maps, and parts a piece each.
                unsafe {
                    start!(
                        queue,
                        moments::finish,
                        count,
                        dim,
                        source,
                        params,
                        output,
                        parts,
                        sizes,
                        norm,
                        *task,
                        team,
                        from,
                        own,
                    );
                }
            }
            other => self.general(queue, other),
        }
    }

    /// How [`moments`] see a normalization; and the blocks of an image.
    fn norm(&self, norm: &Norm, pieces: usize) -> (moments::NormLaunch, usize) {
        let maps = self.plan.images * norm.blocks;
        (
            moments::NormLaunch::new(maps, norm.blocks, pieces, norm.from, norm.to, norm.epsilon),
            norm.blocks,
        )
    }
}
