//! One picture of a result: what people look at first.
//!
//! Projections of the brightest values from the front and from the patient's left with the
//! structures as translucent surfaces, axial slices with outlines, and a legend with volumes.
//! The patient is upright; as radiologists look, the patient's right is on the left.

mod canvas;
mod project;

pub use canvas::Picture;

use crate::Result;
use crate::files::{self, Access, Existing, Target};
use crate::io::{LabelArray, Scan};
use crate::model::{Label, color};
use crate::segmenter::Segmentation;
use crate::volume::{AxisMap, Grid, Orientation, VoxelView};
use canvas::{Rgb, text_width};
use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::ascii::{FONT_7X13, FONT_8X13_BOLD, FONT_10X20};
use ndarray::{ArrayView2, ArrayView3, Axis};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

const BACKGROUND: Rgb = [16, 18, 22];
const BRIGHT: Rgb = [235, 238, 242];
const DIM: Rgb = [150, 156, 166];

/// Columns of everything but the legend.
const IMAGES_WIDTH: usize = 1000;
/// Most rows of the projections.
const PROJECTION_HEIGHT: usize = 620;
/// Most rows of a slice.
const SLICE_HEIGHT: usize = 330;
const SLICES_PER_ROW: usize = 3;
const SLICE_ROWS: usize = 2;
const GAP: usize = 12;
/// Columns of a slice.
const CELL: usize = (IMAGES_WIDTH - (SLICES_PER_ROW - 1) * GAP) / SLICES_PER_ROW;
/// Rows of the text below a slice.
const CAPTION: usize = 18;
/// First row below the heading.
const TOP: usize = GAP + 28;
const LEGEND_ROW: usize = 18;
const LEGEND_WIDTH: usize = 330;
const LEGEND_COLUMNS: usize = 3;

/// Values shown as black and as white, in Hounsfield units.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    name: &'static str,
    black: f32,
    white: f32,
}

impl Window {
    const BONE: Self = Self { name: "bone window", black: -500.0, white: 1300.0 };
    const SOFT_TISSUE: Self = Self { name: "soft tissue window", black: -160.0, white: 240.0 };
    const PROJECTION: Self = Self { name: "", black: -100.0, white: 1100.0 };

    /// Brightness from 0 to 255; what is not a number is black.
    fn gray(self, value: f32) -> f32 {
        255.0 * ((value - self.black) / (self.white - self.black)).clamp(0.0, 1.0).max(0.0)
    }
}

/// Rounds a color.
fn blend(color: [f32; 3]) -> Rgb {
    color.map(|part| part.round().clamp(0.0, 255.0) as u8)
}

impl Segmentation {
    /// Draws the result on the CT it was made from.
    ///
    /// # Panics
    ///
    /// If `ct` has another shape.
    #[must_use]
    pub fn preview(&self, ct: &Scan, title: &str) -> Picture {
        let labels = (&self.labels).into();
        draw(ct.voxels().view(), labels, &self.grid, &self.structures, title)
    }
}

/// Draws a case and its labels.
///
/// `ct` and `labels` are `[z, y, x]` as stored, on `grid`; `ct` is in Hounsfield units.
/// `names` gives names and colors; labels it does not list are called by their number.
/// Besides the picture it takes memory for two projections and one slice.
///
/// # Panics
///
/// If `ct`, `labels` and `grid` differ in shape or are empty.
#[must_use]
pub fn draw<'a>(
    ct: impl Into<VoxelView<'a>>,
    labels: LabelArray<'_>,
    grid: &Grid,
    names: &[Label],
    title: &str,
) -> Picture {
    let ct = ct.into();
    match labels {
        LabelArray::U8(labels) => draw_labels(ct, labels, grid, names, title),
        LabelArray::U16(labels) => draw_labels(ct, labels, grid, names, title),
    }
}

