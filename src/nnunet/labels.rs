//! The labels of `dataset.json`: classes, or regions that overlap.

use crate::Mismatch;
use crate::model::Label;
use serde_json::{Map, Value, json};

/// What a network's outputs mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    /// Integers that occur, ascending, with background and without the ignore label.
    all: Vec<u16>,
    /// Names of classes, by integer.
    names: Vec<(u16, String)>,
    /// Names of regions and the label painted for each, if this is a region task.
    regions: Option<Vec<(String, u16)>>,
}

/// An integer, also one written as text.
fn integer(value: &Value) -> Option<u16> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => {
            let real = other.as_f64().filter(|x| x.fract() == 0.0 && (0.0..65535.0).contains(x));
            real.map(|x| x as u16)
        }
    }
}

impl Labels {
    /// Reads `labels` and `regions_class_order`.
    pub(super) fn read(dataset: &Value) -> Result<Self, Mismatch> {
        let wrong =
            |found: String, expected: &str| Mismatch::new(found, expected).within("dataset.json");
        let Some(Value::Object(written)) = dataset.get("labels") else {
            return Err(wrong("no labels".into(), "names and their integers"));
        };
        if written.get("background").and_then(integer) != Some(0) {
            return Err(wrong("no background of 0 among the labels".into(), "one"));
        }
        let mut entries = Vec::new();
        for (name, value) in written.iter().filter(|(name, _)| *name != "ignore") {
            let integers = match value {
                Value::Array(list) => list.iter().map(integer).collect(),
                one => integer(one).map(|one| vec![one]),
            };
            let integers: Vec<u16> = integers
                .filter(|list: &Vec<u16>| !list.is_empty())
                .ok_or_else(|| wrong(format!("label {name:?}: {value}"), "integers from 0"))?;
            entries.push((name.clone(), integers));
        }
        let mut all: Vec<u16> = entries.iter().flat_map(|(_, list)| list).copied().collect();
        all.sort_unstable();
        all.dedup();
        if let Some(ignore) = written.get("ignore").filter(|value| !value.is_null()) {
            let expected = all.last().map(|&last| last + 1);
            if integer(ignore) != expected {
                return Err(wrong(
                    format!("an ignore label of {ignore}"),
                    "the highest label and one",
                ));
            }
        }
        let mut names: Vec<(u16, String)> = Vec::new();
        for (name, list) in &entries {
            if let [id] = list[..]
                && !names.iter().any(|(known, _)| *known == id)
            {
                names.push((id, name.clone()));
            }
        }
        let regions = if entries.iter().any(|(_, list)| list.len() > 1) {
            let regions: Vec<String> = entries
                .iter()
                .filter(|(_, list)| list.iter().any(|&id| id != 0))
                .map(|(name, _)| name.clone())
                .collect();
            let order = dataset.get("regions_class_order").and_then(Value::as_array);
            let order: Option<Vec<u16>> = order.and_then(|o| o.iter().map(integer).collect());
            let order = order.filter(|order| order.len() == regions.len());
            let order = order.ok_or_else(|| {
                wrong("no regions_class_order that fits".into(), "one label per region")
            })?;
            Some(regions.into_iter().zip(order).collect())
        } else {
            None
        };
        Ok(Self { all, names, regions })
    }

    /// Integers other than background.
    pub(super) fn foreground(&self) -> &[u16] {
        &self.all[usize::from(self.all.first() == Some(&0))..]
    }

    /// Output channels.
    pub(super) fn heads(&self) -> usize {
        self.regions.as_ref().map_or(self.all.len(), Vec::len)
    }

    /// Adds what the configuration says about labels.
    pub(super) fn describe(&self, config: &mut Map<String, Value>, cascade: bool) {
        let named = |id: u16, name: &str| {
            let name = if name.is_empty() { Label::unnamed(id) } else { name.to_owned() };
            json!({"id": id, "name": name})
        };
        let mut labels = Vec::new();
        if let Some(regions) = &self.regions {
            let mut painted: Vec<u16> = Vec::new();
            for (name, id) in regions {
                if !painted.contains(id) {
                    painted.push(*id);
                    labels.push(named(*id, name));
                }
            }
            let order: Vec<u16> = regions.iter().map(|(_, id)| *id).collect();
            config.insert("regions_class_order".into(), json!(order));
        } else {
            // The reference writes the channel's number, whatever the label's integer is.
            for (channel, label) in self.all.iter().enumerate().skip(1) {
                let name = self.names.iter().find(|(id, _)| id == label);
                labels.push(named(channel as u16, name.map_or("", |(_, name)| name.as_str())));
            }
        }
        config.insert("labels".into(), labels.into());
        if cascade {
            config.insert("previous_stage_labels".into(), json!(self.foreground()));
        }
    }
}
