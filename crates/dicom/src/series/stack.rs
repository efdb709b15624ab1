//! Slices to a stack: their order, the grid they lie on, and what stands in the way of one.
//!
//! Slices are ordered by their position along the normal of their plane; their numbers and names
//! say nothing. A stack whose slices lie straight above each other at even distances is a grid as
//! it is. One that is tilted or uneven can be brought to such a grid, and results back from it. One
//! with slices missing cannot.

use crate::read::frame::Frame;
use crate::read::image::Image;
use crate::volume::{Affine, Grid};
use fastnnunet_model::Mismatch;
use std::sync::Arc;

/// A frame of an image.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) image: Arc<Image>,
    pub(crate) frame: usize,
}

impl Slice {
    pub(crate) fn of(&self) -> &Frame {
        &self.image.frames[self.frame]
    }
}

/// Slices in order, from the one furthest against the normal.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) slices: Vec<Slice>,
    /// Where the volume lies.
    pub(crate) grid: Grid,
    /// How slices come to the grid, where they are not its planes.
    pub(crate) regrid: Option<Regrid>,
}

/// Where each slice lies, seen from the grid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regrid {
    /// Planes from the grid's first one.
    pub(crate) depth: Vec<f64>,
    /// Pixels from the grid's first row and column to the slice's.
    pub(crate) offset: Vec<[f64; 2]>,
}

/// Slices closer than this are in one place.
pub(crate) const ONE_PLACE_MM: f64 = 0.005;
/// In-plane drift over a whole stack that still counts as straight, in pixels.
const STRAIGHT_PIXELS: f64 = 0.25;
/// Deviation of a slice from even distances that still counts as even: part of a distance, bounded
/// in millimetres. Positions are often written with one decimal.
const EVEN_PART: f64 = 0.1;
const EVEN_MM: [f64; 2] = [0.01, 0.06];
/// A distance this much longer than most needs slices as thick as it is.
const WIDE: f64 = 1.5;
/// Slices closer than this part of the usual distance belong to another stack.
const CLOSE: f64 = 0.25;

/// Direction in which columns, rows and slices are counted.
pub(crate) fn axes(frame: &Frame) -> [[f64; 3]; 3] {
    let [r, c] = frame.orientation;
    let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    [r, c, normal]
}

pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Distance along the normal of `frame`'s plane.
pub(crate) fn depth(frame: &Frame) -> f64 {
    dot(frame.position, axes(frame)[2])
}

/// Stacks slices of one size, pixel spacing and orientation, no two in one place. Adds to `notes`
/// what was corrected.
pub(crate) fn stack(
    mut slices: Vec<Slice>,
    allow_gaps: bool,
    notes: &mut Vec<String>,
) -> Result<Stack, Mismatch> {
    slices.sort_by(|a, b| depth(a.of()).total_cmp(&depth(b.of())));
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else {
        return Err(Mismatch::new("no slices", "at least 2"));
    };
    if slices.len() == 1 {
        return Err(Mismatch::new("1 slice", "at least 2"));
    }
    let (first, last) = (first.of().clone(), last.of().clone());
    let axes = axes(&first);
    let depths: Vec<f64> = slices.iter().map(|s| dot(s.of().position, axes[2])).collect();
    if depths.windows(2).any(|pair| pair[1] - pair[0] < ONE_PLACE_MM) {
        return Err(Mismatch::new(
            "two different images in one place",
            "one image at each position",
        ));
    }
    let drift = in_plane_drift(&slices, &depths, axes)?;
    let tilted = drift
        .iter()
        .zip([first.spacing[1], first.spacing[0]])
        .any(|(offsets, mm)| offsets.iter().any(|offset| offset.abs() > STRAIGHT_PIXELS * mm));
    let upright = axes[2].iter().any(|part| part.abs() > 1.0 - 1e-6);
    if !tilted && upright && slices[0].image.tilt_degrees > 0.5 {
        notes.push("a gantry tilt in the header that positions do not show".into());
    }
    let even = is_even(&depths);
    if !even {
        check_gaps(&slices, &depths, allow_gaps, notes)?;
    }
    let rows = slices[0].image.layout.rows;
    let columns = slices[0].image.layout.columns;
    if even && !tilted {
        let count = slices.len();
        let along = |axis: usize| (last.position[axis] - first.position[axis]) / (count - 1) as f64;
        let step = [along(0), along(1), along(2)];
        let grid = grid([count, rows, columns], &first, first.position, step);
        return Ok(Stack { slices, grid, regrid: None });
    }
    if tilted {
        let angle = tilt_degrees(&drift, &depths);
        notes.push(format!(
            "gantry tilt or shift of {angle:.1} degrees: resampled onto an upright grid"
        ));
    }
    if !even {
        notes.push("uneven distances between slices: resampled to even ones".into());
    }
    Ok(regridded(slices, &depths, drift, axes, even))
}

