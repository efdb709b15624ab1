//! Images that stay the caller's, however they lie in memory.

use crate::golden;
use fastnnunet::volume::{Grid, LabelMap, Scale, VoxelView, Voxels};
use fastnnunet::{Case, ErrorKind, Scan, Segmenter, Source};
use ndarray::{Array3, Axis, s};

fn scan() -> Scan {
    Scan::open(golden::path("case", &"input_plain.nii.gz".into())).expect("a scan")
}

#[test]
fn labels_do_not_depend_on_who_holds_the_image_or_how_it_lies() {
    let scan = scan();
    let Voxels::I16(stored, scale) = scan.voxels() else { panic!("stored as int16") };
    let source = Source::Model { name: "selftest".into(), config: None };
    let mut segmenter = Segmenter::open(source).expect("opens");
    let expected = segmenter.segment(&scan).expect("segmented").labels;
    let mut labels_of = |view: VoxelView<'_>| -> LabelMap {
        let case = Case::lent([(view, scan.grid().clone())]).expect("an image");
        segmenter.segment(case).expect("segmented").labels
    };

    let values = scan.voxels().to_f32();
    let mut columns_first = Array3::zeros(stored.t().raw_dim());
    columns_first.assign(&stored.t());
    let (z, y, x) = stored.dim();
    let mut apart = Array3::from_elem((z, 2 * y, 2 * x), f32::NAN);
    apart.slice_mut(s![.., ..;2, ..;2]).assign(&values);
    let flip = |image: &mut Array3<i16>| (0..3).for_each(|axis| image.invert_axis(Axis(axis)));
    let mut backwards = stored.clone();
    flip(&mut backwards);
    backwards = backwards.as_standard_layout().into_owned();
    flip(&mut backwards);
    let cases = [
        ("as it is", VoxelView::I16(stored.view(), *scale)),
        ("as floats", values.view().into()),
        ("columns first", VoxelView::I16(columns_first.t(), *scale)),
        ("with gaps", apart.slice(s![.., ..;2, ..;2]).into()),
        ("backwards", VoxelView::I16(backwards.view(), *scale)),
    ];
    for (case, view) in cases {
        assert!(labels_of(view) == expected, "{case}");
    }
    let scaled = labels_of(VoxelView::I16(stored.view(), Scale { slope: 0.5, intercept: 90.0 }));
    assert!(scaled == labels_of(values.mapv(|v| v * 0.5 + 90.0).view().into()), "scaled");
    assert!(scaled != expected, "a slope that is looked at");
}

#[test]
fn what_is_not_finite_is_refused_whoever_holds_it() {
    let scan = scan();
    let mut values = scan.voxels().to_f32();
    values[[3, 4, 5]] = f32::NAN;
    let grid = || scan.grid().clone();
    let lent = Case::lent([(values.view().into(), grid())]).expect_err("a NaN");
    let one = Array3::from_elem((1, 1, 1), 1);
    let infinite = VoxelView::I16(one.view(), Scale { slope: 1e39, intercept: 0.0 });
    let place = Grid { shape: [1; 3], ..grid() };
    let scaled = Case::lent([(infinite, place)]).expect_err("beyond f32");
    let owned = Scan::new(values, grid()).expect_err("a NaN");
    for error in [lent, owned] {
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains("1 of 62400 voxels that are not finite"), "{error}");
    }
    assert!(scaled.to_string().contains("1 of 1 voxels"), "{scaled}");
}
