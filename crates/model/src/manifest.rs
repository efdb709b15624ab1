//! Build time: `models/` and `config/` to checked models, or one message that says what is
//! wrong with which model and what to do.
//!
//! For the build script and its tests; the program sees the result.

use super::config::{CONFIGURATIONS, Grade, ModelConfig};
use super::graph::{self, Expected, Summary};
use super::quantization::Quantization;
use super::tasks::Tasks;
use super::{labels, modes};
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// `models/MANIFEST.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    model: Vec<Entry>,
}

/// One model of the manifest.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name, as on the command line and in `config/modes.json`.
    pub name: String,
    /// File in `models/`.
    pub file: String,
    /// SHA-256 of the file, lowercase hexadecimal.
    pub sha256: String,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Where the weights come from.
    pub source: String,
    /// SPDX expression for the weights.
    pub license: String,
    /// How much the model may be trusted; the configuration must agree.
    pub grade: Grade,
}

/// A model that passed every check.
#[derive(Debug)]
pub struct Checked {
    /// Its line in the manifest.
    pub entry: Entry,
    /// The configuration folder its JSON lies in.
    pub configuration: &'static str,
    /// Whether it is two-dimensional.
    pub two_d: bool,
    /// Voxels per tile, `[z, y, x]`.
    pub patch_size: [usize; 3],
    /// What the graph says.
    pub summary: Summary,
    /// The ONNX file.
    pub onnx: Bytes,
}

/// Reads and checks everything under `root`; models come sorted by name.
///
/// # Errors
///
/// One message naming the model or file, what was found and what to do.
pub fn load(root: &Path) -> Result<Vec<Checked>, String> {
    let models = root.join("models");
    let manifest_path = models.join("MANIFEST.toml");
    let manifest: Manifest = if manifest_path.exists() {
        toml::from_str(&read_text(&manifest_path)?)
            .map_err(|e| format!("models/MANIFEST.toml: {e}"))?
    } else {
        Manifest { model: Vec::new() }
    };
    let mut entries = BTreeMap::new();
    for entry in manifest.model {
        check_entry(&entry)?;
        let name = entry.name.clone();
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("model {name}: listed twice in models/MANIFEST.toml; keep one"));
        }
    }
    nothing_unlisted(root, &entries)?;
    let tables =
        labels::parse(&label_tables(root)?, &[]).map_err(|e| format!("config/labels/{e}"))?;
    let tasks_path = root.join("config/tasks.json");
    let tasks = if tasks_path.exists() {
        Tasks::parse(&read_text(&tasks_path)?).map_err(|e| format!("config/tasks.json: {e}"))?
    } else {
        Tasks::default()
    };
    let tables = [&tables[..], &tasks.tables(&tables)].concat();
    let modes_path = root.join("config/modes.json");
    if modes_path.exists() {
        let recipes = recipes(root)?;
        let recipes: Vec<&str> = recipes.iter().map(|(name, _)| name.as_str()).collect();
        modes::parse(&read_text(&modes_path)?)
            .and_then(|mut modes| {
                tasks.join(&mut modes)?;
                modes::check_tables(&modes, &tables)?;
                modes::check_recipes(&modes, &recipes)
            })
            .map_err(|e| format!("config/modes.json: {e}"))?;
    }
    entries
        .into_values()
        .map(|entry| {
            let name = entry.name.clone();
            check_model(root, entry).map_err(|message| format!("model {name}: {message}"))
        })
        .collect()
}

/// The label tables under `root`: names and contents, sorted by name.
///
/// # Errors
///
/// A message naming the file that cannot be read.
pub fn label_tables(root: &Path) -> Result<Vec<(String, String)>, String> {
    json_files(&root.join("config/labels"))
}

/// The postprocessing recipes under `root`: names and contents, sorted by name.
///
/// # Errors
///
/// A message naming the file that cannot be read.
pub fn recipes(root: &Path) -> Result<Vec<(String, String)>, String> {
    json_files(&root.join("config/postprocess"))
}

fn json_files(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let read = |stem: String| {
        let json = read_text(&folder.join(format!("{stem}.json")))?;
        Ok((stem, json))
    };
    stems(folder, "json")?.into_iter().map(read).collect()
}

