//! Convolution on tensor cores: products in half precision, sums in `f32`.
//!
//! An implicit matrix product of voxels by output channels, `m16n8k16` at a time. What a tile reads
//! of some blocks of channels goes to shared memory once, normalized and activated on the way, and
//! serves all taps: the rows of a matrix are voxels wherever they lie, its columns two units of
//! eight, each a block of channels under a tap. Weights come packed as the instruction wants them,
//! 16 bytes per thread, some steps ahead.
//!
//! The network's own input has too few channels for that: there a unit is eight taps of it.

mod fill;
mod leave;

use super::geometry::{Layer, Place, Window, chart, place};
use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

/// What is compiled into a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// Rows of 16 voxels per plane of 32 threads; a power of two, as are the tile's edges.
    pub rows: usize,
    /// Columns of 8 output channels per plane: 1, or even.
    pub columns: usize,
    /// Planes along voxels.
    pub planes: usize,
    /// Planes along output channels.
    pub wide: usize,
    /// Blocks of channels in shared memory at once: 1, or even.
    pub depth: usize,
    pub window: Window,
    /// Voxels of the output for each one made.
    pub scatter: [usize; 3],
    /// Channels of the network's own input; 0 where the input lies in blocks.
    pub planar: usize,
    /// Whether moments of the output are taken.
    pub moments: bool,
    /// Whether the half precision is bf16.
    pub brain: bool,
    /// Whether a stage is asked for while the one before is multiplied; few vectors per thread.
    pub early: bool,
}

impl Form {
    pub(crate) fn threads(&self) -> usize {
        self.planes * self.wide * 32
    }

    /// Voxels of a tile.
    pub(crate) fn voxels(&self) -> usize {
        self.rows * self.planes * 16
    }

    /// Blocks of output channels of a cube.
    pub(crate) fn blocks(&self) -> usize {
        self.columns * self.wide
    }

    /// Units of eight products that a stage adds up, an even number.
    pub(crate) fn units(&self) -> usize {
        let taps = self.window.taps();
        let units =
            if self.planar > 0 { (taps * self.planar).div_ceil(8) } else { taps * self.depth };
        units.next_multiple_of(2)
    }

    /// Places in shared memory from one unit of the same tap to the next.
    fn size(&self) -> usize {
        if self.planar > 0 { self.voxels() } else { self.window.size() }
    }

    /// Vectors of a block that a thread copies.
    fn rounds(&self) -> usize {
        self.size().div_ceil(self.threads())
    }

    /// Vectors of a stage that a thread copies.
    pub(crate) fn share(&self) -> usize {
        self.depth * self.rounds()
    }

    /// Whether a thread has room for its share of the next stage.
    pub(crate) fn may_be_early(&self) -> bool {
        self.planar == 0 && self.share() <= 10
    }

    /// Whether the two units of a step are the same tap of two blocks, so that addresses differ by
    /// a constant.
    fn paired(&self) -> bool {
        self.planar > 0 || self.depth > 1
    }

    /// Steps that are spelled out, and how often they are repeated.
    fn inner(&self) -> usize {
        match (self.planar, self.depth) {
            (0, 1) => 1,
            (0, _) => self.window.kernel[2] * self.depth / 2,
            _ => self.units() / 2,
        }
    }

    fn outer(&self) -> usize {
        self.units() / 2 / self.inner()
    }

    /// Steps that weights are read ahead.
    pub(crate) fn ahead(&self) -> usize {
        let loads = self.columns.div_ceil(2);
        let inner = self.inner();
        (1..=inner).rev().find(|n| inner.is_multiple_of(*n) && n * loads <= 6).unwrap_or(1)
    }

    /// Where the first unit of a spelled-out step lies.
    fn step(&self, step: usize) -> usize {
        if self.planar > 0 {
            return step * 2 * self.size();
        }
        let pairs = self.depth / 2;
        self.window.column(step / pairs) + step % pairs * 2 * self.size()
    }

    /// Where the voxel `m` of a tile lies.
    fn voxel(&self, m: usize) -> usize {
        if self.planar > 0 {
            return m;
        }
        let ([_, ty, tx], [sz, sy, _]) = (self.window.tile, self.window.stride);
        self.window.row(m / tx / ty * sz, m / tx % ty * sy) + m % tx
    }

    /// Vectors of shared memory: of the tile, of its table and of offsets.
    pub(crate) fn shared(&self) -> [usize; 3] {
        let (size, units) = (self.size(), self.units());
        match (self.planar, self.depth) {
            (0, 1) => [size, size, units],
            (0, depth) => [size * depth, size, 1],
            _ => [size * units, 1, 1],
        }
    }
}

