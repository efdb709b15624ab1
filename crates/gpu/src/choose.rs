//! Which kernel and which tiles a convolution gets: the way with the least time by a model of the
//! GPU. The model counts, it measures nothing; `benches/gpu` compares it with times.

use crate::conv::{Conv, Kernel, Way};
use crate::kernels::geometry::BLOCK;
use crate::kernels::{direct, matrix};
use std::collections::HashMap;

/// What the model knows of a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gpu {
    /// Whether threads of a cube may share memory.
    pub shares: bool,
    pub processors: usize,
    /// Bytes of shared memory: of one cube, and of a processor.
    pub cube_shared: usize,
    pub shared: usize,
    /// Registers and threads of a processor.
    pub registers: usize,
    pub threads: usize,
    /// Clocks in a microsecond.
    pub clock: f64,
    /// Multiplications with addition that a processor does in a clock, on tensor cores in half
    /// precision and elsewhere in `f32`; 0 where it has no tensor cores.
    pub matrix: f64,
    pub lanes: f64,
    /// Bytes of memory in a clock, of all processors together.
    pub bytes: f64,
}

impl Gpu {
    /// NVIDIA's H100 (SXM).
    pub(crate) const H100: Self = Self {
        shares: true,
        processors: 132,
        cube_shared: 227 << 10,
        shared: 228 << 10,
        registers: 65536,
        threads: 2048,
        clock: 1700.0,
        matrix: 1300.0,
        lanes: 128.0,
        bytes: 1760.0,
    };
}

/// What a convolution leaves besides its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether moments of the output are needed.
    pub moments: bool,
    /// Bytes of a number.
    pub bytes: usize,
    /// Images at once.
    pub images: usize,
}

/// Microseconds a convolution takes in this way.
///
/// The constants of kernels on tensor cores are fitted to times of layers on one H200, those of the
/// others to times on one H100; `benches/gpu/day` prints what the model says beside what it measures.
pub(crate) fn microseconds(gpu: &Gpu, conv: &Conv, way: &Way, wanted: Wanted) -> f64 {
    /// Microseconds from one kernel to the next.
    const LAUNCH: f64 = 1.5;
    let load = Load::new(gpu, conv, way, wanted);
    let clocks = match &way.kernel {
        Kernel::Matrix(form) => matrix_clocks(gpu, form, &load),
        Kernel::Direct(form) => direct_clocks(gpu, conv, form, &load),
    };
    let output = (wanted.images * conv.made() * BLOCK * conv.voxels()) as f64;
    let input = wanted.images as f64 * conv.numbers() - output;
    let bytes = |numbers: f64| numbers * wanted.bytes as f64 / gpu.bytes;
    if way.splits == 1 {
        return clocks.max(bytes(output + input)) / gpu.clock + LAUNCH;
    }
    // Parts are written, read and added up by a kernel of its own.
    let parts = output * way.splits as f64 * 4.0 / gpu.bytes;
    let finish = 3000.0 + 300.0 * way.splits as f64 + parts + bytes(output);
    (clocks.max(bytes(input) + parts) + finish) / gpu.clock + 2.0 * LAUNCH
}

/// How cubes lie on processors.
struct Load {
    /// Stages of a cube.
    stages: f64,
    threads: usize,
    /// Cubes that a processor holds at once, how often it does, and how many it gets.
    held: f64,
    waves: f64,
    cubes: f64,
}

impl Load {
    fn new(gpu: &Gpu, conv: &Conv, way: &Way, wanted: Wanted) -> Self {
        let threads = way.kernel.threads();
        let registers = match &way.kernel {
            Kernel::Matrix(form) => form.rows * form.columns * 4 + form.rows * 4 + 80,
            Kernel::Direct(form) => form.rows * 12 + 70,
        };
        let cubes = way.cubes(conv, wanted.images);
        let held = (gpu.shared / (way.kernel.shared_bytes() + 1024))
            .min(gpu.registers / (registers.next_multiple_of(8) * threads))
            .min(gpu.threads / threads)
            .min(cubes.div_ceil(gpu.processors))
            .max(1);
        Self {
            stages: (way.stages(conv) as f64 / way.splits as f64).ceil(),
            threads,
            held: held as f64,
            waves: cubes.div_ceil(gpu.processors * held) as f64,
            cubes: cubes as f64 / gpu.processors as f64,
        }
    }
}

