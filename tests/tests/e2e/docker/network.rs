//! Bridge networks: published ports, names of containers, several networks.

use std::net::{Ipv4Addr, SocketAddr};

use lighter_tests::{
    Bed, Image, Output, Suite, free_port, guests,
    http::{Answer, Connection, Version},
};

use crate::container::Container;

use super::kind::{Kind, Program, on_every_kind};

on_every_kind! {
    published_ports,
    names,
    separate_networks,
    connected_later,
    outbound,
    on_the_default_bridge,
    network_of_another_container,
    hosts_and_resolvers,
}

const HANDLER: &str = "docker.io/library/everyday-handler:latest";

/// An image of a handler. A file of the rootfs: Docker before 27 can't have it otherwise.
#[track_caller]
pub(crate) fn handler(bed: &Bed) -> &'static str {
    bed.docker_load(&Image::wasm(HANDLER, guests::handler("serve")).file("/data/note", "of the image"));
    HANDLER
}

/// An HTTP server in the background: on port 8080 of its own.
#[track_caller]
pub(crate) fn serve<'bed>(bed: &'bed Bed, kind: Kind, name: &str, flags: &[&str]) -> Container<'bed> {
    let container = kind.container(bed, name);
    let run = ["run", "--detach", "--name", &container.name];
    let (image, words): (_, &[&str]) = match kind {
        Kind::Guest => (handler(bed), &[]),
        Kind::Native | Kind::Runc => (kind.image(bed), &["httpd", "-f", "-p", "8080", "-h", "/data"]),
    };
    bed.docker(&[&run, kind.flags(), flags, &[image], words].concat()).run().ok();
    container
}

/// The path at which the server answers with `of the image`.
fn path(kind: Kind) -> &'static str {
    match kind {
        Kind::Guest => "/read?path=/data/note",
        Kind::Native | Kind::Runc => "/note",
    }
}

/// What a container of this network gets from there. Tries for a while: who serves may not listen yet.
#[track_caller]
fn fetch(bed: &Bed, network: &str, url: &str) -> Output {
    let script = format!("for i in 1 2 3 4 5 6 7 8; do wget -q -T 1 -O - '{url}' && exit; sleep 0.3; done; exit 1");
    let image = Kind::Runc.image(bed);
    bed.docker(&["run", "--rm", "--pull", "never", "--network", network, image, "sh", "-c", &script]).run()
}

/// What the bed gets, which is the host of its containers.
#[track_caller]
fn get(bed: &Bed, address: SocketAddr, path: &str) -> String {
    answer(bed, address, path).expect(200).text()
}

