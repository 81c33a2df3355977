use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "LAND" => "한국어",
        "NULL" => "",
        "SPACE" => "abc  def",
        "EDGES" => "  ab c ",
        "DOTS" => "a.b.c",
        _ => return None,
    };
    Some(value.to_owned())
}

#[track_caller]
fn check(word: &str, expected: &str) {
    assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "for {word}");
}

#[track_caller]
fn refused(word: &str) {
    let result = expand(word, '\\', &lookup);
    assert!(result.is_err(), "{word} became {result:?}");
}

#[track_caller]
fn check_words(words: &str, expected: &[&str]) {
    let found = expand_words(words, '\\', &lookup).expect("expands");
    assert_eq!(found, expected, "for {words}");
}

#[test]
fn quotes_come_off_and_single_quotes_shield() {
    check("he'll'o", "hello");
    check("he\\'llo", "he'llo");
    check("\"abc\\tdef\"", "abc\\tdef");
    check("\"abc\\\\tdef\"", "abc\\tdef");
    check("'abc\\tdef'", "abc\\tdef");
    check("abc\\tdef", "abctdef");
    check("\"he'$PWD'\"", "he'/home'");
    check("'\\$PWD'", "\\$PWD");
    check("안'녕'하세요", "안녕하세요");
    check("hello\\", "hello");
    refused("he'llo");
    refused("\"hello\\\"");
}

#[test]
fn names_end_where_a_shell_ends_them() {
    check("he$PWD.x", "he/home.x");
    check("he$1x", "hex");
    check("$001aaa", "aaa");
    check("$@@@", "@@");
    check("$$", "");
    check("he$.x", "he$.x");
    check("$LAND", "한국어");
    check("he\\\\$PWD", "he\\/home");
}

#[test]
fn defaults_tell_unset_from_empty() {
    check("${XXX:-000}", "000");
    check("${NULL:-000}", "000");
    check("${NULL-000}", "");
    check("${XXX-000}", "000");
    check("${XXX:-${YYY:-yyy}}", "yyy");
    check("${PWD:+${PWD}:}xx", "/home:xx");
    check("${NULL:+set}", "");
    check("${NULL+set}", "set");
    check("${XXX:-\\${PWD}z}", "${PWDz}");
    check("${aaa:-bbb}}", "bbb}");
}

#[test]
fn a_demanded_variable_that_is_missing_says_so() {
    let error = expand("${NULL:?give it a value}", '\\', &lookup);
    let message = "give it a value".to_owned();
    assert_eq!(error, Err(ExpandError::Required { name: "NULL".to_owned(), message }));
    refused("${XXX?}");
    check("${NULL?}", "");
}

#[test]
fn patterns_trim_and_replace() {
    check("${DOTS#*.}", "b.c");
    check("${DOTS##*.}", "c");
    check("${DOTS%.*}", "a.b");
    check("${DOTS%%.*}", "a");
    check("${DOTS/./-}", "a-b.c");
    check("${DOTS//./-}", "a-b-c");
    check("${PWD/\\//_}", "_home");
    check("${DOTS#x}", "a.b.c");
}

#[test]
fn what_is_left_open_is_refused() {
    for word in
        ["${}", "${.}", "${PWD", "${PWD:=0}", "${XXX:YYY}", "${{a}", "${:-b}", "${a:-b ${c}"]
    {
        refused(word);
    }
}

#[test]
fn words_split_where_nothing_was_quoted() {
    check_words("hello${SPACE}bye", &["helloabc", "defbye"]);
    check_words("hello\"${SPACE}\"bye", &["helloabc  defbye"]);
    check_words("hello${EDGES}def", &["hello", "ab", "c", "def"]);
    check_words("hello\\ there", &["hello there"]);
    check_words("hello\" there  \"", &["hello there  "]);
}

#[test]
fn hostile_words_cost_little() {
    let deep = format!("{}x{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    assert_eq!(expand(&deep, '\\', &lookup), Err(ExpandError::Deep));
    let value = |_: &str| Some("a".repeat(2_000));
    let stars = format!("${{a#{}b}}", "*a".repeat(200));
    assert_eq!(expand(&stars, '\\', &value), Ok("a".repeat(2_000)));
}
