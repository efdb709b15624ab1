//! Names and colors of structures in a NIfTI: the XML table of labels that `TotalSegmentator` writes,
//! and its reader, viewers of the Connectome Workbench and 3D Slicer look for.

use crate::model::Label;
use std::fmt::Write;

/// The table's code among extensions: none that is registered, as `TotalSegmentator` has it.
const CODE: i32 = 0;

/// The extension of a header, or nothing without structures.
pub(super) fn extension(structures: &[Label]) -> Vec<u8> {
    if structures.is_empty() {
        return Vec::new();
    }
    let text = xml(structures);
    // Its own size, its code, and bytes up to a multiple of 16.
    let size = (8 + text.len()).next_multiple_of(16);
    // 65535 labels of the longest names are far below 2 GiB.
    let mut bytes = (size as i32).to_le_bytes().to_vec();
    bytes.extend(CODE.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(size, 0);
    bytes
}

fn xml(structures: &[Label]) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CaretExtension>\n\
         <VolumeInformation Index=\"0\">\n<LabelTable>\n",
    );
    for label in structures {
        let [r, g, b] = label.rgb().map(|part| f64::from(part) / 255.0);
        let _ = writeln!(
            text,
            "<Label Key=\"{}\" Red=\"{r:.6}\" Green=\"{g:.6}\" Blue=\"{b:.6}\" Alpha=\"1\">\
             <![CDATA[{}]]></Label>",
            label.id,
            plain(&label.name),
        );
    }
    text.push_str(
        "</LabelTable>\n<StudyMetaDataLinkSet></StudyMetaDataLinkSet>\n\
         <VolumeType><![CDATA[Label]]></VolumeType>\n</VolumeInformation>\n</CaretExtension>\n",
    );
    text
}

/// A name as XML can hold it.
fn plain(name: &str) -> String {
    let is_allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let name: String = name.chars().filter(is_allowed).collect();
    name.replace("]]>", "]]]]><![CDATA[>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Existing, Target};
    use crate::io::{Scan, SourceHeader, save_labels_to};
    use crate::volume::{Affine, Grid};
    use ndarray::Array3;

    fn label(id: u16, name: &str) -> Label {
        Label { id, name: name.to_owned(), color: Some("#ff0080".into()), ..Label::default() }
    }

    #[test]
    fn the_table_has_a_line_for_each_structure() {
        let text = xml(&[label(7, "spleen"), label(300, "a ]]> \u{1}b")]);
        let spleen = "<Label Key=\"7\" Red=\"1.000000\" Green=\"0.000000\" Blue=\"0.501961\" \
                      Alpha=\"1\"><![CDATA[spleen]]></Label>";
        assert!(text.lines().any(|line| line == spleen), "{text}");
        assert!(text.contains("<![CDATA[a ]]]]><![CDATA[> b]]></Label>"), "{text}");
        assert!(extension(&[]).is_empty());
    }

    #[test]
    fn voxels_follow_the_table_in_either_format() {
        let folder = tempfile::tempdir().expect("folder");
        let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        // What NIfTI-1 cannot count is NIfTI-2.
        for shape in [[2, 3, 4], [1, 1, 40_000]] {
            let header = SourceHeader::for_grid(&Grid { shape, spacing: [1.0; 3], affine });
            let labels = Array3::from_shape_fn(shape, |(z, y, x)| (z + y + x) as u8);
            let path = folder.path().join(format!("{}.nii", shape[2]));
            let target = Target::new(&path, Existing::Keep);
            let names = [label(1, "one"), label(2, "two")];
            save_labels_to(target, labels.view().into(), &header, &names).expect("writes");
            let scan = Scan::open(&path).expect("reads");
            assert_eq!(scan.voxels().to_f32(), labels.mapv(f32::from), "{shape:?}");
            let bytes = std::fs::read(&path).expect("written");
            let table = extension(&names);
            let start = bytes.len() - labels.len() - table.len();
            assert_eq!(&bytes[start - 4..start], &[1, 0, 0, 0]);
            assert_eq!(&bytes[start..start + table.len()], &table[..]);
        }
    }
}
