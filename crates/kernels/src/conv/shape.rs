//! Sizes of a convolution and of the pieces it is worked on in.

/// A convolution, two-dimensional ones with one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Groups of channels; both counts are multiples of it.
    pub groups: usize,
    /// Input voxels, `[z, y, x]`.
    pub input: [usize; 3],
    /// Taps per axis.
    pub kernel: [usize; 3],
    /// Input voxels from output voxel to output voxel.
    pub stride: [usize; 3],
    /// Zeros before the first input voxel.
    pub pad_begin: [usize; 3],
    /// Zeros after the last input voxel.
    pub pad_end: [usize; 3],
    /// Input voxels from tap to tap.
    pub dilation: [usize; 3],
}

impl Shape {
    /// A convolution without stride, padding, dilation or groups.
    #[must_use]
    pub fn plain(inputs: usize, outputs: usize, input: [usize; 3], kernel: [usize; 3]) -> Self {
        Self {
            inputs,
            outputs,
            groups: 1,
            input,
            kernel,
            stride: [1; 3],
            pad_begin: [0; 3],
            pad_end: [0; 3],
            dilation: [1; 3],
        }
    }

    /// Output voxels, or `None` where the kernel does not fit the padded input.
    #[must_use]
    pub fn output(&self) -> Option<[usize; 3]> {
        let mut output = [0; 3];
        for (k, out) in output.iter_mut().enumerate() {
            let padded = self.input[k] + self.pad_begin[k] + self.pad_end[k];
            let reach = (self.kernel[k].checked_sub(1)?).checked_mul(self.dilation[k])?;
            *out = padded.checked_sub(reach + 1)?.checked_div(self.stride[k])? + 1;
        }
        Some(output)
    }

    /// Weights, `[outputs, inputs / groups, z, y, x]`.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.outputs * (self.inputs / self.groups) * self.kernel.iter().product::<usize>()
    }

    /// Multiplications and additions of one run.
    #[must_use]
    pub fn flops(&self) -> u64 {
        let voxels: usize = self.output().unwrap_or_default().iter().product();
        2 * self.weights() as u64 * voxels as u64
    }

    /// Whether it multiplies each voxel by a matrix and nothing else.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3]
            && self.stride == [1; 3]
            && self.pad_begin == [0; 3]
            && self.pad_end == [0; 3]
    }

    /// Input voxels from an output voxel's first tap to its last.
    pub(super) fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis]
    }
}

/// The ring of input slices a thread works from, and the pieces of the output.
///
/// A ring holds, for each slice that the current output slice needs and each input channel,
/// the rows of one strip: normalized, activated, with zeros around. With a stride of `s`,
/// rows and columns are sorted into `s` phases, so that consecutive outputs always read
/// consecutive elements. Rows of output and ring have the same pitch, hence a strip is one
/// long row: at the end of each row the kernels compute a few values nobody reads. Padding after a
/// row is that before the next one.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) output: [usize; 3],
    /// From row to row, in ring and output.
    pub(super) pitch: usize,
    /// Padding after a channel's last row, which no next row begins with.
    pub(super) after: usize,
    /// Phases of rows and of columns.
    pub(super) phases: [usize; 2],
    /// Ring rows beyond the strip's.
    pub(super) extra_rows: usize,
    /// Output rows per strip; the last strip may be lower.
    pub(super) strip_rows: usize,
    /// Strips per slice.
    pub(super) strips: usize,
    /// Slices in the ring.
    pub(super) slots: usize,
    /// Channels in the ring: pairs in bf16.
    pub(super) channels: usize,
    /// Output rows that minimal filtering makes together, 2 or 4; 1 for none. Then "rows" of
    /// ring and strips are groups of this many, and a phase is a transformed row.
    pub(super) tile: usize,
}

/// Elements a kernel may read beyond the last row.
pub(super) const SLACK: usize = 64;

/// Floats that a strip's ring may take: three quarters of a 1 MiB second-level cache.
const RING_FLOATS: usize = 192 * 1024;

/// Pieces a layer is cut into at least where its size allows, to keep threads busy.
const MIN_PIECES: usize = 16;

impl Geometry {
    /// Plans pieces; `more_floats` per output voxel of a strip share the cache with the ring.
    pub(super) fn new(
        shape: &Shape,
        mut output: [usize; 3],
        channels: usize,
        tile: usize,
        more_floats: usize,
    ) -> Self {
        // Where there is more padding than taps reach, outputs are made of padding alone: rows stay as
        // long as the output's.
        let shared = shape.pad_begin[2].min(shape.pad_end[2]).min(shape.reach(2));
        let after = if shape.stride[2] == 1 { shared } else { 0 };
        let pitch = output[2] + shape.reach(2) / shape.stride[2] - after;
        let mut phases = [1, 2].map(|axis| shape.stride[axis].min(shape.reach(axis) + 1));
        let mut extra_rows = shape.reach(1) / shape.stride[1];
        if tile > 1 {
            output[1] = output[1].div_ceil(tile);
            (phases[0], extra_rows) = (tile + 2, 0);
        }
        let slots = shape.reach(0) + 1;
        let row_floats = slots * channels * phases[0] * phases[1] * pitch;
        let fixed = row_floats * extra_rows;
        let fitting = RING_FLOATS.saturating_sub(fixed) / (row_floats + more_floats * pitch).max(1);
        let strips = output[1]
            .div_ceil(fitting.clamp(4 / tile, output[1].max(4)))
            .max(MIN_PIECES.div_ceil(output[0]).min(output[1].div_ceil(4 / tile)))
            .max(1);
        let strip_rows = output[1].div_ceil(strips);
        let strips = output[1].div_ceil(strip_rows);
        Self { output, pitch, after, phases, extra_rows, strip_rows, strips, slots, channels, tile }
    }

    /// Elements of one phase of one channel.
    pub(super) fn phase_len(&self) -> usize {
        (self.strip_rows + self.extra_rows) * self.pitch
    }

    pub(super) fn channel_stride(&self) -> usize {
        self.phases[0] * self.phases[1] * self.phase_len() + self.after
    }

    pub(super) fn slot_stride(&self) -> usize {
        self.channels * self.channel_stride()
    }

    pub(super) fn ring_len(&self) -> usize {
        self.slots * self.slot_stride() + SLACK
    }

    /// Output rows of strip `s`.
    pub(super) fn rows(&self, s: usize) -> std::ops::Range<usize> {
        s * self.strip_rows..((s + 1) * self.strip_rows).min(self.output[1])
    }

    /// Positions of `rows` rows, without what follows the last voxel.
    pub(super) fn positions(&self, rows: usize) -> usize {
        (rows - 1) * self.pitch + self.output[2]
    }

    /// Offset of a tap within a channel of a slot.
    pub(super) fn tap(&self, shape: &Shape, ky: usize, kx: usize) -> usize {
        let (hy, hx) = (ky * shape.dilation[1], kx * shape.dilation[2]);
        let phase = hy % shape.stride[1] * self.phases[1] + hx % shape.stride[2];
        phase * self.phase_len() + hy / shape.stride[1] * self.pitch + hx / shape.stride[2]
    }
}
