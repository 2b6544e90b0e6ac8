//! The pod's network: a CNI bridge, ports of the node's, and what is left of it.

use std::net::SocketAddr;

use lighter_tests::{
    Bed,
    cri::{Pod, api::PortMapping},
    free_port,
    http::{Connection, Version},
};

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    pods_reach_each_other: Runc Native Wasm;
    ports_of_the_node: Runc Native Wasm;
    addresses_are_given_back: Runc Native;
}

/// What a server of the pod's answers on this address, asked from the node.
#[track_caller]
fn get(bed: &Bed, address: SocketAddr) -> String {
    let ask = async move || -> anyhow::Result<String> {
        let mut connection = Connection::open(address, Version::Http1).await?;
        Ok(connection.get("/").await?.expect(200).text())
    };
    bed.on_network(|| ask()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A server on 8080 that says hello, ready.
#[track_caller]
fn serve(target: Target, pod: &Pod<'_, '_>) {
    match target.kind {
        Kind::Wasm => drop(guest(pod, "server", &["/serve.wasm"]).start()),
        Kind::Runc | Kind::Native => {
            let script = "mkdir /www; echo hello >/www/index.html; httpd -p 8080 -h /www; echo ready; sleep 1000";
            sh(pod, "server", script).start().wait_for("ready");
        }
    }
}

fn pods_reach_each_other(target: Target) {
    let cri = target.cri();
    let (server, client) = (target.pod(&cri, "server").run(), target.pod(&cri, "client").run());
    assert_ne!(server.ip(), client.ip());
    serve(target, &server);
    let address: SocketAddr = format!("{}:8080", server.ip()).parse().expect("an address");
    assert!(get(cri.bed(), address).contains("hello"));
    let text = match target.kind {
        Kind::Wasm => guest(&client, "c", &["/net.wasm", "connect", &address.to_string()]).start().expect(0),
        Kind::Runc | Kind::Native => sh(&client, "c", &format!("wget -q -O - http://{address}/")).start().expect(0),
    };
    assert!(text.contains("hello") || text.contains("connected"), "{text}");
    // Not on the loopback address of the other.
    let alone = match target.kind {
        Kind::Wasm => guest(&client, "alone", &["/net.wasm", "connect", "127.0.0.1:8080"]),
        Kind::Runc | Kind::Native => sh(&client, "alone", "wget -q -O - http://127.0.0.1:8080/"),
    };
    alone.start().expect(1);
}

fn ports_of_the_node(target: Target) {
    let (cri, port) = (target.cri(), free_port());
    let mapping = PortMapping { container_port: 8080, host_port: port.into(), ..PortMapping::default() };
    let pod = target.pod(&cri, "ports").with(|config| config.port_mappings.push(mapping)).run();
    serve(target, &pod);
    for host in ["127.0.0.1", "10.88.0.1"] {
        assert!(get(cri.bed(), format!("{host}:{port}").parse().expect("an address")).contains("hello"), "{host}");
    }
    pod.stop().expect("stop");
    let gone = cri.bed().in_network(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(gone, "the port is still forwarded");
}

fn addresses_are_given_back(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "address").run();
    // CNI's plugins keep files, in which the pod is named.
    let kept = || cri.bed().sh(&format!("grep -rl {} /var/lib/cni || true", pod.id())).run().ok().stdout;
    assert!(kept().contains(&pod.ip()), "{}", kept());
    pod.stop().expect("stop");
    assert_eq!(kept(), "");
    assert_eq!(pod.ip(), "");
    pod.remove().expect("remove");
    cri.bed().assert_gone(pod.id());
}
