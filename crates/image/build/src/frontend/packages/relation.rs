//! What packages say about one another: `Depends`, `Provides`, `Conflicts`.

use std::fmt;

use debversion::Version;

/// How a version is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

/// One package as a relation names it, perhaps with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) name: String,
    /// `any`, `native` or an architecture after a colon.
    pub(crate) qualifier: Option<String>,
    pub(crate) version: Option<(Operator, Version)>,
}

/// Relations of which one must hold.
pub(crate) type Alternatives = Vec<Relation>;

/// A text that is no relation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a package relation such as `name` or `name (>= 1.2)`")]
pub struct RelationError {
    text: String,
}

impl Relation {
    /// Whether `version` is one that this relation asks for.
    pub(crate) fn admits(&self, version: &Version) -> bool {
        let Some((operator, wanted)) = &self.version else { return true };
        match operator {
            Operator::Earlier => version < wanted,
            Operator::EarlierOrEqual => version <= wanted,
            Operator::Equal => version == wanted,
            Operator::LaterOrEqual => version >= wanted,
            Operator::Later => version > wanted,
        }
    }

    /// Reads `name`, `name:any`, `name (>= 1.2)`; `name=1.2` too, as apt's command
    /// line has it.
    pub(crate) fn parse(text: &str) -> Result<Self, RelationError> {
        let refused = || RelationError { text: text.trim().to_owned() };
        let (name, rest) = split_name(text.trim_ascii());
        let (name, qualifier) = match name.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier.to_owned())),
            None => (name, None),
        };
        if !is_package_name(name) {
            return Err(refused());
        }
        let version = parse_version(rest.trim_ascii()).ok_or_else(refused)?;
        Ok(Self { name: name.to_owned(), qualifier, version })
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        let Some((operator, version)) = &self.version else { return Ok(()) };
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(formatter, " ({sign} {version})")
    }
}

/// Reads a field such as `a (>= 1) | b, c`.
pub(crate) fn parse_field(text: &str) -> Result<Vec<Alternatives>, RelationError> {
    text.split(',')
        .filter(|clause| !clause.trim_ascii().is_empty())
        .map(|clause| clause.split('|').map(Relation::parse).collect())
        .collect()
}

/// Reads a field that has no alternatives, such as `Provides` or `Conflicts`.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Relation>, RelationError> {
    text.split(',').filter(|clause| !clause.trim_ascii().is_empty()).map(Relation::parse).collect()
}

/// A name as policy has it: two characters at least, lower case, digits, `+-.`.
pub(crate) fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_ascii_whitespace() || matches!(c, '(' | '='))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Nothing, `(>= 1.2)` or `=1.2`; `None` when it is none of them.
fn parse_version(text: &str) -> Option<Option<(Operator, Version)>> {
    if text.is_empty() {
        return Some(None);
    }
    let inner = match text.strip_prefix('(') {
        Some(inner) => inner.strip_suffix(')')?.trim_ascii(),
        None => text,
    };
    let digits = inner.find(|c: char| !matches!(c, '<' | '>' | '='))?;
    let (sign, version) = inner.split_at(digits);
    let operator = match sign {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    Some(Some((operator, version.trim_ascii().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(relation: &str, version: &str, expected: bool) {
        let relation = Relation::parse(relation).unwrap();
        assert_eq!(relation.admits(&version.parse().unwrap()), expected, "{relation} {version}");
    }

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        check("aa (>= 1.0)", "1.0~rc1", false);
        check("aa (>> 1.0)", "1.0-1", true);
        check("aa (<< 2)", "1:0", false);
        check("aa (= 2.36-9)", "2.36-9", true);
        check("aa (<= 1.10)", "1.9", true);
        check("aa (>= 1.2+b1)", "1.2", false);
        check("aa", "0", true);
        check("aa=1.2-3", "1.2-3", true);
    }

    #[test]
    fn alternatives_and_qualifiers_are_read() {
        let field = parse_field("debconf (>= 0.5) | debconf-2.0, python3:any (>= 3.11~),").unwrap();
        assert_eq!(field.len(), 2);
        assert_eq!(field[0][1].name, "debconf-2.0");
        assert_eq!(field[1][0].qualifier.as_deref(), Some("any"));
        assert_eq!(field[0][0].to_string(), "debconf (>= 0.5)");
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for text in ["", "Upper", "aa b", "aa (", "aa (>= )", "aa (~ 1)", "../x", "x"] {
            assert!(Relation::parse(text).is_err(), "{text}");
        }
    }
}
