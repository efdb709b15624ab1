//! What a label stands for, and what made the map.

/// A coded concept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Code value, as `64033007`.
    pub value: String,
    /// Coding scheme designator, as `SCT`.
    pub scheme: String,
    /// Code meaning, as `Kidney`.
    pub meaning: String,
}

impl Code {
    /// A concept of some scheme.
    #[must_use]
    pub fn new(value: &str, scheme: &str, meaning: &str) -> Self {
        Self { value: value.into(), scheme: scheme.into(), meaning: meaning.into() }
    }

    /// A concept of SNOMED CT.
    #[must_use]
    pub fn sct(value: &str, meaning: &str) -> Self {
        Self::new(value, "SCT", meaning)
    }

    /// SNOMED CT's *anatomical structure*, a category.
    #[must_use]
    pub fn anatomical_structure() -> Self {
        Self::sct("123037004", "Anatomical Structure")
    }

    pub(super) fn dcm(value: &str, meaning: &str) -> Self {
        Self::new(value, "DCM", meaning)
    }

    /// SNOMED CT's *left*.
    #[must_use]
    pub fn left() -> Self {
        Self::sct("7771000", "Left")
    }

    /// SNOMED CT's *right*.
    #[must_use]
    pub fn right() -> Self {
        Self::sct("24028007", "Right")
    }
}

/// One label of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The label's value.
    pub id: u16,
    /// Its name, of at most 64 characters.
    pub name: String,
    /// Red, green, blue.
    pub color: Option<[u8; 3]>,
    /// What kind of thing it is, as *anatomical structure*.
    pub category: Code,
    /// What it is, as *kidney*.
    pub kind: Code,
    /// Which of them, as *left*.
    pub modifier: Option<Code>,
    /// Where it is, for what is no structure by itself.
    pub region: Option<Code>,
    /// Which of the regions.
    pub region_modifier: Option<Code>,
}

impl Segment {
    /// A label of which no more than its name is known: tissue of some kind.
    #[must_use]
    pub fn named(id: u16, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            color: None,
            category: Code::sct("85756007", "Tissue"),
            kind: Code::sct("85756007", "Tissue"),
            modifier: None,
            region: None,
            region_modifier: None,
        }
    }
}

/// What made a label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// Name, as `fastnnunet`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// What was asked of it, as `bone`: tells series of several results of one study apart. May be empty.
    pub task: String,
    /// The models that took part.
    pub models: Vec<Model>,
}

/// A model by what tells it from every other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
    /// The terms it may be used on, if they are known.
    pub license: String,
    /// Where it comes from, if that is known.
    pub source: String,
}

impl Algorithm {
    /// One line: the models, with digest, license and source.
    pub(super) fn parameters(&self) -> String {
        let line = |Model { name, sha256, license, source }: &Model| {
            let facts = [("sha256", sha256), ("license", license), ("source", source)];
            let known = facts.iter().filter(|(_, fact)| !fact.is_empty());
            known.fold(name.clone(), |line, (what, fact)| format!("{line}, {what} {fact}"))
        };
        self.models.iter().map(line).collect::<Vec<_>>().join("; ")
    }
}
