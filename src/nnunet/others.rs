//! Weights of other programs, known by the names of their files, so that what does not run here is
//! refused by its name.

use std::path::Path;

const V1: &str = "parts of a training of nnU-Net v1";
const LUNGMASK: &str = "weights of lungmask";
const MONAI: &str = "a bundle of MONAI";
const HUB: &str = "a model of Hugging Face's hub, as CT-FM is one";
const BARE: &str = "weights of PyTorch without nnU-Net's plans.json";

/// What a file's place holds in lowercase, and whose it is; what says more comes first.
const SIGNS: &[(&str, &str)] = &[
    ("/plans.pkl", V1),
    (".model.pkl", V1),
    ("/unet_r231", LUNGMASK),
    ("/unet_ltrclobes", LUNGMASK),
    ("/configs/metadata.json", MONAI),
    ("/configs/inference.json", MONAI),
    ("/model.safetensors", HUB),
];

/// What the name of a file ends in that says no more.
const ENDINGS: &[&str] = &[".pth", ".pt", ".ckpt", ".ts", ".safetensors", ".model"];

/// Most files looked at, and how many folders deep they lie.
const MAX_FILES: usize = 10_000;
const LEVELS: usize = 4;

/// Whose weights the files are, given by their places with `/` between folders; `None` if no name says.
pub(crate) fn of_files<'a>(files: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let places: Vec<String> = files.map(|file| format!("/{}", file.to_ascii_lowercase())).collect();
    let holds = |sign: &str| places.iter().any(|place| place.contains(sign));
    let known = SIGNS.iter().find(|(sign, _)| holds(sign)).map(|(_, family)| *family);
    let is_bare = || ENDINGS.iter().any(|end| places.iter().any(|place| place.ends_with(end)));
    known.or_else(|| is_bare().then_some(BARE))
}

/// As [`of_files`], of a file or of what is in a folder.
pub(crate) fn of_path(path: &Path) -> Option<&'static str> {
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, "", LEVELS, &mut files);
    } else if path.is_file() {
        files.push(path.file_name()?.to_string_lossy().into_owned());
    }
    of_files(files.iter().map(String::as_str))
}

fn collect(folder: &Path, place: &str, levels: usize, files: &mut Vec<String>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if files.len() >= MAX_FILES {
            return;
        }
        let place = format!("{place}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && levels > 0 => {
                collect(&entry.path(), &format!("{place}/"), levels - 1, files);
            }
            Ok(kind) if kind.is_dir() => {}
            _ => files.push(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_known_by_their_files() {
        let cases: [(&[&str], Option<&str>); 10] = [
            (&["Task003/nnUNetTrainerV2__nnUNetPlansv2.1/plans.pkl", "x/fold_0/a.model"], Some(V1)),
            (&["fold_0/model_final_checkpoint.model.pkl"], Some(V1)),
            (&["plans.pkl"], Some(V1)),
            (&["unet_r231-d5d2fc3d.pth"], Some(LUNGMASK)),
            (&["weights/unet_LTRCLobes-3a07043d.pth"], Some(LUNGMASK)),
            (&["models/model.pt", "wholeBody/configs/metadata.json"], Some(MONAI)),
            (&["config.json", "model.safetensors"], Some(HUB)),
            (&["README.md", "best.ckpt"], Some(BARE)),
            (&["README.md", "ct.nii.gz", "model_plans.txt"], None),
            (&[], None),
        ];
        for (files, family) in cases {
            assert_eq!(of_files(files.iter().copied()), family, "{files:?}");
        }
    }

    #[test]
    fn folders_are_looked_through_as_deep_as_people_nest_them() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(of_path(folder.path()), None);
        let deep = folder.path().join("3d_fullres/Task003_Liver/nnUNetTrainerV2__nnUNetPlansv2.1");
        std::fs::create_dir_all(&deep).expect("folders");
        std::fs::write(deep.join("plans.pkl"), []).expect("a file");
        assert_eq!(of_path(folder.path()), Some(V1));
        assert_eq!(of_path(&deep.join("plans.pkl")), Some(V1));
        assert_eq!(of_path(&deep.join("missing")), None);
    }
}
