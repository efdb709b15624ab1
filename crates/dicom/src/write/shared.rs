//! Identifiers that several objects about one result give to one thing.
//!
//! They are made of the images and the models, not of an object's content: the segmentation and the
//! report of a result name a structure alike, whichever of them is written, and so does the next
//! result of the same models on the same images, in which it is the same structure.

use super::segment::Segment;
use super::{About, SegEncoding};
use crate::uid;

/// What they are made of.
#[derive(Clone, Debug)]
pub(super) struct Shared(String);

impl Shared {
    /// Of these images and models; of fresh objects, of this run.
    pub(super) fn of(&About { source, algorithm, options }: &About<'_>) -> Self {
        let frames: Vec<String> = source
            .slices
            .iter()
            .map(|slice| format!("{} {}", slice.instance_uid, slice.frame.unwrap_or(0)))
            .collect();
        let models: Vec<&str> = algorithm.models.iter().map(|model| &*model.sha256).collect();
        let salt = options.fresh.as_ref().map_or(&[][..], |fresh| &fresh.salt);
        let (frames, models) = (frames.join("\n"), models.join("\n"));
        Self(uid::of(&[frames.as_bytes(), models.as_bytes(), salt]))
    }

    /// The tracking UID of a structure.
    pub(super) fn tracking(&self, segment: &Segment) -> String {
        self.made_of(b"structure", &[segment.id], segment.name.as_bytes())
    }

    /// What a frame's indices count: these segments on these slices.
    pub(super) fn dimensions(&self, encoding: SegEncoding, segments: &[&Segment]) -> String {
        let ids: Vec<u16> = segments.iter().map(|segment| segment.id).collect();
        self.made_of(b"dimensions", &ids, format!("{encoding:?}").as_bytes())
    }

    fn made_of(&self, what: &[u8], ids: &[u16], name: &[u8]) -> String {
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        uid::of(&[self.0.as_bytes(), what, &ids, name])
    }
}
