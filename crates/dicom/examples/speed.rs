//! How long reading and writing take: `speed load SERIES`, or `speed seg SERIES LABELS.u8 FOLDER`
//! with labels 1 to 117. Prints seconds, CPU seconds and peak memory; `judges/speed.py` sets them
//! beside those of other programs in one run.
#![expect(clippy::print_stdout, reason = "a program")]

use fastnnunet_dicom::write::{About, Algorithm, Labeling, ObjectOptions, SegEncoding, Segment};
use fastnnunet_dicom::{LoadOptions, ScanOptions, scan};
use ndarray::ArrayView3;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// Prints a name, seconds, CPU seconds, and peak memory in MB so far.
fn measured<T>(name: &str, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let result = run()?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{name} {seconds:.3} {cpu:.3} {:.0}", peak_mb());
    Ok(result)
}

/// User and system time of this process; Linux counts it in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |k: usize| fields.get(k).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(12) + ticks(13)) / 100.0
}

fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let kb = line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0);
    kb * 1.024 / 1000.0
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["load", series] => measured("load", || {
            let catalog = scan(Path::new(series), &ScanOptions::default())?;
            Ok(catalog.pick(None)?.load(&LoadOptions::default())?.voxels.shape())
        })
        .map(drop),
        ["seg", series, labels, folder] => segmentations(series, labels, Path::new(folder)),
        _ => Err("usage: speed load SERIES | speed seg SERIES LABELS.u8 FOLDER".into()),
    }
}

/// The peak before the first object is that of the label map and the source, without voxels.
fn segmentations(series: &str, labels: &str, folder: &Path) -> Result<(), Failure> {
    let catalog = scan(Path::new(series), &ScanOptions::default())?;
    let source = catalog.pick(None)?.source()?;
    let bytes = std::fs::read(labels)?;
    let map = ArrayView3::from_shape(source.grid.shape, &bytes)?;
    let segments: Vec<Segment> =
        (1..=117).map(|id| Segment::named(id, &format!("structure_{id}"))).collect();
    let algorithm = Algorithm {
        name: "speed".into(),
        version: "1".into(),
        task: String::new(),
        models: Vec::new(),
    };
    let options = ObjectOptions::default();
    let about = About { source: &source, algorithm: &algorithm, options: &options };
    println!("start 0 0 {:.0}", peak_mb());
    for (name, encoding) in [("labelmap", SegEncoding::Labelmap), ("binary", SegEncoding::Binary)] {
        let path = folder.join(format!("{name}.dcm"));
        measured(name, || {
            let labeling = Labeling::new(about, map, &segments)?;
            Ok(labeling.write_seg(encoding, File::create(&path)?)?)
        })?;
        println!("{name}_bytes {}", std::fs::metadata(path)?.len());
    }
    let path = folder.join("rtstruct.dcm");
    measured("rtstruct", || {
        let labeling = Labeling::new(about, map, &segments)?;
        Ok(labeling.write_rtstruct(File::create(&path)?)?)
    })?;
    Ok(())
}
