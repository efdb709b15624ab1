//! A catalog as JSON. What may name a patient is in it only if asked for.

use super::{Catalog, Series, Verdict};
use serde_json::{Value, json};

impl Catalog {
    /// The catalog as a JSON object. `show_text` adds descriptions, which are free text.
    #[must_use]
    pub fn to_json(&self, show_text: bool) -> Value {
        let studies: Vec<Value> = self
            .studies()
            .iter()
            .map(|study| {
                let series: Vec<Value> =
                    study.series.iter().map(|series| series.to_json(show_text)).collect();
                json!({ "name": study.name, "uid": study.series[0].study_uid, "series": series })
            })
            .collect();
        json!({
            "studies": studies,
            "other_files": self.others,
            "damaged_files": self.damaged.iter().map(|(_, reason)| reason).collect::<Vec<_>>(),
        })
    }
}

impl Series {
    /// One entry of a catalog.
    #[must_use]
    pub fn to_json(&self, show_text: bool) -> Value {
        let (verdict, notes) = match &self.verdict {
            Verdict::Suitable => ("suitable", Vec::new()),
            Verdict::Corrected(notes) => ("corrected", notes.clone()),
            Verdict::Refused { found, expected } => {
                ("refused", vec![format!("found {found}, expected {expected}")])
            }
        };
        let mut entry = json!({
            "name": self.name,
            "uid": self.series_uid,
            "part": self.part,
            "modality": (!self.modality.is_empty()).then_some(&self.modality),
            "class": self.class_uid,
            "slices": self.slices,
            "size": self.shape.map(|[z, y, x]| [x, y, z]),
            "spacing": self.spacing.map(|[z, y, x]| [x, y, z]),
            "plane": self.plane,
            "kernel": self.kernel,
            "contrast": self.contrast,
            "verdict": verdict,
            "notes": notes,
        });
        if show_text {
            entry["description"] = json!(self.texts.series);
            entry["study_description"] = json!(self.texts.study);
            entry["protocol"] = json!(self.texts.protocol);
            entry["contrast_agent"] = json!(self.texts.contrast);
        }
        entry
    }
}
