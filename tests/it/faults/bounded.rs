//! What hostile files cost: time and memory of whole runs, over the files that are kept and over
//! those that a generator makes.

use super::networks::Network;
use super::{files_below, hostile, program, scan};
use crate::copy_folder;
use crate::nifti_files;
use fastnnunet::registry;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A run, and what it took.
pub(super) struct Ended {
    /// The exit code; none for a run that a signal ended.
    pub(super) code: Option<i32>,
    pub(super) message: String,
    /// Largest resident size in bytes.
    pub(super) peak: u64,
    pub(super) took: Duration,
}

/// Runs a command; one that goes on for two minutes is ended.
pub(super) fn peak_of(command: &assert_cmd::Command) -> Ended {
    let started = Instant::now();
    let mut child = Command::new(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let [status, stat] = ["status", "stat"].map(|name| format!("/proc/{}/{name}", child.id()));
    let (mut peak, mut took) = (0, Duration::ZERO);
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(number.unwrap_or(0) << 10);
        took = took.max(processor_time(&fs::read_to_string(&stat).unwrap_or_default()));
        if let Some(status) = child.try_wait().expect("a child") {
            break status.code();
        }
        if started.elapsed() > Duration::from_mins(2) {
            child.kill().expect("a child");
        }
        thread::sleep(Duration::from_millis(1));
    };
    let mut message = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    std::io::Read::read_to_string(&mut stderr, &mut message).expect("text");
    Ended { code, message, peak, took }
}

/// What a process took of processors, by its `/proc/PID/stat`: a hundredth of a second is the unit there.
pub(super) fn processor_time(stat: &str) -> Duration {
    // The second field is a name in parentheses; what follows it begins with the third.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

const LIMIT: u64 = 300 << 20;

/// Runs a command under a limit and checks that it stays within it, ends soon, and says why it does
/// not succeed.
fn check(command: &mut assert_cmd::Command, case: &str) -> i32 {
    let Ended { code, message, peak, took } = peak_of(command);
    let Some(code) = code else { panic!("{case}: ended by a signal after {took:?}: {message}") };
    assert!(matches!(code, 0 | 2..=7), "{case}: code {code}: {message}");
    let errors = message.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, usize::from(code != 0), "{case}: {message}");
    assert!(peak <= LIMIT + LIMIT / 20, "{case}: {} MiB: {message}", peak >> 20);
    assert!(took < Duration::from_secs(10), "{case}: {took:?}: {message}");
    code
}

fn limited() -> assert_cmd::Command {
    let mut command = program();
    command.args(["--memory-limit", &LIMIT.to_string()]);
    command
}

/// Every file of `tests/hostile` and `tests/regressions` as all that the program reads.
#[test]
fn every_hostile_file_is_cheap_whatever_it_is_taken_for() {
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let files = [files_below(&hostile("")), files_below(&regressions)].concat();
    assert!(files.len() >= 8, "{files:?}");
    let folder = tempfile::tempdir().expect("folder");
    let onnx = folder.path().join("net.onnx");
    let selftest = registry::find("selftest").expect("built in");
    fs::write(&onnx, selftest.onnx().expect("embedded")).expect("writes");
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let on_scan = |arguments: &[&std::ffi::OsStr]| {
            let mut command = limited();
            command.arg("-i").arg(scan()).arg("-o").arg(at("l.nii.gz")).arg("--overwrite");
            command.args(arguments);
            command
        };
        let mut image = limited();
        image.args(["--model", "selftest", "-o"]).arg(at("l.nii.gz")).arg("-i").arg(file);
        check(&mut image, &format!("{name} as an image"));
        let (model, config): (&std::ffi::OsStr, &std::ffi::OsStr) =
            ("--model".as_ref(), "--config".as_ref());
        let less = hostile("less.json");
        let network = [model, file.as_ref(), config, less.as_ref()];
        check(&mut on_scan(&network), &format!("{name} as a network"));
        let settings = [model, onnx.as_ref(), config, file.as_ref()];
        check(&mut on_scan(&settings), &format!("{name} as a configuration"));
        let recipe = [model, "selftest".as_ref(), "--postprocess".as_ref(), file.as_ref()];
        check(&mut on_scan(&recipe), &format!("{name} as a recipe"));
        let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
        for place in ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"] {
            let trained = at("trained");
            copy_folder(&plain, &trained);
            fs::copy(file, trained.join(place)).expect("copies");
            let arguments = [model, trained.as_ref(), "--folds".as_ref(), "0".as_ref()];
            check(&mut on_scan(&arguments), &format!("{name} as {place}"));
        }
        let models = at("models");
        fs::create_dir(&models).expect("folder");
        fs::copy(file, models.join("modes.json")).expect("copies");
        let mut modes = program();
        modes.args(["modes", "--models-dir"]).arg(&models);
        check(&mut modes, &format!("{name} as modes.json"));
        let mut import = program();
        import.arg("import").arg(file).arg("-o").arg(at("imported"));
        check(&mut import, &format!("{name} as weights to import"));
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }

    /// As often small as large.
    fn size(&mut self, most_bits: u64) -> i64 {
        let bits = self.below(most_bits + 1);
        1 + self.below(1 << bits) as i64
    }
}

