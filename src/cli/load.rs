//! The images of a case, and what a cascade refines, from their files.

use super::cases::CaseFiles;
use super::images::Image;
use fastnnunet::cohort::Input;
use fastnnunet::io::ReadOptions;
use fastnnunet::segmenter::lies_apart;
use fastnnunet::volume::LabelMap;
use fastnnunet::{Case, Error, Result, Scan};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A case in memory.
pub(crate) struct Loaded {
    /// The images, in channel order.
    pub(crate) scans: Vec<Scan>,
    pub(crate) previous_stage: Option<LabelMap>,
    pub(crate) warnings: Vec<String>,
    /// Why it is computed once more, if it was before.
    pub(crate) again: Option<String>,
    /// What was read, where a status file will say so.
    pub(crate) inputs: Vec<Input>,
    pub(crate) time: Duration,
}

impl Loaded {
    /// Bytes that reading the images held at most.
    pub(crate) fn bytes(&self) -> u64 {
        let mut held = 0;
        let mut most = 0;
        for scan in &self.scans {
            most = most.max(held + scan.read_bytes());
            held += scan.voxels().bytes();
        }
        most
    }
}

/// What to read, and how.
#[derive(Clone, Debug)]
pub(crate) struct Loader {
    /// Of each image that the networks take, whether it should be a CT.
    pub(crate) expect_ct: Vec<bool>,
    /// What all images of a case may take, among other things.
    pub(crate) options: ReadOptions,
    /// A label map, or a folder of label maps named like the cases.
    pub(crate) previous_stage: Option<PathBuf>,
}

impl Loader {
    pub(crate) fn load(&self, files: &CaseFiles) -> Result<Loaded> {
        let started = Instant::now();
        let images = self.expect_ct.len();
        if files.images.len() != images {
            return Err(Error::Volume {
                found: format!("{} images", files.images.len()),
                expected: format!("{images}, one per channel of the model"),
            });
        }
        let scans = self.images(files)?;
        let names: Vec<String> = files.images.iter().map(Image::display).collect();
        let mut warnings = Case::new(scans.iter().map(Cow::Borrowed)).warnings(&names);
        let previous_stage = match &self.previous_stage {
            None => None,
            Some(path) => {
                let (labels, warning) = self.labels(path, files, &scans[0])?;
                warnings.extend(warning);
                Some(labels)
            }
        };
        let time = started.elapsed();
        Ok(Loaded { scans, previous_stage, warnings, again: None, inputs: Vec::new(), time })
    }

    /// The files that are read for each image, and for the labels that are refined.
    pub(crate) fn reads(&self, files: &CaseFiles) -> Vec<Vec<PathBuf>> {
        let owned = |image: &Image| image.files().into_iter().map(Path::to_path_buf).collect();
        let labels = self.previous_stage.iter().map(|path| vec![labels_file(path, files)]);
        files.images.iter().map(owned).chain(labels).collect()
    }

    fn images(&self, files: &CaseFiles) -> Result<Vec<Scan>> {
        let mut options = self.options;
        let mut scans: Vec<Scan> = Vec::new();
        for (image, &expects_ct) in files.images.iter().zip(&self.expect_ct) {
            options.expects_ct = expects_ct;
            let scan = image.open(&options)?;
            options.max_bytes = options.max_bytes.saturating_sub(scan.voxels().bytes());
            scans.push(scan);
        }
        Ok(scans)
    }

    /// Labels of the first stage for a case, and a warning if their file places them elsewhere
    /// than the image: they are used voxel by voxel all the same, as in nnU-Net.
    fn labels(
        &self,
        path: &Path,
        files: &CaseFiles,
        image: &Scan,
    ) -> Result<(LabelMap, Option<String>)> {
        let file = &labels_file(path, files);
        let scan = Scan::open_with(file, &self.options)?;
        let values = scan.voxels().to_f32();
        let wrong =
            |found: String, expected: String| Error::Input { path: file.clone(), found, expected };
        if scan.grid().shape != image.grid().shape {
            return Err(wrong(
                format!("{:?} voxels", scan.grid().shape),
                format!("{:?} voxels, as the image", image.grid().shape),
            ));
        }
        let largest = values.iter().copied().fold(0.0, f32::max);
        if values.iter().any(|&v| v < 0.0 || v.fract() != 0.0) || largest > f32::from(u16::MAX) {
            return Err(wrong("numbers that are no labels".into(), "whole numbers from 0".into()));
        }
        let labels = if largest <= 255.0 {
            LabelMap::U8(values.mapv(|v| v as u8))
        } else {
            LabelMap::U16(values.mapv(|v| v as u16))
        };
        let warning = lies_apart(&scan.affine(), &image.affine()).then(|| {
            format!("{} lies elsewhere than the image, whose place is used", file.display())
        });
        Ok((labels, warning))
    }
}

/// The label map of a case: the file itself, or the one in a folder that is named like the case.
fn labels_file(path: &Path, files: &CaseFiles) -> PathBuf {
    let mut in_folder = files.labels_in(path);
    match in_folder.iter().position(|file| file.is_file()) {
        Some(found) => std::mem::take(&mut in_folder[found]),
        None if path.is_dir() => std::mem::take(&mut in_folder[0]),
        None => path.to_path_buf(),
    }
}
