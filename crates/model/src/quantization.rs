//! What int8 needs to know of a network: ranges measured on scans, and how well the result then
//! agrees with `f32`.

use crate::Mismatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Least mean Dice against `f32` with which int8 is chosen unasked.
const LEAST_MEAN_DICE: f64 = 0.998;

/// Least Dice of any structure of [`Agreement::LEAST_VOLUME_ML`] or more with which it is.
const LEAST_DICE: f64 = 0.99;

/// The field `int8` of a configuration, as `fastnnunet calibrate` writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// SHA-256 of the ONNX file that was measured, lowercase hexadecimal.
    pub weights_sha256: String,
    /// Ranges by the name of what an ONNX node makes.
    pub layers: BTreeMap<String, Ranges>,
    /// How well the labels agree with those of `f32`, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
}

/// Ranges of one layer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// Lowest and highest value of each input channel, normalized and activated, that bytes
    /// stand for; 0 is among them. Empty for a layer that is not multiplied in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<[f32; 2]>,
    /// For each output channel the center of the values that 16-bit integers stand for, and how
    /// far from there they reach.
    pub outputs: Vec<[f32; 2]>,
}

/// Dice between the labels of int8 and of `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Scans compared.
    pub scans: usize,
    /// Mean over all structures of all scans.
    pub mean_dice: f64,
    /// The least of any structure that has at least [`Agreement::LEAST_VOLUME_ML`] in `f32`.
    pub least_dice: f64,
}

impl Agreement {
    /// Structures smaller than this, in millilitres, do not count for
    /// [`least_dice`](Self::least_dice).
    pub const LEAST_VOLUME_ML: f64 = 1.0;
}

impl Quantization {
    /// Whether int8 may be chosen unasked.
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.agreement.is_some_and(|agreement| {
            agreement.mean_dice >= LEAST_MEAN_DICE && agreement.least_dice >= LEAST_DICE
        })
    }

    /// Checks that it was measured on the weights with that SHA-256: others with layers of the same
    /// names would be rounded by ranges and trusted by a record that are not theirs.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if it was not.
    pub fn check_weights(&self, sha256: &str) -> Result<(), Mismatch> {
        if self.weights_sha256 == sha256 {
            return Ok(());
        }
        Err(Mismatch::new(
            format!("int8 ranges of weights with SHA-256 {}", self.weights_sha256),
            format!("those of {sha256}, as `fastnnunet calibrate` measures them, or no field int8"),
        ))
    }

    /// The text of a configuration with these ranges in place of any it has. What else it holds
    /// keeps its order; a layer takes a line.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if the text is not a JSON object.
    pub fn written_into(&self, config_json: &str) -> Result<String, Mismatch> {
        use std::fmt::Write as _;
        let wrong = |error: serde_json::Error| Mismatch::new(error.to_string(), "a JSON object");
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(config_json).map_err(wrong)?;
        config.remove("int8");
        let rest = serde_json::to_string_pretty(&config).map_err(wrong)?;
        let mut text = rest.trim_end().trim_end_matches('}').trim_end().to_owned();
        let comma = if config.is_empty() { "" } else { "," };
        let _ = writeln!(text, "{comma}\n  \"int8\": {{");
        let _ = writeln!(text, "    \"weights_sha256\": \"{}\",", self.weights_sha256);
        if let Some(agreement) = &self.agreement {
            let agreement = serde_json::to_string(agreement).map_err(wrong)?;
            let _ = writeln!(text, "    \"agreement\": {agreement},");
        }
        text.push_str("    \"layers\": {");
        for (k, (name, ranges)) in self.layers.iter().enumerate() {
            let (name, ranges) = (serde_json::to_string(name), serde_json::to_string(ranges));
            let comma = if k == 0 { "" } else { "," };
            let _ =
                write!(text, "{comma}\n      {}: {}", name.map_err(wrong)?, ranges.map_err(wrong)?);
        }
        text.push_str("\n    }\n  }\n}\n");
        Ok(text)
    }

    /// The first layer whose numbers make no sense, and what is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<(&str, String)> {
        self.layers.iter().find_map(|(name, ranges)| {
            let input = ranges.inputs.iter().find(|[low, high]| {
                !(low.is_finite() && high.is_finite() && *low <= 0.0 && *high >= 0.0 && low < high)
            });
            if let Some([low, high]) = input {
                return Some((name.as_str(), format!("an input from {low} to {high}")));
            }
            let output = ranges
                .outputs
                .iter()
                .find(|[center, reach]| !(center.is_finite() && reach.is_finite() && *reach > 0.0));
            output.map(|[center, reach]| (name.as_str(), format!("an output {center} ± {reach}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mean_dice: f64, least_dice: f64) -> Quantization {
        let agreement = Some(Agreement { scans: 3, mean_dice, least_dice });
        let ranges = Ranges { inputs: vec![[-0.1, 5.0]], outputs: vec![[0.2, 9.0]] };
        let layers = BTreeMap::from([("conv".into(), ranges)]);
        Quantization { weights_sha256: "0a".into(), layers, agreement }
    }

    #[test]
    fn what_is_written_is_read() {
        let written = serde_json::to_string(&measured(0.999, 0.995)).expect("JSON");
        let read: Quantization = serde_json::from_str(&written).expect("as written");
        assert_eq!(read, measured(0.999, 0.995));
    }

    #[test]
    fn a_configuration_keeps_what_else_it_holds() {
        let old = r#"{"patch_size": [8, 8, 8], "int8": {}, "step_size": 0.5}"#;
        let text = measured(0.999, 0.995).written_into(old).expect("an object");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["patch_size", "step_size", "int8"]);
        let read: Quantization = serde_json::from_value(value["int8"].clone()).expect("ranges");
        assert_eq!(read, measured(0.999, 0.995));
        assert!(measured(1.0, 1.0).written_into("[]").is_err());
    }

    #[test]
    fn only_what_was_measured_to_be_close_is_taken_unasked() {
        for (mean, least, close) in
            [(0.998, 0.99, true), (0.9979, 1.0, false), (1.0, 0.9899, false)]
        {
            assert_eq!(measured(mean, least).is_close(), close, "{mean} {least}");
        }
        assert!(!Quantization { agreement: None, ..measured(1.0, 1.0) }.is_close());
    }

    #[test]
    fn ranges_of_other_weights_are_refused() {
        assert!(measured(1.0, 1.0).check_weights("0a").is_ok());
        let refused = measured(1.0, 1.0).check_weights("0b").expect_err("other weights");
        assert!(refused.to_string().contains("0a"), "{refused}");
    }

    #[test]
    fn senseless_ranges_name_their_layer() {
        assert_eq!(measured(1.0, 1.0).fault(), None);
        for (input, output) in [
            ([0.1, 5.0], [0.0, 1.0]),
            ([-1.0, -0.5], [0.0, 1.0]),
            ([0.0, 0.0], [0.0, 1.0]),
            ([-1.0, f32::NAN], [0.0, 1.0]),
            ([-1.0, 1.0], [0.0, 0.0]),
            ([-1.0, 1.0], [f32::INFINITY, 1.0]),
        ] {
            let mut wrong = measured(1.0, 1.0);
            let ranges = Ranges { inputs: vec![input], outputs: vec![output] };
            wrong.layers.insert("conv".into(), ranges);
            assert_eq!(wrong.fault().map(|(name, _)| name), Some("conv"), "{input:?} {output:?}");
        }
    }
}
