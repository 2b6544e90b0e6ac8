//! A manifest, an index or a config of a stranger's. The first byte chooses which.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lighter_oci::image::{Document, WasmConfig};
use lighter_oci_fuzz::{DOCUMENTS, descriptor};

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let media_type = DOCUMENTS[usize::from(*choice) % DOCUMENTS.len()];
    match Document::parse(&descriptor(media_type, bytes), bytes) {
        Ok(document) => {
            // Nothing may be a manifest to one reader and an index to another (CVE-2021-41190).
            let other = match document {
                Document::Manifest(_) => ["application/vnd.oci.image.index.v1+json", DOCUMENTS[3]],
                Document::Index(_) => ["application/vnd.oci.image.manifest.v1+json", DOCUMENTS[2]],
            };
            for other in other {
                assert!(Document::parse(&descriptor(other, bytes), bytes).is_err(), "both a manifest and an index");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(config) = serde_json::from_slice::<WasmConfig>(bytes) {
        let written = serde_json::to_vec(&config).expect("a config as JSON");
        assert_eq!(serde_json::from_slice::<WasmConfig>(&written).expect("what was written"), config);
    }
});