fn draw_labels<T: Copy + Into<u16> + Sync>(
    ct: VoxelView<'_>,
    labels: ArrayView3<'_, T>,
    grid: &Grid,
    names: &[Label],
    title: &str,
) -> Picture {
    assert!(ct.shape() == grid.shape && labels.dim() == grid.shape.into() && !labels.is_empty());
    let axes = AxisMap::to(Orientation::Lps, &grid.affine);
    let (ct, labels, spacing) = (axes.voxels(ct), axes.view(labels), axes.permute(grid.spacing));
    let survey = Survey::new(ct, labels);
    let colors = colors(names, survey.counts.len());
    let [nz, ny, nx] = ct.shape();
    let [depth, height, width] =
        [nz as f64 * spacing[0], ny as f64 * spacing[1], nx as f64 * spacing[2]];

    // One scale for both views, so that structures stand at the same height in both.
    let scale =
        ((IMAGES_WIDTH - GAP) as f64 / (width + height)).min(PROJECTION_HEIGHT as f64 / depth);
    let rays = project::project(ct, labels, spacing, &colors);
    let views = [
        (rays.coronal(pixels(width, scale), pixels(depth, scale), Window::PROJECTION), ["R", "L"]),
        (
            rays.sagittal(pixels(height, scale), pixels(depth, scale), Window::PROJECTION),
            ["A", "P"],
        ),
    ];
    drop(rays);

    let scale = (CELL as f64 / width).min(SLICE_HEIGHT as f64 / height);
    let size = [pixels(width, scale), pixels(height, scale)];
    let shown = survey.slices(SLICES_PER_ROW * SLICE_ROWS);
    let legend = legend(&survey.counts, names, &colors, grid.voxel_ml());

    let below = TOP + views[0].0.height() + GAP;
    let end = below + shown.len().div_ceil(SLICES_PER_ROW) * (size[1] + CAPTION + GAP);
    let legend_rows = (end.max(TOP + 600) - TOP) / LEGEND_ROW;
    let legend_columns = legend.len().div_ceil(legend_rows).clamp(1, LEGEND_COLUMNS);
    let legend_rows = legend_rows.min(legend.len().div_ceil(legend_columns).max(1));
    let mut picture = Picture::new(
        IMAGES_WIDTH + 3 * GAP + legend_columns * LEGEND_WIDTH,
        end.max(TOP + legend_rows * LEGEND_ROW + GAP),
        BACKGROUND,
    );
    write_heading(&mut picture, title, grid);

    let mut x =
        GAP + IMAGES_WIDTH.saturating_sub(views[0].0.width() + GAP + views[1].0.width()) / 2;
    for (view, side_names) in &views {
        picture.paste(x, TOP, view);
        write_sides(&mut picture, (x, TOP), (view.width(), view.height()), *side_names);
        // A tick at both edges says where each slice is.
        let tick = 6.min(view.width());
        for &z in &shown {
            let row = (2 * (nz - 1 - z) + 1) * view.height() / (2 * nz);
            picture.fill(x, TOP + row, tick, 1, BRIGHT);
            picture.fill(x + view.width() - tick, TOP + row, tick, 1, BRIGHT);
        }
        x += view.width() + GAP;
    }
    for (k, &z) in shown.iter().enumerate() {
        let (column, row) = (k % SLICES_PER_ROW, k / SLICES_PER_ROW);
        let x = GAP + column * (CELL + GAP) + (CELL - size[0]) / 2;
        let y = below + row * (size[1] + CAPTION + GAP);
        let (ct, labels) = (ct.slice(z), labels.index_axis(Axis(0), z));
        picture.paste(x, y, &slice(ct.view(), labels, size, survey.window(), &colors));
        write_sides(&mut picture, (x, y), (size[0], size[1]), ["R", "L"]);
        let mm = (nz - 1 - z) as f64 * spacing[0];
        let caption = format!("{mm:.0} mm from the top, {}", survey.window().name);
        picture.text(x, y + size[1] + 3, &caption, &FONT_7X13, DIM);
    }
    write_legend(&mut picture, &legend, legend_rows, legend_columns);
    picture
}

/// Pixels of an extent in millimetres, at least one.
fn pixels(mm: f64, scale: f64) -> usize {
    ((mm * scale).round() as usize).max(1)
}

/// What has to be known before drawing.
struct Survey {
    /// Voxels of each label.
    counts: Vec<u64>,
    /// First and last slice with a label.
    labeled: Option<(usize, usize)>,
    /// Part of the labeled voxels that is as dense as bone.
    dense: f64,
    slices: usize,
}

