//! Makes the machine's root, starts the machine, and waits for its end.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    job::{self, Job},
    system::System,
};
use crate::init::{bind_read_only, make_folder, mount_tmpfs};

/// Units that take long without hardware virtualisation, and are of no use here: Docker and containerd load the profile
/// of AppArmor's that they need. And the one that would hide what is shared in `/tmp`.
const MASKED: &[&str] = &[
    "apparmor.service",
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "tmp.mount",
];

/// What the machine starts: the job, on a system that has come as far as a node has when its daemons start.
const TARGET: &str = "[Unit]\nRequires=sysinit.target dbus.socket lighter.service\nAfter=sysinit.target dbus.socket\n";

/// Of the machine, as QEMU spells it.
const MEMORY: &str = "4G";
/// The kernel's command line: what panics ends, and the console tells of what fails alone.
const KERNEL: &str = "console=ttyS0 root=root rootfstype=virtiofs rw panic=-1 systemd.unit=lighter.target \
                      systemd.show_status=error";

/// Lines of the console that tell why a machine did not start.
const TAIL: usize = 40;
/// How often the machine is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the share may take to be there.
const SHARED_WITHIN: Duration = Duration::from_secs(10);
/// How long a machine may take to end after its root.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Does a job in a machine of its own, and returns its exit code. What the steps print goes to standard output.
///
/// The calling process leaves its mount namespace: it must have one thread, and nothing else to do.
///
/// # Errors
/// When there can be no machine, or it has not done its job in time. It is gone in any case.
pub fn run(job: &Job, within: Duration) -> Result<i32> {
    let deadline = Instant::now() + within;
    let system = System::get()?;
    let workshop = mount_workshop(&system)?;
    let root = make_root(&system, &workshop, job)?;
    let mut share = Killed(share(&system, &root, &workshop)?);
    let (machine, printed) = start(&system, &root, &workshop)?;
    let mut machine = Killed(machine);
    let console = workshop.join("console");
    let mut alone = None;
    loop {
        if let Some(ended) = machine.0.try_wait().context("wait for the machine")? {
            printed.join().ok().transpose().context("print what the machine says")?;
            let status = fs::read_to_string(workshop.join(job::STATUS)).unwrap_or_default();
            let Ok(status) = status.trim().parse() else {
                bail!("the machine ended ({ended}) before its job; its console says:\n{}", tail(&console));
            };
            return Ok(status);
        }
        // It ends with the machine as well.
        if let Some(ended) = share.0.try_wait().context("wait for the share")? {
            let alone = *alone.get_or_insert_with(Instant::now);
            ensure!(alone.elapsed() < ENDS_WITHIN, "the share of the machine's root ended: {ended}");
        }
        if Instant::now() > deadline {
            bail!("the machine did not end within {within:?}; its console says:\n{}", tail(&console));
        }
        thread::sleep(PAUSE);
    }
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A place that needs no cleaning: a tmpfs that only this process and its children see.
fn mount_workshop(system: &System) -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private")?;
    let workshop = system.folder().join("mnt");
    mount_tmpfs(&workshop, "mode=755")?;
    Ok(workshop)
}

