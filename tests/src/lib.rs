//! The testbed: real containerd and Docker, from Debian's packages, in namespaces of their own; and the
//! guests that the tests run there, built from source.
//!
//! It knows the binaries under test only as `make install` lays them out, and nothing of what is inside
//! them. See `README.md` for how it works.
//!
//! ```no_run
//! use lighter_tests::{Bed, Image, Suite, guests};
//!
//! let bed = Bed::get(Suite::Trixie);
//! bed.import(&Image::wasm("docker.io/library/hello:latest", guests::wat("hello")));
//! let run = ["run", "--rm", "--runtime", "io.containerd.lighter.v1", "--platform", "wasi/wasm"];
//! let hello = bed.ctr(&[&run[..], &["docker.io/library/hello:latest", "h"]].concat()).run().ok();
//! assert_eq!(hello.stdout, "hello\n");
//! ```

mod bed;
mod cache;
mod cgroup;
mod command;
pub mod cri;
mod daemons;
pub mod documents;
mod enter;
pub mod guests;
mod hold;
pub mod http;
mod image;
mod init;
mod installer;
pub mod kubernetes;
mod leftovers;
mod logs;
mod mmdebstrap;
mod network;
mod prerequisites;
mod proxy;
mod registry;
mod rootfs;
mod shared;
mod staging;
mod suite;
mod terminal;
pub mod vm;
pub mod wasmedge;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use bed::{Bed, OwnBed};
pub use command::{Cmd, Output, Running};
pub use enter::enter;
pub use hold::{Parts, hold};
pub use image::{ENTRYPOINT, Image, host_architecture};
pub use init::init;
pub use installer::{PROGRAMS, installer_image, is_static};
pub use logs::Logs;
pub use network::free_port;
pub use prerequisites::need_program;
pub use proxy::{Fault, Proxy, Request};
pub use registry::Registry;
pub use suite::Suite;
pub use terminal::Terminal;

/// The checkout that is tested. Asked for at run time where cargo runs us: one target folder serves every
/// checkout, and cargo takes what it built in one for another's as long as the sources are the same.
#[must_use]
pub fn checkout() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map(Path::to_owned).unwrap_or(package)
}

/// The runtime's name, as users give it to `ctr` and `docker`.
pub const RUNTIME: &str = "io.containerd.lighter.v1";

/// The platform of the images that [`Image::new`] makes.
pub const PLATFORM: &str = "wasi/wasm";
