//! What pods run.

use lighter_tests::{Image, guests, kubernetes::Cluster};

/// Guests, each as `/NAME.wasm`: commands for WASI 0.1, but `net`, for 0.2; `serve`, a handler of HTTP.
pub(crate) fn guests() -> Image {
    const MODULES: &[&str] = &["busy", "cat", "exit", "files", "hello", "memory", "show", "sleep", "trap"];
    let image = Image::new("docker.io/library/guests:k8s")
        .of_host()
        .file("/data/file", "of the folder")
        .folder("/tmp")
        .file("/net.wasm", guests::p2("net"))
        .file("/serve.wasm", guests::handler("serve"))
        .entrypoint(&["/hello.wasm"]);
    MODULES.iter().fold(image, |image, name| image.file(&format!("/{name}.wasm"), guests::p1(name)))
}

/// Busybox, and its shell.
pub(crate) fn busybox(cluster: &Cluster) -> Image {
    const APPLETS: &[&str] =
        &["cat", "date", "echo", "grep", "httpd", "ls", "mkdir", "nslookup", "printf", "sh", "sleep", "wget"];
    let image = Image::new("docker.io/library/busybox:k8s")
        .of_host()
        .file("/bin/busybox", cluster.busybox())
        .folder("/tmp")
        .env("PATH", "/bin")
        .cmd(&["sh"]);
    APPLETS.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
}
