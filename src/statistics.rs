//! What a result measures: size, values of the image and place of each structure.
//!
//! A [`Segmentation`] and the image it was made of enter; a row per structure leaves, as JSON or as a
//! table. Fields have the names that `TotalSegmentator` gives them, in its units.

use crate::Result;
use crate::files::{self, Access, Existing, Target};
use crate::io::Scan;
use crate::segmenter::Segmentation;
use crate::volume::{LabelMap, Stored, with_stored};
use ndarray::{ArrayView2, ArrayView3, Axis, parallel::prelude::*};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A structure with a voxel so near to a face of the image is taken to be cut off by it.
const BORDER_VOXELS: usize = 3;

/// The statistics of one result.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// In the order of their labels.
    pub structures: Vec<Structure>,
    access: Access,
}

/// One structure of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    /// Its label.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Voxels that have it.
    pub voxels: u64,
    /// Their volume in cubic millimetres.
    pub volume_mm3: f64,
    /// What the image has there, and where that is; none for a structure that was not found.
    pub measured: Option<Measured>,
}

/// What an image has in one structure, in Hounsfield units for a CT, and where the structure is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Mean of the values.
    pub mean: f64,
    /// Their standard deviation, that of a population.
    pub std: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
    /// Mean of the voxels' indices, `[z, y, x]`.
    pub centroid: [f64; 3],
    /// First and last voxel along each axis, `[z, y, x]`.
    pub bounds: [[usize; 2]; 3],
    /// Whether a voxel lies within three of a face of the image, so that the structure may go on
    /// outside.
    pub touches_border: bool,
}

impl Segmentation {
    /// Measures each structure that can occur, found or not, in the image that the result was made
    /// of.
    ///
    /// # Panics
    ///
    /// If the image has another shape than the labels.
    #[must_use]
    pub fn statistics(&self, image: &Scan) -> Statistics {
        let ids: Vec<u16> = self.structures.iter().map(|label| label.id).collect();
        let sums = match &self.labels {
            LabelMap::U8(labels) => sums(labels.view(), &ids, image),
            LabelMap::U16(labels) => sums(labels.view(), &ids, image),
        };
        let voxel_mm3 = self.grid.spacing.iter().product::<f64>();
        let structure = |(label, sums): (&crate::model::Label, &Sums)| Structure {
            id: label.id,
            name: label.name.clone(),
            voxels: sums.count,
            volume_mm3: sums.count as f64 * voxel_mm3,
            measured: sums.measured(self.grid.shape),
        };
        let structures = self.structures.iter().zip(&sums).map(structure).collect();
        Statistics { structures, access: self.access() }
    }
}

/// The sums of one structure.
#[derive(Clone, Copy, Debug)]
struct Sums {
    count: u64,
    mean: f64,
    /// Sum of the squares of the distances from the mean.
    squares: f64,
    min: f64,
    max: f64,
    /// Sum of the indices, `[z, y, x]`.
    indices: [u64; 3],
    bounds: [[usize; 2]; 3],
}

impl Sums {
    const NONE: Self = Self {
        count: 0,
        mean: 0.0,
        squares: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        indices: [0; 3],
        bounds: [[usize::MAX, 0]; 3],
    };

    /// The sums of two disjoint sets (Chan and others 1979).
    fn and(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        Self {
            count: self.count + other.count,
            mean: self.mean + apart * (b / (a + b)),
            squares: self.squares + other.squares + apart * apart * (a * b / (a + b)),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            indices: std::array::from_fn(|k| self.indices[k] + other.indices[k]),
            bounds: std::array::from_fn(|k| {
                let ([first, last], [low, high]) = (self.bounds[k], other.bounds[k]);
                [first.min(low), last.max(high)]
            }),
        }
    }

