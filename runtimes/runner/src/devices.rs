//! Which devices a native container may use, on cgroup v2: a BPF program on its cgroup. Of v1's own device lists, libcgroups
//! takes care.
//!
//! Without it a program with CAP_MKNOD, which Docker grants, could make a file of the host's disk and read it. libcgroups
//! can do this with libbpf, libelf and zlib, which every node would need; the program is some instructions a rule.
//! Source: runc's `libcontainer/cgroups/devices`, the kernel's `Documentation/bpf/standardization/instruction-set.rst`.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::Error;

/// Where v2's hierarchy is mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Devices that every container may use, whatever its spec says: type, major, minor, access. `None` stands for all.
/// Source: runc's `specconv.AllowedDevices`, of which 1.2 took the tunnel away.
const ALWAYS: &[Rule] = &[
    Rule::allow(Some(CHARACTER), None, None, MKNOD),
    Rule::allow(Some(BLOCK), None, None, MKNOD),
    Rule::allow(Some(CHARACTER), Some(1), Some(3), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(5), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(7), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(8), ALL),
    Rule::allow(Some(CHARACTER), Some(1), Some(9), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(0), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(1), ALL),
    Rule::allow(Some(CHARACTER), Some(5), Some(2), ALL),
    Rule::allow(Some(CHARACTER), Some(136), None, ALL),
];

// Of `struct bpf_cgroup_dev_ctx`. Source: the kernel's `include/uapi/linux/bpf.h`, as all numbers here.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of others, such as systemd's, stay: each may deny.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// One line of a device list. What does not match has no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    const fn allow(kind: Option<i32>, major: Option<i32>, minor: Option<i32>, access: i32) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    fn of(rule: &LinuxDeviceCgroup) -> Self {
        let number = |n: Option<i64>| n.filter(|&n| n >= 0).and_then(|n| i32::try_from(n).ok());
        let access = rule.access().as_deref().unwrap_or("rwm").chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => 0,
            }
        });
        let kind = match rule.typ() {
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
            // FIFOs are no devices to the kernel: a rule of theirs matches nothing.
            Some(LinuxDeviceType::P) => Some(0),
            Some(LinuxDeviceType::A) | None => None,
        };
        Self { allow: rule.allow(), kind, major: number(rule.major()), minor: number(rule.minor()), access }
    }
}

/// Binds the container of this init to the devices of its rules, before it is started.
///
/// # Errors
/// The kernel refuses; the container must not start.
pub(crate) fn bind(init: i32, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Devices { path, source }
    };
    let list = PathBuf::from(format!("/proc/{init}/cgroup"));
    let text = std::fs::read_to_string(&list).map_err(failed(&list))?;
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let path = Path::new(ROOT).join(cgroup);
    attach(&path, &all(rules)).map_err(failed(&path))
}

fn all(rules: &[LinuxDeviceCgroup]) -> Vec<Rule> {
    rules.iter().map(Rule::of).chain(ALWAYS.iter().copied()).collect()
}

/// Loads the program of these rules and puts it on a cgroup, with which it goes.
fn attach(cgroup: &Path, rules: &[Rule]) -> io::Result<()> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
    }
    let cgroup = File::open(cgroup)?;
    let program = program(rules);
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let bpf = |command: libc::c_int, attributes: *const libc::c_void, length: usize| {
        // SAFETY: the attributes and what they point at live through the call, which only reads them; the kernel takes what
        // is beyond `length` for zero.
        match unsafe { libc::syscall(libc::SYS_bpf, command, attributes, length) } {
            -1 => Err(io::Error::last_os_error()),
            value => i32::try_from(value).map_err(io::Error::other),
        }
    };
    let fd = bpf(BPF_PROG_LOAD, (&raw const load).cast(), size_of::<Load>())?;
    // SAFETY: the kernel just made it, for nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_raw_fd().unsigned_abs(),
        program: fd.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, (&raw const attach).cast(), size_of::<Attach>()).map(drop)
}

/// `struct bpf_insn`: code, registers (destination low), offset, constant.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, constant: i32) -> u64 {
    let bytes = [[code, source << 4 | destination], offset.to_ne_bytes()].concat();
    let mut all = [0; 8];
    all[..4].copy_from_slice(&bytes);
    all[4..].copy_from_slice(&constant.to_ne_bytes());
    u64::from_ne_bytes(all)
}

