//! The images of a case, and what a cascade refines.

use super::cases::CaseFiles;
use fastnnunet::io::{self, Limits, SourceHeader};
use fastnnunet::model::Reader;
use fastnnunet::pipeline::Case;
use fastnnunet::volume::{Affine, LabelMap};
use fastnnunet::{Error, Result};
use ndarray::Array3;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A case in memory.
pub(crate) struct Loaded {
    pub(crate) case: Case,
    /// Where the first image lies, as its file says.
    pub(crate) affine: Affine,
    /// Of the first image; the label map gets its geometry.
    pub(crate) header: SourceHeader,
    pub(crate) warnings: Vec<String>,
    /// Of each image, if asked for.
    pub(crate) sha256: Option<Vec<String>>,
    pub(crate) time: Duration,
}

/// What to read, and how.
#[derive(Clone, Debug)]
pub(crate) struct Loader {
    pub(crate) reader: Option<Reader>,
    /// Images that the networks take.
    pub(crate) images: usize,
    /// How much all images of a case may take.
    pub(crate) limits: Limits,
    /// A label map, or a folder of label maps named like the cases.
    pub(crate) previous: Option<PathBuf>,
    pub(crate) digests: bool,
}

impl Loader {
    pub(crate) fn load(&self, files: &CaseFiles) -> Result<Loaded> {
        let started = Instant::now();
        if files.images.len() != self.images {
            return Err(Error::Volume {
                found: format!("{} images", files.images.len()),
                expected: format!("{}, one per channel of the model", self.images),
            });
        }
        let mut limits = self.limits;
        let mut scans = Vec::new();
        let mut sha256 = self.digests.then(Vec::new);
        for image in &files.images {
            let (scan, digest) = rayon::join(
                || io::load_as(image, self.reader, limits),
                // What is no file is refused beside this, and might have no end.
                || (self.digests && image.is_file()).then(|| digest(image)).transpose(),
            );
            let scan = scan?;
            let held = (scan.volume.data.len() * size_of::<f32>()) as u64;
            limits.max_bytes = limits.max_bytes.saturating_sub(held);
            scans.push(scan);
            if let (Some(list), Some(digest)) = (&mut sha256, digest?) {
                list.push(digest);
            }
        }
        let mut scans = scans.into_iter().zip(&files.images);
        let Some((first, first_path)) = scans.next() else {
            return Err(Error::Usage {
                what: "--input".into(),
                found: "nothing".into(),
                expected: "a CT volume".into(),
            });
        };
        let grid = first.volume.grid;
        let mut channels = vec![first.volume.data];
        let (mut odd, mut elsewhere) = (Vec::new(), Vec::new());
        note(&mut odd, first.warnings, first_path);
        for (scan, path) in scans {
            let other = &scan.volume.grid;
            let spacing = grid.spacing.iter().zip(&other.spacing);
            if other.shape != grid.shape || spacing.clone().any(|(a, b)| (a - b).abs() > 1e-4 * a) {
                return Err(Error::Input {
                    path: path.clone(),
                    found: format!("{:?} voxels of {:?} mm", other.shape, other.spacing),
                    expected: format!(
                        "{:?} voxels of {:?} mm, as the first image",
                        grid.shape, grid.spacing
                    ),
                });
            }
            if apart(&scan.affine, &first.affine) {
                elsewhere.push(format!(
                    "{} lies elsewhere than the first image, whose place is used",
                    path.display()
                ));
            }
            note(&mut odd, scan.warnings, path);
            channels.push(scan.volume.data);
        }
        let previous = match &self.previous {
            None => None,
            Some(path) => {
                let (labels, warning) = self.labels(path, files, grid.shape, &first.affine)?;
                elsewhere.extend(warning);
                Some(labels)
            }
        };
        let mut warnings: Vec<String> = if channels.len() == 1 {
            odd.into_iter().map(|(text, _)| text).collect()
        } else {
            odd.into_iter().map(|(text, paths)| format!("{}: {text}", paths.join(", "))).collect()
        };
        warnings.extend(elsewhere);
        let case = Case { channels, grid, previous };
        let (affine, header) = (first.affine, first.header);
        Ok(Loaded { case, affine, header, warnings, sha256, time: started.elapsed() })
    }

    /// Labels of the previous stage for a case, and a warning if their file places them
    /// elsewhere than the image: they are used voxel by voxel all the same, as in nnU-Net.
    fn labels(
        &self,
        path: &Path,
        files: &CaseFiles,
        shape: [usize; 3],
        affine: &Affine,
    ) -> Result<(LabelMap, Option<String>)> {
        let in_folder = files.labels_in(path);
        let file = match in_folder.iter().find(|file| file.is_file()) {
            Some(found) => found,
            None if path.is_dir() => &in_folder[0],
            None => path,
        };
        let scan = io::load_as(file, self.reader, self.limits)?;
        let labels: Array3<f32> = scan.volume.data;
        let wrong = |found: String, expected: String| Error::Input {
            path: file.to_path_buf(),
            found,
            expected,
        };
        if labels.shape() != shape {
            return Err(wrong(
                format!("{:?} voxels", labels.shape()),
                format!("{shape:?} voxels, as the image"),
            ));
        }
        let largest = labels.iter().copied().fold(0.0, f32::max);
        if labels.iter().any(|&v| v < 0.0 || v.fract() != 0.0) || largest > f32::from(u16::MAX) {
            return Err(wrong("numbers that are no labels".into(), "whole numbers from 0".into()));
        }
        let labels = if largest <= 255.0 {
            LabelMap::U8(labels.mapv(|v| v as u8))
        } else {
            LabelMap::U16(labels.mapv(|v| v as u16))
        };
        let warning = apart(&scan.affine, affine).then(|| {
            format!("{} lies elsewhere than the image, whose place is used", file.display())
        });
        Ok((labels, warning))
    }
}

/// Whether two affines differ by more than the rounding of what wrote them.
fn apart(a: &Affine, b: &Affine) -> bool {
    let mut pairs = a.0.as_flattened().iter().zip(b.0.as_flattened());
    pairs.any(|(a, b)| (a - b).abs() > 1e-4 * a.abs().max(1.0))
}

/// Adds what is odd about an image to `odd`: each text once, with the files it is about.
fn note(odd: &mut Vec<(String, Vec<String>)>, warnings: Vec<String>, path: &Path) {
    for text in warnings {
        let name = path.display().to_string();
        match odd.iter_mut().find(|(known, _)| *known == text) {
            Some((_, paths)) => paths.push(name),
            None => odd.push((text, vec![name])),
        }
    }
}

/// SHA-256 of a file, lowercase hexadecimal.
fn digest(path: &Path) -> Result<String> {
    let read = |source| Error::Read { path: path.to_path_buf(), source };
    let mut file = std::fs::File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
