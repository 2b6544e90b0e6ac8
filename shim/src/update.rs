//! New limits for a running container: what the runtime spec says of them, in the words of the kernel's files.
//!
//! What is named is changed, the rest stays. libcgroups' managers are for a cgroup that is made: they set what is not named to
//! its default, and devices with it. So the files are written here; systemd, where it manages the cgroup, is told through
//! libcgroups first, for it writes its own idea of the limits whenever it is reloaded.

use std::{fs, io, path::Path};

use libcgroups::common::{CgroupManager, CgroupSetup, ControllerOpt, get_cgroup_setup};
use lighter_launch::Folders;
use lighter_oci::Cgroup;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use crate::{cgroup, error::Error};

/// The kernel's period of CPU time, in microseconds. Source: `Documentation/scheduler/sched-bwc.rst`.
const PERIOD: u64 = 100_000;
/// The limits in which memory, and memory with swap, are written on v1.
const MEMORY_V1: &str = "memory.limit_in_bytes";
const SWAP_V1: &str = "memory.memsw.limit_in_bytes";

/// Changes the limits of the container in `folders`, whose cgroup the spec calls `cgroup`. What the kernel refuses is an
/// error; what came before it in this order is changed: memory, CPU, processes, the rest.
pub(crate) fn update(folders: &Folders, cgroup: &Cgroup, id: &str, resources: &LinuxResources) -> Result<(), Error> {
    let version = match get_cgroup_setup() {
        Ok(CgroupSetup::Unified) => Version::V2,
        Ok(CgroupSetup::Hybrid | CgroupSetup::Legacy) => Version::V1,
        Err(error) => return Err(Error::Cgroup { path: cgroup.path.clone(), why: error.to_string() }),
    };
    let current = |file: &str| {
        let text = folders.paths().find_map(|folder| fs::read_to_string(folder.join(file)).ok());
        text.map(|text| text.trim().to_owned())
    };
    let settings = settings(version, resources, &current)?;
    if version == Version::V2 && cgroup.systemd && !cgroup.path.is_absolute() {
        let completed = for_systemd(resources, &current);
        let options = ControllerOpt {
            resources: &completed,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        let told = cgroup::manager(cgroup, id)?.apply(&options);
        told.map_err(|error| Error::Cgroup { path: cgroup.path.clone(), why: format!("tell systemd: {error}") })?;
    }
    write_all(folders, &settings)
}

/// Of the cgroups that have the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A file of a cgroup, and what it is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    file: String,
    value: String,
    /// Whether a kernel that has no such file does what is asked anyway, or can't do it, and it does not matter much.
    optional: bool,
}

/// The settings to be written. `current` is what a file holds.
fn settings(
    version: Version,
    resources: &LinuxResources,
    current: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Setting>, Error> {
    let mut settings = Settings::default();
    if let Some(memory) = resources.memory() {
        match version {
            Version::V1 => settings.memory_v1(memory)?,
            Version::V2 => settings.memory_v2(memory, current)?,
        }
    }
    if let Some(cpu) = resources.cpu() {
        match version {
            Version::V1 => settings.cpu_v1(cpu),
            Version::V2 => settings.cpu_v2(cpu, current),
        }
        // The same in both.
        for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            settings.add(file, list.clone().filter(|list| !list.is_empty()));
        }
    }
    let pids = resources.pids().map_or(0, |pids| pids.limit());
    settings.add("pids.max", or_max(pids));
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|&weight| weight > 0) {
        settings.io_weight(version, weight, current);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let bytes = limit.limit().to_string();
        let file = match version {
            Version::V1 => format!("hugetlb.{}.limit_in_bytes", limit.page_size()),
            Version::V2 => format!("hugetlb.{}.max", limit.page_size()),
        };
        settings.0.push(Setting { file: name(file)?, value: bytes, optional: true });
    }
    let unified = resources.unified().iter().flatten();
    let mut unified: Vec<(&String, &String)> = unified.collect();
    unified.sort();
    if version == Version::V1 && !unified.is_empty() {
        return Err(nonsense("unified resources are for cgroup v2, and this node has v1"));
    }
    for (file, value) in unified {
        settings.0.push(Setting { file: name(file.clone())?, value: value.clone(), optional: false });
    }
    Ok(settings.0)
}

#[derive(Default)]
struct Settings(Vec<Setting>);

impl Settings {
    fn add(&mut self, file: &str, value: Option<impl ToString>) {
        let setting = |value: String| Setting { file: file.to_owned(), value, optional: false };
        self.0.extend(value.map(|value| setting(value.to_string())));
    }

