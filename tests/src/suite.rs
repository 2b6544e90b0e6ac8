//! The Debian suites whose daemons the tests run against, and what each needs.

use std::{fmt, str::FromStr};

use anyhow::bail;

use crate::cri;

/// A Debian suite: one pair of containerd and Docker versions that people run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// containerd 1.7 (Task v2 only) and Docker 26.
    Trixie,
    /// containerd 2.1 (Task v3, sandboxes) and Docker 28.
    Forky,
}

impl Suite {
    /// Every suite, oldest daemons first.
    pub const ALL: [Suite; 2] = [Suite::Trixie, Suite::Forky];

    /// The name Debian's archive knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Trixie => "trixie",
            Suite::Forky => "forky",
        }
    }

    /// `apt` settings for making the root filesystem.
    pub(crate) fn apt_options(self) -> &'static [&'static str] {
        match self {
            Suite::Trixie => &[],
            // Forky is not released: its mirrors may be older than their "valid until".
            Suite::Forky => &["Acquire::Check-Valid-Until \"false\""],
        }
    }

    /// Packages that only this suite has in the version that is needed.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            // Its libwasmedge0 is too old. Without any, this is the node that lacks the engine's library.
            Suite::Trixie => &[],
            Suite::Forky => &["libwasmedge0"],
        }
    }

    /// containerd's configuration file.
    pub(crate) fn containerd_config(self) -> String {
        let version = match self {
            Suite::Trixie => 2,
            Suite::Forky => 3,
        };
        format!("version = {version}\n[debug]\n  level = \"debug\"\n{}", cri::containerd(self))
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match Suite::ALL.into_iter().find(|suite| suite.name() == name) {
            Some(suite) => Ok(suite),
            None => bail!("no suite {name:?}: there are trixie and forky"),
        }
    }
}

/// Makes libtest functions `NAME::trixie` and `NAME::forky` of each `fn NAME(suite: Suite)`.
#[macro_export]
macro_rules! on_every_suite {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            #[test]
            fn trixie() {
                super::$test($crate::Suite::Trixie);
            }

            #[test]
            fn forky() {
                super::$test($crate::Suite::Forky);
            }
        })+
    };
}