/// Clocks on tensor cores: what one cube waits for if it is alone, and what all cubes of a processor
/// keep busy. Where both are near, neither hides the other.
fn matrix_clocks(gpu: &Gpu, form: &matrix::Form, load: &Load) -> f64 {
    /// Clocks before the first stage and after the last, and for each sum of a thread that leaves;
    /// those that are scattered take more.
    const FRAME: f64 = 1400.0;
    const LEAVE: f64 = 346.0;
    const SCATTER: f64 = 1.7;
    /// For a block of channels that is filled, and each vector of a thread in it.
    const BLOCK_FILLED: f64 = 138.0;
    const VECTOR_ALONE: f64 = 676.0;
    const VECTOR_BUSY: f64 = 1.3;
    /// For a step of a plane, and each product in it.
    const STEP_ALONE: f64 = 64.5;
    const PRODUCT_ALONE: f64 = 8.1;
    const STEP_BUSY: f64 = 26.0;
    let sums = (form.rows * form.columns) as f64;
    let planes = (load.threads / 32) as f64;
    let steps = (form.units() / 2) as f64;
    let vectors = if form.planar > 0 {
        // The network's own input is gathered number by number.
        3 * form.voxels() * form.units()
    } else {
        form.depth * form.window.size()
    };
    let rounds = if form.planar > 0 {
        vectors.div_ceil(load.threads)
    } else {
        form.depth * form.window.size().div_ceil(load.threads)
    };
    let fill = form.depth as f64 * BLOCK_FILLED + rounds as f64 * VECTOR_ALONE;
    let scatter = if form.scatter == [1; 3] { 1.0 } else { SCATTER };
    let alone = load.stages * (fill + steps * (STEP_ALONE + sums * PRODUCT_ALONE))
        + FRAME
        + sums * LEAVE * scatter;
    // Four schedulers share the planes.
    let product = 2048.0 / gpu.matrix * 3.17;
    let busy = load.stages
        * (steps * (STEP_BUSY + sums * product) * planes / 4.0 + vectors as f64 * VECTOR_BUSY)
        + sums * LEAVE * planes / 8.0;
    (load.waves * alone).hypot(load.cubes * busy)
}

/// Clocks without tensor cores, where loads and sums queue up for the same units.
fn direct_clocks(gpu: &Gpu, conv: &Conv, form: &direct::Form, load: &Load) -> f64 {
    /// Instructions that a vector of the tile takes to load, and to write.
    const FILL: f64 = 60.0;
    /// Clocks until what all threads ask of memory is there.
    const LATENCY: f64 = 1500.0;
    /// Clocks before the first stage and after the last.
    const FRAME: f64 = 2500.0;
    let products = conv.taps() * form.lanes * form.rows * 8 * form.threads;
    let wide = if form.rows >= 8 { 0.8 } else { 0.65 };
    let sums = products as f64 / gpu.lanes / wide;
    let vectors = form.window.size() * form.lanes.div_ceil(4);
    let fill = vectors as f64 * FILL / 128.0;
    let busy = load.stages * (sums + fill);
    // One cube alone leaves much of a processor idle.
    let alone =
        load.stages * (sums.max(sums * 128.0 / load.threads as f64) + fill * 2.0 + LATENCY) + FRAME;
    load.waves * (busy * load.held + FRAME * 0.5).max(alone)
}

/// Shapes of kernels on tensor cores: rows, columns, planes along voxels and along channels. Few, so
/// that the first use compiles few; measured by `benches/gpu`.
const SHAPES: [(usize, usize, usize, usize); 10] = [
    (8, 1, 4, 1),
    (4, 2, 4, 1),
    (2, 2, 4, 1),
    (8, 4, 4, 1),
    (4, 4, 4, 1),
    (4, 8, 4, 1),
    (4, 8, 2, 2),
    (8, 4, 2, 2),
    (2, 4, 2, 2),
    (2, 2, 2, 2),
];

/// Boxes of so many voxels with edges that are powers of two.
fn boxes(voxels: usize) -> Vec<[usize; 3]> {
    let powers = || (0..=5).map(|k| 1_usize << k);
    let mut all = Vec::new();
    for z in powers() {
        all.extend(powers().map(|y| [z, y, voxels / (z * y).min(voxels)]));
    }
    all.retain(|tile: &[usize; 3]| tile.iter().product::<usize>() == voxels && tile[2] <= 32);
    all
}

/// The tiles of `voxels` that waste little: the cheapest by what they make and read, and those within
/// a tenth of it.
fn tiles(conv: &Conv, voxels: usize, rows: usize) -> Vec<[usize; 3]> {
    let cost = |tile: &[usize; 3]| {
        let count: usize = (0..3).map(|k| conv.output[k].div_ceil(tile[k])).product();
        let read = conv.window(*tile).size() as f64;
        // Whole rows of eight voxels are read and written at once.
        let row = if tile[2] >= 8 { 1.0 } else { 1.05 };
        count as f64 * (voxels as f64 + 0.15 * read) * row
    };
    let mut all = boxes(voxels);
    all.retain(|tile| tile[1].is_multiple_of(rows));
    let least = all.iter().map(cost).fold(f64::INFINITY, f64::min);
    all.retain(|tile| cost(tile) <= 1.1 * least);
    all
}

