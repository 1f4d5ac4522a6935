//! What a plain scalar of YAML means to kubectl: YAML 1.1 with go-yaml's habits, then JSON.
//!
//! `yes`, `on` and `y` are booleans, `0777` and `0o777` octal, `1_000` a number, `1:30` and dates strings. Pinned
//! by the table below, which kubectl 1.27 and 1.33 printed.

use serde_json::{Number, Value};

/// Resolves a plain scalar; an error for what JSON has no word for.
pub(super) fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => return Err(format!("{text} has no form in JSON")),
        _ => number(text).unwrap_or_else(|| text.into()),
    })
}

/// Resolves a scalar with a tag of YAML's core schema.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let value = plain(text)?;
    match (tag, &value) {
        ("str", _) => Ok(text.into()),
        ("bool", Value::Bool(_)) | ("null", Value::Null) | ("float", Value::Number(_)) => Ok(value),
        ("int", Value::Number(n)) if !n.is_f64() && !text.contains('.') => Ok(value),
        _ => Err(format!("{text:?} is no {tag}")),
    }
}

fn number(text: &str) -> Option<Value> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    // After a point, go-yaml looks past `_` only between digits.
    let between = |at: usize| {
        let bytes = text.as_bytes();
        bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    };
    if first == b'.' && text.match_indices('_').any(|(at, _)| !between(at)) {
        return None;
    }
    let bare = text.replace('_', "");
    integer(&bare).or_else(|| float(&bare))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map(Value::from).ok().or_else(|| u64::try_from(value).map(Value::from).ok())
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shaped = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !shaped || exponent.is_some_and(|e| e.is_empty() || !digits(e)) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|v: &f64| v.is_finite())?;
    // JSON has one kind of number: a float without a fraction comes out of kubectl as an integer.
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Some((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("yes", json!(true)),
            ("Yes", json!(true)),
            ("y", json!(true)),
            ("n", json!(false)),
            ("on", json!(true)),
            ("off", json!(false)),
            ("NO", json!(false)),
            ("TRUE", json!(true)),
            ("tRUE", json!("tRUE")),
            ("oN", json!("oN")),
            ("nULL", json!("nULL")),
            ("NULL", json!(null)),
            ("~", json!(null)),
            ("", json!(null)),
            ("0777", json!(511)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("0B11", json!(3)),
            ("0X1F", json!(31)),
            ("0O17", json!(15)),
            ("-0x1F", json!(-31)),
            ("+0777", json!(511)),
            ("-0o17", json!(-15)),
            ("0o8", json!("0o8")),
            ("0b", json!("0b")),
            ("0x", json!("0x")),
            ("0b102", json!("0b102")),
            ("08", json!(8)),
            ("00", json!(0)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("1_000", json!(1000)),
            ("1__0", json!(10)),
            ("1_", json!(1)),
            ("_1", json!("_1")),
            ("0_7", json!(7)),
            ("1_000.5", json!(1000.5)),
            ("1e3", json!(1000)),
            ("1E5", json!(100_000)),
            ("1e-2", json!(0.01)),
            (".5", json!(0.5)),
            ("+.5", json!(0.5)),
            ("-.5", json!(-0.5)),
            (".5e3", json!(500)),
            ("5.e3", json!(5000)),
            ("1.", json!(1)),
            ("1.0", json!(1)),
            ("1.5e", json!("1.5e")),
            ("1e", json!("1e")),
            (".e1", json!(".e1")),
            ("1e400", json!("1e400")),
            ("1.2.3", json!("1.2.3")),
            (".", json!(".")),
            ("+", json!("+")),
            ("._9", json!("._9")),
            (".1_0", json!(0.1)),
            (".78_7", json!(0.787)),
            (".1_", json!(".1_")),
            (".1__2", json!(".1__2")),
            ("=", json!("=")),
            ("2001-01-01", json!("2001-01-01")),
            ("1:30", json!("1:30")),
            ("inf", json!("inf")),
            ("NaN", json!("NaN")),
            ("0x1p4", json!("0x1p4")),
            ("12345678901234567890", json!(12345678901234567890u64)),
            ("18446744073709551616", json!(18446744073709551616.0)),
            ("0777777777777777777777777", json!(7.777777777777778e23)),
        ] {
            assert_eq!(plain(text), Ok(value), "{text}");
        }
        assert!(plain(".inf").is_err() && plain("-.Inf").is_err() && plain(".nan").is_err());
    }

    #[test]
    fn tags_mean_what_kubectl_takes_them_for() {
        assert_eq!(tagged("str", "yes"), Ok(json!("yes")));
        assert_eq!(tagged("int", "3"), Ok(json!(3)));
        assert_eq!(tagged("float", "1"), Ok(json!(1)));
        assert_eq!(tagged("bool", "yes"), Ok(json!(true)));
        assert!(tagged("int", "3.0").is_err() && tagged("bool", "maybe").is_err() && tagged("null", "x").is_err());
    }
}
