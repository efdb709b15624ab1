//! What is left of a memory limit, asked before something is made.

use crate::{Error, Result};

/// How much memory may be held, and what is held already and counts towards it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    limit_bytes: Option<u64>,
    held_bytes: u64,
}

impl Allowance {
    /// At most `limit_bytes`, or any, where `held_bytes` are held.
    pub(crate) fn new(limit_bytes: Option<u64>, held_bytes: u64) -> Self {
        Self { limit_bytes, held_bytes }
    }

    /// What is left beside `bytes` that are held as well.
    pub(crate) fn beside(self, bytes: u64) -> Self {
        Self { held_bytes: self.held_bytes.saturating_add(bytes), ..self }
    }

    /// Fails if `what` would hold more than allowed.
    pub(crate) fn check(self, what: &str, bytes: u64) -> Result<()> {
        let need_bytes = bytes.saturating_add(self.held_bytes);
        match self.limit_bytes {
            Some(limit_bytes) if need_bytes > limit_bytes => {
                Err(Error::Memory { what: what.to_owned(), need_bytes, limit_bytes })
            }
            _ => Ok(()),
        }
    }
}
