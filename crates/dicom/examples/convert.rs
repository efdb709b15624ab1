//! Writes a series as NIfTI, for judges: `convert PATH OUTPUT.nii [--series UID] [--allow-gaps]`.
//! What was corrected goes to standard output.
#![expect(clippy::print_stdout, reason = "a program")]

use fastnnunet_dicom::{LoadOptions, Loaded, ScanOptions, scan};
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut places, mut series, mut options) = (Vec::new(), None, ScanOptions::default());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--series" => series = arguments.next(),
            "--allow-gaps" => options.allow_gaps = true,
            _ => places.push(argument),
        }
    }
    let [path, output] = &places[..] else { return Err("usage: convert PATH OUTPUT.nii".into()) };
    let catalog = scan(Path::new(path), &options)?;
    let loaded = catalog.pick(series.as_deref())?.load(&LoadOptions::default())?;
    for note in &loaded.notes {
        println!("{note}");
    }
    write_nifti(Path::new(output), &loaded)?;
    Ok(())
}

/// A NIfTI-2 file of 64-bit geometry, so that it can be compared to the last digit.
fn write_nifti(path: &Path, loaded: &Loaded) -> std::io::Result<()> {
    let [z, y, x] = loaded.grid.shape;
    let [sz, sy, sx] = loaded.grid.spacing;
    let mut head = vec![0_u8; 544];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &540_i32.to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &16_i16.to_le_bytes());
    put(14, &32_i16.to_le_bytes());
    for (i, n) in [3, x, y, z, 1, 1, 1, 1].iter().enumerate() {
        put(16 + 8 * i, &(*n as i64).to_le_bytes());
    }
    for (i, mm) in [1.0, sx, sy, sz].iter().enumerate() {
        put(104 + 8 * i, &mm.to_le_bytes());
    }
    put(168, &544_i64.to_le_bytes());
    put(176, &1_f64.to_le_bytes());
    put(348, &1_i32.to_le_bytes());
    for (i, value) in loaded.grid.affine.0.as_flattened().iter().enumerate() {
        put(400 + 8 * i, &value.to_le_bytes());
    }
    put(500, &2_i32.to_le_bytes());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    file.write_all(&head)?;
    for value in &loaded.voxels.to_f32() {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()
}
