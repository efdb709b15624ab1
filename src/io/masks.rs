//! Stage 13, as a folder: one file per structure, 1 where it is and 0 elsewhere.

use super::gzip::{self, Deflated, PIECE_BYTES};
use super::header::SourceHeader;
use super::save::{LEVEL, encode};
use crate::files::Target;
use crate::model::{Label, Name};
use crate::volume::LabelMap;
use crate::{Error, Result};
use flate2::Compression;
use ndarray::Array3;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Ending of the file of a mask.
pub(crate) const MASK: &str = ".nii.gz";

/// NIfTI's code and bit count of bytes.
const BYTES: (i16, i16) = (2, 8);

/// Longest name of a file without its ending; a [`Name`] may be a little longer.
const LONGEST_STEM: usize = 90;

/// The file of each structure: its name and `ending`, in `folder`.
///
/// Names come from files of other people, so what could lead elsewhere or is no letter, digit or
/// `_-+.` becomes `_`. Of names that a file system would take for one, later ones get their id.
pub(crate) fn structure_files(folder: &Path, structures: &[Label], ending: &str) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let file = |label: &Label| {
        let kept = |c: char| if c.is_alphanumeric() || "_-+.".contains(c) { c } else { '_' };
        let mut stem: String = label.name.chars().map(kept).collect();
        while stem.len() > LONGEST_STEM {
            stem.pop();
        }
        if Name::new(stem.clone()).is_err() {
            stem.insert(0, '_');
        }
        if !taken.insert(stem.to_lowercase()) {
            stem = format!("{stem}_{}", label.id);
            taken.insert(stem.to_lowercase());
        }
        folder.join(stem + ending)
    };
    structures.iter().map(file).collect()
}

/// Fails if what should be a folder of files is a file.
pub(crate) fn check_folder(folder: &Path) -> Result<()> {
    if folder.is_file() {
        let found = format!("the file {}", folder.display());
        return Err(Error::usage("output", found, "a folder"));
    }
    Ok(())
}

/// Writes one file per structure, found or not, with the geometry of `header`, to the folder that is
/// the target. None is written if one is there that is to be kept; each is complete or not there.
///
/// # Panics
///
/// If the shape of `labels` is not the one in `header`.
pub(crate) fn save_masks(
    folder: Target<'_>,
    labels: &LabelMap,
    structures: &[Label],
    header: &SourceHeader,
) -> Result<()> {
    let (z, y, x) = labels.dim();
    assert_eq!(header.shape().ok(), Some([z, y, x]), "labels have the shape of their image");
    check_folder(folder.path)?;
    let files = structure_files(folder.path, structures, MASK);
    let targets: Vec<Target<'_>> = files.iter().map(|path| Target { path, ..folder }).collect();
    Target::check_all(&targets)?;
    let ids: Vec<u16> = structures.iter().map(|label| label.id).collect();
    match labels {
        LabelMap::U8(labels) => write_all(&in_order(labels), &ids, header, &targets),
        LabelMap::U16(labels) => write_all(&in_order(labels), &ids, header, &targets),
    }
}

/// The voxels as a file has them.
fn in_order<T: Copy>(labels: &Array3<T>) -> Cow<'_, [T]> {
    match labels.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(labels.iter().copied().collect()),
    }
}

