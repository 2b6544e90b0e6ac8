//! Who we are: what `docker login` left behind.

use std::{
    collections::HashMap,
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use docker_credential::{CredentialRetrievalError as Failure, DockerCredential, get_credential_from_reader};

use super::Error;

/// What helpers print when they have nothing for a host.
/// Source: docker-credential-helpers, `credentials.errCredentialsNotFoundMessage`.
const HELPER_HAS_NONE: &str = "credentials not found";

/// Where Docker's configuration is: `$DOCKER_CONFIG/config.json`, or else `~/.docker/config.json`.
pub(super) fn config_path() -> Option<PathBuf> {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    Some(set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?.join("config.json"))
}

/// The credential for a registry in the configuration or from a helper that it names; `None` to go without.
///
/// # Errors
/// The file is damaged, or a helper fails.
pub(super) fn find(registry: &str, config: Option<&Path>) -> Result<Option<DockerCredential>, Error> {
    let Some(path) = config else { return Ok(None) };
    let failed = |why: String| Error::Credentials { registry: registry.to_owned(), why };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("read {}: {error}", path.display()))),
    };
    // Docker Hub's credentials have the name of its first API.
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let helper =
        || helper(&bytes, server).map_or("credential helper".to_owned(), |name| format!("docker-credential-{name}"));
    match get_credential_from_reader(&bytes[..], server) {
        Ok(credential) => Ok(Some(credential)),
        Err(Failure::NoCredentialConfigured | Failure::ConfigNotFound) => Ok(None),
        Err(Failure::HelperFailure { stdout, .. }) if stdout.contains(HELPER_HAS_NONE) => Ok(None),
        Err(Failure::HelperFailure { helper, stdout, stderr }) => {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(failed(format!("{helper} fails: {}", super::error::readable(&said))))
        }
        Err(Failure::HelperCommunicationError) => {
            Err(failed(format!("{}, named in {}, can't be run; is it installed?", helper(), path.display())))
        }
        Err(Failure::MalformedHelperResponse) => Err(failed(format!("{} answers nonsense", helper()))),
        Err(Failure::ConfigReadError) => {
            Err(failed(format!("{} is not a Docker configuration in JSON", path.display())))
        }
        Err(Failure::CredentialDecodingError | Failure::CredentialMismatchError) => {
            Err(failed(format!("the entry in {} is damaged; `docker login {registry}` writes it anew", path.display())))
        }
    }
}

/// The name of the helper that the configuration gives for `server`; `docker_credential` doesn't tell when it fails.
fn helper(config: &[u8], server: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Helpers {
        creds_store: Option<String>,
        #[serde(default)]
        cred_helpers: HashMap<String, String>,
    }
    let mut helpers: Helpers = serde_json::from_slice(config).ok()?;
    helpers.cred_helpers.remove(server).filter(|name| !name.is_empty()).or(helpers.creds_store)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_understood_or_its_fault_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(find("r.test", Some(&path)).unwrap(), None);
        let user = |name: &str, password: &str| Some(DockerCredential::UsernamePassword(name.into(), password.into()));
        for (config, registry, expected) in [
            (r#"{}"#, "r.test", None),
            (r#"{"auths": {"r.test:5000": {"auth": "dTpwOnA="}}}"#, "r.test:5000", user("u", "p:p")),
            (r#"{"auths": {"r.test:5000": {"auth": "dTpw"}}}"#, "r.test", None),
            (r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}"#, "docker.io", user("u", "p")),
            (
                r#"{"auths": {"r.test": {"auth": "", "identitytoken": "t"}}}"#,
                "r.test",
                Some(DockerCredential::IdentityToken("t".to_owned())),
            ),
        ] {
            fs::write(&path, config).unwrap();
            assert_eq!(find(registry, Some(&path)).unwrap(), expected, "{config}");
        }
        for (config, says) in [
            ("not json", "config.json is not a Docker configuration"),
            (r#"{"auths": {"r.test": {"auth": "%"}}}"#, "is damaged"),
            (r#"{"credsStore": "no-such-helper"}"#, "docker-credential-no-such-helper"),
            (r#"{"credHelpers": {"r.test": "not-there-either"}}"#, "docker-credential-not-there-either"),
        ] {
            fs::write(&path, config).unwrap();
            let error = find("r.test", Some(&path)).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("r.test"), "{error}");
        }
    }
}