fn read_text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn check_entry(entry: &Entry) -> Result<(), String> {
    let name = &entry.name;
    if !is_name(name) {
        return Err(format!(
            "models/MANIFEST.toml: name {name:?}, expected lowercase letters, digits and _, \
             starting with a letter"
        ));
    }
    if entry.file != format!("{name}.onnx") {
        return Err(format!("model {name}: file is {:?}, expected \"{name}.onnx\"", entry.file));
    }
    for (field, value) in [("source", &entry.source), ("license", &entry.license)] {
        if value.trim().is_empty() {
            return Err(format!("model {name}: {field} is empty in models/MANIFEST.toml"));
        }
    }
    Ok(())
}

/// Whether a text serves as model name: it becomes a file and a Rust module.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Every ONNX file and every configuration belongs to a line of the manifest.
fn nothing_unlisted(root: &Path, entries: &BTreeMap<String, Entry>) -> Result<(), String> {
    for stem in stems(&root.join("models"), "onnx")? {
        if !entries.contains_key(&stem) {
            return Err(format!(
                "model {stem}: models/{stem}.onnx has no line in models/MANIFEST.toml; add\n\
                 [[model]]\nname = \"{stem}\"\nfile = \"{stem}.onnx\"\nsha256 = \"...\"\n\
                 opset = 17\nsource = \"...\"\nlicense = \"...\"\ngrade = \"demo\""
            ));
        }
    }
    for configuration in CONFIGURATIONS {
        for stem in stems(&root.join("config").join(configuration), "json")? {
            if !entries.contains_key(&stem) {
                return Err(format!(
                    "model {stem}: config/{configuration}/{stem}.json has no line in \
                     models/MANIFEST.toml; add models/{stem}.onnx and its line, or remove the file"
                ));
            }
        }
    }
    Ok(())
}

/// Names without extension of the files of one kind in a folder, sorted; none if no folder.
fn stems(folder: &Path, extension: &str) -> Result<Vec<String>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let fail = |e| format!("cannot list {}: {e}", folder.display());
    let mut stems = Vec::new();
    for item in fs::read_dir(folder).map_err(fail)? {
        let path = item.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
            stems.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    stems.sort();
    Ok(stems)
}

fn check_model(root: &Path, entry: Entry) -> Result<Checked, String> {
    let Entry { name, file, .. } = &entry;
    let path = root.join("models").join(file);
    let onnx = match fs::read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(e) => {
            return Err(format!(
                "cannot read models/{file} ({e}); add the file or remove its line from \
                 models/MANIFEST.toml"
            ));
        }
    };
    // An empty or cut-off file has the wrong hash too; what it is says more.
    let model = graph::parse(onnx.clone()).map_err(|e| format!("models/{file}: {e}"))?;
    let sha256 = sha256(&onnx);
    if sha256 != entry.sha256 {
        return Err(format!(
            "models/{file} has SHA-256 {sha256}, models/MANIFEST.toml says {}",
            entry.sha256
        ));
    }
    let (configuration, config) = find_config(root, name)?;
    let shown = format!("config/{configuration}/{name}.json");
    if config.two_d != (configuration == "2d") {
        return Err(format!(
            "{shown}: patch_size has {} axes, expected {} in config/{configuration}",
            if config.two_d { 2 } else { 3 },
            if config.two_d { 3 } else { 2 },
        ));
    }
    if config.model_path.as_ref().is_some_and(|path| path != file) {
        return Err(format!("{shown}: model_path is {:?}, expected {file:?}", config.model_path));
    }
    if config.grade != entry.grade {
        return Err(format!(
            "{shown}: grade is {}, models/MANIFEST.toml says {}; make them agree",
            config.grade, entry.grade
        ));
    }
    Quantization::of_weights(&config.int8, std::slice::from_ref(&sha256))
        .map_err(|e| format!("{shown}: {e}"))?;
    let expected = Expected {
        opset: Some(entry.opset),
        two_d: config.two_d,
        patch_size: config.patch_size,
        input_channels: config.input_channels(),
        output_channels: output_channels(&config).map_err(|e| format!("{shown}: {e}"))?,
    };
    let summary =
        graph::check(&model, &expected).map_err(|e| format!("models/{file}: {e} ({shown})"))?;
    Ok(Checked {
        configuration,
        two_d: config.two_d,
        patch_size: config.patch_size,
        summary,
        onnx,
        entry,
    })
}

