//! A label map of 60 structures at the size of a long CT: 500x512x512 voxels, 1.2x0.8x0.8 mm.
//!
//! Ragged surfaces, crumbs, pinholes, a piece of kidney on the wrong side and two exchanged
//! vertebrae give every step of the recipe `total` something to do. No patient data.

use fastnnunet::model::Label;
use fastnnunet::volume::{Affine, Grid};
use ndarray::Array3;

/// Voxels, `[z, y, x]`.
pub(crate) const SHAPE: [usize; 3] = [500, 512, 512];

/// Millimetres per voxel.
const SPACING: [f64; 3] = [1.2, 0.8, 0.8];

const ORGANS: [&str; 12] = [
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "stomach",
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_lower_lobe_right",
    "heart",
    "aorta",
    "spinal_cord",
];

/// Right, anterior, superior.
pub(crate) fn grid() -> Grid {
    let [z, y, x] = SPACING;
    let affine = Affine([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
    Grid { shape: SHAPE, spacing: SPACING, affine }
}

/// The 60 structures: 12 organs, 24 vertebrae from the top, 12 ribs a side.
pub(crate) fn names() -> Vec<Label> {
    let vertebrae = ["C", "T", "L"].into_iter().zip([7, 12, 5]);
    let vertebrae = vertebrae.flat_map(|(part, n)| (1..=n).map(move |i| format!("{part}{i}")));
    let ribs = ["left", "right"].into_iter();
    let names = (ORGANS.iter().map(|&name| name.to_owned()))
        .chain(vertebrae.map(|name| format!("vertebrae_{name}")))
        .chain(ribs.flat_map(|side| (1..=12).map(move |i| format!("rib_{side}_{i}"))));
    let label = |(i, name)| Label { id: i as u16 + 1, name, ..Default::default() };
    names.enumerate().map(label).collect()
}

/// Draws the map.
pub(crate) fn labels() -> Array3<u8> {
    let mut canvas = Canvas { labels: Array3::zeros(SHAPE), random: 1 };
    // Center and radii in mm, [superior, anterior, right] from the corner; midline at 204.8.
    let organs: [([f64; 3], [f64; 3]); 10] = [
        ([200.0, 220.0, 270.0], [75.0, 80.0, 85.0]),
        ([215.0, 130.0, 110.0], [50.0, 35.0, 30.0]),
        ([160.0, 120.0, 140.0], [55.0, 30.0, 28.0]),
        ([150.0, 120.0, 270.0], [55.0, 30.0, 28.0]),
        ([210.0, 250.0, 150.0], [50.0, 40.0, 60.0]),
        ([400.0, 230.0, 125.0], [90.0, 70.0, 55.0]),
        ([330.0, 150.0, 125.0], [90.0, 60.0, 55.0]),
        ([400.0, 230.0, 285.0], [90.0, 70.0, 55.0]),
        ([330.0, 150.0, 285.0], [90.0, 60.0, 55.0]),
        ([335.0, 250.0, 190.0], [55.0, 45.0, 55.0]),
    ];
    for (i, (center, radii)) in organs.into_iter().enumerate() {
        canvas.ellipsoid(i as u8 + 1, center, radii);
    }
    canvas.tube(11, 10.0, |t| [60.0 + 390.0 * t, 150.0, 190.0]);
    canvas.tube(12, 6.0, |t| [20.0 + 560.0 * t, 95.0, 204.8]);
    for v in 0..24_u8 {
        // The 13th and 14th from the top, T6 and T7, are exchanged.
        let number = match v {
            12 => 13,
            13 => 12,
            other => other,
        };
        let label = 13 + number;
        let z = 575.0 - f64::from(v) * 23.0;
        canvas.ellipsoid(label, [z, 122.0, 204.8], [12.5, 20.0, 24.0]);
        canvas.ellipsoid(label, [z - 5.0, 70.0, 204.8], [9.0, 25.0, 6.0]);
    }
    for (side, sign) in [(0, -1.0), (1, 1.0)] {
        for rib in 0..12_u8 {
            let top = 500.0 - f64::from(rib) * 24.0;
            let wide = 90.0 + 60.0 * (f64::from(rib) / 4.0).min(1.0);
            canvas.tube(37 + side * 12 + rib, 5.0, |t| {
                let turn = std::f64::consts::PI * (0.1 + 0.75 * t);
                let right = 204.8 + sign * wide * turn.sin();
                [top - 60.0 * t, 190.0 - 110.0 * turn.cos(), right]
            });
        }
    }
    canvas.ellipsoid(3, [150.0, 120.0, 300.0], [8.0, 8.0, 8.0]);
    canvas.crumbs();
    canvas.labels
}

struct Canvas {
    labels: Array3<u8>,
    random: u64,
}

impl Canvas {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    /// An ellipsoid whose surface is rough by about a voxel; painted over what is there.
    fn ellipsoid(&mut self, label: u8, center: [f64; 3], radii: [f64; 3]) {
        let range = |k: usize| {
            let at = |mm: f64| (mm / SPACING[k]).clamp(0.0, SHAPE[k] as f64) as usize;
            at(center[k] - radii[k])..at(center[k] + radii[k] + SPACING[k])
        };
        for z in range(0) {
            for y in range(1) {
                for x in range(2) {
                    let at = [z, y, x];
                    let offset = |k: usize| (at[k] as f64 * SPACING[k] - center[k]) / radii[k];
                    let square: f64 = (0..3).map(|k| offset(k).powi(2)).sum();
                    if square < 0.9 || square < 1.0 && !self.random().is_multiple_of(4) {
                        self.labels[at] = label;
                    }
                }
            }
        }
    }

    /// A chain of balls along a curve over `t` from 0 to 1.
    fn tube(&mut self, label: u8, radius: f64, curve: impl Fn(f64) -> [f64; 3]) {
        for i in 0..=150 {
            self.ellipsoid(label, curve(f64::from(i) / 150.0), [radius; 3]);
        }
    }

    /// Crumbs of any label anywhere, and pinholes.
    fn crumbs(&mut self) {
        for i in 0..60_000 {
            let at: [usize; 3] = std::array::from_fn(|k| self.random() as usize % (SHAPE[k] - 4));
            let label = if i % 2 == 0 { 0 } else { (self.random() % 60 + 1) as u8 };
            let long = self.random() as usize % 3 + 1;
            for x in 0..long {
                self.labels[[at[0], at[1], at[2] + x]] = label;
            }
        }
    }
}
