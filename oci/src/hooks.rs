//! Hooks: the host's programs that a spec has run at certain points of a container's life.
//! Source: runtime-spec `config.md#posix-platform-hooks` and `runtime.md#lifecycle`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{ContainerState, Hook, Spec, State, VERSION};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The hooks that are run once a container stands: by its init, and by whoever starts and removes it. The earlier ones stay
/// in the sandbox's spec, for who builds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// Run by the init in the container, before its program.
    pub start_container: Vec<Hook>,
    /// Run on the host once the program runs.
    pub poststart: Vec<Hook>,
    /// Run on the host once the container is gone.
    pub poststop: Vec<Hook>,
    /// The bundle's folder, in which the host's hooks are run.
    pub bundle: PathBuf,
    id: String,
    annotations: Option<HashMap<String, String>>,
}

impl Hooks {
    /// Those of a container of which only the bundle is known.
    ///
    /// # Errors
    /// The spec can't be read.
    pub fn of_bundle(bundle: &Path, id: &str) -> Result<Self, Error> {
        let path = bundle.join("config.json");
        let mut spec = Spec::load(&path).map_err(|source| Error::ReadSpec { path, source })?;
        Ok(Self::take(&mut spec, bundle, id))
    }

    /// Takes them out of a spec.
    pub(crate) fn take(spec: &mut Spec, bundle: &Path, id: &str) -> Self {
        let annotations = spec.annotations().clone();
        let Some(hooks) = spec.hooks_mut() else { return Self::default() };
        Self {
            start_container: hooks.start_container_mut().take().unwrap_or_default(),
            poststart: hooks.poststart_mut().take().unwrap_or_default(),
            poststop: hooks.poststop_mut().take().unwrap_or_default(),
            bundle: bundle.to_owned(),
            id: id.to_owned(),
            annotations,
        }
    }

    /// What a hook is told on its standard input. Source: runtime-spec `runtime.md#state`.
    #[must_use]
    pub fn state(&self, status: ContainerState, pid: Option<i32>) -> State {
        let mut state = State::default();
        state.set_version(VERSION.to_owned()).set_id(self.id.clone()).set_status(status).set_pid(pid);
        state.set_bundle(self.bundle.clone()).set_annotations(self.annotations.clone());
        state
    }
}

/// Gives those hooks of a sandbox that are run on the host, and whose spec names no environment, this one. Each variable is a
/// `NAME=VALUE`.
pub(crate) fn inherit(sandbox: &mut Spec, env: &[String]) {
    let give = |hooks: &mut Option<Vec<Hook>>| {
        for hook in hooks.iter_mut().flatten().filter(|hook| hook.env().is_none()) {
            hook.set_env(Some(env.to_vec()));
        }
    };
    if let Some(hooks) = sandbox.hooks_mut() {
        give(hooks.prestart_mut());
        give(hooks.create_runtime_mut());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let hook = |name: &str, rest: &str| format!(r#"[{{"path":"/{name}"{rest}}}]"#);
        let json = format!(
            r#"{{"ociVersion":"1.2.0","annotations":{{"a":"b"}},"hooks":{{"prestart":{},"createRuntime":{},
                "createContainer":{},"startContainer":{},"poststart":{},"poststop":{}}}}}"#,
            hook("prestart", ""),
            hook("create-runtime", r#","env":[]"#),
            hook("create-container", ""),
            hook("start", ""),
            hook("poststart", ""),
            hook("poststop", r#","timeout":1"#),
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn early_hooks_stay_in_the_spec_and_late_ones_leave_it() {
        let mut spec = spec();
        let hooks = Hooks::take(&mut spec, Path::new("/b"), "c1");
        let paths = |hooks: &[Hook]| hooks.iter().map(|hook| hook.path().clone()).collect::<Vec<_>>();
        assert_eq!(paths(&hooks.start_container), [Path::new("/start")]);
        assert_eq!(paths(&hooks.poststart), [Path::new("/poststart")]);
        assert_eq!(paths(&hooks.poststop), [Path::new("/poststop")]);
        let json = serde_json::to_value(spec.hooks().as_ref().unwrap()).unwrap();
        let left: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(left, ["createContainer", "createRuntime", "prestart"]);

        let state = serde_json::to_value(hooks.state(ContainerState::Running, Some(7))).unwrap();
        let told = ["id", "status", "pid", "bundle", "annotations"].map(|name| state[name].to_string());
        assert_eq!(told, [r#""c1""#, r#""running""#, "7", r#""/b""#, r#"{"a":"b"}"#]);
        let state = serde_json::to_value(hooks.state(ContainerState::Stopped, None)).unwrap();
        assert!(state.get("pid").is_none(), "{state}");
    }

    #[test]
    fn a_spec_without_hooks_has_none() {
        let mut spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.2.0"}"#).unwrap();
        let hooks = Hooks::take(&mut spec, Path::new("/b"), "c1");
        assert!(hooks.start_container.is_empty() && hooks.poststart.is_empty() && hooks.poststop.is_empty());
    }

    #[test]
    fn an_environment_is_given_to_the_hosts_hooks_that_name_none() {
        let mut spec = spec();
        inherit(&mut spec, &["A=1".to_owned()]);
        let json = serde_json::to_value(spec.hooks().as_ref().unwrap()).unwrap();
        let env = |point: &str| json[point][0]["env"].to_string();
        assert_eq!(["prestart", "createRuntime", "createContainer"].map(env), [r#"["A=1"]"#, "[]", "null"]);
    }
}
