//! The same source for the same kernel, in every process.
//!
//! Names of variables (`v` and a number) depend on the order of hash tables, and the kernel's own ends
//! in a hash that differs from build to build.

use std::collections::HashMap;

/// `source` with variables numbered as they appear and without the hash at the end of the kernel's
/// `name`; and that name.
pub(crate) fn settled(source: &str, name: &str) -> (String, String) {
    let short = name.rsplit_once('_').map_or(name, |(short, _)| short);
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        let (before, word) = rest.split_at(start);
        out.push_str(before);
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        rest = after;
        if word == name {
            out.push_str(short);
            continue;
        }
        for (k, part) in word.split('_').enumerate() {
            if k > 0 {
                out.push('_');
            }
            match part.strip_prefix('v') {
                Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    let next = numbers.len();
                    let number = *numbers.entry(digits).or_insert(next);
                    out.push_str(&format!("v{number}"));
                }
                _ => out.push_str(part),
            }
        }
    }
    out.push_str(rest);
    (out, short.to_owned())
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn names_that_vary_do_not_matter() {
        let one = "void add_f32_12ab(float* v7, info_st info_v9) {float v8_store; v7[0] = v8_store + v12;}";
        let two = "void add_f32_ffff(float* v3, info_st info_v2) {float v5_store; v3[0] = v5_store + v99;}";
        let (source, name) = settled(one, "add_f32_12ab");
        assert_eq!(name, "add_f32");
        assert_eq!(settled(two, "add_f32_ffff"), (source.clone(), name));
        let plain = "void add_f32(float* v0, info_st info_v1) {float v2_store; v0[0] = v2_store + v3;}";
        assert_eq!(source, plain);
        let other = settled("void add_f32_0(float* v1, info_st info_v9) {v1[0] = v1 + v2;}", "add_f32_0");
        assert_ne!(other.0, source);
    }
}