fn make_root(system: &System, workshop: &Path, job: &Job) -> Result<PathBuf> {
    let [upper, work, root] = ["upper", "work", "root"].map(|name| workshop.join(name));
    for folder in [&upper, &work, &root] {
        make_folder(folder)?;
    }
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", system.folder().display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .with_context(|| format!("mount the machine's root ({layers})"))?;
    let in_root = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for share in &job.shares {
        make_folder(&in_root(share))?;
        bind_read_only(share, &in_root(share))?;
    }
    let write = |path: &str, text: &[u8]| {
        fs::write(in_root(path.as_ref()), text).with_context(|| format!("write the machine's {path}"))
    };
    let own = std::env::current_exe().context("find own executable")?;
    // Its limits are those of Debian's containerd.service.
    let service = format!(
        "[Unit]\nAfter=sysinit.target dbus.socket\n\
         [Service]\nType=oneshot\nExecStart={} vm-inside\nDelegate=yes\nTasksMax=infinity\nLimitNOFILE=infinity\n",
        own.display()
    );
    write("/etc/systemd/system/lighter.service", service.as_bytes())?;
    write("/etc/systemd/system/lighter.target", TARGET.as_bytes())?;
    for unit in MASKED {
        symlink("/dev/null", in_root(&Path::new("/etc/systemd/system").join(unit)))
            .with_context(|| format!("mask {unit}"))?;
    }
    write("/etc/hostname", b"vm\n")?;
    write("/etc/machine-id", b"b1f3ac6a3bd04f3bb0b9d9f6a4b0c0de\n")?;
    write(job::PATH, &serde_json::to_vec(job).context("encode the job")?)?;
    Ok(root)
}

fn share(system: &System, root: &Path, workshop: &Path) -> Result<Child> {
    let socket = workshop.join("socket");
    let mut share = system
        .program("usr/libexec/virtiofsd")
        .arg("--shared-dir")
        .arg(root)
        .arg("--socket-path")
        .arg(&socket)
        // Nobody but the machine changes its files. Whiteouts and capabilities of files are extended attributes.
        .args(["--cache", "always", "--xattr", "--rlimit-nofile", "0", "--log-level", "error"])
        .stdin(Stdio::null())
        .spawn()
        .context("start virtiofsd")?;
    let deadline = Instant::now() + SHARED_WITHIN;
    while !socket.exists() {
        if let Some(ended) = share.try_wait().context("wait for virtiofsd")? {
            bail!("virtiofsd ended: {ended}");
        }
        ensure!(Instant::now() < deadline, "virtiofsd does not listen");
        thread::sleep(PAUSE);
    }
    Ok(share)
}

/// The machine, and who prints what it says.
fn start(system: &System, root: &Path, workshop: &Path) -> Result<(Child, JoinHandle<io::Result<u64>>)> {
    let file = |name: &str| workshop.join(name).display().to_string();
    let mut qemu = system.program("usr/bin/qemu-system-x86_64");
    for folder in ["usr/share/qemu", "usr/share/seabios"] {
        qemu.arg("-L").arg(system.folder().join(folder));
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(4);
    let arguments = [
        "-nodefaults -no-user-config -display none -no-reboot -machine q35,sata=off,smbus=off -cpu max",
        // Multi-threaded, and with room for what it translates: daemons in Go are large.
        "-accel tcg,thread=multi,tb-size=1024",
        &format!("-smp {cpus} -m {MEMORY} -object memory-backend-memfd,id=memory,size={MEMORY},share=on"),
        "-numa node,memdev=memory",
        &format!("-chardev socket,id=share,path={}", file("socket")),
        "-device vhost-user-fs-pci,chardev=share,tag=root,queue-size=1024",
        "-device virtio-serial-pci",
        &format!("-chardev stdio,id={0},signal=off -device virtserialport,chardev={0},name={0}", job::OUTPUT),
        &format!(
            "-chardev file,id={0},path={1} -device virtserialport,chardev={0},name={0}",
            job::STATUS,
            file("status")
        ),
        &format!("-serial file:{}", file("console")),
    ];
    // No path of ours has a space that is not the user's.
    qemu.args(arguments.iter().flat_map(|line| line.split(' ')));
    qemu.arg("-kernel").arg(fs::canonicalize(root.join("vmlinuz")).context("find the machine's kernel")?);
    qemu.args(["-append", KERNEL]);
    // Pipes, of which the first stays open: QEMU's port ends with its input, and stands still where it has a file to
    // write to.
    let mut machine = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start QEMU")?;
    let mut output = machine.stdout.take().context("take QEMU's stdout")?;
    let printed = thread::spawn(move || io::copy(&mut output, &mut io::stdout()));
    Ok((machine, printed))
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