    fn measured(&self, shape: [usize; 3]) -> Option<Measured> {
        let near = |(&[first, last], n): (&[usize; 2], usize)| {
            first < BORDER_VOXELS || last + BORDER_VOXELS >= n
        };
        (self.count > 0).then(|| Measured {
            mean: self.mean,
            std: (self.squares / self.count as f64).max(0.0).sqrt(),
            min: self.min,
            max: self.max,
            centroid: self.indices.map(|sum| sum as f64 / self.count as f64),
            bounds: self.bounds,
            touches_border: self.bounds.iter().zip(shape).any(near),
        })
    }
}

/// The sums of each label of `ids`. Slices are added in their order, so that the result is the same
/// at any thread count.
fn sums<T>(labels: ArrayView3<'_, T>, ids: &[u16], image: &Scan) -> Vec<Sums>
where
    T: Copy + Into<u16> + Sync + Send,
{
    let shape: [usize; 3] = labels.dim().into();
    assert_eq!(shape, image.voxels().shape(), "labels have the shape of their image");
    // Where a label's sums are; beyond the last for labels that nobody asks for.
    let mut places = vec![ids.len(); ids.iter().max().map_or(0, |id| usize::from(*id) + 1)];
    for (place, id) in ids.iter().enumerate() {
        places[usize::from(*id)] = place;
    }
    let by_slice: Vec<Vec<(usize, Sums)>> = with_stored!(image.voxels().view(), |values, scale| {
        let slices = labels.axis_iter(Axis(0)).into_par_iter().zip(values.axis_iter(Axis(0)));
        let one = |(z, (labels, values)): (usize, (ArrayView2<'_, T>, ArrayView2<'_, _>))| {
            of_slice(labels, values, z, &places, ids.len(), |value| Stored::exact(value, scale))
        };
        slices.enumerate().map(one).collect()
    });
    let mut all = vec![Sums::NONE; ids.len()];
    for (place, sums) in by_slice.into_iter().flatten() {
        all[place] = all[place].and(sums);
    }
    all
}

/// The sums of one slice, for labels that occur there. Of integers they are exact.
fn of_slice<T: Copy + Into<u16>, V: Copy>(
    labels: ArrayView2<'_, T>,
    values: ArrayView2<'_, V>,
    z: usize,
    places: &[usize],
    count: usize,
    exact: impl Fn(V) -> f64,
) -> Vec<(usize, Sums)> {
    // The mean holds the sum of the values and `squares` that of their squares until the end.
    let mut all = vec![Sums::NONE; count];
    for (y, (labels, values)) in labels.outer_iter().zip(values.outer_iter()).enumerate() {
        for (x, (&label, &value)) in labels.iter().zip(&values).enumerate() {
            let place = places.get(usize::from(label.into())).copied().unwrap_or(count);
            let Some(sums) = all.get_mut(place) else { continue };
            let value = exact(value);
            sums.count += 1;
            sums.mean += value;
            sums.squares += value * value;
            sums.min = sums.min.min(value);
            sums.max = sums.max.max(value);
            for (k, at) in [z, y, x].into_iter().enumerate() {
                sums.indices[k] += at as u64;
                let [first, last] = sums.bounds[k];
                sums.bounds[k] = [first.min(at), last.max(at)];
            }
        }
    }
    let found = all.into_iter().enumerate().filter(|(_, sums)| sums.count > 0);
    let finished = |sums: Sums| {
        let mean = sums.mean / sums.count as f64;
        Sums { mean, squares: (sums.squares - sums.mean * mean).max(0.0), ..sums }
    };
    found.map(|(place, sums)| (place, finished(sums))).collect()
}

impl Structure {
    /// The row as JSON, with the names of `TotalSegmentator` where it has one: `volume` in cubic
    /// millimetres, `intensity` the mean, `x, y, z` order, first and last voxel of the box.
    fn to_json(&self) -> Value {
        let measured = self.measured.as_ref();
        let value = |of: fn(&Measured) -> f64| measured.map_or(0.0, |m| rounded(of(m), 5));
        let [z, y, x] = [0, 1, 2];
        json!({
            "volume": self.volume_mm3,
            "intensity": value(|m| m.mean),
            "n_voxels": self.voxels,
            "intensity_std": value(|m| m.std),
            "intensity_min": value(|m| m.min),
            "intensity_max": value(|m| m.max),
            "centroid_vox": measured.map(|m| [x, y, z].map(|k: usize| rounded(m.centroid[k], 2))),
            "bbox_vox": measured.map(|m| [x, y, z].map(|k: usize| m.bounds[k])),
            "touches_border": measured.is_some_and(|m| m.touches_border),
        })
    }
}

/// Columns of the table. Those that JSON has lists for are one per number.
const COLUMNS: &str = "name,id,volume,intensity,n_voxels,intensity_std,intensity_min,intensity_max,\
    centroid_x,centroid_y,centroid_z,x_min,x_max,y_min,y_max,z_min,z_max,touches_border";

impl Statistics {
    /// An object with one entry per structure, by its name.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.structures.iter().map(|row| (row.name.clone(), row.to_json()));
        Value::Object(rows.collect::<Map<_, _>>())
    }

    /// A table with a line per structure, as RFC 4180 has it but for the ends of lines; what a
    /// structure that was not found lacks is empty.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let line = |row: &Structure| {
            let Structure { id, name, voxels, volume_mm3, measured } = row;
            let name = if name.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", name.replace('"', "\"\""))
            } else {
                name.clone()
            };
            let Some(m) = measured else {
                return format!("{name},{id},{volume_mm3},,{voxels},,,,,,,,,,,,,false\n");
            };
            let [mean, std, min, max] = [m.mean, m.std, m.min, m.max].map(|v| rounded(v, 5));
            let [cz, cy, cx] = m.centroid.map(|c| rounded(c, 2));
            let [[z0, z1], [y0, y1], [x0, x1]] = m.bounds;
            format!(
                "{name},{id},{volume_mm3},{mean},{voxels},{std},{min},{max},{cx},{cy},{cz},\
                 {x0},{x1},{y0},{y1},{z0},{z1},{}\n",
                m.touches_border
            )
        };
        let lines = self.structures.iter().map(line);
        std::iter::once(format!("{COLUMNS}\n")).chain(lines).collect()
    }

    /// Writes them, as a table if the name ends in `.csv` and as JSON if in `.json`: complete or
    /// not at all, for at most those who may read the image.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`](crate::Error::Usage) if the name ends in neither, and
    /// [`Error::Write`](crate::Error::Write) if there is a file that is to be kept or writing fails.
    pub fn save(&self, path: impl AsRef<Path>, existing: Existing) -> Result<()> {
        let path = path.as_ref();
        let text = if is_table(path)? { self.to_csv() } else { format!("{:#}\n", self.to_json()) };
        Target { path, existing, access: self.access }.write_bytes(text.as_bytes())
    }
}