/// Offsets of each slice from the first along rows' and columns' directions, in millimetres.
fn in_plane_drift(
    slices: &[Slice],
    depths: &[f64],
    axes: [[f64; 3]; 3],
) -> Result<[Vec<f64>; 2], Mismatch> {
    let first = slices[0].of();
    let offsets = [0, 1].map(|axis| -> Vec<f64> {
        let start = dot(first.position, axes[axis]);
        slices.iter().map(|s| dot(s.of().position, axes[axis]) - start).collect()
    });
    // A tilt is a drift in proportion to depth; what deviates from that was moved.
    let span = depths[depths.len() - 1] - depths[0];
    for (offsets, mm) in offsets.iter().zip([first.spacing[1], first.spacing[0]]) {
        let slope = offsets[offsets.len() - 1] / span;
        let deviation = offsets
            .iter()
            .zip(depths)
            .map(|(offset, depth)| (offset - slope * (depth - depths[0])).abs())
            .fold(0.0, f64::max);
        if deviation > 0.5 * mm {
            return Err(Mismatch::new(
                format!("slices shifted against each other by {deviation:.1} mm"),
                "slices in a straight stack",
            ));
        }
    }
    Ok(offsets)
}

fn tilt_degrees(drift: &[Vec<f64>; 2], depths: &[f64]) -> f64 {
    let last = depths.len() - 1;
    let aside = drift[0][last].hypot(drift[1][last]);
    aside.atan2(depths[last] - depths[0]).to_degrees()
}

/// Whether slices lie at even distances, as far as their positions are written: measured from the line
/// that fits all of them, as the first or last may be rounded too.
fn is_even(depths: &[f64]) -> bool {
    let count = depths.len() as f64;
    let step = (depths[depths.len() - 1] - depths[0]) / (count - 1.0);
    let middle = (count - 1.0) / 2.0;
    let from_middle = depths.iter().enumerate().map(|(i, depth)| (i as f64 - middle) * depth);
    // The sum of the squares of numbers around 0.
    let slope = from_middle.sum::<f64>() / (count * (count * count - 1.0) / 12.0);
    let apart = depths.iter().enumerate().map(|(i, depth)| depth - i as f64 * slope);
    let (low, high) =
        apart.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    (high - low) / 2.0 <= (EVEN_PART * step).clamp(EVEN_MM[0], EVEN_MM[1])
}

/// Tells slices that are thicker in places from slices that are missing.
fn check_gaps(
    slices: &[Slice],
    depths: &[f64],
    allow_gaps: bool,
    notes: &mut Vec<String>,
) -> Result<(), Mismatch> {
    let steps: Vec<f64> = depths.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len().saturating_sub(1) / 2).copied()
    };
    let usual = median(steps.clone()).unwrap_or(1.0);
    let shortest = steps.iter().copied().fold(f64::INFINITY, f64::min);
    if shortest < CLOSE * usual {
        return Err(Mismatch::new(
            format!("two slices {shortest:.2} mm apart where most are {usual:.2} mm"),
            "slices at distances alike",
        ));
    }
    let thick = |i: usize| slices[i].of().thickness.unwrap_or(0.0);
    let narrow = steps.iter().enumerate().filter(|(_, step)| **step <= WIDE * usual);
    let usually_thick = median(narrow.map(|(i, _)| thick(i)).collect()).unwrap_or(0.0);
    let (mut missing, mut widest) = (0.0, 0.0_f64);
    for (i, &step) in steps.iter().enumerate() {
        if step <= WIDE * usual {
            continue;
        }
        let thickness = thick(i).max(thick(i + 1));
        if thickness * WIDE >= step && thickness > 1.2 * usually_thick {
            continue;
        }
        missing += ((step / usual).round() - 1.0).max(1.0);
        widest = widest.max(step);
    }
    if missing == 0.0 {
        return Ok(());
    }
    let slices = if missing > 1.0 { "slices" } else { "slice" };
    let what = format!(
        "{missing} {slices} missing (a gap of {widest:.2} mm where slices are {usual:.2} mm apart)"
    );
    if allow_gaps {
        notes.push(format!("{what}: filled by interpolation, as asked"));
        return Ok(());
    }
    Err(Mismatch::new(what, "slices without gaps"))
}

