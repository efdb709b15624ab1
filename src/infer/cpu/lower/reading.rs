//! How values are read: through normalization and activation, which cost no pass of their own.

use super::Lowering;
use crate::infer::cpu::plan::{Norm, Read, TensorId};
use crate::model::network::PerChannel;
use fastnnunet_kernels::conv::{Coding, Layer};
use fastnnunet_kernels::row::Affine;

/// How a tensor's channels are scaled and shifted when read.
#[derive(Clone, Debug)]
enum Scaling {
    /// By constants, one pair per channel.
    Fixed(Vec<(f32, f32)>),
    /// To zero mean and unit variance, then by constants.
    Norm { gamma: Vec<f32>, beta: Vec<f32>, epsilon: f64 },
}

/// All channels of a tensor, and how they are read.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) tensor: TensorId,
    scaling: Scaling,
    /// Factor of negative values per channel; `None` before any activation.
    slopes: Option<Vec<f32>>,
}

/// A value of the network.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) parts: Vec<Part>,
    pub(super) dims: [usize; 3],
}

impl Part {
    pub(super) fn raw(tensor: TensorId, channels: usize) -> Self {
        Self { tensor, scaling: Scaling::Fixed(vec![(1.0, 0.0); channels]), slopes: None }
    }

    /// Whether bytes can be made of it.
    pub(super) fn takes_bytes(&self) -> bool {
        self.slopes.iter().flatten().all(|&slope| Layer::takes_slope(slope))
    }

    /// Whether reading is copying.
    pub(super) fn is_raw(&self) -> bool {
        let identity = |pair: &(f32, f32)| *pair == (1.0, 0.0);
        self.slopes.is_none()
            && matches!(&self.scaling, Scaling::Fixed(pairs) if pairs.iter().all(identity))
    }
}

impl Lowering<'_> {
    /// Entries of the plan through which a step reads `view`.
    pub(super) fn reads(&mut self, view: &View) -> Vec<Read> {
        let mut reads = Vec::new();
        for part in &view.parts {
            let channels = self.channels(part);
            let start = self.plan.affines.len();
            let slope = |c: usize| part.slopes.as_ref().map_or(1.0, |slopes| slopes[c]);
            for c in 0..channels {
                let (scale, shift) = match &part.scaling {
                    Scaling::Fixed(pairs) => {
                        let Coding { center, step } = self.plan.tensors[part.tensor].coding(c);
                        let (scale, shift) = pairs[c];
                        (scale * step, scale * center + shift)
                    }
                    Scaling::Norm { .. } => (1.0, 0.0),
                };
                self.plan.affines.push(Affine { scale, shift, slope: slope(c) });
            }
            let affines = start..start + channels;
            if let Scaling::Norm { gamma, beta, epsilon } = &part.scaling {
                self.plan.tensors[part.tensor].norms.push(Norm {
                    affines: affines.clone(),
                    gamma: gamma.clone(),
                    beta: beta.clone(),
                    epsilon: *epsilon,
                });
            }
            reads.push(Read { tensor: part.tensor, affines });
        }
        reads
    }

    /// Applies `v * scale + shift` to what is read.
    pub(super) fn scale(
        &mut self,
        name: &str,
        view: View,
        scale: &PerChannel,
        shift: &PerChannel,
    ) -> View {
        let linear = view.parts.iter().all(|part| part.slopes.is_none());
        let mut view = if linear { view } else { self.stored(name, &view) };
        let mut c = 0;
        for part in &mut view.parts {
            let mut next = || {
                let pair = (scale.at(c), shift.at(c));
                c += 1;
                pair
            };
            match &mut part.scaling {
                Scaling::Fixed(old) => {
                    for (a, b) in old {
                        let (s, t) = next();
                        (*a, *b) = (*a * s, *b * s + t);
                    }
                }
                Scaling::Norm { gamma, beta, .. } => {
                    for (a, b) in gamma.iter_mut().zip(beta) {
                        let (s, t) = next();
                        (*a, *b) = (*a * s, *b * s + t);
                    }
                }
            }
        }
        view
    }

    pub(super) fn instance_norm(
        &mut self,
        name: &str,
        view: View,
        (gamma, beta): (&PerChannel, &PerChannel),
        epsilon: f64,
    ) -> View {
        // The network's input gets no moments; nothing computes it.
        let ready = |part: &Part| part.is_raw() && part.tensor != self.plan.input;
        let mut view = if view.parts.iter().all(ready) { view } else { self.stored(name, &view) };
        let mut c = 0;
        for part in &mut view.parts {
            let end = c + self.plan.tensors[part.tensor].layout.channels;
            let of = |vector: &PerChannel| (c..end).map(|c| vector.at(c)).collect();
            part.scaling = Scaling::Norm { gamma: of(gamma), beta: of(beta), epsilon };
            c = end;
        }
        view
    }

    /// Applies a rectifier; two in a row multiply their slopes while signs survive.
    pub(super) fn rectify(&mut self, name: &str, view: View, slopes: &PerChannel) -> View {
        let keeps_sign = |part: &Part| part.slopes.iter().flatten().all(|&s| s >= 0.0);
        let mut view =
            if view.parts.iter().all(keeps_sign) { view } else { self.stored(name, &view) };
        let mut c = 0;
        for part in &mut view.parts {
            let channels = self.plan.tensors[part.tensor].layout.channels;
            let new = (c..c + channels).map(|c| slopes.at(c));
            part.slopes = Some(match &part.slopes {
                None => new.collect(),
                Some(old) => old.iter().zip(new).map(|(a, b)| a * b).collect(),
            });
            c += channels;
        }
        view
    }
}
