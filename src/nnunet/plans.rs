//! From nnU-Net's `plans.json` and `dataset.json` to this program's configuration.
//!
//! Both files enter as JSON; the configuration leaves as the JSON that
//! [`ModelConfig::from_json`](crate::model::ModelConfig::from_json) checks and `convert`
//! writes, together with what is needed to build the network.

use super::labels::Labels;
use crate::Mismatch;
use crate::model::Name;
use serde_json::{Map, Value, json};

/// What the two files say about one configuration.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    /// This program's configuration, without `model_path`.
    pub(super) config: Map<String, Value>,
    /// Name of the network's class, without its package.
    pub(super) class: String,
    /// Arguments of the network's class.
    pub(super) arguments: Map<String, Value>,
    /// Spatial axes of the network.
    pub(super) rank: usize,
    /// Image channels, and one per foreground label of the previous stage.
    pub(super) input_channels: usize,
    /// Classes or regions.
    pub(super) output_channels: usize,
    /// The configuration whose result this one refines.
    pub(super) previous_stage: Option<Name>,
    /// Name of the plans, as in folder names.
    pub(super) plans_name: Option<Name>,
    /// Name of the data set, such as `Dataset012_Liver`.
    pub(super) dataset_name: Option<String>,
}

/// Reads the plans for one configuration.
pub(super) fn read(
    plans: &Value,
    dataset: &Value,
    configuration: &str,
    mirror_axes: &[i64],
) -> Result<Configuration, Mismatch> {
    let resolved = resolve(plans, configuration)?;
    let labels = Labels::read(dataset)?;
    for (owner, field, usual) in [
        (plans, "label_manager", "LabelManager"),
        (&Value::Object(resolved.clone()), "preprocessor_name", "DefaultPreprocessor"),
    ] {
        if let Some(name) = owner.get(field).filter(|name| !name.is_null())
            && name != usual
        {
            return Err(Mismatch::new(format!("{field} {name}"), usual));
        }
    }
    let patch = ints(&resolved, "patch_size")?;
    let rank = patch.len();
    let previous_stage = match resolved.get("previous_stage") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(Name::new(name.clone())?),
        Some(other) => return Err(Mismatch::new(format!("previous_stage {other}"), "a name")),
    };
    let image_channels = dataset.get("modality").or_else(|| dataset.get("channel_names"));
    let image_channels = match image_channels {
        Some(Value::Object(channels)) if !channels.is_empty() => channels.len(),
        _ => {
            return Err(
                Mismatch::new("no channel_names", "one per image channel").within("dataset.json")
            );
        }
    };
    let mut config = Map::new();
    config.insert("configuration".into(), configuration.into());
    config.insert("patch_size".into(), json!(patch));
    let spacing = field(&resolved, "spacing")?;
    let numbers = spacing.as_array().is_some_and(|list| list.iter().all(Value::is_number));
    if !numbers {
        return Err(Mismatch::new(format!("spacing {spacing}"), "a list of numbers"));
    }
    config.insert("target_spacing".into(), spacing.clone());
    normalization(plans, &resolved, image_channels, &mut config)?;
    reader(plans, &mut config)?;
    config.insert("transpose_forward".into(), transpose(plans)?);
    labels.describe(&mut config, previous_stage.is_some());
    config.insert("mirror_axes".into(), json!(mirror_axes));
    config.insert("step_size".into(), json!(0.5));
    config.insert("use_gaussian".into(), json!(true));
    config.insert("resampling".into(), resampling(&resolved, previous_stage.is_some())?);
    config.insert("crop_to_nonzero".into(), json!(true));
    // What nnU-Net v1 did otherwise.
    for key in ["normalize", "network_output", "tile_weights"] {
        if let Some(value) = plans.get(key) {
            config.insert(key.into(), value.clone());
        }
    }
    if let Some(name) = &previous_stage {
        config.insert("previous_stage".into(), name.as_str().into());
    }
    let (class, arguments) = architecture(&resolved, rank)?;
    let one_hot = if previous_stage.is_some() { labels.foreground().len() } else { 0 };
    let name = |field: &str| plans.get(field).and_then(Value::as_str).map(str::to_owned);
    Ok(Configuration {
        config,
        class,
        arguments,
        rank,
        input_channels: image_channels + one_hot,
        output_channels: labels.heads(),
        previous_stage,
        plans_name: name("plans_name").map(Name::new).transpose()?,
        dataset_name: name("dataset_name"),
    })
}

