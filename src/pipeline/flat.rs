//! Tiles that hold one value, such as clipped air or what lies outside a field of view: what the
//! network gives for a value is computed once.
//!
//! An engine gives the same bytes for the same input, and every flip of such a tile is the tile
//! itself, so the label map is the same bytes too.

use super::normalize::Scheme;
use crate::model::{Channel, Normalization};
use ndarray::{Array4, ArrayView4, ArrayViewMut4, Axis};

/// Most answers that are kept: that of air, and that of whatever else fills a part of the image.
pub(super) const MOST_ANSWERS: usize = 2;

/// Hounsfield units up to which a tile counts as air, where the caller wants that.
///
/// Air is -1000, lung and what lies on a patient (blankets, foam of the table) are mostly below
/// -400, fat (-120 to -50) and everything denser is above it. A tile has more than lung in it
/// wherever a vessel or the chest wall reaches into it.
const AIR_LIMIT_HU: f32 = -400.0;

/// What a tile of air is filled with.
const AIR_HU: f32 = -1000.0;

/// Values of a tile, one per channel, as bits: answers are the same for the same bits.
pub(super) type Value = Vec<u32>;

/// The value of `tile` (`[c, z, y, x]`), if every channel holds one only.
pub(super) fn value(tile: ArrayView4<'_, f32>) -> Option<Value> {
    tile.outer_iter()
        .map(|channel| {
            let first = channel.first()?.to_bits();
            channel.iter().all(|v| v.to_bits() == first).then_some(first)
        })
        .collect()
}

/// Answers to tiles that hold one value.
pub(super) struct Answers {
    most: usize,
    kept: Vec<(Value, Array4<f32>)>,
}

impl Answers {
    /// Keeps those of the first `most` values.
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Vec::new() }
    }

    /// What the network gave for that value.
    pub(super) fn find(&self, value: &Value) -> Option<&Array4<f32>> {
        self.kept.iter().find(|(known, _)| known == value).map(|(_, answer)| answer)
    }

    /// Whether another one may be kept.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < self.most
    }

    /// Remembers what the network gave, while there is room.
    pub(super) fn keep(&mut self, value: Value, answer: Array4<f32>) {
        if self.has_room() {
            self.kept.push((value, answer));
        }
    }
}

/// What counts as air in each image of a case, once normalized.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Air {
    /// Largest value that does, and the value of air.
    levels: Vec<(f32, f32)>,
}

impl Air {
    /// `None` if a channel is not normalized as a CT: nobody knows what its numbers mean.
    pub(super) fn of(channels: &[Channel]) -> Option<Self> {
        let level = |channel: &Channel| {
            (channel.normalization == Normalization::Ct).then(|| {
                let scheme = Scheme::ct(channel);
                (scheme.apply(AIR_LIMIT_HU), scheme.apply(AIR_HU))
            })
        };
        channels.iter().map(level).collect::<Option<_>>().map(|levels| Self { levels })
    }

    /// Fills a tile that holds nothing denser than air with air. Channels after the images, the
    /// labels that a cascade refines, must hold one value for that.
    pub(super) fn fill(&self, mut tile: ArrayViewMut4<'_, f32>) {
        let (images, labels) = tile.view().split_at(Axis(0), self.levels.len());
        let thin = images.outer_iter().zip(&self.levels);
        let is_air = thin.into_iter().all(|(image, (limit, _))| image.iter().all(|v| v <= limit));
        if is_air && value(labels).is_some() {
            for (mut image, (_, air)) in tile.outer_iter_mut().zip(&self.levels) {
                image.fill(*air);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(normalization: Normalization) -> Channel {
        let json = r#"{"patch_size": [4, 4, 4], "target_spacing": [1.0, 1.0, 1.0],
            "intensity_properties": {"mean": 0.0, "std": 100.0,
                "percentile_00_5": -900.0, "percentile_99_5": 900.0}}"#;
        let config = crate::model::ModelConfig::from_json(json).expect("a configuration");
        Channel { normalization, ..config.channels[0] }
    }

    #[test]
    fn a_value_is_told_by_its_bits_and_per_channel() {
        let mut tile = Array4::from_shape_fn([2, 3, 3, 3], |(c, ..)| c as f32);
        assert_eq!(value(tile.view()), Some(vec![0, 1.0_f32.to_bits()]));
        tile[[0, 2, 2, 2]] = -0.0;
        assert_eq!(value(tile.view()), None);
    }

    #[test]
    fn no_more_answers_are_kept_than_agreed() {
        let mut answers = Answers::new(1);
        let answer = Array4::zeros([1, 2, 2, 2]);
        answers.keep(vec![1], answer.clone());
        answers.keep(vec![2], answer.clone());
        assert!(answers.find(&vec![1]).is_some() && answers.find(&vec![2]).is_none());
        let mut none = Answers::new(0);
        none.keep(vec![1], answer);
        assert!(none.find(&vec![1]).is_none());
    }

    #[test]
    fn only_what_holds_nothing_denser_is_air() {
        let air = Air::of(&[channel(Normalization::Ct)]).expect("a CT");
        let thin =
            Array4::from_shape_fn(
                [2, 3, 3, 3],
                |(c, _, _, x)| {
                    if c == 0 { -10.0 + 2.0 * x as f32 } else { 0.0 }
                },
            );
        let filled = |mut tile: Array4<f32>| {
            air.fill(tile.view_mut());
            tile
        };
        let done = filled(thin.clone());
        assert!(done.index_axis(Axis(0), 0).iter().all(|&v| v == -9.0), "{done}");
        // One voxel of the image, or of the labels that are refined.
        for (at, v) in [([0, 1, 1, 1], -3.9), ([1, 1, 1, 1], 1.0)] {
            let mut tile = thin.clone();
            tile[at] = v;
            assert_eq!(filled(tile.clone()), tile);
        }
    }

    #[test]
    fn air_is_known_of_cts_only() {
        assert_eq!(Air::of(&[channel(Normalization::ZScore)]), None);
        assert_eq!(Air::of(&[channel(Normalization::Ct), channel(Normalization::None)]), None);
    }
}