/// One voxel grid of a patch: what is run is run once.
pub(super) fn one_patch(folder: &Path) -> PathBuf {
    let path = folder.join("patch.nii");
    let file = nifti_files::Nifti {
        dim: vec![3, 8, 8, 8],
        pixdim: [1.0, 2.0, 2.0, 3.0],
        srow: [[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]],
        voxels: [-1000_i16, 300].repeat(256).into_iter().flat_map(i16::to_le_bytes).collect(),
        ..nifti_files::ct()
    };
    fs::write(&path, file.bytes()).expect("writes");
    path
}

/// A value of a network that is being made up.
#[derive(Clone)]
struct Made {
    name: String,
    channels: i64,
    /// Edge in voxels.
    edge: i64,
}

/// A network of few bytes that asks for much: wide, deep, with weights that nodes share, with values
/// read again and again, enlarged and joined.
fn network(random: &mut Random) -> Network {
    let mut network = Network::default();
    let mut values = vec![Made { name: "input".into(), channels: 1, edge: 8 }];
    let mut weights: Vec<(String, [i64; 5])> = Vec::new();
    let mut stored = 0;
    for k in 0..random.size(11) {
        let last = values[values.len() - 1].clone();
        let from = if random.below(4) > 0 { last } else { random.of(&values) };
        let name = format!("v{k}");
        let mut made = Made { name: name.clone(), ..from.clone() };
        match random.below(8) {
            0..=2 => {
                let fits = |(_, dims): &&(String, [i64; 5])| dims[1] == from.channels;
                let known: Vec<_> = weights.iter().filter(fits).cloned().collect();
                let (weight, dims) = if known.is_empty() || random.below(3) == 0 {
                    let edge = random.of(&[1, 1, 3, 5]);
                    let dims = [random.size(11), from.channels, edge, edge, edge];
                    let count: i64 = dims.iter().product();
                    // Files of a few megabytes.
                    if stored + count > 1 << 20 {
                        continue;
                    }
                    stored += count;
                    let weight = format!("w{k}");
                    network.weights(&weight, &dims);
                    weights.push((weight.clone(), dims));
                    (weight, dims)
                } else {
                    random.of(&known)
                };
                let pad = dims[2] / 2;
                made.channels = dims[0];
                let pads: (&str, &[i64]) = ("pads", &[pad; 6]);
                network.node("Conv", &[&from.name, &weight], &name, &[pads]);
            }
            3 => {
                let count = random.size(7) as usize;
                made.channels = from.channels * count as i64;
                network.node("Concat", &vec![from.name.as_str(); count], &name, &[("axis", &[1])]);
            }
            4 => {
                let factor = random.of(&[2, 4, 16]);
                let weight = format!("u{k}");
                let dims = [from.channels, random.size(4), factor, factor, factor];
                if stored + dims.iter().product::<i64>() > 1 << 20 {
                    continue;
                }
                stored += dims.iter().product::<i64>();
                network.weights(&weight, &dims);
                (made.channels, made.edge) = (dims[1], from.edge * factor);
                let strides: (&str, &[i64]) = ("strides", &[factor; 3]);
                network.node("ConvTranspose", &[&from.name, &weight], &name, &[strides]);
            }
            5 if from.edge % 2 == 0 => {
                made.edge = from.edge / 2;
                let attributes: [(&str, &[i64]); 2] =
                    [("kernel_shape", &[2; 3]), ("strides", &[2; 3])];
                network.node("MaxPool", &[&from.name], &name, &attributes);
            }
            6 => {
                network.node("Add", &[&from.name, &from.name], &name, &[]);
            }
            _ => {
                let op = random.of(&["Sigmoid", "Relu", "LeakyRelu", "Tanh", "Softmax"]);
                network.node(op, &[&from.name], &name, &[]);
            }
        }
        values.push(made);
    }
    let last = values[values.len() - 1].clone();
    network.weights("head", &[2, last.channels.min(1 << 16), 1, 1, 1]);
    network.node("Conv", &[&last.name, "head"], "output", &[]);
    network
}

