//! From a model's labels to those of a mode: renumber, drop, merge, keep only some.

use crate::model::Label;
use crate::volume::LabelMap;
use crate::{Error, Result};
use ndarray::{Array3, Zip};
use std::collections::{HashMap, HashSet};

/// What becomes of each label of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSubset {
    /// New label of each old one, background first; labels beyond become background.
    map: Vec<u16>,
    /// Labels left and right of structures that the model has without a side: they are the left one
    /// until it is known where they lie.
    halves: Vec<(u16, u16)>,
}

impl LabelSubset {
    /// Renumbers the labels `from` of a model to those of the same name in `to`; the others
    /// are dropped.
    #[must_use]
    pub fn by_name(from: &[Label], to: &[Label]) -> Self {
        let mut map = vec![0; from.iter().map(|label| label.id).max().unwrap_or(0) as usize + 1];
        let ids: HashMap<&str, u16> = to.iter().map(|l| (l.name.as_str(), l.id)).collect();
        for label in from {
            if let Some(id) = ids.get(label.name.as_str()) {
                map[usize::from(label.id)] = *id;
            }
        }
        Self { map, halves: Vec::new() }
    }

    /// As [`by_name`](Self::by_name); of what `to` has for each side, `x_left` and `x_right`, the
    /// model may have `x` alone, unless that is one of its `auxiliary` labels.
    #[must_use]
    pub fn by_name_or_side(from: &[Label], to: &[Label], auxiliary: &[String]) -> Self {
        let mut subset = Self::by_name(from, to);
        for label in from.iter().filter(|label| !auxiliary.contains(&label.name)) {
            if let Some(sides) = sides_of(&label.name, to)
                && subset.map[usize::from(label.id)] == 0
            {
                subset.map[usize::from(label.id)] = sides.0;
                subset.halves.push(sides);
            }
        }
        subset
    }

    /// What becomes of a label: background if it is dropped.
    pub(super) fn get(&self, label: u16) -> u16 {
        self.map.get(usize::from(label)).copied().unwrap_or(0)
    }

    /// Keeps a label that was dropped, as `new`.
    pub(super) fn set(&mut self, label: u16, new: u16) {
        let place = usize::from(label);
        if self.map.len() <= place {
            self.map.resize(place + 1, 0);
        }
        self.map[place] = new;
    }

    /// Labels left and right of structures that the model has without a side.
    #[must_use]
    pub fn halves(&self) -> &[(u16, u16)] {
        &self.halves
    }

    /// Gives label `k + 1` the number `ids[k]`; 0 drops it.
    #[must_use]
    pub fn by_ids(ids: impl IntoIterator<Item = u16>) -> Self {
        Self { map: std::iter::once(0).chain(ids).collect(), halves: Vec::new() }
    }

    /// The same, of which only the labels in `kept` remain.
    #[must_use]
    pub fn keeping(mut self, kept: &[Label]) -> Self {
        let kept: HashSet<u16> = kept.iter().map(|label| label.id).collect();
        self.halves.retain(|(left, right)| kept.contains(left) || kept.contains(right));
        for id in &mut self.map {
            // Of what has no side yet, either may turn out to be there.
            if !kept.contains(id) && !self.halves.iter().any(|(left, _)| left == id) {
                *id = 0;
            }
        }
        self
    }