fn grid(shape: [usize; 3], frame: &Frame, origin: [f64; 3], step: [f64; 3]) -> Grid {
    let [row, column] = frame.orientation;
    let [between_rows, between_columns] = frame.spacing;
    let length = dot(step, step).sqrt();
    // DICOM's axes point left and posterior, NIfTI's right and anterior.
    let sign = [-1.0, -1.0, 1.0];
    let affine = std::array::from_fn(|i| {
        [
            sign[i] * row[i] * between_columns,
            sign[i] * column[i] * between_rows,
            sign[i] * step[i],
            sign[i] * origin[i],
        ]
    });
    Grid { shape, spacing: [length, between_rows, between_columns], affine: Affine(affine) }
}

/// The smallest upright grid that holds all slices.
fn regridded(
    slices: Vec<Slice>,
    depths: &[f64],
    drift: [Vec<f64>; 2],
    axes: [[f64; 3]; 3],
    even: bool,
) -> Stack {
    let first = slices[0].of().clone();
    let layout = &slices[0].image.layout;
    let (count, span) = (slices.len(), depths[depths.len() - 1] - depths[0]);
    // Steps as short as the shortest, within reason.
    let planes = if even {
        count
    } else {
        let steps = depths.windows(2).map(|pair| pair[1] - pair[0]);
        let shortest = steps.fold(f64::INFINITY, f64::min);
        ((span / shortest).round() as usize + 1).clamp(count, 4 * count)
    };
    let step = span / (planes - 1) as f64;
    let low = [0, 1].map(|axis| drift[axis].iter().copied().fold(f64::INFINITY, f64::min));
    let high = [0, 1].map(|axis| drift[axis].iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let pixel = [first.spacing[1], first.spacing[0]];
    let more = [0, 1].map(|axis| ((high[axis] - low[axis]) / pixel[axis] - 0.01).ceil() as usize);
    let shape = [planes, layout.rows + more[1], layout.columns + more[0]];
    let origin =
        std::array::from_fn(|i| first.position[i] + low[0] * axes[0][i] + low[1] * axes[1][i]);
    let regrid = Regrid {
        depth: if even {
            (0..count).map(|i| i as f64).collect()
        } else {
            depths.iter().map(|depth| (depth - depths[0]) / step).collect()
        },
        offset: (0..count)
            .map(|i| [1, 0].map(|axis: usize| (drift[axis][i] - low[axis]) / pixel[axis]))
            .collect(),
    };
    let grid = grid(shape, &first, origin, axes[2].map(|n| n * step));
    Stack { slices, grid, regrid: Some(regrid) }
}

#[cfg(test)]
mod tests {
    use super::is_even;

    #[test]
    fn positions_of_one_decimal_are_even_and_slices_moved_further_are_not() {
        for step in [0.625, 0.75, 1.25, 2.5, 0.8, 1.0 / 1.5] {
            for count in 2..400 {
                for start in [-100.0, -99.97, 12.345] {
                    let exact: Vec<f64> = (0..count).map(|i| start + f64::from(i) * step).collect();
                    assert!(is_even(&exact), "{count} slices {step} mm apart");
                    let mut rounded = exact.clone();
                    for depth in &mut rounded {
                        *depth = (*depth * 10.0).round() / 10.0;
                    }
                    assert!(is_even(&rounded), "{count} slices {step} mm apart from {start}");
                    for at in (1..exact.len().saturating_sub(1)).step_by(7) {
                        let mut moved = exact.clone();
                        moved[at] += 0.2;
                        assert!(!is_even(&moved), "slice {at} of {count}");
                    }
                }
            }
        }
    }
}
