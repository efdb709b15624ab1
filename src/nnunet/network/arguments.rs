//! The arguments of a network's class, as `plans.json` has them.

use super::super::checkpoint::Stored;
use crate::Mismatch;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Most stages of a network; each halves the patch.
const MAX_STAGES: usize = 16;

/// Most convolutions or blocks of a stage.
const MAX_BLOCKS: u64 = 64;

/// Most channels of a stage.
const MAX_CHANNELS: u64 = 4096;

/// Longest edge of a kernel and largest stride.
const MAX_EDGE: u64 = 31;

/// Which of the reference's classes a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Class {
    /// `PlainConvUNet`, and FastnnUNet's `LiteNNUNetStudent`.
    Plain,
    /// `ResidualEncoderUNet`, and FastnnUNet's `LiteResEncStudent`.
    ResidualEncoder,
    /// `ResidualUNet`.
    Residual,
    /// nnU-Net v1's `Generic_UNet`: no bias on the way up and in the last layer, and probabilities at
    /// the end.
    Generic,
}

impl Class {
    /// Whether stages are convolutions, and not blocks that add what enters them.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Plain | Self::Generic)
    }
}

/// Normalization after a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Norm {
    None,
    Instance {
        epsilon: f32,
        affine: bool,
    },
    /// By running statistics.
    Batch {
        epsilon: f32,
        affine: bool,
    },
}

/// A network of one of the known classes.
#[derive(Clone, Debug)]
pub(in super::super) struct Architecture {
    pub(super) class: Class,
    /// Spatial axes: 2 or 3.
    pub(super) rank: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Channels per stage.
    pub(super) features: Vec<usize>,
    /// Kernel per stage, one entry per axis.
    pub(super) kernels: Vec<Vec<usize>>,
    /// Stride per stage, one entry per axis.
    pub(super) strides: Vec<Vec<usize>>,
    /// Convolutions or blocks per stage.
    pub(super) encoder: Vec<usize>,
    /// Convolutions or blocks per stage of the decoder.
    pub(super) decoder: Vec<usize>,
    pub(super) bias: bool,
    pub(super) norm: Norm,
    /// Factor of negative values; 1 without activation.
    pub(super) slope: f32,
    /// Activation before normalization.
    pub(super) nonlin_first: bool,
    /// Channels inside the encoder's blocks, where those are bottlenecks.
    pub(super) bottleneck: Option<Vec<usize>>,
    /// Channels of the residual encoder's stem.
    pub(super) stem: usize,
}

/// Arguments all three classes have.
const COMMON: &[&str] = &[
    "n_stages",
    "features_per_stage",
    "conv_op",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage_decoder",
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
    "deep_supervision",
];

/// Reads arguments and names them in errors.
struct Arguments<'a> {
    map: &'a Map<String, Value>,
    rank: usize,
    stages: usize,
}