    /// The new labels that can occur, ascending.
    #[must_use]
    pub fn ids(&self) -> Vec<u16> {
        let rights = self.halves.iter().map(|(_, right)| *right);
        let mut ids: Vec<u16> =
            self.map.iter().copied().chain(rights).filter(|id| *id > 0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether labels up to `largest` stay as they are.
    #[must_use]
    pub fn is_identity(&self, largest: u16) -> bool {
        (0..=largest).all(|k| self.get(k) == k)
    }

    /// Renumbers a label map, which ends up in the smallest type that holds its labels.
    ///
    /// In place where the type stays the same, as it does for up to 255 labels.
    pub fn apply(&self, labels: &mut LabelMap) {
        let rights = self.halves.iter().map(|(_, right)| right);
        let small = self.map.iter().chain(rights).all(|&id| id < 256);
        let new = |old: u16| self.get(old);
        let byte = |old: u16| new(old) as u8;
        match labels {
            LabelMap::U8(map) if small => {
                let table: [u8; 256] = std::array::from_fn(|old| byte(old as u16));
                map.par_mapv_inplace(|old| table[usize::from(old)]);
            }
            LabelMap::U8(map) => *labels = LabelMap::U16(convert(map, |old| new(old.into()))),
            LabelMap::U16(map) if small => *labels = LabelMap::U8(convert(map, byte)),
            LabelMap::U16(map) => map.par_mapv_inplace(new),
        }
    }
}

fn convert<A: Copy + Sync, B: Send>(map: &Array3<A>, to: impl Fn(A) -> B + Sync) -> Array3<B> {
    Zip::from(map).par_map_collect(|&old| to(old))
}

/// Paints the labels of `over` onto `base`; background of `over` leaves `base` as it is.
///
/// `base` is widened if `over` has labels it cannot hold.
///
/// # Panics
///
/// If the two differ in shape.
pub fn merge_labels(base: &mut LabelMap, over: &LabelMap) {
    match (&mut *base, over) {
        (LabelMap::U8(under), LabelMap::U8(over)) => paint(under, over, |new| new),
        (LabelMap::U16(under), LabelMap::U16(over)) => paint(under, over, |new| new),
        (LabelMap::U16(under), LabelMap::U8(over)) => paint(under, over, u16::from),
        (LabelMap::U8(under), LabelMap::U16(over)) => {
            let mut wide = convert(under, u16::from);
            paint(&mut wide, over, |new| new);
            *base = LabelMap::U16(wide);
        }
    }
}

fn paint<A, B>(under: &mut Array3<A>, over: &Array3<B>, to: impl Fn(B) -> A + Sync)
where
    A: Send,
    B: Copy + Default + PartialEq + Sync,
{
    assert_eq!(under.dim(), over.dim(), "label maps of one case have one shape");
    Zip::from(under).and(over).par_for_each(|old, &new| {
        if new != B::default() {
            *old = to(new);
        }
    });
}

/// The labels that a table has for the two sides of a structure.
pub(crate) fn sides_of(name: &str, table: &[Label]) -> Option<(u16, u16)> {
    let side = |side: &str| {
        let name = format!("{name}_{side}");
        table.iter().find(|label| label.name == name).map(|label| label.id)
    };
    Some((side("left")?, side("right")?))
}

/// Whether `pattern` means `name`: they are equal, or `pattern` ends in `*` and `name` begins
/// with the rest.
pub(super) fn means(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// The labels called `names`, in the order of `labels`; a name that ends in `*` stands for all
/// that begin so.
///
/// # Errors
///
/// [`Error::Usage`] for names that do not occur, each with the nearest that do.
pub fn named(labels: &[Label], names: &[impl AsRef<str>]) -> Result<Vec<Label>> {
    let is = |label: &Label, name: &str| means(name, &label.name);
    let mut unknown = Vec::new();
    let mut hints = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        if !labels.iter().any(|label| is(label, name)) {
            unknown.push(name);
            hints.extend(near(labels, name.trim_end_matches('*')));
        }
    }
    if unknown.is_empty() && !names.is_empty() {
        let kept = |label: &&Label| names.iter().any(|name| is(label, name.as_ref()));
        return Ok(labels.iter().filter(kept).cloned().collect());
    }
    hints.dedup();
    let expected = if hints.is_empty() || unknown.is_empty() {
        let shown: Vec<&str> = labels.iter().take(8).map(|label| label.name.as_str()).collect();
        let more = if labels.len() > shown.len() { " and so on" } else { "" };
        format!("names of the mode's structures: {}{more}", shown.join(", "))
    } else {
        format!("names of the mode's structures, such as {}", hints.join(", "))
    };
    let found = if unknown.is_empty() { "no names".to_owned() } else { unknown.join(", ") };
    Err(Error::Usage { what: "regions of interest".to_owned(), found, expected })
}

/// Up to four names that contain `name`, or are within a third of its letters of it (or two).
fn near<'a>(labels: &'a [Label], name: &str) -> Vec<&'a str> {
    let lower = name.to_lowercase();
    let names = || labels.iter().map(|label| label.name.as_str());
    let containing: Vec<&str> = names()
        .filter(|known| !lower.is_empty() && known.to_lowercase().contains(&lower))
        .take(4)
        .collect();
    if !containing.is_empty() {
        return containing;
    }
    let limit = (lower.chars().count() / 3).max(2);
    let mut ranked: Vec<(usize, &str)> = names()
        .map(|known| (distance(&lower, &known.to_lowercase()), known))
        .filter(|(changes, _)| *changes <= limit)
        .collect();
    ranked.sort_by_key(|(changes, _)| *changes);
    ranked.into_iter().take(4).map(|(_, known)| known).collect()
}

