//! A finished case.

use super::network::NetworkInfo;
use crate::Result;
use crate::files::{Access, Existing, Target};
use crate::io::{self, SourceHeader};
use crate::model::{Grade, Label, Name};
use crate::pipeline::postprocess::Report;
use crate::pipeline::{Memory, Probabilities, Timings};
use crate::volume::{Affine, Grid, LabelMap};
use std::collections::HashMap;
use std::path::Path;
#[cfg(feature = "dicom")]
use std::sync::Arc;

/// The labels of a case, what they mean, and how they came about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Segmentation {
    /// One label per voxel, on the grid of the images.
    pub labels: LabelMap,
    /// The structures that can occur, with their ids.
    pub structures: Vec<Label>,
    /// Where the labels lie.
    pub grid: Grid,
    /// Who answered.
    pub about: About,
    /// How each network ran, in order; the stages of a cascade one by one.
    pub runs: Vec<NetworkRun>,
    /// What postprocessing changed.
    pub postprocessing: Report,
    /// What the last network gave, if
    /// [`Options::keep_probabilities`](super::Options::keep_probabilities) asked for it.
    pub probabilities: Option<Probabilities>,
    /// Wall time per stage, all networks together.
    pub timings: Timings,
    /// Bytes the case was expected to hold at its largest moment.
    pub predicted_bytes: u64,
    pub(super) header: SourceHeader,
    pub(super) affine: Affine,
    pub(super) access: Access,
    #[cfg(feature = "dicom")]
    pub(super) source: Option<Arc<fastnnunet_dicom::Source>>,
}

/// The models that answered, and why these.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct About {
    /// A name for results: the mode, the model or the configuration.
    pub name: Name,
    /// One sentence: which models, and why these; empty where they were asked for by name.
    pub choice: String,
    /// The networks in the order they run: a cascade's first stage before its second.
    pub networks: Vec<NetworkInfo>,
    /// How much the least trusted of them may be trusted.
    pub grade: Grade,
    /// Whether they only show that the program works.
    pub is_demonstration: bool,
    /// What the images should be, if not CT.
    pub modality: Option<String>,
    /// Structures of the mode that no model labels.
    pub missing: Vec<String>,
}

/// How one network ran on one case.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkRun {
    /// Name of the model.
    pub model: String,
    /// Grid the network ran on, `[z, y, x]` voxels in the network's axes.
    pub network_shape: [usize; 3],
    /// Voxels per tile, `[z, y, x]`.
    pub patch_size: [usize; 3],
    /// Tiles per pass.
    pub tiles: usize,
    /// Of these, those whose answer was known: they held one value, as one before them.
    pub known_tiles: usize,
    /// Passes per tile, mirrored ones included.
    pub passes: usize,
    /// Memory expected before the run.
    pub predicted: Memory,
    /// Wall time per stage.
    pub timings: Timings,
}

/// One structure of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its label.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Voxels that have it.
    pub voxels: u64,
    /// Their volume in millilitres.
    pub ml: f64,
}

impl Segmentation {
    /// Writes the label map as NIfTI, compressed if `path` ends in `.gz`: with the geometry of the
    /// first image, complete or not at all, and no easier to read than the image. A file that is
    /// there stays; see [`save_as`](Self::save_as).
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::Error::Usage) if the name ends in neither `.nii` nor `.nii.gz`, and
    /// [`Error::Write`](crate::Error::Write) if the file exists or cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_as(path, Existing::Keep)
    }

    /// As [`save`](Self::save), and says what becomes of a file that is there.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_as(&self, path: impl AsRef<Path>, existing: Existing) -> Result<()> {
        let target = Target { path: path.as_ref(), existing, access: self.access };
        io::save_labels_to(target, (&self.labels).into(), &self.header, &self.structures)
    }

    /// The structures that can occur, found or not, and any other label that does.
    #[must_use]
    pub fn found(&self) -> Vec<Found> {
        let counts = self.labels.counts();
        let names: HashMap<u16, &Label> =
            self.structures.iter().map(|label| (label.id, label)).collect();
        let structure = |(id, voxels): (usize, u64)| {
            let id = id as u16;
            let name = match names.get(&id) {
                Some(label) => label.name.clone(),
                None if voxels == 0 => return None,
                None => Label::unnamed(id),
            };
            Some(Found { id, name, voxels, ml: voxels as f64 * self.grid.voxel_ml() })
        };
        counts.into_iter().enumerate().skip(1).filter_map(structure).collect()
    }

    /// Voxel index to patient millimetres, as the first image has it.
    #[must_use]
    pub fn affine(&self) -> Affine {
        self.affine
    }

    /// The geometry that label maps copy.
    pub(crate) fn header(&self) -> &SourceHeader {
        &self.header
    }

    /// The series that the first image was, if it was one.
    #[cfg(feature = "dicom")]
    pub(crate) fn series(&self) -> Option<&fastnnunet_dicom::Source> {
        self.source.as_deref()
    }

    /// Who may read files about this case.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }
}