/// Where a thread stands in its cube, and what its plane makes.
#[derive(CubeType, Clone, Copy)]
struct Member {
    /// In the plane.
    lane: usize,
    /// Among planes along voxels, and along output channels.
    plane: usize,
    wide: usize,
    /// First block of output channels.
    block: usize,
}

/// Sums of a thread: for each row and column two voxels, eight rows apart, of two channels.
type Acc = Sequence<Array<Vector<f32, Const<2>>>>;

/// `output` receives halves of a kind, two to a `u32`; `sums` parts of the sum where that is split,
/// without bias; `parts` the moments, per block and tile four times two counts, means, and sums of
/// squared deviations.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn convolution<E: Float, A: Float, NA: Size, N: Size, M: Size>(
    a: &[Vector<A, NA>],
    b: &[Vector<A, NA>],
    params: &[Vector<f32, Const<2>>],
    weights: &[Vector<u32, N>],
    output: &mut [Vector<u32, M>],
    sums: &mut [Vector<f32, Const<2>>],
    parts: &mut [Vector<f32, Const<2>>],
    layer: Layer,
    #[comptime] form: Form,
    #[define(E)] _element: ElemType,
    #[define(A)] _read: ElemType,
) {
    let threads = comptime!(form.threads());
    let here = place(&layer, form.window);
    if here.image >= layer.images {
        terminate!();
    }
    let own = member(&here, form);
    let group = here.group * form.wide + own.wide;
    let [tile_size, table_size, offsets_size] = comptime!(form.shared());
    let mut tile = Shared::<[Vector<E, Const<8>>]>::new_aligned_slice(tile_size, 16usize);
    let mut table = Shared::<[u32]>::new_slice(table_size);
    let mut offsets = Shared::<[u32]>::new_slice(offsets_size);
    if comptime!(form.planar == 0) {
        chart(&mut table, &layer, &here, form.window, threads);
    }
    if comptime!(!form.paired()) {
        unpaired(&mut offsets, form);
    }

    let mut acc = zeros(form);
    let loads = comptime!(form.columns.div_ceil(2));
    let ahead = comptime!(form.ahead());
    let first = here.split * layer.stages / layer.splits;
    let last = (here.split + 1) * layer.stages / layer.splits;
    let mut at = layer.weights
        + (group * layer.stages + first) * comptime!(form.units() / 2 * loads * 32)
        + own.lane;
    let mut ring = Array::<Vector<u32, N>>::new(comptime!(ahead * loads));
    #[unroll]
    for j in 0..ahead * loads {
        ring[j] = weights[at + j * 32];
    }
    let mut raw = Array::<Vector<A, NA>>::new(comptime!(if form.early { form.share() } else { 1 }));
    if comptime!(form.early) {
        sync_cube();
        fill::load(a, b, &table, &mut raw, &layer, &here, first, form);
    }
    for stage in first..last {
        sync_cube();
        if comptime!(form.early) {
            fill::keep::<E, A, NA>(params, &table, &raw, &mut tile, &layer, &here, stage, form);
        } else {
            fill::fill::<E, A, NA>(a, b, params, &table, &mut tile, &layer, &here, stage, form);
        }
        sync_cube();
        if comptime!(form.early) {
            // The last one again, where there is no next.
            fill::load(a, b, &table, &mut raw, &layer, &here, min(stage + 1, last - 1), form);
        }
        at = multiply::<E, N>(weights, &tile, &offsets, &mut ring, &mut acc, at, &own, form);
    }
    if layer.splits > 1 {
        leave::part(sums, &acc, &layer, &here, &own, form);
    } else {
        leave::bias(params, &mut acc, &layer, &own, form);
        if comptime!(form.scatter[0] * form.scatter[1] * form.scatter[2] > 1) {
            leave::scattered(output, &acc, &layer, &here, &own, form);
        } else {
            leave::whole(output, parts, &acc, &layer, &here, &own, form);
        }
    }
}

/// Where this thread stands.
#[cube]
fn member(here: &Place, #[comptime] form: Form) -> Member {
    let unit = UNIT_POS as usize;
    let wide = unit / 32 / form.planes;
    Member {
        lane: unit % 32,
        plane: unit / 32 % form.planes,
        wide,
        block: (here.group * form.wide + wide) * form.columns,
    }
}

/// Sums before anything is added.
#[cube]
fn zeros(#[comptime] form: Form) -> Acc {
    let mut acc = Acc::new();
    #[unroll]
    for _ in 0..form.rows * form.columns {
        let mut sum = Array::<Vector<f32, Const<2>>>::new(2usize);
        sum[0] = Vector::new(0.0);
        sum[1] = Vector::new(0.0);
        acc.push(sum);
    }
    acc
}

