//! What structures are called in a result.

use crate::model::Label;
use crate::{Error, Result};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

/// What structures are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// As the mode or model has them: `kidney_left`, which is how `TotalSegmentator` calls it.
    #[default]
    Own,
    /// As planning systems have them, by the report of AAPM's task group 263: `Kidney_L`. What that
    /// has no name for keeps its own.
    Tg263,
}

impl FromStr for Names {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "own" => Ok(Self::Own),
            "tg263" => Ok(Self::Tg263),
            _ => Err(Error::usage("names", text, "own or tg263")),
        }
    }
}

impl Names {
    /// The structures by these names.
    pub(super) fn of(self, mut labels: Vec<Label>) -> Vec<Label> {
        if self == Self::Tg263 {
            for label in &mut labels {
                if let Some(name) = TG263.get(&label.name) {
                    label.name.clone_from(name);
                }
            }
        }
        labels
    }
}

/// From our names to those of TG-263.
static TG263: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let table: Written = serde_json::from_str(include_str!("../../config/names/tg263.json"))
        .expect("a table, as a test sees to");
    table.names
});

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "comment")]
    _comment: String,
    names: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use std::collections::HashSet;

    #[test]
    fn names_are_those_of_known_structures_and_as_short_as_planning_systems_need() {
        let tables = Registry::embedded().tables();
        for (ours, theirs) in TG263.iter() {
            assert!(tables.iter().any(|table| table.find(ours).is_some()), "{ours}");
            assert!((1..=16).contains(&theirs.len()) && theirs.is_ascii(), "{theirs}");
        }
        for table in tables {
            let named = Names::Tg263.of(table.labels.clone());
            let names: HashSet<_> = named.iter().map(|label| label.name.to_lowercase()).collect();
            assert_eq!(names.len(), table.labels.len(), "{}: one name each", table.name);
            let sides = named.iter().zip(&table.labels).filter(|(new, old)| new.name != old.name);
            for (new, old) in sides {
                let is_left = new.name.ends_with("_L") || new.name.starts_with("Lung_L");
                assert_eq!(is_left, old.name.contains("left"), "{}", new.name);
            }
        }
    }

    #[test]
    fn what_has_no_name_there_keeps_its_own() {
        let label = |name: &str| Label { id: 1, name: name.to_owned(), ..Label::default() };
        let named = |names: Names, name: &str| names.of(vec![label(name)])[0].name.clone();
        assert_eq!(named(Names::Tg263, "rib_left_2"), "Rib02_L");
        assert_eq!(named(Names::Tg263, "costal_cartilages"), "costal_cartilages");
        assert_eq!(named(Names::Own, "rib_left_2"), "rib_left_2");
        assert!("TG263".parse::<Names>().is_err());
    }
}
