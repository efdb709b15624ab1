//! What is known of a case once it was tried: a small JSON file beside its result.

use crate::segmenter::NetworkInfo;
use crate::{Access, Error, Existing, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The form of the file.
const FORMAT: u32 = 1;

/// Longest file that is read.
const MOST_BYTES: u64 = 16 << 20;

/// What answers a case and how: another one means another result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The networks that were opened, in the order they run. Of a mode, which ones they are depends on the
    /// memory and devices that there were.
    pub models: Vec<Model>,
    /// Whatever else was asked for.
    pub options: Value,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name, or the path of its folder.
    pub name: String,
    /// nnU-Net's configuration.
    pub configuration: String,
    /// SHA-256 of its weights, one per fold.
    pub sha256: Vec<String>,
    /// SHA-256 of its configuration as it was understood.
    pub configuration_sha256: String,
}

impl From<&NetworkInfo> for Model {
    fn from(info: &NetworkInfo) -> Self {
        Self {
            name: info.name.clone(),
            configuration: info.configuration.clone(),
            sha256: info.sha256.clone(),
            configuration_sha256: info.configuration_sha256.clone(),
        }
    }
}

impl Terms {
    /// Of the networks that are open, with the options beside them.
    #[must_use]
    pub fn new(networks: &[NetworkInfo], options: Value) -> Self {
        Self { models: networks.iter().map(Model::from).collect(), options }
    }

    /// What tells them from others in one number.
    fn sha256(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        files::sha256(text.as_bytes())
    }
}

/// An image or a label map that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it was.
    pub path: PathBuf,
    /// As [`digest_of`] gives it.
    pub sha256: String,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it is: a type of output, or `preview`, `statistics` or `probabilities`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is, from the folder of the status file on if it lies in there.
    pub path: PathBuf,
    /// SHA-256 of the file; empty of one that was not looked at.
    #[serde(default)]
    pub sha256: String,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    format: u32,
    /// What the case is called.
    pub id: String,
    /// `fastnnunet`, whoever embeds it.
    pub program: String,
    /// Its version.
    pub version: String,
    /// 0 for a case that is done.
    pub exit_code: u8,
    /// Whether the same again may end better, here or on another machine.
    pub retry: bool,
    /// Why it is not done.
    pub error: Option<String>,
    /// What was read.
    pub inputs: Vec<Input>,
    /// What was opened to answer, and what else was asked for.
    #[serde(flatten)]
    pub terms: Terms,
    /// SHA-256 of models and options together.
    pub terms_sha256: String,
    /// What did answer: smaller models where the case did not fit.
    pub answered_by: Vec<Model>,
    /// What was written.
    pub outputs: Vec<Output>,
    /// What it took, reading and writing included.
    pub seconds: f64,
    /// The largest resident size of the process so far, where the system tells.
    pub peak_bytes: Option<u64>,
}

impl Status {
    /// Of a case that has an end, good until [`failed`](Self::failed) says otherwise.
    #[must_use]
    pub fn new(id: &str, terms: &Terms, inputs: Vec<Input>) -> Self {
        Self {
            format: FORMAT,
            id: id.to_owned(),
            program: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            exit_code: 0,
            retry: false,
            error: None,
            inputs,
            terms_sha256: terms.sha256(),
            terms: terms.clone(),
            answered_by: Vec::new(),
            outputs: Vec::new(),
            seconds: 0.0,
            peak_bytes: None,
        }
    }

    /// Says that it failed, and with which code the program ends for that.
    #[must_use]
    pub fn failed(self, error: &Error, message: String, exit_code: u8) -> Self {
        let retry = is_worth_a_retry(error);
        Self { error: Some(message), exit_code, retry, ..self }
    }

    /// Says what was written, of which each file is there.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if one cannot be read.
    pub fn wrote(mut self, status: &Path, outputs: &[Output]) -> Result<Self> {
        for output in outputs {
            let path = within(status, &output.path);
            let sha256 = digest_of(&[&output.path])?;
            self.outputs.push(Output { kind: output.kind.clone(), path, sha256 });
        }
        Ok(self)
    }

    /// Writes it, whole or not at all, over one that is there.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if it cannot be written.
    pub fn save(&self, path: &Path, access: Access) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        files::Target { path, existing: Existing::Replace, access }.write_bytes(&text)
    }

    /// Reads one; `None` for anything that this version did not write whole.
    fn read(path: &Path) -> Option<Self> {
        let text = files::read(path, MOST_BYTES).ok()?;
        serde_json::from_slice(&text).ok().filter(|status: &Self| status.format == FORMAT)
    }
}

/// Whether a case has to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is done with the same inputs, models and options, and its result is as it was.
    Done,
    /// It is not, and why not, if there is anything of it.
    Open(Option<String>),
}