    fn add_optional(&mut self, file: &str, value: impl ToString) {
        self.0.push(Setting { file: file.to_owned(), value: value.to_string(), optional: true });
    }

    fn memory_v1(&mut self, memory: &LinuxMemory) -> Result<(), Error> {
        let limit = bytes("memory limit", memory.limit())?;
        self.add(MEMORY_V1, limit);
        match bytes("swap limit", memory.swap())? {
            None if limit == Some(-1) => self.add_optional(SWAP_V1, -1),
            // Without swap there is none to limit.
            Some(-1) => self.add_optional(SWAP_V1, -1),
            swap => self.add(SWAP_V1, swap),
        }
        self.add("memory.soft_limit_in_bytes", bytes("memory reservation", memory.reservation())?);
        Ok(())
    }

    /// The spec's `swap` is memory and swap together; the kernel's is swap.
    fn memory_v2(&mut self, memory: &LinuxMemory, current: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
        let limit = bytes("memory limit", memory.limit())?;
        if let (Some(true), Some(limit @ 1..)) = (memory.check_before_update(), limit)
            && let Some(used) = current("memory.current").and_then(|used| used.parse::<i64>().ok())
            && used > limit
        {
            return Err(nonsense(&format!("the memory limit of {limit} bytes is below the {used} that are in use")));
        }
        let swap = match (bytes("swap limit", memory.swap())?, limit) {
            (Some(-1), _) | (None, Some(-1)) => Some(-1),
            (None, _) => None,
            (Some(both), named) => {
                let limit = named.or_else(|| current("memory.max")?.parse().ok()).filter(|&limit| limit > 0);
                let limit = limit.ok_or_else(|| nonsense("a swap limit needs a memory limit"))?;
                if both < limit {
                    return Err(nonsense(&format!(
                        "the limit of memory and swap together, {both} bytes, is below the memory limit of {limit}"
                    )));
                }
                Some(both - limit)
            }
        };
        match swap {
            // Without swap it is so.
            Some(-1) => self.add_optional("memory.swap.max", "max"),
            Some(0) => self.add_optional("memory.swap.max", 0),
            swap => self.add("memory.swap.max", swap),
        }
        self.add("memory.max", limit.and_then(or_max));
        self.add("memory.low", bytes("memory reservation", memory.reservation())?.and_then(or_max));
        Ok(())
    }

    fn cpu_v1(&mut self, cpu: &LinuxCpu) {
        self.add("cpu.shares", cpu.shares().filter(|&shares| shares > 0));
        self.add("cpu.cfs_period_us", cpu.period().filter(|&period| period > 0));
        self.add("cpu.cfs_quota_us", cpu.quota().filter(|&quota| quota != 0));
        self.add("cpu.cfs_burst_us", cpu.burst());
        self.add("cpu.rt_period_us", cpu.realtime_period().filter(|&period| period > 0));
        self.add("cpu.rt_runtime_us", cpu.realtime_runtime().filter(|&runtime| runtime != 0));
        self.add("cpu.idle", cpu.idle());
    }

    fn cpu_v2(&mut self, cpu: &LinuxCpu, current: &dyn Fn(&str) -> Option<String>) {
        // What is idle takes no weight.
        self.add("cpu.idle", cpu.idle());
        self.add("cpu.weight", cpu.shares().filter(|&shares| shares > 0).map(weight));
        let period = cpu.period().filter(|&period| period > 0);
        let quota = cpu.quota().and_then(or_max);
        let quota = quota.or_else(|| period.and_then(|_| Some(cpu_max(&current("cpu.max")?).0)));
        let max = quota.map(|quota| period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}")));
        self.add("cpu.max", max);
        self.add("cpu.max.burst", cpu.burst());
    }

    /// Weights matter to some schedulers only, and there are files where one is in use.
    /// Source: runc's `fs/blkio.go` and `fs2/io.go`, for the names and the scales.
    fn io_weight(&mut self, version: Version, weight: u16, current: &dyn Fn(&str) -> Option<String>) {
        let (bfq, other, scaled) = match version {
            Version::V1 => ("blkio.bfq.weight", "blkio.weight", u64::from(weight)),
            Version::V2 => ("io.bfq.weight", "io.weight", 1 + (u64::from(weight).max(10) - 10) * 9999 / 990),
        };
        match current(bfq) {
            Some(_) => self.add_optional(bfq, weight),
            None => self.add_optional(other, scaled),
        }
    }
}

/// An amount, or no limit at all: -1. Zero is as if nothing had been said.
fn bytes(what: &str, amount: Option<i64>) -> Result<Option<i64>, Error> {
    match amount {
        Some(..-1) => Err(nonsense(&format!("a {what} is a number of bytes, or -1 for none"))),
        amount => Ok(amount.filter(|&amount| amount != 0)),
    }
}

