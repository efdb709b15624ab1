//! Where the voxels of an activation lie in memory.

/// Places of `channels` volumes of `dims` (`[z, y, x]`) voxels in a slice.
///
/// Voxels of a row are neighbors; everything else is a distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of channels.
    pub channels: usize,
    /// Voxels per axis, `[z, y, x]`.
    pub dims: [usize; 3],
    /// From row to row.
    pub pitch: usize,
    /// From channel to channel.
    pub channel_stride: usize,
    /// From slice to slice.
    pub z_stride: usize,
}

impl Layout {
    /// `[c, z, y, x]` without gaps.
    #[must_use]
    pub fn dense(channels: usize, dims: [usize; 3]) -> Self {
        let [z, y, x] = dims;
        Self { channels, dims, pitch: x, channel_stride: z * y * x, z_stride: y * x }
    }

    /// `[z, c, y, pitch]` with channels on cache lines: a slice of all channels is one piece.
    #[must_use]
    pub fn sliced(channels: usize, dims: [usize; 3], pitch: usize) -> Self {
        let channel_stride = (dims[1] * pitch).next_multiple_of(16);
        Self { channels, dims, pitch, channel_stride, z_stride: channels * channel_stride }
    }

    /// Elements a slice with this layout has at least.
    #[must_use]
    pub fn len(&self) -> usize {
        let [z, y, x] = self.dims;
        if self.is_empty() {
            return 0;
        }
        self.at(self.channels - 1, z - 1, y - 1) + x
    }

    /// Whether there are no voxels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels == 0 || self.dims.contains(&0)
    }

    /// Where row `y` of slice `z` of channel `c` starts.
    #[must_use]
    pub fn at(&self, c: usize, z: usize, y: usize) -> usize {
        c * self.channel_stride + z * self.z_stride + y * self.pitch
    }

    /// Whether no two voxels share a place.
    #[must_use]
    pub fn is_disjoint(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let plane = (self.dims[1] - 1) * self.pitch + self.dims[2];
        let volume = (self.dims[0] - 1) * self.z_stride + plane;
        let slice = (self.channels - 1) * self.channel_stride + plane;
        self.pitch >= self.dims[2]
            && self.channel_stride >= plane
            && self.z_stride >= plane
            && (self.channel_stride >= volume || self.z_stride >= slice)
    }
}
