//! Which of a folder's trainings to use.

use crate::Mismatch;
use crate::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One training of a cross-validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// `fold_<n>`.
    Number(u32),
    /// `fold_all`, trained on every case.
    All,
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// The folds to average.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Folds {
    /// Every `fold_<n>` that has the checkpoint, as the reference finds them: never `fold_all`.
    #[default]
    Auto,
    /// These, in this order.
    List(Vec<Fold>),
}

impl fmt::Display for Folds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::List(list) => {
                let numbers: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

impl FromStr for Folds {
    type Err = Error;

    /// Reads `auto`, `all`, or numbers such as `0,1,2`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let fold = |part: &str| match part.trim() {
            "all" => Some(Fold::All),
            number if number.bytes().all(|b| b.is_ascii_digit()) => {
                number.parse().ok().map(Fold::Number)
            }
            _ => None,
        };
        let list: Option<Vec<Fold>> = text.split(',').map(fold).collect();
        let twice = |list: &Vec<Fold>| (1..list.len()).any(|i| list[..i].contains(&list[i]));
        list.filter(|list| !twice(list)).map(Self::List).ok_or_else(|| Error::Usage {
            what: "folds".into(),
            found: text.to_owned(),
            expected: "auto, all, or different numbers such as 0,1,2".into(),
        })
    }
}

/// Checkpoints tried when none is named.
pub(crate) const CHECKPOINTS: [&str; 6] = [
    "checkpoint_final.pth",
    "checkpoint_final.safetensors",
    "checkpoint_best.pth",
    "checkpoint_best.safetensors",
    "model_final_checkpoint.model",
    "model_best.model",
];

/// Finds the checkpoints of `folds`.
pub(super) fn find(
    folder: &Path,
    folds: &Folds,
    checkpoint: Option<&str>,
) -> Result<Vec<(Fold, PathBuf)>, Mismatch> {
    let names: &[&str] = match &checkpoint {
        Some(name) => std::slice::from_ref(name),
        None => &CHECKPOINTS,
    };
    if let Some(name) =
        names.iter().find(|name| Path::new(name).file_name().is_none_or(|f| f != **name))
    {
        return Err(Mismatch::new(format!("checkpoint {name:?}"), "the name of a file"));
    }
    let list = match folds {
        Folds::List(list) => list.clone(),
        Folds::Auto => present(folder)?,
    };
    for name in names {
        let all = list.iter().map(|&fold| (fold, place(folder, fold).join(name)));
        let mut there: Vec<_> = all.collect();
        match folds {
            Folds::Auto => there.retain(|(_, path)| path.is_file()),
            Folds::List(_) if there.iter().any(|(_, path)| !path.is_file()) => continue,
            Folds::List(_) => {}
        }
        if !there.is_empty() {
            return Ok(there);
        }
    }
    if *folds == Folds::Auto && with_weights(folder) == [Fold::All] {
        let expected = "numbered folds, or folds `all` asked for: they are not chosen unasked";
        return Err(Mismatch::new("fold_all only", expected));
    }
    let wanted: Vec<String> = match folds {
        Folds::Auto => vec!["fold_0".into()],
        Folds::List(list) => list.iter().map(|fold| format!("fold_{fold}")).collect(),
    };
    Err(Mismatch::new(
        format!("no {} in {}", names.join(", "), wanted.join(", ")),
        "a trained folder of nnU-Net",
    ))
}

/// Where a fold lies; nnU-Net v1 calls the one of all cases `all`.
fn place(folder: &Path, fold: Fold) -> PathBuf {
    let (here, of_v1) = (folder.join(format!("fold_{fold}")), folder.join("all"));
    if fold == Fold::All && !here.exists() && of_v1.is_dir() { of_v1 } else { here }
}

/// The folds of a folder that have a checkpoint.
pub(super) fn with_weights(folder: &Path) -> Vec<Fold> {
    let mut all = present(folder).unwrap_or_default();
    all.push(Fold::All);
    let has = |fold: &Fold| {
        let folder = place(folder, *fold);
        CHECKPOINTS.iter().any(|name| folder.join(name).is_file())
    };
    all.retain(has);
    all
}

/// The numbered folds, in the order of their names.
fn present(folder: &Path) -> Result<Vec<Fold>, Mismatch> {
    let failed = |error: std::io::Error| Mismatch::new(error.to_string(), "a readable folder");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names
        .iter()
        .filter_map(|name| name.strip_prefix("fold_")?.parse().ok().map(Fold::Number))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_read_as_typed() {
        let list =
            |numbers: &[u32]| Folds::List(numbers.iter().map(|&n| Fold::Number(n)).collect());
        for (text, folds) in [
            ("auto", Folds::Auto),
            ("all", Folds::List(vec![Fold::All])),
            ("0", list(&[0])),
            ("3,1, 2", list(&[3, 1, 2])),
        ] {
            assert_eq!(text.parse::<Folds>().expect(text), folds);
            assert_eq!(folds.to_string().parse::<Folds>().expect(text), folds);
        }
        for text in ["", "x", "0,", "-1", "0,0", "all,all", "99999999999"] {
            assert_eq!(
                text.parse::<Folds>().expect_err(text).kind(),
                crate::ErrorKind::Usage,
                "{text}"
            );
        }
    }

    #[test]
    fn folds_are_found_as_the_reference_finds_them() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        for (fold, checkpoint) in [
            ("fold_10", "checkpoint_final.pth"),
            ("fold_2", "checkpoint_final.pth"),
            ("fold_3", "checkpoint_best.pth"),
            ("fold_all", "checkpoint_final.pth"),
        ] {
            std::fs::create_dir(root.join(fold)).expect("fold");
            std::fs::write(root.join(fold).join(checkpoint), "").expect("checkpoint");
        }
        let found = |folds: &str, checkpoint| {
            find(root, &folds.parse().expect("folds"), checkpoint)
                .map(|list| list.iter().map(|(fold, _)| fold.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(found("auto", None).expect("found"), ["10", "2"]);
        assert_eq!(found("auto", Some("checkpoint_best.pth")).expect("found"), ["3"]);
        assert_eq!(found("3", None).expect("best where there is no final"), ["3"]);
        assert_eq!(found("all", None).expect("found"), ["all"]);
        let missing = found("2,4", None).expect_err("no fold 4").to_string();
        assert!(missing.contains("fold_4") && missing.contains("checkpoint_best"), "{missing}");
        assert!(found("2", Some("../fold_2/checkpoint_final.pth")).is_err());
        for fold in ["fold_10", "fold_2", "fold_3"] {
            std::fs::remove_dir_all(root.join(fold)).expect("removed");
        }
        let only = found("auto", None).expect_err("never unasked").to_string();
        assert!(only.contains("fold_all only") && !only.contains("fold_0"), "{only}");
    }
}