fn write_all<T: Copy + Into<u16> + Sync>(
    labels: &[T],
    ids: &[u16],
    header: &SourceHeader,
    targets: &[Target<'_>],
) -> Result<()> {
    let pieces: Vec<&[T]> = labels.chunks(PIECE_BYTES).collect();
    let occurring: Vec<Vec<bool>> = pieces.par_iter().map(|piece| occurring(piece)).collect();
    let level = Compression::new(LEVEL);
    // Most pieces of most structures hold nothing; they are all deflated alike.
    let head = gzip::deflate(&encode(header, BYTES, &[]), level);
    let nothing = gzip::deflate(&vec![0; PIECE_BYTES], level);
    ids.par_iter().zip(targets).try_for_each(|(&id, target)| {
        target.write(|file| {
            let (head, nothing) = (known(&head)?, known(&nothing)?);
            let one = |(piece, occurring): (&&[T], &Vec<bool>)| {
                let is_there = occurring.get(usize::from(id)).copied().unwrap_or(false);
                if !is_there && piece.len() == PIECE_BYTES {
                    return Ok(None);
                }
                let mask: Vec<u8> = piece.iter().map(|&l| u8::from(l.into() == id)).collect();
                gzip::deflate(&mask, level).map(Some)
            };
            let own: Vec<Option<Deflated>> =
                pieces.par_iter().zip(&occurring).map(one).collect::<io::Result<_>>()?;
            let all = own.iter().map(|piece| piece.as_ref().unwrap_or(nothing));
            let mut out = io::BufWriter::new(file);
            gzip::join(&mut out, std::iter::once(head).chain(all))?;
            out.flush()
        })
    })
}

/// What deflating gave, for each of those who need it.
fn known(deflated: &io::Result<Deflated>) -> io::Result<&Deflated> {
    deflated.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

/// Which labels occur, up to the largest that does.
fn occurring<T: Copy + Into<u16>>(labels: &[T]) -> Vec<bool> {
    let mut there = Vec::new();
    for &label in labels {
        let label = usize::from(label.into());
        if there.len() <= label {
            there.resize(label + 1, false);
        }
        there[label] = true;
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Existing;
    use crate::io::{Scan, save_labels};
    use crate::volume::{Affine, Grid};

    fn structure(id: u16, name: &str) -> Label {
        Label { id, name: name.to_owned(), ..Label::default() }
    }

    #[test]
    fn names_of_structures_lead_nowhere_else() {
        let names =
            ["liver", "../up", "a/b", "", "Liver", ".hidden", "vertebra 1", "a_b", "con", "\u{e4}"];
        let structures: Vec<Label> =
            names.iter().zip(1..).map(|(name, id)| structure(id, name)).collect();
        let files = structure_files(Path::new("out"), &structures, MASK);
        let shown: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
        let expected = [
            "liver",
            "_.._up",
            "a_b",
            "_",
            "Liver_5",
            "_.hidden",
            "vertebra_1",
            "a_b_8",
            "_con",
            "\u{e4}",
        ];
        let expected = expected
            .map(|stem| Path::new("out").join(format!("{stem}.nii.gz")).display().to_string());
        assert_eq!(shown, expected);
        let long = structure_files(Path::new(""), &[structure(1, &"\u{e4}".repeat(300))], MASK);
        assert!(long[0].as_os_str().len() <= LONGEST_STEM + 7);
    }

    #[test]
    fn a_file_per_structure_is_what_saving_its_mask_gives() {
        let folder = tempfile::tempdir().expect("folder");
        // More than one piece, of which the last is short.
        let shape = [3, 1024, 500];
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        let header = SourceHeader::for_grid(&Grid { shape, spacing: [1.0; 3], affine });
        let mut wide = Array3::<u16>::zeros(shape);
        wide.slice_mut(ndarray::s![2, 1000.., ..]).fill(300);
        wide.slice_mut(ndarray::s![0, 5, 6..9]).fill(2);
        let structures = [structure(2, "two"), structure(3, "three"), structure(300, "many")];
        let labels = LabelMap::U16(wide.clone());
        let to = |path| Target::new(path, Existing::Keep);
        save_masks(to(folder.path()), &labels, &structures, &header).expect("writes");
        for label in &structures {
            let mask = wide.mapv(|l| u8::from(l == label.id));
            let alone = folder.path().join("alone.nii.gz");
            save_labels(&alone, mask.view().into(), &header, Existing::Replace).expect("writes");
            let ours = folder.path().join(format!("{}.nii.gz", label.name));
            let [ours, alone] = [ours, alone].map(|path| std::fs::read(path).expect("written"));
            assert!(ours == alone, "{}", label.name);
        }
        let many = Scan::open(folder.path().join("many.nii.gz")).expect("reads");
        assert_eq!(many.voxels().to_f32().sum(), 24.0 * 500.0);

        let again = save_masks(to(folder.path()), &labels, &structures, &header);
        assert!(matches!(again, Err(Error::Write { .. })), "what is there stays");
        let file = folder.path().join("two.nii.gz");
        let inside = save_masks(to(&file), &labels, &structures, &header);
        assert!(matches!(inside, Err(Error::Usage { .. })), "a file is no folder");
    }
}
