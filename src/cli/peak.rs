//! Memory of this process and of the machine, where the system tells.

use std::path::Path;

/// Largest resident size of this process so far, in bytes.
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Memory that can be had without swapping, in bytes: the machine's, or what is left of it for
/// the container or service this runs in.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = kibibytes("/proc/meminfo", "MemAvailable:");
    machine.into_iter().chain(control_group_bytes()).min()
}

/// What the narrowest control group (version 2) around this process leaves.
fn control_group_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    own.ancestors().take_while(|group| group.starts_with("/sys/fs/cgroup")).filter_map(left).min()
}

/// What a control group may still take; the files it has read are given up first.
fn left(group: &Path) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    // Without a limit the file says `max`.
    let limit = number("memory.max")?;
    let stat = read("memory.stat")?;
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
    let used = number("memory.current")?.saturating_sub(cached.trim().parse().ok()?);
    Some(limit.saturating_sub(used))
}

/// The number behind `field` in one of Linux's status files.
fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_leaves_its_limit_less_what_is_used_for_good() {
        let group = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            std::fs::write(group.path().join(file), text).expect("written");
        };
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 150\n");
        assert_eq!(left(group.path()), Some(450));
        write("memory.max", "max\n");
        assert_eq!(left(group.path()), None);
    }
}
