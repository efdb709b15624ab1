//! Memory of this process and of the machine, where the system tells.

use std::path::{Path, PathBuf};

/// Largest resident size of this process so far, in bytes.
pub(crate) fn peak_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Bytes that the program holds for itself: code and data of a run, beside what the library counts.
/// Programs with other engines built in are many times as large.
///
/// By what is mapped and not by what is resident, which depends on what else the machine has read
/// and so is another in every run.
pub(crate) fn own_bytes() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let of = |program: PathBuf| mapped(&maps, &program.to_string_lossy());
    let (code, data) = std::env::current_exe().map(of).unwrap_or_default();
    if code == 0 {
        // Where the system does not tell: of an ordinary build.
        return 9 << 20;
    }
    // Code comes in by blocks of pages. The engines that every run needs are in a program of any size,
    // most of a larger one lies between others. Data has been relocated before the program starts,
    // which also read three words for each of them. Measured on builds of 5 to 85 MiB of code.
    let always = code.min(9 << 20);
    always * 7 / 8 + (code - always) / 4 + data * 3
}

/// Bytes of code and of what lies behind it, data, in a program that is mapped as `/proc/self/maps`
/// says.
fn mapped(maps: &str, program: &str) -> (u64, u64) {
    let (mut code, mut data) = (0, 0);
    for line in maps.lines().filter(|line| line.ends_with(program)) {
        let mut fields = line.split(' ');
        let addresses = fields.next().and_then(|range| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let ends = addresses.and_then(|(start, end)| Some((number(start)?, number(end)?)));
        let bytes = ends.map_or(0, |(start, end)| end.saturating_sub(start));
        if fields.next().is_some_and(|access| access.contains('x')) {
            code += bytes;
        } else if code > 0 {
            data += bytes;
        }
    }
    (code, data)
}

/// Memory that can be had without swapping, in bytes: the machine's, or what is left of it for
/// the container or service this runs in.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = kibibytes("/proc/meminfo", "MemAvailable:");
    machine.into_iter().chain(control_group_bytes()).min()
}

/// What a case may hold: as asked, or what there is, and in any case no more than the process may
/// have of address space and data (`ulimit -v`, `-d`), beyond which the allocator ends it.
pub(crate) fn limit_bytes(asked: Option<u64>) -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let used = |field: &str| kibibytes("/proc/self/status", field);
    let left = |name: &str, field: &str| {
        let left = soft_limit(&limits, name)?.saturating_sub(used(field)?);
        // Pages that the allocator keeps, and what it cannot use of them.
        Some(left - left / 8)
    };
    let own = [left("Max address space", "VmSize:"), left("Max data size", "VmData:")];
    asked.or_else(available_bytes).into_iter().chain(own.into_iter().flatten()).min()
}

/// The soft limit of that name in `/proc/self/limits`, if there is one.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the narrowest control group around this process leaves.
fn control_group_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = |version: &Version| {
        let path = groups.lines().find_map(|line| version.path_in(line))?;
        let root = Path::new(version.root);
        let within = root.join(path);
        let around = within.ancestors().take_while(|group| group.starts_with(root));
        around.filter_map(|group| version.left(group)).min()
    };
    [&SECOND, &FIRST].into_iter().filter_map(own).min()
}

/// How one of the two versions of control groups tells its limits.
struct Version {
    root: &'static str,
    /// Between the colons of its line in `/proc/self/cgroup`.
    controller: &'static str,
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: files that were read, which are given up first.
    cached: &'static str,
}

const FIRST: Version = Version {
    root: "/sys/fs/cgroup/memory",
    controller: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: "total_inactive_file ",
};

const SECOND: Version = Version {
    root: "/sys/fs/cgroup",
    controller: "",
    limit: "memory.max",
    used: "memory.current",
    cached: "inactive_file ",
};

impl Version {
    /// The path of the group, relative to the root, if `line` is this version's.
    fn path_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_own = controllers.split(',').any(|name| name == self.controller);
        is_own.then(|| path.trim_start_matches('/'))
    }

    /// What a control group may still take.
    fn left(&self, group: &Path) -> Option<u64> {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        // Without a limit the second version's file says `max`, the first's a number beyond reach.
        let limit = number(self.limit)?;
        let stat = read("memory.stat")?;
        let cached = stat.lines().find_map(|line| line.strip_prefix(self.cached))?;
        let used = number(self.used)?.saturating_sub(cached.trim().parse().ok()?);
        Some(limit.saturating_sub(used))
    }
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
        for version in [FIRST, SECOND] {
            let group = tempfile::tempdir().expect("a folder");
            let write = |file: &str, text: &str| {
                std::fs::write(group.path().join(file), text).expect("written");
            };
            write(version.limit, "1000\n");
            write(version.used, "700\n");
            write("memory.stat", &format!("anon 500\n{}150\n", version.cached));
            assert_eq!(version.left(group.path()), Some(450));
            write(version.limit, "max\n");
            assert_eq!(version.left(group.path()), None);
        }
    }

    #[test]
    fn code_and_the_data_behind_it_are_told_by_the_map() {
        let map = "55e3f6f7f000-55e3f6f81000 r--p 00000000 fe:00 247030      /usr/bin/a program\n\
                   55e3f6f81000-55e3f6f86000 r-xp 00002000 fe:00 247030      /usr/bin/a program\n\
                   55e3f6f86000-55e3f6f89000 r--p 00007000 fe:00 247030      /usr/bin/a program\n\
                   55e3f6f89000-55e3f6f8a000 rw-p 0000a000 fe:00 247030      /usr/bin/a program\n\
                   55e4307c5000-55e4307e6000 rw-p 00000000 00:00 0           [heap]\n\
                   7fa35b6b8000-7fa35b6e0000 r-xp 00000000 fe:00 251015      /usr/lib/libc.so.6\n";
        assert_eq!(mapped(map, "/usr/bin/a program"), (0x5000, 0x4000));
        assert_eq!(mapped("", "/usr/bin/a program"), (0, 0));
    }

    #[test]
    fn limits_are_read_where_there_are_any() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max address space         4096000              unlimited            bytes\n\
                    Max data size             unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(text, "Max address space"), Some(4_096_000));
        assert_eq!(soft_limit(text, "Max data size"), None);
        assert_eq!(soft_limit("", "Max data size"), None);
    }

    #[test]
    fn each_version_knows_its_line() {
        let lines = ["0::/user.slice/a", "9:memory:/docker/b", "3:cpu,cpuacct:/c", "no colon"];
        let found = |version: &Version| lines.iter().find_map(|line| version.path_in(line));
        assert_eq!((found(&SECOND), found(&FIRST)), (Some("user.slice/a"), Some("docker/b")));
    }
}