#[test]
fn networks_that_ask_for_much_stay_within_the_limit_or_are_refused() {
    let mut codes = Vec::new();
    for seed in 0..60 {
        let folder = tempfile::tempdir().expect("folder");
        let image = one_patch(folder.path());
        let mut command = network(&mut Random(seed)).command_on(&image, folder.path(), 2);
        command.args(["--memory-limit", &LIMIT.to_string()]);
        codes.push(check(&mut command, &format!("network {seed}")));
    }
    let count = |code| codes.iter().filter(|&&found| found == code).count();
    println!("networks: {} run, {} refused, {} too large", count(0), count(4), count(6));
    assert!(count(0) > 3 && count(4) > 3, "of both kinds: {codes:?}");
}

/// All places in a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut inner = |key: String, value: &Value| {
        let place = format!("{at}/{key}");
        found.push(place.clone());
        places(value, &place, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| inner(key.clone(), value)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(k, value)| inner(k.to_string(), value));
        }
        _ => {}
    }
}

/// What may stand where something else was.
fn oddity(random: &mut Random, was: &Value) -> Value {
    let numbers = [0.0, -1.0, 0.5, 1e-308, 1e308, 65_535.0, 1e6, 4e9, 1e-3];
    match random.below(8) {
        0 => Value::Null,
        1 => {
            json!(random.of(&["", "../../x", "nul", "\u{1b}[2J", "3d_fullres", "torch.nn.Conv3d"]))
        }
        2 => json!(vec![was; 3]),
        3 => json!(vec![was; 1 + random.below(2000) as usize]),
        4 => json!({"a": was}),
        5 => json!(random.size(32)),
        6 => json!(random.of(&[true, false])),
        _ => json!(random.of(&numbers)),
    }
}

#[test]
fn folders_that_ask_for_much_stay_within_the_limit_or_are_refused() {
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nnunet/folders/plain");
    let mut codes = Vec::new();
    for seed in 0..60 {
        let mut random = Random(1000 + seed);
        let folder = tempfile::tempdir().expect("folder");
        let model = folder.path().join("model");
        copy_folder(&plain, &model);
        for _ in 0..=random.below(3) {
            let file = model.join(random.of(&["plans.json", "plans.json", "dataset.json"]));
            let text = fs::read_to_string(&file).expect("reads");
            let mut document: Value = serde_json::from_str(&text).expect("JSON");
            let mut all = Vec::new();
            places(&document, "", &mut all);
            let place = document.pointer_mut(&random.of(&all)).expect("a place");
            *place = oddity(&mut random, place);
            fs::write(&file, document.to_string()).expect("writes");
        }
        let mut command = limited();
        command.arg("-i").arg(one_patch(folder.path())).arg("--model").arg(&model);
        command.arg("-o").arg(folder.path().join("labels.nii.gz"));
        codes.push(check(&mut command, &format!("folder {seed}")));
    }
    let count = |code| codes.iter().filter(|&&found| found == code).count();
    println!("folders: {} run, {} refused, {} too large", count(0), count(4), count(6));
    assert!(count(0) > 3 && count(4) > 3, "of both kinds: {codes:?}");
}
