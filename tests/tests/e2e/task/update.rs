//! New limits for a running container, through containerd as Docker and the kubelet ask for them.

use containerd_client::{
    services::v1::{UpdateTaskRequest, tasks_client::TasksClient},
    tonic::{Request, Status, metadata::MetadataValue},
};
use lighter_tests::{Bed, Suite, on_every_suite};
use serde_json::{Value, json};

use super::{Kind, RUNC, cgroup_file, unified, works};
use crate::cleanup::remove;

on_every_suite! { what_is_named_changes_and_the_rest_stays, what_cannot_be_is_refused, of_a_paused_task }

/// Asks containerd to change a task's limits. `resources` is the runtime spec's.
pub(super) fn update(bed: &Bed, id: &str, resources: &Value) -> Result<(), Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let channel = bed.containerd_channel().await.expect("containerd");
        let resources = prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_string().into_bytes(),
        };
        let request = UpdateTaskRequest {
            container_id: id.to_owned(),
            resources: Some(resources),
            ..UpdateTaskRequest::default()
        };
        let mut request = Request::new(request);
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("default"));
        TasksClient::new(channel).update(request).await.map(drop)
    })
}

const MIB: i64 = 1 << 20;

/// Resources, and what a file of v1 and one of v2 hold then.
type Row = (Value, [(&'static str, &'static str); 2]);

/// Each on top of those before it, and of a memory limit of 64 MiB.
fn rows() -> Vec<Row> {
    vec![
        (
            json!({"memory": {"limit": 96 * MIB, "swap": 192 * MIB}}),
            [("memory.limit_in_bytes", "100663296"), ("memory.max", "100663296")],
        ),
        (
            json!({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}),
            [("memory.limit_in_bytes", "33554432"), ("memory.max", "33554432")],
        ),
        (
            json!({"memory": {"limit": 128 * MIB, "swap": 256 * MIB}}),
            [("memory.limit_in_bytes", "134217728"), ("memory.max", "134217728")],
        ),
        (
            json!({"memory": {"reservation": 16 * MIB}}),
            [("memory.soft_limit_in_bytes", "16777216"), ("memory.low", "16777216")],
        ),
        (json!({"cpu": {"shares": 512}}), [("cpu.shares", "512"), ("cpu.weight", "59")]),
        (
            json!({"cpu": {"quota": 50_000, "period": 100_000}}),
            [("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")],
        ),
        (json!({"cpu": {"quota": 150_000}}), [("cpu.cfs_period_us", "100000"), ("cpu.max", "150000 100000")]),
        (json!({"cpu": {"quota": -1}}), [("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")]),
        (json!({"cpu": {"cpus": "0"}}), [("cpuset.cpus", "0"), ("cpuset.cpus", "0")]),
        (json!({"pids": {"limit": 77}}), [("pids.max", "77"), ("pids.max", "77")]),
        // As the kubelet asks: with all that it asked for before, and devices, which are not for it to change.
        (
            json!({"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 128 * MIB}, "pids": {"limit": 0}}),
            [("pids.max", "77"), ("pids.max", "77")],
        ),
    ]
}

fn what_is_named_changes_and_the_rest_stays(suite: Suite) {
    let bed = Bed::get(suite);
    for kind in Kind::ALL {
        let id = &kind.id("update");
        kind.start_busy(bed, id, &["--memory-limit", "67108864"]);
        let version = usize::from(unified(bed));
        let rows = rows();
        let files: Vec<&str> = rows.iter().map(|(_, files)| files[version].0).collect();
        let all = || -> Vec<_> { files.iter().map(|file| cgroup_file(bed, id, file)).collect() };
        let before_devices = cgroup_file(bed, id, "devices.list");
        for (resources, held) in &rows {
            let before = all();
            update(bed, id, resources).unwrap_or_else(|status| panic!("{id}: {resources}: {}", status.message()));
            let (file, expected) = held[version];
            // Older ones of runc have another formula for it.
            if kind.runtime != RUNC || file != "cpu.weight" {
                assert_eq!(cgroup_file(bed, id, file).as_deref(), Some(expected), "{id}: {resources}: {file}");
            }
            for ((name, before), after) in files.iter().zip(before).zip(all()) {
                let related = name.split('.').next() == file.split('.').next();
                assert!(related || before == after, "{id}: {resources}: {name} was {before:?} and is {after:?}");
            }
        }
        assert_eq!(cgroup_file(bed, id, "devices.list"), before_devices, "{id}");
        assert!(works(bed, id), "{id} goes on");
        remove(bed, id);
        bed.assert_gone(id);
    }
}

fn what_cannot_be_is_refused(suite: Suite) {
    let bed = Bed::get(suite);
    let kind = Kind::ALL[0];
    let id = &kind.id("update-refused");
    kind.start_busy(bed, id, &["--memory-limit", "67108864"]);
    let pids = cgroup_file(bed, id, "pids.max");
    let mut rows = vec![
        (json!({"memory": {"limit": -5}, "pids": {"limit": 9}}), "a memory limit is a number of bytes, or -1 for none"),
        (json!({"cpu": {"cpus": "99999"}, "pids": {"limit": 9}}), "set cpuset.cpus to 99999"),
    ];
    if unified(bed) {
        rows.push((json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}), "that are in use"));
    } else {
        rows.push((json!({"memory": {"limit": 4096}}), "bytes and can't give back as much; choose a higher limit"));
        rows.push((json!({"unified": {"memory.high": "max"}}), "unified resources are for cgroup v2"));
    }
    for (resources, expected) in rows {
        let status = update(bed, id, &resources).expect_err("it is refused");
        assert!(status.message().contains(expected), "{resources}: {}", status.message());
        assert_eq!(cgroup_file(bed, id, "pids.max"), pids, "{resources}");
    }
    remove(bed, id);
    let status = update(bed, id, &json!({})).expect_err("it is gone");
    assert!(status.message().contains("not found"), "{}", status.message());
}

fn of_a_paused_task(suite: Suite) {
    let bed = Bed::get(suite);
    let kind = Kind::ALL[0];
    let id = &kind.id("update-paused");
    kind.start_busy(bed, id, &[]);
    bed.ctr(&["tasks", "pause", id]).run().ok();
    update(bed, id, &json!({"pids": {"limit": 55}})).expect("it is changed");
    assert_eq!(cgroup_file(bed, id, "pids.max").as_deref(), Some("55"));
    bed.ctr(&["tasks", "resume", id]).run().ok();
    remove(bed, id);
}
