//! How much a path from somewhere may make this crate read and hold.

/// Bounds on what is read. The defaults are far above any real study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files and zip entries looked at below one path.
    pub max_files: usize,
    /// Folders within folders.
    pub max_depth: usize,
    /// Bytes of one file that have to be held at once: an entry of a zip, a deflated data set.
    pub max_file_bytes: u64,
    /// Data elements kept of one file; a multi-frame image has some dozens for each frame.
    pub max_elements: usize,
    /// Bytes a volume may take while it is made, its source slices included.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files: 1_000_000,
            max_depth: 64,
            max_file_bytes: 4 << 30,
            max_elements: 4_000_000,
            max_bytes: 32 << 30,
        }
    }
}
