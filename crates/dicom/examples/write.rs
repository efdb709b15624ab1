//! Writes objects about a series from a label map, for judges:
//! `write SERIES LABELS SEGMENTS.json FOLDER KIND...`
//!
//! LABELS are raw little-endian voxels on the series' volume, of one byte each or two (`.u16`).
//! KIND is `binary`, `labelmap`, and so on; the object is `FOLDER/KIND.dcm`. Prints what it wrote
//! and how long that took.
#![expect(clippy::print_stdout, reason = "a program")]

use fastnnunet_dicom::write::{
    About, Algorithm, Code, Label, Labeling, Model, ObjectOptions, Picture, SegEncoding,
    SegReference, Segment,
};
use fastnnunet_dicom::{LoadOptions, Loaded, ScanOptions, scan};
use ndarray::{Array3, ArrayView3};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [series, labels, segments, folder, kinds @ ..] = &arguments[..] else {
        return Err("usage: write SERIES LABELS SEGMENTS.json FOLDER KIND...".into());
    };
    let catalog = scan(Path::new(series), &ScanOptions::default())?;
    let loaded = catalog.pick(None)?.load(&LoadOptions::default())?;
    let bytes = std::fs::read(labels)?;
    let shape = loaded.grid.shape;
    let segments = read_segments(&std::fs::read_to_string(segments)?)?;
    let algorithm = Algorithm {
        name: "fastnnunet".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        task: "judged".into(),
        models: vec![Model {
            name: "judged".into(),
            sha256: loaded.sha256.clone(),
            ..Default::default()
        }],
    };
    let options = ObjectOptions::default();
    let about = About { source: &loaded.source, algorithm: &algorithm, options: &options };
    let folder = Path::new(folder);
    if Path::new(labels).extension().is_some_and(|ending| ending == "u16") {
        let words = bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let words = Array3::from_shape_vec(shape, words)?;
        write(&Labeling::new(about, words.view(), &segments)?, about, &loaded, folder, kinds)
    } else {
        let map = ArrayView3::from_shape(shape, &bytes)?;
        write(&Labeling::new(about, map, &segments)?, about, &loaded, folder, kinds)
    }
}

fn write<T: Label>(
    labeling: &Labeling<'_, T>,
    about: About<'_>,
    loaded: &Loaded,
    folder: &Path,
    kinds: &[String],
) -> Result<(), Failure> {
    // A report refers to the segmentation written before it, if there is one.
    let mut reference = None;
    for kind in kinds {
        let path = folder.join(format!("{kind}.dcm"));
        let begun = Instant::now();
        let file = File::create(&path)?;
        let written = match kind.as_str() {
            "binary" | "labelmap" => {
                let encoding =
                    if kind == "binary" { SegEncoding::Binary } else { SegEncoding::Labelmap };
                let written = labeling.write_seg(encoding, file)?;
                reference = Some(SegReference { written: written.clone(), encoding });
                written
            }
            "rtstruct" => labeling.write_rtstruct(file)?,
            "sr" => labeling.write_sr(|k| loaded.voxels.slice(k), reference.as_ref(), file)?,
            "sc" => {
                let rgb: Vec<u8> = (0..48 * 32 * 3).map(|k| (k * 7 % 251) as u8).collect();
                about.write_sc(Picture { width: 48, height: 32, rgb: &rgb }, file)?
            }
            _ => return Err(format!("no kind {kind}").into()),
        };
        let bytes = std::fs::metadata(&path)?.len();
        let seconds = begun.elapsed().as_secs_f64();
        println!("{kind} {seconds:.3} s {bytes} bytes {}", written.instance_uid);
    }
    Ok(())
}

fn read_segments(json: &str) -> Result<Vec<Segment>, Failure> {
    let list: Vec<Value> = serde_json::from_str(json)?;
    let code = |value: &Value| {
        let part = |k: usize| value[k].as_str();
        Some(Code::new(part(0)?, part(1)?, part(2)?))
    };
    list.iter()
        .map(|entry| {
            let id = entry["id"].as_u64().and_then(|id| u16::try_from(id).ok()).ok_or("no id")?;
            let name = entry["name"].as_str().ok_or("no name")?;
            let mut segment = Segment::named(id, name);
            if let Some(kind) = code(&entry["kind"]) {
                (segment.kind, segment.category) = (kind, Code::anatomical_structure());
            }
            let side = match entry["side"].as_str() {
                Some("left") => Some(Code::left()),
                Some("right") => Some(Code::right()),
                _ => None,
            };
            segment.region = code(&entry["region"]);
            // It is that of the region, where there is one.
            let of_region = segment.region.is_some();
            *if of_region { &mut segment.region_modifier } else { &mut segment.modifier } = side;
            let rgb = |k: usize| entry["color"][k].as_u64().map(|c| c as u8);
            segment.color = rgb(0).zip(rgb(1)).zip(rgb(2)).map(|((r, g), b)| [r, g, b]);
            Ok(segment)
        })
        .collect()
}
