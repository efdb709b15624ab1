//! Transfer syntaxes: which are read, and what the pixels are in them.

use dicom_encoding::transfer_syntax::{TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

pub(crate) const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
pub(crate) const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
const DEFLATED_LE: &str = "1.2.840.10008.1.2.1.99";

/// How the pixels of a file are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Native {
        big_endian: bool,
    },
    Rle,
    DeflatedFrames,
    /// Baseline and extended (processes 1, 2 and 4): lossy.
    JpegDct,
    JpegLossless,
    JpegLs {
        near: bool,
    },
    /// JPEG 2000 and HTJ2K.
    Jpeg2000 {
        lossy: bool,
    },
}

/// What a file says it is encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) uid: &'static str,
    /// What the syntax is called in a message.
    pub(crate) name: &'static str,
    pub(crate) deflated: bool,
    /// `None` if pixels in it are not read.
    pub(crate) coding: Option<Coding>,
}

impl Syntax {
    /// The syntax of that UID, if there is such a one.
    pub(crate) fn find(uid: &str) -> Option<Self> {
        let retired = uid.strip_prefix("1.2.840.10008.1.2.4.").and_then(|tail| tail.parse().ok());
        if let Some(number @ (52..=56 | 58..=66)) = retired {
            let name = match number {
                53 => "JPEG spectral selection (retired)",
                55 => "JPEG full progression (retired)",
                _ => "a retired JPEG process",
            };
            return Some(Self { uid: EXPLICIT_LE, name, deflated: false, coding: None });
        }
        let known = TransferSyntaxRegistry.get(uid)?;
        Some(Self {
            uid: known.uid(),
            name: known.name(),
            deflated: uid == DEFLATED_LE,
            coding: coding(uid),
        })
    }

    /// As `dicom-encoding` has it.
    ///
    /// What its registry calls a codec does not matter: headers alone are decoded with it.
    pub(crate) fn headers(&self) -> &'static TransferSyntax {
        let uid = match self.uid {
            IMPLICIT_LE => IMPLICIT_LE,
            EXPLICIT_BE => EXPLICIT_BE,
            _ => EXPLICIT_LE,
        };
        TransferSyntaxRegistry.get(uid).expect("the registry has the three basic syntaxes")
    }
}

fn coding(uid: &str) -> Option<Coding> {
    let tail = uid.strip_prefix("1.2.840.10008.1.2")?;
    Some(match tail {
        // Siemens' and GE's own names of what is native in any case are not among them.
        "" | ".1" | ".1.99" | ".1.98" => Coding::Native { big_endian: false },
        ".2" => Coding::Native { big_endian: true },
        ".8.1" => Coding::DeflatedFrames,
        ".5" => Coding::Rle,
        ".4.50" | ".4.51" => Coding::JpegDct,
        ".4.57" | ".4.70" => Coding::JpegLossless,
        ".4.80" => Coding::JpegLs { near: false },
        ".4.81" => Coding::JpegLs { near: true },
        ".4.90" | ".4.201" | ".4.202" => Coding::Jpeg2000 { lossy: false },
        ".4.91" | ".4.203" => Coding::Jpeg2000 { lossy: true },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_processes_are_named() {
        let syntax = Syntax::find("1.2.840.10008.1.2.4.55").expect("named");
        assert_eq!((syntax.coding, syntax.name), (None, "JPEG full progression (retired)"));
    }

    #[test]
    fn every_coding_is_of_a_syntax_the_registry_names() {
        let tails = [
            "", ".1", ".1.99", ".2", ".5", ".8.1", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80",
            ".4.81", ".4.90", ".4.91", ".4.201", ".4.202", ".4.203",
        ];
        for tail in tails {
            let uid = format!("1.2.840.10008.1.2{tail}");
            let syntax = Syntax::find(&uid).unwrap_or_else(|| panic!("{uid} is not known"));
            assert!(syntax.coding.is_some(), "{uid}");
        }
        let mpeg = Syntax::find("1.2.840.10008.1.2.4.100").expect("MPEG2");
        assert_eq!(mpeg.coding, None);
        assert!(Syntax::find("1.2.3").is_none());
    }
}
