//! Bodies: bounded ones from the registry, streamed ones to it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Response};

/// Bytes that are read from a file and handed to the connection at a time.
const CHUNK: u64 = 64 * 1024;

/// The whole body, or `None` if it is larger than `most`.
pub(super) async fn bounded(mut response: Response, most: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (body.len() + chunk.len()) as u64 > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// `size` bytes of a file, read as the connection takes them; `sent` says how many it took.
pub(super) fn file(file: &Arc<File>, size: u64, sent: &Arc<AtomicU64>) -> Body {
    sent.store(0, Ordering::Relaxed);
    let state = (Arc::clone(file), Arc::clone(sent), 0);
    Body::wrap_stream(stream::try_unfold(state, move |(file, sent, at)| async move {
        let want = CHUNK.min(size - at);
        if want == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from(want).map_err(io::Error::other)?];
        // The page cache answers, or the disk soon: not worth a thread.
        file.read_exact_at(&mut chunk, at)?;
        let at = at + want;
        sent.store(at, Ordering::Relaxed);
        Ok::<_, io::Error>(Some((Bytes::from(chunk), (file, sent, at))))
    }))
}
