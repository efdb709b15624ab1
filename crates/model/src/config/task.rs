//! What a task does around its network: the grid that images come to first, the rough crop before
//! that, and what is done with the labels before they go back.

use crate::Mismatch;
use serde::{Deserialize, Serialize};

/// The grid that images are brought to before anything else is done with them, in right, anterior,
/// superior axes, and from which labels go back to the image's own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskGrid {
    /// Millimetres per voxel, `[z, y, x]`; absent to leave the image's own grid.
    pub spacing: Option<[f64; 3]>,
    /// Interpolation of the image.
    pub order: GridOrder,
    /// Which voxels of the two grids lie on each other.
    pub align: Align,
    /// What becomes of interpolated values.
    pub integer: Integer,
    /// How labels go back.
    pub labels_back: LabelInterpolation,
}

/// Interpolation of the image: order of the spline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum GridOrder {
    /// The nearest voxel.
    Nearest,
    /// Linear.
    #[default]
    Linear,
}

impl TryFrom<u8> for GridOrder {
    type Error = String;

    fn try_from(order: u8) -> Result<Self, String> {
        match order {
            0 => Ok(Self::Nearest),
            1 => Ok(Self::Linear),
            other => Err(format!("order {other} of grid, expected 0 or 1")),
        }
    }
}

impl From<GridOrder> for u8 {
    fn from(order: GridOrder) -> Self {
        match order {
            GridOrder::Nearest => 0,
            GridOrder::Linear => 1,
        }
    }
}

/// Which voxels of two grids lie on each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// The centers of the corner voxels, as `scipy.ndimage.zoom`.
    #[default]
    Corners,
}

/// What becomes of interpolated values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Integer {
    /// They lose what is behind the point.
    #[default]
    Truncate,
    /// They stay.
    Keep,
}

/// How labels go back to the image's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelInterpolation {
    /// Each voxel takes the label of the nearest one.
    #[default]
    Nearest,
}

/// A part of the image that another model finds first; only it is segmented.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoughCrop {
    /// Models that find it, by name: the first that is installed does.
    pub models: Vec<String>,
    /// The structures of that model around which the image is cut; empty for those that the user
    /// asked for, and no cut if all were.
    #[serde(default)]
    pub structures: Vec<String>,
    /// How far around them. Whole voxels within it, per axis.
    pub margin_mm: f64,
    /// Labels elsewhere than in and about these structures of that model are removed in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<KeepWithin>,
}

/// Where labels may be.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeepWithin {
    /// In these structures,
    pub structures: Vec<String>,
    /// and as far around them: steps between voxels that share a face, each as long as a voxel is
    /// on average.
    pub distance_mm: f64,
}

/// Another model that draws the border of the labels, on the image's own grid.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Refine {
    /// Its name.
    pub model: String,
    /// The structure of that model that labels are cut to,
    pub structure: String,
    /// after they have grown by this, into background only.
    pub grow_mm: f64,
}

/// Largest distance in a task: no voxel of a person is further away.
const MOST_MM: f64 = 1000.0;

impl TaskGrid {
    pub(super) fn check(&self) -> Result<(), Mismatch> {
        match self.spacing {
            Some(spacing) if !spacing.iter().all(|s| s.is_finite() && *s > 0.0) => {
                Err(Mismatch::new(
                    format!("spacing {spacing:?} of grid"),
                    "three finite positive numbers of millimetres, [z, y, x]",
                ))
            }
            _ => Ok(()),
        }
    }
}

impl RoughCrop {
    pub(super) fn check(&self) -> Result<(), Mismatch> {
        let within = self.keep_within.as_ref().map_or(0.0, |within| within.distance_mm);
        if self.models.is_empty() || self.models.iter().any(String::is_empty) {
            return Err(Mismatch::new("no model of rough_crop", "at least one by name"));
        }
        distance("margin_mm of rough_crop", self.margin_mm)?;
        distance("distance_mm of rough_crop", within)
    }
}

impl Refine {
    pub(super) fn check(&self) -> Result<(), Mismatch> {
        distance("grow_mm of refine", self.grow_mm)
    }
}

fn distance(field: &str, mm: f64) -> Result<(), Mismatch> {
    if (0.0..=MOST_MM).contains(&mm) {
        return Ok(());
    }
    Err(Mismatch::new(format!("{field} {mm}"), format!("0 to {MOST_MM}")))
}