/// Looks at what an earlier run left of a case, at `status` and in `outputs`; `inputs` and `terms` are
/// those of this run. What tells most costs least and is asked first.
///
/// # Errors
///
/// [`Error::Read`] if an input cannot be read.
pub fn standing(
    status: &Path,
    terms: &Terms,
    inputs: &[Vec<PathBuf>],
    outputs: &[Output],
) -> Result<Standing> {
    let open = |why: &str| Ok(Standing::Open(Some(why.to_owned())));
    if !status.exists() {
        let any = outputs.iter().any(|output| output.path.exists());
        let why = "its result has no status file";
        return if any { open(why) } else { Ok(Standing::Open(None)) };
    }
    let Some(known) = Status::read(status) else { return open("its status file is not whole") };
    if known.exit_code != 0 {
        return open(&format!("it failed with code {} before", known.exit_code));
    }
    if known.terms.models != terms.models {
        return open("it was done by other models");
    }
    if known.terms.options != terms.options {
        return open("it was done with other options");
    }
    let named = |output: &Output| (output.kind.clone(), within(status, &output.path));
    let written = known.outputs.iter().map(|output| (output.kind.clone(), output.path.clone()));
    if !written.eq(outputs.iter().map(named)) {
        return open("it has other outputs");
    }
    let sizes = known.inputs.len() == inputs.len();
    let mut pairs = known.inputs.iter().zip(inputs);
    if !sizes || !pairs.try_fold(true, |all, (was, now)| is_same(all, &was.sha256, now))? {
        return open("it was done on other inputs");
    }
    for (was, output) in known.outputs.iter().zip(outputs) {
        // One that is gone is no fault of the run's.
        if digest_of(&[&output.path]).ok().as_ref() != Some(&was.sha256) {
            return open("its result is not as it was written");
        }
    }
    Ok(Standing::Done)
}

fn is_same(all: bool, sha256: &str, files: &[PathBuf]) -> Result<bool> {
    Ok(all && digest_of(files)? == sha256)
}

/// The path as the status file has it.
fn within(status: &Path, path: &Path) -> PathBuf {
    let inside = status.parent().and_then(|folder| path.strip_prefix(folder).ok());
    inside.unwrap_or(path).to_path_buf()
}

/// SHA-256 of a file, lowercase hexadecimal; of several, as a series has them, that of their own in
/// ascending order, one per line.
///
/// # Errors
///
/// [`Error::Read`] if one cannot be read.
pub fn digest_of(paths: &[impl AsRef<Path>]) -> Result<String> {
    let digest = |path: &Path| {
        files::sha256_of(path).map_err(|why| match why {
            files::Unreadable::Io(source) => Error::Read { path: path.to_path_buf(), source },
            why => Error::input(path, why.instead_of("a file")),
        })
    };
    if let [only] = paths {
        return digest(only.as_ref());
    }
    let mut all = paths.iter().map(|path| digest(path.as_ref())).collect::<Result<Vec<_>>>()?;
    all.sort_unstable();
    Ok(files::sha256(all.join("\n").as_bytes()))
}

/// Whether the same again may end better: where memory, a device, a disk or the network was short, and
/// nothing about the case itself is wrong.
#[must_use]
pub fn is_worth_a_retry(error: &Error) -> bool {
    match error {
        Error::Memory { .. } | Error::Device { .. } | Error::Interrupted => true,
        // What is there will be there the next time, too.
        Error::Write { source, .. } => !matches!(
            source.kind(),
            ErrorKind::AlreadyExists | ErrorKind::IsADirectory | ErrorKind::PermissionDenied
        ),
        Error::Read { source, .. } => !matches!(
            source.kind(),
            ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
                | ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_case_itself_is_not_tried_again() {
        let path = || PathBuf::from("x");
        let read = |kind: ErrorKind| Error::Read { path: path(), source: kind.into() };
        let write = |kind: ErrorKind| Error::Write { path: path(), source: kind.into() };
        // (case, error, whether)
        let cases = [
            ("a file that is not there", read(ErrorKind::NotFound), false),
            ("a server that is away", read(ErrorKind::TimedOut), true),
            ("a full disk", write(ErrorKind::StorageFull), true),
            ("a file in the way", write(ErrorKind::AlreadyExists), false),
            ("a usage", Error::usage("a", "b", "c"), false),
            ("an image", Error::volume("a", "b"), false),
            ("memory", Error::Memory { what: "a".into(), need_bytes: 2, limit_bytes: 1 }, true),
        ];
        for (case, error, expected) in cases {
            assert_eq!(is_worth_a_retry(&error), expected, "{case}");
        }
    }

    #[test]
    fn a_series_has_one_digest_in_whatever_order_its_files_come() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        for (k, path) in paths.iter().enumerate() {
            std::fs::write(path, [k as u8]).expect("written");
        }
        let [a, b, c] = &paths;
        let digest = digest_of(&[a, b, c]).expect("read");
        assert_eq!(digest_of(&[c, a, b]).expect("read"), digest);
        assert_ne!(digest_of(&[a, b]).expect("read"), digest);
        assert_eq!(digest_of(&[a]).expect("read"), files::sha256(&[0]));
        assert!(digest_of(&[folder.path()]).is_err());
    }
}
