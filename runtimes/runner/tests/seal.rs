//! What is left to a process behind the seal's filters. Each case runs in a child, since there is no way back.
// The unsafe blocks are single system calls, made to see them refused.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

use std::{
    env,
    fs::File,
    io::{Error, ErrorKind, Result},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
};

use lighter_runner::seal::{self, Allowed};
use lighter_runtime_api::Network;

/// Says to the child which seal to apply.
const SEAL: &str = "LIGHTER_TEST_SEAL";

/// Runs [`sealed_child`] in a process of its own and returns what it printed.
fn child(seal: &str) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sealed_child", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(SEAL, seal)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The names of attempts that succeeded, sorted.
fn allowed(said: &str) -> Vec<&str> {
    let mut names: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("attempt ok: ")).collect();
    names.sort_unstable();
    assert!(said.contains("attempts are over"), "{said}");
    names
}

#[test]
fn a_guest_can_open_files_and_internet_sockets_and_little_else() {
    assert_eq!(
        allowed(&child("guest")),
        [
            "UDP socket",
            "connection",
            "data memory",
            "file",
            "internet socket",
            "message to an address",
            "signal to itself",
            "thread"
        ]
    );
}

#[test]
fn a_guest_that_listens_can_not_connect() {
    let attempts = ["data memory", "file", "internet socket", "signal to itself", "thread"];
    assert_eq!(allowed(&child("guest that listens")), attempts);
}

#[test]
fn a_guest_without_network_can_open_no_socket() {
    assert_eq!(allowed(&child("guest without network")), ["data memory", "file", "signal to itself", "thread"]);
}

#[test]
fn a_compiler_can_compute() {
    assert_eq!(allowed(&child("compute")), ["data memory", "signal to itself", "thread"]);
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn sealed_child() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    match env::var(SEAL).unwrap_or_default().as_str() {
        "guest" => Allowed::guest(&Network::All).load().unwrap(),
        "guest that listens" => Allowed::guest(&Network::Listen(Vec::new())).load().unwrap(),
        "guest without network" => Allowed::guest(&Network::None).load().unwrap(),
        "compute" => seal::compute_only().unwrap(),
        other => panic!("no such seal: {other:?}"),
    }
    // The test harness has begun a line.
    println!();
    attempt("file", || File::open("/dev/null").map(drop));
    attempt("program", || Command::new("/bin/true").status().map(drop));
    attempt("thread", || std::thread::Builder::new().spawn(|| ()).map(drop));
    attempt("internet socket", || call(|| unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }));
    attempt("UDP socket", || UdpSocket::bind("127.0.0.1:0").map(drop));
    attempt("connection", || TcpStream::connect(address).map(drop));
    attempt("message to an address", || send_to(address));
    attempt("unix socket", || call(|| unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) }));
    attempt("netlink socket", || call(|| unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0) }));
    attempt("data memory", || map(libc::PROT_READ | libc::PROT_WRITE));
    attempt("code memory", || map(libc::PROT_READ | libc::PROT_EXEC));
    attempt("process", || call(|| unsafe { libc::syscall(libc::SYS_fork) as i32 }));
    attempt("namespace", || call(|| unsafe { libc::unshare(libc::CLONE_NEWUSER) }));
    attempt("mount", || call(|| unsafe { libc::umount2(c"/nowhere".as_ptr(), 0) }));
    attempt("trace", || call(|| unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) as i32 }));
    attempt("io_uring", || call(|| unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) as i32 }));
    attempt("signal to itself", || signal(std::process::id()));
    attempt("signal to parent", || signal(std::os::unix::process::parent_id()));
    println!("attempts are over");
}

fn attempt(name: &str, what: impl FnOnce() -> Result<()>) {
    match what() {
        Ok(()) => println!("attempt ok: {name}"),
        Err(error) => println!("attempt refused: {name}: {error}"),
    }
}

fn call(what: impl FnOnce() -> i32) -> Result<()> {
    if what() == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// A stream socket that is not connected takes no message; that it was asked says that the call went through.
fn send_to(address: SocketAddr) -> Result<()> {
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = address.port().to_be();
    let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let sent = call(|| unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        libc::sendto(socket, [0u8].as_ptr().cast(), 1, libc::MSG_NOSIGNAL, (&raw const name).cast(), len) as i32
    });
    match sent {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

fn map(protection: i32) -> Result<()> {
    // SAFETY: a new anonymous mapping, which nothing refers to.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) };
    if address == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Signal 0 asks only whether one could be sent.
fn signal(process: u32) -> Result<()> {
    // SAFETY: sends nothing.
    call(|| unsafe { libc::syscall(libc::SYS_tgkill, process, process, 0) as i32 })
}
