//! Words that may be quoted, and `name=value` pairs made of them.

use super::position::Fault;
use super::statement::{Cursor, Word, is_blank};

/// Words split at white space outside quotes; quotes and escapes are kept.
pub(super) fn quoted_words(cursor: &Cursor<'_>) -> Vec<Word> {
    split_quoted(cursor.text, cursor.escape)
        .into_iter()
        .map(|(offset, text)| cursor.word(offset, &text))
        .collect()
}

/// Names and values in turn: `name=value …`, or the old form `name the rest`.
pub(super) fn name_value(cursor: &Cursor<'_>, keyword: &str) -> Result<Vec<Word>, Fault> {
    let words = quoted_words(cursor);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.text.contains('=') {
        return old_form(cursor, keyword);
    }
    let mut pairs = Vec::with_capacity(words.len() * 2);
    for word in words {
        let Some((name, value)) = word.text.split_once('=') else {
            let message = format!(
                "{keyword} takes pairs of the form name=value, and `{}` has no `=`",
                word.text
            );
            return Err(Fault::new(word.position, message));
        };
        if name.is_empty() {
            return Err(Fault::new(word.position, format!("a name of {keyword} is empty")));
        }
        pairs.push(Word { text: name.to_owned(), position: word.position });
        pairs.push(Word { text: value.to_owned(), position: word.position });
    }
    Ok(pairs)
}

fn old_form(cursor: &Cursor<'_>, keyword: &str) -> Result<Vec<Word>, Fault> {
    let name_end = cursor.text.find(is_blank).unwrap_or(cursor.text.len());
    let (name, rest) = cursor.text.split_at(name_end);
    let value = rest.trim_start_matches(is_blank);
    if rest.is_empty() {
        let position = cursor.word(0, "").position;
        return Err(Fault::new(position, format!("{keyword} needs a name and a value")));
    }
    let offset = name_end + rest.len() - value.len();
    Ok(vec![cursor.word(0, name), cursor.word(offset, value)])
}

/// Offset and text of each word.
fn split_quoted(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let mut word: Option<(usize, String)> = None;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((offset, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        if character == escape && quote != Some('\'') {
            let Some((_, escaped)) = characters.next() else { break };
            let (_, word) = word.get_or_insert((offset, String::new()));
            word.push(character);
            word.push(escaped);
            continue;
        }
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => {}
        }
        word.get_or_insert((offset, String::new())).1.push(character);
    }
    words.extend(word);
    words
}
