//! The folder of compiled code: the shim refuses one that others could write to.

use super::{
    Finding,
    facts::{Cache, CacheFolder},
};

const CHECK: &str = "cache";
/// A large module's code and a few small ones'.
const ENOUGH: u64 = 1 << 30;

pub(super) fn check(cache: &Cache) -> Vec<Finding> {
    vec![folder(cache), space(cache)]
}

fn folder(cache: &Cache) -> Finding {
    let path = cache.path.display();
    match &cache.folder {
        CacheFolder::Absent => Finding::ok(CHECK, format!("{path} is made by the first container")),
        CacheFolder::Unreadable(why) => {
            Finding::warning(CHECK, format!("{path} can't be looked at: {why}"), "run `lighter doctor` as root")
        }
        CacheFolder::NotAFolder => {
            Finding::problem(CHECK, format!("{path} is not a folder; the shim refuses it"), format!("rm {path}"))
        }
        CacheFolder::Folder { uid, mode } if *uid != 0 || mode & 0o022 != 0 => Finding::problem(
            CHECK,
            format!("{path} could be written by others (owner {uid}, mode {:04o}); the shim refuses it", mode & 0o7777),
            format!("rm -r {path}; what is in it may be forged, and is made anew"),
        ),
        CacheFolder::Folder { .. } => Finding::ok(CHECK, format!("{path}, only root writes to it")),
    }
}

fn space(cache: &Cache) -> Finding {
    const CHECK: &str = "disk";
    let path = cache.path.display();
    match cache.free {
        None => Finding::warning(CHECK, format!("free space of {path} is not known"), format!("df {path}")),
        Some(free) if free < ENOUGH => Finding::warning(
            CHECK,
            format!("{} free for {path}; a module whose code doesn't fit can't start", indicatif::HumanBytes(free)),
            "free some space: lighter cache gc",
        ),
        Some(free) => Finding::ok(CHECK, format!("{} free for the cache", indicatif::HumanBytes(free))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn only_root_may_write() {
        let of = |folder| super::folder(&Cache { path: "/c".into(), folder, free: None }).status;
        assert_eq!(of(CacheFolder::Absent), Status::Ok);
        assert_eq!(of(CacheFolder::Folder { uid: 0, mode: 0o40700 }), Status::Ok);
        assert_eq!(of(CacheFolder::Folder { uid: 0, mode: 0o40755 }), Status::Ok);
        assert_eq!(of(CacheFolder::Folder { uid: 0, mode: 0o40777 }), Status::Problem);
        assert_eq!(of(CacheFolder::Folder { uid: 0, mode: 0o40720 }), Status::Problem);
        assert_eq!(of(CacheFolder::Folder { uid: 1000, mode: 0o40700 }), Status::Problem);
        assert_eq!(of(CacheFolder::NotAFolder), Status::Problem);
        assert_eq!(of(CacheFolder::Unreadable("no".to_owned())), Status::Warning);
    }

    #[test]
    fn little_space_is_told() {
        let of = |free| space(&Cache { free, ..Cache::default() }).status;
        assert_eq!((of(Some(1 << 20)), of(Some(1 << 40)), of(None)), (Status::Warning, Status::Ok, Status::Warning));
    }
}
