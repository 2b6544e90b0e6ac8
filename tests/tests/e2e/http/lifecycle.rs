//! A handler's life: it is ready when it accepts, and nothing is lost when it goes.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use lighter_tests::{
    Bed, Suite,
    http::{Answer, Connection, Version},
    on_every_suite,
};
use tokio::{net::TcpStream, task::spawn_blocking, time::sleep};

use super::{Guest, Handler, SOON, handler::Setup};
use crate::{cli::Lighter, container::Container};

on_every_suite! {
    ready_when_started,
    a_port_that_is_taken,
    a_default_address,
    drains_on_sigterm,
    drains_http_2,
    lingers_for_those_who_learn_of_the_end_later,
    a_request_that_does_not_end,
    a_service_loses_nothing,
    without_a_daemon,
}

fn ready_when_started(suite: Suite) {
    let bed = Bed::get(suite);
    for number in 0..5 {
        let handler = Handler::start(bed, &format!("ready-{number}"), Guest::P2);
        bed.on_network(async || handler.assert_serves().await);
        handler.terminate();
        handler.assert_ends(0);
    }
}

fn a_port_that_is_taken(suite: Suite) {
    let bed = Bed::get(suite);
    let first = Handler::start(bed, "first-on-port", Guest::P2);
    let second = Setup::new("second-on-port", Guest::P2).at(first.address);
    let refused = second.try_start(bed);
    assert!(refused.status != 0 && refused.stderr.contains(&first.address.to_string()), "{refused}");
    bed.ctr(&["containers", "rm", "second-on-port"]).run();
    bed.assert_gone("second-on-port");
    bed.on_network(async || first.assert_serves().await);
}

/// Port 8080 of every address; nobody else in a bed has it.
fn a_default_address(suite: Suite) {
    let bed = Bed::fresh(suite);
    let handler = Container::detach(&bed, "default-address", &Guest::P2.component(), &["--network", "host"], &[]);
    bed.on_network(async || {
        let mut client = Connection::open(([127, 0, 0, 1], 8080).into(), Version::Http1).await.expect("connect");
        client.get("/").await.expect("an answer").expect(200);
    });
    handler.docker("stop", &[]).ok();
    assert_eq!(handler.inspect("{{.State.ExitCode}}"), "0");
}

/// Panics unless nobody accepts connections there within a short time.
async fn assert_refuses(address: SocketAddr) {
    let deadline = Instant::now() + SOON;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "{address} still accepts connections");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What was begun is answered, what is idle is closed, what is new is refused.
#[track_caller]
fn drains(suite: Suite, id: &str, version: Version) {
    let bed = Bed::get(suite);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Handler::start(bed, &format!("{id}-{}", guest.slug()), guest);
        bed.on_network(async || {
            let mut idle = handler.connect_by(version).await;
            idle.get("/").await.expect("an answer").expect(200);
            let mut busy = handler.connect_by(version).await;
            let request = busy.request("GET", "/sleep?ms=1500").body(Empty::new().boxed()).expect("a request");
            let start = Instant::now();
            let pending = tokio::spawn(busy.send(request).await.expect("send"));
            sleep(Duration::from_millis(300)).await;
            handler.terminate();
            assert_refuses(handler.address).await;
            assert!(start.elapsed() < Duration::from_millis(1400), "it refuses connections too late");
            let deadline = Instant::now() + Duration::from_secs(1);
            while !idle.is_closed() {
                assert!(Instant::now() < deadline, "an idle connection stays open");
                sleep(Duration::from_millis(5)).await;
            }
            let response = pending.await.expect("the request").expect("a response");
            let answer = Answer::of(response).await.expect("a body").expect(200);
            assert_eq!(answer.text(), "slept\n");
            assert!(start.elapsed() >= Duration::from_millis(1500));
        });
        handler.assert_ends(0);
    }
}

fn drains_on_sigterm(suite: Suite) {
    drains(suite, "drain", Version::Http1);
}

fn drains_http_2(suite: Suite) {
    drains(suite, "drain-2", Version::Http2);
}

