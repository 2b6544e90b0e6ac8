//! The shim's side of containerd's contract, with this test in containerd's place: how a daemon is asked for and
//! answers, both versions of the task API, and what a call for what isn't there says.

use std::{collections::HashSet, fs};

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, ConnectRequest, ExecProcessRequest, PauseRequest, ResumeRequest, ShutdownRequest,
        StateRequest, UpdateTaskRequest,
    },
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::Message,
    ttrpc::{self, Client, Code, Request},
    types::introspection::RuntimeInfo,
};
use lighter_tests::{Bed, Image, RUNTIME, Suite, guests, on_every_suite};

on_every_suite! {
    each_generation_of_containerd_is_answered_in_its_form,
    a_pod_has_one_daemon_however_many_ask,
    both_versions_of_the_task_api_answer,
    containers_of_a_pod_share_a_daemon,
    info_and_versions,
    events_come_in_order_and_the_log_names_its_container,
    processes_and_figures,
}

const SHIM: &str = "containerd-shim-lighter-v1";

/// A bundle with nothing but what `start` reads.
fn bundle(bed: &Bed, id: &str, pod: &str) -> String {
    let folder = format!("/run/contract/{id}");
    fs::create_dir_all(bed.path(&folder)).expect("make bundle");
    let spec = format!(r#"{{"annotations":{{"io.kubernetes.cri.sandbox-id":"{pod}"}}}}"#);
    fs::write(bed.path(format!("{folder}/config.json")), spec).expect("write spec");
    folder
}

/// Asks for a daemon as containerd does. `newest` is `MAX_SHIM_VERSION`. Returns the answer's bytes.
fn start(bed: &Bed, id: &str, pod: &str, newest: &str, stdin: Vec<u8>) -> Vec<u8> {
    let bundle = bundle(bed, id, pod);
    let line = format!(
        "cd {bundle}; export TTRPC_ADDRESS=/run/containerd/containerd.sock.ttrpc MAX_SHIM_VERSION={newest}
         {SHIM} -namespace contract -id {id} -address /run/containerd/containerd.sock start | od -An -v -tx1"
    );
    from_hex(&bed.sh(&line).stdin(stdin).run().ok().stdout)
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("od prints hex")).collect()
}

fn address_in_json(answer: &[u8], version: i64) -> String {
    let answer: serde_json::Value = serde_json::from_slice(answer).expect("the answer is JSON");
    assert_eq!(answer["version"], version);
    assert_eq!(answer["protocol"], "ttrpc");
    answer["address"].as_str().expect("it has an address").to_owned()
}

fn client(bed: &Bed, address: &str) -> Client {
    let socket = bed.path(address.strip_prefix("unix://").expect("it is a unix socket"));
    Client::connect(&format!("unix://{}", socket.display())).expect("the daemon listens")
}

fn call(client: &Client, version: u8, method: &str, message: &impl Message) -> ttrpc::Result<Vec<u8>> {
    let request = Request {
        service: format!("containerd.task.v{version}.Task"),
        method: method.to_owned(),
        payload: message.write_to_bytes().expect("encode request"),
        timeout_nano: 10_000_000_000,
        ..Request::default()
    };
    client.request(request).map(|response| response.payload)
}

/// Asks the daemon to go, and sees that it and its socket do.
fn shut_down(bed: &Bed, address: &str) {
    // It may be gone before its answer is through.
    let _ = call(&client(bed, address), 2, "Shutdown", &ShutdownRequest::default());
    let socket = address.trim_start_matches("unix://");
    bed.sh(&format!("timeout 10 sh -c 'while [ -e {socket} ]; do sleep 0.05; done'")).run().ok();
}

fn each_generation_of_containerd_is_answered_in_its_form(suite: Suite) {
    let bed = Bed::get(suite);
    for (newest, version) in [("", 2), ("2", 2), ("3", 3)] {
        let id = format!("generation{newest}");
        shut_down(bed, &address_in_json(&start(bed, &id, &id, newest, Vec::new()), version));
    }
    let params = BootstrapParams {
        instance_id: "generation-2.3".to_owned(),
        namespace: "contract".to_owned(),
        containerd_ttrpc_address: "/run/containerd/containerd.sock.ttrpc".to_owned(),
        containerd_grpc_address: "/run/containerd/containerd.sock".to_owned(),
        ..BootstrapParams::default()
    };
    let stdin = params.write_to_bytes().expect("encode parameters");
    let answer = start(bed, "generation-2.3", "generation-2.3", "3", stdin);
    let answer = BootstrapResult::parse_from_bytes(&answer).expect("the answer is a BootstrapResult");
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    shut_down(bed, &answer.address);
}