impl Arguments<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, expected: impl Into<String>) -> Mismatch {
        let found = match self.map.get(name) {
            Some(value) => format!("{name} {value}"),
            None => format!("no {name}"),
        };
        Mismatch::new(found, expected).within("arch_kwargs")
    }

    /// One count per stage; a single one counts for all.
    fn counts(&self, name: &str, stages: usize, most: u64) -> Result<Vec<usize>, Mismatch> {
        let count =
            |value: &Value| value.as_u64().filter(|n| (1..=most).contains(n)).map(|n| n as usize);
        let list = match self.get(name) {
            Some(Value::Array(list)) => list.iter().map(count).collect(),
            Some(one) => count(one).map(|n| vec![n; stages]),
            None => None,
        };
        list.filter(|list: &Vec<usize>| list.len() == stages)
            .ok_or_else(|| self.wrong(name, format!("{stages} counts from 1 to {most}")))
    }

    /// A kernel or stride per stage: one number for all axes, or one each.
    fn edges(&self, name: &str) -> Result<Vec<Vec<usize>>, Mismatch> {
        let edge = |value: &Value| {
            value.as_u64().filter(|n| (1..=MAX_EDGE).contains(n)).map(|n| n as usize)
        };
        let stage = |value: &Value| match value {
            Value::Array(axes) => {
                let axes: Option<Vec<usize>> = axes.iter().map(edge).collect();
                axes.filter(|axes| axes.len() == self.rank)
            }
            one => edge(one).map(|n| vec![n; self.rank]),
        };
        let list = match self.get(name) {
            Some(Value::Array(list)) => list.iter().map(stage).collect(),
            Some(one) => stage(one).map(|axes| vec![axes; self.stages]),
            None => None,
        };
        list.filter(|list: &Vec<Vec<usize>>| list.len() == self.stages).ok_or_else(|| {
            let expected = format!("{} entries for {} axes", self.stages, self.rank);
            self.wrong(name, expected)
        })
    }

    fn flag(&self, name: &str) -> Result<bool, Mismatch> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "true or false")),
        }
    }

    /// Last part of a class path.
    fn class(&self, name: &str) -> Result<Option<&str>, Mismatch> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(path)) => Ok(path.rsplit('.').next()),
            Some(_) => Err(self.wrong(name, "a class")),
        }
    }

    /// A real number among the keyword arguments of a class.
    fn number(&self, of: &str, name: &str, default: f64) -> Result<f64, Mismatch> {
        match self.get(of).and_then(|map| map.get(name)) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(of, "real numbers")),
        }
    }

    fn norm(&self) -> Result<Norm, Mismatch> {
        let of = "norm_op_kwargs";
        let epsilon = self.number(of, "eps", 1e-5)? as f32;
        let given = |name: &str, default: bool| {
            let value = self.get(of).and_then(|map| map.get(name));
            value.and_then(Value::as_bool).unwrap_or(default)
        };
        let running = given("track_running_stats", false);
        Ok(match self.class("norm_op")? {
            None => Norm::None,
            Some("InstanceNorm2d" | "InstanceNorm3d") if !running => {
                Norm::Instance { epsilon, affine: given("affine", false) }
            }
            Some("InstanceNorm2d" | "InstanceNorm3d") => {
                Norm::Batch { epsilon, affine: given("affine", false) }
            }
            Some("BatchNorm2d" | "BatchNorm3d") if given("track_running_stats", true) => {
                Norm::Batch { epsilon, affine: given("affine", true) }
            }
            Some(_) => return Err(self.wrong("norm_op", "InstanceNorm or BatchNorm")),
        })
    }

    fn slope(&self) -> Result<f32, Mismatch> {
        match self.class("nonlin")? {
            None => Ok(1.0),
            Some("ReLU") => Ok(0.0),
            Some("LeakyReLU") => Ok(self.number("nonlin_kwargs", "negative_slope", 0.01)? as f32),
            Some(_) => Err(self.wrong("nonlin", "LeakyReLU or ReLU")),
        }
    }
}