/// The same, whatever it is.
#[track_caller]
pub(crate) fn answer(bed: &Bed, address: SocketAddr, path: &str) -> Answer {
    bed.on_network(async || {
        let mut attempts = 0;
        loop {
            let answer = match Connection::open(address, Version::Http1).await {
                Ok(mut connection) => connection.get(path).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return answer,
                Err(error) => assert!(attempts < 100, "{address}: {error:#}"),
            }
            attempts += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
}

/// A bridge network of a test, removed when dropped.
struct Network<'bed>(&'bed Bed, String);

impl<'bed> Network<'bed> {
    #[track_caller]
    fn create(bed: &'bed Bed, kind: Kind, name: &str) -> Self {
        let network = Network(bed, kind.name(name));
        bed.docker(&["network", "create", &network.1]).run().ok();
        network
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let _ = self.0.docker(&["network", "rm", &self.1]).try_run();
    }
}

fn published_ports(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let port = free_port();
    let publish = format!("{port}:8080");
    let server = serve(bed, kind, "published", &["--publish", &publish, "--publish", "8080"]);
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(get(bed, anywhere, path(kind)), "of the image");
    // Also by the address that others reach the bed at, and where Docker chose the port.
    let gateway = server.inspect("{{.NetworkSettings.Gateway}}").parse().expect("the bridge's address");
    assert_eq!(get(bed, SocketAddr::new(gateway, port), path(kind)), "of the image");
    let chosen = bed.docker(&["port", &server.name, "8080/tcp"]).run().ok().stdout;
    let chosen = chosen.lines().filter_map(|line| line.parse::<SocketAddr>().ok());
    let chosen = chosen.filter(SocketAddr::is_ipv4).map(|address| address.port()).find(|chosen| *chosen != port);
    let chosen = SocketAddr::from((Ipv4Addr::LOCALHOST, chosen.expect("another port")));
    assert_eq!(get(bed, chosen, path(kind)), "of the image");
    let listed = ["ps", "--filter", &format!("name={}", server.name), "--format", "{{.Ports}}"];
    assert!(bed.docker(&listed).run().ok().stdout.contains(&format!(":{port}->8080/tcp")));
    server.docker("rm", &["--force"]).ok();
    let refused = bed.on_network(async || tokio::net::TcpStream::connect(anywhere).await.is_err());
    assert!(refused, "something still listens on {anywhere}");
}

fn names(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let network = Network::create(bed, kind, "names");
    let flags = ["--network", &network.1, "--network-alias", "web"];
    let server = serve(bed, kind, "named", &flags);
    for name in [&server.name, "web"] {
        let fetched = fetch(bed, &network.1, &format!("http://{name}:8080{}", path(kind))).ok();
        assert_eq!(fetched.stdout, "of the image", "{name}");
    }
}

/// Neither names nor addresses lead from one into the other.
fn separate_networks(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let [one, other] = ["one", "other"].map(|name| Network::create(bed, kind, name));
    let server = serve(bed, kind, "separate", &["--network", &one.1]);
    let address = server.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    fetch(bed, &one.1, &format!("http://{address}:8080{}", path(kind))).ok();
    let script = |host: &str| format!("wget -q -T 1 -O - http://{host}:8080{}", path(kind));
    for host in [&server.name, &address] {
        let image = Kind::Runc.image(bed);
        let run = ["run", "--rm", "--pull", "never", "--network", &other.1, image, "sh", "-c", &script(host)];
        bed.docker(&run).run().expect(1);
    }
}

/// While it runs, it gets another interface, and listens there as well.
fn connected_later(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let [first, second] = ["first", "second"].map(|name| Network::create(bed, kind, name));
    let server = serve(bed, kind, "connected", &["--network", &first.1]);
    bed.docker(&["network", "connect", "--alias", "later", &second.1, &server.name]).run().ok();
    let url = format!("http://later:8080{}", path(kind));
    assert_eq!(fetch(bed, &second.1, &url).ok().stdout, "of the image");
    bed.docker(&["network", "disconnect", &second.1, &server.name]).run().ok();
    bed.docker(&["restart", &server.name]).run().ok();
    let url = format!("http://{}:8080{}", server.name, path(kind));
    assert_eq!(fetch(bed, &first.1, &url).ok().stdout, "of the image");
}

/// From the container to another one, by name.
fn outbound(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let network = Network::create(bed, kind, "outbound");
    let server = serve(bed, Kind::Runc, &kind.name("outbound-server"), &["--network", &network.1]);
    fetch(bed, &network.1, &format!("http://{}:8080/note", server.name)).ok();
    let url = format!("http://{}:8080/note", server.name);
    if kind == Kind::Guest {
        let port = free_port();
        let flags = ["--network", &network.1, "--publish", &format!("{port}:8080")];
        let _handler = serve(bed, kind, "outbound", &flags);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(get(bed, address, &format!("/fetch?url={url}")), "of the image");
        let image = Image::wasm("docker.io/library/everyday-net:latest", guests::p2("net"));
        bed.docker_load(&image);
        let command = ["--network", &network.1, image.name(), "connect", &format!("{}:8080", server.name)];
        let connected = bed.docker(&[&["run", "--rm"], kind.flags(), &command].concat()).run().ok();
        assert!(connected.stdout.starts_with("connected to "), "{connected}");
    } else {
        let command = ["--network", &network.1, kind.image(bed), "wget", "-q", "-O", "-", &url];
        assert_eq!(bed.docker(&[&["run", "--rm"], kind.flags(), &command].concat()).run().ok().stdout, "of the image");
    }
}

/// Without a network of its own there are addresses, but no names.
fn on_the_default_bridge(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let server = serve(bed, kind, "on-bridge", &[]);
    let address = server.inspect("{{.NetworkSettings.IPAddress}}");
    let fetched = fetch(bed, "bridge", &format!("http://{address}:8080{}", path(kind))).ok();
    assert_eq!(fetched.stdout, "of the image");
}

/// A side by side: what one serves on its loopback address, the other reaches there.
fn network_of_another_container(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let server = serve(bed, kind, "joined", &[]);
    let network = format!("container:{}", server.name);
    let fetched = fetch(bed, &network, &format!("http://127.0.0.1:8080{}", path(kind))).ok();
    assert_eq!(fetched.stdout, "of the image");
    let holder = Kind::Runc.ready(bed, &kind.name("holder-for"), &[]);
    let guest = serve(bed, kind, "joining", &["--network", &format!("container:{}", holder.name)]);
    let script = format!("until wget -q -O - 'http://127.0.0.1:8080{}'; do sleep 0.1; done", path(kind));
    let fetched = bed.docker(&["exec", &holder.name, "sh", "-c", &script]).run().ok();
    assert_eq!(fetched.stdout, "of the image");
    guest.docker("rm", &["--force"]).ok();
}

fn hosts_and_resolvers(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let flags = ["--rm", "--hostname", "ship", "--add-host", "harbour:10.1.2.3", "--dns", "10.9.9.9"];
    for (file, line) in [
        ("/etc/hostname", "ship"),
        ("/etc/hosts", "10.1.2.3\tharbour"),
        ("/etc/hosts", "\tship"),
        ("/etc/resolv.conf", "nameserver 10.9.9.9"),
    ] {
        let read = kind.run(bed, &kind.name("hosts"), &flags, Program::Read(file)).run().ok();
        assert!(read.stdout.contains(line), "{line:?}\n{read}");
    }
}
