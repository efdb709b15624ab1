//! Preview pictures: where things are drawn, and how files are written.

use fastnnunet::model::Label;
use fastnnunet::preview::{self, Picture};
use fastnnunet::volume::{Affine, Grid};
use fastnnunet::{Access, Existing};
use ndarray::{Array3, s};

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

fn names() -> Vec<Label> {
    let label = |id, name: &str, color: &str| Label {
        id,
        name: name.to_owned(),
        color: Some(color.to_owned()),
        ..Label::default()
    };
    vec![label(1, "right_foot", "#ff0000"), label(2, "left_head", "#0000ff")]
}

/// A case in RAS: label 1 in the patient's right, posterior, inferior octant; label 2 opposite.
fn ras() -> (Array3<f32>, Array3<u8>) {
    let ct = Array3::from_elem([24, 20, 16], -1000.0);
    let mut labels = Array3::zeros([24, 20, 16]);
    labels.slice_mut(s![2..8, 2..8, 10..14]).fill(1);
    labels.slice_mut(s![16..22, 12..18, 2..6]).fill(2);
    (ct, labels)
}

fn grid(shape: [usize; 3], signs: [f64; 3]) -> Grid {
    let mut rows = [[0.0; 4]; 3];
    for (k, row) in rows.iter_mut().enumerate() {
        row[k] = 2.0 * signs[k];
    }
    Grid { shape, spacing: [2.0; 3], affine: Affine(rows) }
}

/// Mean place of pixels in which one primary color clearly dominates, left of the legend.
fn center(picture: &Picture, color: [u8; 3], columns: std::ops::Range<usize>) -> (f64, f64) {
    let strongest = color.iter().position(|&part| part == 255).expect("a primary color");
    let (mut sum, mut count) = ((0.0, 0.0), 0.0);
    for y in 40..660 {
        for x in columns.clone() {
            let pixel = picture.pixel(x, y).expect("inside");
            let others = (0..3).filter(|&c| c != strongest).map(|c| pixel[c]).max();
            if pixel[strongest] > 60 && others.expect("two") < pixel[strongest] / 3 {
                sum = (sum.0 + x as f64, sum.1 + y as f64);
                count += 1.0;
            }
        }
    }
    assert!(count > 100.0, "{color:?} is drawn");
    (sum.0 / count, sum.1 / count)
}

#[test]
fn patients_stand_upright_with_their_right_on_the_left() {
    let (ct, labels) = ras();
    // Axes of a RAS file grow to the right, to anterior and to superior.
    let right_first = labels.clone();
    let picture = preview::draw(
        ct.view(),
        right_first.view().into(),
        &grid([24, 20, 16], [1.0; 3]),
        &names(),
        "upright",
    );
    // The projections stand side by side; the front view comes first.
    let middle = 12 + (1000 - 12) * 16 / 36;
    let coronal = 12..middle;
    let sagittal = middle + 12..1000;
    let (red, blue) = (center(&picture, RED, coronal.clone()), center(&picture, BLUE, coronal));
    assert!(red.0 < blue.0, "the patient's right is on the left");
    assert!(red.1 > blue.1, "superior is up");
    let (red, blue) = (center(&picture, RED, sagittal.clone()), center(&picture, BLUE, sagittal));
    assert!(red.0 > blue.0, "anterior is left");
    assert!(red.1 > blue.1, "superior is up");

    // The same patient stored along other directions gives the same picture.
    let flipped = |array: &Array3<f32>| array.slice(s![..;-1, .., ..;-1]).to_owned();
    let stored = labels.slice(s![..;-1, .., ..;-1]).to_owned();
    let other = preview::draw(
        flipped(&ct).view(),
        stored.view().into(),
        &grid([24, 20, 16], [-1.0, 1.0, -1.0]),
        &names(),
        "upright",
    );
    assert!(picture == other);
}

#[test]
fn any_shape_and_content_is_drawn() {
    for shape in [[1, 1, 1], [1, 40, 40], [300, 2, 3], [3, 2, 200], [5, 6, 7]] {
        for value in [f32::NAN, f32::INFINITY, 0.0] {
            let ct = Array3::from_elem(shape, value);
            let mut labels = Array3::<u16>::zeros(shape);
            labels[[0, 0, 0]] = 700;
            for labels in [labels.clone(), Array3::zeros(shape)] {
                let picture = preview::draw(
                    ct.view(),
                    labels.view().into(),
                    &grid(shape, [1.0; 3]),
                    &[],
                    "a title that is longer than the picture is wide ".repeat(5).as_str(),
                );
                assert_eq!(picture.as_bytes().len(), picture.width() * picture.height() * 3);
                assert!(picture.height() < 3000 && picture.width() < 3000);
            }
        }
    }
}

#[test]
fn pictures_are_whole_png_files() {
    let folder = tempfile::tempdir().expect("folder");
    let (ct, labels) = ras();
    let grid = grid([24, 20, 16], [1.0; 3]);
    let picture = preview::draw(ct.view(), labels.view().into(), &grid, &names(), "file");
    let path = folder.path().join("new/folder/preview.png");
    preview::check_writable(&path, Existing::Keep).expect("could be written");
    picture.save(&path, Existing::Keep, Access::ANYONE).expect("writes");
    let file = std::io::BufReader::new(std::fs::File::open(&path).expect("opens"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("whole");
    assert_eq!((info.width as usize, info.height as usize), (picture.width(), picture.height()));
    assert_eq!(pixels, picture.as_bytes());
    // Windows replaces no file that somebody reads.
    drop(reader);

    assert_eq!(
        picture.save(&path, Existing::Keep, Access::ANYONE).expect_err("exists").kind(),
        fastnnunet::ErrorKind::Output
    );
    assert_eq!(
        preview::check_writable(&path, Existing::Keep).expect_err("exists").kind(),
        fastnnunet::ErrorKind::Output
    );
    picture.save(&path, Existing::Replace, Access::ANYONE).expect("replaces");
    let other = folder.path().join("preview.jpg");
    assert_eq!(
        picture.save(&other, Existing::Keep, Access::ANYONE).expect_err("no PNG").kind(),
        fastnnunet::ErrorKind::Usage
    );
    let left = std::fs::read_dir(path.parent().expect("a folder")).expect("lists").count();
    assert_eq!(left, 1, "no temporary files");
}
