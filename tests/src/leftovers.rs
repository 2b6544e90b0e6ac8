//! What tasks leave behind when their removal is not complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{Bed, cgroup, vm};

/// The programs of ours, and libcontainer's stages. /proc/PID/comm holds 15 bytes.
const PROGRAMS: &[&str] = &["containerd-shim", "lighter", "youki"];

/// Where bundles are mounted, and what else of a task may be.
const MOUNTS: &[&str] = &[
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd/io.containerd.sandbox.controller.v1.shim",
    "/run/lighter",
];

/// Folders whose items are all of tasks, at this depth below them.
const FOLDERS: &[(&str, usize)] = &[
    ("/run/containerd/s", 1),
    ("/run/containerd/io.containerd.runtime.v2.task", 2),
    ("/var/lib/containerd/io.containerd.runtime.v2.task", 2),
    ("/run/containerd/io.containerd.sandbox.controller.v1.shim", 2),
    ("/var/lib/containerd/io.containerd.sandbox.controller.v1.shim", 2),
    ("/run/containerd/fifo", 1),
];

/// Cgroups that containerd's and Docker's containers are put below; runtimes leave these.
const CGROUP_PARENTS: &[&str] = &["default", "docker", "k8s.io"];

/// One line for each thing that remains of a task.
pub(crate) fn of(bed: &Bed) -> Result<Vec<String>> {
    let mut left = processes(bed)?;
    left.extend(mounts(bed)?);
    left.extend(cgroups(bed)?);
    for (folder, depth) in FOLDERS {
        left.extend(items(&bed.path(folder), *depth)?.iter().map(|path| format!("file {}", in_bed(bed, path))));
    }
    left.extend(files_below(&bed.path("/run/lighter"))?.iter().map(|path| format!("file {}", in_bed(bed, path))));
    Ok(left)
}

fn processes(bed: &Bed) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for process in items(&bed.path("/proc"), 1)? {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        // It may end while we look.
        let Ok(comm) = fs::read_to_string(process.join("comm")) else { continue };
        if PROGRAMS.iter().any(|program| comm.starts_with(program)) {
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            left.push(format!("process {pid} {} ({})", comm.trim(), arguments.trim()));
        }
    }
    Ok(left)
}

fn mounts(bed: &Bed) -> Result<Vec<String>> {
    let mountinfo = format!("/proc/{}/mountinfo", bed.init());
    let mountinfo = fs::read_to_string(&mountinfo).with_context(|| format!("read {mountinfo}"))?;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let of_tasks = points.filter(|point| MOUNTS.iter().any(|folder| point.starts_with(folder)));
    Ok(of_tasks.map(|point| format!("mount {point}")).collect())
}

fn cgroups(bed: &Bed) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let root = bed.path(cgroup::ROOT);
    if vm::has_systemds_cgroups() {
        scopes(&root, &mut left)?;
        return Ok(left.iter().map(|path| format!("cgroup {}", in_bed(bed, path))).collect());
    }
    // On v2 the hierarchy is the root itself, else one of the folders below.
    let hierarchies = if root.join("cgroup.procs").exists() { vec![root] } else { items(&root, 1)? };
    for hierarchy in hierarchies.iter().filter(|path| !path.is_symlink()) {
        for cgroup in items(hierarchy, 1)?.iter().filter(|path| path.is_dir()) {
            let name = cgroup.file_name().unwrap_or_default();
            if name == cgroup::DAEMONS {
                continue;
            }
            if CGROUP_PARENTS.iter().any(|parent| name == *parent) {
                left.extend(items(cgroup, 1)?.into_iter().filter(|path| path.is_dir()));
            } else {
                left.push(cgroup.clone());
            }
        }
    }
    Ok(left.iter().map(|path| format!("cgroup {}", in_bed(bed, path))).collect())
}

/// Those that systemd has made for containers, below any slice.
fn scopes(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for cgroup in items(folder, 1)?.into_iter().filter(|path| path.is_dir()) {
        match cgroup.extension().and_then(|kind| kind.to_str()) {
            Some("scope") if cgroup.file_name().is_some_and(|name| name != "init.scope") => found.push(cgroup),
            Some("slice") => scopes(&cgroup, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whatever is `depth` levels below `folder`.
fn items(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let found = match fs::read_dir(folder) {
        // Not there, or removed while we look.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        found => found.with_context(|| format!("list {}", folder.display()))?,
    };
    let found = found.map(|item| Ok(item?.path())).collect::<io::Result<Vec<_>>>();
    let found = found.with_context(|| format!("list {}", folder.display()))?;
    if depth == 1 {
        return Ok(found);
    }
    Ok(found.iter().map(|item| items(item, depth - 1)).collect::<Result<Vec<_>>>()?.concat())
}

/// The files, not the folders, anywhere below `folder`.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (folders, mut files): (Vec<_>, Vec<_>) =
        items(folder, 1)?.into_iter().partition(|path| path.is_dir() && !path.is_symlink());
    for folder in folders {
        files.extend(files_below(&folder)?);
    }
    Ok(files)
}

fn in_bed(bed: &Bed, path: &Path) -> String {
    let root = bed.path("/");
    format!("/{}", path.strip_prefix(&root).unwrap_or(path).display())
}