fn a_pod_has_one_daemon_however_many_ask(suite: Suite) {
    let bed = Bed::get(suite);
    let answers: HashSet<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..10)
            .map(|n| scope.spawn(move || address_in_json(&start(bed, &format!("pod-{n}"), "pod", "3", Vec::new()), 3)))
            .collect();
        asking.into_iter().map(|thread| thread.join().expect("it is answered")).collect()
    });
    assert_eq!(answers.len(), 1, "{answers:?}");
    let daemons = bed.sh("pgrep --count --full '[-]id pod-[0-9] .*serve'").run().stdout;
    assert_eq!(daemons.trim(), "1");
    for address in &answers {
        shut_down(bed, address);
    }
}

fn both_versions_of_the_task_api_answer(suite: Suite) {
    let bed = Bed::get(suite);
    let address = address_in_json(&start(bed, "api", "api", "3", Vec::new()), 3);
    let client = client(bed, &address);
    let id = || "nobody".to_owned();
    for version in [2, 3] {
        let unknown = [
            call(&client, version, "State", &StateRequest { id: id(), ..StateRequest::default() }),
            call(&client, version, "Connect", &ConnectRequest { id: id(), ..ConnectRequest::default() }),
            call(&client, version, "Pause", &PauseRequest { id: id(), ..PauseRequest::default() }),
            call(&client, version, "Resume", &ResumeRequest { id: id(), ..ResumeRequest::default() }),
        ];
        for answer in unknown {
            assert_eq!(status(answer), (Code::NOT_FOUND, "task nobody not found".to_owned()));
        }
        for (method, answer) in [
            ("Exec", call(&client, version, "Exec", &ExecProcessRequest::default())),
            ("Update", call(&client, version, "Update", &UpdateTaskRequest::default())),
        ] {
            let (code, message) = status(answer);
            assert_eq!(code, Code::INVALID_ARGUMENT, "{method} of nothing: {message}");
        }
        let (code, message) = status(call(&client, version, "Checkpoint", &CheckpointTaskRequest::default()));
        assert_eq!(code, Code::UNIMPLEMENTED, "{message}");
        assert!(message.contains("is not supported for WebAssembly containers: "), "{message}");
    }
    // A pod of nothing is no pod, and what we don't do says so.
    for (method, code) in [
        ("CreateSandbox", Code::INVALID_ARGUMENT),
        ("StartSandbox", Code::NOT_FOUND),
        ("SandboxMetrics", Code::UNIMPLEMENTED),
    ] {
        let sandbox = Request {
            service: "containerd.runtime.sandbox.v1.Sandbox".to_owned(),
            method: method.to_owned(),
            timeout_nano: 10_000_000_000,
            ..Request::default()
        };
        assert_eq!(status(client.request(sandbox).map(|response| response.payload)).0, code, "{method}");
    }
    drop(client);
    shut_down(bed, &address);
}

fn containers_of_a_pod_share_a_daemon(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/pod:latest", guests::wat("sleep"));
    bed.import(&image);
    let runtime =
        ["--runtime", RUNTIME, "--platform", "wasi/wasm", "--annotation", "io.kubernetes.cri.sandbox-id=shared"];
    let ids = ["shared", "sidecar-1", "sidecar-2"];
    for id in ids {
        bed.ctr(&[&["run", "--detach"], &runtime[..], &[image.name(), id]].concat()).run().ok();
    }
    let daemons = bed.sh("pgrep --count --full '[-]id (shared|sidecar).* serve'").run().stdout;
    assert_eq!(daemons.trim(), "1");
    // One ends, the others go on; with the last the daemon goes.
    for (n, id) in ids.into_iter().enumerate().rev() {
        let running = bed.ctr(&["tasks", "ls"]).run().ok().stdout.matches("RUNNING").count();
        assert!(running > n, "{running} are left before {id} is ended");
        bed.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).run().ok();
        bed.sh(&format!("until ctr tasks rm {id}; do sleep 0.1; done; ctr containers rm {id}")).run();
        bed.assert_gone(id);
    }
    bed.sh("timeout 10 sh -c \"while pgrep --full '[-]id shared .* serve'; do sleep 0.05; done\"").run().ok();
}

fn status(answer: ttrpc::Result<Vec<u8>>) -> (Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message),
        other => panic!("expected a status, got {other:?}"),
    }
}