/// An amount as v2 takes it; nothing for zero.
fn or_max(amount: i64) -> Option<String> {
    match amount {
        0 => None,
        1.. => Some(amount.to_string()),
        ..0 => Some("max".to_owned()),
    }
}

/// Quota and period of a `cpu.max`.
fn cpu_max(text: &str) -> (String, u64) {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next().unwrap_or("max").to_owned();
    (quota, words.next().and_then(|period| period.parse().ok()).unwrap_or(PERIOD))
}

/// v1's shares, 2 to 262144 around 1024, as v2's weight, 1 to 10000 around 100. A container is made with the same formula.
/// Source: libcgroups' and runc's (<https://github.com/opencontainers/cgroups/pull/20>).
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// The name of a file in a cgroup's folder.
fn name(file: String) -> Result<String, Error> {
    let sound = !file.contains('/') && file.contains('.') && !file.starts_with('.');
    if sound { Ok(file) } else { Err(nonsense(&format!("{file:?} is not a file of a cgroup"))) }
}

fn nonsense(why: &str) -> Error {
    Error::Request { what: "resources", why: why.to_owned() }
}

/// What libcgroups is to tell systemd. It would set the quota to its default where it is not named, takes zeros for
/// amounts, and encodes CPU sets and `unified` in ways that systemd misunderstands: those are in the files alone.
fn for_systemd(resources: &LinuxResources, current: &dyn Fn(&str) -> Option<String>) -> LinuxResources {
    let amount = |amount: Option<i64>| amount.filter(|&amount| amount != 0);
    let mut told = LinuxResources::default();
    if let Some(named) = resources.memory() {
        let swap = amount(named.swap());
        let limit = amount(named.limit()).or_else(|| swap.and_then(|_| current("memory.max")?.parse().ok()));
        let mut memory = LinuxMemory::default();
        memory.set_limit(limit).set_swap(swap).set_reservation(amount(named.reservation()));
        told.set_memory(Some(memory));
    }
    if let Some(named) = resources.cpu() {
        let (quota, period) = cpu_max(&current("cpu.max").unwrap_or_default());
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(named.shares().filter(|&shares| shares > 0))
            .set_quota(amount(named.quota()).or(Some(quota.parse().unwrap_or(-1))))
            .set_period(named.period().filter(|&period| period > 0).or(Some(period)));
        told.set_cpu(Some(cpu));
    }
    told.set_pids(resources.pids().filter(|pids| pids.limit() != 0));
    told
}

/// Writes the settings. One that contradicts a later one, as a limit above that on memory and swap together does, is
/// refused with EINVAL, and written after it.
fn write_all(folders: &Folders, settings: &[Setting]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for setting in settings {
        match write(folders, setting) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => refused.push(setting),
            written => written.map_err(|error| explain(folders, setting, &error))?,
        }
    }
    refused
        .into_iter()
        .try_for_each(|setting| write(folders, setting).map_err(|error| explain(folders, setting, &error)))
}

fn write(folders: &Folders, setting: &Setting) -> io::Result<()> {
    let path = folders.paths().map(|folder| folder.join(&setting.file)).find(|path| path.exists());
    match path {
        Some(path) => fs::write(path, &setting.value),
        None if setting.optional => {
            log::info!("{} is not set to {}: this kernel has no such file", setting.file, setting.value);
            Ok(())
        }
        None => Err(io::Error::new(io::ErrorKind::NotFound, "this kernel does not have it")),
    }
}

