//! Class probabilities on the image's grid, as nnU-Net saves them with `--save_probabilities`.
//!
//! What the network gave stays on its own grid. Probabilities are made one class after the
//! other and one slice after the other while they are written, so that they never exist at
//! once: 61 classes of a 512x512x300 scan are 19 GB.

use super::crop::{self, Box3};
use super::label::Decision;
use super::plan::Plan;
use super::resample::{Pair, nearest_pairs, pairs};
use crate::Result;
use crate::files::{Access, Existing, Target};
use crate::infer::LinearHead;
use crate::model::{ModelConfig, NetworkOutput};
use crate::volume::AxisMap;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array3, Array4, ArrayView3, Axis, Zip};
use std::io::{self, Write};
use std::path::Path;

/// What the network gave, and where it belongs.
#[derive(Debug)]
pub struct Probabilities {
    /// Logits, or features if there is a head: `[c, z, y, x]` on the network's grid.
    planes: Array4<f32>,
    head: Option<LinearHead>,
    decision: Decision,
    /// Whether the network's last layer made probabilities of logits.
    has_softmax: bool,
    /// Interpolation order of logits: 0 or 1.
    order: u8,
    separate: Option<usize>,
    /// From the array as stored to the network's axes.
    axes: AxisMap,
    /// The part of the image, in the network's axes, that was worked on.
    bounds: Box3,
    /// Voxels of the image as stored.
    shape: [usize; 3],
}

impl Probabilities {
    pub(super) fn new(
        planes: Array4<f32>,
        head: Option<LinearHead>,
        plan: &Plan,
        config: &ModelConfig,
        shape: [usize; 3],
    ) -> Self {
        Self {
            planes,
            head,
            decision: plan.decision.clone(),
            has_softmax: config.network_output == NetworkOutput::Probabilities,
            order: config.resampling.order_logits,
            separate: plan.separate_back,
            axes: plan.axes,
            bounds: plan.bounds.clone(),
            shape,
        }
    }

    /// Number of classes or regions.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.head.as_ref().map_or(self.planes.len_of(Axis(0)), |head| head.bias.len())
    }

    /// Writes `probabilities`, `f32` of shape `[class, z, y, x]` with the axes of the image as
    /// stored, to a compressed archive of numpy (`.npz`).
    ///
    /// Classes exclude each other (softmax) or, for regions, do not (sigmoid). Outside the box
    /// of nonzero voxels everything is 0 but the background, which is 1.
    ///
    /// # Errors
    ///
    /// [`Error::Write`](crate::Error::Write) if a file exists that is to be kept or if writing fails; nothing
    /// is left behind then.
    pub fn save_npz(&self, path: &Path, existing: Existing, access: Access) -> Result<()> {
        Target { path, existing, access }.write(|file| {
            let mut archive = zip::ZipWriter::new(io::BufWriter::new(file));
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Deflated)
                .large_file(true);
            archive.start_file("probabilities.npy", options)?;
            self.write_npy(&mut archive)?;
            archive.finish()?.flush()
        })
    }

    /// Checks that [`save_npz`](Self::save_npz) could write to `path`; creates nothing that stays.
    ///
    /// # Errors
    ///
    /// Those of [`save_npz`](Self::save_npz), as far as they can be foreseen.
    pub fn check_writable(path: &Path, existing: Existing) -> Result<()> {
        Target::new(path, existing).check()
    }

    fn write_npy(&self, out: &mut impl Write) -> io::Result<()> {
        let [z, y, x] = self.shape;
        let header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {z}, {y}, {x}), }}",
            self.classes()
        );
        // Magic, version, length, text, newline: together a multiple of 64 bytes.
        let text = format!(
            "{header:<width$}\n",
            width = (10 + header.len() + 1).next_multiple_of(64) - 11
        );
        out.write_all(b"\x93NUMPY\x01\x00")?;
        out.write_all(&(text.len() as u16).to_le_bytes())?;
        out.write_all(text.as_bytes())?;

        let exclusive = self.decision == Decision::Argmax;
        let normalizer = (exclusive && !self.has_softmax).then(|| self.normalizer());
        let mut bytes = Vec::new();
        for class in 0..self.classes() {
            let outside = if exclusive && class == 0 { 1.0 } else { 0.0 };
            let mut whole = Array3::from_elem(self.shape, outside);
            let mut part = crop::crop(self.axes.view_mut(whole.view_mut()), &self.bounds);
            part.assign(&self.logits(class));
            match &normalizer {
                Some((largest, sum)) => Zip::from(&mut part)
                    .and(largest)
                    .and(sum)
                    .par_for_each(|v, largest, sum| *v = (*v - largest).exp() / sum),
                None if self.has_softmax => {}
                None => part.par_mapv_inplace(|v| 1.0 / (1.0 + (-v).exp())),
            }
            for plane in whole.outer_iter() {
                bytes.clear();
                bytes.extend(plane.iter().flat_map(|v| v.to_le_bytes()));
                out.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    /// Largest logit of each voxel of the box, and the sum of exponentials relative to it.
    fn normalizer(&self) -> (Array3<f32>, Array3<f32>) {
        let mut largest = self.logits(0);
        let mut sum = Array3::ones(largest.raw_dim());
        for class in 1..self.classes() {
            let logits = self.logits(class);
            Zip::from(&mut largest).and(&mut sum).and(&logits).par_for_each(|m, s, &v| {
                if v > *m {
                    *s = *s * (*m - v).exp() + 1.0;
                    *m = v;
                } else {
                    *s += (v - *m).exp();
                }
            });
        }
        (largest, sum)
    }

    /// Logits of one class on the box, in the network's axes.
    fn logits(&self, class: usize) -> Array3<f32> {
        let (_, z, y, x) = self.planes.dim();
        let combined;
        let source = match &self.head {
            None => self.planes.index_axis(Axis(0), class),
            Some(head) => {
                let mut sum = Array3::from_elem((z, y, x), head.bias[class]);
                for (feature, &weight) in self.planes.outer_iter().zip(head.weights.row(class)) {
                    Zip::from(&mut sum).and(&feature).par_for_each(|s, &v| *s += weight * v);
                }
                combined = sum;
                combined.view()
            }
        };
        let target = crop::box_shape(&self.bounds);
        let [z, y, x] = [(0, z), (1, y), (2, x)].map(|(axis, n)| {
            let near = self.order == 0 || self.separate == Some(axis);
            if near { nearest_pairs(n, target[axis]) } else { pairs(n, target[axis]) }
        });
        resize(source, &z, &y, &x)
    }
}

/// Interpolates along all axes.
fn resize(source: ArrayView3<'_, f32>, z: &[Pair], y: &[Pair], x: &[Pair]) -> Array3<f32> {
    let mut target = Array3::zeros((z.len(), y.len(), x.len()));
    let mix = |a: f32, b: f32, t: f64| a + t as f32 * (b - a);
    target.axis_iter_mut(Axis(0)).into_par_iter().zip(z).for_each(|(mut slice, pair)| {
        let (below, above) =
            (source.index_axis(Axis(0), pair.low), source.index_axis(Axis(0), pair.high));
        let mut plane: Array2<f32> = below.to_owned();
        plane.zip_mut_with(&above, |a, &b| *a = mix(*a, b, pair.t));
        for (mut row, i) in slice.outer_iter_mut().zip(y) {
            for (value, j) in row.iter_mut().zip(x) {
                let along = |r: usize| mix(plane[[r, j.low]], plane[[r, j.high]], j.t);
                *value = mix(along(i.low), along(i.high), i.t);
            }
        }
    });
    target
}
