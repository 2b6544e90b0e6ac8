//! What a guest gets of WASI: what its plan grants, in the form that WAMR takes.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use lighter_runtime_api::{Error, Guest, Network};

/// Arguments, environment, folders and network of a plan.
#[derive(Debug, Default)]
pub(crate) struct Wasi {
    pub(crate) args: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// Preopened under their own names.
    pub(crate) folders: Vec<CString>,
    /// `name::folder`.
    pub(crate) mapped: Vec<CString>,
    /// Addresses that sockets may be bound and connected to: `IP/BITS`.
    pub(crate) addresses: Vec<CString>,
    /// Names that may be looked up, `*` standing for all.
    pub(crate) names: Vec<CString>,
}

impl Wasi {
    /// The sandbox's whole `/` is the guest's: what must not be seen is not in it, and what must not be written is mounted
    /// read-only. Called in the sealed init.
    pub(crate) fn new(guest: &Guest) -> Result<Self, Error> {
        let mut wasi = Self::default();
        for arg in &guest.args {
            wasi.args.push(c_string("pass argument", arg)?);
        }
        for (name, value) in &guest.env {
            wasi.env.push(c_string("pass environment", &format!("{name}={value}"))?);
        }
        wasi.preopen(Path::new("/"))?;
        if guest.cwd != Path::new("/") {
            // WASI 0.1 has no working directory. wasi-libc cuts the leading slash off a path and then takes the preopen
            // with the longest matching name. So the root's folders get names of their own, and "." is what is left:
            // relative paths.
            for folder in folders_of_root()? {
                wasi.preopen(&folder)?;
            }
            let cwd = guest.cwd.to_string_lossy();
            readable(&guest.cwd)?;
            wasi.mapped.push(c_string("open folder for guest", &format!(".::{cwd}"))?);
            // Go's runtime takes it from here.
            if !guest.env.iter().any(|(name, _)| name == "PWD") {
                wasi.env.push(c_string("pass environment", &format!("PWD={cwd}"))?);
            }
        }
        match &guest.grants.network {
            Network::All => {
                wasi.addresses = vec![c"0.0.0.0/0".to_owned(), c"::/0".to_owned()];
                wasi.names = vec![c"*".to_owned()];
            }
            // Where only listening is granted, the module opens no sockets: it was refused otherwise.
            Network::Listen(_) | Network::None => {}
        }
        Ok(wasi)
    }

    fn preopen(&mut self, folder: &Path) -> Result<(), Error> {
        readable(folder)?;
        self.folders.push(c_string("open folder for guest", &folder.to_string_lossy())?);
        Ok(())
    }
}

/// WAMR opens folders when the guest counts as started; this says before what would fail then.
fn readable(folder: &Path) -> Result<(), Error> {
    fs::read_dir(folder).map(drop).map_err(|error| Error::Engine {
        operation: "open folder for guest",
        why: format!("{}: {error}", folder.display()),
    })
}

/// The folders in `/` that this user may open.
fn folders_of_root() -> Result<Vec<PathBuf>, Error> {
    let failed = |error: std::io::Error| Error::Engine { operation: "list /", why: error.to_string() };
    let entries = fs::read_dir("/").map_err(failed)?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    Ok(folders.map(|entry| entry.path()).filter(|path| fs::read_dir(path).is_ok()).collect())
}

fn c_string(operation: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Engine { operation, why: format!("{text:?} has a zero byte") })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use lighter_runtime_api::Http;

    use super::*;

    fn guest(cwd: &str, env: &[(&str, &str)], network: Network) -> Guest {
        Guest {
            args: vec!["a".to_owned()],
            env: env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: cwd.into(),
            memory: None,
            cpus: None,
            grants: lighter_oci::Grants { network },
            http: Http::default(),
        }
    }

    #[test]
    fn the_working_directory_is_what_no_other_name_matches() {
        let wasi = Wasi::new(&guest("/usr/bin", &[], Network::None)).unwrap();
        assert_eq!(wasi.mapped, [c".::/usr/bin".to_owned()]);
        assert!(wasi.folders.contains(&c"/".to_owned()) && wasi.folders.contains(&c"/usr".to_owned()));
        assert_eq!(wasi.env, [c"PWD=/usr/bin".to_owned()]);

        let wasi = Wasi::new(&guest("/", &[("PWD", "/x")], Network::None)).unwrap();
        assert!(wasi.mapped.is_empty());
        assert_eq!(wasi.folders, [c"/".to_owned()]);
        assert_eq!(wasi.env, [c"PWD=/x".to_owned()]);
    }

    #[test]
    fn addresses_and_names_follow_the_grant() {
        let all = Wasi::new(&guest("/", &[], Network::All)).unwrap();
        assert!(!all.addresses.is_empty() && !all.names.is_empty());
        let none = Wasi::new(&guest("/", &[], Network::None)).unwrap();
        assert!(none.addresses.is_empty() && none.names.is_empty());
    }

    #[test]
    fn what_c_can_not_hold_is_refused() {
        let error = Wasi::new(&guest("/", &[("A", "b\0c")], Network::None)).unwrap_err();
        assert!(error.to_string().contains("zero byte"), "{error}");
    }
}
