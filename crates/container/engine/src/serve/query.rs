//! What follows the question mark.

/// The pairs of a query, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "true" || value == "1")
    }
}

/// Undoes percent encoding. What is no encoding stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let rest = bytes.as_slice_pair();
        match (byte, rest) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                bytes.nth(1);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The next two bytes as hexadecimal digits.
trait HexPair {
    fn as_slice_pair(&self) -> Option<(u8, u8)>;
}

impl HexPair for std::str::Bytes<'_> {
    fn as_slice_pair(&self) -> Option<(u8, u8)> {
        let mut ahead = self.clone();
        let mut digit =
            || char::from(ahead.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        Some((digit()?, digit()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once() {
        let query = Query::parse(Some("a=1%202&b&c=%25&a=x%3Dy&d=%zz"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1 2", "x=y"]);
        assert_eq!(query.get("a"), Some("x=y"));
        assert_eq!(query.get("b"), Some(""));
        assert_eq!(query.get("c"), Some("%"));
        assert_eq!(query.get("d"), Some("%zz"));
        assert_eq!(query.get("e"), None);
    }
}