impl Architecture {
    /// Reads the arguments of a class.
    pub(in super::super) fn read(
        class: &str,
        map: &Map<String, Value>,
        rank: usize,
        (inputs, outputs): (usize, usize),
    ) -> Result<Self, Mismatch> {
        let (class, own): (_, &[&str]) = match class {
            "PlainConvUNet" | "LiteNNUNetStudent" => {
                (Class::Plain, &["n_conv_per_stage", "nonlin_first"])
            }
            "Generic_UNet" => (Class::Generic, &["n_conv_per_stage"]),
            "ResidualEncoderUNet" | "LiteResEncStudent" => (
                Class::ResidualEncoder,
                &["n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels"],
            ),
            "ResidualUNet" => (
                Class::Residual,
                &["n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels"],
            ),
            other => {
                return Err(Mismatch::new(
                    format!("network class {other}"),
                    "PlainConvUNet, ResidualEncoderUNet, ResidualUNet, Generic_UNet, \
                     LiteNNUNetStudent or LiteResEncStudent",
                ));
            }
        };
        let mut names = map.keys().map(String::as_str);
        if let Some(name) = names.find(|name| !COMMON.contains(name) && !own.contains(name)) {
            return Err(Mismatch::new(
                format!("network argument {name}"),
                "the arguments of nnU-Net's own networks",
            ));
        }
        let mut arguments = Arguments { map, rank, stages: 0 };
        let stages = arguments.get("n_stages").and_then(Value::as_u64).map(|n| n as usize);
        let stages = stages.filter(|n| (2..=MAX_STAGES).contains(n));
        arguments.stages =
            stages.ok_or_else(|| arguments.wrong("n_stages", format!("2 to {MAX_STAGES}")))?;
        let stages = arguments.stages;
        match arguments.class("conv_op")? {
            Some("Conv2d") if rank == 2 => {}
            Some("Conv3d") if rank == 3 => {}
            _ => return Err(arguments.wrong("conv_op", format!("Conv{rank}d, as the patch"))),
        }
        let blocks = if class.is_plain() { "n_conv_per_stage" } else { "n_blocks_per_stage" };
        let features = arguments.counts("features_per_stage", stages, MAX_CHANNELS)?;
        let bottleneck = match arguments.class("block")? {
            None | Some("BasicBlockD") => None,
            Some("BottleneckD") => {
                Some(arguments.counts("bottleneck_channels", stages, MAX_CHANNELS)?)
            }
            Some(_) => return Err(arguments.wrong("block", "BasicBlockD or BottleneckD")),
        };
        let stem = match arguments.get("stem_channels") {
            None => features[0],
            Some(_) => arguments.counts("stem_channels", 1, MAX_CHANNELS)?[0],
        };
        Ok(Self {
            class,
            rank,
            inputs,
            outputs,
            kernels: arguments.edges("kernel_sizes")?,
            strides: arguments.edges("strides")?,
            encoder: arguments.counts(blocks, stages, MAX_BLOCKS)?,
            decoder: arguments.counts("n_conv_per_stage_decoder", stages - 1, MAX_BLOCKS)?,
            bias: arguments.flag("conv_bias")?,
            norm: arguments.norm()?,
            slope: arguments.slope()?,
            nonlin_first: arguments.flag("nonlin_first")?,
            features,
            bottleneck,
            stem,
        })
    }

    /// Follows trainers that change the plans' network: `nnUNetTrainerBN` and its like
    /// normalize by running statistics.
    pub(in super::super) fn follow_norm(&mut self, weights: &HashMap<String, Stored>) {
        if matches!(self.norm, Norm::Instance { .. })
            && weights.keys().any(|name| name.ends_with(".norm.running_mean"))
        {
            self.norm = Norm::Batch { epsilon: 1e-5, affine: true };
        }
    }

    /// Takes the number of channels and blocks from the weights: FastnnUNet's students are
    /// narrower, sometimes shallower, than the plans they were trained with.
    pub(in super::super) fn follow_student(
        &mut self,
        weights: &HashMap<String, Stored>,
    ) -> Result<(), Mismatch> {
        let residual = weights.keys().any(|name| name.starts_with("encoder.stem."));
        self.class = if residual { Class::ResidualEncoder } else { Class::Plain };
        let width = |name: &str| {
            let shape = weights.get(name).map(|stored| &stored.shape);
            shape
                .and_then(|shape| shape.first().copied())
                .ok_or_else(|| Mismatch::new(format!("no weights {name:?}"), "a student's weights"))
        };
        for s in 0..self.features.len() {
            let (first, blocks) = if residual {
                (format!("encoder.stages.{s}.blocks.0.conv1.conv.weight"), "blocks")
            } else {
                (format!("encoder.stages.{s}.0.convs.0.conv.weight"), "0.convs")
            };
            self.features[s] = width(&first)?;
            let has = |b: usize| {
                let block = format!("encoder.stages.{s}.{blocks}.{b}.");
                weights.keys().any(|name| name.starts_with(&block))
            };
            self.encoder[s] = (0..MAX_BLOCKS as usize).take_while(|&b| has(b)).count();
        }
        self.stem = self.features[0];
        self.bottleneck = None;
        Ok(())
    }
}
