//! A connection for whatever bytes a test makes up.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A response's head that is longer is none.
const MAX_HEAD: usize = 64 * 1024;

/// A TCP connection.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> io::Result<Raw> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Raw(stream))
    }

    /// Connects, and sends this.
    ///
    /// # Errors
    /// When nobody listens; not when the server closes the connection before it has got all of it.
    pub async fn sent(address: SocketAddr, bytes: impl AsRef<[u8]>) -> io::Result<Raw> {
        let mut raw = Raw::open(address).await?;
        let _ = raw.send(bytes).await;
        Ok(raw)
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref()).await
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    /// Reads up to and with the first `end`.
    ///
    /// # Errors
    /// When the connection ends before, or it doesn't come in time.
    pub async fn read_until(&mut self, end: &str, within: Duration) -> io::Result<String> {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(end.as_bytes()) {
                if read.len() > MAX_HEAD {
                    return Err(io::Error::other("too long"));
                }
                read.push(self.0.read_u8().await?);
            }
            Ok(())
        };
        let ended = timeout(within, reading).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        match ended {
            Ok(Ok(())) => Ok(text),
            Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("{error} after {text:?}"))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no {end:?} after {text:?}"))),
        }
    }

    /// Reads a response's head.
    ///
    /// # Errors
    /// When the connection ends before, or it doesn't come in time.
    pub async fn read_head(&mut self, within: Duration) -> io::Result<String> {
        self.read_until("\r\n\r\n", within).await
    }

    /// Reads to the connection's end, which may be a reset; `None` where it doesn't end in time.
    pub async fn read_to_end(&mut self, within: Duration) -> Option<String> {
        let mut read = Vec::new();
        let ended = timeout(within, self.0.read_to_end(&mut read)).await;
        ended.is_ok().then(|| String::from_utf8_lossy(&read).into_owned())
    }

    /// Reads to the connection's end, or until nothing has come for so long.
    pub async fn read_available(&mut self, patience: Duration) -> String {
        let mut read = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(Ok(more @ 1..)) = timeout(patience, self.0.read(&mut buffer)).await {
            read.extend_from_slice(&buffer[..more]);
            if read.len() > MAX_HEAD {
                break;
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Ends the connection by a reset, as a client does that crashes.
    ///
    /// # Errors
    /// When the socket refuses the option.
    pub fn reset(self) -> io::Result<()> {
        let stream = self.0.into_std()?;
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).map_err(Into::into)
    }
}
