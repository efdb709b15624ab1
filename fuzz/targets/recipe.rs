//! A postprocessing recipe, ours or nnU-Net's, applied to a small label map on an odd grid.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use fastnnunet::model::Label;
use fastnnunet::pipeline::postprocess::Recipe;
use fastnnunet::volume::{Affine, Grid, LabelMap};
use libfuzzer_sys::fuzz_target;
use ndarray::Array3;

const NAMES: [&str; 9] = [
    "liver",
    "spleen",
    "rib_left_1",
    "rib_left_2",
    "vertebrae_L1",
    "vertebrae_L2",
    "bone",
    "kidney_left",
    "kidney_right",
];

// The case is drawn from the recipe's own text, so that recipes as they are can be seeds.
fuzz_target!(|text: &str| {
    let recipe = Recipe::from_json(text).or_else(|_| Recipe::from_nnunet_json(text));
    let Ok(recipe) = recipe else { return };
    let mut odd = Unstructured::new(text.as_bytes());
    let Ok((mut map, grid, names)) = case(&mut odd) else { return };
    let _ = recipe.apply(&mut map, &grid, &names);
    let _ = recipe.check(&names);
});

/// A label map of a few voxels, where it lies, and the structures in it.
fn case(odd: &mut Unstructured<'_>) -> arbitrary::Result<(LabelMap, Grid, Vec<Label>)> {
    let mut shape = [0; 3];
    let mut spacing = [0.0; 3];
    for axis in 0..3 {
        shape[axis] = odd.int_in_range(1..=14)?;
        spacing[axis] = *odd.choose(&[1.0, 0.3, 5.0, 1e-3, 100.0, 1e-30, 1e30])?;
    }
    let order = *odd.choose(&[[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1], [1, 2, 0], [2, 0, 1]])?;
    let mut rows = [[0.0; 4]; 3];
    for axis in 0..3 {
        let sign = if bool::arbitrary(odd)? { 1.0 } else { -1.0 };
        rows[order[axis]][axis] = sign * spacing[2 - axis];
    }
    let grid = Grid { shape, spacing, affine: Affine(rows) };
    let factor = if bool::arbitrary(odd)? { 50 } else { 1 };
    let count = odd.int_in_range(1..=NAMES.len())?;
    let names: Vec<Label> =
        (1..).zip(&NAMES[..count]).map(|(id, name)| label(id * factor, name)).collect();
    let (mut state, density) = (u32::arbitrary(odd)?, u32::from(u8::arbitrary(odd)?));
    let mut last = 0;
    let labels = Array3::from_shape_fn(shape, |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 24 < density {
            let any = names[(state >> 12) as usize % names.len()].id;
            last = if state >> 8 & 3 == 0 { 0 } else { any };
        }
        last
    });
    let narrow = names.iter().all(|label| label.id < 255);
    let map = if narrow { LabelMap::U8(labels.mapv(|id| id as u8)) } else { LabelMap::U16(labels) };
    Ok((map, grid, names))
}

fn label(id: u16, name: &str) -> Label {
    Label { id, name: name.to_owned(), ..Label::default() }
}