/// Letters to insert, remove or replace to get from `a` to `b` (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr3;

    #[test]
    fn a_structure_without_side_stands_for_both() {
        let from = labels(&[(1, "tibia"), (2, "liver"), (3, "femur")]);
        let to = labels(&[
            (5, "tibia_left"),
            (6, "tibia_right"),
            (7, "femur_left"),
            (8, "femur_right"),
            (9, "liver"),
        ]);
        let subset = LabelSubset::by_name_or_side(&from, &to, &["femur".to_owned()]);
        assert_eq!(subset.halves(), [(5, 6)]);
        assert_eq!(subset.ids(), [5, 6, 9]);
        let mut map = LabelMap::U8(arr3(&[[[0, 1, 2, 3]]]));
        subset.apply(&mut map);
        assert_eq!(map, LabelMap::U8(arr3(&[[[0, 5, 9, 0]]])));
        let right = subset.clone().keeping(&to[1..2]);
        assert_eq!((right.halves(), right.ids()), (&[(5, 6)][..], vec![5, 6]));
        assert!(subset.keeping(&to[2..4]).ids().is_empty());
    }

    fn labels(list: &[(u16, &str)]) -> Vec<Label> {
        list.iter()
            .map(|&(id, name)| Label { id, name: name.to_owned(), ..Default::default() })
            .collect()
    }

    #[test]
    fn labels_are_renumbered_by_name_and_others_dropped() {
        let from = labels(&[(1, "spleen"), (2, "liver"), (4, "aorta")]);
        let subset = LabelSubset::by_name(&from, &labels(&[(5, "liver"), (52, "aorta")]));
        // (claim, before, after)
        let cases = [
            (
                "bytes stay bytes",
                LabelMap::U8(arr3(&[[[0, 1, 2], [3, 4, 9]]])),
                LabelMap::U8(arr3(&[[[0, 0, 5], [0, 52, 0]]])),
            ),
            (
                "words become bytes",
                LabelMap::U16(arr3(&[[[0, 1, 2], [3, 4, 900]]])),
                LabelMap::U8(arr3(&[[[0, 0, 5], [0, 52, 0]]])),
            ),
        ];
        for (claim, mut map, expected) in cases {
            subset.apply(&mut map);
            assert_eq!(map, expected, "{claim}");
        }
        assert_eq!(subset.ids(), [5, 52]);
        assert_eq!(subset.clone().keeping(&labels(&[(52, "aorta")])).ids(), [52]);
        assert!(!subset.is_identity(1) && subset.is_identity(0));
    }

    #[test]
    fn large_ids_widen_the_map() {
        let subset = LabelSubset::by_ids([300, 0]);
        for mut map in [LabelMap::U8(arr3(&[[[1, 2, 0]]])), LabelMap::U16(arr3(&[[[1, 2, 0]]]))] {
            subset.apply(&mut map);
            assert_eq!(map, LabelMap::U16(arr3(&[[[300, 0, 0]]])));
        }
    }

    #[test]
    fn identity_is_told_up_to_the_largest_label() {
        let subset = LabelSubset::by_ids([1, 2, 3]);
        assert!(subset.is_identity(3) && !subset.is_identity(4));
    }

    #[test]
    fn later_labels_cover_earlier_ones_in_every_type() {
        let small = |v: [u8; 4]| LabelMap::U8(arr3(&[[v]]));
        let large = |v: [u16; 4]| LabelMap::U16(arr3(&[[v]]));
        // (base, over, merged)
        let cases = [
            (small([0, 1, 2, 3]), small([0, 0, 7, 8]), small([0, 1, 7, 8])),
            (small([0, 1, 2, 3]), large([0, 0, 700, 8]), large([0, 1, 700, 8])),
            (large([0, 1, 200, 3]), small([9, 0, 0, 8]), large([9, 1, 200, 8])),
            (large([0, 1, 2, 3]), large([0, 0, 7, 0]), large([0, 1, 7, 3])),
        ];
        for (mut base, over, merged) in cases {
            merge_labels(&mut base, &over);
            assert_eq!(base, merged);
        }
    }

    #[test]
    fn unknown_names_get_near_ones() {
        let table = labels(&[(1, "spleen"), (2, "kidney_right"), (3, "kidney_left"), (5, "liver")]);
        let kept = named(&table, &["liver", "spleen"]).expect("both exist");
        assert_eq!(kept.iter().map(|l| l.id).collect::<Vec<_>>(), [1, 5]);
        // (names, parts of the message, what must not be in it)
        let cases: [(&[&str], &[&str], &str); 5] = [
            (&["kidney"], &["found kidney", "kidney_right, kidney_left"], "spleen"),
            (&["lvier"], &["such as liver"], "spleen"),
            (&["Liver"], &["such as liver"], "spleen"),
            (&["liver", "tibia"], &["found tibia", "spleen, kidney_right"], "found liver"),
            (&[], &["no names"], "such as"),
        ];
        for (names, parts, not) in cases {
            let error = named(&table, names).expect_err("an unknown name");
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
            let message = error.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{names:?}: {message}");
            assert!(!message.contains(not), "{names:?}: {message}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("liver", "liver", 0)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
