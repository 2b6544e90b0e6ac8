//! From a root descriptor to the image, in a content made of the input: documents divided by lines of `---`, each of
//! which may name an earlier one by `@0`, `@1`, …, in place of its digest and size. The last is the root; what
//! the first byte chooses is its media type.

#![no_main]

use std::{
    collections::HashMap,
    pin::pin,
    task::{Context, Poll, Waker},
};

use libfuzzer_sys::fuzz_target;
use lighter_oci::{
    Error,
    image::{Content, Format, manifests, media, resolve},
};
use lighter_oci_fuzz::{DOCUMENTS, descriptor, digest};
use oci_spec::image::Descriptor;

/// More would be but slow.
const MAX_BLOBS: usize = 10;

struct Blobs(HashMap<String, Vec<u8>>);

impl Content for Blobs {
    type Error = Error;

    async fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(&blob.digest().to_string()).cloned())
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let mut names: Vec<String> = Vec::new();
    let mut blobs = Blobs(HashMap::new());
    let mut root = Vec::new();
    for document in text.split("\n---\n").take(MAX_BLOBS) {
        let named = names
            .iter()
            .enumerate()
            .fold(document.to_owned(), |document, (number, name)| document.replace(&format!("@{number}"), name));
        root = named.into_bytes();
        names.push(format!(r#""digest":"{}","size":{}"#, digest(&root), root.len()));
        blobs.0.insert(digest(&root), root.clone());
    }
    let root = descriptor(DOCUMENTS[usize::from(*choice) % DOCUMENTS.len()], &root);
    let all = now(manifests(&blobs, &root));
    if let Ok(image) = now(resolve(&blobs, &root)) {
        let all = all.expect("what an image is among");
        assert!(all.iter().any(|(manifest, _)| *manifest == image.manifest));
        assert_eq!(image.module.is_none(), image.format == Format::Rootfs);
        assert!(image.module.iter().all(|layer| media::is_wasm_layer(layer.media_type())));
        assert!(image.layers.iter().all(|layer| media::is_tar_layer(layer.media_type())));
    }
});

/// Of what never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the content is in memory"),
    }
}
