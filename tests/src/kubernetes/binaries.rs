//! Kubernetes' own programs, built once from Debian's source package in a root filesystem of its release.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{cache, mmdebstrap, prerequisites};

/// The last release of Debian with all of Kubernetes' sources, and with a Go that builds them.
const RELEASE: &str = "bookworm";

/// Upstream's version of them.
const VERSION: &str = "1.20.2";

/// What is built.
const PROGRAMS: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"];

/// Without modules: the package holds what it depends on in `vendor/`. The API's schema is generated, as upstream's makefile
/// does. CRI's v1 is v1alpha2 by another name, and the only one that containerd 2 serves: the kubelet is taught the name.
fn script() -> String {
    let programs = PROGRAMS.iter().map(|program| format!("./cmd/{program}")).collect::<Vec<_>>().join(" ");
    let (major, minor) = VERSION.rsplit_once('.').and_then(|(release, _)| release.split_once('.')).unwrap_or_default();
    format!(
        r#"set -eu
        sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >/etc/apt/sources.list.d/source.list
        apt-get update -qq
        mkdir -p /go/src/k8s.io /out/usr/bin
        cd /go/src/k8s.io
        apt-get source -qq --only-source kubernetes
        mv kubernetes-*/ kubernetes
        cd kubernetes
        export GOPATH=/go GOCACHE=/go/cache GO111MODULE=off CGO_ENABLED=0
        sed -i 's,"\(/\?\)runtime\.v1alpha2\.,"\1runtime.v1.,' staging/src/k8s.io/cri-api/pkg/apis/runtime/v1alpha2/api.pb.go
        go build -o /go/openapi-gen ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
        packages=$(grep -rl '+k8s:openapi-gen=' --include='*.go' pkg cmd staging/src \
          | grep -v -e /_examples/ -e /sample- -e /code-generator/ -e /testdata/ -e /generators/ -e zz_generated \
          | xargs -n1 dirname | sort -u | sed -e 's,^staging/src,vendor,' -e 's,^,k8s.io/kubernetes/,' | paste -s -d,)
        /go/openapi-gen --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
          -h hack/boilerplate/boilerplate.generatego.txt -r /go/violations --output-base /go/src
        version=k8s.io/kubernetes/vendor/k8s.io/component-base/version
        go build -trimpath -o /out/usr/bin -ldflags "-s -w \
          -X $version.gitVersion=v{VERSION} -X $version.gitMajor={major} -X $version.gitMinor={minor}" {programs}
        "#
    )
}

/// The folder with `usr/bin/kubelet` and its like, to be laid over a root filesystem.
pub(super) fn get() -> Result<PathBuf> {
    prerequisites::need_root()?;
    let script = script();
    cache::entry("kubernetes", [RELEASE, &script].concat().as_bytes(), |folder| {
        eprintln!("testbed: building Kubernetes {VERSION} (five minutes of two processors, once)");
        // Some gigabytes, which a tmpfs may not have; and gone with the entry if the build is killed.
        let build = folder.join("build");
        fs::create_dir(&build).with_context(|| format!("create {}", build.display()))?;
        let copy = format!("--customize-hook=sync-out /out '{}'", folder.display());
        let arguments = [
            "--variant=apt",
            "--include=dpkg-dev,golang-go",
            "--format=null",
            // A hook's words are a shell's; those of the script are not to be.
            "--customize-hook=printf %s \"$LIGHTER_SCRIPT\" >\"$1/build\"",
            "--customize-hook=chroot \"$1\" sh /build",
            &copy,
            RELEASE,
            "/dev/null",
        ];
        mmdebstrap::run(&arguments, &[("LIGHTER_SCRIPT", script.as_ref()), ("TMPDIR", build.as_ref())])?;
        fs::remove_dir(&build).with_context(|| format!("remove {}", build.display()))
    })
}
