//! What else a handler may import: `wasi:config` and `wasi:keyvalue`.

use lighter_tests::{Bed, Suite, on_every_suite};

use super::{Guest, handler::Setup};

on_every_suite! { config, keyvalue }

fn config(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("config", Guest::Store).flag("--env").flag("COLOUR=blue").start(bed);
    bed.on_network(async || {
        let mut client = handler.connect().await;
        let answer = client.get("/config?key=COLOUR").await.expect("an answer").expect(200);
        assert_eq!(answer.text(), "blue");
        client.get("/config?key=NOTHING").await.expect("an answer").expect(404);
    });
}

/// In memory, one for all of a container's instances.
fn keyvalue(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("keyvalue", Guest::Store).start(bed);
    let other = Setup::new("keyvalue-other", Guest::Store).start(bed);
    bed.on_network(async || {
        let mut client = handler.connect().await;
        for expected in ["2", "4", "6"] {
            let answer = client.get("/kv?key=count&add=2").await.expect("an answer").expect(200);
            assert_eq!(answer.text(), expected);
        }
        client.get("/kv?key=name&set=lighter").await.expect("an answer").expect(200);
        assert_eq!(client.get("/kv?key=name").await.expect("an answer").expect(200).text(), "lighter");
        other.connect().await.get("/kv?key=name").await.expect("an answer").expect(404);
    });
}