/// The one configuration of a model.
fn find_config(root: &Path, name: &str) -> Result<(&'static str, ModelConfig), String> {
    let path = |folder: &str| root.join("config").join(folder).join(format!("{name}.json"));
    let found: Vec<&'static str> =
        CONFIGURATIONS.into_iter().filter(|folder| path(folder).exists()).collect();
    let [folder] = found[..] else {
        return Err(if found.is_empty() {
            format!(
                "no configuration; add config/3d_fullres/{name}.json (or the same file in one of {})",
                CONFIGURATIONS.join(", ")
            )
        } else {
            format!("configurations in {}; keep one", found.join(" and "))
        });
    };
    let config = ModelConfig::from_json(&read_text(&path(folder))?)
        .map_err(|e| format!("config/{folder}/{name}.json: {e}"))?;
    Ok((folder, config))
}

/// Output channels the labels call for; `None` without labels.
fn output_channels(config: &ModelConfig) -> Result<Option<usize>, String> {
    if let Some(order) = &config.regions_class_order {
        return Ok(Some(order.len()));
    }
    let Some(last) = config.labels.last() else { return Ok(None) };
    // Class k of the output is label k, so a gap would be a class without a name.
    if usize::from(last.id) != config.labels.len() {
        return Err(format!(
            "labels are {} structures up to id {}, expected ids 1, 2, 3 and so on",
            config.labels.len(),
            last.id
        ));
    }
    Ok(Some(config.labels.len() + 1))
}

/// SHA-256 in lowercase hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

/// The source of the tables that the program includes: models, label tables and recipes.
///
/// # Errors
///
/// A message naming the file that cannot be read.
pub fn source(root: &Path, models: &[Checked]) -> Result<String, String> {
    let (tables, recipes) = (label_tables(root)?, recipes(root)?);
    let mut code =
        String::from("#[allow(clippy::unreadable_literal)]\nstatic MODELS: &[Embedded] = &[\n");
    for Checked { entry, configuration, summary, .. } in models {
        let Entry { name, file, sha256, source, license, grade, .. } = entry;
        let Summary { opset, input_channels, output_channels } = summary;
        let _ = write!(
            code,
            "    Embedded {{
        name: {name:?},
        configuration: {configuration:?},
        config_json: include_str!({}),
        source: {source:?},
        license: {license:?},
        grade: Grade::{grade:?},
        onnx: include_bytes!({}),
        sha256: {sha256:?},
        opset: {opset},
        channels: ({input_channels}, {output_channels}),
    }},
",
            in_package(&format!("config/{configuration}/{name}.json")),
            in_package(&format!("models/{file}")),
        );
    }
    let modes = if root.join("config/modes.json").exists() {
        format!("include_str!({})", in_package("config/modes.json"))
    } else {
        r##"r#"{"modes": []}"#"##.to_owned()
    };
    let tasks = if root.join("config/tasks.json").exists() {
        format!("include_str!({})", in_package("config/tasks.json"))
    } else {
        let none = r#"{"version": 1, "made_from": "", "datasets": [], "tasks": []}"#;
        format!("{none:?}")
    };
    let _ = write!(code, "];\n\nstatic MODES_JSON: &str = {modes};\n\n");
    let _ = write!(code, "static TASKS_JSON: &str = {tasks};\n\n");
    for (list, folder, files) in
        [("LABEL_TABLES", "labels", &tables), ("RECIPES", "postprocess", &recipes)]
    {
        let _ = writeln!(code, "static {list}: &[(&str, &str)] = &[");
        for (name, _) in files {
            let file = in_package(&format!("config/{folder}/{name}.json"));
            let _ = writeln!(code, "    ({name:?}, include_str!({file})),");
        }
        code.push_str("];\n\n");
    }
    Ok(code)
}

/// An expression for a file of the package that holds no machine's path.
fn in_package(file: &str) -> String {
    format!(r#"concat!(env!("CARGO_MANIFEST_DIR"), "/{file}")"#)
}