/// Checks, before hours of work depend on it, that statistics could be written to `path`. Creates
/// nothing that stays.
///
/// # Errors
///
/// Those of [`Statistics::save`], as far as they can be foreseen.
pub fn check_writable(path: &Path, existing: Existing) -> Result<()> {
    is_table(path)?;
    Target::new(path, existing).check()
}

/// Whether the file's name asks for a table.
fn is_table(path: &Path) -> Result<bool> {
    files::known_ending("statistics", path, &[".json", ".csv"]).map(|ending| ending == ".csv")
}

fn rounded(value: f64, places: i32) -> f64 {
    let factor = 10_f64.powi(places);
    let rounded = (value * factor).round() / factor;
    // No negative zero.
    if rounded == 0.0 { 0.0 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};
    use ndarray::Array3;

    fn scan(values: Array3<f32>) -> Scan {
        let shape: [usize; 3] = values.dim().into();
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        Scan::new(values, Grid { shape, spacing: [2.0, 1.0, 1.0], affine }).expect("an image")
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        let shape = (9, 10, 11);
        let values =
            Array3::from_shape_fn(shape, |(z, y, x)| ((z * 37 + y * 11 + x * 5) % 83) as f32);
        let labels = Array3::from_shape_fn(shape, |(z, y, x)| {
            if (3..6).contains(&z) && (3..6).contains(&y) && (4..8).contains(&x) {
                7_u16
            } else {
                300
            }
        });
        let image = scan(values.clone());
        let all = sums(labels.view(), &[7, 5, 300], &image);
        for (k, id) in [7, 300].into_iter().zip([0, 2]).map(|(id, k)| (k, id)) {
            let there: Vec<f64> = labels
                .iter()
                .zip(&values)
                .filter(|(label, _)| **label == id)
                .map(|(_, value)| f64::from(*value))
                .collect();
            let mean = there.iter().sum::<f64>() / there.len() as f64;
            let squares = there.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            let found = all[k].measured(shape.into()).expect("found");
            assert_eq!(all[k].count, there.len() as u64);
            // Some thousand additions of numbers below 10^4.
            assert!((found.mean - mean).abs() < 1e-10, "{id}");
            assert!((found.std - (squares / there.len() as f64).sqrt()).abs() < 1e-9, "{id}");
            assert_eq!(found.min, there.iter().copied().fold(f64::INFINITY, f64::min));
            assert_eq!(found.max, there.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert_eq!(found.touches_border, id == 300);
        }
        let seven = all[0].measured(shape.into()).expect("found");
        assert_eq!(seven.centroid, [4.0, 4.0, 5.5]);
        assert_eq!(seven.bounds, [[3, 5], [3, 5], [4, 7]]);
        assert_eq!(all[1].measured(shape.into()), None);
    }

    #[test]
    fn a_voxel_third_from_a_face_touches_it() {
        for (first, last, expected) in [(2, 5, true), (3, 6, false), (3, 7, true)] {
            let sums = Sums { count: 1, bounds: [[4, 5], [first, last], [4, 5]], ..Sums::NONE };
            let measured = sums.measured([10; 3]).expect("found");
            assert_eq!(measured.touches_border, expected, "{first} to {last} of 10");
        }
    }

    #[test]
    fn rows_have_the_names_of_the_reference() {
        let found = Measured {
            mean: 41.234_567_8,
            std: 1.5,
            min: -3.0,
            max: 99.0,
            centroid: [1.0, 2.256, 3.0],
            bounds: [[1, 2], [3, 4], [5, 6]],
            touches_border: true,
        };
        let row = |id, name: &str, voxels, measured| Structure {
            id,
            name: name.to_owned(),
            voxels,
            volume_mm3: voxels as f64 * 2.0,
            measured,
        };
        let structures = vec![row(1, "a \"b\", c", 8, Some(found)), row(2, "none", 0, None)];
        let statistics = Statistics { structures, access: Access::ANYONE };
        assert_eq!(
            statistics.to_json().to_string(),
            concat!(
                r#"{"a \"b\", c":{"volume":16.0,"intensity":41.23457,"n_voxels":8,"#,
                r#""intensity_std":1.5,"intensity_min":-3.0,"intensity_max":99.0,"#,
                r#""centroid_vox":[3.0,2.26,1.0],"bbox_vox":[[5,6],[3,4],[1,2]],"#,
                r#""touches_border":true},"none":{"volume":0.0,"intensity":0.0,"n_voxels":0,"#,
                r#""intensity_std":0.0,"intensity_min":0.0,"intensity_max":0.0,"#,
                r#""centroid_vox":null,"bbox_vox":null,"touches_border":false}}"#,
            )
        );
        let csv = statistics.to_csv();
        let lines: Vec<&str> = csv.lines().collect();
        let expected = "\"a \"\"b\"\", c\",1,16,41.23457,8,1.5,-3,99,3,2.26,1,5,6,3,4,1,2,true";
        assert_eq!(lines[1], expected);
        assert_eq!(lines[2], "none,2,0,,0,,,,,,,,,,,,,false");
        let columns = COLUMNS.split(',').count();
        assert_eq!(lines[2].split(',').count(), columns);
        // Two of the first line's commas are in its name.
        assert_eq!(lines[1].split(',').count(), columns + 1);
    }
}
