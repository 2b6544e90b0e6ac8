//! These tests on a cluster of somebody's: our own node's, of which they are told nothing but what `KUBECONFIG` and
//! `LIGHTER_K8S_REGISTRY` say.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use lighter_tests::{Bed, Suite, kubernetes::Cluster, need_program, on_every_suite};

on_every_suite!(by_its_credentials);

/// Rows of each kind: images of each kind, what `kubectl` does by itself and in pods, a client on this side.
const ROWS: &[&str] =
    &["pods::", "kubectl::exec::", "kubectl::port_forward::", "names::", "volumes::shared_with_init_and_sidecar::"];

fn by_its_credentials(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let Some(bed) = cluster.own() else { return };
    // Nobody restarts the node meanwhile.
    let _among = cluster.namespace("given");
    let folder = tempfile::tempdir().expect("a folder");
    let registry = bed.registry();
    let kubeconfig = folder.path().join("config");
    fs::write(&kubeconfig, cluster.credentials()).expect("write the credentials");
    let registries = folder.path().join("registries.conf");
    let plain = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
    fs::write(&registries, plain).expect("tell skopeo that the registry has no TLS");
    lend(bed, folder.path(), "kubectl", "");
    let policy = bed.path("/etc/containers/policy.json");
    lend(
        bed,
        folder.path(),
        "skopeo",
        &format!("--policy {} --registries-conf {}", policy.display(), registries.display()),
    );
    // There is no archive of Debian's in the bed's network.
    need_program("busybox", "busybox-static").expect("busybox");

    let path = env::join_paths(
        [folder.path().to_owned()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    );
    let mut tests = Command::new(env::current_exe().expect("this program"));
    tests.args(ROWS).args(["--skip", "given::", "--test-threads=2", "--show-output"]);
    tests.env("PATH", path.expect("a PATH")).env("KUBECONFIG", &kubeconfig);
    tests.env("LIGHTER_K8S_REGISTRY", format!("{registry}/lighter"));
    // Where the node's address and the registry are reached.
    let Output { status, stdout, stderr } = bed.in_network(|| tests.output().expect("run this program"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}\n{stderr}");
    let ran = stdout.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
    assert!(ran > ROWS.len(), "{stdout}");
    println!("{stdout}");
}

/// A program of the bed's, in the network and with the files of who calls: on its own, a machine may have none.
fn lend(bed: &Bed, folder: &Path, program: &str, arguments: &str) {
    let script = format!(
        "#!/bin/sh\nexec {root}/lib64/ld-linux-*.so.2 --library-path \"$(echo {root}/usr/lib/*-linux-gnu)\" \
         {root}/usr/bin/{program} {arguments} \"$@\"\n",
        root = bed.path("/").display()
    );
    let path = folder.join(program);
    fs::write(&path, script).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
}
