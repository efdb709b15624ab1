//! Whole images on a device: tiles in, labels out.

use crate::device::Device;
use crate::kernels::image::{self, Choice};
use crate::network::{Error, Join, Network};
use crate::queue::{Queue, compile_ahead, cubes, start, whole};
use crate::run::{Program, Spot, Sums, download, numbers, upload};
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Batches that wait at the device, so that it never does.
const AHEAD: usize = 4;

/// An image and its tiles.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// `[c, z, y, x]`.
    pub values: &'a [f32],
    /// `[z, y, x]`.
    pub shape: [usize; 3],
    /// First voxels of tiles, in the order in which they are added up; they may lie outside.
    pub origins: &'a [[isize; 3]],
    /// Weight of each voxel of a tile.
    pub bell: &'a [f32],
    /// Axes that are flipped in each pass over a tile.
    pub passes: &'a [[bool; 3]],
}

impl Network {
    /// Runs all tiles of an image: the weighted means of what the networks make, on the device.
    ///
    /// `advance` is called for every pass over a tile that is done; where it returns false, the run
    /// stops and there is no result.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the device does not hold it, [`Error::Device`] if the device fails.
    ///
    /// # Panics
    ///
    /// If the image's parts have other lengths than its shape and the patch say.
    pub fn means(
        &mut self,
        image: &Image<'_>,
        target: usize,
        advance: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Means>, Error> {
        let volume: usize = image.shape.iter().product();
        assert_eq!(image.values.len(), self.inputs() * volume, "an image");
        assert_eq!(image.bell.len(), self.voxels(), "weights of a tile");
        let count = image.origins.len() * image.passes.len();
        let Some(tiles) = self.tiles_at_once(image.shape, target, count) else {
            let need_bytes = self.needs.image_bytes(image.shape, target, 1);
            let (what, limit_bytes) = ("the image", self.options.limit_bytes);
            return Err(Error::Memory { what, need_bytes, limit_bytes });
        };
        let ready = self.tiles.as_ref().is_some_and(|programs| programs[0].plan.images == tiles);
        if !ready {
            self.tiles = None;
            self.tiles = Some(self.programs(tiles)?);
        }
        let Some(programs) = &self.tiles else { unreachable!("made above") };
        let client = &self.device.client;
        let queue = &Queue::new(client);
        let run = Run {
            network: self,
            programs,
            image,
            values: upload(client, image.values),
            bell: upload(client, image.bell),
            sums: numbers(client, self.outputs() * volume),
            totals: numbers(client, volume),
        };
        if !ready {
            compile_ahead(&self.device, |queue| {
                run.batch(queue, &[([0; 3], [false; 3])]);
                run.finish(queue, volume);
            });
        }
        Run::clear(queue, &run.sums, self.outputs() * volume);
        Run::clear(queue, &run.totals, volume);
        let passes: Vec<([isize; 3], [bool; 3])> = image
            .origins
            .iter()
            .flat_map(|&origin| image.passes.iter().map(move |&flips| (origin, flips)))
            .collect();
        for batches in passes.chunks(tiles * AHEAD) {
            batches.chunks(tiles).for_each(|batch| run.batch(queue, batch));
            block_on(client.sync())?;
            if !batches.iter().all(|_| advance()) {
                return Ok(None);
            }
        }
        run.finish(queue, volume);
        let Run { sums, .. } = run;
        let channels = self.outputs();
        Ok(Some(Means { device: self.device.clone(), sums, shape: image.shape, channels }))
    }
}

/// An image on its way.
struct Run<'a> {
    network: &'a Network,
    programs: &'a [Program],
    image: &'a Image<'a>,
    values: Handle,
    bell: Handle,
    sums: Handle,
    totals: Handle,
}

impl Run<'_> {
    fn spot(&self, origin: [isize; 3], flips: [bool; 3]) -> Spot {
        Spot { tile: self.network.patch(), image: self.image.shape, origin, flips }
    }

    fn clear(queue: &Queue<'_>, handle: &Handle, count: usize) {
        let grid = cubes(count.div_ceil(image::THREADS));
        // SAFETY: the buffer holds so many numbers.
        unsafe {
            start!(
                queue,
                image::clear,
                grid,
                CubeDim::new_1d(image::THREADS as u32),
                whole(handle.clone(), 4),
                count,
            );
        }
    }

    /// Cuts some tiles, runs them, and adds them up.
    fn batch(&self, queue: &Queue<'_>, tiles: &[([isize; 3], [bool; 3])]) {
        let network = self.network;
        let (dim, voxels) = (CubeDim::new_1d(image::THREADS as u32), network.voxels());
        let input = self.programs[0].input();
        for (number, &(origin, flips)) in tiles.iter().enumerate() {
            let (values, input) = (whole(self.values.clone(), 4), whole(input.clone(), 4));
            let grid = cubes((network.inputs() * voxels).div_ceil(image::THREADS));
            let place = self.spot(origin, flips).launch();
            // SAFETY: the input holds as many images as tiles run at once.
            unsafe {
                start!(
                    queue,
                    image::cut,
                    grid,
                    dim,
                    values,
                    input,
                    place,
                    network.inputs(),
                    number
                );
            }
        }
        let each = network.networks[0].output_channels();
        let mean = network.options.join == Join::Mean;
        for (k, program) in self.programs.iter().enumerate() {
            // Programs share their buffers, and none but the tiles' own writes the input.
            program.launch(queue);
            for (number, &(origin, flips)) in tiles.iter().enumerate() {
                program.add(
                    queue,
                    number,
                    &Sums {
                        image: &self.sums,
                        bell: &self.bell,
                        spot: self.spot(origin, flips),
                        channel: if mean { 0 } else { k * each },
                        factor: if mean { 1.0 / self.programs.len() as f32 } else { 1.0 },
                    },
                );
            }
        }
        for &(origin, flips) in tiles {
            let grid = cubes(voxels.div_ceil(image::THREADS));
            let (bell, totals) = (whole(self.bell.clone(), 4), whole(self.totals.clone(), 4));
            let place = self.spot(origin, flips).launch();
            // SAFETY: there is a weight per voxel of a tile and a total per voxel of the image.
            unsafe { start!(queue, image::weigh, grid, dim, bell, totals, place, 1.0) };
        }
    }

    /// Sums become means.
    fn finish(&self, queue: &Queue<'_>, volume: usize) {
        let grid = cubes(volume.div_ceil(image::THREADS));
        let (totals, sums) = (whole(self.totals.clone(), 4), whole(self.sums.clone(), 4));
        let (dim, channels) = (CubeDim::new_1d(image::THREADS as u32), self.network.outputs());
        // SAFETY: both hold the image's voxels.
        unsafe {
            start!(queue, image::divide, grid, dim, totals, sums, volume, channels);
        }
    }
}

