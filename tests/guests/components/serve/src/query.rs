//! The part of a URL behind the question mark.

/// `NAME=VALUE`, separated by `&`.
pub(crate) struct Query<'a>(pub(crate) &'a str);

impl Query<'_> {
    /// The value of `name`, decoded; empty when it isn't there.
    pub(crate) fn text(&self, name: &str) -> String {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
        decode(value.unwrap_or_default())
    }

    /// As a number; 0 when it is none.
    #[allow(dead_code, reason = "not every guest that has this file counts")]
    pub(crate) fn number(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or(0)
    }
}

/// `%2F` is a slash.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