/// Adds up what lies in shared memory; returns where the weights of the next stage are.
#[cube]
fn multiply<E: Float, N: Size>(
    weights: &[Vector<u32, N>],
    tile: &[Vector<E, Const<8>>],
    offsets: &[u32],
    ring: &mut Array<Vector<u32, N>>,
    acc: &mut Acc,
    first: usize,
    own: &Member,
    #[comptime] form: Form,
) -> usize {
    let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let pair = comptime!(if form.columns == 1 { 1 } else { 2 });
    let loads = comptime!(form.columns / pair);
    let ahead = comptime!(form.ahead());
    // The place of this lane's voxel in the first row; those in others differ by constants.
    let half = own.lane / 16;
    let mut corner = row_of(own.plane * comptime!(form.rows * 16) + own.lane % 16, form);
    if comptime!(form.paired()) {
        corner += half * comptime!(form.size());
    }
    let mut at = first;
    for outer in 0..comptime!(form.outer()) {
        let base = if comptime!(form.paired()) {
            let ky = comptime!(form.window.kernel[1]);
            outer / ky * comptime!(form.window.row(1, 0))
                + outer % ky * comptime!(form.window.row(0, 1))
        } else {
            offsets[outer * 2 + half] as usize
        };
        let base = corner + base;
        #[unroll]
        for step in 0..comptime!(form.inner()) {
            let place = comptime!(if form.paired() { form.step(step) } else { 0 });
            let mut values = Sequence::<Array<Vector<E, Const<2>>>>::new();
            #[unroll]
            for i in 0..form.rows {
                let from = base + comptime!(form.voxel(i * 16) + place);
                values.push(def.load_matrix::<Vector<E, Const<8>>, Const<2>>(
                    &tile[from..from + 1],
                    MatrixIdent::A,
                    4usize,
                    false,
                ));
            }
            #[unroll]
            for j in 0..loads {
                let slot = comptime!(step % ahead * loads + j);
                let packed = ring[slot];
                ring[slot] = weights[at + comptime!((ahead * loads + j) * 32)];
                #[unroll]
                for n in 0..pair {
                    let mut factor = Array::<Vector<E, Const<2>>>::new(2usize);
                    #[unroll]
                    for k in 0..2usize {
                        factor[k] = Vector::<E, Const<2>>::reinterpret(
                            packed.extract(comptime!(2 * n + k)),
                        );
                    }
                    #[unroll]
                    for i in 0..form.rows {
                        let sum = acc.index_mut(comptime!(i * form.columns + j * pair + n));
                        def.execute_inplace(values.index(i), &factor, sum);
                    }
                }
            }
            at += comptime!(loads * 32);
        }
    }
    at
}

/// Where units that are no pairs lie: taps one after the other, and where their number is odd, one
/// more with weights that are zero.
#[cube]
fn unpaired(offsets: &mut [u32], #[comptime] form: Form) {
    let [_, ky, kx] = form.window.kernel;
    let [_, _, sx] = form.window.stride;
    let mut tap = UNIT_POS as usize;
    while tap < comptime!(form.units()) {
        let x = tap % kx;
        let row = tap / kx / ky * comptime!(form.window.row(1, 0))
            + tap / kx % ky * comptime!(form.window.row(0, 1));
        let column = x % sx * comptime!(form.window.halo()[2] / form.window.stride[2]) + x / sx;
        offsets[tap] = select(tap < comptime!(form.window.taps()), row + column, 0usize) as u32;
        tap += comptime!(form.threads());
    }
}

/// The place of a tile's voxel in shared memory.
#[cube]
fn row_of(m: usize, #[comptime] form: Form) -> usize {
    if comptime!(form.planar > 0) {
        m
    } else {
        let [_, ty, tx] = form.window.tile;
        let [sz, sy, _] = form.window.stride;
        m / comptime!(tx * ty) * comptime!(form.window.row(sz, 0))
            + m / tx % ty * comptime!(form.window.row(0, sy))
            + m % tx
    }
}

/// Two numbers rounded to a half type, the first in the lower bits.
#[cube]
fn halves(low: f32, high: f32, #[comptime] brain: bool) -> u32 {
    let out: u32;
    if comptime!(brain) {
        gpu_asm!("cvt.rn.bf16x2.f32 {out}, {high}, {low};", out = out(_) out, high = in(_) high, low = in(_) low, options(pure, nomem));
    } else {
        gpu_asm!("cvt.rn.f16x2.f32 {out}, {high}, {low};", out = out(_) out, high = in(_) high, low = in(_) low, options(pure, nomem));
    }
    out
}
