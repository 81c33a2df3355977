//! `${NAME}` and its forms.
//!
//! `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME-word}`, `${NAME:?word}`,
//! `${NAME?word}`, `${NAME:+word}`, `${NAME+word}`, and `$$` for a dollar. A
//! word may hold more of them. A name nobody set becomes nothing, and a warning.

use std::collections::BTreeMap;

/// What came of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Interpolated {
    pub(crate) text: String,
    /// Names that stood there without a default and are not set.
    pub(crate) unset: Vec<String>,
}

/// Replaces every variable of `text`.
///
/// # Errors
///
/// What is wrong with the first bad or required and missing one.
pub(crate) fn interpolate(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<Interpolated, String> {
    let mut interpolated = Interpolated { text: String::new(), unset: Vec::new() };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        interpolated.text.push_str(before);
        rest = variable(after, variables, &mut interpolated)?;
    }
    interpolated.text.push_str(rest);
    Ok(interpolated)
}

/// Handles what follows a `$` and returns what follows that.
fn variable<'t>(
    after: &'t str,
    variables: &BTreeMap<String, String>,
    into: &mut Interpolated,
) -> Result<&'t str, String> {
    if let Some(rest) = after.strip_prefix('$') {
        into.text.push('$');
        return Ok(rest);
    }
    if let Some(inner) = after.strip_prefix('{') {
        let end = closing_brace(inner)
            .ok_or_else(|| format!("`${after}` has no closing brace; write `$$` for a dollar"))?;
        let (expression, rest) = inner.split_at(end);
        braced(expression, variables, into)?;
        return Ok(rest.strip_prefix('}').unwrap_or(rest));
    }
    let (name, rest) = split_name(after);
    if name.is_empty() {
        return Err(format!("`${after}` names no variable; write `$$` for a dollar"));
    }
    plain(name, variables, into);
    Ok(rest)
}

fn plain(name: &str, variables: &BTreeMap<String, String>, into: &mut Interpolated) {
    match variables.get(name) {
        Some(value) => into.text.push_str(value),
        None => into.unset.push(name.to_owned()),
    }
}

fn braced(
    expression: &str,
    variables: &BTreeMap<String, String>,
    into: &mut Interpolated,
) -> Result<(), String> {
    let (name, operation) = split_name(expression);
    if name.is_empty() {
        return Err(format!("`${{{expression}}}` names no variable"));
    }
    let value = variables.get(name);
    let (colon, operation) = match operation.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, operation),
    };
    // With a colon a variable that is set to nothing counts as not set.
    let value = value.filter(|value| !colon || !value.is_empty());
    let mut characters = operation.chars();
    match (characters.next(), value) {
        (None, _) if colon => Err(format!("`${{{expression}}}` lacks what follows `:`")),
        (None, _) => {
            plain(name, variables, into);
            Ok(())
        }
        (Some('-' | '?'), Some(value)) => {
            into.text.push_str(value);
            Ok(())
        }
        (Some('-'), None) | (Some('+'), Some(_)) => nested(characters.as_str(), variables, into),
        (Some('+'), None) => Ok(()),
        (Some('?'), None) => {
            let mut message = Interpolated { text: String::new(), unset: Vec::new() };
            nested(characters.as_str(), variables, &mut message)?;
            let why =
                if message.text.is_empty() { String::new() } else { format!(": {}", message.text) };
            Err(format!("the variable `{name}` has to be set{why}"))
        }
        (Some(_), _) => Err(format!("`${{{expression}}}` is no form of variable Compose knows")),
    }
}

fn nested(
    word: &str,
    variables: &BTreeMap<String, String>,
    into: &mut Interpolated,
) -> Result<(), String> {
    let inner = interpolate(word, variables)?;
    into.text.push_str(&inner.text);
    into.unset.extend(inner.unset);
    Ok(())
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text
        .char_indices()
        .find(|&(at, c)| !(c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())))
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end)
}

/// Expressions that may stand inside one another.
const DEPTH_MAX: usize = 32;

/// Where the brace that closes this expression stands, those of inner ones skipped.
/// None when there is none, or when more than [`DEPTH_MAX`] stand inside it.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '$' if characters.next_if(|&(_, c)| c == '{').is_some() => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return None;
                }
            }
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let variables =
            [("SET", "value"), ("EMPTY", ""), ("A1", "one")].map(|(k, v)| (k.into(), v.into()));
        let result = interpolate(text, &BTreeMap::from(variables)).map(|i| i.text);
        assert_eq!(result.as_deref().map_err(String::as_str), expected, "for {text}");
    }

    #[test]
    fn a_variable_is_replaced_by_its_value() {
        check("a $SET b", Ok("a value b"));
        check("${SET}x$A1", Ok("valuexone"));
        check("no variable", Ok("no variable"));
        check("$$SET costs 5$$", Ok("$SET costs 5$"));
    }

    #[test]
    fn a_default_stands_in_for_what_is_not_set() {
        check("${UNSET:-d}", Ok("d"));
        check("${UNSET-d}", Ok("d"));
        check("${EMPTY:-d}", Ok("d"));
        check("${EMPTY-d}", Ok(""));
        check("${SET:-d}", Ok("value"));
        check("${UNSET:-${ALSO:-${SET}}}", Ok("value"));
        check("${UNSET:-a:b-c}", Ok("a:b-c"));
    }

    #[test]
    fn an_alternative_stands_in_for_what_is_set() {
        check("${SET:+x}", Ok("x"));
        check("${EMPTY:+x}", Ok(""));
        check("${EMPTY+x}", Ok("x"));
        check("${UNSET+x}", Ok(""));
    }

    #[test]
    fn a_required_variable_that_is_missing_is_an_error_with_its_reason() {
        check("${UNSET:?give one}", Err("the variable `UNSET` has to be set: give one"));
        check("${EMPTY?}", Ok(""));
        check("${EMPTY:?}", Err("the variable `EMPTY` has to be set"));
    }

    #[test]
    fn what_is_no_variable_is_an_error() {
        check("${}", Err("`${}` names no variable"));
        check("$ 5", Err("`$ 5` names no variable; write `$$` for a dollar"));
        check("${SET", Err("`${SET` has no closing brace; write `$$` for a dollar"));
        check("${SET%x}", Err("`${SET%x}` is no form of variable Compose knows"));
    }

    #[test]
    fn a_variable_nobody_set_becomes_nothing_and_is_told() {
        let interpolated = interpolate("a${GONE}b", &BTreeMap::new()).expect("interpolates");
        assert_eq!(interpolated, Interpolated { text: "ab".into(), unset: vec!["GONE".into()] });
    }
}
