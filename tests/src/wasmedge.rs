//! What it takes to build the WasmEdge engine on any Debian: the headers and the library of the release that it is for,
//! from Debian's packages, unpacked and not installed.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Suite, cache,
    prerequisites::{self, Tool},
};

/// The suite whose library it is.
const SUITE: Suite = Suite::Forky;
/// Library and headers.
const PACKAGES: &[&str] = &["libwasmedge0", "libwasmedge-dev"];
/// Signs the archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the headers and the library are, unpacked at the first call, and what reads the headers is installed.
///
/// # Errors
/// When Debian's archive can't be reached, or a tool is missing and can't be installed.
pub fn sdk() -> Result<Sdk> {
    let libclang = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("lib"));
    let libclang = libclang.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    prerequisites::need(&[
        Tool {
            name: "libclang".to_owned(),
            package: "libclang-dev".to_owned(),
            found: libclang.into_iter().any(|entry| entry.file_name() == "libclang.so.1"),
        },
        Tool::program("dpkg", "dpkg"),
        Tool::file(KEYRING.as_ref(), "debian-archive-keyring"),
    ])?;
    let recipe = [&[SUITE.name()], PACKAGES].concat().join("\n");
    let folder = cache::entry("wasmedge", recipe.as_bytes(), unpack)?;
    Ok(Sdk { include: folder.join("usr/include"), lib: folder.join(format!("usr/lib/{ARCH}-linux-gnu")) })
}

/// Two folders.
pub struct Sdk {
    /// With the headers.
    pub include: PathBuf,
    /// With the library.
    pub lib: PathBuf,
}

/// Fetches the packages with an apt that knows nothing but the suite, and keeps nothing.
fn unpack(folder: &Path) -> Result<()> {
    let apt = folder.join("apt");
    for part in ["lists/partial", "archives/partial", "packages"] {
        fs::create_dir_all(apt.join(part)).with_context(|| format!("create {}", apt.display()))?;
    }
    fs::write(apt.join("status"), "").context("write apt's status")?;
    let source = format!(
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"
    );
    fs::write(apt.join("list.sources"), source).context("write apt's sources")?;
    let path = apt.display();
    let mut options = [
        format!("Dir::State={path}"),
        format!("Dir::State::status={path}/status"),
        format!("Dir::Cache={path}"),
        format!("Dir::Etc::SourceList={path}/list.sources"),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // The packages go into a folder of root's.
        "APT::Sandbox::User=root".to_owned(),
    ]
    .to_vec();
    options.extend(SUITE.apt_options().iter().map(|option| option.replacen(' ', "=", 1).replace('"', "")));
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option])).args(arguments);
        run(command.current_dir(apt.join("packages")))
    };
    apt_get(&["update", "-qq"])?;
    apt_get(&[&["download", "-qq"], PACKAGES].concat())?;
    for package in fs::read_dir(apt.join("packages")).context("list packages")? {
        let package = package.context("list packages")?.path();
        run(Command::new("dpkg").arg("-x").arg(package).arg(folder))?;
    }
    fs::remove_dir_all(&apt).with_context(|| format!("remove {}", apt.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
