//! Hierarchies of control groups on this host, and the files of their controllers.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Limits, PERIOD};

/// Controllers that limit a monitor. `io` is `blkio` in version 1.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "io", "blkio"];
/// The group to which this process moves, because in version 2 only leaves have processes.
const LEAF: &str = "catnap-gateway";

/// Version of the control group interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A hierarchy, and the group of this process in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    version: Version,
    controllers: Vec<String>,
    dir: PathBuf,
}

/// Returns the hierarchies with at least one of the controllers.
pub(super) fn find() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut found = parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    for hierarchy in &mut found {
        if hierarchy.version == Version::Two {
            let available = read_words(&hierarchy.dir.join("cgroup.controllers"));
            hierarchy.controllers = known(available.iter().map(String::as_str));
        }
    }
    found.retain(|hierarchy| !hierarchy.controllers.is_empty());
    found
}

/// Finds the mounted hierarchies and the group of the process in each. Those of version 2 have no controllers yet.
fn parse(mountinfo: &str, membership: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let (mount, file_system): (Vec<&str>, Vec<&str>) =
            (mount.split(' ').collect(), file_system.split(' ').collect());
        let (Some(root), Some(point)) = (mount.get(3), mount.get(4)) else {
            continue;
        };
        let options = file_system.get(2).copied().unwrap_or_default();
        let (version, controllers) = match file_system.first() {
            Some(&"cgroup") => (Version::One, known(options.split(','))),
            Some(&"cgroup2") => (Version::Two, Vec::new()),
            _ => continue,
        };
        if version == Version::One && controllers.is_empty() {
            continue;
        }
        let Some(group) = group_of_process(membership, &controllers) else {
            continue;
        };
        // A container may see a part of the hierarchy only.
        let relative = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
        let hierarchy = Hierarchy {
            version,
            controllers,
            dir: Path::new(point).join(relative),
        };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// Returns the group of this process in the hierarchy with these controllers; none means version 2.
fn group_of_process<'a>(membership: &'a str, controllers: &[String]) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, group) = (fields.next()?, fields.next()?);
        let matches = match controllers.first() {
            Some(controller) => names.split(',').any(|name| name == controller),
            None => names.is_empty(),
        };
        matches.then_some(group)
    })
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names
        .filter(|name| CONTROLLERS.contains(name))
        .map(str::to_owned)
        .collect()
}

fn read_words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

impl Hierarchy {
    /// Returns the group of this process.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns whether the hierarchy has the controller.
    pub(super) fn controls(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Creates the group `dir` whose children are groups of monitors.
    pub(super) fn create_parent(&self, dir: &Path) -> io::Result<()> {
        if self.version == Version::Two {
            self.delegate(&self.dir)?;
        }
        fs::create_dir(dir)?;
        if self.version == Version::Two {
            self.enable(dir)?;
        }
        Ok(())
    }

    /// Enables the controllers for the children of the group of this process. That needs a group without processes, so
    /// the process moves to a leaf if it is alone.
    fn delegate(&self, dir: &Path) -> io::Result<()> {
        if self.enable(dir).is_ok() {
            return Ok(());
        }
        let own = std::process::id().to_string();
        if read_words(&dir.join("cgroup.procs")) != [own.clone()] {
            return Err(io::Error::other("the control group has other processes"));
        }
        let leaf = dir.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(leaf.join("cgroup.procs"), own)?;
        self.enable(dir)
    }

    /// Leaves the leaf to which [`Self::create_parent`] moved the process, and removes it.
    pub(super) fn leave(&self) {
        let leaf = self.dir.join(LEAF);
        if self.version == Version::One || !leaf.exists() {
            return;
        }
        let disable: Vec<String> = self
            .controllers
            .iter()
            .map(|name| format!("-{name}"))
            .collect();
        let left = fs::write(self.dir.join("cgroup.subtree_control"), disable.join(" "))
            .and_then(|()| {
                fs::write(
                    self.dir.join("cgroup.procs"),
                    std::process::id().to_string(),
                )
            })
            .and_then(|()| fs::remove_dir(&leaf));
        if let Err(error) = left {
            tracing::debug!(path = %leaf.display(), error = %error_chain::chain(&error), "failed to leave control group");
        }
    }

    fn enable(&self, dir: &Path) -> io::Result<()> {
        let enable: Vec<String> = self
            .controllers
            .iter()
            .map(|name| format!("+{name}"))
            .collect();
        fs::write(dir.join("cgroup.subtree_control"), enable.join(" "))
    }

    /// Writes the limits of a monitor's group.
    pub(super) fn set_limits(&self, dir: &Path, limits: Limits) -> io::Result<()> {
        let Limits {
            memory,
            quota,
            threads,
        } = limits;
        let write = |file: &str, value: String| fs::write(dir.join(file), value);
        match self.version {
            Version::One => {
                if self.controls("memory") {
                    write("memory.limit_in_bytes", memory.to_string())?;
                }
                // A kernel without CFS bandwidth control lacks the files.
                if self.controls("cpu") && dir.join("cpu.cfs_quota_us").exists() {
                    write("cpu.cfs_period_us", PERIOD.to_string())?;
                    write("cpu.cfs_quota_us", quota.to_string())?;
                }
            }
            Version::Two => {
                if self.controls("memory") {
                    write("memory.max", memory.to_string())?;
                }
                if self.controls("cpu") && dir.join("cpu.max").exists() {
                    write("cpu.max", format!("{quota} {PERIOD}"))?;
                }
            }
        }
        if self.controls("pids") {
            write("pids.max", threads.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_version_1_are_found_with_own_group() {
        let mountinfo = "\
            29 22 0:25 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            30 22 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            31 22 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
            32 22 0:28 / /proc rw - proc proc rw\n";
        let membership = "3:memory:/jobs/7\n2:cpu,cpuacct:/\n1:freezer:/x\n0::/\n";
        let found = parse(mountinfo, membership);
        let dirs: Vec<_> = found.iter().map(|h| h.dir().to_str().unwrap()).collect();
        assert_eq!(
            dirs,
            [
                "/sys/fs/cgroup/memory/jobs/7",
                "/sys/fs/cgroup/cpu,cpuacct/"
            ]
        );
        assert!(found[0].controls("memory") && found[1].controls("cpu"));
    }

    #[test]
    fn mount_of_a_part_of_version_2_is_relative_to_its_root() {
        let mountinfo =
            "30 23 0:26 /outer /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = parse(mountinfo, "0::/outer/inner\n");
        assert_eq!(found[0].dir(), Path::new("/sys/fs/cgroup/inner"));
        assert_eq!(found[0].version, Version::Two);
        assert_eq!(parse(mountinfo, ""), []);
        assert_eq!(parse("", "0::/\n"), []);
    }
}