/// A configuration with what it inherits.
fn resolve(plans: &Value, name: &str) -> Result<Map<String, Value>, Mismatch> {
    let all = plans.get("configurations").and_then(Value::as_object);
    let all = all.ok_or_else(|| Mismatch::new("no configurations", "some").within("plans.json"))?;
    let (mut merged, mut at, mut seen) = (Map::new(), name, Vec::new());
    loop {
        if seen.contains(&at) {
            return Err(Mismatch::new(
                format!("configuration {at:?} inheriting from itself"),
                "inherits_from without a circle",
            ));
        }
        seen.push(at);
        let Some(Value::Object(one)) = all.get(at) else {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(Mismatch::new(
                format!("no configuration {at:?} in plans.json"),
                format!("one of {}", known.join(", ")),
            ));
        };
        for (key, value) in one {
            merged.entry(key.clone()).or_insert_with(|| value.clone());
        }
        match one.get("inherits_from") {
            Some(Value::String(parent)) => at = parent,
            None | Some(Value::Null) => return Ok(merged),
            Some(other) => return Err(Mismatch::new(format!("inherits_from {other}"), "a name")),
        }
    }
}

fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Mismatch> {
    map.get(name).ok_or_else(|| Mismatch::new(format!("no {name} in plans.json"), "one"))
}

fn ints(map: &Map<String, Value>, name: &str) -> Result<Vec<u64>, Mismatch> {
    let value = field(map, name)?;
    let list = value.as_array().and_then(|list| list.iter().map(Value::as_u64).collect());
    list.ok_or_else(|| Mismatch::new(format!("{name} {value}"), "a list of counts"))
}

fn normalization(
    plans: &Value,
    resolved: &Map<String, Value>,
    channels: usize,
    config: &mut Map<String, Value>,
) -> Result<(), Mismatch> {
    let schemes = match field(resolved, "normalization_schemes")? {
        Value::Array(schemes) => schemes.clone(),
        other => return Err(Mismatch::new(format!("normalization_schemes {other}"), "a list")),
    };
    if schemes.len() != channels {
        return Err(Mismatch::new(
            format!("{} normalization_schemes for {channels} channels", schemes.len()),
            "one per channel",
        ));
    }
    let properties = plans
        .get("foreground_intensity_properties_per_channel")
        .or_else(|| plans.get("foreground_intensity_properties_by_modality"));
    let mut intensities = Vec::new();
    for (channel, scheme) in schemes.iter().enumerate() {
        let entry = properties.and_then(|p| p.get(channel.to_string()));
        let mut one = Map::new();
        for name in ["mean", "std", "percentile_00_5", "percentile_99_5"] {
            let number = entry.and_then(|e| e.get(name)).and_then(Value::as_f64);
            let number = match number {
                Some(number) => number,
                // Only this scheme reads them.
                None if scheme == "CTNormalization" => {
                    return Err(Mismatch::new(
                        format!("no {name} of channel {channel} in plans.json"),
                        "foreground_intensity_properties_per_channel",
                    ));
                }
                None => 0.0,
            };
            one.insert(name.into(), number.into());
        }
        intensities.push(Value::Object(one));
    }
    let masks: Vec<bool> = match resolved.get("use_mask_for_norm") {
        None | Some(Value::Null) => vec![false; channels],
        Some(value) => (0..channels)
            .map(|k| value.get(k).or_else(|| value.get(k.to_string()))?.as_bool())
            .collect::<Option<_>>()
            .ok_or_else(|| {
                Mismatch::new(format!("use_mask_for_norm {value}"), "true or false per channel")
            })?,
    };
    config.insert("normalization".into(), schemes.into());
    config.insert("intensity_properties".into(), intensities.into());
    config.insert("use_mask_for_norm".into(), json!(masks));
    Ok(())
}

fn reader(plans: &Value, config: &mut Map<String, Value>) -> Result<(), Mismatch> {
    let name = plans.get("image_reader_writer").and_then(Value::as_str).unwrap_or("SimpleITKIO");
    let orientation = match name {
        "SimpleITKIO" | "NibabelIO" => "native",
        "SimpleITKIOWithReorient" | "NibabelIOWithReorient" => "RAS",
        other => {
            return Err(Mismatch::new(
                format!("image_reader_writer {other}"),
                "SimpleITKIO or NibabelIO, with or without WithReorient",
            ));
        }
    };
    config.insert("reader".into(), name.into());
    config.insert("orientation".into(), orientation.into());
    Ok(())
}

fn transpose(plans: &Value) -> Result<Value, Mismatch> {
    let get = |name: &str| -> Option<Vec<u64>> {
        plans.get(name)?.as_array()?.iter().map(Value::as_u64).collect()
    };
    let forward = get("transpose_forward").unwrap_or_else(|| vec![0, 1, 2]);
    let backward = get("transpose_backward");
    let inverse: Option<Vec<u64>> =
        (0..3).map(|k| forward.iter().position(|&f| f == k).map(|p| p as u64)).collect();
    if forward.len() != 3 || inverse.is_none() || backward.is_some_and(|b| Some(b) != inverse) {
        return Err(Mismatch::new(
            format!("transpose_forward {forward:?} and its transpose_backward"),
            "an order of three axes and its inverse",
        ));
    }
    Ok(json!(forward))
}

