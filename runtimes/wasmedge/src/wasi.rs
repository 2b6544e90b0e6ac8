//! What a guest gets of WASI: what its plan grants, and nothing by default.

use std::{fs, path::Path};

use lighter_runtime_api::{Error, Guest};
use wasmedge_sdk::wasi::WasiModule;

use crate::engine::failed;

/// Separates a folder's name for the guest from its path.
const SEPARATOR: char = ':';

/// Looks whether the plan can be expressed at all.
///
/// # Errors
/// A string holds a zero byte; the working directory's path holds what separates paths.
pub(crate) fn check(guest: &Guest) -> Result<(), Error> {
    let env = guest.env.iter().flat_map(|(name, value)| [name, value]);
    if guest.args.iter().chain(env).any(|word| word.contains('\0')) {
        return Err(refused("an argument or a variable holds a zero byte"));
    }
    match guest.cwd.to_str() {
        Some(path) if !path.contains([SEPARATOR, '\0']) => Ok(()),
        _ => Err(refused(
            "WasmEdge can't open a working directory with a colon, or with other text than UTF-8, in its path",
        )),
    }
}

/// Hands arguments, environment and files of the plan to the guest, beside the process's standard streams.
///
/// The sandbox's whole `/` is the guest's: what must not be seen is not in it, and what must not be written is mounted
/// read-only. Called in the sealed init. Sockets are the library's to offer, and the seal's to refuse.
pub(crate) fn grant(wasi: &mut WasiModule, guest: &Guest) -> Result<(), Error> {
    let mut env: Vec<String> = guest.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut preopens = vec![format!("/:{}", guest.cwd.display())];
    if guest.cwd != Path::new("/") {
        // WASI 0.1 has no working directory. wasi-libc cuts the leading slash off a path and then takes the preopen with
        // the longest matching name. So the root's folders get names of their own, and what is left are relative paths.
        // The root itself can't be there too: the library calls it "/" as it does ".", and sorts preopens by their
        // addresses in memory, so that which of both is taken would be chance.
        preopens.extend(folders_of_root()?.into_iter().map(|folder| format!("{folder}:{folder}")));
        // Go's runtime takes it from here.
        if !guest.env.iter().any(|(name, _)| name == "PWD") {
            env.push(format!("PWD={}", guest.cwd.display()));
        }
    }
    wasi.init_wasi(Some(words(&guest.args)), Some(words(&env)), Some(words(&preopens)));
    Ok(())
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

/// The folders in `/` that this user may open, and that a preopen can name.
fn folders_of_root() -> Result<Vec<String>, Error> {
    let entries = fs::read_dir("/").map_err(|error| failed("list /", &error))?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    let folders = folders.map(|entry| entry.path()).filter(|path| fs::read_dir(path).is_ok());
    let names = folders.filter_map(|path| path.into_os_string().into_string().ok());
    Ok(names.filter(|name| !name.contains(SEPARATOR)).collect())
}

fn refused(why: &str) -> Error {
    Error::Engine { operation: "prepare WASI", why: why.to_owned() }
}