/// Who sends it connections goes on for a while: they are answered, and asked to go elsewhere.
fn lingers_for_those_who_learn_of_the_end_later(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("lingers", Guest::P2).annotation("http.linger", "2s").start(bed);
    let begun = Instant::now();
    handler.terminate();
    bed.on_network(async || {
        while begun.elapsed() < Duration::from_millis(1500) {
            let mut late = handler.connect_by(Version::Http1).await;
            let answer = late.get("/").await.expect("an answer").expect(200);
            assert_eq!(answer.headers.get("connection").map(|value| value.as_bytes()), Some(&b"close"[..]));
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_refuses(handler.address).await;
    });
    handler.assert_ends(0);
    let handler = Setup::new("lingers-not", Guest::P2).annotation("http.linger", "60s").start(bed);
    let begun = Instant::now();
    handler.terminate();
    handler.terminate();
    handler.assert_ends(0);
    assert!(begun.elapsed() < Duration::from_secs(20), "told twice, it goes on for {:?}", begun.elapsed());
}

/// The grace period bounds it, which is Docker's to end.
fn a_request_that_does_not_end(suite: Suite) {
    let bed = Bed::get(suite);
    let address = SocketAddr::from(([127, 0, 0, 1], lighter_tests::free_port()));
    let annotation = format!("run.lighter.http.address={address}");
    let flags = ["--network", "host", "--annotation", &annotation, "--annotation", "run.lighter.http.timeout=none"];
    let handler = Container::detach(bed, "endless", &Guest::P2.component(), &flags, &[]);
    bed.on_network(async || {
        let mut client = Connection::open(address, Version::Http1).await.expect("connect");
        let request = client.request("GET", "/sleep?ms=600000").body(Empty::new().boxed()).expect("a request");
        let pending = tokio::spawn(client.send(request).await.expect("send"));
        sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        handler.docker("stop", &["--time", "2"]).ok();
        assert!(start.elapsed() < Duration::from_secs(2) + SOON, "docker stop took {:?}", start.elapsed());
        assert!(pending.await.expect("the request").is_err());
    });
    assert_eq!(handler.inspect("{{.State.ExitCode}}"), "137");
}

const REQUESTS: usize = 10_000;
const CONNECTIONS: usize = 256;

/// What the clients of a service with two endpoints see, one of which goes in the middle.
#[derive(Default)]
struct Service {
    /// Requests that are given out.
    begun: AtomicUsize,
    answered: [AtomicUsize; 2],
    /// Requests that went to another endpoint, for the first one had closed the connection without an answer.
    repeated: AtomicUsize,
    ending: AtomicBool,
}

/// 10 000 requests under 256 connections, and SIGTERM to one of two containers. A client may repeat a request of which
/// it has not heard a byte on a connection that was closed after SIGTERM; nothing else may go wrong.
fn a_service_loses_nothing(suite: Suite) {
    let bed = Bed::get(suite);
    let endpoints = ["service-one", "service-two"].map(|id| Handler::start(bed, id, Guest::P2));
    let addresses = [endpoints[0].address, endpoints[1].address];
    let service = Service::default();
    bed.on_network(async || {
        let clients = join_all((0..CONNECTIONS).map(|number| client(&service, addresses, number)));
        let end = async {
            while service.begun.load(Ordering::Relaxed) < REQUESTS / 3 {
                sleep(Duration::from_millis(1)).await;
            }
            service.ending.store(true, Ordering::SeqCst);
            let (pid, id) = (bed.init(), endpoints[0].id.clone());
            // Elsewhere: the clients go on meanwhile.
            let kill = bed.ctr(&["tasks", "kill", "--signal", "SIGTERM", &id]);
            spawn_blocking(move || kill.run().ok()).await.unwrap_or_else(|_| panic!("kill {id} of {pid}"));
        };
        tokio::join!(clients, end);
    });
    let [one, two] = service.answered.each_ref().map(|answered| answered.load(Ordering::SeqCst));
    let repeated = service.repeated.load(Ordering::SeqCst);
    println!("{one} answered by the one that ended, {two} by the other; {repeated} were repeated");
    assert_eq!(one + two, REQUESTS);
    assert!(one > 0 && two > REQUESTS / 3, "{one} and {two}");
    // One a connection at most: it is closed then.
    assert!(repeated <= CONNECTIONS, "{repeated}");
    let [one, _two] = endpoints;
    one.assert_ends(0);
}

/// Sends one request after the other, half of the clients to each endpoint.
async fn client(service: &Service, addresses: [SocketAddr; 2], number: usize) {
    let mut endpoint = number % 2;
    let mut connection: Option<Connection> = None;
    loop {
        let request = service.begun.fetch_add(1, Ordering::Relaxed);
        if request >= REQUESTS {
            return;
        }
        let path = ["/", "/headers", "/sleep?ms=20", "/status/202"][request % 4];
        loop {
            let mut client = match connection.take().filter(|connection| !connection.is_closed()) {
                Some(client) => client,
                None => match Connection::open(addresses[endpoint], Version::Http1).await {
                    Ok(client) => client,
                    Err(error) => {
                        fail_over(service, &mut endpoint, &format!("{error:#}"));
                        continue;
                    }
                },
            };
            let body = client.request("GET", path).body(Empty::new().boxed()).expect("a request");
            // Without a byte of a response hyper gives no response; with one, the rest has to come.
            let response = match client.send(body).await {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            match response {
                Ok(response) => {
                    let answer = Answer::of(response).await.expect("all of an answer that has begun");
                    assert!(answer.status == if request % 4 == 3 { 202 } else { 200 }, "{answer}");
                    service.answered[endpoint].fetch_add(1, Ordering::SeqCst);
                    connection = Some(client);
                    break;
                }
                Err(error) => {
                    fail_over(service, &mut endpoint, &error.to_string());
                    service.repeated.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

#[track_caller]
fn fail_over(service: &Service, endpoint: &mut usize, why: &str) {
    assert!(service.ending.load(Ordering::SeqCst), "before SIGTERM: {why}");
    assert_eq!(*endpoint, 0, "of the endpoint that stays: {why}");
    *endpoint = 1;
}

/// `lighter run` serves on the loopback address, until Ctrl-C.
fn without_a_daemon(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    lighter.write("handler.wasm", Guest::P2.component());
    let running = lighter.sh("echo pid $$; exec lighter run handler.wasm").spawn();
    running.wait_for("pid ");
    let pid = running.stdout().lines().find_map(|line| line.strip_prefix("pid ").map(str::to_owned)).expect("a pid");
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    bed.on_network(async || {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut client = loop {
            match Connection::open(address, Version::Http1).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        client.get("/").await.expect("an answer").expect(200);
        let request = client.request("GET", "/sleep?ms=1000").body(Empty::new().boxed()).expect("a request");
        let pending = tokio::spawn(client.send(request).await.expect("send"));
        sleep(Duration::from_millis(200)).await;
        bed.cmd(&["kill", "-INT", &pid]).run().ok();
        Answer::of(pending.await.expect("the request").expect("a response")).await.expect("a body").expect(200);
    });
    running.wait().ok();
}
