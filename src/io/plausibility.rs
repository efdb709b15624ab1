//! Does an image look like a CT in Hounsfield units?
//!
//! One rule covers the usual mix-ups: a CT shows air, far below -200 HU, and tissue or
//! bone, above 0 HU. An MR or PET image and an 8-bit export have no negative values; a
//! z-scored, 0-to-1 scaled or windowed image does not reach -200; a CT stored without
//! its intercept starts at 0, one whose sign was lost goes beyond 32767; an empty scan stays
//! below 0. A phase image or an MR with a strongly negative background is not recognized.

use super::voxels::Stats;

/// A CT has voxels below this: air is -1000 HU, lung about -800, fat about -100.
const AIR_BELOW: f32 = -200.0;

/// A CT has voxels above this: water is 0 HU, muscle about 50.
const TISSUE_ABOVE: f32 = 0.0;

/// No scanner's scale goes beyond 16 bits with a sign, metal included: what does lost the sign.
const CT_BELOW: f32 = 32767.0;

/// A sentence for the user if the values cannot be a CT in Hounsfield units.
pub(super) fn doubt(stats: &Stats) -> Option<String> {
    let expected = match (stats.min < AIR_BELOW, stats.max > TISSUE_ABOVE) {
        (true, true) if stats.max > CT_BELOW => "none above 32767",
        (true, true) => return None,
        (false, true) => "air near -1000",
        (true, false) => "tissue above 0",
        (false, false) => "air near -1000 and tissue above 0",
    };
    Some(format!(
        "this does not look like a CT in Hounsfield units: values run from {} to {}, \
         expected {expected}",
        stats.min, stats.max
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_air_with_tissue_is_a_ct() {
        // (case, min, max, doubted)
        let cases = [
            ("chest", -1024.0, 3071.0, false),
            ("padding", -3024.0, 1500.0, false),
            ("MR", 0.0, 4095.0, true),
            ("8-bit export", 0.0, 255.0, true),
            ("CT without its intercept", 0.0, 3000.0, true),
            ("MR with interpolation undershoot", -7.5, 900.0, true),
            ("z-scores", -3.0, 12.0, true),
            ("soft tissue window", -160.0, 240.0, true),
            ("constant", 0.0, 0.0, true),
            ("nothing but air", -1000.0, -990.0, true),
            ("metal on an extended scale", -8192.0, 30710.0, false),
            ("a lost sign", -1024.0, 64511.0, true),
        ];
        for (case, min, max, doubted) in cases {
            let stats = Stats { min, max, not_finite: 0 };
            assert_eq!(doubt(&stats).is_some(), doubted, "{case}");
        }
    }
}