impl Survey {
    fn new<T: Copy + Into<u16>>(ct: VoxelView<'_>, labels: ArrayView3<'_, T>) -> Self {
        let mut counts: Vec<u64> = vec![0; 256];
        let (mut labeled, mut dense) = (None, 0_u64);
        for (z, labels) in labels.outer_iter().enumerate() {
            let before = counts[0];
            for (&value, &label) in ct.slice(z).iter().zip(labels) {
                let label = usize::from(label.into());
                if label >= counts.len() {
                    counts.resize(label + 1, 0);
                }
                counts[label] += 1;
                dense += u64::from(label > 0 && value > 150.0);
            }
            if counts[0] - before < labels.len() as u64 {
                labeled = Some((labeled.map_or(z, |(first, _)| first), z));
            }
        }
        let all: u64 = counts[1..].iter().sum();
        let dense = if all > 0 { dense as f64 / all as f64 } else { 0.0 };
        Self { counts, labeled, dense, slices: labels.len_of(Axis(0)) }
    }

    /// Up to `count` slices, evenly from superior to inferior through what is labeled.
    fn slices(&self, count: usize) -> Vec<usize> {
        let (first, last) = self.labeled.unwrap_or((0, self.slices - 1));
        let extent = last + 1 - first;
        let count = count.min(extent);
        (0..count).rev().map(|k| first + (2 * k + 1) * extent / (2 * count)).collect()
    }

    /// The window in which what is labeled shows best.
    fn window(&self) -> Window {
        if self.dense > 0.3 { Window::BONE } else { Window::SOFT_TISSUE }
    }
}

/// An axial slice, `[y, x]` with posterior down and the patient's left to the right.
fn slice<T: Copy + Into<u16>>(
    ct: ArrayView2<'_, f32>,
    labels: ArrayView2<'_, T>,
    [width, height]: [usize; 2],
    window: Window,
    colors: &[Rgb],
) -> Picture {
    let (ny, nx) = ct.dim();
    let gray = canvas::Raster { width: nx, values: ct.iter().map(|&v| [window.gray(v)]).collect() }
        .resized(width, height);
    let nearest = |k: usize, pixels: usize, voxels: usize| (2 * k + 1) * voxels / (2 * pixels);
    let label = |x: usize, y: usize| -> u16 {
        labels[[nearest(y, height, ny), nearest(x, width, nx)]].into()
    };
    let mut picture = Picture::new(width, height, [0; 3]);
    for y in 0..height {
        for x in 0..width {
            let [gray] = gray.values[y * width + x];
            let here = label(x, y);
            let mut color = [gray; 3];
            if here > 0 {
                let edge = (x > 0 && label(x - 1, y) != here)
                    || (y > 0 && label(x, y - 1) != here)
                    || (x + 1 < width && label(x + 1, y) != here)
                    || (y + 1 < height && label(x, y + 1) != here);
                let share = if edge { 0.95 } else { 0.38 };
                let paint = colors.get(usize::from(here)).copied().unwrap_or([255; 3]);
                for (color, paint) in color.iter_mut().zip(paint) {
                    *color += share * (f32::from(paint) - *color);
                }
            }
            picture.set(x, y, blend(color));
        }
    }
    picture
}

/// Writes which side of the patient is left and right in an image.
fn write_sides(picture: &mut Picture, at: (usize, usize), size: (usize, usize), names: [&str; 2]) {
    let font: &MonoFont<'_> = &FONT_8X13_BOLD;
    if size.0 < 40 || size.1 < 20 {
        return;
    }
    let y = at.1 + 4;
    for (name, x) in names.into_iter().zip([at.0 + 5, at.0 + size.0 - 13]) {
        picture.text(x + 1, y + 1, name, font, [0; 3]);
        picture.text(x, y, name, font, BRIGHT);
    }
}

/// Color of each label; those without one get hues far from their neighbors'.
fn colors(names: &[Label], labels: usize) -> Vec<Rgb> {
    let mut colors: Vec<Rgb> = (0..labels).map(color::spread).collect();
    for label in names {
        if let Some(slot) = colors.get_mut(usize::from(label.id)) {
            *slot = label.rgb();
        }
    }
    colors
}

