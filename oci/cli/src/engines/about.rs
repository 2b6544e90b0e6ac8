//! What a runner says of itself.

use std::{io, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use lighter_runtime_api::About;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that a runner may say of itself.
const MAX_ABOUT: u64 = 64 << 10;
/// A runner that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a runner says of itself; `None` where there is none.
///
/// # Errors
/// It can't be started, fails, takes too long, or says what isn't understood. What it left on its standard error is told.
pub(crate) async fn about(runner: &Path) -> Result<Option<About>> {
    let name = runner.display().to_string();
    let mut command = tokio::process::Command::new(runner);
    command.arg("about").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("start {name}")),
    };
    let answer = async {
        let (mut answer, mut said) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        tokio::try_join!(read(stdout, &mut answer), read(stderr, &mut said))?;
        Ok::<_, io::Error>((child.wait().await?, answer, said))
    };
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    let (status, answer, said) = match answered {
        Ok(answer) => answer.with_context(|| format!("ask {name}"))?,
        Err(_) => bail!("{name} does not answer; install it again"),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        match said.lines().next_back().filter(|line| !line.is_empty()) {
            // Such as ld.so, about a library that isn't there; its sentence begins with the program's name.
            Some(line) => bail!("can't start: {}", line.trim_start_matches(&format!("{name}: "))),
            None => bail!("`{name} about` failed ({status}); run it to see why, or install it again"),
        }
    }
    serde_json::from_slice(&answer)
        .map(Some)
        .with_context(|| format!("read what {name} says of itself; install it again"))
}

async fn read(stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream {
        Some(stream) => stream.take(MAX_ABOUT).read_to_end(bytes).await.map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runner_that_is_not_there_or_broken_is_told_apart() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let runner = |text: &str| {
            let path = folder.path().join("runner");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        assert!(about(&folder.path().join("none")).await.unwrap().is_none());
        let sound = runner(
            "#!/bin/sh\necho '{\"name\":\"x\",\"version\":\"2\",\"components\":false,\"imports\":[],\"features\":[],\"worlds\":[]}'",
        );
        assert_eq!(about(&sound).await.unwrap().unwrap().version, "2");
        for (text, expected) in [
            ("#!/bin/sh\nexit 3", "failed"),
            ("#!/bin/sh\necho \"$0: libx.so: cannot open\" >&2; exit 127", "can't start: libx.so: cannot open"),
            ("#!/bin/sh\necho {", "says of itself"),
        ] {
            let error = format!("{:#}", about(&runner(text)).await.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
