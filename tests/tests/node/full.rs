//! Disks that are full: under the programs, under the journal, under containerd's configuration.

use lighter_tests::{Bed, Suite, on_every_suite};

use crate::bench::{CONFIG, installer, node, read, restarts, traces, write};

on_every_suite!(under_the_prefix, under_the_configuration);

/// What `install` and its undoing say and leave, on a prefix of so many bytes.
fn on_a_prefix_of(bed: &Bed, bytes: u64) -> bool {
    let before = traces(bed);
    bed.sh(&format!("mkdir /opt/small && mount -t tmpfs -o size={bytes} none /opt/small")).run().ok();
    let words = ["--prefix", "/opt/small/l", "install", "--from", "/usr/local/bin"];
    let done = installer(bed, &words).run();
    let installed = done.status == 0;
    if installed {
        installer(bed, &["--prefix", "/opt/small/l", "uninstall"]).run().ok();
    } else {
        assert!(done.expect(1).stderr.contains("No space left on device"), "{bytes}");
    }
    let left = bed.sh("find /opt/small -mindepth 1").run().ok().stdout;
    assert_eq!(left, "", "{bytes}");
    bed.sh("umount /opt/small && rmdir /opt/small").run().ok();
    assert_eq!(traces(bed), before, "{bytes}");
    installed
}

fn under_the_prefix(suite: Suite) {
    const PAGE: u64 = 4096;
    let bed = node(suite);
    let count = restarts(&bed);
    assert!(!on_a_prefix_of(&bed, 1 << 22), "programs on 4 MiB");
    assert_eq!(restarts(&bed), count);
    // Enough for the programs, and more and more for the journal and what it keeps.
    let programs =
        "cd /usr/local/bin; find . -name 'containerd-shim-lighter-v1' -o -name 'lighter*' ! -name lighter-node";
    let sizes = bed.sh(&format!("{programs} | xargs stat -c %s")).run().ok().stdout;
    let programs: u64 = sizes.lines().filter_map(|size| size.parse::<u64>().ok()).map(|size| size.div_ceil(PAGE)).sum();
    let installed: Vec<bool> = (0..8).map(|pages| on_a_prefix_of(&bed, (programs + pages) * PAGE)).collect();
    assert!(!installed[0] && installed[7], "{installed:?}");
}

fn under_the_configuration(suite: Suite) {
    let bed = node(suite);
    let (config, count) = (read(&bed, CONFIG), restarts(&bed));
    let fill = "cp -a /etc/containerd /tmp/was && mount -t tmpfs -o size=64k none /etc/containerd && cp -a /tmp/was/. \
         /etc/containerd; dd if=/dev/zero of=/etc/containerd/full bs=4096 2>/dev/null || rm -r /tmp/was";
    bed.sh(fill).run().ok();
    let before = traces(&bed);
    let failed = installer(&bed, &["install", "--from", "/usr/local/bin"]).run().expect(1);
    assert!(failed.stderr.contains("No space left on device"), "{failed}");
    assert_eq!((traces(&bed), read(&bed, CONFIG), restarts(&bed)), (before.clone(), config, count));
    // With room again, all goes as ever; and comes back so.
    bed.sh("rm /etc/containerd/full").run().ok();
    write(&bed, "/etc/containerd/full", "");
    let before = traces(&bed);
    installer(&bed, &["install", "--from", "/usr/local/bin"]).run().ok();
    installer(&bed, &["uninstall"]).run().ok();
    assert_eq!(traces(&bed), before);
    bed.sh("umount /etc/containerd").run().ok();
}