/// The last rule that matches decides; where none does, the answer is no. An allowing rule matches a request of which it
/// allows all, a denying one a request of which it denies anything.
fn program(rules: &[Rule]) -> Vec<u64> {
    let load = |register, offset| instruction(0x61, register, 1, offset, 0);
    let answer = |yes: bool| [instruction(0xb4, 0, 0, 0, i32::from(yes)), instruction(0x95, 0, 0, 0, 0)];
    // Registers: 2 type, 3 access, 4 major, 5 minor. The first word of the context is both of the first.
    let mut program = vec![
        load(2, 0),
        instruction(0x54, 2, 0, 0, 0xffff),
        load(3, 0),
        instruction(0x74, 3, 0, 0, 16),
        load(4, 4),
        load(5, 8),
    ];
    for rule in rules.iter().rev() {
        // Each condition jumps to the next rule, whose distance is known at the end.
        let mut conditions = Vec::new();
        for (register, value) in [(2, rule.kind), (4, rule.major), (5, rule.minor)] {
            conditions.extend(value.map(|value| (0x55, register, value)));
        }
        let mut body: Vec<u64> = Vec::new();
        let length = conditions.len() + if rule.access == ALL { 2 } else { 5 };
        let to_next = |at: usize| i16::try_from(length - at - 1).unwrap_or(i16::MAX);
        for (code, register, value) in conditions {
            body.push(instruction(code, register, 0, to_next(body.len()), value));
        }
        if rule.access != ALL {
            body.push(instruction(0xbc, 1, 3, 0, 0));
            // What the rule is not about; or, of a denial, what it is about.
            body.push(instruction(0x54, 1, 0, 0, if rule.allow { !rule.access & ALL } else { rule.access }));
            let code = if rule.allow { 0x55 } else { 0x15 };
            body.push(instruction(code, 1, 0, to_next(body.len()), 0));
        }
        body.extend(answer(rule.allow));
        program.extend(body);
        if length == 2 {
            // It matches everything: what follows would never run, and the kernel takes no such program.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// v2's hierarchy, alone or beside v1's.
    fn hierarchy() -> Option<PathBuf> {
        let roots = [ROOT.to_owned(), format!("{ROOT}/unified")];
        roots.into_iter().map(PathBuf::from).find(|root| root.join("cgroup.controllers").exists())
    }

    /// What the kernel lets a process do with `/dev/null` and `/dev/tty`'s numbers under these rules.
    fn allowed(root: &Path, name: &str, rules: &[Rule]) -> Vec<String> {
        let cgroup = root.join(format!("lighter-test-{name}-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let attached = attach(&cgroup, rules);
        if attached.is_err() {
            fs::remove_dir(&cgroup).unwrap();
        }
        attached.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "echo $$ >{}/cgroup.procs; cd {}
             mknod null c 1 3 && echo mknod-null
             mknod disk b 7 0 && echo mknod-disk
             (: </dev/null) && echo read-null
             (: >/dev/null) && echo write-null
             (: </dev/full) && echo read-full
             (: >/dev/full) && echo write-full
             true",
            cgroup.display(),
            folder.path().display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        fs::remove_dir(&cgroup).unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let Some(root) = hierarchy() else { return eprintln!("skipped: there is no cgroup v2 here") };
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: only root may attach programs");
        }
        let deny = |kind, major, minor, access| Rule { allow: false, kind, major, minor, access };
        let null = |access| Rule::allow(Some(CHARACTER), Some(1), Some(3), access);
        let everything = Rule::allow(None, None, None, ALL);
        let all = ["mknod-null", "mknod-disk", "read-null", "write-null", "read-full", "write-full"];
        let table: [(&str, &[Rule], &[&str]); 7] = [
            ("none", &[], &[]),
            ("everything", &[everything], &all),
            ("one", &[deny(None, None, None, ALL), null(ALL)], &["mknod-null", "read-null", "write-null"]),
            ("reads", &[null(READ)], &["read-null"]),
            ("major", &[Rule::allow(Some(CHARACTER), Some(1), None, READ)], &["read-null", "read-full"]),
            (
                "but",
                &[everything, deny(Some(CHARACTER), None, None, WRITE)],
                &["mknod-null", "mknod-disk", "read-null", "read-full"],
            ),
            ("block", &[Rule::allow(Some(BLOCK), None, None, MKNOD)], &["mknod-disk"]),
        ];
        for (name, rules, expected) in table {
            assert_eq!(allowed(&root, name, rules), expected, "{name}");
        }
    }

    #[test]
    fn a_spec_is_read_as_the_kernel_means_it() {
        let rule = |json: &str| Rule::of(&serde_json::from_str(json).unwrap());
        assert_eq!(rule(r#"{"allow":true,"type":"a","access":"rwm"}"#), Rule::allow(None, None, None, ALL));
        assert_eq!(rule(r#"{"allow":true}"#), Rule::allow(None, None, None, ALL));
        assert_eq!(
            rule(r#"{"allow":true,"type":"b","major":7,"minor":-1,"access":"r"}"#),
            Rule::allow(Some(BLOCK), Some(7), None, READ)
        );
        assert!(!rule(r#"{"allow":false,"access":"m"}"#).allow);
    }
}
