//! Results of patients are no more readable than what they were made of.

use super::{program, scan};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn results_are_no_more_readable_than_the_image_or_than_those_they_replace() {
    // (image, label map that is there, what the results may be at most)
    for (image, old, most) in [
        (0o600, None, 0o600),
        (0o640, None, 0o640),
        (0o644, Some(0o600), 0o600),
        (0o600, Some(0o644), 0o600),
        (0o644, None, 0o644),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::copy(scan(), at("ct.nii.gz")).expect("copies");
        set(&at("ct.nii.gz"), image);
        let results = ["labels.nii.gz", "labels.npz", "labels.png"];
        for name in results.iter().filter(|_| old.is_some()) {
            fs::write(at(name), "old").expect("writes");
            set(&at(name), old.unwrap_or_default());
        }
        program()
            .args(["--model", "selftest", "--overwrite", "--save-probabilities", "-i"])
            .arg(at("ct.nii.gz"))
            .arg("-o")
            .arg(at("labels.nii.gz"))
            .arg("--preview")
            .arg(at("labels.png"))
            .assert()
            .success();
        for name in results {
            let found = mode(&at(name));
            assert_eq!(found & !most, 0, "{name} of {image:o} over {old:?}: {found:o}");
            assert_eq!(found & 0o600, 0o600, "{name}: the owner reads and writes it");
        }
    }
}