/// A line of the legend.
struct Line {
    color: Rgb,
    name: String,
    volume: String,
}

fn legend(counts: &[u64], names: &[Label], colors: &[Rgb], voxel_ml: f64) -> Vec<Line> {
    let by_id: HashMap<usize, &Label> = names.iter().map(|l| (usize::from(l.id), l)).collect();
    let found = counts.iter().enumerate().skip(1).filter(|(_, voxels)| **voxels > 0);
    found
        .map(|(id, &voxels)| Line {
            color: colors[id],
            name: by_id.get(&id).map_or_else(|| format!("label_{id}"), |label| label.name.clone()),
            volume: format!("{:.1} ml", voxels as f64 * voxel_ml),
        })
        .collect()
}

fn write_legend(picture: &mut Picture, legend: &[Line], rows: usize, columns: usize) {
    let left = IMAGES_WIDTH + 2 * GAP;
    if legend.is_empty() {
        picture.text(left, TOP, "no structure found", &FONT_7X13, DIM);
    }
    let space = rows * columns;
    // The last place says how many had none.
    let shown = if legend.len() > space { space - 1 } else { legend.len() };
    let place = |k: usize| (left + k / rows * LEGEND_WIDTH, TOP + k % rows * LEGEND_ROW);
    for (k, line) in legend[..shown].iter().enumerate() {
        let (x, y) = place(k);
        picture.fill(x, y, 13, 13, line.color);
        let volume_x = x + LEGEND_WIDTH - 2 * GAP - text_width(&line.volume, &FONT_7X13);
        let most = volume_x.saturating_sub(x + 22) / 7;
        let name: String = line.name.chars().take(most).collect();
        picture.text(x + 20, y, &name, &FONT_7X13, BRIGHT);
        picture.text(volume_x, y, &line.volume, &FONT_7X13, DIM);
    }
    if shown < legend.len() {
        let (x, y) = place(shown);
        let rest = format!("and {} more", legend.len() - shown);
        picture.text(x + 20, y, &rest, &FONT_7X13, DIM);
    }
}

/// Writes the title and, where there is room, the size of the scan.
fn write_heading(picture: &mut Picture, title: &str, grid: &Grid) {
    picture.text(GAP, GAP, title, &FONT_10X20, BRIGHT);
    let [z, y, x] = grid.shape;
    let [dz, dy, dx] = grid.spacing;
    let facts = format!("{x}x{y}x{z} voxels, {dx:.2}x{dy:.2}x{dz:.2} mm");
    let left = picture.width().saturating_sub(GAP + text_width(&facts, &FONT_7X13));
    if left > 2 * GAP + text_width(title, &FONT_10X20) {
        picture.text(left, GAP + 4, &facts, &FONT_7X13, DIM);
    }
}

impl Picture {
    /// Writes the picture as PNG, for at most those whom `access` allows. The file appears complete
    /// or not at all; missing folders are created.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::Error::Usage) if the name does not end in `.png`, and
    /// [`Error::Write`](crate::Error::Write) if a file exists that is to be kept or if writing fails.
    pub fn save(&self, path: impl AsRef<Path>, existing: Existing, access: Access) -> Result<()> {
        let path = path.as_ref();
        check_name(path)?;
        Target { path, existing, access }.write(|file| {
            let mut out = io::BufWriter::new(file);
            let (width, height) = (self.width() as u32, self.height() as u32);
            let mut encoder = png::Encoder::new(&mut out, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(self.as_bytes())?;
            writer.finish()?;
            out.flush()
        })
    }
}

/// Checks that [`Picture::save`] could write to `path`; creates nothing that stays.
///
/// # Errors
///
/// Those of [`Picture::save`], as far as they can be foreseen.
pub fn check_writable(path: &Path, existing: Existing) -> Result<()> {
    check_name(path)?;
    Target::new(path, existing).check()
}

fn check_name(path: &Path) -> Result<()> {
    files::known_ending("preview", path, &[".png"]).map(drop)
}