fn explain(folders: &Folders, setting: &Setting, error: &io::Error) -> Error {
    let used = || {
        let read = |folder: &Path| fs::read_to_string(folder.join("memory.usage_in_bytes")).ok();
        folders.paths().find_map(read).map_or_else(String::new, |used| format!(" {} bytes", used.trim()))
    };
    let why = match (setting.file.as_str(), error.kind()) {
        (MEMORY_V1 | SWAP_V1, io::ErrorKind::ResourceBusy) => {
            format!("the container uses{} and can't give back as much; choose a higher limit", used())
        }
        (MEMORY_V1, io::ErrorKind::InvalidInput) => {
            "it is above the limit of memory and swap together; change both".to_owned()
        }
        (SWAP_V1, io::ErrorKind::InvalidInput) => "it is below the limit of memory alone; change both".to_owned(),
        _ => error.to_string(),
    };
    Error::Limit { file: setting.file.clone(), value: setting.value.clone(), why }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a v2 cgroup holds.
    fn current(file: &str) -> Option<String> {
        let held = [
            ("cpu.max", "50000 200000"),
            ("memory.max", "1000"),
            ("memory.current", "600"),
            ("io.bfq.weight", "default 100"),
        ];
        held.iter().find(|(name, _)| *name == file).map(|(_, value)| (*value).to_owned())
    }

    fn written(version: Version, json: &str) -> Result<String, String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let settings = settings(version, &resources, &current).map_err(|error| error.to_string())?;
        let lines: Vec<_> = settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect();
        Ok(lines.join(" "))
    }

    #[test]
    fn limits_are_written_as_each_version_takes_them() {
        let table = [
            ("{}", "", ""),
            (
                r#"{"memory":{"limit":64,"swap":100,"reservation":32}}"#,
                "memory.limit_in_bytes=64 memory.memsw.limit_in_bytes=100 memory.soft_limit_in_bytes=32",
                "memory.swap.max=36 memory.max=64 memory.low=32",
            ),
            (r#"{"memory":{"limit":64}}"#, "memory.limit_in_bytes=64", "memory.max=64"),
            (r#"{"memory":{"limit":0,"swap":0}}"#, "", ""),
            (
                r#"{"memory":{"limit":-1}}"#,
                "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1",
                "memory.swap.max=max memory.max=max",
            ),
            (r#"{"memory":{"swap":1500}}"#, "memory.memsw.limit_in_bytes=1500", "memory.swap.max=500"),
            (
                r#"{"cpu":{"shares":1024,"quota":20000,"period":100000}}"#,
                "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=20000",
                "cpu.weight=100 cpu.max=20000 100000",
            ),
            (r#"{"cpu":{"quota":-1}}"#, "cpu.cfs_quota_us=-1", "cpu.max=max"),
            (r#"{"cpu":{"period":100000}}"#, "cpu.cfs_period_us=100000", "cpu.max=50000 100000"),
            (r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":"0"}}"#, "cpuset.mems=0", "cpuset.mems=0"),
            (r#"{"pids":{"limit":10}}"#, "pids.max=10", "pids.max=10"),
            (r#"{"pids":{"limit":-1}}"#, "pids.max=max", "pids.max=max"),
            (r#"{"pids":{"limit":0}}"#, "", ""),
            (r#"{"blockIO":{"weight":500}}"#, "blkio.weight=500", "io.bfq.weight=500"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#,
                "hugetlb.2MB.limit_in_bytes=4096",
                "hugetlb.2MB.max=4096",
            ),
            (r#"{"devices":[{"allow":false,"access":"rwm"}]}"#, "", ""),
        ];
        for (json, v1, v2) in table {
            assert_eq!(written(Version::V1, json).unwrap(), v1, "{json}");
            assert_eq!(written(Version::V2, json).unwrap(), v2, "{json}");
        }
        let unified = r#"{"unified":{"memory.high":"max","cpu.max":"1 2"}}"#;
        assert_eq!(written(Version::V2, unified).unwrap(), "cpu.max=1 2 memory.high=max");
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_written() {
        let table = [
            (Version::V1, r#"{"memory":{"limit":-2}}"#, "a number of bytes"),
            (Version::V2, r#"{"memory":{"limit":64,"swap":32}}"#, "below the memory limit of 64"),
            (Version::V2, r#"{"memory":{"limit":-1,"swap":32}}"#, "needs a memory limit"),
            (Version::V2, r#"{"memory":{"limit":500,"checkBeforeUpdate":true}}"#, "below the 600 that are in use"),
            (Version::V1, r#"{"unified":{"memory.high":"max"}}"#, "this node has v1"),
            (Version::V2, r#"{"unified":{"../memory.high":"max"}}"#, "not a file of a cgroup"),
            (Version::V2, r#"{"hugepageLimits":[{"pageSize":"/x","limit":1}]}"#, "not a file of a cgroup"),
        ];
        for (version, json, expected) in table {
            let why = written(version, json).unwrap_err();
            assert!(why.contains(expected), "{json}: {why}");
        }
    }

    #[test]
    fn shares_become_weights_as_at_creation() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (1 << 40, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn systemd_is_told_what_is_not_named_as_it_is() {
        let told = |json: &str| {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            serde_json::to_value(for_systemd(&resources, &current)).unwrap()
        };
        let json = r#"{"cpu":{"shares":512},"memory":{"limit":0,"swap":2000},"pids":{"limit":0}}"#;
        let expected = serde_json::json!({
            "cpu": {"shares": 512, "quota": 50000, "period": 200_000},
            "memory": {"limit": 1000, "swap": 2000},
        });
        assert_eq!(told(json), expected);
        assert_eq!(told(r#"{"unified":{"pids.max":"max"}}"#), serde_json::json!({}));
    }
}
