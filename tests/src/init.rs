//! Pid 1 of a bed: makes its namespaces and mounts, then reaps.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, SFlag, makedev, mknod},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{chdir, pivot_root, sethostname},
};

use crate::{Registry, cgroup, hold::Parts, vm};

/// Where containerd, Docker and we keep state: a tmpfs, for overlayfs can't have its upper folder on the
/// overlayfs that the bed's root is.
const STATE: &[&str] = &["run", "tmp", "var/lib/containerd", "var/lib/docker", "var/lib/lighter"];

/// Where systemd and its bus are asked.
const SYSTEMD: &[&str] = &["run/dbus", "run/systemd"];

/// Character devices of /dev: name, major, minor (the kernel's Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Waits for a byte on standard input, sets the bed up, answers with a byte, and stays until standard
/// input ends.
///
/// # Errors
/// When the bed can't be set up.
pub fn init(parts: &Parts) -> Result<()> {
    // The supervisor says when it has put this process into the bed's cgroups.
    ensure!(io::stdin().read(&mut [0]).context("hear from the supervisor")? == 1, "the supervisor went away");
    enter_namespaces()?;
    let new_root = mount_root(parts)?;
    enter_root(&new_root)?;
    sethostname(&parts.hostname).context("set the host name")?;
    let names = [&["localhost", parts.hostname.as_str()], Registry::NAMES].concat().join(" ");
    fs::write("/etc/hosts", format!("127.0.0.1 {names}\n")).context("write /etc/hosts")?;
    // Docker warns each user of a network where it is off.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("turn IPv4 forwarding on")?;
    let up = Command::new("/usr/sbin/ip").args(["link", "set", "lo", "up"]).status().context("run ip")?;
    ensure!(up.success(), "ip link set lo up: {up}");

    let children = SigSet::from(Signal::SIGCHLD);
    children.thread_block().context("block SIGCHLD")?;
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK).context("make a signalfd")?;
    io::stdout().write_all(b"r").and_then(|()| io::stdout().flush()).context("answer the supervisor")?;
    reap_until_end(&children)
}

fn enter_namespaces() -> Result<()> {
    if !vm::has_systemds_cgroups() {
        cgroup::enter_namespace()?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("make namespaces")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private")
}

/// Mounts everything below a new root and returns it.
fn mount_root(parts: &Parts) -> Result<PathBuf> {
    let cgroups = cgroup::Mounts::of_host()?;
    // A place on the host for the new root and its upper layer, that needs no cleaning: a tmpfs on a
    // folder of the lower layer, where overlayfs doesn't see it.
    let workshop = parts.rootfs.join("mnt");
    mount_tmpfs(&workshop, "mode=755")?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| workshop.join(name));
    for folder in [&upper, &work, &root] {
        make_folder(folder)?;
    }
    // The first of the lower layers is the upmost.
    let lower = parts.layer.iter().chain([&parts.rootfs]).map(|layer| layer.display().to_string()).collect::<Vec<_>>();
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .with_context(|| format!("mount the root ({layers})"))?;

    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (kind, folder) in [("proc", "proc"), ("sysfs", "sys")] {
        mount(Some(kind), &root.join(folder), Some(kind), closed, None::<&str>)
            .with_context(|| format!("mount /{folder}"))?;
    }
    if vm::is_inside() {
        let folder = "sys/kernel/security";
        mount(Some("securityfs"), &root.join(folder), Some("securityfs"), closed, None::<&str>)
            .with_context(|| format!("mount /{folder}"))?;
    }
    cgroups.mount_in(&root)?;
    mount_dev(&root.join("dev"))?;
    for folder in STATE {
        make_folder(&root.join(folder))?;
        mount_tmpfs(&root.join(folder), if *folder == "tmp" { "mode=1777" } else { "mode=755" })?;
    }
    bind_read_only(&parts.usr_local, &root.join("usr/local"))?;
    if vm::has_systemds_cgroups() {
        for folder in SYSTEMD {
            make_folder(&root.join(folder))?;
            bind(&Path::new("/").join(folder), &root.join(folder), MsFlags::empty())?;
        }
    }
    Ok(root)
}

fn mount_dev(dev: &Path) -> Result<()> {
    mount_tmpfs(dev, "mode=755")?;
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(*major, *minor))
            .with_context(|| format!("make {}", path.display()))?;
        // Not by mknod, whose mode the umask narrows.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("set the mode of {}", path.display()))?;
    }
    for (kind, folder, options) in [
        ("devpts", "pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", "shm", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ] {
        make_folder(&dev.join(folder))?;
        mount(Some(kind), &dev.join(folder), Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some(options))
            .with_context(|| format!("mount /dev/{folder}"))?;
    }
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(link)).with_context(|| format!("link /dev/{link}"))?;
    }
    Ok(())
}

/// `pivot_root`, not `chroot`: runc wants `/` to be a mount point, and whoever enters the mount
/// namespace later lands in the root that it has, not in one that a process had changed to.
fn enter_root(new_root: &Path) -> Result<()> {
    chdir(new_root).context("enter the new root")?;
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one.
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("let go of the old root")?;
    chdir("/").context("enter /")
}

pub(crate) fn mount_tmpfs(folder: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount a tmpfs on {}", folder.display()))
}

pub(crate) fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target, MsFlags::empty())?;
    bind(source, target, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
        .with_context(|| format!("bind {} on {}", source.display(), target.display()))
}

pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

/// Orphans of the bed become children of this process.
fn reap_until_end(children: &SignalFd) -> Result<()> {
    let supervisor = io::stdin();
    loop {
        let mut ready =
            [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("wait for children")?,
        };
        if ready[0].any() == Some(true) {
            return Ok(());
        }
        while children.read_signal().context("read the signalfd")?.is_some() {}
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {}
    }
}
