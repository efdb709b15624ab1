//! Names out of files: what a mode, model, configuration or table may be called.

use crate::Mismatch;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Longest name in bytes: with a case's name and endings it still is a file name.
const LONGEST: usize = 100;

/// A name that is safe as part of a path, on every system, and on a line for people.
///
/// Files give names to what they hold, and names end up in the names of results. So a name has no
/// separator, no character that Windows refuses, nothing invisible, and does not begin with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Cow<'static, str>);

impl Name {
    /// The text as a name.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if it could lead out of a folder, is empty, too long, or not printable.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Result<Self, Mismatch> {
        let text = text.into();
        let fits = (1..=LONGEST).contains(&text.len())
            && !text.starts_with(['.', ' '])
            && !text.ends_with(['.', ' '])
            && text.chars().all(is_harmless)
            && !is_device(&text);
        if fits {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(LONGEST).collect();
        Err(Mismatch::new(
            format!("the name {shown:?}"),
            format!("1 to {LONGEST} printable characters without / \\ : * ? \" < > |"),
        ))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character shows as itself and moves nothing around it.
#[must_use]
pub fn is_shown(c: char) -> bool {
    // What `Debug` writes as a number is invisible or moves the cursor; not so an accent on a letter.
    c == ' '
        || c.is_ascii_graphic()
        || !c.is_ascii() && ['x', c].iter().collect::<String>().escape_debug().count() == 2
}

fn is_harmless(c: char) -> bool {
    is_shown(c) && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

/// Whether Windows takes it for a device, whatever its ending.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    let is = |name: &&str| stem.eq_ignore_ascii_case(name);
    let numbered = |name: &&str| {
        let at = stem.len().checked_sub(1);
        at.and_then(|at| stem.split_at_checked(at)).is_some_and(|(start, digit)| {
            start.eq_ignore_ascii_case(name) && digit.bytes().all(|b| b.is_ascii_digit())
        })
    };
    ["con", "prn", "aux", "nul"].iter().any(is) || ["com", "lpt"].iter().any(numbered)
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Mismatch;

    fn try_from(text: String) -> Result<Self, Mismatch> {
        Self::new(text)
    }
}

impl std::str::FromStr for Name {
    type Err = Mismatch;

    fn from_str(text: &str) -> Result<Self, Mismatch> {
        Self::new(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into_owned()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_and_show_as_they_are() {
        for good in ["bone", "3d_fullres", "Nerf médian", "a.b", "学", "e\u{301}a", "x (2)", "com"]
        {
            assert_eq!(Name::new(good).expect(good), good);
        }
        let long = "x".repeat(LONGEST + 1);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "x/../../y",
            "/x",
            "a\\b",
            "c:x",
            ".hidden",
            " x",
            "x ",
            "x.",
            "a\nb",
            "a\rb",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "a\u{9b}b",
            "a\u{200b}b",
            "a\0b",
            "a\u{2028}b",
            "nul",
            "NUL.txt",
            "Com1",
            "lpt9.x",
            "a*",
            "a?",
            "a|b",
            "<a>",
            "\"a\"",
            &long,
        ] {
            Name::new(bad.to_owned()).expect_err(bad);
        }
    }
}
