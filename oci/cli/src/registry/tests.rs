//! What goes wrong between a client and a registry, and what comes of it.

use std::{
    io::{Read, Write},
    time::Instant,
};

use super::{
    fake::{Fake, Fault},
    *,
};
use crate::store::Store;

const BLOB: &[u8] = b"0123456789abcdef";

fn output() -> Output {
    Output::new(true, true)
}

fn client<'a>(fake: &Fake, output: &'a Output) -> Registry<'a> {
    Registry::new(&fake.reference("x:1"), false, Access::Pull, output).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path()).unwrap();
    (folder, store)
}

fn bytes(store: &Store, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open_blob(blob.digest().as_ref()).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_download_survives_what_a_registry_does() {
    let table: &[(&str, &[Fault], &[&str])] = &[
        ("nothing wrong", &[], &[""]),
        ("cut", &[Fault::Cut(5)], &["", " bytes=5-"]),
        ("cut twice", &[Fault::Cut(5), Fault::Cut(3)], &["", " bytes=5-", " bytes=8-"]),
        ("no range", &[Fault::Cut(5), Fault::IgnoreRange], &["", " bytes=5-"]),
        ("no range, cut again", &[Fault::Cut(5), Fault::IgnoreRange, Fault::Cut(1)], &["", " bytes=5-"]),
        (
            "500 twice",
            &[Fault::Answer("HTTP/1.1 500 Oops\r\n\r\n"), Fault::Answer("HTTP/1.1 503 Oops\r\n\r\n")],
            &["", "", ""],
        ),
        ("too many requests", &[Fault::Answer("HTTP/1.1 429 Slow\r\nretry-after: 1\r\n\r\n")], &["", ""]),
        ("the answer is no HTTP", &[Fault::Answer("\0\0\0")], &["", ""]),
        ("no answer at all", &[Fault::Answer("")], &["", ""]),
        (
            "a body shorter than the blob",
            &[Fault::Answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n012")],
            &["", " bytes=3-"],
        ),
        (
            "another range than asked for",
            &[
                Fault::Cut(5),
                Fault::Answer("HTTP/1.1 206 OK\r\ncontent-range: bytes 6-15/16\r\ncontent-length: 1\r\n\r\n6"),
            ],
            &["", " bytes=5-", ""],
        ),
        ("no such range", &[Fault::Cut(5), Fault::Answer("HTTP/1.1 416 No\r\n\r\n")], &["", " bytes=5-", ""]),
    ];
    for (name, faults, requests) in table {
        Fake::with(async |fake: Fake| {
            let blob = fake.blob("x", BLOB);
            for fault in *faults {
                fake.fault("/blobs/", fault.clone());
            }
            let (_folder, store) = store();
            let output = output();
            let mut partial = store.partial(&blob).unwrap().unwrap();
            client(&fake, &output).download(&blob, &mut partial, |_| ()).await.unwrap();
            partial.finish().unwrap();
            assert_eq!(bytes(&store, &blob), BLOB, "{name}");
            let asked: Vec<String> =
                requests.iter().map(|range| format!("GET /v2/x/blobs/{}{range}", blob.digest())).collect();
            assert_eq!(fake.asked("GET"), asked, "{name}");
        });
    }
}

#[test]
fn a_download_that_starts_over_and_over_ends() {
    const PIECE: usize = PROGRESS as usize + 1;
    Fake::with(async |fake: Fake| {
        let blob = fake.blob("x", &vec![0; 2 * PIECE]);
        for _ in 0..20 {
            fake.fault("/blobs/", Fault::Cut(PIECE));
            fake.fault("/blobs/", Fault::Answer("HTTP/1.1 416 No\r\n\r\n"));
        }
        let (_folder, store) = store();
        let output = output();
        let mut partial = store.partial(&blob).unwrap().unwrap();
        let error = client(&fake, &output).download(&blob, &mut partial, |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("broke off"), "{error}");
        assert!(fake.asked("/blobs/").len() < 20);
    });
}

#[test]
fn a_registry_that_says_when_to_come_back_is_obeyed() {
    Fake::with(async |fake| {
        let manifest = fake.manifest("1", "application/vnd.oci.image.manifest.v1+json", b"{}");
        fake.fault("/manifests/", Fault::Answer("HTTP/1.1 429 Slow\r\nretry-after: 1\r\n\r\n"));
        let output = output();
        let begun = Instant::now();
        let (found, _) = client(&fake, &output).manifest("1").await.unwrap();
        assert_eq!(found, manifest);
        assert!(begun.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    let table = [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "/x:1: not found"),
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not\\u001b[31m for you\"}]} ",
            "denies access (DENIED: not [31m for you); log in with `docker login 127.0.0.1:",
        ),
        ("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\n\r\n", "log in with `docker login"),
        (
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"no address\"\r\n\r\n",
            "names a token server that is none",
        ),
        ("HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.   ", "certs.d"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n", "broke off"),
    ];
    for (answer, says) in table {
        Fake::with(async |fake: Fake| {
            for _ in 0..5 {
                fake.fault("/manifests/", Fault::Answer(answer));
            }
            let output = output();
            let error = client(&fake, &output).manifest("1").await.unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(&fake.host), "{error}");
            let tries = if says == "broke off" { 5 } else { 1 };
            assert_eq!(fake.asked("/manifests/").len(), tries, "{error}");
        });
    }
}

#[test]
fn a_document_is_bounded_and_is_what_was_asked_for() {
    Fake::with(async |fake| {
        let output = output();
        let manifest = fake.manifest("1", "text/plain", br#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#);
        let client = client(&fake, &output);
        let (found, _) = client.manifest(manifest.digest().as_ref()).await.unwrap();
        assert_eq!(*found.media_type(), MediaType::ImageIndex, "the document's own, where the header says nothing");
        fake.fault("/manifests/", Fault::Damage);
        let error = client.manifest(manifest.digest().as_ref()).await.unwrap_err().to_string();
        assert!(error.contains("sent something else"), "{error}");

        let large = vec![b' '; usize::try_from(image::MAX_DOCUMENT).unwrap() + 1];
        fake.manifest("large", "application/vnd.oci.image.manifest.v1+json", &large);
        let error = client.manifest("large").await.unwrap_err().to_string();
        assert!(error.contains("sends more than"), "{error}");

        let blob = fake.blob("x", BLOB);
        assert_eq!(client.small_blob(&blob).await.unwrap(), BLOB);
        fake.fault("/blobs/", Fault::Damage);
        assert!(client.small_blob(&blob).await.unwrap_err().to_string().contains("sent damage"));
    });
}

#[test]
fn a_registry_that_is_down_is_named_within_seconds() {
    install_tls();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A port that was free a moment ago.
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let reference = format!("{host}/x").parse().unwrap();
    let output = output();
    let registry = Registry::new(&reference, false, Access::Pull, &output).unwrap();
    let begun = Instant::now();
    let error = runtime.block_on(registry.manifest("latest")).unwrap_err().to_string();
    assert!(error.contains(&host) && error.contains("Connection refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_upload_starts_over_after_a_fault() {
    type Case<'a> = (&'a str, &'a [(&'static str, Fault)], usize);
    let table: &[Case<'_>] = &[
        ("nothing wrong", &[], 1),
        ("cut", &[("PUT", Fault::CutRequest(4))], 2),
        ("500", &[("PUT", Fault::Answer("HTTP/1.1 500 Oops\r\n\r\n"))], 2),
        ("cannot begin", &[("POST", Fault::Answer("HTTP/1.1 502 Oops\r\n\r\n"))], 1),
    ];
    for (name, faults, puts) in table {
        Fake::with(async |fake: Fake| {
            let (_folder, store) = store();
            let (digest, size) = store.put(BLOB).unwrap();
            let blob = Descriptor::new(MediaType::from("x"), size, digest.parse::<Digest>().unwrap());
            for (request, fault) in *faults {
                fake.fault(request, fault.clone());
            }
            let output = output();
            let client = client(&fake, &output);
            assert!(!client.has_blob(&blob).await.unwrap());
            client.upload(&blob, file(BLOB), |_| ()).await.unwrap();
            assert!(client.has_blob(&blob).await.unwrap());
            assert_eq!(fake.state.borrow().blobs[&digest], BLOB, "{name}");
            let asked = fake.asked("PUT");
            assert_eq!(asked.len(), *puts, "{name}");
            assert!(asked[0].contains("?_state=a&digest=sha256%3A"), "{asked:?}");
        });
    }
}

#[test]
fn a_blob_is_mounted_where_another_repository_has_it() {
    Fake::with(async |fake| {
        let output = output();
        let blob = fake.blob("x", BLOB);
        let there = fake.state.borrow_mut().blobs.remove(blob.digest().as_ref()).unwrap();
        let client = client(&fake, &output);
        assert!(!client.mount(&blob, "a/other").await.unwrap());
        fake.state.borrow_mut().elsewhere.insert(blob.digest().to_string(), there);
        assert!(client.mount(&blob, "a/other").await.unwrap());
        assert!(client.has_blob(&blob).await.unwrap());
        fake.fault("POST", Fault::Answer("HTTP/1.1 403 Forbidden\r\n\r\n"));
        assert!(!client.mount(&blob, "not/ours").await.unwrap());
    });
}

#[test]
fn credentials_are_for_the_registry_alone() {
    Fake::with(async |fake| {
        fake.state.borrow_mut().basic = Some("dTpw");
        let output = output();
        let client = client(&fake, &output);
        client.auth.set(reqwest::header::HeaderValue::from_static("Basic dTpw"));
        assert!(client.manifest("1").await.unwrap_err().to_string().contains("not found"));
        let elsewhere = Url::parse(&client.endpoint.base.as_str().replace("127.0.0.1", "localhost")).unwrap();
        let answer = client.exchange("test", Method::GET, &elsewhere, |get| get).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "no credentials for another host");
    });
}

#[test]
fn a_host_that_the_registry_sends_us_to_is_told_no_password() {
    Fake::with(async |fake| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, format!(r#"{{"auths": {{"{}": {{"auth": "dTpw"}}}}}}"#, fake.host)).unwrap();
        fake.state.borrow_mut().bearer = Some("one");
        let elsewhere = fake.host.replace("127.0.0.1", "localhost");
        let answer = format!("HTTP/1.1 307 There\r\nlocation: http://{elsewhere}/v2/x/manifests/1\r\n\r\n");
        fake.fault("/manifests/", Fault::Answer(answer.leak()));
        let output = output();
        let mut client = client(&fake, &output);
        client.auth.use_config(path);
        let error = client.manifest("1").await.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert_eq!(fake.asked("/manifests/").len(), 2);
        assert_eq!(fake.state.borrow().token_requests, [""; 0]);
    });
}

#[test]
fn a_token_is_asked_for_with_what_docker_has() {
    let table = [
        (
            "{}",
            "scope=repository%3Ax%3Apull%2Cpush&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ax%3Apull&service=fake  ",
        ),
        (
            r#"{"auths": {"HOST": {"auth": "dTpw"}}}"#,
            "scope=repository%3Ax%3Apull%2Cpush&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ax%3Apull&service=fake  \
             Basic dTpw",
        ),
        (
            r#"{"auths": {"HOST": {"identitytoken": "t&t"}}}"#,
            " grant_type=refresh_token&client_id=lighter&refresh_token=t%26t&\
             scope=repository%3Ax%3Apull%2Cpush+repository%3Aa%2Fb%3Apull+repository%3Ax%3Apull&service=fake ",
        ),
    ];
    for (config, asked) in table {
        Fake::with(async |fake: Fake| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.json");
            std::fs::write(&path, config.replace("HOST", &fake.host)).unwrap();
            fake.state.borrow_mut().bearer = Some("one");
            let output = output();
            let sources = ["a/b".to_owned()];
            let mut client = Registry::new(&fake.reference("x:1"), false, Access::Push(&sources), &output).unwrap();
            client.auth.use_config(path);
            client.greet().await.unwrap();
            fake.manifest("1", "application/vnd.oci.image.manifest.v1+json", b"{}");
            client.manifest("1").await.unwrap();
            client.manifest("1").await.unwrap();
            assert_eq!(fake.state.borrow().token_requests, [asked]);
            // The token ran out.
            fake.state.borrow_mut().bearer = Some("two");
            client.manifest("1").await.unwrap();
            assert_eq!(fake.state.borrow().token_requests.len(), 2);
        });
    }
}

#[test]
fn a_wrong_password_is_told_from_none() {
    for (config, says) in [
        (r#"{}"#, "denies access; log in with `docker login"),
        (r#"{"auths": {"HOST": {"auth": "dTp3"}}}"#, "the credential that Docker has for it is not accepted"),
    ] {
        Fake::with(async |fake: Fake| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.json");
            std::fs::write(&path, config.replace("HOST", &fake.host)).unwrap();
            fake.state.borrow_mut().basic = Some("dTpw");
            let output = output();
            let mut client = client(&fake, &output);
            client.auth.use_config(path);
            let error = client.manifest("1").await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        });
    }
}

#[test]
fn a_dislike_of_the_manifest_is_told_from_others() {
    Fake::with(async |fake| {
        let output = output();
        let client = client(&fake, &output);
        for (answer, about) in [
            (
                "HTTP/1.1 400 Bad\r\n\r\n{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"unknown config\"}]}",
                true,
            ),
            ("HTTP/1.1 415 Bad\r\n\r\n", true),
            ("HTTP/1.1 400 Bad\r\n\r\n{\"errors\":[{\"code\":\"NAME_INVALID\",\"message\":\"a name\"}]}", false),
            ("HTTP/1.1 403 Bad\r\n\r\n", false),
        ] {
            fake.fault("PUT", Fault::Answer(answer));
            let error = client.put_manifest("1", &MediaType::ImageManifest, b"{}").await.unwrap_err();
            assert_eq!(error.is_about_the_manifest(), about, "{error}");
        }
        client.put_manifest("1", &MediaType::ImageManifest, b"{}").await.unwrap();
        assert_eq!(fake.state.borrow().manifests["1"].1, b"{}");
    });
}