/// All kernels for a convolution, without their moments.
fn kernels(gpu: &Gpu, conv: &Conv, brain: Option<bool>) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    if !gpu.shares {
        return kernels;
    }
    let planar = if conv.lanes == 1 { conv.inputs[0] } else { 0 };
    if let Some(brain) = brain.filter(|_| gpu.matrix > 0.0) {
        for (rows, columns, planes, wide) in SHAPES {
            let even = |count: usize| count > 0 && count.is_multiple_of(2);
            // All blocks of a stage are of one input.
            let pairs = even(conv.blocks(0)) && (conv.blocks(1) == 0 || even(conv.blocks(1)));
            let fours = conv.taps() == 1 && (0..2).all(|k| conv.blocks(k).is_multiple_of(4));
            let depth = if planar > 0 {
                1
            } else if fours {
                4
            } else if pairs {
                2
            } else {
                1
            };
            let wasted =
                !conv.made().is_multiple_of(columns * wide) && conv.made() < 4 * columns * wide;
            if wasted || (conv.scattered() > 1 && columns % 4 != 0) {
                continue;
            }
            for tile in tiles(conv, rows * planes * 16, 1) {
                let form = matrix::Form {
                    rows,
                    columns,
                    planes,
                    wide,
                    depth,
                    brain,
                    planar,
                    window: conv.window(tile),
                    scatter: conv.scatter,
                    moments: false,
                    early: false,
                };
                kernels.push(Kernel::Matrix(matrix::Form { early: form.may_be_early(), ..form }));
            }
        }
    }
    if kernels.is_empty() {
        for (rows, threads, blocks) in
            [(8, 128, 1), (4, 128, 1), (8, 128, 2), (2, 128, 2), (4, 128, 4), (2, 128, 4)]
        {
            if !conv.made().is_multiple_of(blocks) {
                continue;
            }
            // A thread makes a column of voxels.
            for tile in tiles(conv, threads / blocks * rows, rows) {
                kernels.push(Kernel::Direct(direct::Form {
                    rows,
                    blocks,
                    threads,
                    window: conv.window(tile),
                    lanes: conv.lanes,
                    scatter: conv.scatter,
                    moments: false,
                }));
            }
        }
    }
    kernels.retain(|kernel| kernel.shared_bytes() <= gpu.cube_shared);
    kernels
}

/// All ways there are, in no order.
pub(crate) fn ways(gpu: &Gpu, conv: &Conv, wanted: Wanted, brain: Option<bool>) -> Vec<Way> {
    const SPLITS: [usize; 9] = [1, 2, 3, 4, 5, 8, 10, 16, 20];
    let mut ways = Vec::new();
    for mut kernel in kernels(gpu, conv, brain) {
        let moments = wanted.moments && conv.scattered() == 1;
        match &mut kernel {
            Kernel::Matrix(form) => form.moments = moments,
            Kernel::Direct(form) => form.moments = moments,
        }
        let whole = Way { kernel, splits: 1 };
        let most = whole.stages(conv);
        ways.extend(SPLITS.iter().filter(|&&n| n <= most).map(|&splits| Way { splits, ..whole }));
    }
    ways
}

/// What was measured to be the quickest way for so many images.
pub(crate) type Known = HashMap<(Conv, usize), Way>;

/// Chooses for the layers of a network, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Chooser {
    used: Vec<Kernel>,
}

impl Chooser {
    /// The way with the least time by the model. A kernel that no other layer has must gain something,
    /// for it has to be compiled.
    pub(crate) fn best(
        &mut self,
        gpu: &Gpu,
        conv: &Conv,
        wanted: Wanted,
        brain: Option<bool>,
    ) -> Option<Way> {
        const COMPILED: f64 = 2.0;
        let cost = |way: &Way| {
            let new = if self.used.contains(&way.kernel) { 0.0 } else { COMPILED };
            microseconds(gpu, conv, way, wanted) + new
        };
        let ways = ways(gpu, conv, wanted, brain);
        let best = ways.into_iter().map(|way| (cost(&way), way)).min_by(|a, b| a.0.total_cmp(&b.0));
        let (_, way) = best?;
        if !self.used.contains(&way.kernel) {
            self.used.push(way.kernel);
        }
        Some(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_hold_what_they_should() {
        for voxels in [32, 64, 128, 256, 512, 1024] {
            let all = boxes(voxels);
            assert!(all.len() > 8, "{all:?}");
            assert!(all.iter().all(|tile| tile.iter().product::<usize>() == voxels), "{all:?}");
        }
    }
}