fn info_and_versions(suite: Suite) {
    let bed = Bed::get(suite);
    let info = bed.sh(&format!("{SHIM} -info </dev/null | od -An -v -tx1")).run().ok().stdout;
    let info = RuntimeInfo::parse_from_bytes(&from_hex(&info)).expect("the answer is a RuntimeInfo");
    assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
    for (program, engine) in
        [("containerd-shim-lighter-v1", ""), ("lighter-wasmtime", ", wasmtime "), ("lighter-compile", ", wasmtime ")]
    {
        let version = bed.cmd(&[program, if engine.is_empty() { "-v" } else { "--version" }]).run().ok().stdout;
        assert!(version.starts_with(&format!("{program} {} (", env!("CARGO_PKG_VERSION"))), "{version}");
        assert!(version.contains(engine), "{version}");
        let help = bed.cmd(&[program, "--help"]).run().ok().stdout;
        assert!(help.len() > 100, "{program} --help teaches: {help}");
        bed.cmd(&[program, "--no-such-flag"]).run().expect(2);
    }
}

fn events_come_in_order_and_the_log_names_its_container(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/events:latest", guests::wat("exit42"));
    bed.import(&image);
    let events = bed.ctr(&["events"]).spawn();
    // `ctr events` says nothing when it is ready: events of our own tell, as soon as one is seen.
    let mut probes = 0..100;
    while !events.stdout().contains("/images/update") {
        let probe = probes.next().expect("ctr sees events within ten seconds");
        bed.ctr(&["images", "label", image.name(), &format!("probe={probe}")]).run().ok();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", "wasi/wasm", image.name(), "events-id"];
    bed.ctr(&run).run().expect(42);
    events.wait_for(r#"/tasks/delete {"container_id":"events-id""#);
    let seen = events.stdout();
    let topics: Vec<&str> = seen
        .lines()
        .filter(|line| line.contains(r#""container_id":"events-id""#))
        .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("/tasks/")))
        .collect();
    assert_eq!(topics, ["create", "start", "exit", "delete"], "{seen}");
    assert!(seen.contains(r#""exit_status":42"#), "{seen}");

    bed.ctr(&["run", "--rm", "--runtime", RUNTIME, "--platform", "wasi/wasm", image.name(), "log-id", "/no"])
        .run()
        .expect(1);
    let log = fs::read_to_string(bed.path("/var/log/bed/containerd.log")).expect("containerd has a log");
    let tags = [r#"runtime="io.containerd.lighter.v1""#, r#"namespace="default""#, r#"id="log-id""#, "/no"];
    assert!(log.lines().any(|line| tags.iter().all(|tag| line.contains(tag))), "{log}");
}

fn processes_and_figures(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/figures:latest", guests::wat("busy"));
    bed.import(&image);
    let runtime = ["--runtime", RUNTIME, "--platform", "wasi/wasm"];
    bed.ctr(&[&["run", "--detach", "--memory-limit", "67108864"], &runtime[..], &[image.name(), "figures"]].concat())
        .run()
        .ok();
    let listed = bed.ctr(&["tasks", "ls"]).run().ok().stdout;
    let line = listed.lines().find(|line| line.starts_with("figures")).expect("the task is listed");
    let pid = line.split_whitespace().nth(1).expect("with its pid");
    let processes = bed.ctr(&["tasks", "ps", "figures"]).run().ok().stdout;
    assert!(processes.lines().any(|line| line.split_whitespace().next() == Some(pid)), "{processes}");
    bed.sh("sleep 0.3").run().ok();
    let metrics: serde_json::Value =
        serde_json::from_str(&bed.ctr(&["tasks", "metrics", "--format", "json", "figures"]).run().ok().stdout)
            .expect("metrics are JSON");
    // v1 nests the figures, v2 has them flat.
    let first = |paths: [&str; 2]| paths.iter().find_map(|path| metrics.pointer(path)?.as_u64()).unwrap_or_default();
    let limit = first(["/memory/usage/limit", "/memory/usage_limit"]);
    let cpu = first(["/cpu/usage/total", "/cpu/usage_usec"]);
    assert_eq!(limit, 64 << 20, "{metrics}");
    assert!(cpu > 0, "{metrics}");
    bed.ctr(&["tasks", "kill", "--signal", "SIGKILL", "figures"]).run().ok();
    bed.sh("until ctr tasks rm figures; do sleep 0.1; done; ctr containers rm figures").run();
    bed.assert_gone("figures");
}
