//! What is typed after an option: read, and described for its help.

#[cfg(feature = "dicom")]
use fastnnunet::dicom::write::SegEncoding;
use fastnnunet::infer::Precision;
use fastnnunet::infer::cpu::Isa;
use fastnnunet::model::MIN_STEP_SIZE;
use fastnnunet::{LabelsBack, OutputType};

/// A choice that `auto` leaves to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen<T>(pub(crate) Option<T>);

pub(super) fn parse_mirror(text: &str) -> Result<Chosen<[bool; 3]>, String> {
    match text {
        "auto" => return Ok(Chosen(None)),
        "none" => return Ok(Chosen(Some([false; 3]))),
        _ => {}
    }
    let mut axes = [false; 3];
    for name in text.split(',') {
        let axis = match name.trim() {
            "z" | "0" => 0,
            "y" | "1" => 1,
            "x" | "2" => 2,
            other => return Err(format!("{other:?} is not an axis; expected auto, none or z,y,x")),
        };
        if axes[axis] {
            return Err(format!("axis {name} is given twice"));
        }
        axes[axis] = true;
    }
    Ok(Chosen(Some(axes)))
}

pub(super) fn parse_precision(text: &str) -> Result<Chosen<Precision>, String> {
    match text {
        "auto" => Ok(Chosen(None)),
        named => match named.parse() {
            Ok(precision) => Ok(Chosen(Some(precision))),
            Err(_) => Err("expected auto, f32, f16, bf16 or int8".into()),
        },
    }
}

#[cfg(feature = "dicom")]
pub(super) fn parse_encoding(text: &str) -> Result<SegEncoding, String> {
    match text {
        "binary" => Ok(SegEncoding::Binary),
        "labelmap" => Ok(SegEncoding::Labelmap),
        _ => Err("expected binary or labelmap".into()),
    }
}

pub(super) fn parse_labels(text: &str) -> Result<LabelsBack, String> {
    match text {
        "own" => Ok(LabelsBack::Own),
        "smooth" => Ok(LabelsBack::Smooth),
        _ => Err("expected own or smooth".into()),
    }
}

pub(super) fn parse_isa(text: &str) -> Result<Isa, String> {
    Isa::named(text).ok_or_else(|| format!("this CPU has {}", isa_names()))
}

fn isa_names() -> String {
    Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

pub(super) fn isa_help() -> String {
    format!("Lower the instruction set; this CPU has {} [default: the CPU's best]", isa_names())
}

pub(super) fn output_type_help() -> String {
    let names = |is_of_series: bool| {
        let kinds = OutputType::all().filter(|kind| kind.needs_series() == is_of_series);
        let names: Vec<_> = kinds.map(|kind| format!("{kind} ({})", kind.summary())).collect();
        names.join(", ")
    };
    let of_series = match names(true) {
        names if names.is_empty() => names,
        names => format!("; of a DICOM series also {names}"),
    };
    format!(
        "What to write; repeat for several: {}{of_series} [default: by the ending of --output, or \
         nifti]",
        names(false)
    )
}

pub(super) fn parse_step(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(step) if (MIN_STEP_SIZE..=1.0).contains(&step) => Ok(step),
        _ => Err(format!("expected a fraction of {MIN_STEP_SIZE} to 1")),
    }
}

/// `3GiB`, `800 MB`, `4g`: letters K, M, G or T, with `iB` or nothing for powers of 1024 and
/// `B` for powers of 1000.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 3GiB or 800MB".to_string();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix('b') {
        Some(rest) => rest.strip_suffix('i').map_or((rest, 1000_f64), |rest| (rest, 1024.0)),
        None => (unit.as_str(), 1024.0),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|p| *p == prefix).ok_or_else(wrong)?;
    let bytes = number * base.powi(power as i32);
    if bytes >= 1.0 && bytes < 2_f64.powi(63) { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [("3GiB", Some(3 << 30)), ("800MB", Some(800_000_000)), ("4g", Some(4 << 30))];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1G", "1e3", "5 parsecs", "0", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mirror_axes() {
        assert_eq!(parse_mirror("x,z"), Ok(Chosen(Some([true, false, true]))));
        assert_eq!(parse_mirror("none"), Ok(Chosen(Some([false; 3]))));
        assert_eq!(parse_mirror("auto"), Ok(Chosen(None)));
        assert!(parse_mirror("w").is_err() && parse_mirror("x,x").is_err());
    }
}
