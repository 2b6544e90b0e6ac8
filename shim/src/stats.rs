//! containerd's `Metrics` messages, of cgroup v1 and v2.
//!
//! For v2 `containerd-shim` has all; its v1 message lacks CPU time and memory limits, so that one is filled from
//! libcgroups' figures here.

use std::{path::Path, sync::OnceLock};

use containerd_shim::{cgroup as metrics, util::convert_to_any};
use containerd_shim_protos::{
    cgroups::metrics::{
        BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics, PidsStat, Throttle,
    },
    protobuf::well_known_types::any::Any,
};
use libcgroups::{
    common::{CgroupManager, CgroupSetup, get_cgroup_setup},
    stats::{BlkioDeviceStat, MemoryData, Stats},
    v1::Manager,
};

/// Where a container's figures are.
///
/// For v1 libcgroups looks through all mounts of the node, for each controller. A kubelet asks for every container every ten
/// seconds, and each of them has brought mounts of its own: it is done once.
#[derive(Default)]
pub(crate) struct Figures(OnceLock<Manager>);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figures").field("found", &self.0.get().is_some()).finish()
    }
}

impl Figures {
    /// The message for this node's cgroup version. `cgroup` is the container's path, `pid` any process of it.
    pub(crate) fn collect(&self, cgroup: &Path, pid: u32) -> Result<Any, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        match get_cgroup_setup().map_err(|e| text(&e))? {
            CgroupSetup::Unified => metrics::get_cgroup(pid)
                .and_then(|cgroup| metrics::collect_metrics_v2(&cgroup))
                .and_then(|metrics| convert_to_any(Box::new(metrics)))
                .map_err(|e| text(&e)),
            CgroupSetup::Hybrid | CgroupSetup::Legacy => {
                let manager = match self.0.get() {
                    Some(manager) => manager,
                    None => {
                        let found = Manager::new(cgroup).map_err(|e| text(&e))?;
                        self.0.get_or_init(|| found)
                    }
                };
                let stats = manager.stats().map_err(|e| text(&e))?;
                convert_to_any(Box::new(v1(&stats))).map_err(|e| text(&e))
            }
        }
    }
}

fn v1(stats: &Stats) -> Metrics {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    Metrics {
        cpu: Some(CPUStat {
            usage: Some(CPUUsage {
                total: usage.usage_total,
                user: usage.usage_user,
                kernel: usage.usage_kernel,
                per_cpu: usage.per_core_usage_total.clone(),
                ..CPUUsage::default()
            })
            .into(),
            throttling: Some(Throttle {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
                ..Throttle::default()
            })
            .into(),
            ..CPUStat::default()
        })
        .into(),
        memory: Some(memory_v1(stats)).into(),
        pids: Some(PidsStat {
            current: stats.pids.current,
            // containerd writes "no limit" as zero here.
            limit: if stats.pids.limit == u64::MAX { 0 } else { stats.pids.limit },
            ..PidsStat::default()
        })
        .into(),
        blkio: Some(BlkIOStat {
            io_service_bytes_recursive: devices(&stats.blkio.service_bytes),
            io_serviced_recursive: devices(&stats.blkio.serviced),
            ..BlkIOStat::default()
        })
        .into(),
        ..Metrics::default()
    }
}

fn memory_v1(stats: &Stats) -> MemoryStat {
    let memory = &stats.memory;
    let stat = |name: &str| memory.stats.get(name).copied().unwrap_or_default();
    MemoryStat {
        cache: memory.cache,
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry(&memory.memory),
        swap: entry(&memory.memswap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
        ..MemoryStat::default()
    }
}

fn entry(data: &MemoryData) -> containerd_shim_protos::protobuf::MessageField<MemoryEntry> {
    Some(MemoryEntry {
        limit: data.limit,
        usage: data.usage,
        max: data.max_usage,
        failcnt: data.fail_count,
        ..MemoryEntry::default()
    })
    .into()
}

fn devices(stats: &[BlkioDeviceStat]) -> Vec<BlkIOEntry> {
    let entry = |stat: &BlkioDeviceStat| BlkIOEntry {
        op: stat.op_type.clone().unwrap_or_default(),
        major: stat.major,
        minor: stat.minor,
        value: stat.value,
        ..BlkIOEntry::default()
    };
    stats.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use libcgroups::stats::{CpuStats, CpuUsage, MemoryStats, PidStats};

    use super::*;

    #[test]
    fn v1_has_what_docker_and_kubernetes_show() {
        let stats = Stats {
            cpu: CpuStats { usage: CpuUsage { usage_total: 7, ..CpuUsage::default() }, ..CpuStats::default() },
            memory: MemoryStats {
                memory: MemoryData { usage: 5, limit: 64, ..MemoryData::default() },
                stats: [("total_inactive_file".to_owned(), 2)].into(),
                ..MemoryStats::default()
            },
            pids: PidStats { current: 3, limit: u64::MAX },
            ..Stats::default()
        };
        let metrics = v1(&stats);
        assert_eq!(metrics.cpu.usage.total, 7);
        assert_eq!((metrics.memory.usage.usage, metrics.memory.usage.limit), (5, 64));
        assert_eq!(metrics.memory.total_inactive_file, 2);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
    }
}
