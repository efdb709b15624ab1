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

/// Most bytes of what was found that are told: a file may call things as it likes.
const MOST_FOUND: usize = 1000;

/// Most bytes of what was expected; lists of names are among them.
const MOST_EXPECTED: usize = 16_000;

/// Most bytes of the name of a place.
const MOST_PLACE: usize = 200;

impl Mismatch {
    /// Both halves of the sentence, without the middle of what is too long to be read.
    pub fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self { found: cut(found, MOST_FOUND), expected: cut(expected, MOST_EXPECTED) }
    }

    /// Says where it was found.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        let place = cut(place.to_owned(), MOST_PLACE);
        Self { found: format!("{} in {place}", self.found), ..self }
    }
}

/// A text of about `most` bytes at most: of a longer one beginning and end, and how much was between.
fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let begin = text.floor_char_boundary(most * 2 / 3);
    let end = text.ceil_char_boundary(text.len() - most / 3);
    format!("{} [... {} bytes ...] {}", &text[..begin], end - begin, &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle_and_say_so() {
        let long = "\u{e4}".repeat(100_000);
        let cut = Mismatch::new(long.clone(), "one").within(&long).to_string();
        assert!(cut.len() < 1500, "{} bytes", cut.len());
        assert_eq!(cut.matches(" bytes ...] ").count(), 2, "{cut}");
        let short = "x".repeat(1000);
        assert_eq!(Mismatch::new(short.clone(), "y").found, short);
    }
}
