//! Cortical bone on shells of known thickness.

use fastnnunet::pipeline::postprocess::Map;
use fastnnunet::pipeline::postprocess::cortical::{Bone, split};
use ndarray::{Array3, s};

const SOFT_HU: f64 = 40.0;

/// A bone whose surface is where `depth`, in millimetres, is 0.
struct Shell<'a> {
    shape: [usize; 3],
    spacing: [f64; 3],
    depth: &'a dyn Fn([f64; 3]) -> f64,
    thickness: f64,
    cortical_hu: f64,
    marrow_hu: f64,
    /// Standard deviation of the scanner's blur, in millimetres.
    blur: f64,
    noise_hu: f64,
}

/// The normal distribution's integral, to 2e-4.
fn normal(x: f64) -> f64 {
    0.5 * (1.0 + (0.797_884_56 * (x + 0.044_715 * x.powi(3))).tanh())
}

impl Shell<'_> {
    /// Hounsfield units, blurred across the surfaces and averaged over each voxel.
    fn scan(&self) -> Array3<f32> {
        const PARTS: usize = 3;
        let mut random = 1_u64;
        Array3::from_shape_fn(self.shape, |(z, y, x)| {
            let mut sum = 0.0;
            for part in 0..PARTS.pow(3) {
                let sub = [part / PARTS / PARTS, part / PARTS % PARTS, part % PARTS];
                let at = std::array::from_fn(|k| {
                    let offset = (sub[k] as f64 + 0.5) / PARTS as f64 - 0.5;
                    ([z, y, x][k] as f64 + offset) * self.spacing[k]
                });
                let depth = (self.depth)(at);
                sum += SOFT_HU
                    + (self.cortical_hu - SOFT_HU) * normal(depth / self.blur)
                    + (self.marrow_hu - self.cortical_hu)
                        * normal((depth - self.thickness) / self.blur);
            }
            let mut noise = -6.0;
            for _ in 0..12 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise += (random >> 40) as f64 / f64::from(1 << 24);
            }
            (sum / PARTS.pow(3) as f64 + noise * self.noise_hu) as f32
        })
    }

    /// The bone as a perfect model labels it, by voxel centers.
    fn mask(&self) -> Array3<u8> {
        Array3::from_shape_fn(self.shape, |(z, y, x)| {
            let at = std::array::from_fn(|k| [z, y, x][k] as f64 * self.spacing[k]);
            u8::from((self.depth)(at) >= 0.0)
        })
    }

    /// Voxels of cortical and trabecular bone.
    fn split(&self) -> (f64, f64) {
        let mut labels = self.mask();
        let bone = Bone { label: 1, cortical: 2, trabecular: 1 };
        let mut map = Map::new(labels.view_mut(), self.spacing);
        let (cortical, rest) = split(self.scan().view(), &mut map, &[bone]);
        let count = |label| labels.iter().filter(|&&l| l == label).count() as u64;
        assert_eq!((cortical, rest), (count(2), count(1)));
        (cortical as f64, rest as f64)
    }
}

