//! Identifiers made of content: `2.25.` and 128 bits of a SHA-256.

use sha2::{Digest, Sha256};

/// Characters of every identifier made here, so that one can be put where another one was.
pub(crate) const LENGTH: usize = 44;

/// The identifier of a digest: the first 16 of its bytes in a row whose number has 39 digits, as
/// seven in ten have.
pub(crate) fn of_digest(digest: [u8; 32]) -> String {
    let windows = digest.windows(16).filter_map(|window| <[u8; 16]>::try_from(window).ok());
    let number = windows.map(u128::from_be_bytes).find(|number| *number >= 10_u128.pow(38));
    match number {
        Some(number) => format!("2.25.{number}"),
        // Once in a thousand million.
        None => of_digest(Sha256::digest(digest).into()),
    }
}

/// The identifier of some bytes.
pub(crate) fn of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    of_digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_one_length_and_no_leading_zero() {
        for k in 0..2000_u32 {
            let uid = of(&[&k.to_le_bytes()]);
            assert_eq!(uid.len(), LENGTH);
            assert!(!uid.starts_with("2.25.0"));
        }
        assert_ne!(of(&[b"a", b"b"]), of(&[b"ab"]));
    }
}
