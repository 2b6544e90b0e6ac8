//! A handler's own requests: where they may go, and whom they trust.

use std::fs;

use lighter_tests::{Bed, Registry, Suite, http::Server, on_every_suite};

use super::{Guest, Handler, handler::Setup};

on_every_suite! { plain, allowed_hosts, no_network, unreachable, tls_by_the_image, tls_by_the_node }

/// The status of what the handler gets at a URL, 502 where it gets nothing, and the body.
fn fetch(handler: &Handler<'_>, url: &str) -> (u16, String) {
    handler.bed.on_network(async || {
        let answer = handler.connect().await.get(&format!("/fetch?url={url}")).await.expect("an answer");
        (answer.status, answer.text())
    })
}

fn plain(suite: Suite) {
    let bed = Bed::get(suite);
    let server = Server::start(bed);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Handler::start(bed, &format!("plain-{}", guest.slug()), guest);
        for host in [server.address().to_string(), format!("localhost:{}", server.address().port())] {
            let (status, body) = fetch(&handler, &format!("http://{host}/some/path"));
            assert_eq!(status, 200, "{body}");
            assert!(body.starts_with("GET /some/path\n") && body.contains(&format!("host: {host}\n")), "{body}");
        }
    }
}

/// Names and ports as they are written in the URL.
fn allowed_hosts(suite: Suite) {
    let bed = Bed::get(suite);
    let server = Server::start(bed);
    let port = server.address().port();
    let (by_address, by_name) = (format!("http://127.0.0.1:{port}/"), format!("http://registry.test:{port}/"));
    for (number, (hosts, address, name)) in [
        (String::new(), 502, 502),
        ("127.0.0.1".into(), 200, 502),
        (format!("127.0.0.1:{port}"), 200, 502),
        ("127.0.0.1:1".into(), 502, 502),
        ("registry.test".into(), 502, 200),
        ("REGISTRY.TEST".into(), 502, 200),
        ("*.test".into(), 502, 200),
        ("*.registry.test test registry".into(), 502, 502),
        (format!("example.com, registry.test:{port} 127.0.0.1"), 200, 200),
    ]
    .into_iter()
    .enumerate()
    {
        for guest in [Guest::P2, Guest::P3] {
            let id = format!("allowed-{number}-{}", guest.slug());
            let handler = Setup::new(&id, guest).annotation("http.allowed-hosts", &hosts).start(bed);
            for (url, expected) in [(&by_address, address), (&by_name, name)] {
                let (status, body) = fetch(&handler, url);
                assert_eq!(status, expected, "{guest:?} to {url} with {hosts:?}: {body}");
                assert!(status == 200 || body.contains("Denied"), "{guest:?} to {url} with {hosts:?}: {body}");
            }
        }
    }
}

/// It is served still: its own port is no grant of the guest's.
fn no_network(suite: Suite) {
    let bed = Bed::get(suite);
    let server = Server::start(bed);
    for guest in [Guest::P2, Guest::P3] {
        let handler =
            Setup::new(&format!("no-network-{}", guest.slug()), guest).annotation("network", "none").start(bed);
        let (status, body) = fetch(&handler, &format!("http://{}/", server.address()));
        assert!(status == 502 && body.contains("Denied"), "{status} {body}");
        bed.on_network(async || handler.assert_serves().await);
    }
}

fn unreachable(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "unreachable", Guest::P2);
    for (url, error) in [("http://127.0.0.1:1/", "ConnectionRefused"), ("http://nowhere.test/", "Dns")] {
        let (status, body) = fetch(&handler, url);
        assert!(status == 502 && body.contains(error), "{url}: {status} {body}");
    }
}

/// A certificate that the registry's clients are told to trust.
fn authority(bed: &Bed) -> Vec<u8> {
    bed.start_registry(Registry::Tls);
    fs::read(bed.path("/etc/docker/registry/tls/ca.crt")).expect("the authority's certificate")
}

/// Where Debian, and who follows it, keeps the authorities.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

#[track_caller]
fn assert_trusts(handler: &Handler<'_>) {
    let (bed, registry) = (handler.bed, handler.bed.start_registry(Registry::Tls));
    let (status, body) = fetch(handler, &format!("https://{registry}/v2/"));
    assert_eq!((status, body.trim()), (200, "{}"), "{}", handler.id);
    // The certificate is by the same authority and of another name.
    let (_, port) = registry.rsplit_once(':').expect("a port");
    let (status, body) = fetch(handler, &format!("https://{}:{port}/v2/", bed.suite()));
    assert_eq!(status, 502, "{body}");
}

fn tls_by_the_image(suite: Suite) {
    let bed = Bed::get(suite);
    let authority = authority(bed);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Setup::new(&format!("tls-image-{}", guest.slug()), guest);
        let authority = authority.clone();
        assert_trusts(&handler.image(|image| image.renamed("handler-with-ca").file(BUNDLE, authority)).start(bed));
        let handler = Handler::start(bed, &format!("tls-stranger-{}", guest.slug()), guest);
        let (status, body) = fetch(&handler, &format!("https://{}/v2/", bed.start_registry(Registry::Tls)));
        assert_eq!(status, 502, "{body}");
    }
}

fn tls_by_the_node(suite: Suite) {
    let bed = Bed::fresh(suite);
    let authority = authority(&bed);
    let bundle = bed.path(BUNDLE);
    let mut authorities = fs::read(&bundle).expect("the bed's authorities");
    authorities.extend(authority);
    fs::write(bundle, authorities).expect("add an authority");
    assert_trusts(&Handler::start(&bed, "tls-node", Guest::P2));
}