/// What networks make of an image, on the device.
pub struct Means {
    device: Device,
    sums: Handle,
    shape: [usize; 3],
    channels: usize,
}

/// How means become labels.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// For each voxel along `z`, `y` and `x` its two neighbors and the weight of the second; the lengths
    /// are the target's shape.
    pub axes: [&'a [(usize, usize, f32)]; 3],
    /// Weights (`[classes, channels]`) and biases of a linear layer that makes logits.
    pub head: Option<(&'a [f32], &'a [f32])>,
    /// `None` for the class with the largest logit, else the number of the last class whose logit
    /// exceeds this, plus one.
    pub above: Option<f32>,
}

/// Most features of a linear layer that is applied on the device.
pub const MOST_FEATURES: usize = 64;

/// So many labels are too many for one run: kernels count in 32 bits.
pub const MOST_LABELS: usize = u32::MAX as usize;

impl Means {
    /// `[c, z, y, x]`.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device fails.
    pub fn read(&self) -> Result<Vec<f32>, Error> {
        let count = self.channels * self.shape.iter().product::<usize>();
        Ok(download(&self.device.client, &self.sums, count)?)
    }

    /// The number of each voxel's class, `[z, y, x]`.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device fails.
    ///
    /// # Panics
    ///
    /// If a neighbor lies outside the means, the linear layer does not read their channels or reads more
    /// than 64, there are more classes than `u16` counts, or the target has 2^32 voxels or more.
    pub fn labels(&self, labels: &Labels<'_>) -> Result<Vec<u16>, Error> {
        let Labels { axes, head, above } = *labels;
        let classes = head.map_or(self.channels, |(_, bias)| bias.len());
        self.check(labels, classes);
        let each = if classes < 256 { 4 } else { 2 };
        let choice = Choice {
            features: if head.is_some() { self.channels } else { 0 },
            regions: above.is_some(),
            each,
        };
        let [z, y, x] = axes.map(<[_]>::len);
        let voxels = z * y * x;
        let client = &self.device.client;
        let flat = axes.iter().flat_map(|axis| axis.iter());
        let table: Vec<f32> =
            flat.flat_map(|&(low, high, t)| [low as f32, high as f32, t]).collect();
        let (weights, bias) = head.unwrap_or_default();
        let layer = [weights, bias].concat();
        let (table, layer) = (upload(client, &table), upload(client, &layer));
        let words = voxels.div_ceil(each);
        let output = client.empty(words * 4);
        let [_, sy, sx] = self.shape;
        let grid = image::GridLaunch::new(
            y,
            x,
            voxels,
            0,
            sy,
            sx,
            self.shape.iter().product(),
            classes,
            weights.len(),
            0,
            0,
            z * 3,
            (z + y) * 3,
        );
        let dim = CubeDim::new_1d(image::THREADS as u32);
        // SAFETY: neighbors lie within the means and the layer reads their channels, which `check` found;
        // there is a word for every few voxels.
        unsafe {
            start!(
                &Queue::new(client),
                image::label,
                cubes(words.div_ceil(image::THREADS)),
                dim,
                whole(self.sums.clone(), 4),
                whole(table, 4),
                whole(layer, 4),
                whole(output.clone(), 4),
                grid,
                above.unwrap_or(0.0),
                choice,
            );
        }
        let bytes = client.read_one(output)?;
        let mut found: Vec<u16> = match each {
            4 => bytes.iter().map(|&byte| u16::from(byte)).collect(),
            _ => bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
        };
        found.truncate(voxels);
        Ok(found)
    }

    /// What a kernel that checks nothing relies on.
    fn check(&self, labels: &Labels<'_>, classes: usize) {
        for (axis, &size) in labels.axes.iter().zip(&self.shape) {
            let inside = axis.iter().all(|&(low, high, _)| low < size && high < size);
            assert!(inside, "neighbors within {size} voxels");
        }
        if let Some((weights, _)) = labels.head {
            assert_eq!(weights.len(), classes * self.channels, "weights of the linear layer");
            assert!(self.channels <= MOST_FEATURES, "{} features", self.channels);
        }
        // The kernel may write a class plus one.
        assert!((1..1 << 16).contains(&classes), "{classes} classes");
        let target = labels.axes.iter().fold(1_usize, |n, axis| n.saturating_mul(axis.len()));
        assert!(target < MOST_LABELS, "{target} voxels");
    }
}
