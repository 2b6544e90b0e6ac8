//! Versions, as far as they are compared.

use std::fmt;

/// The first three numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// The first word of `text` that looks like a version, whatever distributions append to it:
    /// `containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4` is 1.7.24.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split([' ', '\t', '\n', ',', '"']).find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.strip_prefix('v').unwrap_or(word).splitn(3, '.');
        let number = |text: &str| text.parse::<u32>().ok();
        let major = number(parts.next()?)?;
        let minor = parts.next()?;
        let minor_digits = leading_digits(minor);
        // `2.1-rc.0` has no third number.
        let patch = if minor_digits == minor { parts.next().map(leading_digits).and_then(number) } else { None };
        Some(Self(major, number(minor_digits)?, patch.unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_versions_in_what_programs_print() {
        let table = [
            ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4", Some(Version(1, 7, 24))),
            ("containerd containerd.io v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376", Some(Version(2, 1, 4))),
            ("containerd github.com/k3s-io/containerd v2.0.5-k3s1", Some(Version(2, 0, 5))),
            ("Docker version 28.5.2+dfsg3, build ecc6942", Some(Version(28, 5, 2))),
            ("26.1.5", Some(Version(26, 1, 5))),
            ("6.18.44-fc-v669", Some(Version(6, 18, 44))),
            ("6.1-rc3", Some(Version(6, 1, 0))),
            ("containerd", None),
            ("1", None),
            ("99999999999.1.1", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(Version::find(text), expected, "{text}");
        }
    }
}
