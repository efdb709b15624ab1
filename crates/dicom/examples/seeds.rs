//! Seeds for fuzz targets, of the fixtures: `seeds TARGET FOLDER`.
//!
//! Of `dicom` the first file of each fixture; of `dicom_frame` that file's first frame, if it is
//! compressed, as the target takes it.

use fastnnunet_dicom::fuzzing;
use std::io::{Cursor, Read};
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, folder] = &arguments[..] else { return Err("usage: seeds TARGET FOLDER".into()) };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for group in ["regular", "odd"] {
        for entry in std::fs::read_dir(fixtures.join(group))? {
            let path = entry?.path();
            let file = first_file(&path)?;
            let seed = match target.as_str() {
                "dicom" => Some(file),
                "dicom_frame" => fuzzing::frame_of(&file),
                _ => return Err(format!("no target {target}").into()),
            };
            if let Some(seed) = seed {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                std::fs::write(Path::new(folder).join(format!("{group}_{name}")), seed)?;
            }
        }
    }
    Ok(())
}

/// The first file of a fixture: a zip, once more compressed.
fn first_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut zip = Vec::new();
    flate2::read::ZlibDecoder::new(std::fs::File::open(path)?).read_to_end(&mut zip)?;
    let mut file = Vec::new();
    zip::ZipArchive::new(Cursor::new(zip))?.by_index(0)?.read_to_end(&mut file)?;
    Ok(file)
}
