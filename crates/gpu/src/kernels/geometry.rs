//! What convolution kernels know about their layer.
//!
//! Activations lie in blocks of eight channels, `[image, block, z, y, x, 8]`; the network's input
//! channel by channel. A cube makes one tile of the output for a group of blocks; which, its number
//! says. Kernel, stride and tile are compiled into a kernel, since addresses then are constants; all
//! other sizes are data, so that one compiled kernel serves many layers.

use cubecl::prelude::*;

/// Channels of a block.
pub(crate) const BLOCK: usize = 8;

/// Entry of a tile's table that is no voxel of the input.
pub(crate) const OUTSIDE: u32 = u32::MAX;

/// Sizes of a layer at run time.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Layer {
    /// Voxels of the input.
    pub iz: usize,
    pub iy: usize,
    pub ix: usize,
    /// Voxels of the output, before it is scattered where that is done.
    pub oz: usize,
    pub oy: usize,
    pub ox: usize,
    /// Zeros before the input.
    pub pz: usize,
    pub py: usize,
    pub px: usize,
    /// Tiles along each axis.
    pub nz: usize,
    pub ny: usize,
    pub nx: usize,
    /// Blocks of channels of the first input, of both, and of the output.
    pub blocks_a: usize,
    pub blocks_in: usize,
    pub blocks_out: usize,
    /// Blocks that are made: those of the output, or as many for each voxel it is scattered to.
    pub made: usize,
    /// Groups of blocks that are made, and parts of the sum.
    pub groups: usize,
    pub splits: usize,
    /// Stages of the sum.
    pub stages: usize,
    /// A grid may have cubes beyond the last image.
    pub images: usize,
    /// Where things begin: entries for reading both inputs, how far those of the next image are
    /// (vectors of four), bias (the same), weights (vectors).
    pub affine_a: usize,
    pub affine_b: usize,
    pub stride_a: usize,
    pub stride_b: usize,
    pub bias: usize,
    pub weights: usize,
}

/// What a tile is, and what it reads: compiled into a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// Voxels of the output.
    pub tile: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
}

impl Window {
    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Voxels of the input that a tile reads; rows lie in shared memory sorted by their columns'
    /// remainders of the stride, so their length is a multiple of that.
    pub(crate) fn halo(&self) -> [usize; 3] {
        let reach = |k: usize| (self.tile[k] - 1) * self.stride[k] + self.kernel[k];
        [reach(0), reach(1), reach(2).next_multiple_of(self.stride[2])]
    }

    /// Places of a block of channels in shared memory.
    pub(crate) fn size(&self) -> usize {
        self.halo().iter().product()
    }

    /// How far a row of taps is.
    pub(crate) fn row(&self, z: usize, y: usize) -> usize {
        let [_, hy, pitch] = self.halo();
        (z * hy + y) * pitch
    }

    /// How far a tap is in its row.
    pub(crate) fn column(&self, x: usize) -> usize {
        let (pitch, stride) = (self.halo()[2], self.stride[2]);
        x % stride * (pitch / stride) + x / stride
    }
}

/// Where a cube works.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    pub image: usize,
    /// Among the tiles of an image.
    pub tile: usize,
    /// First voxel of the tile.
    pub z: usize,
    pub y: usize,
    pub x: usize,
    pub group: usize,
    pub split: usize,
}

/// The cube's place: groups of output channels fastest, so that cubes that read the same input
/// run together.
#[cube]
pub(crate) fn place(layer: &Layer, #[comptime] window: Window) -> Place {
    let [tz, ty, tx] = window.tile;
    let at = CUBE_POS;
    let group = at % layer.groups;
    let rest = at / layer.groups;
    let split = rest % layer.splits;
    let rest = rest / layer.splits;
    let tiles = layer.nz * layer.ny * layer.nx;
    let tile = rest % tiles;
    let x = tile % layer.nx * tx;
    let y = tile / layer.nx % layer.ny * ty;
    let z = tile / layer.nx / layer.ny * tz;
    Place { image: rest / tiles, tile, z, y, x, group, split }
}

/// For every place of a tile in shared memory, the voxel of the input that belongs there.
#[cube]
pub(crate) fn chart(
    table: &mut [u32],
    layer: &Layer,
    here: &Place,
    #[comptime] window: Window,
    #[comptime] threads: usize,
) {
    let [_, hy, pitch] = comptime!(window.halo());
    let [sz, sy, sx] = window.stride;
    let width = comptime!(pitch / sx);
    let mut at = UNIT_POS as usize;
    while at < comptime!(window.size()) {
        let row = at / pitch;
        let column = at % pitch;
        let x = here.x * sx + column % width * sx + column / width;
        let y = here.y * sy + row % hy;
        let z = here.z * sz + row / hy;
        // Below zero is beyond the end.
        let (z, y, x) = (z - layer.pz, y - layer.py, x - layer.px);
        let inside = z < layer.iz && y < layer.iy && x < layer.ix;
        let voxel = (z * layer.iy + y) * layer.ix + x;
        table[at] = select(inside, voxel as u32, OUTSIDE);
        at += threads;
    }
}

/// Voxels of the tile that the output has.
#[cube]
pub(crate) fn count(layer: &Layer, here: &Place, #[comptime] window: Window) -> f32 {
    let [tz, ty, tx] = window.tile;
    let z = min(tz.runtime(), layer.oz - here.z);
    let y = min(ty.runtime(), layer.oy - here.y);
    let x = min(tx.runtime(), layer.ox - here.x);
    f32::cast_from(z * y * x)
}

/// Where a voxel's block of channels goes, in blocks: `made` counts the voxels that it is scattered
/// to fastest; parts of a sum follow each other for each block.
#[cube]
pub(crate) fn target(
    layer: &Layer,
    here: &Place,
    made: usize,
    z: usize,
    y: usize,
    x: usize,
    #[comptime] scatter: [usize; 3],
) -> usize {
    let [uz, uy, ux] = scatter;
    let taps = comptime!(uz * uy * ux);
    if comptime!(taps > 1) {
        let tap = made % taps;
        let block = made / taps;
        let z = z * uz + tap / comptime!(ux * uy);
        let y = y * uy + tap / ux % uy;
        let x = x * ux + tap % ux;
        let map = (here.image * layer.blocks_out + block) * layer.splits + here.split;
        ((map * layer.oz * uz + z) * layer.oy * uy + y) * layer.ox * ux + x
    } else {
        let map = (here.image * layer.blocks_out + made) * layer.splits + here.split;
        ((map * layer.oz + z) * layer.oy + y) * layer.ox + x
    }
}