/// The three resampling functions as one [`Resampling`](crate::model::Resampling).
fn resampling(resolved: &Map<String, Value>, cascade: bool) -> Result<Value, Mismatch> {
    let mut found = Vec::new();
    for kind in ["data", "probabilities", "seg"] {
        let name = format!("resampling_fn_{kind}");
        let function = resolved.get(&name).and_then(Value::as_str);
        if kind == "seg" && !cascade {
            continue;
        }
        // PyTorch's interpolation is linear, with the nearest slice along a separate axis; the
        // same as ours of order 1 but for labels, which only a cascade resamples.
        let torch = function == Some("resample_torch_fornnunet") && kind != "seg";
        if !torch && function.is_some_and(|f| f != "resample_data_or_seg_to_shape") {
            return Err(Mismatch::new(
                format!("{name} {}", function.unwrap_or_default()),
                "resample_data_or_seg_to_shape or, without a cascade, resample_torch_fornnunet",
            ));
        }
        let empty = Map::new();
        let key = format!("{name}_kwargs");
        let arguments = resolved.get(&key).and_then(Value::as_object).unwrap_or(&empty);
        // The function's own defaults, where the plans leave an argument out.
        let (mut order, mut order_z, mut separate) = (3, 0, Value::Bool(false));
        if torch {
            (order, separate) = (1, Value::Null);
        }
        for (argument, value) in arguments {
            let refused =
                || Mismatch::new(format!("{argument} {value} in {key}"), "the usual value");
            match argument.as_str() {
                "order" => order = value.as_u64().ok_or_else(refused)?,
                "order_z" => order_z = value.as_u64().ok_or_else(refused)?,
                "force_separate_z" if value.is_null() || value.is_boolean() => {
                    separate = value.clone();
                }
                "is_seg" if *value == Value::Bool(kind == "seg") => {}
                "mode" if torch && value == "linear" => {}
                "aniso_axis_mode" if torch && value == "nearest-exact" => {}
                // How the reference runs, not what it computes.
                "device" | "num_threads" | "memefficient_seg_resampling" if torch => {}
                "separate_z_anisotropy_threshold" if value.as_f64() == Some(3.0) => {}
                _ => return Err(refused()),
            }
        }
        found.push((order, order_z, separate));
    }
    let (order, order_z, separate) = found[0].clone();
    let order_logits = found[1].0;
    let same = found.iter().all(|f| f.2 == separate) && found[1..].iter().all(|f| f.1 == 0);
    if !same || found.get(2).is_some_and(|seg| seg.0 != 1) {
        return Err(Mismatch::new(
            "resampling arguments that differ between data, probabilities and seg",
            "order_z 0 and order 1 for probabilities and seg, one force_separate_z for all",
        ));
    }
    Ok(json!({
        "order": order,
        "order_z": order_z,
        "order_logits": order_logits,
        "force_separate_z": separate,
    }))
}

/// Class and arguments of the network; plans from before nnU-Net 2.4 spread them over the
/// configuration.
fn architecture(
    resolved: &Map<String, Value>,
    rank: usize,
) -> Result<(String, Map<String, Value>), Mismatch> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(architecture) = resolved.get("architecture") {
        let class = architecture.get("network_class_name").and_then(Value::as_str);
        let arguments = architecture.get("arch_kwargs").and_then(Value::as_object);
        return match (class, arguments) {
            (Some(class), Some(arguments)) => Ok((last(class), arguments.clone())),
            _ => Err(Mismatch::new(
                "an architecture without class or arguments",
                "network_class_name and arch_kwargs",
            )),
        };
    }
    let class = field(resolved, "UNet_class_name")?.as_str().unwrap_or_default();
    let blocks = match class {
        "PlainConvUNet" => "n_conv_per_stage",
        "ResidualEncoderUNet" => "n_blocks_per_stage",
        other => {
            return Err(Mismatch::new(
                format!("network class {other}"),
                "PlainConvUNet or ResidualEncoderUNet",
            ));
        }
    };
    let number = |name: &str| {
        let value = field(resolved, name)?;
        value.as_u64().ok_or_else(|| Mismatch::new(format!("{name} {value}"), "a count"))
    };
    let stages = ints(resolved, "n_conv_per_stage_encoder")?.len();
    let (base, most) = (number("UNet_base_num_features")?, number("unet_max_num_features")?);
    let features: Vec<u64> = (0..stages)
        .map(|s| base.saturating_mul(1_u64.checked_shl(s as u32).unwrap_or(u64::MAX)).min(most))
        .collect();
    let arguments = json!({
        "n_stages": stages,
        "features_per_stage": features,
        "conv_op": format!("torch.nn.modules.conv.Conv{rank}d"),
        "kernel_sizes": field(resolved, "conv_kernel_sizes")?,
        "strides": field(resolved, "pool_op_kernel_sizes")?,
        blocks: field(resolved, "n_conv_per_stage_encoder")?,
        "n_conv_per_stage_decoder": field(resolved, "n_conv_per_stage_decoder")?,
        "conv_bias": true,
        "norm_op": format!("torch.nn.modules.instancenorm.InstanceNorm{rank}d"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": true},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": true},
    });
    match arguments {
        Value::Object(arguments) => Ok((class.to_owned(), arguments)),
        _ => Err(Mismatch::new("no arguments", "some")),
    }
}
