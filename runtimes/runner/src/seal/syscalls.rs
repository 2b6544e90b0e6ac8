//! The system calls that are left. Everything else answers ENOSYS, as if the kernel had never heard of it.

use libcontainer::seccomp::initialize_seccomp;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use lighter_oci::Network;
use oci_spec::runtime::LinuxSeccomp;

use super::failed;
use crate::Error;

/// Memory, threads, time and what a Rust program does between its first and last line.
const COMPUTE: &[&str] = &[
    "brk",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "futex",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getrandom",
    "gettid",
    "gettimeofday",
    "getuid",
    "madvise",
    "mremap",
    "munmap",
    "nanosleep",
    "read",
    "readv",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "write",
    "writev",
];

/// Files below the guest's preopened folders, and waiting for streams.
const FILES: &[&str] = &[
    "dup",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd2",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchmod",
    "fdatasync",
    "flock",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getcwd",
    "getdents64",
    "linkat",
    "lseek",
    "lstat",
    "memfd_create",
    "mkdirat",
    "newfstatat",
    "openat",
    "openat2",
    "pipe2",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "readlink",
    "readlinkat",
    "renameat",
    "renameat2",
    "stat",
    "statx",
    "symlinkat",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "unlinkat",
    "utimensat",
];

/// What a linker does to its output beyond [`FILES`].
const REPLACE_FILES: &[&str] = &["access", "open", "rename", "unlink"];

/// Accepting TCP connections; `socket` itself and `sendto`, which can also connect, are allowed by their arguments.
const LISTEN: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "setsockopt",
    "shutdown",
];

/// What internet sockets take beyond [`LISTEN`].
const CONNECT: &[&str] = &["connect", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto"];

/// Which pages of its own memory a process has written to. Source: PAGEMAP_SCAN(2const), linux/fs.h; libc lacks it.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

/// A list of system calls, and the rules for those that depend on their arguments.
#[derive(Clone, Debug)]
pub struct Allowed {
    names: Vec<&'static str>,
    files: bool,
    sockets: Sockets,
}

/// Which internet sockets there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sockets {
    None,
    Listen,
    All,
}

impl Allowed {
    /// What an engine needs to run a guest. A guest that may only listen can't connect, whatever its engine lets it do.
    #[must_use]
    pub fn guest(network: &Network) -> Self {
        let (sockets, calls): (_, &[&[&str]]) = match network {
            Network::All => (Sockets::All, &[COMPUTE, FILES, LISTEN, CONNECT]),
            Network::Listen(_) => (Sockets::Listen, &[COMPUTE, FILES, LISTEN]),
            Network::None => (Sockets::None, &[COMPUTE, FILES]),
        };
        Self { names: calls.concat(), files: true, sockets }
    }

    /// What a compiler needs between its input and its output.
    #[must_use]
    pub fn compute() -> Self {
        Self { names: COMPUTE.to_vec(), files: false, sockets: Sockets::None }
    }

    /// As [`Self::compute`], for one that keeps files while it works.
    #[must_use]
    pub fn compute_with_files() -> Self {
        Self { names: [COMPUTE, FILES, REPLACE_FILES].concat(), files: true, sockets: Sockets::None }
    }

    /// Loads the filter for this thread and all that it starts.
    ///
    /// # Errors
    /// The kernel or libseccomp refuses it.
    pub fn load(&self) -> Result<(), Error> {
        let build = || -> Result<(), libseccomp::error::SeccompError> {
            let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::ENOSYS))?;
            // A binary tree over the numbers: some ten comparisons a call, not a hundred.
            filter.set_ctl_optimize(2)?;
            for name in &self.names {
                // Some exist on one architecture only.
                if let Ok(call) = ScmpSyscall::from_name(name) {
                    filter.add_rule(ScmpAction::Allow, call)?;
                }
            }
            for (name, arguments) in self.conditional() {
                filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name(name)?, arguments.as_slice())?;
            }
            filter.load()
        };
        build().map_err(failed("load seccomp filter"))
    }

    /// Loads the container's own profile. Only its rules for calls that [`Self::load`] leaves are of any effect, so
    /// only those are built: a default profile has some four hundred.
    pub(super) fn load_profile(&self, mut profile: LinuxSeccomp) -> Result<(), Error> {
        let conditional: Vec<&str> = self.conditional().into_iter().map(|(name, _)| name).collect();
        // `seccomp` loads the second filter, `prctl` names threads.
        let mattering = |name: &str| {
            self.names.contains(&name) || conditional.contains(&name) || name == "seccomp" || name == "prctl"
        };
        let rules = profile.syscalls().clone().unwrap_or_default();
        let rules = rules.into_iter().filter_map(|mut rule| {
            let names: Vec<String> = rule.names().iter().filter(|name| mattering(name)).cloned().collect();
            (!names.is_empty()).then(|| {
                rule.set_names(names);
                rule
            })
        });
        profile.set_syscalls(Some(rules.collect()));
        // Calls of another architecture are ended by the filter's default; there is no such code in the process.
        profile.set_architectures(None);
        initialize_seccomp(&profile).map(drop).map_err(failed("load seccomp profile"))
    }

    fn conditional(&self) -> Vec<(&'static str, Vec<ScmpArgCompare>)> {
        let equal = |arg, mask: libc::c_int, value: libc::c_int| {
            vec![ScmpArgCompare::new(arg, ScmpCompareOp::MaskedEqual(widen(mask)), widen(value))]
        };
        let mut rules = vec![
            // No new code: the engine mapped the guest's before the seal.
            ("mmap", equal(2, libc::PROT_EXEC, 0)),
            ("mprotect", equal(2, libc::PROT_EXEC, 0)),
            // Threads, but no processes. clone3 hides its flags in memory; libc falls back on ENOSYS.
            ("clone", equal(0, libc::CLONE_THREAD, libc::CLONE_THREAD)),
            ("prctl", equal(0, -1, libc::PR_SET_NAME)),
            // An abort signals its own thread. In a shared PID namespace there are others to signal.
            ("tgkill", equal(0, -1, std::process::id().cast_signed())),
        ];
        if self.files {
            for request in [libc::FIONREAD, libc::FIONBIO, libc::TCGETS, libc::TIOCGWINSZ, PAGEMAP_SCAN] {
                let compare = ScmpArgCompare::new(1, ScmpCompareOp::MaskedEqual(u64::from(u32::MAX)), request);
                rules.push(("ioctl", vec![compare]));
            }
            for command in [
                libc::F_DUPFD_CLOEXEC,
                libc::F_GETFD,
                libc::F_SETFD,
                libc::F_GETFL,
                libc::F_SETFL,
                libc::F_ADD_SEALS,
                libc::F_GET_SEALS,
            ] {
                rules.push(("fcntl", equal(1, -1, command)));
            }
            // An event loop's way to wake itself.
            rules.push(("socketpair", equal(0, -1, libc::AF_UNIX)));
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut arguments = equal(0, -1, family);
            match self.sockets {
                Sockets::None => continue,
                // The type's low four bits; the others are flags. Source: socket(2).
                Sockets::Listen => arguments.extend(equal(1, 0xf, libc::SOCK_STREAM)),
                Sockets::All => {}
            }
            rules.push(("socket", arguments));
        }
        if self.sockets == Sockets::Listen {
            // With an address and MSG_FASTOPEN it would connect.
            rules.push(("sendto", vec![ScmpArgCompare::new(4, ScmpCompareOp::Equal, 0)]));
        }
        rules
    }
}

/// The kernel compares 64 bits, of which an `int` argument fills the lower half.
fn widen(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}
