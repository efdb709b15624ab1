//! What the fuzz targets ask of this room's parsers.

use super::checkpoint::Checkpoint;
use super::network::{self, Architecture};
use super::pickle::{Id, Pickle, Value};
use super::{EngineIni, json, plans};
use crate::files::Allowance;
use crate::model::{CONFIGURATIONS, ModelConfig};
use std::path::Path;

/// Values looked at and weights read per input: more of them find nothing new, only later.
const LOOKED_AT: usize = 2000;
const WEIGHTS_READ: usize = 64;

pub(crate) fn pickle(bytes: &[u8]) {
    let Ok(pickle) = Pickle::parse(bytes.to_vec(), Allowance::default()) else { return };
    let _ = pickle.json(pickle.root());
    let mut open = vec![pickle.root()];
    for _ in 0..LOOKED_AT {
        let Some(id) = open.pop() else { break };
        look(&pickle, id);
        match pickle.value(id) {
            Value::List(all) | Value::Tuple(all) | Value::Set(all) => open.extend(all),
            Value::Dict(pairs) => open.extend(pairs.iter().flat_map(|&(key, value)| [key, value])),
            Value::Call { callee, arguments, state } => {
                open.extend([*callee, *arguments]);
                open.extend(*state);
            }
            Value::Persistent(inner) => open.push(*inner),
            _ => {}
        }
    }
}

/// Asks for a value as everything it might be.
fn look(pickle: &Pickle, id: Id) {
    let _ = (pickle.text(id), pickle.int(id), pickle.is_none(id), pickle.describe(id));
    let _ = (pickle.items(id), pickle.entries(id), pickle.names(id), pickle.call(id));
    let _ = pickle.lookup(id, "network_weights");
}

pub(crate) fn checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path, Allowance::default()) else { return };
    let _ = checkpoint.note("init_args");
    let _ = checkpoint.pickle().map(|pickle| pickle.describe(pickle.root()));
    let Ok(weights) = network::names(&checkpoint, Allowance::default()) else { return };
    let Ok(mut storages) = checkpoint.storages(weights.values()) else { return };
    for tensor in weights.values().take(WEIGHTS_READ) {
        let _ = storages.read(tensor);
    }
}

pub(crate) fn plans(plans: &str, dataset: &str) {
    let (Ok(plans), Ok(dataset)) = (json::parse(plans), json::parse(dataset)) else { return };
    for name in CONFIGURATIONS {
        let Ok(plan) = plans::read(&plans, &dataset, name, &[0, 1]) else { continue };
        let _ = ModelConfig::from_json(&serde_json::Value::Object(plan.config.clone()).to_string());
        let channels = (plan.input_channels, plan.output_channels);
        let _ = Architecture::read(&plan.class, &plan.arguments, plan.rank, channels);
    }
}

pub(crate) fn engine_ini(text: &str) {
    let Ok(settings) = EngineIni::parse(text) else { return };
    let _ = ModelConfig::from_json(&settings.config_json("network.onnx"));
}
