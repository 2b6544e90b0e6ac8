//! Who runs an entrypoint: an engine or the kernel. Told by its bytes, so that images of both kinds run side by side.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};

use crate::module::{candidates, sniff};

/// What an entrypoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// WebAssembly, for an engine.
    Wasm,
    /// For the kernel.
    Native,
}

/// Where an entrypoint is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a> {
    /// The mounted root filesystem, as the host sees it.
    pub(crate) rootfs: &'a Path,
    /// What will be mounted over it.
    pub(crate) mounts: &'a [Mount],
    /// `args[0]`.
    pub(crate) entrypoint: &'a str,
    /// An absolute path in the rootfs.
    pub(crate) cwd: &'a Path,
    /// The container's `PATH`.
    pub(crate) path_env: Option<&'a str>,
}

impl Program {
    /// The name of the engine that runs native programs.
    pub const NATIVE: &'static str = "native";

    /// Looks at the first file that the entrypoint may mean. Where there is none, or one that nobody knows, it is
    /// `otherwise`: an image may have its module as a layer.
    pub(crate) fn find(search: &Search<'_>, otherwise: Self) -> Self {
        let candidates = candidates(search.entrypoint, search.cwd, search.path_env);
        let head = candidates.into_iter().find_map(|candidate| search.head(&candidate));
        match head {
            // Compiled code of an engine's is an ELF file, and an error of that engine's.
            Some(head) if sniff(&head).is_ok() || is_compiled(&head) => Self::Wasm,
            Some(head) if head.starts_with(b"\x7fELF") || head.starts_with(b"#!") => Self::Native,
            _ => otherwise,
        }
    }
}

impl Search<'_> {
    /// The first bytes of a file in the container, or `None` where there is no regular file.
    fn head(&self, path: &Path) -> Option<Vec<u8>> {
        let path = normal(path);
        // The last mount that the path is in, as it will cover earlier ones: Docker mounts its own init that way.
        let volume = self.mounts.iter().rev().find(|mount| path.starts_with(normal(mount.destination())));
        let Some(mount) = volume.filter(|mount| mount.destination() != Path::new("/")) else {
            return head_in(self.rootfs, &path);
        };
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind = mount.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind");
        let source = mount.source().as_deref().filter(|_| is_bind)?;
        let inside = path.strip_prefix(normal(mount.destination())).ok()?;
        if inside.as_os_str().is_empty() {
            return head_in(source.parent()?, Path::new(source.file_name()?));
        }
        head_in(source, inside)
    }
}

/// Whether it is an engine's compiled code in ELF's clothes.
fn is_compiled(head: &[u8]) -> bool {
    matches!(sniff(head), Err(what) if what.contains(".cwasm"))
}

/// The first bytes of a regular file in a folder that no link leads out of.
fn head_in(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let handle = pathrs::Root::open(root).ok()?.resolve(path).ok()?;
    // Looked at through the O_PATH handle first: opening a device or a FIFO for reading has effects.
    let path_only = File::from(OwnedFd::from(handle));
    if !path_only.metadata().ok()?.is_file() {
        return None;
    }
    let file = pathrs::Handle::from_fd(path_only).reopen(pathrs::flags::OpenFlags::O_RDONLY).ok()?;
    let mut head = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut head).ok()?;
    Some(head)
}

/// An absolute path without `.` and `..`, as far as that can be told without links.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::from("/"), |mut normal, component| {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        normal
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use oci_spec::runtime::MountBuilder;

    use super::*;

    #[test]
    fn told_by_the_bytes_of_what_would_run() {
        let folder = tempfile::tempdir().unwrap();
        let (rootfs, volume) = (folder.path().join("rootfs"), folder.path().join("volume"));
        for path in [rootfs.join("bin"), rootfs.join("v"), volume.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        let files: [(&str, &[u8]); 5] = [
            ("bin/elf", b"\x7fELF\x02\x01\x01\0"),
            ("bin/compiled", b"\x7fELF\x02\x01\x01\xc8"),
            ("bin/script", b"#!/bin/sh\n"),
            ("bin/module", b"\0asm\x01\0\0\0"),
            ("bin/text", b"hello"),
        ];
        for (name, bytes) in files {
            std::fs::write(rootfs.join(name), bytes).unwrap();
        }
        std::fs::write(volume.join("init"), b"\x7fELF\x02\x01\x01\0").unwrap();
        std::fs::write(folder.path().join("outside"), b"\x7fELF\x02\x01\x01\0").unwrap();
        symlink("../../outside", rootfs.join("bin/escape")).unwrap();
        symlink("elf", rootfs.join("bin/link")).unwrap();
        let bind = |destination: &str, source: &Path| {
            let mount = MountBuilder::default().destination(destination).typ("bind").source(source);
            mount.options(["rbind".to_owned()]).build().unwrap()
        };
        let mounts = [bind("/v", &volume), bind("/sbin/docker-init", &volume.join("init"))];
        let find = |entrypoint: &str, otherwise| {
            let search = Search {
                rootfs: &rootfs,
                mounts: &mounts,
                entrypoint,
                cwd: Path::new("/bin"),
                path_env: Some("/nope:/bin"),
            };
            Program::find(&search, otherwise)
        };
        let table = [
            ("/bin/elf", Some(Program::Native)),
            ("elf", Some(Program::Native)),
            ("./elf", Some(Program::Native)),
            ("/bin/../bin/link", Some(Program::Native)),
            ("script", Some(Program::Native)),
            ("module", Some(Program::Wasm)),
            ("compiled", Some(Program::Wasm)),
            ("/v/init", Some(Program::Native)),
            ("/sbin/docker-init", Some(Program::Native)),
            ("text", None),
            ("/v/nope", None),
            ("nope", None),
            ("escape", None),
            ("/bin", None),
        ];
        for (entrypoint, expected) in table {
            for otherwise in [Program::Wasm, Program::Native] {
                assert_eq!(find(entrypoint, otherwise), expected.unwrap_or(otherwise), "{entrypoint}");
            }
        }
    }
}