/// (case, spacing, thickness, cortical HU, marrow HU)
type Case = (&'static str, [f64; 3], f64, f64, f64);

const CASES: [Case; 9] = [
    ("thin", [0.7, 0.7, 0.7], 1.5, 1200.0, 150.0),
    ("medium", [0.7, 0.7, 0.7], 2.5, 1200.0, 150.0),
    ("thick", [0.7, 0.7, 0.7], 5.0, 1400.0, 50.0),
    ("thick slices", [2.5, 0.7, 0.7], 3.0, 1200.0, 150.0),
    ("thick slices, thin cortex", [2.5, 0.7, 0.7], 2.0, 1200.0, 150.0),
    ("coarse", [1.5, 1.5, 1.5], 3.0, 1200.0, 150.0),
    ("osteoporotic", [0.7, 0.7, 0.7], 1.5, 600.0, -40.0),
    ("dense marrow", [0.7, 0.7, 0.7], 2.5, 1100.0, 450.0),
    ("thick slices, osteoporotic", [2.5, 0.9, 0.9], 2.5, 600.0, -40.0),
];

/// Thicknesses found must be this close, in millimetres: a tenth of a voxel's mean edge, and 0.15
/// for noise and blur.
fn bound(spacing: [f64; 3]) -> f64 {
    0.15 + spacing.iter().product::<f64>().cbrt() / 10.0
}

#[test]
fn spheres_have_the_thickness_they_were_made_with() {
    const RADIUS: f64 = 16.0;
    for (case, spacing, thickness, cortical_hu, marrow_hu) in CASES {
        let shape = spacing.map(|s| (40.0 / s) as usize);
        let center: [f64; 3] = std::array::from_fn(|k| (shape[k] / 2) as f64 * spacing[k] + 0.1);
        let depth = |at: [f64; 3]| {
            let square: f64 = (0..3).map(|k| (at[k] - center[k]).powi(2)).sum();
            RADIUS - square.sqrt()
        };
        let depth: &dyn Fn([f64; 3]) -> f64 = &depth;
        let (blur, noise_hu) = (0.5, 25.0);
        let shell =
            Shell { shape, spacing, depth, thickness, cortical_hu, marrow_hu, blur, noise_hu };
        let (cortical, rest) = shell.split();
        let radius = |voxels: f64| {
            (voxels * spacing.iter().product::<f64>() * 0.75 / std::f64::consts::PI).cbrt()
        };
        let found = radius(cortical + rest) - radius(rest);
        println!("sphere, {case}: {found:.2} mm for {thickness}");
        assert!((found - thickness).abs() <= bound(spacing), "{case}: {found} for {thickness} mm");
    }
}

#[test]
fn cylinders_cut_by_the_scan_have_no_cap() {
    const RADIUS: f64 = 12.0;
    for (case, spacing, thickness, cortical_hu, marrow_hu) in CASES {
        let shape = spacing.map(|s| (30.0 / s) as usize);
        let center = [0.0, 15.2, 14.9];
        let depth = |at: [f64; 3]| RADIUS - (at[1] - center[1]).hypot(at[2] - center[2]);
        let depth: &dyn Fn([f64; 3]) -> f64 = &depth;
        let (blur, noise_hu) = (0.5, 25.0);
        let shell =
            Shell { shape, spacing, depth, thickness, cortical_hu, marrow_hu, blur, noise_hu };
        let (cortical, rest) = shell.split();
        let radius = |voxels: f64| {
            let area = voxels / shape[0] as f64 * spacing[1] * spacing[2];
            (area / std::f64::consts::PI).sqrt()
        };
        let found = radius(cortical + rest) - radius(rest);
        println!("cylinder, {case}: {found:.2} mm for {thickness}");
        assert!((found - thickness).abs() <= bound(spacing), "{case}: {found} for {thickness} mm");
    }
}

#[test]
fn a_cortex_thinner_than_the_blur_reads_as_thick_as_the_blur() {
    let spacing = [0.7; 3];
    let depth = |at: [f64; 3]| 12.0 - (at[1] - 15.2).hypot(at[2] - 14.9);
    let depth: &dyn Fn([f64; 3]) -> f64 = &depth;
    for thickness in [0.4, 0.8] {
        let (cortical_hu, marrow_hu, blur, noise_hu) = (1200.0, 50.0, 0.5, 25.0);
        let shape = [20, 43, 43];
        let shell =
            Shell { shape, spacing, depth, thickness, cortical_hu, marrow_hu, blur, noise_hu };
        let (cortical, rest) = shell.split();
        let radius = |voxels: f64| (voxels / 20.0 * 0.49 / std::f64::consts::PI).sqrt();
        let found = radius(cortical + rest) - radius(rest);
        println!("cylinder, thin: {found:.2} mm for {thickness}");
        // The blur's full width at half maximum is 1.18 mm.
        assert!((thickness..1.5).contains(&found), "{found} for {thickness} mm");
    }
}

#[test]
fn bright_islands_inside_are_not_cortex_and_plates_are() {
    let spacing = [0.7; 3];
    let shape = [44, 44, 44];
    let depth = |at: [f64; 3]| {
        let square: f64 = at.iter().map(|x| (x - 15.0).powi(2)).sum();
        14.0 - square.sqrt()
    };
    let depth: &dyn Fn([f64; 3]) -> f64 = &depth;
    let shell = Shell {
        shape,
        spacing,
        depth,
        thickness: 2.0,
        cortical_hu: 1200.0,
        marrow_hu: 100.0,
        blur: 0.4,
        noise_hu: 0.0,
    };
    let mut ct = shell.scan();
    // 6 mm below the surface, where a thick cortex could still be.
    ct.slice_mut(s![20..23, 20..23, 9..12]).fill(1200.0);
    let mut labels = shell.mask();
    let bone = Bone { label: 1, cortical: 2, trabecular: 1 };
    split(ct.view(), &mut Map::new(labels.view_mut(), spacing), &[bone]);
    assert!(labels.slice(s![20..23, 20..23, 9..12]).iter().all(|&l| l == 1), "an island");
    assert_eq!(labels[[21, 21, 2]], 2, "its cortex");

    // A plate of 3 mm without marrow, beside bone of another label that stays as it is.
    let mut labels = Array3::<u8>::zeros([20, 20, 20]);
    labels.slice_mut(s![.., 8..12, ..]).fill(7);
    labels.slice_mut(s![.., 14..16, ..]).fill(3);
    let mut ct = Array3::from_elem([20, 20, 20], 40.0);
    ct.slice_mut(s![.., 8..12, ..]).fill(900.0);
    let plate = Bone { label: 7, cortical: 8, trabecular: 9 };
    let mut map = Map::new(labels.view_mut(), spacing);
    assert_eq!(split(ct.view(), &mut map, &[plate]), (4 * 400, 0));
    assert!(labels.slice(s![.., 8..12, ..]).iter().all(|&l| l == 8));
    assert!(labels.slice(s![.., 14..16, ..]).iter().all(|&l| l == 3));
    let mut map = Map::new(labels.view_mut(), spacing);
    let absent = Bone { label: 7, cortical: 8, trabecular: 9 };
    assert_eq!(split(ct.view(), &mut map, &[absent]), (0, 0), "nothing to split");
}

#[test]
fn one_voxel_thin_volumes_and_nan_are_no_panic() {
    let bone = Bone { label: 1, cortical: 2, trabecular: 3 };
    for shape in [[1, 1, 1], [1, 30, 30], [30, 1, 30], [30, 30, 1]] {
        let mut labels = Array3::<u8>::ones(shape);
        let mut ct = Array3::from_elem(shape, 300.0_f32);
        ct[[0, 0, 0]] = f32::NAN;
        let mut map = Map::new(labels.view_mut(), [1.0; 3]);
        let (cortical, rest) = split(ct.view(), &mut map, &[bone]);
        assert_eq!(cortical + rest, labels.len() as u64);
        assert!(labels.iter().all(|&l| l == 2 || l == 3));
    }
}

#[test]
fn parts_do_not_depend_on_the_order_of_voxels() {
    // Lopsided, so that no axis is its own mirror image.
    let spacing = [1.1, 0.8, 0.9];
    let depth = |at: [f64; 3]| {
        let ball = |center: [f64; 3], radius: f64| {
            let square: f64 = (0..3).map(|k| (at[k] - center[k]).powi(2)).sum();
            radius - square.sqrt()
        };
        ball([13.0, 12.3, 14.1], 10.5).max(ball([19.0, 17.0, 21.0], 7.0))
    };
    let depth: &dyn Fn([f64; 3]) -> f64 = &depth;
    let (thickness, cortical_hu, marrow_hu, blur, noise_hu) = (2.0, 900.0, 150.0, 0.5, 60.0);
    let shape = [27, 36, 38];
    let shell = Shell { shape, spacing, depth, thickness, cortical_hu, marrow_hu, blur, noise_hu };
    let (ct, mask) = (shell.scan(), shell.mask());
    let parts = |flipped: [bool; 3]| {
        let flip = |k: usize| if flipped[k] { -1 } else { 1 };
        let order = ndarray::s![..;flip(0), ..;flip(1), ..;flip(2)];
        let mut labels = mask.slice(order).as_standard_layout().into_owned();
        let ct = ct.slice(order).as_standard_layout().into_owned();
        let mut map = Map::new(labels.view_mut(), spacing);
        split(ct.view(), &mut map, &[Bone { label: 1, cortical: 2, trabecular: 1 }]);
        labels.slice(order).to_owned()
    };
    let as_stored = parts([false; 3]);
    for k in 1..8 {
        let flipped = [k & 1 > 0, k & 2 > 0, k & 4 > 0];
        let differing = as_stored.iter().zip(&parts(flipped)).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{flipped:?}");
    }
}
