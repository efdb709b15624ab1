//! Surfaces as a folder: a binary STL for each structure that was found, and a list of them.

use super::smooth::twice_area;
use super::{Found, Mesh, length};
use crate::files::{Existing, Target};
use crate::io::{check_folder, structure_files};
use crate::model::Label;
use crate::segmenter::Segmentation;
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The list of what is in the folder: the last of its files to be written.
const INDEX: &str = "structures.json";

/// The list of a folder's surfaces. Where it is, the folder is complete.
pub(crate) fn index_of(folder: &Path) -> PathBuf {
    folder.join(INDEX)
}

/// The file of each structure.
pub(crate) fn stl_files(folder: &Path, structures: &[Label]) -> Vec<PathBuf> {
    structure_files(folder, structures, ".stl")
}

/// Writes the surface of each structure that was found to the folder that is the target, and the list
/// of them. What is there of a structure that was not found is removed, if it may be replaced.
pub(crate) fn save_stl(
    folder: Target<'_>,
    result: &Segmentation,
    found: &[Found<'_>],
) -> Result<()> {
    check_folder(folder.path)?;
    let structures = &result.structures;
    let files = stl_files(folder.path, structures);
    let index = index_of(folder.path);
    let at = |path| Target { path, ..folder };
    let all: Vec<Target<'_>> = files.iter().chain([&index]).map(|path| at(path)).collect();
    Target::check_all(&all)?;
    let affine = result.affine();
    let file_of = |label: &Label| {
        let place = structures.iter().position(|other| other.id == label.id);
        &files[place.expect("found are some of them")]
    };
    let one = |own: &Found<'_>| -> Result<Value> {
        let surface = own.mesh(&result.labels, &affine);
        let path = file_of(own.label);
        at(path).write(|file| write(file, &surface))?;
        Ok(row(own, &surface, path, result.grid.voxel_ml()))
    };
    let rows: Vec<Value> = found.par_iter().map(one).collect::<Result<_>>()?;
    if folder.existing == Existing::Replace {
        for label in structures.iter().filter(|label| found.iter().all(|f| f.label.id != label.id))
        {
            remove(file_of(label))?;
        }
    }
    let text = format!(
        "{:#}\n",
        json!({ "space": "left-posterior-superior", "unit": "mm", "structures": rows })
    );
    at(&index).write_bytes(text.as_bytes())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

/// What the list says of a surface; both volumes, so that whoever measures can see what smoothing did.
fn row(own: &Found<'_>, surface: &Mesh, path: &Path, voxel_ml: f64) -> Value {
    json!({
        "name": own.label.name,
        "id": own.label.id,
        "file": path.file_name().unwrap_or_default().to_string_lossy(),
        "color": own.label.rgb(),
        "triangles": surface.triangles.len(),
        "ml": surface.ml(),
        "voxels_ml": own.voxels as f64 * voxel_ml,
    })
}

/// Binary STL. Its 80 bytes say in which space the places are, as Slicer reads and writes it.
fn write(file: &mut impl Write, surface: &Mesh) -> io::Result<()> {
    let count = u32::try_from(surface.triangles.len())
        .map_err(|_| io::Error::other("more triangles than an STL file can count"))?;
    let mut header = [b' '; 80];
    let text = concat!("fastnnunet ", env!("CARGO_PKG_VERSION"), ". SPACE=LPS. UNIT=mm").as_bytes();
    header[..text.len()].copy_from_slice(text);
    let mut out = BufWriter::new(file);
    out.write_all(&header)?;
    out.write_all(&count.to_le_bytes())?;
    for triangle in &surface.triangles {
        let corners = triangle.map(|v| surface.vertices[v as usize]);
        let normal = twice_area(&surface.vertices, triangle);
        let length = length(normal);
        let unit = if length > 0.0 { normal.map(|v| (v / length) as f32) } else { [0.0; 3] };
        let mut record = [0; 50];
        for (bytes, value) in record.chunks_mut(4).zip(unit.iter().chain(corners.as_flattened())) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        out.write_all(&record)?;
    }
    out.flush()
}
