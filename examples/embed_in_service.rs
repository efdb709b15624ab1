//! A service that segments the scans it is given: models are opened once, cases come one by one.
//!
//! ```sh
//! cargo run --release --example embed_in_service -- bone OUT_FOLDER CT.nii.gz...
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use fastnnunet::{Error, ErrorKind, Existing, Options, Quality, Scan, Segmenter};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(mode), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed_in_service MODE OUT_FOLDER CT.nii.gz...".into());
    };
    // What a service would read from its settings.
    let options = Options::default().quality(Quality::Low).memory_limit_bytes(2 << 30);
    let mut service = Segmenter::open_with(mode, options)?;
    println!("{}", service.about().choice);
    for case in arguments.map(PathBuf::from) {
        match segment(&mut service, &case, Path::new(&out)) {
            Ok(()) => {}
            // The next case may be a better one; a full disk will not be.
            Err(error) if error.kind() == ErrorKind::Output => return Err(error.into()),
            Err(error) => eprintln!("{}: {error}", case.display()),
        }
    }
    Ok(())
}

fn segment(service: &mut Segmenter, case: &Path, out: &Path) -> Result<(), Error> {
    let scan = Scan::open_with(case, &service.read_options())?;
    let result = service.segment(&scan)?;
    for structure in result.found() {
        println!("{}: {} {:.1} ml", case.display(), structure.name, structure.ml);
    }
    let name = case.file_name().unwrap_or_default();
    result.save_as(out.join(name), Existing::Replace)
}
