//! The one way this crate says that something does not fit.

/// What was found where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct Mismatch {
    /// What is there.
    pub found: String,
    /// What would have been usable.
    pub expected: String,
}

impl Mismatch {
    /// Both halves of the sentence.
    pub fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    /// Says where it was found.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        Self { found: format!("{} in {place}", self.found), ..self }
    }
}
