//! One operation on files: prints its result, or `error: KIND: message` and exits with 1.

use std::{
    env,
    ffi::{CString, c_char, c_int},
    fs::{self, OpenOptions},
    io::{self, Write},
    process::ExitCode,
};

unsafe extern "C" {
    // wasi-libc's; the standard library has it for WASI only unstably.
    fn symlink(target: *const c_char, link: *const c_char) -> c_int;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {:?}: {error}", error.kind());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> io::Result<String> {
    let done = |()| "done".to_owned();
    match *arguments {
        ["read", path] => fs::read_to_string(path),
        ["write", path, text] => fs::write(path, text).map(done),
        ["append", path, text] => OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes()).map(done),
        ["list", path] => {
            let names = fs::read_dir(path)?.map(|item| Ok(item?.file_name().into_string().expect("UTF-8")));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names.join("\n"))
        }
        ["mkdir", path] => fs::create_dir(path).map(done),
        ["rm", path] => fs::remove_file(path).map(done),
        ["rename", from, to] => fs::rename(from, to).map(done),
        ["hardlink", from, to] => fs::hard_link(from, to).map(done),
        ["symlink", target, path] => make_symlink(target, path).map(done),
        ["stat", path] => {
            let stat = fs::symlink_metadata(path)?;
            let kind = if stat.is_dir() {
                "folder"
            } else if stat.is_symlink() {
                "symlink"
            } else {
                "file"
            };
            Ok(format!("{kind} {}", stat.len()))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("unknown operation {arguments:?}"))),
    }
}

fn make_symlink(target: &str, path: &str) -> io::Result<()> {
    let (target, path) = (CString::new(target)?, CString::new(path)?);
    // SAFETY: both are C strings that live during the call.
    match unsafe { symlink(target.as_ptr(), path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
