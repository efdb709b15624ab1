//! What int8 needs to know of a network: ranges measured on scans, and how well the result then
//! agrees with `f32`.

use crate::Mismatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Least mean Dice against `f32` with which int8 is chosen unasked.
const LEAST_MEAN_DICE: f64 = 0.998;

/// Least Dice of any structure of [`Agreement::LEAST_VOLUME_ML`] or more with which it is.
const LEAST_DICE: f64 = 0.99;

/// An entry of the field `int8` of a configuration, as `fastnnunet calibrate` writes it: one network,
/// or one fold of those whose logits are averaged.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// SHA-256 of the file of weights that was measured, lowercase hexadecimal.
    pub weights_sha256: String,
    /// Ranges by the name of what an ONNX node makes.
    pub layers: BTreeMap<String, Ranges>,
    /// How well the labels agree with those of `f32`, once measured; of all folds together where
    /// there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
}

/// Ranges of one layer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// Lowest and highest value of each input channel, normalized and activated, that bytes
    /// stand for, up to a factor that all share and each patch sets; 0 is among them. Empty for a layer that is not multiplied in bytes.
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

    /// Whether int8 may be chosen unasked.
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.mean_dice >= LEAST_MEAN_DICE && self.least_dice >= LEAST_DICE
    }
}

impl Quantization {
    /// Whether int8 may be chosen unasked.
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.agreement.is_some_and(|agreement| agreement.is_close())
    }

    /// Of what was `measured` that of the weights with these SHA-256, in their order; nothing if
    /// nothing was. The record is of the labels of all folds together: it is left out where others
    /// are averaged.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if some of the weights were not measured: others with layers of the same names
    /// would be rounded by ranges and trusted by a record that are not theirs.
    pub fn of_weights(measured: &[Self], sha256: &[String]) -> Result<Vec<Self>, Mismatch> {
        if measured.is_empty() {
            return Ok(Vec::new());
        }
        let is_all = measured.len() == sha256.len()
            && measured.iter().all(|entry| sha256.contains(&entry.weights_sha256));
        let entry = |digest: &String| {
            let own = measured.iter().find(|entry| entry.weights_sha256 == *digest);
            let own = own.ok_or_else(|| {
                let all: Vec<&str> = measured.iter().map(|entry| &*entry.weights_sha256).collect();
                Mismatch::new(
                    format!("int8 ranges of weights with SHA-256 {}", all.join(", ")),
                    format!(
                        "those of {digest}, as `fastnnunet calibrate` measures them, or no field int8"
                    ),
                )
            })?;
            Ok(Self { agreement: own.agreement.filter(|_| is_all), ..own.clone() })
        };
        sha256.iter().map(entry).collect()
    }

    /// The text of a configuration with what was `measured` in place of any it has: an object, or
    /// a list where there are several folds. What else it holds keeps its order; a layer takes a
    /// line.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if the text is not a JSON object.
    pub fn written_into(measured: &[Self], config_json: &str) -> Result<String, Mismatch> {
        let wrong = |error: serde_json::Error| Mismatch::new(error.to_string(), "a JSON object");
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(config_json).map_err(wrong)?;
        config.remove("int8");
        let rest = serde_json::to_string_pretty(&config).map_err(wrong)?;
        let mut text = rest.trim_end().trim_end_matches('}').trim_end().to_owned();
        text.push_str(if config.is_empty() { "" } else { "," });
        let entries = measured.iter().map(Self::written).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(wrong)?.join(", ");
        let is_list = measured.len() != 1;
        let (open, close) = if is_list { ("[", "]") } else { ("", "") };
        Ok(text + "\n  \"int8\": " + open + &entries + close + "\n}\n")
    }

    /// As JSON, a layer per line.
    fn written(&self) -> serde_json::Result<String> {
        let sha256 = serde_json::to_string(&self.weights_sha256)?;
        let agreement = match &self.agreement {
            Some(agreement) => {
                format!("    \"agreement\": {},\n", serde_json::to_string(agreement)?)
            }
            None => String::new(),
        };
        let layer = |(name, ranges): (&String, &Ranges)| {
            let (name, ranges) = (serde_json::to_string(name)?, serde_json::to_string(ranges)?);
            Ok(format!("\n      {name}: {ranges}"))
        };
        let layers = self.layers.iter().map(layer).collect::<serde_json::Result<Vec<_>>>()?;
        let layers = layers.join(",");
        Ok(format!(
            "{{\n    \"weights_sha256\": {sha256},\n{agreement}    \"layers\": {{{layers}\n    }}\n  }}"
        ))
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
        let one = [measured(0.999, 0.995)];
        let text = Quantization::written_into(&one, old).expect("an object");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["patch_size", "step_size", "int8"]);
        let read: Quantization = serde_json::from_value(value["int8"].clone()).expect("ranges");
        assert_eq!(read, measured(0.999, 0.995));
        assert!(Quantization::written_into(&one, "[]").is_err());
    }

    #[test]
    fn several_folds_are_a_list() {
        let folds = [measured(0.999, 0.995), Quantization::default()];
        let text = Quantization::written_into(&folds, "{}").expect("an object");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let read: Vec<Quantization> =
            serde_json::from_value(value["int8"].clone()).expect("a list of ranges");
        assert_eq!(read, folds);
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
        let first = measured(1.0, 1.0);
        let second = Quantization { weights_sha256: "0b".into(), ..first.clone() };
        let both = [first.clone(), second.clone()];
        let of = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|digest| (*digest).to_owned()).collect();
            Quantization::of_weights(&both, &list)
        };
        assert_eq!(of(&["0b", "0a"]), Ok(vec![second.clone(), first]));
        // One alone was never compared.
        assert_eq!(of(&["0b"]), Ok(vec![Quantization { agreement: None, ..second.clone() }]));
        assert!(of(&["0b", "0b"]).is_ok_and(|own| own.iter().all(|own| !own.is_close())));
        let refused = of(&["0a", "0c"]).expect_err("other weights").to_string();
        assert!(refused.contains("0a, 0b") && refused.contains("0c"), "{refused}");
        assert_eq!(Quantization::of_weights(&[], &["0c".into()]), Ok(vec![]));
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
