//! Hooks of a sandbox, with what libcontainer 0.7 leaves out of their start.
//!
//! libcontainer runs `prestart`, `createRuntime` and `createContainer`, from the working directory of this process, and tells
//! them of a bundle that is the runner's own folder. So it runs this program in their place, as [`ACTION`], which puts the
//! state right and becomes the hook. `startContainer` is run here: of its failure libcontainer's init says nothing.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use libcontainer::{
    container::{ContainerStatus, State},
    hooks::run_hooks,
};
use lighter_oci::Hooks;
use nix::unistd::{getpid, getppid};
use oci_spec::runtime::{ContainerState, Hook, Spec};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use crate::Error;

/// The action of a runner that becomes a hook: `hook FOLDER BUNDLE PATH NAME [ARGUMENT…]`, the state on standard input.
pub(crate) const ACTION: &str = "hook";
/// This program, by a path that holds until the container has a root of its own.
const OWN: &str = "/proc/self/exe";
/// What a shell exits with that can't run a command.
const NOT_RUN: u8 = 127;

/// Has the hooks that libcontainer runs be run through this program: on the host in the bundle's folder, in the container in
/// its root filesystem, as runc does.
pub(crate) fn redirect(sandbox: &mut Spec, bundle: &Path, rootfs: &Path) {
    if let Some(hooks) = sandbox.hooks_mut() {
        through(hooks.prestart_mut(), bundle, bundle);
        through(hooks.create_runtime_mut(), bundle, bundle);
        through(hooks.create_container_mut(), rootfs, bundle);
    }
}

fn through(hooks: &mut Option<Vec<Hook>>, folder: &Path, bundle: &Path) {
    for hook in hooks.iter_mut().flatten() {
        let path = hook.path().to_string_lossy().into_owned();
        let named = hook.args().clone().filter(|args| !args.is_empty()).unwrap_or_else(|| vec![path.clone()]);
        let own = [OWN, ACTION, &folder.to_string_lossy(), &bundle.to_string_lossy(), &path].map(str::to_owned);
        hook.set_args(Some(own.into_iter().chain(named).collect()));
        hook.set_path(OWN.into());
    }
}

/// The action itself. Returns where the hook can't be run.
pub(crate) fn become_hook(args: &[&str]) -> ExitCode {
    let &[folder, bundle, path, name, ref rest @ ..] = args else {
        eprintln!("`{ACTION}` is for the runner itself");
        return ExitCode::from(2);
    };
    let error = match state(io::stdin().lock(), bundle) {
        Ok(state) => Command::new(path).arg0(name).args(rest).current_dir(folder).stdin(state).exec(),
        Err(error) => error,
    };
    eprintln!("run hook {path}: {error}");
    ExitCode::from(NOT_RUN)
}

/// The state of libcontainer's with the container's bundle, and where it lacks the init's pid, with that of our parent: the
/// init runs its hooks itself.
fn state(told: impl Read, bundle: &str) -> io::Result<File> {
    let mut state: Value = serde_json::from_reader(told)?;
    if let Some(state) = state.as_object_mut() {
        state.insert("bundle".to_owned(), bundle.into());
        state.entry("pid").or_insert_with(|| getppid().as_raw().into());
    }
    let mut file = File::from(memfd_create(c"state", MemfdFlags::CLOEXEC)?);
    file.write_all(state.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Runs the hooks that come before a container's program, in its init. They have the program's environment if they name none.
pub(crate) fn start_container(hooks: &Hooks, env: &[CString]) -> Result<(), Error> {
    if hooks.start_container.is_empty() {
        return Ok(());
    }
    let env: HashMap<String, String> = env
        .iter()
        .filter_map(|variable| variable.to_str().ok()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let pid = getpid().as_raw();
    let told = hooks.state(ContainerState::Created, Some(pid));
    let mut state = State::new(told.id(), ContainerStatus::Created, Some(pid), hooks.bundle.clone());
    state.annotations.clone_from(told.annotations());
    Ok(run_hooks(Some(&hooks.start_container), Some(&state), None, None, Some(&env))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hooks_go_through_this_program() {
        let json = r#"{"ociVersion":"1.2.0","hooks":{
            "createRuntime":[{"path":"/a","args":["arg0","x y"],"env":["A=1"],"timeout":3},{"path":"/b"}],
            "createContainer":[{"path":"/c","args":[]}]}}"#;
        let mut spec: Spec = serde_json::from_str(json).unwrap();
        redirect(&mut spec, Path::new("/bundle"), Path::new("/rootfs"));
        let hooks = spec.hooks().as_ref().unwrap();
        let args = |hook: &Hook| hook.args().clone().unwrap().join(" ");
        let created = hooks.create_runtime().as_ref().unwrap();
        assert_eq!(args(&created[0]), "/proc/self/exe hook /bundle /bundle /a arg0 x y");
        assert_eq!(args(&created[1]), "/proc/self/exe hook /bundle /bundle /b /b");
        assert_eq!(args(&hooks.create_container().as_ref().unwrap()[0]), "/proc/self/exe hook /rootfs /bundle /c /c");
        assert_eq!((created[0].env().as_ref().unwrap().len(), created[0].timeout()), (1, Some(3)));
        assert_eq!(created[0].path(), Path::new(OWN));
    }

    #[test]
    fn a_state_is_put_right() {
        let told = |json: &str| {
            let mut text = String::new();
            state(json.as_bytes(), "/bundle").unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(told(r#"{"bundle":"/bundle/lighter","pid":7}"#), r#"{"bundle":"/bundle","pid":7}"#);
        let parent = getppid().as_raw();
        assert_eq!(told(r#"{"id":"c"}"#), format!(r#"{{"bundle":"/bundle","id":"c","pid":{parent}}}"#));
        assert!(state(&b"{"[..], "/bundle").is_err());
    }
}
