//! Values, their signatures, and their spelling as text.

/// A value of the bus's type system, as far as it is needed.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a`, with the signature of its elements
    Array(String, Vec<Self>),
    /// `(…)`, and `{…}` where it is read
    Struct(Vec<Self>),
    /// `v`
    Variant(Box<Self>),
}

impl Value {
    /// The signature of its type.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => {
                format!("({})", fields.iter().map(Self::signature).collect::<String>())
            }
            Self::Variant(_) => "v".into(),
        }
    }

    /// The bytes of an array of bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().copied().map(Self::Byte).collect())
    }

    /// The text, when it is one, also inside a variant.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }
}

/// Reads a value in the text form of GVariant: `uint64 5`, `'text'`, `true`, `['a', 'b']`,
/// `@as []`. Numbers without a type are `int32`, with a point `double`.
///
/// Dictionaries and tuples are not read.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_text(text: &str) -> Result<Value, String> {
    let mut reader = Reader { rest: text.trim() };
    let value = reader.value(None)?;
    match reader.rest.trim_start() {
        "" => Ok(value),
        rest => Err(format!("{rest:?} is left over")),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

/// Types by their names in the text form.
const NAMES: [(&str, char); 12] = [
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
    ("objectpath", 'o'),
    ("signature", 'g'),
];

impl<'a> Reader<'a> {
    fn value(&mut self, kind: Option<char>) -> Result<Value, String> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next().ok_or("a value is missing")?;
        match first {
            '\'' | '"' => self.quoted(first).and_then(|text| typed(kind.unwrap_or('s'), &text)),
            '[' => self.array(kind),
            '@' => self.annotated(),
            '{' | '(' | '<' => Err("dictionaries, tuples and variants are not read".into()),
            _ => self.word(kind),
        }
    }

    fn word(&mut self, kind: Option<char>) -> Result<Value, String> {
        let end = self.rest.find([',', ']', ' ', '\t']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Some((_, letter)) = NAMES.iter().find(|(name, _)| *name == word) {
            return self.value(Some(*letter));
        }
        if matches!(kind, Some('s' | 'o' | 'g')) {
            return Err(format!("{word:?} is a text without quotes"));
        }
        let guess = match word {
            "true" | "false" => 'b',
            _ if word.contains(['.', 'e']) && word.parse::<f64>().is_ok() => 'd',
            _ => 'i',
        };
        typed(kind.unwrap_or(guess), word)
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                _ if character == quote => {
                    self.rest = self.rest.get(at + quote.len_utf8()..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => match characters.next().map(|(_, character)| character) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => break,
                },
                _ => text.push(character),
            }
        }
        Err("a quote is not closed".into())
    }

    fn array(&mut self, kind: Option<char>) -> Result<Value, String> {
        self.rest = self.rest.get(1..).unwrap_or_default();
        let mut values: Vec<Value> = Vec::new();
        let mut kind = kind;
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                break;
            }
            if !values.is_empty() {
                self.rest = self.rest.strip_prefix(',').ok_or("a comma is missing in an array")?;
            }
            let value = self.value(kind)?;
            // The first says what all of them are.
            kind = value.signature().chars().next().filter(|letter| *letter != 'a');
            values.push(value);
        }
        let element = match (values.first(), kind) {
            (Some(first), _) => first.signature(),
            (None, Some(letter)) => letter.to_string(),
            (None, None) => return Err("an empty array needs its type, as in @as []".into()),
        };
        if values.iter().any(|value| value.signature() != element) {
            return Err("the values of an array differ in type".into());
        }
        Ok(Value::Array(element, values))
    }

    /// `@as ['a']`: the type, then the value.
    fn annotated(&mut self) -> Result<Value, String> {
        let (kind, rest): (&'a str, &'a str) =
            self.rest.split_once(' ').ok_or("a value is missing behind its type")?;
        self.rest = rest;
        let kind = kind.trim_start_matches('@');
        let letter = kind.trim_start_matches('a').chars().next();
        let value = self.value(letter)?;
        if value.signature() == kind { Ok(value) } else { Err(format!("not of type {kind:?}")) }
    }
}

fn typed(kind: char, word: &str) -> Result<Value, String> {
    let wrong = || format!("{word:?} is not of type {kind:?}");
    let whole = || {
        let hex = word.strip_prefix("0x").map(|digits| i128::from_str_radix(digits, 16));
        hex.unwrap_or_else(|| word.parse()).map_err(|_| wrong())
    };
    fn fit<N: TryFrom<i128>>(number: i128, wrong: String) -> Result<N, String> {
        N::try_from(number).map_err(|_| wrong)
    }
    Ok(match kind {
        'b' => Value::Bool(word.parse().map_err(|_| wrong())?),
        'y' => Value::Byte(fit(whole()?, wrong())?),
        'n' => Value::I16(fit(whole()?, wrong())?),
        'q' => Value::U16(fit(whole()?, wrong())?),
        'i' => Value::I32(fit(whole()?, wrong())?),
        'u' => Value::U32(fit(whole()?, wrong())?),
        'x' => Value::I64(fit(whole()?, wrong())?),
        't' => Value::U64(fit(whole()?, wrong())?),
        'd' => Value::Double(word.parse().map_err(|_| wrong())?),
        's' => Value::Text(word.to_owned()),
        'o' => Value::Path(word.to_owned()),
        'g' => Value::Signature(word.to_owned()),
        _ => return Err(wrong()),
    })
}
